// Trying another text of a rule: check it, run its tests, and step it over the
// stored history beside the rule that runs.
import { useEffect, useRef, useState } from 'preact/hooks'
import { ApiError, post, stream } from '../api'
import { say, words } from '../app'
import { Bars } from '../bars'
import { duration, fullTime, now, num, span, time } from '../format'
import { t, text } from '../i18n'
import { raises } from '../load'
import { mistake } from '../reasons'
import { CopyButton, Icon, SeverityMark, useBusy, When, Wrong } from '../ui'
import { href } from '../url'
import type { Backtest, BacktestCounts, BacktestProgress, BacktestRule, Mistake, Rule, RuleReport } from '../types'
import { Report } from './report'

/** Try is an editor with what can be done about its text. */
export function Try({ rule }: { rule: Rule }) {
  const running = 'rules:\n' + rule.text.replace(/\n*$/, '\n')
  const [typed, setTyped] = useState(running)
  const [report, setReport] = useState<RuleReport>()
  const { busy, error, run } = useBusy()
  const field = useRef<HTMLTextAreaElement>(null)
  const mistakes = [...(report?.problems ?? []), ...(report?.warnings ?? [])]
  const change = (s: string) => {
    setTyped(s)
    setReport(undefined)
  }
  const toLine = (m: Mistake) => {
    const el = field.current
    if (el === null) return
    const lines = typed.split('\n')
    const at = lines.slice(0, m.line - 1).reduce((n, l) => n + l.length + 1, 0) + Math.max(0, m.col - 1)
    el.focus()
    el.setSelectionRange(at, at)
    el.scrollTop = Math.max(0, (el.scrollHeight / lines.length) * (m.line - 4))
  }
  return (
    <>
      <section class="card">
        <h2>{t('try.editor')}</h2>
        <p class="quiet">{t('try.text')}</p>
        <Editor field={field} value={typed} mistakes={mistakes} onChange={change} />
        <div class="buttons">
          <button
            type="button"
            class="primary"
            disabled={busy}
            aria-busy={busy}
            onClick={() => run(async () => setReport(await post<RuleReport>('/rules/test', { text: typed })))}
          >
            {busy ? t('c.loading') : t('try.check')}
          </button>
          {typed !== running && (
            <button type="button" onClick={() => change(running)}>
              {t('try.reset')}
            </button>
          )}
          <CopyButton text={typed} />
        </div>
        <Wrong text={error} />
        {report !== undefined && <Report of={report} onLine={toLine} />}
      </section>
      <BacktestCard
        rule={rule.id}
        edited={typed === running ? undefined : typed}
        onMistakes={(problems) => setReport({ ok: false, problems, warnings: [], results: [] })}
      />
    </>
  )
}

/** Editor is a text with numbered lines; a line with a mistake is marked. */
function Editor({
  field,
  value,
  mistakes,
  onChange,
}: {
  field: preact.RefObject<HTMLTextAreaElement | null>
  value: string
  mistakes: Mistake[]
  onChange: (s: string) => void
}) {
  const gutter = useRef<HTMLDivElement>(null)
  const lines = value.split('\n')
  const wrong = new Map(mistakes.map((m) => [m.line, mistake(m.message)]))
  return (
    <div class="editor">
      <div class="gutter" ref={gutter} aria-hidden="true">
        {lines.map((_, i) => (
          <span key={i} class={wrong.has(i + 1) ? 'bad' : ''} title={wrong.get(i + 1)}>
            {wrong.has(i + 1) && '▸'}
            {i + 1}
          </span>
        ))}
      </div>
      <textarea
        ref={field}
        aria-label={t('try.editor')}
        aria-invalid={mistakes.length > 0}
        lang="en"
        spellcheck={false}
        autocapitalize="off"
        wrap="off"
        rows={Math.min(28, Math.max(12, lines.length + 1))}
        value={value}
        onInput={(e) => onChange(e.currentTarget.value)}
        onScroll={(e) => gutter.current !== null && (gutter.current.scrollTop = e.currentTarget.scrollTop)}
      />
    </div>
  )
}

