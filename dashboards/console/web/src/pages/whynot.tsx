// Why a rule raised no alarm on a device at a moment: the answer in a sentence,
// then each level with its comparisons as they stood.
import { useState } from 'preact/hooks'
import { enc, get, list, query } from '../api'
import { go, state, useLoad, useNames } from '../app'
import { duration, fromLocalInput, fullTime, localInput, now, span } from '../format'
import { known, t, text } from '../i18n'
import { Failed, SeverityMark, Wait, When } from '../ui'
import { href, withFilter } from '../url'
import type { Device, List, Rule, WhyNot, WhyNotLevel } from '../types'
import { Fact } from './cases'
import { Compared, Inputs, Used } from './whydrawer'

/** WhyNotAsk asks for what is not given, a rule or a device, and for the time; the question lives in the address. */
export function WhyNotAsk({ path, search, rule, device }: { path: string; search: string; rule: Rule | undefined; device: Device | undefined }) {
  const q = new URLSearchParams(search)
  const asked = { rule: rule?.id ?? q.get('rule') ?? '', device: device?.id ?? q.get('device') ?? '', at: q.get('at') ?? '' }
  const [other, setOther] = useState(rule === undefined ? asked.rule : asked.device)
  const [at, setAt] = useState(() => localInput(Date.parse(asked.at) || now()))
  const choices = useLoad(`choices ${rule?.id} ${device?.id}`, async (signal): Promise<{ id: string; name: string }[]> => {
    if (rule === undefined) {
      const all = (await get<List<Rule>>('/rules', signal)).items
      return all.filter((r) => r.models?.includes(device!.model)).map((r) => ({ id: r.id, name: text(r.title, r.id) }))
    }
    const some = await Promise.all((rule.models ?? []).map((model) => list<Device>('/devices', { model }, 500, signal)))
    return some.flatMap((x) => x.items).map((d) => ({ id: d.id, name: d.name || d.id }))
  })
  const items = choices.data ?? []
  const ask = (e: Event) => {
    e.preventDefault()
    const time = fromLocalInput(at)
    const next = withFilter(search, rule === undefined ? 'rule' : 'device', other.trim())
    go(path + withFilter(next, 'at', Number.isNaN(time) ? '' : new Date(Math.min(time, now())).toISOString()), true)
  }
  return (
    <section class="card whynot">
      <p class="quiet">{t('wn.text')}</p>
      {choices.error && choices.data === undefined ? (
        <Failed error={choices.error} again={choices.again} />
      ) : choices.data !== undefined && items.length === 0 && rule === undefined ? (
        <p>{t('wn.noRules')}</p>
      ) : (
        <form class="inline" onSubmit={ask}>
          {rule === undefined ? (
            <label>
              {t('wn.rule')}
              <select required value={other} onChange={(e) => setOther(e.currentTarget.value)}>
                <option value="">{t('wn.chooseRule')}</option>
                {items.map((r) => (
                  <option key={r.id} value={r.id}>
                    {r.name}
                  </option>
                ))}
              </select>
            </label>
          ) : (
            <label>
              {t('wn.device')}
              <input list="whynot-devices" required value={other} autocapitalize="off" spellcheck={false} onInput={(e) => setOther(e.currentTarget.value)} />
              <datalist id="whynot-devices">
                {items.map((d) => (
                  <option key={d.id} value={d.id} label={d.name} />
                ))}
              </datalist>
            </label>
          )}
          <label>
            {t('wn.at')}
            <input type="datetime-local" step="1" required value={at} onInput={(e) => setAt(e.currentTarget.value)} />
          </label>
          <button type="submit" class="primary">
            {t('wn.ask')}
          </button>
        </form>
      )}
      {asked.rule !== '' && asked.device !== '' && asked.at !== '' && <Answer key={JSON.stringify(asked)} {...asked} />}
    </section>
  )
}

