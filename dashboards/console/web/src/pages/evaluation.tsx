// The evaluation of the work on cases (GB/T 30428.4): by area, department or
// post, each share with what it is a share of, and the way to its cases.
import { get, query } from '../api'
import { go, state, useList, useLoad } from '../app'
import { below, levels, tables } from '../evaluation'
import { fullTime, localInput, now, num } from '../format'
import { className, heading, lang, t, text } from '../i18n'
import { dayAfter, daysOf, periods } from '../period'
import { Deadline, Empty, Icon, Modal, Paged, Wait } from '../ui'
import { href, withFilter } from '../url'
import type { Case, Evaluation as Data, EvaluationBy, EvaluationRow, Figure, Indicator } from '../types'

const bys: EvaluationBy[] = ['area', 'department', 'post']
const parts = ['numerator', 'rest', 'denominator'] as const
type Part = (typeof parts)[number]

export function Evaluation({ search }: { search: string }) {
  const q = new URLSearchParams(search)
  const own = state.user?.role === 'department'
  const by = own ? 'department' : (bys.find((b) => b === q.get('by')) ?? 'area')
  const level = levels.find((l) => l === q.get('level')) ?? 'town'
  const under = q.get('under') ?? ''
  const period = periods.find((p) => p === q.get('period')) ?? 'month'
  const days = daysOf(period, localInput(now()).slice(0, 10), { from: q.get('from') ?? '', to: q.get('to') ?? '' })
  const params = { by, level: by === 'area' ? level : undefined, under: by === 'area' ? under : undefined, from: days.from, to: dayAfter(days.to) }
  const asked = query(params)
  const loaded = useLoad('evaluation' + asked, (signal) => get<Data>('/evaluation' + asked, signal))
  const set = (...pairs: [string, string][]) => go('/evaluation' + pairs.reduce((s, [k, v]) => withFilter(s, k, v), search), true)
  const e = loaded.data
  const indicator = e?.indicators.find((i) => i.code === q.get('figure'))
  const file = (format: string) => '/api/v1/evaluation' + query({ ...params, format, lang: lang() })
  return (
    <>
      <div class="head">
        <h1>{t('nav.evaluation')}</h1>
        {!own && (
          <div class="segments" role="group" aria-label={t('ev.by')}>
            {bys.map((b) => (
              <button type="button" key={b} aria-pressed={b === by} onClick={() => set(['by', b === 'area' ? '' : b], ['under', ''], ['level', ''])}>
                {t(`ev.by.${b}`)}
              </button>
            ))}
          </div>
        )}
        <div class="segments" role="group" aria-label={t('ev.period')}>
          {periods.map((p) => (
            <button
              type="button"
              key={p}
              aria-pressed={p === period}
              onClick={() => set(['period', p === 'month' ? '' : p], ['from', p === 'own' ? days.from : ''], ['to', p === 'own' ? days.to : ''])}
            >
              {t(`ev.${p}`)}
            </button>
          ))}
        </div>
        <span class="buttons end">
          {['xlsx', 'csv'].map((f) => (
            <a key={f} class="button" href={file(f)} download>
              <Icon name="download" size={16} /> {f.toUpperCase()}
            </a>
          ))}
        </span>
      </div>
      <div class="filters">
        {period === 'own' && (
          <>
            <label class="inline">
              {t('ev.from')}
              <input type="date" value={days.from} onChange={(x) => set(['from', x.currentTarget.value])} />
            </label>
            <label class="inline">
              {t('ev.to')}
              <input type="date" value={days.to} min={days.from} onChange={(x) => set(['to', x.currentTarget.value])} />
            </label>
          </>
        )}
        {by === 'area' && (
          <label class="inline">
            {t('ev.level')}
            <select value={level} onChange={(x) => set(['level', x.currentTarget.value === 'town' ? '' : x.currentTarget.value])}>
              {levels.map((l) => (
                <option key={l} value={l} disabled={l === 'grid' && under === ''}>
                  {t(`ev.level.${l}`)}
                </option>
              ))}
            </select>
          </label>
        )}
        {by === 'area' && under !== '' && (
          <button type="button" class="chip" onClick={() => set(['under', ''], ['level', ''])}>
            {t('ev.under', under)} <Icon name="close" size={12} />
          </button>
        )}
        {e !== undefined && (
          <span class="quiet small">
            {fullTime(e.from)} – {fullTime(e.to)}
          </span>
        )}
      </div>
      {e === undefined ? (
        <Wait of={loaded} />
      ) : e.rows.length === 0 ? (
        <Empty>{t('ev.none')}</Empty>
      ) : (
        <>
          {tables(e).map((x) => (
            <Table
              key={x.of}
              e={e}
              title={by === 'post' ? heading(x.rows[0]!.name) : ''}
              rows={x.rows}
              onFigure={(f, key) => set(['figure', f], ['key', key], ['part', ''])}
              onArea={by === 'area' && level !== 'grid' ? (key) => set(['under', key], ['level', below(key)]) : undefined}
            />
          ))}
          <How e={e} />
        </>
      )}
      {e !== undefined && indicator !== undefined && (
        <Behind
          e={e}
          of={indicator}
          asked={params}
          row={q.get('key') ?? ''}
          part={parts.find((p) => p === q.get('part')) ?? 'numerator'}
          onPart={(p) => set(['part', p === 'numerator' ? '' : p])}
          onClose={() => set(['figure', ''], ['key', ''], ['part', ''])}
        />
      )}
    </>
  )
}

