// Alarms: one list, worst first, then oldest. The filters live in the address.
import { useEffect, useRef, useState } from 'preact/hooks'
import { enc, get, list, post } from '../api'
import { go, may, say, upsert, useLive, useLoad, useNames, useTick, words } from '../app'
import { age, now, span, time } from '../format'
import { t, text } from '../i18n'
import { Empty, Failed, Icon, Loading, Modal, Search, SeverityIcon, SeverityMark, useBusy, When, Wrong } from '../ui'
import { choices, href, toggled, withFilter } from '../url'
import { severities, type Alarm, type List, type Rule } from '../types'
import { Why } from './whydrawer'

const views = ['open', 'shelved', 'cleared'] as const
type View = (typeof views)[number]

const most = 5000
const step = 200

/** isShelved says whether an alarm is on the shelf now. */
export const isShelved = (a: Alarm) => a.shelved_until !== undefined && Date.parse(a.shelved_until) > now()

/** byWeight sorts the worst first, then those not acknowledged, then the oldest. */
export function byWeight(a: Alarm, b: Alarm): number {
  return (
    severities.indexOf(a.severity) - severities.indexOf(b.severity) ||
    Number(a.acked) - Number(b.acked) ||
    Date.parse(a.raised_at) - Date.parse(b.raised_at)
  )
}

/** fits says whether an alarm belongs to a list with these filters. */
export function fits(a: Alarm, q: URLSearchParams): boolean {
  const view = viewOf(q)
  if (view === 'cleared' ? a.state !== 'cleared' : a.state !== 'active' || isShelved(a) !== (view === 'shelved')) return false
  const sev = choices(q.get('severity'), severities)
  if (sev.length > 0 && !sev.includes(a.severity)) return false
  if (q.get('unacked') === '1' && a.acked) return false
  const rule = q.get('rule')
  if (rule && a.rule !== rule) return false
  const device = q.get('device')
  if (device && a.device !== device && !a.members?.includes(device)) return false
  const s = q.get('q')?.toLowerCase()
  if (s) {
    const hay = [a.title.zh, a.title.en, a.entity, a.device, a.rule, a.case ?? '', ...(a.members ?? [])].join('\n').toLowerCase()
    if (!hay.includes(s)) return false
  }
  return true
}

const viewOf = (q: URLSearchParams): View => views.find((v) => v === q.get('view')) ?? 'open'

