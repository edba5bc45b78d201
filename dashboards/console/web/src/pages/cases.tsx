// Cases: the stages as a strip, the list with deadline lights, and one case
// with its evidence, its timeline and what may be done next.
import { useEffect, useState } from 'preact/hooks'
import { ApiError, enc, get, list, post } from '../api'
import { go, may, say, state, upsert, useLive, useLoad, useNames, useTick, words } from '../app'
import { fullTime, limit } from '../format'
import { className, known, t, text } from '../i18n'
import { Deadline, Empty, Failed, Icon, lightOf, Loading, Modal, place, PlaceFields, Search, SeverityIcon, SeverityMark, useBusy, When, who, Wrong } from '../ui'
import { href, withFilter } from '../url'
import { endStages, openStages, sideStages, type Alarm, type Case, type CaseClass, type CaseStep, type Duplicate, type Move, type Stage } from '../types'
import { AlarmState } from './alarms'
import { Why } from './whydrawer'

const most = 3000

/** byUrgency sorts the overdue first, then by deadline, then by age. */
export function byUrgency(a: Case, b: Case): number {
  const at = (c: Case) => (c.deadline === undefined ? Infinity : Date.parse(c.deadline))
  const x = at(a)
  const y = at(b)
  return (x === y ? 0 : x - y) || Date.parse(a.opened) - Date.parse(b.opened)
}

export function Cases({ search }: { search: string }) {
  useTick(1000)
  const q = new URLSearchParams(search)
  const orders = q.get('orders') === '1'
  const everything = q.get('all') === '1'
  const stage = [...openStages, ...endStages].find((s) => s === q.get('stage'))
  const loaded = useLoad(`cases ${orders} ${everything}`, (signal) =>
    list<Case>('/cases', { open: everything ? undefined : 'true', work_orders: orders ? 'true' : undefined }, most, signal),
  )
  useLive<Case>('case', (c) => {
    if ((c.work_order ?? false) === orders) loaded.change((l) => ({ ...l, items: upsert(l.items, c) }))
  })
  const set = (name: string, value: string) => go('/cases' + withFilter(search, name, value), true)
  const all = (loaded.data?.items ?? []).filter((c) => everything || openStages.includes(c.stage))
  const department = q.get('department') ?? ''
  const needle = q.get('q')?.toLowerCase() ?? ''
  const items = all
    .filter(
      (c) =>
        (stage === undefined || c.stage === stage) &&
        (department === '' || c.department === department) &&
        (needle === '' ||
          [c.id, c.title.zh, c.title.en, c.class_name.zh, c.class_name.en, c.grid ?? ''].join('\n').toLowerCase().includes(needle)),
    )
    .sort(byUrgency)
  const mine = state.user?.department ?? ''
  const departments = [...new Set([...all.map((c) => c.department ?? ''), department].filter(Boolean))].sort()
  const stages = everything ? [...openStages, ...endStages] : openStages
  const filtered = stage !== undefined || department !== '' || needle !== ''
  const groups = stages.map((s) => ({ stage: s, items: items.filter((c) => c.stage === s) })).filter((g) => g.items.length > 0)
  return (
    <>
      <div class="head">
        <h1>{orders ? t('ca.orders') : t('ca.title')}</h1>
        <div class="segments" role="group" aria-label={t('ca.which')}>
          <button type="button" aria-pressed={!orders} onClick={() => set('orders', '')}>
            {t('ca.cases')}
          </button>
          <button type="button" aria-pressed={orders} onClick={() => set('orders', '1')}>
            {t('ca.orders')}
          </button>
        </div>
        <div class="segments" role="group" aria-label={t('ca.scope')}>
          <button type="button" aria-pressed={!everything} onClick={() => set('all', '')}>
            {t('ca.openOnly')}
          </button>
          <button type="button" aria-pressed={everything} onClick={() => set('all', '1')}>
            {t('ca.everything')}
          </button>
        </div>
        {may('cases') && !orders && (
          <button type="button" class="primary" aria-haspopup="dialog" onClick={() => set('new', '1')}>
            <Icon name="plus" size={16} /> {t('ca.open')}
          </button>
        )}
      </div>
      <div class="stages" role="group" aria-label={t('ca.stages')}>
        {stages.map((s) => {
          const of = all.filter((c) => c.stage === s)
          if (of.length === 0 && stage !== s && sideStages.includes(s)) return null
          const late = of.filter((c) => lightOf(c) === 'red' && c.closed_at === undefined).length
          return (
            <button type="button" key={s} aria-pressed={stage === s} onClick={() => set('stage', stage === s ? '' : s)}>
              <span>{t(`stage.${s}`)}</span>
              <b>{loaded.data === undefined ? '–' : of.length}</b>
              {late > 0 && (
                <span class="late">
                  <Icon name="warn" size={14} /> {t('sum.overdue', late)}
                </span>
              )}
            </button>
          )
        })}
      </div>
      <div class="filters" role="group" aria-label={t('c.filter')}>
        <Search value={q.get('q') ?? ''} label={t('ca.search')} onChange={(v) => set('q', v)} />
        <select aria-label={t('ca.department')} value={department} onChange={(e) => set('department', e.currentTarget.value)}>
          <option value="">{t('ca.anyDepartment')}</option>
          {departments.map((d) => (
            <option key={d}>{d}</option>
          ))}
        </select>
        {mine !== '' && (
          <button type="button" class="chip" aria-pressed={department === mine} onClick={() => set('department', department === mine ? '' : mine)}>
            {t('ca.mine')} <b>{all.filter((c) => c.department === mine).length}</b>
          </button>
        )}
        {filtered && (
          <button
            type="button"
            class="link"
            onClick={() => go(href(['cases'], { orders: orders ? '1' : '', all: everything ? '1' : '' }), true)}
          >
            {t('c.clearFilters')}
          </button>
        )}
      </div>
      {loaded.data === undefined ? (
        loaded.error ? <Failed error={loaded.error} again={loaded.again} /> : <Loading />
      ) : items.length === 0 ? (
        <Empty>{filtered ? t('ca.noneFiltered') : orders ? t('ca.noneOrders') : t('ca.none')}</Empty>
      ) : (
        <>
          {groups.map((g) => (
            <section key={g.stage}>
              <h2 class="group">
                {t(`stage.${g.stage}`)} <span class="quiet">{g.items.length}</span>
              </h2>
              <CaseTable items={g.items} />
            </section>
          ))}
          {loaded.data.more && <p class="quiet foot">{t('c.partial', loaded.data.items.length)}</p>}
        </>
      )}
      {q.get('new') === '1' && may('cases') && (
        <OpenCase device={q.get('device') ?? ''} onClose={() => go('/cases' + withFilter(withFilter(search, 'new', ''), 'device', ''), true)} />
      )}
    </>
  )
}

