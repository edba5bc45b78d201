// Numbers, units and times as people read them.
import { lang, t, text } from './i18n'
import type { Metric, Model, Value } from './types'

let zone = 'Asia/Shanghai'
let ahead = 0 // how far the server's clock is ahead of ours, ms

/** setClock takes the county's time zone and the server's time from GET /info. */
export function setClock(timeZone: string, serverNow: string) {
  try {
    new Intl.DateTimeFormat('en', { timeZone })
    zone = timeZone
  } catch {
    // an unknown zone: keep the one before
  }
  const s = Date.parse(serverNow)
  ahead = Number.isNaN(s) ? 0 : s - Date.now()
  formats.clear()
}

/** timeZone is the county's zone. */
export const timeZone = () => zone

/** now is the server's time, ms. */
export const now = () => Date.now() + ahead

const formats = new Map<string, Intl.DateTimeFormat>()

function format(o: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const locale = lang() === 'zh' ? 'zh-CN' : 'en-GB'
  const key = locale + zone + JSON.stringify(o)
  let f = formats.get(key)
  if (f === undefined) {
    f = new Intl.DateTimeFormat(locale, { timeZone: zone, hourCycle: 'h23', ...o })
    formats.set(key, f)
  }
  return f
}

const ms = (x: string | number) => (typeof x === 'number' ? x : Date.parse(x))

const dayOf = (x: number) => format({ year: 'numeric', month: '2-digit', day: '2-digit' }).format(x)

/** time writes a time of today as "14:03:05", of another day with its date, in the county's zone. "" for none. */
export function time(x: string | number | undefined): string {
  if (x === undefined || Number.isNaN(ms(x))) return ''
  const at = ms(x)
  const clock = format({ hour: '2-digit', minute: '2-digit', second: '2-digit' }).format(at)
  if (dayOf(at) === dayOf(now())) return clock
  return `${day(at)} ${format({ hour: '2-digit', minute: '2-digit' }).format(at)}`
}

function day(at: number): string {
  const thisYear = format({ year: 'numeric' }).format(at) === format({ year: 'numeric' }).format(now())
  return format(thisYear ? { month: 'short', day: 'numeric' } : { year: 'numeric', month: 'short', day: 'numeric' }).format(at)
}

