// Who is to have which firmware, and how far it is. Pure functions.
import type { Device, Firmware } from './types'

/** wanted is the firmware that a device is to have: of its own, of its site, of its model. */
export function wanted(d: Device, all: Firmware[]): Firmware | undefined {
  const names = { device: d.id, site: d.attributes?.['site'], model: d.model } as const
  for (const scope of ['device', 'site', 'model'] as const)
    for (const f of all) if (f.model === d.model && f.targets?.some((x) => x.scope === scope && x.name === names[scope])) return f
  return undefined
}

export const progresses = ['done', 'underway', 'failed', 'waiting'] as const
/** Progress is how far a device is with the firmware that it is to have. */
export type Progress = (typeof progresses)[number]

const underway = ['DOWNLOADING', 'DOWNLOADED', 'VERIFIED', 'UPDATING', 'INITIATED', 'QUEUED']

/** progress reads it from what the device says of itself. */
export function progress(d: Device, f: Firmware): Progress {
  const says = (name: string) => d.client?.[name]
  if (says('current_fw_title') === f.title && says('current_fw_version') === f.version) return 'done'
  const other = says('target_fw_version') !== undefined && says('target_fw_version') !== f.version
  if (other) return 'waiting'
  if (says('fw_state') === 'FAILED') return 'failed'
  return underway.includes(String(says('fw_state'))) ? 'underway' : 'waiting'
}
