// What a device is told to do, and what became of it.
import { useState } from 'preact/hooks'
import { enc, get, post, query } from '../api'
import { may, say, useLoad } from '../app'
import { fullTime, unit } from '../format'
import { known, t, text } from '../i18n'
import { reason } from '../reasons'
import { Decide, Failed, Modal, useBusy, When } from '../ui'
import type { Command, Device, List, Model, ModelCommand } from '../types'

/** Commands is the card of a device whose model declares commands: the newest ones, and sending another. */
export function Commands({ d, model }: { d: Device; model: Model }) {
  const loaded = useLoad('commands of ' + d.id, async (signal) => (await get<List<Command>>(`/devices/${enc(d.id)}/commands` + query({ limit: 20 }), signal)).items, 5000)
  const [asking, setAsking] = useState(false)
  const declared = (name: string) => model.commands?.find((c) => c.name === name)
  const all = loaded.data ?? []
  return (
    <section class="card">
      <div class="head small">
        <h2>{t('cm.title')}</h2>
        {may('tell') && (
          <button type="button" aria-haspopup="dialog" onClick={() => setAsking(true)}>
            {t('cm.new')}
          </button>
        )}
      </div>
      {loaded.error !== '' && <Failed error={loaded.error} again={loaded.again} />}
      {loaded.data !== undefined && all.length === 0 && <p class="quiet">{t('cm.none')}</p>}
      {all.length > 0 && (
        <ul class="bare lines">
          {all.map((c) => (
            <li key={c.id}>
              <span class="grow">
                {text(declared(c.method)?.title, c.method)} <code>{written(c.params)}</code>
                <span class="sub">
                  {c.by} · <When at={c.created} /> · {t('cm.expires', fullTime(c.expires))}
                </span>
                {c.reason !== undefined && <span class="sub">{reason(c.reason)}</span>}
                {c.answer !== undefined && (
                  <span class="sub">
                    {t('cm.answer')} <code>{written(c.answer)}</code>
                  </span>
                )}
              </span>
              <span>
                {known('cm.', c.state)}
                <span class="sub">
                  <When at={c.answered ?? c.delivered ?? c.sent} />
                </span>
              </span>
            </li>
          ))}
        </ul>
      )}
      {asking && <Ask d={d} of={model.commands ?? []} onClose={() => setAsking(false)} onDone={loaded.again} />}
    </section>
  )
}

const written = (x: unknown) => (x === undefined || x === null || JSON.stringify(x) === '{}' ? '' : JSON.stringify(x))

function Ask({ d, of, onClose, onDone }: { d: Device; of: ModelCommand[]; onClose: () => void; onDone: () => void }) {
  const [method, setMethod] = useState(of[0]!.name)
  const [params, setParams] = useState<Record<string, string>>({})
  const [wrong, setWrong] = useState('')
  const { busy, error, run } = useBusy()
  const c = of.find((x) => x.name === method)!
  const submit = (e: Event) => {
    e.preventDefault()
    const given: Record<string, unknown> = {}
    for (const p of c.params ?? []) {
      const v = params[p.name]?.trim() ?? ''
      if (v === '' && p.optional) continue
      if (v === '' || (p.kind === 'number' && Number.isNaN(Number(v)))) return setWrong(t('de.badNumber', text(p.title, p.name)))
      given[p.name] = p.kind === 'number' ? Number(v) : p.kind === 'bool' ? v === 'true' : v
    }
    run(async () => {
      await post<Command>(`/devices/${enc(d.id)}/commands`, { method, params: given })
      say(t('cm.did', text(c.title, method)))
      onDone()
      onClose()
    })
  }
  return (
    <Modal title={t('cm.new')} onClose={onClose}>
      <form onSubmit={submit} onInput={() => setWrong('')}>
        <p class="quiet">
          {d.name || d.id} · {known('status.', d.status)}
        </p>
        <label>
          {t('cm.command')}
          <select autofocus value={method} onChange={(e) => (setMethod(e.currentTarget.value), setParams({}))}>
            {of.map((x) => (
              <option key={x.name} value={x.name}>
                {text(x.title, x.name)}
              </option>
            ))}
          </select>
        </label>
        {(c.params ?? []).map((p) => (
          <label key={method + p.name}>
            <span>
              {text(p.title, p.name)} <span class="quiet">{[unit(p.unit), p.min !== undefined && `≥ ${p.min}`, p.max !== undefined && `≤ ${p.max}`, p.optional && t('cm.optional')].filter(Boolean).join(' ')}</span>
            </span>
            {p.kind === 'bool' ? (
              <select value={params[p.name] ?? ''} onChange={(e) => setParams({ ...params, [p.name]: e.currentTarget.value })}>
                <option value="" />
                <option value="true">{t('c.yes')}</option>
                <option value="false">{t('c.no')}</option>
              </select>
            ) : (
              <input inputMode={p.kind === 'number' ? 'decimal' : undefined} value={params[p.name] ?? ''} onInput={(e) => setParams({ ...params, [p.name]: e.currentTarget.value })} />
            )}
          </label>
        ))}
        {d.status !== 'online' && <p class="note">{t('cm.away')}</p>}
        <Decide wrong={wrong || error} busy={busy} does={t('cm.send')} onClose={onClose} />
      </form>
    </Modal>
  )
}