const ranges: Record<string, number> = { '1h': 1, '24h': 24, '7d': 7 * 24, '30d': 30 * 24 }
const rangeNames = ['1h', '24h', '7d', '30d'] as const

function BacktestCard({ rule, edited, onMistakes }: { rule: string; edited: string | undefined; onMistakes: (m: Mistake[]) => void }) {
  const [range, setRange] = useState<string>('24h')
  const [progress, setProgress] = useState<BacktestProgress | 'starting'>()
  const [error, setError] = useState('')
  const [result, setResult] = useState<Backtest>()
  const abort = useRef<AbortController | undefined>(undefined)
  useEffect(() => () => abort.current?.abort(), [])
  useEffect(() => setResult(undefined), [edited])
  const start = async () => {
    const a = (abort.current = new AbortController())
    setProgress('starting')
    setError('')
    setResult(undefined)
    try {
      const from = new Date(now() - ranges[range]! * 3_600_000).toISOString()
      const body = edited === undefined ? { rule, from } : { text: edited, from }
      setResult(await stream<BacktestProgress, Backtest>('/rules/backtest', body, (p) => !a.signal.aborted && setProgress(p), a.signal))
    } catch (e) {
      if (a.signal.aborted) say(t('bt.stopped'))
      else {
        if (e instanceof ApiError && e.mistakes.length > 0) onMistakes(e.mistakes)
        setError(words(e))
      }
    }
    if (abort.current === a) setProgress(undefined)
  }
  return (
    <section class="card">
      <div class="head small">
        <h2>{t('bt.title')}</h2>
        <div class="segments" role="group" aria-label={t('bt.over')}>
          {rangeNames.map((r) => (
            <button type="button" key={r} aria-pressed={r === range} disabled={progress !== undefined} onClick={() => setRange(r)}>
              {t(`bt.r.${r}`)}
            </button>
          ))}
        </div>
        {progress === undefined ? (
          <button type="button" class="go" onClick={() => void start()}>
            {t('bt.run')}
          </button>
        ) : (
          <button type="button" class="go" onClick={() => abort.current?.abort()}>
            {t('bt.cancel')}
          </button>
        )}
        {edited === undefined && <span class="quiet small">{t('bt.same')}</span>}
      </div>
      {progress !== undefined && (
        <p role="status">
          <progress max={1} value={progress === 'starting' ? 0 : progress.done} aria-label={t('bt.title')} />{' '}
          <span class="quiet num">
            {progress === 'starting' ? t('bt.starting') : t('bt.progress', Math.floor(progress.done * 100), time(progress.at), num(progress.readings))}
          </span>
        </p>
      )}
      <Wrong text={error} />
      {result !== undefined && <Result of={result} edited={edited !== undefined} />}
    </section>
  )
}

function Result({ of, edited }: { of: Backtest; edited: boolean }) {
  return (
    <div class="report">
      <p class="quiet small">{t('bt.took', num(of.readings), fullTime(of.from), fullTime(of.to), span(duration(of.took)))}</p>
      {(of.rules ?? []).map((r) => (
        <RuleResult key={r.rule} r={r} from={Date.parse(of.from)} to={Date.parse(of.to)} edited={edited} />
      ))}
      {(of.notes ?? []).length > 0 && (
        <ul class="quiet small">
          {of.notes!.map((n, i) => (
            <li key={i}>{text(n)}</li>
          ))}
        </ul>
      )}
    </div>
  )
}

const figures: { name: Parameters<typeof t>[0]; of: (c: BacktestCounts) => number; words: (n: number) => string }[] = [
  { name: 'bt.raises', of: (c) => c.raises, words: num },
  { name: 'bt.clears', of: (c) => c.clears, words: num },
  { name: 'bt.escalations', of: (c) => c.escalations, words: num },
  { name: 'bt.entities', of: (c) => c.entities, words: num },
  { name: 'bt.open', of: (c) => c.open, words: num },
  { name: 'bt.active', of: (c) => duration(c.active), words: span },
  { name: 'bt.longest', of: (c) => duration(c.longest), words: span },
  { name: 'bt.per10', of: (c) => c.per_10min, words: num },
  { name: 'bt.peak', of: (c) => c.peak_10min, words: num },
  { name: 'bt.chattering', of: (c) => (c.chattering ?? []).length, words: num },
]