/** percent writes a share in percent with one digit after the point. */
const percent = (x: number) => `${num(Math.round(x * 1000) / 10)} %`

function Table({ e, title, rows, onFigure, onArea }: { e: Data; title: string; rows: EvaluationRow[]; onFigure: (code: string, key: string) => void; onArea?: (key: string) => void }) {
  const shown = e.indicators.filter((i) => rows.some((r) => r.figures.some((f) => f.indicator === i.code)))
  return (
    <section>
      {title !== '' && <h2 class="group">{title}</h2>}
      <div class="scroll" tabIndex={0} role="region" aria-label={title || t('nav.evaluation')}>
        <table class="evaluation">
          <thead>
            <tr>
              <th scope="col">{t(`ev.by.${e.by}`)}</th>
              <th scope="col">{t('ev.score')}</th>
              {shown.map((i) => (
                <th scope="col" key={i.code}>
                  {heading(i.name)}
                  {i.denominator && <span class="sub">{t('ev.of', text(i.denominator.name))}</span>}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((r) => (
              <tr key={r.key + r.name.zh} class={r === e.total ? 'total' : ''}>
                <th scope="row" class={r.person === undefined ? '' : 'person'}>
                  {onArea !== undefined && r !== e.total ? (
                    <button type="button" class="link" title={t('ev.into')} onClick={() => onArea(r.key)}>
                      {heading(r.name, r.key)}
                    </button>
                  ) : (
                    heading(r.name, r.key)
                  )}
                </th>
                <td>
                  {r.score === undefined ? (
                    <span class="quiet">–</span>
                  ) : (
                    <>
                      <b>{num(Math.round(r.score * 10) / 10)}</b> <span class="tag">{r.grade}</span>
                      <Bar share={r.score / 100} />
                    </>
                  )}
                </td>
                {shown.map((i) => (
                  <td key={i.code}>
                    <Cell of={i} f={r.figures.find((f) => f.indicator === i.code)} name={heading(r.name, r.key)} onOpen={() => onFigure(i.code, r.key)} />
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  )
}

function Cell({ of: i, f, name, onOpen }: { of: Indicator; f: Figure | undefined; name: string; onOpen: () => void }) {
  if (f === undefined) return null
  const counted = i.denominator === undefined ? f.cases : f.of
  const value = i.denominator === undefined ? String(f.cases) : f.rate === undefined ? '–' : percent(f.rate)
  if (counted === 0) return <span class="quiet">{value}</span>
  return (
    <>
      <button type="button" class="link" aria-haspopup="dialog" aria-label={`${name}, ${text(i.name)}: ${value}`} onClick={onOpen}>
        {value}
      </button>
      {i.denominator !== undefined && (
        <span class="quiet small nowrap">
          {' '}
          {f.cases}/{f.of}
        </span>
      )}
      {f.rate !== undefined && <Bar share={f.rate} />}
    </>
  )
}

const Bar = ({ share }: { share: number }) => (
  <span class="share" aria-hidden="true">
    <i style={{ width: Math.min(1, share) * 100 + '%' }} />
  </span>
)

/** How says how the figures and the scores are made. */
function How({ e }: { e: Data }) {
  const name = (code: string) => text(e.indicators.find((i) => i.code === code)?.name, code)
  return (
    <details class="card">
      <summary>{t('ev.how')}</summary>
      <p class="quiet">{t('ev.howText', fullTime(e.as_of))}</p>
      <div class="scroll" tabIndex={0} role="region" aria-label={t('ev.how')}>
        <table class="plain">
          <thead>
            <tr>
              <th scope="col">{t('ev.indicator')}</th>
              <th scope="col">{t('ev.numerator')}</th>
              <th scope="col">{t('ev.denominator')}</th>
              <th scope="col">{t('ev.better')}</th>
              <th scope="col">{t('ev.clause')}</th>
            </tr>
          </thead>
          <tbody>
            {e.indicators.map((i) => (
              <tr key={i.code}>
                <th scope="row">{heading(i.name)}</th>
                <td>{heading(i.numerator)}</td>
                <td>{heading(i.denominator?.name, '–')}</td>
                <td>{i.better === undefined ? '–' : t(`ev.${i.better}`)}</td>
                <td>{i.clause}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <h2>{t('ev.weights')}</h2>
      <ul>
        {e.scores.map((s) => (
          <li key={s.of}>
            {heading(s.name)}: {s.parts.map((p) => `${name(p.indicator)} ${num(p.weight)} %`).join(', ')}
          </li>
        ))}
      </ul>
      <p>
        {t('ev.grades')} {e.grades.map((g) => t('ev.grade', g.grade, num(g.from))).join(', ')}
      </p>
      {e.volume.length > 0 && (
        <p>
          {t('ev.volume')} {e.volume.map((v) => t('ev.step', v.from, num(v.score))).join(', ')}
        </p>
      )}
    </details>
  )
}

const page = 200

/** Behind lists the cases behind a figure. */
function Behind({
  e,
  of: i,
  asked,
  row,
  part,
  onPart,
  onClose,
}: {
  e: Data
  of: Indicator
  asked: Record<string, string | undefined>
  row: string
  part: Part
  onPart: (p: Part) => void
  onClose: () => void
}) {
  const params = { ...asked, indicator: i.code, key: row, part }
  const loaded = useList<Case>('/evaluation/cases', params, page)
  const name = text([...e.rows, ...(e.total === undefined ? [] : [e.total])].find((r) => r.key === row)?.name, row)
  const words: Record<Part, string> = { numerator: heading(i.numerator), rest: t('ev.rest'), denominator: heading(i.denominator?.name) }
  return (
    <Modal title={`${heading(name)} · ${text(i.name)}`} kind="drawer" onClose={onClose}>
      {i.denominator !== undefined && (
        <div class="segments" role="group" aria-label={t('ev.which')}>
          {parts.map((p) => (
            <button type="button" key={p} aria-pressed={p === part} onClick={() => onPart(p)}>
              {words[p]}
            </button>
          ))}
        </div>
      )}
      <Paged of={loaded} n={loaded.items.length} none={t('ev.noCases')}>
        <ul class="bare lines">
          {loaded.items.map((c) => (
            <li key={c.id}>
              <span class="grow">
                <a class="title" href={href(['cases', c.id])}>
                  {text(c.title, c.id)}
                </a>
                <span class="sub">{[c.id, className(c), c.department, t(`stage.${c.stage}`)].filter(Boolean).join(' · ')}</span>
              </span>
              <Deadline of={c} />
            </li>
          ))}
        </ul>
      </Paged>
    </Modal>
  )
}