export function Alarms({ search }: { search: string }) {
  useTick(1000)
  const q = new URLSearchParams(search)
  const view = viewOf(q)
  const state = view === 'cleared' ? 'cleared' : 'active'
  const [shown, setShown] = useState(step)
  const why = q.get('why')
  const [shelving, setShelving] = useState<Alarm>()
  const loaded = useLoad('alarms ' + state, (signal) => list<Alarm>('/alarms', { state }, state === 'active' ? most : 500, signal))
  const rules = useLoad('rules', (signal) => get<List<Rule>>('/rules', signal))
  const put = (a: Alarm) => loaded.change((l) => ({ ...l, items: upsert(l.items, a) }))
  useLive<Alarm>('alarm', put)
  useEffect(() => setShown(step), [search])
  const set = (name: string, value: string) => go('/alarms' + withFilter(search, name, value), true)

  const all = (loaded.data?.items ?? []).filter((a) => a.state === state)
  const items = all.filter((a) => fits(a, q))
  items.sort(view === 'cleared' ? (a, b) => Date.parse(b.cleared_at ?? b.raised_at) - Date.parse(a.cleared_at ?? a.raised_at) : byWeight)
  const sev = choices(q.get('severity'), severities)
  const inView = all.filter((a) => view === 'cleared' || isShelved(a) === (view === 'shelved'))
  const filtered = ['severity', 'unacked', 'rule', 'device', 'q'].some((k) => q.get(k))
  const name = useNames(items.slice(0, shown).map((a) => a.device))
  const chosen = why === null ? undefined : (loaded.data?.items ?? []).find((a) => a.id === why)

  return (
    <>
      <div class="head">
        <h1>{t('al.title')}</h1>
        <div class="segments" role="group" aria-label={t('al.view')}>
          {views.map((v) => (
            <button type="button" key={v} aria-pressed={v === view} onClick={() => set('view', v === 'open' ? '' : v)}>
              {t(`al.${v}`)}
            </button>
          ))}
        </div>
      </div>
      <div class="filters" role="group" aria-label={t('c.filter')}>
        <div class="chips" role="group" aria-label={t('al.severity')}>
          {severities.map((s) => {
            const n = inView.filter((a) => a.severity === s).length
            return (
              <button
                type="button"
                key={s}
                class="chip"
                aria-pressed={sev.includes(s)}
                onClick={() => set('severity', toggled(q.get('severity'), s, severities))}
              >
                <SeverityIcon of={s} size={16} hollow={n === 0} />
                {t(`sev.${s}`)} <b>{n}</b>
              </button>
            )
          })}
        </div>
        <Search value={q.get('q') ?? ''} label={t('al.search')} onChange={(v) => set('q', v)} />
        <select aria-label={t('al.rule')} value={q.get('rule') ?? ''} onChange={(e) => set('rule', e.currentTarget.value)}>
          <option value="">{t('al.anyRule')}</option>
          {(rules.data?.items ?? []).map((r) => (
            <option key={r.id} value={r.id}>
              {text(r.title, r.id)}
            </option>
          ))}
        </select>
        {view !== 'cleared' && (
          <label class="check">
            <input
              type="checkbox"
              checked={q.get('unacked') === '1'}
              onChange={(e) => set('unacked', e.currentTarget.checked ? '1' : '')}
            />
            {t('al.onlyUnacked')}
          </label>
        )}
        {q.get('device') && (
          <button type="button" class="chip" aria-pressed="true" onClick={() => set('device', '')}>
            {t('al.device')}: {q.get('device')} <Icon name="close" size={14} />
          </button>
        )}
        {filtered && (
          <button type="button" class="link" onClick={() => go('/alarms' + (view === 'open' ? '' : '?view=' + view), true)}>
            {t('c.clearFilters')}
          </button>
        )}
      </div>
      {loaded.data === undefined ? (
        loaded.error ? <Failed error={loaded.error} again={loaded.again} /> : <Loading />
      ) : items.length === 0 ? (
        <Empty>{filtered ? t('al.none.filtered') : t(`al.none.${view}`)}</Empty>
      ) : (
        <>
          <table class="rows alarms" role="table">
            <thead role="rowgroup">
              <tr role="row">
                <th role="columnheader">{t('al.severity')}</th>
                <th role="columnheader">{t('al.alarm')}</th>
                <th role="columnheader">{t('al.state')}</th>
                <th role="columnheader">{view === 'cleared' ? t('al.cleared') : t('al.age')}</th>
                <th role="columnheader">{t('al.case')}</th>
                <th role="columnheader">{t('al.actions')}</th>
              </tr>
            </thead>
            <tbody role="rowgroup">
              {items.slice(0, shown).map((a) => (
                <Row
                  key={a.id}
                  a={a}
                  name={name(a.device)}
                  put={put}
                  onWhy={() => go('/alarms' + withFilter(search, 'why', a.id))}
                  onShelve={() => setShelving(a)}
                />
              ))}
            </tbody>
          </table>
          <p class="quiet foot">
            {items.length > shown ? t('c.countOf', shown, items.length) : t('c.count', items.length)}{' '}
            {loaded.data.more && t('c.partial', loaded.data.items.length)}{' '}
            {items.length > shown && (
              <button type="button" onClick={() => setShown(shown + step)}>
                {t('c.more')}
              </button>
            )}
          </p>
        </>
      )}
      {why !== null && <Why id={why} alarm={chosen} onClose={() => set('why', '')} />}
      {shelving !== undefined && <Shelve a={shelving} put={put} onClose={() => setShelving(undefined)} />}
    </>
  )
}

function Row({ a, name, put, onWhy, onShelve }: { a: Alarm; name: string; put: (a: Alarm) => void; onWhy: () => void; onShelve: () => void }) {
  const fresh = a.state === 'active' && !a.acked && !isShelved(a)
  return (
    <tr role="row" class={fresh ? 'fresh' : ''}>
      <td role="cell" class="c-sev">
        <SeverityMark of={a.severity} quiet={a.state === 'cleared'} />
      </td>
      <td role="cell" class="c-main">
        <span class="title">{text(a.title, a.rule)}</span>
        <span class="sub">
          <a href={href(['devices', a.device])} title={a.device}>
            {name}
          </a>
          {a.entity !== a.device && <span> · {a.entity}</span>}
          {a.members !== undefined && a.members.length > 1 && <span> · {t('al.members', a.members.length)}</span>}
        </span>
      </td>
      <td role="cell" class="c-state">
        <AlarmState a={a} />
      </td>
      <td role="cell" class="c-age">
        {a.state === 'cleared' ? (
          <>
            <When at={a.cleared_at} />
            <span class="sub">{t('al.lasted', span(Date.parse(a.cleared_at ?? a.raised_at) - Date.parse(a.raised_at)))}</span>
          </>
        ) : (
          <>
            {span(now() - Date.parse(a.raised_at))}
            <span class="sub">
              <When at={a.raised_at} />
            </span>
          </>
        )}
      </td>
      <td role="cell" class="c-case">{a.case && <a href={href(['cases', a.case])}>{a.case}</a>}</td>
      <td role="cell" class="c-act">
        <AlarmButtons a={a} put={put} onWhy={onWhy} onShelve={onShelve} />
      </td>
    </tr>
  )
}

