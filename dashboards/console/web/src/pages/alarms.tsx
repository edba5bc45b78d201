// Alarms: one list, worst first, then oldest. What is held back is a click
// away; what another alarm explains stands below that one. The filters live in
// the address.
import { useEffect, useRef, useState } from 'preact/hooks'
import { enc, get, list, post, query } from '../api'
import { filters, go, may, say, state as app, upsert, useLive, useLoad, useNames, useTick, words } from '../app'
import { age, now, span, time } from '../format'
import { t, text } from '../i18n'
import { Choose, Decide, Empty, Filters, Icon, Modal, Only, Search, SeverityIcon, SeverityMark, Table, useBusy, Wait, When, who, Wrong } from '../ui'
import { choices, href, toggled, withFilter } from '../url'
import { severities, type Alarm, type List, type Rule, type User } from '../types'
import { OutList, useOut } from './out'
import { Why } from './whydrawer'

const views = ['open', 'suppressed', 'shelved', 'out', 'cleared'] as const
type View = (typeof views)[number] | 'raised' // those of a span of time

const most = 5000
const step = 200

/** isShelved says whether an alarm is on the shelf now. */
export const isShelved = (a: Alarm) => a.shelved_until !== undefined && Date.parse(a.shelved_until) > now()

/** isOut says whether a person took an alarm out of service. */
export const isOut = (a: Alarm) => a.out_of_service_since !== undefined

/** isExplained says whether another alarm explains this one. */
export const isExplained = (a: Alarm) => a.state === 'active' && (a.suppressed_by ?? '') !== ''

/** isQuiet says whether anything keeps an alarm from calling for a person. */
export const isQuiet = (a: Alarm) => isShelved(a) || isOut(a) || isExplained(a)

/** byWeight sorts the worst first, then those not acknowledged, then the oldest. */
export function byWeight(a: Alarm, b: Alarm): number {
  return (
    severities.indexOf(a.severity) - severities.indexOf(b.severity) ||
    Number(a.acked) - Number(b.acked) ||
    Date.parse(a.raised_at) - Date.parse(b.raised_at)
  )
}

/** inView says whether an alarm belongs to a view. */
export function inView(a: Alarm, v: View): boolean {
  switch (v) {
    case 'open':
      return a.state === 'active' && !isQuiet(a)
    case 'suppressed':
      return isExplained(a)
    case 'shelved':
      return isShelved(a)
    case 'out':
      return isOut(a)
    case 'cleared':
      return a.state === 'cleared'
    case 'raised':
      return true
  }
}