/** fullTime writes date and time to the second. */
export function fullTime(x: string | number | undefined): string {
  if (x === undefined || Number.isNaN(ms(x))) return ''
  return format({ year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit' }).format(ms(x))
}

/** localInput writes a time as a field for date and time takes it, in the county's zone. */
export function localInput(x: number): string {
  const f = new Intl.DateTimeFormat('sv-SE', { timeZone: zone, year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' })
  return f.format(x).replace(' ', 'T')
}

/** fromLocalInput reads what such a field holds; NaN when it is empty. */
export function fromLocalInput(s: string): number {
  const wall = Date.parse(s + 'Z')
  if (Number.isNaN(wall)) return NaN
  const off = (at: number) => Date.parse(localInput(at) + 'Z') - Math.floor(at / 1000) * 1000
  const guess = wall - off(wall)
  return wall - off(guess)
}

/** clockTime writes hours and minutes, for the axis of a chart; with the seconds when they matter. */
export const clockTime = (x: number, seconds = false) => format({ hour: '2-digit', minute: '2-digit', second: seconds ? '2-digit' : undefined }).format(x)

/** dayTime writes month and day, for the axis of a chart. */
export const dayTime = (x: number) => format({ month: 'numeric', day: 'numeric' }).format(x)

/** span writes a length of time in at most two units: "45 s", "2 h 5 min", "3 d 4 h". */
export function span(x: number): string {
  const s = Math.max(0, Math.floor(x / 1000))
  if (s < 60) return t('d.s', s)
  const m = Math.floor(s / 60)
  if (m < 60) return t('d.m', m)
  const h = Math.floor(m / 60)
  if (h < 24) return m % 60 === 0 ? t('d.h', h) : t('d.hm', h, m % 60)
  const d = Math.floor(h / 24)
  return d > 6 || h % 24 === 0 ? t('d.d', d) : t('d.dh', d, h % 24)
}

/** age writes how long ago x was. */
export function age(x: string | undefined): string {
  if (x === undefined) return ''
  const d = now() - ms(x)
  return d < 2000 ? t('c.justnow') : t('c.ago', span(d))
}

/** duration reads Go's form of a duration ("1m30s", "500ms", "7d") as ms; 0 when it is none. */
export function duration(s: string | undefined): number {
  if (s === undefined) return 0
  const unit: Record<string, number> = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
  let sum = 0
  let rest = s
  for (;;) {
    const m = /^([0-9.]+)(ns|us|µs|ms|s|m|h|d)/.exec(rest)
    if (m === null) return rest === '' ? sum : 0
    sum += Number(m[1]) * unit[m[2]!]!
    rest = rest.slice(m[0].length)
  }
}

const units: Record<string, string> = {
  Cel: '°C',
  'm3/h': 'm³/h',
  m3: 'm³',
  'L/s': 'L/s',
  'kW.h': 'kWh',
  uT: 'µT',
  'ug/m3': 'µg/m³',
  'mg/L': 'mg/L',
  m2: 'm²',
  '1': '',
}

/** unit writes a UCUM unit as people do. */
export const unit = (u: string | undefined) => (u === undefined ? '' : (units[u] ?? u.replace(/^\{(.*)\}$/, '$1')))

/** num writes a number with at most 4 significant digits after the point that matter. */
export function num(x: number): string {
  if (!Number.isFinite(x)) return '–'
  const a = Math.abs(x)
  if (a !== 0 && (a < 0.001 || a >= 1e9)) return x.toExponential(2)
  const digits = a >= 1000 ? 1 : a >= 100 ? 1 : a >= 10 ? 2 : 3
  return new Intl.NumberFormat(lang() === 'zh' ? 'zh-CN' : 'en-GB', { maximumFractionDigits: digits }).format(x)
}

/** value writes a reading with its unit; "–" for none. */
export function value(v: unknown, u?: string): string {
  if (v === null || v === undefined) return '–'
  if (typeof v === 'boolean') return v ? t('c.on') : t('c.off')
  if (v === '') return t('c.empty')
  if (typeof v !== 'number') return String(v)
  const w = unit(u)
  return w === '' ? num(v) : w === '%' ? num(v) + ' %' : `${num(v)} ${w}`
}

/** measured writes a reading of a device of a model: with its unit, an event with its title. */
export function measured(v: unknown, metric: string, model: Model | undefined): string {
  const event = metric === 'event' ? model?.events?.find((e) => e.name === v) : undefined
  return event === undefined ? value(v, model?.metrics.find((m) => m.name === metric)?.unit) : text(event.title, event.name)
}

/** staleAfter is how old a value of m may be until it is not current any more: what the metric says, else twice the model's heartbeat. */
export function staleAfter(m: Metric | undefined, model: Model | undefined): number {
  return duration(m?.stale_after) || 2 * duration(model?.heartbeat) || Infinity
}

/** isStale says whether a value of time at is old. */
export const isStale = (at: string, m: Metric | undefined, model: Model | undefined) => now() - ms(at) > staleAfter(m, model)

/** withGaps turns points into the two columns of a chart and puts null where the time between two is longer than gap, so that a gap is drawn as one. */
export function withGaps(points: [string, Value][], gap: number): [number[], (number | null)[]] {
  const xs: number[] = []
  const ys: (number | null)[] = []
  let before = NaN
  for (const [at, v] of points) {
    const x = Date.parse(at)
    if (Number.isNaN(x)) continue
    if (x - before > gap) {
      xs.push((before + x) / 2000)
      ys.push(null)
    }
    xs.push(x / 1000)
    ys.push(typeof v === 'number' ? v : typeof v === 'boolean' ? Number(v) : null)
    before = x
  }
  return [xs, ys]
}

const limitKinds = [
  ['紧急工作时', 'li.uh'],
  ['紧急工作日', 'li.d'],
  ['自然日', 'li.d'],
  ['工作时', 'li.wh'],
  ['小时', 'li.wh'],
  ['工作日', 'li.wd'],
  ['天', 'li.wd'],
] as const

/** limit writes a handling limit of the class table, "2紧急工作时", in the language in use. */
export function limit(s: string | undefined): string {
  const m = /^(\d+)(.+)$/.exec(s ?? '')
  const kind = limitKinds.find(([k]) => k === m?.[2])
  return m === null || kind === undefined ? (s ?? '') : t(kind[1], m[1]!)
}