/** AlarmState says in words where an alarm stands: process, acknowledgement and suppression are told apart. */
export function AlarmState({ a }: { a: Alarm }) {
  const about: string[] = []
  if (a.state === 'cleared') about.push(t('al.isCleared'))
  if (a.clearing) about.push(t('al.clearing'))
  if (a.latched) about.push(t('al.latched'))
  if (a.no_data) about.push(t('al.nodata'))
  return (
    <>
      {a.acked ? (
        <span class="mark quiet" title={a.acked_by && t('al.ackedBy', a.acked_by, time(a.acked_at))}>
          <Icon name="check" size={16} /> {t('al.acked')}
        </span>
      ) : a.state === 'active' ? (
        <strong class="mark">{t('al.unacked')}</strong>
      ) : null}
      {about.length > 0 && <span class="sub">{about.join(' · ')}</span>}
      {isShelved(a) && (
        <span class="sub" title={a.reason}>
          {t('al.shelvedUntil', time(a.shelved_until))} {a.shelved_by && t('al.shelvedBy', a.shelved_by)}
          {a.reason && <em> “{a.reason}”</em>}
        </span>
      )}
    </>
  )
}

/** AlarmButtons are what a person can do about an alarm. */
export function AlarmButtons({ a, put, onWhy, onShelve }: { a: Alarm; put: (a: Alarm) => void; onWhy: () => void; onShelve: () => void }) {
  const busy = useRef(false)
  const [waits, setWaits] = useState('')
  const name = text(a.title, a.rule)
  const order = (what: 'ack' | 'unshelve' | 'reset', done: string) => {
    if (busy.current) return
    busy.current = true
    setWaits(what)
    post<Alarm>(`/alarms/${enc(a.id)}/${what}`)
      .then(
        (x) => {
          put(x)
          say(done)
        },
        (e) => say(words(e), true),
      )
      .finally(() => {
        busy.current = false
        setWaits('')
      })
  }
  const can = may('alarms')
  return (
    <span class="buttons">
      <button type="button" onClick={onWhy} aria-haspopup="dialog">
        {t('al.why')}
      </button>
      {can &&
        a.state === 'active' &&
        (isShelved(a) ? (
          <button type="button" disabled={waits !== ''} onClick={() => order('unshelve', t('al.didUnshelve', name))}>
            {t('al.unshelve')}
          </button>
        ) : (
          <button type="button" class="ghost" onClick={onShelve} aria-haspopup="dialog">
            {t('al.shelve')}
          </button>
        ))}
      {can && a.state === 'active' && !a.acked && (
        <button type="button" class="primary" disabled={waits !== ''} onClick={() => order('ack', t('al.didAck', name))}>
          {t('al.ack')}
        </button>
      )}
      {can && (a.latched || a.no_data) && (
        <button type="button" disabled={waits !== ''} onClick={() => order('reset', t('al.didReset', name))}>
          {t('al.reset')}
        </button>
      )}
    </span>
  )
}

const shelfTimes = ['30m', '2h', '8h', '24h'] as const

function Shelve({ a, put, onClose }: { a: Alarm; put: (a: Alarm) => void; onClose: () => void }) {
  const [until, setUntil] = useState<string>('2h')
  const [reason, setReason] = useState('')
  const [missing, setMissing] = useState(false)
  const { busy, error, run } = useBusy()
  const labels: Record<string, string> = { '30m': t('d.m', 30), '2h': t('d.h', 2), '8h': t('d.h', 8), '24h': t('d.h', 24) }
  return (
    <Modal title={t('al.shelveTitle')} onClose={onClose}>
      <form
        onSubmit={(e) => {
          e.preventDefault()
          if (reason.trim() === '') return setMissing(true)
          run(async () => {
            put(await post<Alarm>(`/alarms/${enc(a.id)}/shelve`, { for: until, reason: reason.trim() }))
            say(t('al.didShelve', text(a.title, a.rule)))
            onClose()
          })
        }}
      >
        <p>
          <SeverityMark of={a.severity} /> {text(a.title, a.rule)} <span class="quiet">· {age(a.raised_at)}</span>
        </p>
        <p class="quiet">{t('al.shelveText')}</p>
        <fieldset>
          <legend>{t('al.shelveFor')}</legend>
          <div class="chips">
            {shelfTimes.map((x) => (
              <label class="radio" key={x}>
                <input type="radio" name="for" checked={until === x} onChange={() => setUntil(x)} /> {labels[x]}
              </label>
            ))}
          </div>
        </fieldset>
        <label>
          {t('al.reason')}
          <textarea
            rows={2}
            autofocus
            value={reason}
            placeholder={t('al.reasonHint')}
            aria-invalid={missing && reason.trim() === ''}
            onInput={(e) => setReason(e.currentTarget.value)}
          />
        </label>
        <Wrong text={missing && reason.trim() === '' ? t('al.needReason') : error} />
        <footer>
          <button type="button" onClick={onClose}>
            {t('c.cancel')}
          </button>
          <button type="submit" class="primary" disabled={busy}>
            {t('al.shelve')}
          </button>
        </footer>
      </form>
    </Modal>
  )
}
