import { expect, it } from 'vitest'
import { progress, wanted } from '../src/firmware'
import type { Device, Firmware, FirmwareTarget } from '../src/types'

const device = (client: Device['client'] = {}): Device => ({ id: 'd', name: 'd', model: 'm', attributes: { site: 's' }, created: '', updated: '', status: 'online', client })
const firmware = (version: string, ...targets: FirmwareTarget[]): Firmware => ({ title: 'f', version, model: 'm', size: 1, checksum: '', by: '', created: '', targets })

it('takes that of the device before that of its site and model, and none of another model', () => {
  const model = firmware('1', { scope: 'model', name: 'm' })
  const site = firmware('2', { scope: 'site', name: 's' })
  const own = firmware('3', { scope: 'device', name: 'd' })
  expect(wanted(device(), [model, site, own])?.version).toBe('3')
  expect(wanted(device(), [model, site])?.version).toBe('2')
  expect(wanted(device(), [model, { ...own, model: 'other' }])?.version).toBe('1')
  expect(wanted(device(), [firmware('4', { scope: 'site', name: 'elsewhere' })])).toBe(undefined)
})

it.each([
  [{}, 'waiting'],
  [{ current_fw_title: 'f', current_fw_version: '1', fw_state: 'UPDATED' }, 'waiting'],
  [{ current_fw_title: 'f', current_fw_version: '1', fw_state: 'DOWNLOADING' }, 'underway'],
  [{ current_fw_version: '1', target_fw_version: '1.5', fw_state: 'FAILED' }, 'waiting'], // of the update before
  [{ target_fw_version: '2', fw_state: 'FAILED' }, 'failed'],
  [{ current_fw_title: 'f', current_fw_version: '2', fw_state: 'UPDATED' }, 'done'],
])('knows how far a device is that says %o', (says, want) => {
  expect(progress(device(says), firmware('2'))).toBe(want)
})