/** fits says whether an alarm belongs to a list with these filters. */
export function fits(a: Alarm, q: URLSearchParams): boolean {
  if (!inView(a, viewOf(q))) return false
  const raised = Date.parse(a.raised_at)
  // A comparison with NaN, for what is not set, is false.
  if (raised < Date.parse(q.get('from') ?? '') || raised >= Date.parse(q.get('to') ?? '')) return false
  const sev = choices(q.get('severity'), severities)
  if (sev.length > 0 && !sev.includes(a.severity)) return false
  if (q.get('unacked') === '1' && a.acked) return false
  const assignee = q.get('assignee')
  if (assignee && a.assignee !== assignee) return false
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

/** newest leaves out cleared alarms that a later one of the same rule and entity has followed. */
export function newest(items: Alarm[]): Alarm[] {
  const last = new Map<string, number>()
  const key = (a: Alarm) => a.rule + '\n' + a.entity
  for (const a of items) last.set(key(a), Math.max(last.get(key(a)) ?? 0, a.episode))
  return items.filter((a) => a.state === 'active' || a.episode === last.get(key(a)))
}

/** isNamed says that the alarm that explains a may be seen: else only its rule is told. */
export const isNamed = (a: Alarm) => (a.suppressed_by ?? '').includes(':')

/** explained puts alarms below those that explain them, by the id of the latter. */
export function explained(items: Alarm[]): Map<string, Alarm[]> {
  const out = new Map<string, Alarm[]>()
  for (const a of items) if (isExplained(a)) out.set(a.suppressed_by!, [...(out.get(a.suppressed_by!) ?? []), a])
  return out
}

const viewOf = (q: URLSearchParams): View => (q.has('from') ? 'raised' : (views.find((v) => v === q.get('view')) ?? 'open'))

/** since loads the alarms that were raised at a time or later, 5000 at most. */
export async function since(from: number, rule: string, signal: AbortSignal): Promise<{ items: Alarm[]; more: boolean }> {
  const items: Alarm[] = []
  for (let after: string | undefined; ; ) {
    const page = await get<List<Alarm>>('/alarms' + query({ rule, after, limit: 1000 }), signal)
    const all = page.items
    const some = all.filter((a) => Date.parse(a.raised_at) >= from)
    items.push(...some)
    after = page.next ?? undefined
    // The newest come first.
    if (after === undefined || some.length < all.length) return { items, more: false }
    if (items.length >= most) return { items, more: true }
  }
}

async function load(view: View, from: string, rule: string, signal: AbortSignal): Promise<{ items: Alarm[]; more: boolean }> {
  if (view === 'raised') return since(Date.parse(from) || 0, rule, signal)
  if (view === 'cleared') return list<Alarm>('/alarms', { state: 'cleared' }, 500, signal)
  // What is shelved or out of service stays so when its alarm is cleared.
  const [active, held] = await Promise.all([
    list<Alarm>('/alarms', { state: 'active' }, most, signal),
    list<Alarm>('/alarms', { state: 'cleared', suppressed: 'any' }, most, signal),
  ])
  return { items: [...active.items, ...held.items], more: active.more || held.more }
}

/** inOther keeps the filters in another view; the span of time is a view of its own. */
function inOther(search: string, v: View): string {
  return withFilter(withFilter(withFilter(search, 'from', ''), 'to', ''), 'view', v === 'open' ? '' : v)
}

export function Alarms({ search }: { search: string }) {
  useTick(1000)
  const q = new URLSearchParams(search)
  const view = viewOf(q)
  const past = view === 'cleared' || view === 'raised'
  const [shown, setShown] = useState(step)
  const why = q.get('why')
  const [aside, setAside] = useState<{ a: Alarm; how: Aside }>()
  const from = q.get('from') ?? ''
  const key = view === 'raised' ? `${from} ${q.get('rule')}` : past
  const loaded = useLoad('alarms ' + key, (signal) => load(view, from, q.get('rule') ?? '', signal))
  const out = useOut()
  const rules = useLoad('rules', (signal) => get<List<Rule>>('/rules', signal))
  const put = (a: Alarm) => loaded.change((l) => ({ ...l, items: upsert(l.items, a) }))
  useLive<Alarm>('alarm', (a) => {
    const before = loaded.data?.items.find((x) => x.id === a.id)
    if (before !== undefined && isOut(before) !== isOut(a)) out.again()
    put(a)
  })
  useEffect(() => setShown(step), [search])
  const { asked, set, clear } = filters('/alarms', search, ['severity', 'unacked', 'assignee', 'rule', 'device', 'q'])

  const all = past ? (loaded.data?.items ?? []) : newest(loaded.data?.items ?? [])
  const items = all.filter((a) => fits(a, q))
  if (view === 'raised') items.sort((a, b) => Date.parse(b.raised_at) - Date.parse(a.raised_at))
  else items.sort(view === 'cleared' ? (a, b) => Date.parse(b.cleared_at ?? b.raised_at) - Date.parse(a.cleared_at ?? a.raised_at) : byWeight)
  const under = explained(all)
  const byID = new Map(all.map((a) => [a.id, a]))
  const sev = choices(q.get('severity'), severities)
  const here = all.filter((a) => inView(a, view))
  const me = app.user?.name ?? ''
  const mine = here.filter((a) => a.assignee === me).length
  const name = useNames([...items.slice(0, shown).map((a) => a.device), ...(q.get('device') ? [q.get('device')!] : [])])
  const chosen = why === null ? undefined : byID.get(why)
  const count = (v: View) => {
    if (v === 'out') return out.data === undefined ? '' : ' ' + out.data.length
    return loaded.data === undefined || past || v === 'cleared' ? '' : ' ' + all.filter((a) => inView(a, v)).length
  }

  return (
    <>
      <div class="head">
        <h1>{t('al.title')}</h1>
        <div class="segments" role="group" aria-label={t('al.view')}>
          {views.map((v) => (
            <button type="button" key={v} aria-pressed={v === view} onClick={() => go('/alarms' + inOther(search, v), true)}>
              {t(`al.${v}`)}
              {count(v)}
            </button>
          ))}
        </div>
        <a href="/alarms/load">{t('nav.load')}</a>
      </div>
      <Filters clear={clear}>
        <div class="chips" role="group" aria-label={t('al.severity')}>
          {severities.map((s) => {
            const n = here.filter((a) => a.severity === s).length
            return (
              <button
                type="button"
                key={s}
                class="chip"
                aria-pressed={sev.includes(s)}
                onClick={() => set('severity', toggled(q.get('severity'), s, severities))}
              >
                <SeverityIcon of={s} size={16} hollow={n === 0 || view !== 'open'} />
                {t(`sev.${s}`)} <b>{loaded.data === undefined ? '–' : n}</b>
              </button>
            )
          })}
        </div>
        <Search value={asked.q} label={t('al.search')} onChange={(v) => set('q', v)} />
        <Choose label={t('al.rule')} any={t('al.anyRule')} value={asked.rule} of={(rules.data?.items ?? []).map((r) => [r.id, text(r.title, r.id)])} onChange={(v) => set('rule', v)} />
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
        {(mine > 0 || q.get('assignee') === me) && (
          <button type="button" class="chip" aria-pressed={q.get('assignee') === me} onClick={() => set('assignee', q.get('assignee') === me ? '' : me)}>
            {t('al.mine')} <b>{mine}</b>
          </button>
        )}
        {asked.device !== '' && (
          <Only off={() => set('device', '')}>
            {t('al.device')}: {name(asked.device)}
          </Only>
        )}
        {view === 'raised' && <Only off={() => go('/alarms' + inOther(search, 'open'), true)}>{t('al.during', time(from), q.get('to') ? time(q.get('to')!) : t('c.now'))}</Only>}
      </Filters>
      {(view === 'suppressed' || view === 'shelved' || view === 'out') && <p class="quiet lead">{t(`al.about.${view}`)}</p>}
      {view === 'out' && <OutList of={out.data ?? []} again={out.again} />}
      {loaded.data === undefined ? (
        <Wait of={loaded} />
      ) : items.length === 0 ? (
        (view !== 'out' || (out.data ?? []).length === 0) && <Empty>{clear ? t('al.none.filtered') : t(`al.none.${view}`)}</Empty>
      ) : (
        <>
          <Table kind="alarms" heads={[t('al.severity'), t('al.alarm'), t('al.state'), view === 'cleared' ? t('al.cleared') : t('al.age'), t('al.case'), t('al.actions')]}>
            {items.slice(0, shown).map((a) => (
              <Row
                key={a.id}
                a={a}
                name={name(a.device)}
                under={under.get(a.id) ?? []}
                over={byID.get(a.suppressed_by ?? '')}
                put={put}
                onWhy={(id) => go('/alarms' + withFilter(search, 'why', id))}
                onAside={(how) => setAside({ a, how })}
              />
            ))}
          </Table>
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
      {why !== null && <Why id={why} alarm={chosen} onClose={() => set('why', '')} onOther={(id) => set('why', id)} />}
      {aside !== undefined && <PutAside a={aside.a} how={aside.how} put={put} onClose={() => setAside(undefined)} />}
    </>
  )
}

function Row({
  a,
  name,
  under,
  over,
  put,
  onWhy,
  onAside,
}: {
  a: Alarm
  name: string
  under: Alarm[] // the alarms that this one explains
  over: Alarm | undefined // the alarm that explains this one
  put: (a: Alarm) => void
  onWhy: (id: string) => void
  onAside: (how: Aside) => void
}) {
  const [open, setOpen] = useState<'members' | 'under'>()
  const fresh = a.state === 'active' && !a.acked && !isQuiet(a)
  const fold = (what: 'members' | 'under', label: string) => (
    <button type="button" class="link" aria-expanded={open === what} onClick={() => setOpen(open === what ? undefined : what)}>
      {label}
    </button>
  )
  return (
    <tr role="row" class={fresh ? 'fresh' : ''}>
      <td role="cell" class="c-sev">
        <SeverityMark of={a.severity} quiet={a.state === 'cleared' || isQuiet(a)} />
      </td>
      <td role="cell" class="c-main">
        <span class="title">{text(a.title, a.rule)}</span>
        <span class="sub">
          <a href={href(['devices', a.device])} title={a.device}>
            {name}
          </a>
          {a.entity !== a.device && <span> · {a.entity}</span>}
          {a.members !== undefined && a.members.length > 1 && <> · {fold('members', t('al.members', a.members.length))}</>}
          {under.length > 0 && <> · {fold('under', t('al.explains', under.length))}</>}
        </span>
        {isExplained(a) && (
          <span class="sub">
            {t('al.because')}{' '}
            {isNamed(a) ? (
              <button type="button" class="link" aria-haspopup="dialog" onClick={() => onWhy(a.suppressed_by!)}>
                {over === undefined ? t('al.another') : `${text(over.title, over.rule)} · ${over.entity}`}
              </button>
            ) : (
              t('al.another')
            )}
          </span>
        )}
        {open === 'members' && <Devices ids={a.members ?? []} />}
        {open === 'under' && <Under alarms={under} onWhy={onWhy} />}
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
        <span class="buttons">
          <button type="button" onClick={() => onWhy(a.id)} aria-haspopup="dialog">
            {t('al.why')}
          </button>
          <AlarmButtons a={a} put={put} onAside={onAside} />
        </span>
      </td>
    </tr>
  )
}

function Devices({ ids }: { ids: string[] }) {
  const name = useNames(ids.slice(0, 100))
  return (
    <ul class="bare fold">
      {ids.map((id) => (
        <li key={id}>
          <a href={href(['devices', id])} title={id}>
            {name(id)}
          </a>
        </li>
      ))}
    </ul>
  )
}

function Under({ alarms, onWhy }: { alarms: Alarm[]; onWhy: (id: string) => void }) {
  const name = useNames(alarms.slice(0, 100).map((a) => a.device))
  return (
    <ul class="bare fold">
      {alarms.map((a) => (
        <li key={a.id}>
          <SeverityMark of={a.severity} quiet />{' '}
          <button type="button" class="link" aria-haspopup="dialog" onClick={() => onWhy(a.id)}>
            {text(a.title, a.rule)}
          </button>{' '}
          {name(a.device)}
        </li>
      ))}
    </ul>
  )
}

/** AlarmState says in words where an alarm stands: process, acknowledgement and suppression are told apart. */
export function AlarmState({ a }: { a: Alarm }) {
  const about: string[] = []
  if (a.state === 'cleared') about.push(t('al.isCleared'))
  if (a.clearing) about.push(t('al.clearing'))
  if (a.latched) about.push(t('al.latched'))
  if (a.no_data) about.push(t('al.nodata'))
  if (a.flapping) about.push(t('al.flapping'))
  if (isExplained(a)) about.push(t('al.isExplained'))
  if (a.assignee) about.push(t('al.assignedTo', a.assignee))
  return (
    <>
      {a.acked ? (
        <span class="mark quiet" title={a.acked_by && t('al.ackedBy', a.acked_by, time(a.acked_at))}>
          <Icon name="check" size={16} /> {t('al.acked')}
        </span>
      ) : a.state === 'active' ? (
        isQuiet(a) ? <span class="quiet">{t('al.unacked')}</span> : <strong class="mark">{t('al.unacked')}</strong>
      ) : null}
      {about.length > 0 && <span class="sub">{about.join(' · ')}</span>}
      {isShelved(a) && (
        <span class="sub" title={a.reason}>
          {t('al.shelvedUntil', time(a.shelved_until))} {a.shelved_by && t('al.shelvedBy', a.shelved_by)}
          {a.reason && <em> “{a.reason}”</em>}
        </span>
      )}
      {isOut(a) && (
        <span class="sub">
          {t('al.outSince', time(a.out_of_service_since), a.out_of_service_by ?? '')}
          {a.out_of_service_reason && <em> “{a.out_of_service_reason}”</em>}
        </span>
      )}
    </>
  )
}

/** Aside is a way to put an alarm aside that needs a reason. */
export type Aside = 'shelve' | 'out-of-service'

/** AlarmButtons are what a person can do about an alarm; all of it, or what is done every day. */
export function AlarmButtons({ a, put, onAside, all = false }: { a: Alarm; put: (a: Alarm) => void; onAside: (how: Aside) => void; all?: boolean }) {
  const busy = useRef(false)
  const [waits, setWaits] = useState('')
  const name = text(a.title, a.rule)
  const order = (what: 'ack' | 'unshelve' | 'in-service' | 'reset', done: string) => {
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
  const canOut = may('outOfService')
  return (
    <>
      {can && isShelved(a) && (
        <button type="button" disabled={waits !== ''} onClick={() => order('unshelve', t('al.didUnshelve', name))}>
          {t('al.unshelve')}
        </button>
      )}
      {can && a.state === 'active' && !isShelved(a) && (
        <button type="button" class={all ? '' : 'ghost'} onClick={() => onAside('shelve')} aria-haspopup="dialog">
          {t('al.shelve')}
        </button>
      )}
      {canOut && isOut(a) && (
        <button type="button" disabled={waits !== ''} onClick={() => order('in-service', t('al.didIn', name))}>
          {t('al.inService')}
        </button>
      )}
      {all && canOut && !isOut(a) && (
        <button type="button" onClick={() => onAside('out-of-service')} aria-haspopup="dialog">
          {t('al.outOfService')}
        </button>
      )}
      {can && a.state === 'active' && !a.acked && (
        <button type="button" class={isQuiet(a) ? '' : 'primary'} disabled={waits !== ''} onClick={() => order('ack', t('al.didAck', name))}>
          {t('al.ack')}
        </button>
      )}
      {can && a.state === 'active' && (a.latched || a.no_data) && (
        <button type="button" disabled={waits !== ''} onClick={() => order('reset', t('al.didReset', name))}>
          {t('al.reset')}
        </button>
      )}
    </>
  )
}

const shelfTimes = ['30m', '2h', '8h', '24h'] as const

/** PutAside asks for the reason, and how long, for which an alarm is put aside. */
export function PutAside({ a, how, put, onClose }: { a: Alarm; how: Aside; put: (a: Alarm) => void; onClose: () => void }) {
  const [until, setUntil] = useState<string>('2h')
  const [reason, setReason] = useState('')
  const [missing, setMissing] = useState(false)
  const { busy, error, run } = useBusy()
  const labels: Record<string, string> = { '30m': t('d.m', 30), '2h': t('d.h', 2), '8h': t('d.h', 8), '24h': t('d.h', 24) }
  const shelve = how === 'shelve'
  return (
    <Modal title={shelve ? t('al.shelveTitle') : t('al.outTitle')} onClose={onClose}>
      <form
        onSubmit={(e) => {
          e.preventDefault()
          if (reason.trim() === '') return setMissing(true)
          run(async () => {
            put(await post<Alarm>(`/alarms/${enc(a.id)}/${how}`, { for: shelve ? until : undefined, reason: reason.trim() }))
            say(t(shelve ? 'al.didShelve' : 'al.didOut', text(a.title, a.rule)))
            onClose()
          })
        }}
      >
        <p>
          <SeverityMark of={a.severity} /> {text(a.title, a.rule)} <span class="quiet">· {age(a.raised_at)}</span>
        </p>
        <p class="quiet">{shelve ? t('al.shelveText') : t('al.outText')}</p>
        {shelve && (
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
        )}
        <label>
          {t('al.reason')}
          <textarea
            rows={2}
            autofocus
            maxLength={500}
            value={reason}
            placeholder={shelve ? t('al.reasonHint') : t('al.outHint')}
            aria-invalid={missing && reason.trim() === ''}
            onInput={(e) => setReason(e.currentTarget.value)}
          />
        </label>
        <Decide
          wrong={missing && reason.trim() === '' ? t('al.needReason') : error}
          busy={busy}
          does={shelve ? t('al.shelve') : t('al.outOfService')}
          onClose={onClose}
        />
      </form>
    </Modal>
  )
}

/** Assign says who shall look after an alarm. */
export function Assign({ a, put, onClose }: { a: Alarm; put: (a: Alarm) => void; onClose: () => void }) {
  const me = app.user?.name ?? ''
  const [to, setTo] = useState(a.assignee ?? '')
  const { busy, error, run } = useBusy()
  const users = useLoad('users', async (signal) => (may('users') ? (await get<List<User>>('/users', signal)).items : []))
  const assign = (name: string) =>
    run(async () => {
      put(await post<Alarm>(`/alarms/${enc(a.id)}/assign`, { to: name }))
      say(name === '' ? t('al.didUnassign', text(a.title, a.rule)) : t('al.didAssign', text(a.title, a.rule), name))
      onClose()
    })
  return (
    <Modal title={t('al.assignTitle')} onClose={onClose}>
      <form
        onSubmit={(e) => {
          e.preventDefault()
          assign(to.trim())
        }}
      >
        <p>
          <SeverityMark of={a.severity} /> {text(a.title, a.rule)}{' '}
          {a.assignee && <span class="quiet">· {t('al.assignedTo', who(a.assignee))}</span>}
        </p>
        <label>
          {t('al.assignTo')}
          <input list="users" autofocus required value={to} autocapitalize="off" spellcheck={false} onInput={(e) => setTo(e.currentTarget.value)} />
          <datalist id="users">
            {(users.data ?? []).map((u) => (
              <option key={u.name} value={u.name} label={u.title} />
            ))}
          </datalist>
        </label>
        <Wrong text={error} />
        <footer>
          {a.assignee && (
            <button type="button" disabled={busy} onClick={() => assign('')}>
              {t('al.unassign')}
            </button>
          )}
          {a.assignee !== me && (
            <button type="button" disabled={busy} onClick={() => assign(me)}>
              {t('al.assignMe')}
            </button>
          )}
          <button type="submit" class="primary" disabled={busy}>
            {t('al.assign')}
          </button>
        </footer>
      </form>
    </Modal>
  )
}