function Answer({ rule, device, at }: { rule: string; device: string; at: string }) {
  const loaded = useLoad(`whynot ${rule} ${device} ${at}`, (signal) => get<WhyNot>(`/rules/${enc(rule)}/why-not` + query({ device, at }), signal))
  const d = useLoad('device ' + device, (signal) => get<Device>('/devices/' + enc(device), signal))
  const w = loaded.data
  const name = useNames([device, ...(w?.missing ?? []).map((m) => m.device)])
  if (w === undefined) return <Wait of={loaded} />
  const model = d.data === undefined ? undefined : state.models.get(d.data.model)
  const alone = w.entity === undefined || w.entity === w.device
  return (
    <div class="report" role="status">
      <p>
        <span class="tag">{known('wn.r.', w.reason)}</span> <a href={href(['devices', device])}>{name(device)}</a>{' '}
        <span class="quiet">{fullTime(w.at)}</span>
      </p>
      <p class="summary">{text(w.summary)}</p>
      <dl class="tight">
        {!alone && <Fact name={t('wn.entity')}>{w.entity}</Fact>}
        <Fact name={t('wn.alarm')}>
          {w.alarm && (
            <a href={href(['alarms'], { why: w.alarm.id })}>
              {text(w.alarm.title, w.alarm.rule)} · {w.alarm.entity}
            </a>
          )}
        </Fact>
        <Fact name={t('wn.since')}>{w.since && fullTime(w.since)}</Fact>
        <Fact name={t('wn.until')}>{w.until && fullTime(w.until)}</Fact>
        <Fact name={t('wn.lastSeen')}>{w.last_seen ? fullTime(w.last_seen) : w.reason === 'no_data' && t('wn.never')}</Fact>
        <Fact name={t('wn.from')}>{fullTime(w.from)}</Fact>
      </dl>
      {(w.missing ?? []).length > 0 && (
        <section>
          <h3>{t('wn.missing')}</h3>
          <ul class="bare">
            {w.missing!.map((m) => (
              <li key={m.device + m.metric}>
                {name(m.device)} · <b>{text(model?.metrics.find((x) => x.name === m.metric)?.title, m.metric)}</b>{' '}
                <span class="quiet">
                  {m.last === undefined ? t('wn.never') : t('wn.last', fullTime(m.last))}
                  {m.stale && <> · {t('wn.stale', span(duration(m.stale)))}</>}
                </span>
              </li>
            ))}
          </ul>
        </section>
      )}
      <Inputs title={t('wn.late')} of={w.late ?? []} model={model} />
      <Inputs title={t('wn.after')} of={w.after ?? []} model={model} />
      {(w.levels ?? []).length > 0 && (
        <section>
          <h3>{t('wn.levels')}</h3>
          {w.levels!.map((l, i) => (
            <Level key={i} l={l} model={model} alone={alone} />
          ))}
        </section>
      )}
      {(w.notes ?? []).length > 0 && (
        <section>
          <h3>{t('wn.notes')}</h3>
          {w.notes!.map((n, i) => (
            <p key={i} class="quiet">
              {text(n)}
            </p>
          ))}
        </section>
      )}
    </div>
  )
}

function Level({ l, model, alone }: { l: WhyNotLevel; model: Parameters<typeof Compared>[0]['model']; alone: boolean }) {
  const need = duration(l.held)
  return (
    <div class="level">
      <p>
        {l.severity && <SeverityMark of={l.severity} quiet />} <strong>{t('wn.level', known('why.', l.result))}</strong>{' '}
        <span class="quiet">
          {known('wn.s.', l.state)}
          {need > 0 && <> · {t('wn.held', span(need))}</>}
          {l.since && (
            <>
              {' '}
              · {t('wn.since')} <When at={l.since} />
            </>
          )}
          {l.due && <> · {t('wn.due', fullTime(l.due))}</>}
        </span>
      </p>
      <pre class="code" tabIndex={0}>
        {l.condition}
      </pre>
      <Compared e={l} model={model} />
      <details>
        <summary>{t('wn.more')}</summary>
        <Used e={l} model={model} alone={alone} />
      </details>
    </div>
  )
}
