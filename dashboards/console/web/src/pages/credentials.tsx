// What a device is known by: listed without the secrets, issued anew, revoked.
import { useState } from 'preact/hooks'
import { enc, get, post, remove } from '../api'
import { say, state, useLoad } from '../app'
import { fullTime } from '../format'
import { known, t } from '../i18n'
import { CopyBox, Decide, Listing, Modal, Seen, Sure, useBusy, When } from '../ui'
import type { Credential, Credentials as Issued, Device, List, Model } from '../types'

/** Credentials is the card of a device with what it is known by. */
export function Credentials({ d, model }: { d: Device; model: Model | undefined }) {
  const loaded = useLoad('credentials of ' + d.id, async (signal) => (await get<List<Credential>>(`/devices/${enc(d.id)}/credentials`, signal)).items)
  const [open, setOpen] = useState<'issue' | 'revoke'>()
  const all = loaded.data ?? []
  return (
    <section class="card">
      <div class="head small">
        <h2>{t('cr.title')}</h2>
        <button type="button" aria-haspopup="dialog" onClick={() => setOpen('issue')}>
          {t(all.length === 0 ? 'cr.issue' : 'cr.rotate')}
        </button>
        {all.length > 0 && (
          <button type="button" aria-haspopup="dialog" onClick={() => setOpen('revoke')}>
            {t('cr.revoke')}
          </button>
        )}
      </div>
      <Listing of={loaded} n={all.length} none={t('cr.none')}>
        <ul class="bare lines">
          {all.map((c) => (
            <li key={`${c.kind} ${c.hint} ${c.since}`}>
              <span class="grow">
                {known('cr.kind.', c.kind || 'old')} {c.hint && <code>{c.hint}</code>}
                <span class="sub">
                  {c.since !== undefined && (
                    <>
                      {t('cr.since')} <When at={c.since} />
                    </>
                  )}
                  {c.until !== undefined && ` · ${t('ca.until', fullTime(c.until))}`}
                </span>
              </span>
              {c.replaced && <span class="tag">{t('cr.replaced')}</span>}
            </li>
          ))}
        </ul>
      </Listing>
      {open === 'issue' && <Issue d={d} model={model} replaces={all.length > 0} onClose={() => setOpen(undefined)} onDone={loaded.again} />}
      {open === 'revoke' && (
        <Sure
          title={t('cr.revoke')}
          onClose={() => setOpen(undefined)}
          does={async () => {
            await remove(`/devices/${enc(d.id)}/credentials`)
            say(t('cr.revoked', d.name || d.id))
            loaded.again()
          }}
        >
          {t('cr.revokeText', d.name || d.id)}
        </Sure>
      )}
    </section>
  )
}

const kinds = ['token', 'mqtt', 'x509', 'psk'] as const
const overlaps = ['', '1h', '24h', '7d', '30d', '90d'] as const

