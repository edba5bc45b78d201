// The alarm load in plain words, and its series in as many bars as fit. Pure
// functions over what GET /alarms/load and a backtest return.
import { num } from './format'
import { t, text } from './i18n'
import type { AlarmLoad, BacktestAlarm } from './types'

/** Bar is a span of time with how many alarms fell into it, per series. */
export interface Bar {
  from: number
  to: number
  values: number[]
}

const interval = 600_000
const most = 168 // bars that can still be told apart

/** worst puts the intervals of a load into at most 168 bars, each as high as its worst interval. */
export function worst(l: AlarmLoad): Bar[] {
  const points = l.series ?? []
  const n = Math.max(1, Math.ceil(points.length / most))
  const out: Bar[] = []
  for (let i = 0; i < points.length; i += n) {
    const from = Date.parse(points[i]!.at)
    const some = points.slice(i, i + n)
    out.push({ from, to: Math.min(from + some.length * interval, Date.parse(l.to)), values: [Math.max(...some.map((p) => p.alarms))] })
  }
  return out
}

/** raises counts the alarms of a backtest in bars of equal length: those of the tried rule, and those of the running one. */
export function raises(alarms: BacktestAlarm[], from: number, to: number, compared: boolean): Bar[] {
  const step = Math.max(60_000, Math.ceil((to - from) / 72 / 60_000) * 60_000)
  const out: Bar[] = []
  for (let at = from; at < to; at += step) out.push({ from: at, to: Math.min(at + step, to), values: compared ? [0, 0] : [0] })
  const count = (s: string | undefined, i: number) => {
    const bar = s === undefined ? undefined : out[Math.floor((Date.parse(s) - from) / step)]
    if (bar !== undefined) bar.values[i]!++
  }
  for (const a of alarms) {
    if (a.in !== 'now') count(a.raised, 0)
    if (compared && a.in !== 'tried') count(a.in === 'both' ? a.now_raised : a.raised, 1)
  }
  return out
}

/** percent writes a share of 1 in whole percent, small ones that are there as "< 1". */
export const percent = (x: number) => (x > 0 && x < 0.005 ? '< 1' : String(Math.round(x * 100)))

/** Advice is one thing that stands out, and what to do about it. */
export interface Advice {
  good: boolean
  text: string
}

const tooFew = 20 // alarms below which shares say nothing

/** advice says in plain words what the figures of a load mean. */
export function advice(l: AlarmLoad): Advice[] {
  const o = l.per_operator_10min
  const out: Advice[] = []
  const bad = (text: string) => out.push({ good: false, text })
  const first = l.top_rules?.[0]
  if (o.mean > o.goal) bad(t('lo.do.mean', num(o.mean), num(o.goal)))
  if ((l.floods ?? []).length > 0) bad(t('lo.do.floods', l.floods!.length))
  if (first !== undefined && l.alarms >= tooFew && first.share > 0.3) bad(t('lo.do.top', text(first.title, first.rule), percent(first.share)))
  if ((l.chattering ?? []).length > 0) bad(t('lo.do.chattering', l.chattering!.length))
  if ((l.stale ?? []).length > 0) bad(t('lo.do.stale', l.stale!.length))
  const critical = l.priorities.critical
  if (l.alarms >= tooFew && critical.share > 2 * critical.target) bad(t('lo.do.critical', percent(critical.share), percent(critical.target)))
  if (out.length > 0) return out
  return [{ good: true, text: l.alarms === 0 ? t('lo.do.none') : t('lo.do.good', num(o.mean), num(o.goal)) }]
}
