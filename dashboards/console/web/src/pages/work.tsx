// What the desks of all posts have in common: what waits, grouped, and beside it
// the case that is chosen with what may be done to it. The keyboard is enough:
// the arrows choose, Enter does what the desk is for.
import { useEffect, useRef, useState } from 'preact/hooks'
import { enc, get, list } from '../api'
import { go, may, upsert, useLive, useLoad, useTick, whereOf, type Loaded } from '../app'
import { fullTime, limit, now } from '../format'
import { className, known, t, text } from '../i18n'
import { Due, Empty, Icon, SeverityMark, Wait, When } from '../ui'
import { href, withFilter } from '../url'
import type { Case, Duplicate, List, Report } from '../types'
import { Act, Actions } from './act'
import { Asked, Fact, marks, Step } from './cases'
import { Photos } from './photos'
import { Why } from './whydrawer'

const most = 3000

/** Group is a part of what waits at a desk. */
export interface Group {
  title: string
  items: Case[]
}

/** useCases loads the cases that params select and keeps them up to date; take says which live ones belong to them. */
export function useCases(key: string, params: Record<string, string>, take: (c: Case) => boolean): Loaded<{ items: Case[]; more: boolean }> {
  const loaded = useLoad('desk ' + key, (signal) => list<Case>('/cases', params, most, signal))
  useLive<Case>('case', (c) => {
    if (c.work_order) return
    loaded.change((l) => ({ ...l, items: take(c) ? upsert(l.items, c) : l.items.filter((x) => x.id !== c.id) }))
  })
  return loaded
}

/** dueOf is when the stage of a case must end, ms; Infinity for never. */
export const dueOf = (c: Case) => (c.stage_deadline === undefined ? Infinity : Date.parse(c.stage_deadline))

/** byDue sorts what a critical alarm reports first, as long as that lasts, then those that are due first, then the oldest. */
export function byDue(a: Case, b: Case): number {
  const calm = (c: Case) => (c.severity === 'critical' && !c.back_to_normal ? 0 : 1)
  const x = dueOf(a)
  const y = dueOf(b)
  return calm(a) - calm(b) || (x === y ? 0 : x - y) || Date.parse(a.opened) - Date.parse(b.opened)
}

/** isLate reports whether the stage of an open case has lasted too long. */
export const isLate = (c: Case) => now() > dueOf(c)

/** grouped puts cases under the name that of gives each, in the order of the names. */
export function grouped(items: Case[], of: (c: Case) => string, order: string[] = []): Group[] {
  const by = new Map<string, Case[]>(order.map((o) => [o, []]))
  for (const c of items) by.set(of(c), [...(by.get(of(c)) ?? []), c])
  return [...by].filter(([, items]) => items.length > 0).map(([title, items]) => ({ title, items }))
}

interface DeskProps {
  path: string
  search: string
  loaded: Loaded<{ items: Case[]; more: boolean }>
  groups: Group[]
  /** main is the action that Enter takes on a case; '' for none */
  main: (c: Case) => string
  hint: string
  empty: string
}