function Issue({ d, model, replaces, onClose, onDone }: { d: Device; model: Model | undefined; replaces: boolean; onClose: () => void; onDone: () => void }) {
  const [type, setType] = useState<(typeof kinds)[number]>('token')
  const [user, setUser] = useState('')
  const [client, setClient] = useState('')
  const [password, setPassword] = useState('')
  const [certificate, setCertificate] = useState('')
  const [subject, setSubject] = useState('')
  const [identity, setIdentity] = useState('')
  const [key, setKey] = useState('')
  const [overlap, setOverlap] = useState('')
  const [issued, setIssued] = useState<Issued>()
  const { busy, error, run } = useBusy()
  const submit = (e: Event) => {
    e.preventDefault()
    const body = {
      token: {},
      mqtt: { user: user.trim() || undefined, client_id: client.trim() || undefined, password: password || undefined },
      x509: { certificate: certificate.trim() || undefined, subject: subject.trim() || undefined },
      psk: { identity: identity.trim() || undefined, key: key || undefined },
    }[type]
    run(async () => {
      setIssued(await post<Issued>(`/devices/${enc(d.id)}/credentials`, { type, ...body, overlap: overlap || undefined }))
      onDone()
    })
  }
  if (issued !== undefined)
    return (
      <Modal title={t('cr.issued', d.name || d.id)} held onClose={onClose}>
        <Secret device={d.id} model={model} issued={issued} onClose={onClose} />
      </Modal>
    )
  return (
    <Modal title={t(replaces ? 'cr.rotate' : 'cr.issue')} held={busy} onClose={onClose}>
      <form onSubmit={submit}>
        <p class="quiet">{d.name || d.id}</p>
        <label>
          {t('cr.kind')}
          <select autofocus value={type} onChange={(e) => setType(e.currentTarget.value as typeof type)}>
            {kinds.map((k) => (
              <option key={k} value={k}>
                {t(`cr.kind.${k}`)}
              </option>
            ))}
          </select>
        </label>
        {type === 'mqtt' && (
          <>
            <label>
              {t('cr.user')}
              <input value={user} maxLength={128} placeholder={d.id} autocomplete="off" autocapitalize="off" spellcheck={false} onInput={(e) => setUser(e.currentTarget.value)} />
            </label>
            <label>
              {t('cr.client')}
              <input value={client} maxLength={128} autocomplete="off" autocapitalize="off" spellcheck={false} onInput={(e) => setClient(e.currentTarget.value)} />
            </label>
            <label>
              {t('cr.password')}
              <input type="password" autocomplete="new-password" minLength={8} maxLength={128} value={password} onInput={(e) => setPassword(e.currentTarget.value)} />
            </label>
          </>
        )}
        {type === 'x509' && (
          <>
            <label>
              {t('cr.certificate')}
              <textarea
                rows={5}
                maxLength={16384}
                spellcheck={false}
                required={subject.trim() === ''}
                placeholder="-----BEGIN CERTIFICATE-----"
                value={certificate}
                onInput={(e) => setCertificate(e.currentTarget.value)}
              />
            </label>
            <label>
              {t('cr.subject')}
              <input value={subject} maxLength={128} autocomplete="off" autocapitalize="off" spellcheck={false} required={certificate.trim() === ''} onInput={(e) => setSubject(e.currentTarget.value)} />
            </label>
          </>
        )}
        {type === 'psk' && (
          <>
            <label>
              {t('cr.identity')}
              <input value={identity} maxLength={128} placeholder={d.id} autocomplete="off" autocapitalize="off" spellcheck={false} onInput={(e) => setIdentity(e.currentTarget.value)} />
            </label>
            <label>
              {t('cr.key')}
              <input type="password" autocomplete="new-password" minLength={16} maxLength={130} value={key} onInput={(e) => setKey(e.currentTarget.value)} />
            </label>
          </>
        )}
        {replaces && (
          <label>
            {t('cr.overlap')}
            <select value={overlap} onChange={(e) => setOverlap(e.currentTarget.value)}>
              {overlaps.map((o) => (
                <option key={o} value={o}>
                  {t(`cr.overlap.${o || 'none'}`)}
                </option>
              ))}
            </select>
          </label>
        )}
        <Decide wrong={error} busy={busy} does={t('cr.do')} onClose={onClose} />
      </form>
    </Modal>
  )
}

/** sample is a plausible message of a model; the charge of its battery where it has one, which raises no alarm. */
function sample(model: Model | undefined): string {
  if (model?.metrics.some((m) => m.name === 'battery')) return '{"battery": 90}'
  const m = model?.metrics.find((m) => m.kind !== 'text')
  if (m === undefined) return '{"value": 1}'
  const v = m.kind === 'bool' ? true : Math.min(Math.max(1, m.min ?? 1), m.max ?? 1)
  return JSON.stringify({ [m.name]: v })
}

/** Secret shows what was issued, once, and how to try it. */
export function Secret({ device, model, issued: x, onClose }: { device: string; model: Model | undefined; issued: Issued; onClose: () => void }) {
  const body = sample(model)
  const mqtt = /^\[?(.*?)\]?:(\d+)$/.exec(state.info?.mqtt ?? '') ?? undefined
  const names = [x.user && `-u '${x.user}'`, x.password && `-P '${x.password}'`, x.client_id && `-i '${x.client_id}'`].filter(Boolean).join(' ')
  return (
    <>
      {x.certificate === undefined ? <p class="note">{t('cr.once')}</p> : <p>{t('cr.recognised')}</p>}
      {x.token !== undefined && <CopyBox text={x.token} label={`${t('de.token')}: ${device}`} />}
      {x.password !== undefined && (
        <>
          <p>{t('cr.userIs', x.user ?? '')}</p>
          <CopyBox text={x.password} label={`${t('in.password')}: ${device}`} />
        </>
      )}
      {x.key !== undefined && (
        <>
          <p>{t('cr.identityIs', x.identity ?? '')}</p>
          <CopyBox text={x.key} label={`${t('cr.kind.psk')}: ${device}`} />
        </>
      )}
      {x.certificate !== undefined && <CopyBox text={x.certificate} label={`${t('cr.kind.x509')}: ${device}`} />}
      {mqtt !== undefined && x.certificate === undefined && x.key === undefined && (
        <>
          <p>{t('de.tokenTry')}</p>
          <CopyBox label="mosquitto_pub" text={`mosquitto_pub -h ${mqtt[1]} -p ${mqtt[2]} ${x.token !== undefined ? '-u ' + x.token : names} -q 1 -t v1/devices/me/telemetry -m '${body}'`} />
        </>
      )}
      {x.token !== undefined && (
        <>
          <p>{t('de.tokenHTTP')}</p>
          <CopyBox label="curl" text={`curl -d '${body}' -H 'Content-Type: application/json' ${location.origin}/api/v1/${x.token}/telemetry`} />
        </>
      )}
      <Seen does={t('de.tokenDone')} onClose={onClose} />
    </>
  )
}
