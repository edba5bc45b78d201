// What checking and testing rule files found.
import { t } from '../i18n'
import { mistake } from '../reasons'
import { Icon } from '../ui'
import type { Mistake, RuleReport, RuleResult } from '../types'

/** Report is mistakes and warnings, each at its line with the caret, and the outcome of the tests; onLine goes to a line. */
export function Report({ of, onLine }: { of: RuleReport; onLine?: (m: Mistake) => void }) {
  const problems = of.problems ?? []
  const warnings = of.warnings ?? []
  const results = of.results ?? []
  const failed = results.filter((r) => !r.ok)
  return (
    <div role="status" class="report">
      {problems.length > 0 && (
        <>
          <h3 class="mark bad">
            <Icon name="warn" size={16} /> {t('try.problems', problems.length)}
          </h3>
          <Mistakes of={problems} onLine={onLine} />
        </>
      )}
      {warnings.length > 0 && (
        <>
          <h3 class="mark">
            <Icon name="warn" size={16} /> {t('try.warnings', warnings.length)}
          </h3>
          <Mistakes of={warnings} onLine={onLine} />
        </>
      )}
      {problems.length === 0 && (
        <>
          {onLine !== undefined && (
            <p class="mark">
              <Icon name="check" size={16} /> {t('try.good')}
            </p>
          )}
          {results.length === 0 ? (
            <p class="quiet">{onLine === undefined ? t('ru.noTests') : t('try.noTests')}</p>
          ) : (
            <>
              <p class={'mark' + (failed.length > 0 ? ' bad' : '')}>
                <Icon name={failed.length > 0 ? 'warn' : 'check'} size={16} />{' '}
                {failed.length > 0 ? t('ru.testsBad', failed.length, results.length) : t('ru.testsGood', results.length)}
              </p>
              <ul class="bare lines">
                {[...failed, ...results.filter((r) => r.ok)].map((r) => (
                  <Result key={r.line + r.name} r={r} onLine={onLine} />
                ))}
              </ul>
            </>
          )}
        </>
      )}
    </div>
  )
}

function Result({ r, onLine }: { r: RuleResult; onLine: ((m: Mistake) => void) | undefined }) {
  return (
    <li>
      <Icon name={r.ok ? 'check' : 'close'} size={16} />
      <span class="grow">
        {r.name}
        <span class="sub">
          {r.ok ? t('ru.passed') : t('ru.failed')} · {r.file}:{r.line} · {r.took_ms} ms
        </span>
        <Mistakes of={r.problems ?? []} onLine={onLine} />
      </span>
    </li>
  )
}

/** Mistakes lists them with the line they are in and a caret below the place. */
export function Mistakes({ of, onLine }: { of: Mistake[]; onLine: ((m: Mistake) => void) | undefined }) {
  if (of.length === 0) return null
  return (
    <ul class="bare mistakes">
      {of.map((m, i) => (
        <li key={i}>
          {onLine === undefined || m.line === 0 ? (
            <b>{m.line === 0 ? t('try.whole') : `${m.file}:${m.line}:${m.col}`}</b>
          ) : (
            <button type="button" class="link" onClick={() => onLine(m)}>
              {t('try.line', `${m.line}:${m.col}`)}
            </button>
          )}{' '}
          {mistake(m.message)}
          {m.snippet && (
            <pre class="code" tabIndex={0}>
              {m.snippet}
            </pre>
          )}
        </li>
      ))}
    </ul>
  )
}