function CaseTable({ items }: { items: Case[] }) {
  return (
    <table class="rows cases" role="table">
      <thead role="rowgroup">
        <tr role="row">
          <th role="columnheader">{t('ca.deadline')}</th>
          <th role="columnheader">{t('ca.case')}</th>
          <th role="columnheader">{t('ca.class')}</th>
          <th role="columnheader">{t('ca.department')}</th>
          <th role="columnheader">{t('ca.grid')}</th>
          <th role="columnheader">{t('ca.opened')}</th>
        </tr>
      </thead>
      <tbody role="rowgroup">
        {items.map((c) => (
          <tr role="row" key={c.id}>
            <td role="cell" class="c-light">
              <Deadline of={c} />
            </td>
            <td role="cell" class="c-main">
              <a class="title" href={href(['cases', c.id])}>
                {text(c.title, c.id)}
              </a>
              <span class="sub">
                {c.id}
                {c.severity && (
                  <>
                    {' · '}
                    <SeverityIcon of={c.severity} size={13} /> {t(`sev.${c.severity}`)}
                  </>
                )}
                {c.back_to_normal && (c.alarms ?? []).length > 0 && <span> · {t('ca.normal')}</span>}
              </span>
            </td>
            <td role="cell" class="c-class">{className(c)}</td>
            <td role="cell" class={'c-dep' + (c.department ? '' : ' none')}>{c.department || '–'}</td>
            <td role="cell" class={'c-grid' + (c.grid ? '' : ' none')}>{c.grid || '–'}</td>
            <td role="cell" class="c-age">
              <When at={c.opened} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  )
}

/** forward are the actions that bring a case on; the others are shown less loudly. */
const forward = [
  'register', 'exists', 'file', 'dispatch', 'accept', 'handle', 'send_check', 'verify', 'close',
  'approve_send_back', 'approve_extension', 'approve_suspension', 'resume', 'endorse_appeal', 'approve_appeal', 'call_back',
]
const satisfactions = ['satisfied', 'fairly', 'dissatisfied', 'unreached'] as const

/** CasePage is one case. */
export function CasePage({ id }: { id: string }) {
  useTick(1000)
  const loaded = useLoad('case ' + id, (signal) => get<Case>('/cases/' + enc(id), signal))
  const [acting, setActing] = useState('')
  const [why, setWhy] = useState('')
  const workflow = useLoad('workflow', (signal) => get<{ moves: Move[] }>('/workflow', signal))
  // An event carries no actions of ours: ask again instead of taking it.
  useLive<Case>('case', (c) => {
    if (c.id === id && c.revision !== loaded.data?.revision) loaded.again()
  })
  const c = loaded.data
  if (c === undefined) return loaded.error ? <Failed error={loaded.error} again={loaded.again} /> : <Loading />
  const over = endStages.includes(c.stage)
  return (
    <>
      <p class="crumb">
        <a href={href(['cases'], { orders: c.work_order ? '1' : '' })}>
          <Icon name="back" size={14} /> {c.work_order ? t('ca.orders') : t('ca.title')}
        </a>
      </p>
      <div class="head">
        <h1>{text(c.title, c.id)}</h1>
        {c.severity && <SeverityMark of={c.severity} quiet={over || c.back_to_normal} />}
        <span class="tag">{t(`stage.${c.stage}`)}</span>
      </div>
      <p class="lead">
        <Deadline of={c} long />
      </p>
      <Track stage={c.stage} />
      <div class="columns">
        <div>
          {c.request && <Asked of={c} />}
          <section class="card">
            <h2>{t('ca.next')}</h2>
            {(c.actions ?? []).length === 0 ? (
              <p class="quiet">{over ? t('ca.over') : t('ca.nothing')}</p>
            ) : (
              <div class="buttons">
                {(c.actions ?? []).map((a) => (
                  <button
                    type="button"
                    key={a}
                    class={forward.includes(a) ? 'primary' : ''}
                    aria-haspopup="dialog"
                    onClick={() => setActing(a)}
                  >
                    {known('act.', a)}
                  </button>
                ))}
              </div>
            )}
          </section>
          {(c.alarms ?? []).length > 0 && (
            <section class={'card evidence' + (c.back_to_normal ? '' : ' pending')}>
              <h2>
                <Icon name={c.back_to_normal ? 'check' : 'clock'} /> {c.back_to_normal ? t('ca.normal') : t('ca.notNormal')}
              </h2>
              <p>{c.back_to_normal ? t('ca.normalText') : t('ca.notNormalText')}</p>
              <CaseAlarms ids={c.alarms ?? []} />
            </section>
          )}
          <section class="card">
            <h2>{t('ca.timeline')}</h2>
            <ol class="timeline">
              {(c.timeline ?? []).map((s, i) => (
                <Step key={i} s={s} onWhy={setWhy} />
              ))}
            </ol>
          </section>
        </div>
        <section class="card facts">
          <h2>{t('c.details')}</h2>
          <dl>
            <Fact name={t('ca.number')}>{c.id}</Fact>
            <Fact name={t('ca.class')}>
              {className(c)} <span class="quiet">{c.class}</span>
            </Fact>
            <Fact name={t('ca.grid')}>{c.grid}</Fact>
            <Fact name={t('de.location')}>
              {c.location && (
                <a href={href([], { at: `${c.location.lon},${c.location.lat}`, case: c.id })}>
                  <Icon name="pin" size={14} /> {t('map.show')}
                </a>
              )}
            </Fact>
            <Fact name={t('ca.merged')}>{c.merged_into && <a href={href(['cases', c.merged_into])}>{c.merged_into}</a>}</Fact>
            <Fact name={t('ca.linked')}>
              {c.linked?.map((id) => (
                <a key={id} href={href(['cases', id])}>
                  {id}{' '}
                </a>
              ))}
            </Fact>
            <Fact name={t('ca.devices')}>{(c.members ?? 0) > 1 && c.members}</Fact>
            <Fact name={t('ca.department')}>{c.department}</Fact>
            <Fact name={t('ca.officer')}>{c.officer}</Fact>
            <Fact name={t('ca.handledBy')}>{c.handled_by}</Fact>
            <Fact name={t('ca.marks')}>{marks(c)}</Fact>
            <Fact name={t('ca.suspendedUntil')}>{c.suspended_until && fullTime(c.suspended_until)}</Fact>
            <Fact name={t('ca.limit')}>{limit(c.limit)}</Fact>
            <Fact name={t('ca.filing')}>{c.filing_condition}</Fact>
            <Fact name={t('ca.closing')}>{c.closing_condition}</Fact>
            <Fact name={t('ca.source')}>{known('ca.source.', c.source)}</Fact>
            <Fact name={t('ca.opened')}>{fullTime(c.opened)}</Fact>
            <Fact name={t('ca.key')}>{c.key}</Fact>
          </dl>
        </section>
      </div>
      {why !== '' && <Why id={why} alarm={undefined} onClose={() => setWhy('')} />}
      {acting !== '' && (
        <Act
          c={c}
          action={acting}
          needs={workflow.data?.moves.find((m) => m.action === acting && m.from.includes(c.stage))?.needs ?? []}
          onClose={() => setActing('')}
          onDone={(x) => {
            loaded.change(() => x)
            if (x.actions === undefined || x.timeline === undefined) loaded.again()
          }}
          onConflict={loaded.again}
        />
      )}
    </>
  )
}

/** Asked says what waits for a decision. */
function Asked({ of: c }: { of: Case }) {
  const r = c.request!
  return (
    <section class="card">
      <h2>
        <Icon name="clock" /> {t(`ask.${r.kind}`)}
      </h2>
      <p>
        {r.note} <span class="quiet">{who(r.by)} · <When at={r.at} /></span>
      </p>
      {r.until && <p>{t('ca.did', t('ca.untilWhen'), fullTime(r.until))}</p>}
      {r.endorsed && <p class="quiet">{t('ask.endorsed')}</p>}
    </section>
  )
}

/** marks is what is to be known of a case besides its stage. */
function marks(c: Case): string {
  return [
    c.supervised && t('mark.supervised'),
    (c.urged ?? 0) > 0 && t('mark.urged', c.urged!),
    (c.extensions ?? 0) > 0 && t('mark.extended', c.extensions!),
    (c.reworked ?? 0) > 0 && t('mark.reworked', c.reworked!),
    c.self_handled && t('mark.selfHandled'),
    c.forced_close && t('mark.forced'),
    c.overdue_exempt && t('mark.exempt'),
  ]
    .filter(Boolean)
    .join(t('list.sep'))
}

/** Fact is one line of a list of facts; left out when there is none. */
export function Fact({ name, children }: { name: string; children: preact.ComponentChildren }) {
  if (children === undefined || children === null || children === '' || children === false) return null
  return (
    <>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </>
  )
}

/** Track shows how far a case has come. */
function Track({ stage }: { stage: Stage }) {
  const main = openStages.filter((s) => s === stage || !sideStages.includes(s))
  const all: Stage[] = [...main, endStages.includes(stage) ? stage : 'closed']
  const at = all.indexOf(stage)
  return (
    <ol class="track" aria-label={t('ca.stages')}>
      {all.map((s, i) => (
        <li key={s} class={i < at ? 'past' : i === at ? 'here' : ''} aria-current={i === at ? 'step' : undefined}>
          <span>{t(`stage.${s}`)}</span>
        </li>
      ))}
    </ol>
  )
}

function Step({ s, onWhy }: { s: CaseStep; onWhy: (id: string) => void }) {
  const said = text(s.text, s.note)
  return (
    <li class={'step-' + s.action}>
      <p>
        <strong>{known('did.', s.action)}</strong>
        {['dispatch', 'redispatch'].includes(s.action) && s.department && <> {t('ca.to', s.department)}</>}
        <span class="quiet">
          {' '}
          {who(s.by)}
          {s.role && <> ({t(`role.${s.role}`)})</>} · <When at={s.at} />
        </span>
      </p>
      {said && <p class="said">{said}</p>}
      {s.alarm && (
        <p class="small">
          <button type="button" class="link" aria-haspopup="dialog" onClick={() => onWhy(s.alarm!)}>
            {t('why.title')}
          </button>
        </p>
      )}
    </li>
  )
}

function CaseAlarms({ ids }: { ids: string[] }) {
  const [why, setWhy] = useState<Alarm>()
  const loaded = useLoad('case alarms ' + ids.join(), (signal) =>
    Promise.all(
      ids.slice(0, 50).map((id) =>
        get<Alarm>('/alarms/' + enc(id), signal).catch((e) => {
          if (e instanceof ApiError && e.status === 404) return undefined
          throw e
        }),
      ),
    ),
  )
  useLive<Alarm>('alarm', (a) => {
    if (ids.includes(a.id)) loaded.change((l) => l.map((x) => (x?.id === a.id ? a : x)))
  })
  const name = useNames((loaded.data ?? []).map((a) => a?.device ?? ''))
  if (loaded.data === undefined) return loaded.error ? <Failed error={loaded.error} again={loaded.again} /> : <Loading />
  return (
    <>
      <ul class="bare lines">
        {loaded.data.map(
          (a) =>
            a !== undefined && (
              <li key={a.id}>
                <SeverityMark of={a.severity} quiet={a.state === 'cleared'} />
                <span class="grow">
                  {text(a.title, a.rule)}
                  <span class="sub">
                    <a href={href(['devices', a.device])} title={a.device}>
                      {name(a.device)}
                    </a>{' '}
                    · {t('why.raised')} <When at={a.raised_at} />
                    {a.cleared_at && (
                      <>
                        {' · '}
                        {t('why.clearedAt')} <When at={a.cleared_at} />
                      </>
                    )}
                  </span>
                </span>
                <span>
                  <AlarmState a={a} />
                </span>
                <button type="button" aria-haspopup="dialog" onClick={() => setWhy(a)}>
                  {t('al.why')}
                </button>
              </li>
            ),
        )}
      </ul>
      {why !== undefined && <Why id={why.id} alarm={why} onClose={() => setWhy(undefined)} />}
    </>
  )
}

function Act({
  c,
  action,
  needs,
  onClose,
  onDone,
  onConflict,
}: {
  c: Case
  action: string
  needs: NonNullable<Move['needs']>
  onClose: () => void
  onDone: (c: Case) => void
  onConflict: () => void
}) {
  const usual = state.classes.get(c.class)?.department ?? ''
  const [note, setNote] = useState('')
  const [department, setDepartment] = useState(action === 'dispatch' ? c.department || usual : '')
  const [officer, setOfficer] = useState('')
  const [until, setUntil] = useState('')
  const [other, setOther] = useState('')
  const [satisfaction, setSatisfaction] = useState<string>(satisfactions[0])
  const [wrong, setWrong] = useState('')
  const { busy, error, run } = useBusy()
  // The revision that was on the screen when the dialog opened: what came after it was not seen.
  const [revision] = useState(c.revision)
  useEffect(() => setWrong(''), [note, department, until, other])
  const noteNeeded = needs.includes('note')
  const depNeeded = needs.includes('department')
  const departments = [...new Set([...state.classes.values()].map((x) => x.department).filter(Boolean))].sort()
  const submit = (e: Event) => {
    e.preventDefault()
    if (depNeeded && department.trim() === '') return setWrong(t('ca.depMissing'))
    if (needs.includes('until') && until === '') return setWrong(t('ca.untilMissing'))
    if (needs.includes('case') && other === '') return setWrong(t('ca.caseMissing'))
    if (noteNeeded && note.trim() === '') return setWrong(t('ca.noteMissing'))
    run(async () => {
      try {
        const x = await post<Case>(`/cases/${enc(c.id)}/actions/${enc(action)}`, {
          note: note.trim() || undefined,
          department: depNeeded ? department.trim() : undefined,
          officer: officer.trim() || undefined,
          until: needs.includes('until') ? new Date(until).toISOString() : undefined,
          case: needs.includes('case') ? other : undefined,
          satisfaction: needs.includes('satisfaction') ? satisfaction : undefined,
          revision,
        })
        onDone(x)
        say(t('ca.did', known('did.', action), text(c.title, c.id)))
        onClose()
      } catch (e) {
        if (!(e instanceof ApiError) || e.status !== 409) throw e
        say(words(e), true)
        onConflict()
        onClose()
      }
    })
  }
  return (
    <Modal title={known('act.', action)} onClose={onClose}>
      <form onSubmit={submit}>
        <p class="quiet">
          {text(c.title)} · {c.id}
        </p>
        {depNeeded && (
          <label>
            {t('ca.depNeeded')}
            <input list="departments" autofocus value={department} onInput={(e) => setDepartment(e.currentTarget.value)} aria-invalid={wrong !== ''} />
            <datalist id="departments">
              {departments.map((d) => (
                <option key={d} value={d} />
              ))}
            </datalist>
            {usual !== '' && <span class="quiet small">{t('ca.depHint', usual)}</span>}
          </label>
        )}
        {needs.includes('officer') && (
          <label>
            {t('ca.officer')}
            <input value={officer} autofocus autocapitalize="off" spellcheck={false} onInput={(e) => setOfficer(e.currentTarget.value)} />
            <span class="quiet small">{t('ca.officerHint')}</span>
          </label>
        )}
        {needs.includes('until') && (
          <label>
            {t('ca.untilWhen')}
            <input type="date" autofocus value={until} onInput={(e) => setUntil(e.currentTarget.value)} aria-invalid={wrong === t('ca.untilMissing')} />
          </label>
        )}
        {needs.includes('case') && <Duplicates of={c} chosen={other} onChoose={setOther} />}
        {needs.includes('satisfaction') && (
          <label>
            {t('ca.satisfaction')}
            <select value={satisfaction} onChange={(e) => setSatisfaction(e.currentTarget.value)}>
              {satisfactions.map((s) => (
                <option key={s} value={s}>
                  {t(`sat.${s}`)}
                </option>
              ))}
            </select>
          </label>
        )}
        {['verify', 'close'].includes(action) && (c.alarms ?? []).length > 0 && !c.back_to_normal && (
          <p class="note">
            <Icon name="warn" size={16} /> {t('ca.did', t('ca.notNormal'), t('ca.notNormalText'))}
          </p>
        )}
        {action === 'close' && c.closing_condition && (
          <p class="note">
            {t('ca.did', t('ca.closing'), c.closing_condition)}
          </p>
        )}
        {action === 'file' && c.filing_condition && (
          <p class="note">
            {t('ca.did', t('ca.filing'), c.filing_condition)}
          </p>
        )}
        <label>
          {noteNeeded ? t('ca.noteNeeded') : t('ca.note')}
          <textarea
            rows={3}
            autofocus={noteNeeded || action === 'handle'}
            value={note}
            onInput={(e) => setNote(e.currentTarget.value)}
            aria-invalid={wrong !== '' && noteNeeded}
          />
        </label>
        <Wrong text={wrong || error} />
        <footer>
          <button type="button" onClick={onClose}>
            {t('c.cancel')}
          </button>
          <button type="submit" class="primary" autofocus={needs.length === 0 && action !== 'handle'} disabled={busy}>
            {known('act.', action)}
          </button>
        </footer>
      </form>
    </Modal>
  )
}

/** Duplicates offers the cases that c may be a duplicate of, and takes any number. */
function Duplicates({ of: c, chosen, onChoose }: { of: Case; chosen: string; onChoose: (id: string) => void }) {
  const loaded = useLoad('duplicates ' + c.id, (signal) => list<Duplicate>(`/cases/${enc(c.id)}/duplicates`, {}, 20, signal))
  return (
    <>
      {(loaded.data?.items ?? []).map((d) => (
        <label key={d.case.id} class="choice">
          <input type="radio" name="duplicate" checked={chosen === d.case.id} onChange={() => onChoose(d.case.id)} />
          <span>
            {text(d.case.title, d.case.id)}
            <span class="sub">
              {d.case.id} · {Math.round(d.distance_m)} m · <When at={d.case.opened} />
            </span>
          </span>
        </label>
      ))}
      {loaded.data !== undefined && loaded.data.items.length === 0 && <p class="quiet">{t('ca.noDuplicates')}</p>}
      <label>
        {t('ca.duplicateOf')}
        <input value={chosen} autocapitalize="off" spellcheck={false} onInput={(e) => onChoose(e.currentTarget.value.trim())} />
      </label>
    </>
  )
}

/** OpenCase registers a case by hand. */
function OpenCase({ device, onClose }: { device: string; onClose: () => void }) {
  const [kind, setKind] = useState('')
  const [title, setTitle] = useState('')
  const [description, setDescription] = useState('')
  const [at, setAt] = useState(device)
  const [lat, setLat] = useState('')
  const [lon, setLon] = useState('')
  const [wrong, setWrong] = useState('')
  const { busy, error, run } = useBusy()
  useEffect(() => setWrong(''), [kind, title, lat, lon])
  const classes = [...state.classes.values()]
  const label = (k: CaseClass) => `${text(k.name, k.code)} ${k.code}`
  const typed = kind.trim()
  const chosen = classes.find((k) => label(k) === typed || k.code === typed || k.name.zh === typed || k.name.en === typed)
  const submit = (e: Event) => {
    e.preventDefault()
    if (title.trim() === '') return setWrong(t('ca.badTitle'))
    if (chosen === undefined) return setWrong(t('ca.badClass'))
    const location = place(lat, lon)
    if (location === 'bad') return setWrong(t('de.badPlace'))
    run(async () => {
      if (at.trim() !== '') await get('/devices/' + enc(at.trim())) // a name that is not there says so
      const c = await post<Case>('/cases', {
        class: chosen.code,
        title: title.trim(),
        description: description.trim() || undefined,
        device: at.trim() || undefined,
        location,
      })
      say(t('ca.opens', c.id))
      onClose()
      go(href(['cases', c.id]))
    })
  }
  return (
    <Modal title={t('ca.open')} onClose={onClose}>
      <form onSubmit={submit}>
        <p class="quiet">{t('ca.openText')}</p>
        <label>
          {t('ca.openTitle')}
          <input autofocus value={title} maxLength={200} onInput={(e) => setTitle(e.currentTarget.value)} aria-invalid={wrong === t('ca.badTitle')} />
        </label>
        <label>
          {t('ca.openClass')}
          <input list="classes" value={kind} autocomplete="off" onInput={(e) => setKind(e.currentTarget.value)} aria-invalid={wrong === t('ca.badClass')} />
          <datalist id="classes">
            {classes.map((k) => (
              <option key={k.code} value={label(k)} />
            ))}
          </datalist>
          {chosen === undefined && <span class="quiet small">{t('ca.openClassHint')}</span>}
        </label>
        {chosen !== undefined && (
          <p class="note small">
            {[
              chosen.filing_condition && t('ca.did', t('ca.filing'), chosen.filing_condition),
              chosen.limit && t('ca.did', t('ca.limit'), limit(chosen.limit)),
              chosen.department && t('ca.did', t('ca.department'), chosen.department),
            ]
              .filter(Boolean)
              .map((x, i) => (
                <span key={i} class="line">
                  {x}
                </span>
              ))}
          </p>
        )}
        <label>
          {t('ca.openMore')}
          <textarea rows={3} value={description} onInput={(e) => setDescription(e.currentTarget.value)} />
        </label>
        <label>
          {t('ca.openDevice')}
          <input value={at} autocapitalize="off" spellcheck={false} onInput={(e) => setAt(e.currentTarget.value)} />
        </label>
        <PlaceFields lat={lat} lon={lon} setLat={setLat} setLon={setLon} />
        <Wrong text={wrong || error} />
        <footer>
          <button type="button" onClick={onClose}>
            {t('c.cancel')}
          </button>
          <button type="submit" class="primary" disabled={busy}>
            {t('ca.open')}
          </button>
        </footer>
      </form>
    </Modal>
  )
}
