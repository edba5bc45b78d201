// Out of service: devices, and what single rules say of a device or group,
// whether there is an alarm or not.
import { useState } from 'preact/hooks'
import { enc, get, post } from '../api'
import { may, say, useLoad, useNames } from '../app'
import { fromLocalInput, fullTime, localInput, now, time } from '../format'
import { t } from '../i18n'
import { Decide, Icon, Modal, useBusy, Wrong } from '../ui'
import { href } from '../url'
import type { List, OutOfService } from '../types'

/** useOut loads what is out of service. */
export const useOut = () => useLoad('out of service', async (signal) => (await get<List<OutOfService>>('/out-of-service', signal)).items)

/** OutList is what is out of service, each with the way back; nothing when all is in service. */
export function OutList({ of, again }: { of: OutOfService[]; again: () => void }) {
  const name = useNames(of.map((o) => o.device ?? ''))
  const { busy, error, run } = useBusy()
  const back = (o: OutOfService) =>
    run(async () => {
      if (o.device) await post(`/devices/${enc(o.device)}/in-service`)
      else await post(`/rules/${enc(o.rule!)}/in-service`, { entity: o.entity })
      say(t('al.didIn', o.device ? name(o.device) : `${o.rule} · ${o.entity}`))
      again()
    })
  if (of.length === 0) return null
  return (
    <section class="card">
      <h2>{t('al.out')}</h2>
      <ul class="bare lines">
        {of.map((o) => (
          <li key={`${o.device} ${o.rule} ${o.entity}`}>
            <span class="grow">
              {o.device ? (
                <a href={href(['devices', o.device])}>{name(o.device)}</a>
              ) : (
                <>
                  <a href={href(['rules', o.rule!])}>{o.rule}</a> · {o.entity}
                </>
              )}
              <span class="sub">
                {t('al.outSince', time(o.since), o.by)} {o.until ? t('ca.until', fullTime(o.until)) : t('out.open')} <em>“{o.reason}”</em>
              </span>
            </span>
            {may('outOfService') && (
              <button type="button" disabled={busy} onClick={() => back(o)}>
                {t('al.inService')}
              </button>
            )}
          </li>
        ))}
      </ul>
      <Wrong text={error} />
    </section>
  )
}

/** TakeOut is the button that takes a device, or what a rule says of one device or group, out of service. */
export function TakeOut({ device, rule, onDone }: { device?: string; rule?: string; onDone: () => void }) {
  const [open, setOpen] = useState(false)
  if (!may('outOfService')) return null
  return (
    <>
      <button type="button" aria-haspopup="dialog" onClick={() => setOpen(true)}>
        <Icon name="pause" size={16} /> {t('al.outOfService')}
      </button>
      {open && <Ask device={device} rule={rule} onDone={onDone} onClose={() => setOpen(false)} />}
    </>
  )
}

function Ask({ device, rule, onDone, onClose }: { device?: string; rule?: string; onDone: () => void; onClose: () => void }) {
  const [entity, setEntity] = useState('')
  const [until, setUntil] = useState('')
  const [reason, setReason] = useState('')
  const [wrong, setWrong] = useState('')
  const { busy, error, run } = useBusy()
  const submit = (e: Event) => {
    e.preventDefault()
    if (rule !== undefined && entity.trim() === '') return setWrong(t('out.needEntity'))
    if (reason.trim() === '') return setWrong(t('al.needReason'))
    run(async () => {
      const body = { reason: reason.trim(), until: until === '' ? undefined : new Date(fromLocalInput(until)).toISOString() }
      if (device !== undefined) await post(`/devices/${enc(device)}/out-of-service`, body)
      else await post(`/rules/${enc(rule!)}/out-of-service`, { ...body, entity: entity.trim() })
      say(t('al.didOut', device ?? `${rule} · ${entity.trim()}`))
      onDone()
      onClose()
    })
  }
  return (
    <Modal title={t(device === undefined ? 'out.rule' : 'out.device')} onClose={onClose}>
      <form onSubmit={submit} onInput={() => setWrong('')}>
        <p class="quiet">{device ?? rule}</p>
        <p>{t(device === undefined ? 'out.ruleText' : 'out.deviceText')}</p>
        {rule !== undefined && (
          <label>
            {t('out.entity')}
            <input autofocus value={entity} autocapitalize="off" spellcheck={false} onInput={(e) => setEntity(e.currentTarget.value)} aria-invalid={wrong === t('out.needEntity')} />
          </label>
        )}
        <label>
          {t('out.until')}
          <input type="datetime-local" min={localInput(now()).slice(0, 16)} value={until} onInput={(e) => setUntil(e.currentTarget.value)} />
        </label>
        <label>
          {t('al.reason')}
          <textarea rows={2} autofocus={rule === undefined} maxLength={500} value={reason} onInput={(e) => setReason(e.currentTarget.value)} aria-invalid={wrong === t('al.needReason')} />
        </label>
        <Decide wrong={wrong || error} busy={busy} does={t('al.outOfService')} onClose={onClose} />
      </form>
    </Modal>
  )
}
