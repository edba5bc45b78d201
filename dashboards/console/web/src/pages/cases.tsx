// Cases: the stages as a strip, the list with deadline lights, and one case
// with its evidence, its timeline and what may be done next.
import { useState } from 'preact/hooks'
import { ApiError, enc, get, list } from '../api'
import { filters, may, state, upsert, useLive, useLoad, useNames, useTick, whereOf } from '../app'
import { fullTime, limit } from '../format'
import { className, known, t, text } from '../i18n'
import { Choose, Deadline, Due, Filters, Icon, lightOf, Listing, Search, SeverityIcon, SeverityMark, Table, Wait, When, who } from '../ui'
import { href } from '../url'
import { endStages, openStages, sideStages, type Alarm, type Case, type CaseStep, type Stage } from '../types'
import { Actions } from './act'
import { AlarmState } from './alarms'
import { Photos } from './photos'
import { Why } from './whydrawer'
import { Reported } from './work'

const most = 3000

/** byUrgency sorts by the deadline that is shown, of the stage while there is none of the whole case, the overdue first, then by age. */
export function byUrgency(a: Case, b: Case): number {
  const at = (c: Case) => Date.parse(c.deadline ?? c.stage_deadline ?? '') || Infinity
  const x = at(a)
  const y = at(b)
  return (x === y ? 0 : x - y) || Date.parse(a.opened) - Date.parse(b.opened)
}

/** narrowed is what fits of cases, what is over last, the most urgent first; "" and undefined fit every case. */
export function narrowed(cases: Case[], stage: Stage | undefined, department: string, q: string): Case[] {
  const needle = q.toLowerCase()
  const over = (c: Case) => Number(endStages.includes(c.stage))
  return cases
    .filter(
      (c) =>
        (stage === undefined || c.stage === stage) &&
        (department === '' || c.department === department) &&
        (needle === '' || [c.id, c.title.zh, c.title.en, c.class_name.zh, c.class_name.en, c.grid ?? ''].join('\n').toLowerCase().includes(needle)),
    )
    .sort((a, b) => over(a) - over(b) || byUrgency(a, b))
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
  const { asked, set, clear } = filters('/cases', search, ['stage', 'department', 'q'])
  const { department } = asked
  const all = (loaded.data?.items ?? []).filter((c) => everything || openStages.includes(c.stage))
  const items = narrowed(all, stage, department, asked.q)
  const mine = state.user?.department ?? ''
  const departments = [...new Set([...all.map((c) => c.department ?? ''), department].filter(Boolean))].sort()
  const stages = everything ? [...openStages, ...endStages] : openStages
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
          <a class="button primary" href="/intake/new">
            <Icon name="plus" size={16} /> {t('ca.open')}
          </a>
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
      <Filters clear={clear}>
        <Search value={asked.q} label={t('ca.search')} onChange={(v) => set('q', v)} />
        <Choose label={t('ca.department')} any={t('ca.anyDepartment')} value={department} of={departments.map((d) => [d, d])} onChange={(v) => set('department', v)} />
        {mine !== '' && (
          <button type="button" class="chip" aria-pressed={department === mine} onClick={() => set('department', department === mine ? '' : mine)}>
            {t('ca.mine')} <b>{all.filter((c) => c.department === mine).length}</b>
          </button>
        )}
      </Filters>
      <Listing of={loaded} n={items.length} none={clear ? t('ca.noneFiltered') : orders ? t('ca.noneOrders') : t('ca.none')}>
        {groups.map((g) => (
          <section key={g.stage}>
            <h2 class="group">
              {t(`stage.${g.stage}`)} <span class="quiet">{g.items.length}</span>
            </h2>
            <CaseTable items={g.items} />
          </section>
        ))}
        {loaded.data?.more && <p class="quiet foot">{t('c.partial', loaded.data.items.length)}</p>}
      </Listing>
    </>
  )
}

function CaseTable({ items }: { items: Case[] }) {
  return (
    <Table kind="cases" heads={[t('ca.deadline'), t('ca.case'), t('ca.class'), t('ca.department'), t('ca.grid'), t('ca.opened')]}>
      {items.map((c) => (
        <tr role="row" key={c.id}>
          <td role="cell" class="c-light">
            {c.deadline === undefined ? <Due of={c} /> : <Deadline of={c} />}
          </td>
          <td role="cell" class="c-main">
            <a class="title" href={href(['cases', c.id])}>
              {text(c.title, c.id)}
            </a>
            <span class="sub">
              {whereOf(c) && whereOf(c) + ' · '}
              {c.id}
              {c.severity && (
                <>
                  {' · '}
                  <SeverityIcon of={c.severity} size={13} hollow={c.back_to_normal || c.closed_at !== undefined} /> {t(`sev.${c.severity}`)}
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
    </Table>
  )
}

/** CasePage is one case. */
export function CasePage({ id }: { id: string }) {
  useTick(1000)
  const loaded = useLoad('case ' + id, (signal) => get<Case>('/cases/' + enc(id), signal))
  const [why, setWhy] = useState('')
  // An event carries no actions of ours: ask again instead of taking it.
  useLive<Case>('case', (c) => {
    if (c.id === id && c.revision !== loaded.data?.revision) loaded.again()
  })
  const c = loaded.data
  if (c === undefined) return <Wait of={loaded} />
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
        {c.deadline === undefined ? <Due of={c} long /> : <Deadline of={c} long />}
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
              <Actions
                of={c}
                onDone={(x) => {
                  loaded.change(() => x)
                  if (x.actions === undefined || x.timeline === undefined) loaded.again()
                }}
                onConflict={loaded.again}
              />
            )}
          </section>
          <Reported of={c} />
          {(c.alarms ?? []).length > 0 && (
            <section class={'card evidence' + (c.back_to_normal ? '' : ' pending')}>
              <h2>
                <Icon name={c.back_to_normal ? 'check' : 'clock'} /> {c.back_to_normal ? t('ca.normal') : t('ca.notNormal')}
              </h2>
              <p>{c.back_to_normal ? t('ca.normalText') : t('ca.notNormalText')}</p>
              <CaseAlarms ids={c.alarms ?? []} />
            </section>
          )}
          <Photos of={c} />
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
            <Fact name={t('ca.component')}>
              {c.component && (
                <>
                  <a href={href([], { component: c.component, at: c.location && `${c.location.lon},${c.location.lat}` })}>{c.component_name || c.component}</a>{' '}
                  <span class="quiet">{c.component}</span>
                </>
              )}
            </Fact>
            <Fact name={t('al.device')}>{c.device && <a href={href(['devices', c.device])}>{c.device_name || c.device}</a>}</Fact>
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
    </>
  )
}

/** Asked says what waits for a decision. */
export function Asked({ of: c }: { of: Case }) {
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
export function marks(c: Case): string {
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
  if ([children].flat().every((x) => x === undefined || x === null || x === '' || x === false)) return null
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

/** Step is one line of a timeline. */
export function Step({ s, onWhy }: { s: CaseStep; onWhy: (id: string) => void }) {
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
  if (loaded.data === undefined) return <Wait of={loaded} />
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