const few = 50

function RuleResult({ r, from, to, edited }: { r: BacktestRule; from: number; to: number; edited: boolean }) {
  const [shown, setShown] = useState(few)
  const other = r.now
  const alarms = r.alarms ?? []
  const order = { tried: 0, now: 1, both: 2 }
  const listed = [...alarms].sort((a, b) => order[a.in] - order[b.in] || Date.parse(a.raised) - Date.parse(b.raised))
  return (
    <section>
      <h3>
        {text(r.title, r.rule)} <span class="quiet">{r.rule}</span>
      </h3>
      {other !== undefined ? <p>{t('bt.agree', r.both, r.only_tried, r.only_now)}</p> : edited && <p class="quiet">{t('bt.newRule')}</p>}
      <table class="plain figuretable">
        <thead>
          <tr>
            <th>{t('bt.figure')}</th>
            <th class="num">{t('bt.tried')}</th>
            {other !== undefined && (
              <>
                <th class="num">{t('bt.now')}</th>
                <th class="num">{t('bt.difference')}</th>
              </>
            )}
          </tr>
        </thead>
        <tbody>
          {figures.map((f) => {
            const mine = f.of(r.tried)
            const theirs = other === undefined ? mine : f.of(other)
            return (
              <tr key={f.name}>
                <td>{t(f.name)}</td>
                <td class="num">
                  <b>{f.words(mine)}</b>
                </td>
                {other !== undefined && (
                  <>
                    <td class="num">{f.words(theirs)}</td>
                    <td class="num">{mine === theirs ? <span class="quiet">=</span> : (mine > theirs ? '+' : '−') + f.words(Math.abs(mine - theirs))}</td>
                  </>
                )}
              </tr>
            )
          })}
        </tbody>
      </table>
      {alarms.length === 0 ? (
        <p class="quiet">{t('bt.none')}</p>
      ) : (
        <>
          <h4>{t('bt.chart')}</h4>
          <Bars bars={raises(alarms, from, to, other !== undefined)} names={other === undefined ? [t('bt.tried')] : [t('bt.tried'), t('bt.now')]} label={t('bt.chart')} />
          <h4>{t('bt.alarms')}</h4>
          <table class="plain">
            <thead>
              <tr>
                <th>{t('al.severity')}</th>
                <th>{t('de.device')}</th>
                <th>{t('why.raised')}</th>
                <th>{t('why.clearedAt')}</th>
                {other !== undefined && <th>{t('bt.in')}</th>}
              </tr>
            </thead>
            <tbody>
              {listed.slice(0, shown).map((a, i) => (
                <tr key={i}>
                  <td>
                    <SeverityMark of={a.severity} quiet />
                  </td>
                  <td>
                    <a href={href(['devices', a.device])}>{a.device}</a>
                    {a.entity !== a.device && <span class="quiet"> · {a.entity}</span>}
                  </td>
                  <td>
                    <When at={a.raised} />
                  </td>
                  <td>{a.cleared === undefined ? <span class="quiet">{t('bt.still')}</span> : <When at={a.cleared} />}</td>
                  {other !== undefined && (
                    <td>
                      {a.in !== 'both' && <Icon name={a.in === 'tried' ? 'plus' : 'minus'} size={14} />} {t(`bt.in.${a.in}`)}
                    </td>
                  )}
                </tr>
              ))}
            </tbody>
          </table>
          {listed.length > shown && (
            <button type="button" onClick={() => setShown(shown + 4 * few)}>
              {t('c.more')}
            </button>
          )}
          {(r.more ?? 0) > 0 && <p class="quiet small">{t('bt.more', r.more!)}</p>}
        </>
      )}
    </section>
  )
}