/** Desk is what waits and the case that is chosen, which stands in the address. */
export function Desk({ path, search, loaded, groups, main, hint, empty }: DeskProps) {
  useTick(1000)
  const all = groups.flatMap((g) => g.items)
  const chosen = new URLSearchParams(search).get('case') ?? ''
  const [acting, setActing] = useState<{ c: Case; action: string }>()
  const box = useRef<HTMLDivElement>(null)
  const at = useRef(0) // where the chosen one stood
  const index = all.findIndex((c) => c.id === chosen)
  if (index >= 0) at.current = index
  const choose = (id: string) => go(path + withFilter(search, 'case', id), true)
  const focus = (id: string) => box.current?.querySelector<HTMLElement>(`[data-case="${CSS.escape(id)}"]`)?.focus()
  // Nothing has the focus once what had it is gone, then the page has it; what a key moved it to keeps it.
  const refocus = (id: string) => requestAnimationFrame(() => (document.activeElement === document.body || document.activeElement?.id === 'main') && focus(id))
  // What was done leaves the desk: the next one takes its place.
  const next = all[Math.min(at.current, all.length - 1)]?.id ?? ''
  const gone = chosen !== '' && index < 0 && loaded.data !== undefined
  useEffect(() => {
    if (!gone) return
    choose(next)
    if (next !== '') refocus(next)
  }, [gone, next])
  const keys = (e: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[e.key]
    const here = all.findIndex((c) => c.id === (e.target as HTMLElement).dataset?.['case'])
    if (step === undefined || here < 0) return
    e.preventDefault()
    const to = all[Math.max(0, Math.min(all.length - 1, here + step))]!
    choose(to.id)
    focus(to.id)
  }
  const press = (c: Case) => {
    const action = main(c)
    // The first press chooses, the second does: so does the first with the keyboard, where the arrows choose.
    if (chosen !== c.id || action === '') return choose(c.id)
    setActing({ c, action })
  }
  if (loaded.data === undefined) return <Wait of={loaded} />
  if (all.length === 0) return <Empty>{empty}</Empty>
  return (
    <div class={'work' + (index >= 0 ? ' chosen' : '')}>
      <div class="queue" ref={box} onKeyDown={keys}>
        <p class="quiet small wide">{hint}</p>
        {groups.map((g) => (
          <section key={g.title}>
            <h2 class="group">
              {g.title} <span class="quiet">{g.items.length}</span>
              {g.title !== t('fl.late') && g.items.some(isLate) && <span class="bad small"> {t('sum.overdue', g.items.filter(isLate).length)}</span>}
            </h2>
            <ul class="bare">
              {g.items.map((c) => (
                <li key={c.id}>
                  <button
                    type="button"
                    class="pick"
                    data-case={c.id}
                    aria-current={c.id === chosen ? 'true' : undefined}
                    tabIndex={c.id === (index >= 0 ? chosen : all[0]!.id) ? 0 : -1}
                    onClick={() => press(c)}
                  >
                    <Line of={c} />
                  </button>
                </li>
              ))}
            </ul>
          </section>
        ))}
        {loaded.data.more && <p class="quiet foot">{t('c.partial', loaded.data.items.length)}</p>}
      </div>
      {index >= 0 ? (
        <Panel
          key={chosen}
          id={chosen}
          revision={all[index]!.revision}
          onClose={() => {
            choose('')
            refocus(chosen)
          }}
          onDone={loaded.again}
        />
      ) : (
        <p class="empty wide">{t('wk.choose')}</p>
      )}
      {acting !== undefined && (
        <Act
          c={acting.c}
          action={acting.action}
          onClose={() => setActing(undefined)}
          onDone={loaded.again}
          onConflict={loaded.again}
        />
      )}
    </div>
  )
}

function Line({ of: c }: { of: Case }) {
  const calm = c.back_to_normal && (c.alarms ?? []).length > 0
  const more = [whereOf(c), c.id, calm && t('ca.normal'), t(`stage.${c.stage}`), className(c), known('ca.source.', c.source), c.department, marks(c)].filter(Boolean)
  return (
    <>
      <span class="top-line">
        <b>{text(c.title, c.id)}</b>
        {c.severity && <SeverityMark of={c.severity} quiet={c.back_to_normal} />}
      </span>
      <Due of={c} />
      {c.request && (
        <span class="asks">
          <Icon name="clock" size={14} /> {t(`ask.${c.request.kind}`)}
        </span>
      )}
      <span class="sub">
        {more.join(' · ')}
      </span>
    </>
  )
}

