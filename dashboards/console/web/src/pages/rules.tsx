// Rules: what is loaded and what each raised; one rule with its text and its
// tests. Trying another text and asking why not are loaded when they are used.
import { useState } from 'preact/hooks'
import { enc, get, post } from '../api'
import { go, may, say, upsert, useLive, useLoad } from '../app'
import { now, time } from '../format'
import { t, text } from '../i18n'
import { Listing, Icon, lazy, modelTitle, SeverityMark, Table, useBusy, Wait, Wrong } from '../ui'
import { href, withFilter } from '../url'
import type { Alarm, List, Rule, RuleReport, RuleStatus } from '../types'
import { since } from './alarms'
import { Fact } from './cases'
import { OutList, TakeOut, useOut } from './out'
import { Mistakes, Report } from './report'

const Try = lazy('try', async () => (await import('./try')).Try)
const WhyNotAsk = lazy('whynot', async () => (await import('./whynot')).WhyNotAsk)

const day = 24 * 3_600_000

export function Rules() {
  const loaded = useLoad('rules', (signal) => get<List<Rule>>('/rules', signal))
  const alarms = useLoad('alarms of a day', (signal) => since(now() - day, '', signal))
  const active = useLoad('active alarms', async (signal) => (await get<List<Alarm>>('/alarms?state=active&limit=1000', signal)).items)
  useLive<Alarm>('alarm', (a) => {
    alarms.change((l) => ({ ...l, items: upsert(l.items, a) }))
    active.change((l) => upsert(l, a))
  })
  const items = loaded.data?.items ?? []
  const from = now() - day
  const raised = count((alarms.data?.items ?? []).filter((a) => Date.parse(a.raised_at) >= from))
  const standing = count((active.data ?? []).filter((a) => a.state === 'active'))
  const since24 = new Date(from).toISOString()
  return (
    <>
      <div class="head">
        <h1>{t('ru.title')}</h1>
        <span class="quiet">{t('ru.readonly')}</span>
        <a href="/alarms/load">{t('nav.load')}</a>
      </div>
      <Files onReload={loaded.again} />
      <Listing of={loaded} n={items.length} none={t('ru.none')}>
        <Table kind="rules" heads={[t('ru.rule'), t('ru.severity'), t('ru.active'), t('ru.counts'), t('ru.mode'), t('ru.models'), t('ru.file')]}>
          {items.map((r) => (
            <tr role="row" key={r.id}>
              <td role="cell" class="c-main">
                <a class="title" href={href(['rules', r.id])}>
                  {text(r.title, r.id)}
                </a>
                <span class="sub">{r.id}</span>
              </td>
              <td role="cell" class="nowrap">
                <SeverityMark of={r.severity} quiet />
              </td>
              <td role="cell" class="num">
                <Count name={t('ru.active')} n={active.data === undefined ? undefined : (standing.get(r.id) ?? 0)} to={href(['alarms'], { rule: r.id })} />
              </td>
              <td role="cell" class="num">
                <Count
                  name={t('ru.counts')}
                  n={alarms.data === undefined || r.mode === 'shadow' ? undefined : (raised.get(r.id) ?? 0)}
                  to={href(['alarms'], { rule: r.id, from: since24 })}
                />
              </td>
              <td role="cell" class="nowrap">{t(`ru.mode.${r.mode}`)}</td>
              <td role="cell">{(r.models ?? []).map(modelTitle).join(t('c.comma'))}</td>
              <td role="cell" class="quiet nowrap">
                {r.file}:{r.line}
              </td>
            </tr>
          ))}
        </Table>
      </Listing>
    </>
  )
}

/** Files says when the rule files were read, and what is wrong with them since. */
function Files({ onReload }: { onReload: () => void }) {
  const status = useLoad('rule status', (signal) => get<RuleStatus>('/rules/status', signal))
  const { busy, error, run } = useBusy()
  const s = status.data
  if (s === undefined) return null
  const reload = () =>
    run(async () => {
      try {
        await post('/rules/reload')
        say(t('ru.reloaded'))
        onReload()
      } finally {
        status.again()
      }
    })
  return (
    <div class={s.refused_at === undefined ? 'quiet lead' : 'card'}>
      {s.refused_at === undefined ? (
        <span>{t('ru.loaded', time(s.loaded_at), s.tests)}</span>
      ) : (
        <>
          <h2 class="mark">
            <Icon name="warn" /> {t('ru.refused', time(s.refused_at), time(s.loaded_at))}
          </h2>
          <Mistakes of={s.problems ?? []} onLine={undefined} />
        </>
      )}
      {may('rules') && (
        <button type="button" class={s.refused_at === undefined ? 'link' : ''} disabled={busy} onClick={reload}>
          {t('ru.reload')}
        </button>
      )}
      {s.refused_at === undefined && <Wrong text={error} />}
    </div>
  )
}

function count(alarms: Alarm[]): Map<string, number> {
  const out = new Map<string, number>()
  for (const a of alarms) out.set(a.rule, (out.get(a.rule) ?? 0) + 1)
  return out
}

// On a narrow screen the heads of the columns are not there: the number says what it counts.
function Count({ name, n, to }: { name: string; n: number | undefined; to: string }) {
  const label = <span class="narrow quiet">{name} </span>
  if (n === undefined) return <span class="quiet">{label}–</span>
  return n === 0 ? (
    <span class="quiet">{label}0</span>
  ) : (
    <>
      {label}
      <a href={to}>{n}</a>
    </>
  )
}

const tabs = ['text', 'try', 'whynot'] as const

/** RulePage is one rule; which view of it lives in the address. */
export function RulePage({ id, search }: { id: string; search: string }) {
  const loaded = useLoad('rule ' + id, (signal) => get<Rule>('/rules/' + enc(id), signal))
  const q = new URLSearchParams(search)
  const shown = tabs.filter((x) => x !== 'try' || may('rules'))
  const tab = shown.find((x) => x === q.get('tab')) ?? 'text'
  const r = loaded.data
  if (r === undefined) return <Wait of={loaded} />
  const at = href(['rules', r.id])
  return (
    <>
      <p class="crumb">
        <a href="/rules">
          <Icon name="back" size={14} /> {t('ru.title')}
        </a>
      </p>
      <div class="head">
        <h1>{text(r.title, r.id)}</h1>
        <SeverityMark of={r.severity} quiet />
        {r.mode === 'shadow' && <span class="tag">{t('ru.mode.shadow')}</span>}
        <div class="segments" role="group" aria-label={t('ru.tab')}>
          {shown.map((x) => (
            <button type="button" key={x} aria-pressed={x === tab} onClick={() => go(at + withFilter(search, 'tab', x === 'text' ? '' : x), true)}>
              {t(`ru.tab.${x}`)}
            </button>
          ))}
        </div>
        <a href={href(['alarms'], { rule: r.id })}>{t('ru.alarms')}</a>
      </div>
      {tab === 'try' && <Try rule={r} />}
      {tab === 'whynot' && <WhyNotAsk path={at} search={search} rule={r} device={undefined} />}
      {tab === 'text' && <RuleText r={r} />}
    </>
  )
}

function RuleText({ r }: { r: Rule }) {
  const out = useOut()
  return (
    <div class="columns">
      <div>
        <OutList of={(out.data ?? []).filter((o) => o.rule === r.id)} again={out.again} />
        <section class="card">
          <h2>{t('ru.text')}</h2>
          <pre class="code yaml" tabIndex={0} lang="en">
            {r.text.split('\n').map((l, i) => (
              <YamlLine key={i} of={l} />
            ))}
          </pre>
        </section>
        {may('rules') && <Tests r={r} />}
      </div>
      <section class="card facts">
        <h2>{t('c.details')}</h2>
        <dl>
          <Fact name={t('ru.rule')}>{r.id}</Fact>
          <Fact name={t('ru.mode')}>
            {t(`ru.mode.${r.mode}`)}
            {r.mode === 'shadow' && <span class="sub">{t('ru.shadowText')}</span>}
          </Fact>
          <Fact name={t('ru.models')}>{(r.models ?? []).map(modelTitle).join(t('c.comma'))}</Fact>
          <Fact name={t('ru.file')}>
            {r.file}:{r.line}
          </Fact>
          <Fact name={t('ru.version')}>{r.version}</Fact>
        </dl>
        <div class="buttons">
          <TakeOut rule={r.id} onDone={out.again} />
        </div>
      </section>
    </div>
  )
}

/** Tests runs the tests of the files that run, and shows those of the rule's file. */
function Tests({ r }: { r: Rule }) {
  const [report, setReport] = useState<RuleReport>()
  const { busy, error, run } = useBusy()
  return (
    <section class="card">
      <h2>{t('ru.tests')}</h2>
      <p class="quiet">{t('ru.testsText')}</p>
      <div class="buttons">
        <button type="button" disabled={busy} aria-busy={busy} onClick={() => run(async () => setReport(await post<RuleReport>('/rules/test', {})))}>
          {busy ? t('c.loading') : t('ru.runTests')}
        </button>
      </div>
      <Wrong text={error} />
      {report !== undefined && <Report of={{ ...report, warnings: [], results: (report.results ?? []).filter((x) => x.file === r.file) }} />}
    </section>
  )
}

function YamlLine({ of }: { of: string }) {
  const m = /^(\s*(?:- )?)([\w.]+:)?(.*?)(\s#.*)?$/.exec(of)
  return (
    <>
      {m === null ? (
        of
      ) : (
        <>
          {m[1]}
          {m[2] && <span class="y-key">{m[2]}</span>}
          {m[3]}
          {m[4] && <span class="y-com">{m[4]}</span>}
        </>
      )}
      {'\n'}
    </>
  )
}