/** Panel is one case beside the list: all that is needed to decide. */
function Panel({ id, revision, onClose, onDone }: { id: string; revision: number; onClose: () => void; onDone: () => void }) {
  const loaded = useLoad('case ' + id, (signal) => get<Case>('/cases/' + enc(id), signal))
  const [why, setWhy] = useState('')
  const c = loaded.data
  useEffect(() => {
    if (c !== undefined && c.revision < revision) loaded.again()
  }, [revision])
  if (c === undefined) return <aside class="panel">{<Wait of={loaded} />}</aside>
  return (
    <aside class="panel" aria-label={text(c.title, c.id)}>
      <div class="cardhead">
        <h2>
          <a class="title" href={href(['cases', c.id])}>
            {text(c.title, c.id)}
          </a>
        </h2>
        <button type="button" class="ghost" aria-label={t('c.close')} onClick={onClose}>
          <Icon name="close" />
        </button>
      </div>
      <p class="lead">
        <span class="tag">{t(`stage.${c.stage}`)}</span> <Due of={c} long />
      </p>
      {c.request && <Asked of={c} />}
      <Actions
        of={c}
        onDone={(x) => {
          loaded.change(() => x) // at once: what is done next is done to this revision
          loaded.again()
          onDone()
        }}
        onConflict={() => {
          loaded.again()
          onDone()
        }}
      />
      <Reported of={c} />
      {['reported', 'pending_filing'].includes(c.stage) && <Near of={c} />}
      <dl>
        <Fact name={t('ca.number')}>{c.id}</Fact>
        <Fact name={t('ca.class')}>{className(c)}</Fact>
        <Fact name={t('ca.filing')}>{['reported', 'verifying', 'pending_filing'].includes(c.stage) && c.filing_condition}</Fact>
        <Fact name={t('ca.closing')}>{!['reported', 'verifying', 'pending_filing'].includes(c.stage) && c.closing_condition}</Fact>
        <Fact name={t('ca.limit')}>{limit(c.limit)}</Fact>
        <Fact name={t('ca.deadline')}>{c.deadline && fullTime(c.deadline)}</Fact>
        <Fact name={t('ca.department')}>{c.department}</Fact>
        <Fact name={t('ca.officer')}>{c.officer}</Fact>
        <Fact name={t('ca.component')}>{c.component && (c.component_name || c.component)}</Fact>
        <Fact name={t('al.device')}>{c.device && <a href={href(['devices', c.device])}>{c.device_name || c.device}</a>}</Fact>
        <Fact name={t('ca.grid')}>{c.grid}</Fact>
        <Fact name={t('ca.marks')}>{marks(c)}</Fact>
        <Fact name={t('de.location')}>
          {c.location && (
            <a href={href([], { at: `${c.location.lon},${c.location.lat}`, case: c.id })}>
              <Icon name="pin" size={14} /> {t('map.show')}
            </a>
          )}
        </Fact>
      </dl>
      <Photos of={c} />
      <section class="card">
        <h2>{t('ca.timeline')}</h2>
        <ol class="timeline">
          {(c.timeline ?? []).slice(-8).map((s, i) => (
            <Step key={i} s={s} onWhy={setWhy} />
          ))}
        </ol>
      </section>
      {why !== '' && <Why id={why} alarm={undefined} onClose={() => setWhy('')} />}
    </aside>
  )
}

/** isReported says whether somebody outside reported c, and one may see what they said. */
export const isReported = (c: Case) => ['citizen', 'app', 'hotline', 'transfer'].includes(c.source) && may('reporters')

/** Reported is what somebody said of a case, for those who verify and call back. */
export function Reported({ of: c }: { of: Case }) {
  const asks = isReported(c)
  const loaded = useLoad('report ' + (asks ? c.id : ''), async (signal) =>
    asks ? get<Report>(`/cases/${enc(c.id)}/report`, signal).catch(() => undefined) : undefined,
  )
  const r = loaded.data
  if (r === undefined) return null
  return (
    <section class="card">
      <h2>{t('wk.reported')}</h2>
      {r.description && <p class="said">{r.description}</p>}
      <dl>
        <Fact name={t('wk.address')}>{r.address}</Fact>
        <Fact name={t('wk.reporter')}>{r.reporter.name}</Fact>
        <Fact name={t('wk.phone')}>{r.reporter.phone && <a href={'tel:' + r.reporter.phone}>{r.reporter.phone}</a>}</Fact>
        <Fact name={t('wk.email')}>{r.reporter.email}</Fact>
        <Fact name={t('wk.when')}>
          <When at={r.at} />
        </Fact>
      </dl>
    </section>
  )
}

/** Near are the cases that c may be a duplicate of. */
function Near({ of: c }: { of: Case }) {
  const loaded = useLoad('duplicates ' + c.id, (signal) => get<List<Duplicate>>(`/cases/${enc(c.id)}/duplicates`, signal))
  const items = loaded.data?.items ?? []
  if (items.length === 0) return null
  return (
    <section class="note">
      <b>{t('wk.near', items.length)}</b>
      <ul class="bare">
        {items.map((d) => (
          <li key={d.case.id}>
            <a href={href(['cases', d.case.id])}>{text(d.case.title, d.case.id)}</a>{' '}
            <span class="quiet">
              {t(`stage.${d.case.stage}`)} · {Math.round(d.distance_m)} m · <When at={d.case.opened} />
            </span>
          </li>
        ))}
      </ul>
    </section>
  )
}
