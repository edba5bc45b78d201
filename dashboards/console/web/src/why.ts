// An explanation in plain words: what was compared, and which line to draw
// into the curve. Pure functions over what GET /alarms/{id}/why returns.
import { duration, span, value } from './format'
import { known, t, tables, text, type Key } from './i18n'
import type { AlarmStep, Explanation, Leaf, Model } from './types'

const words: Record<string, string> = { '>': 'gt', '>=': 'ge', '<': 'lt', '<=': 'le', '==': 'eq', '!=': 'ne' }

/** leafLeft returns the text left of the leaf's own comparison, not of one inside brackets or quotes. */
export function leafLeft(source: string, op: string): string {
  if (op === '') return source.trim()
  let depth = 0
  let quote = ''
  for (let i = 0; i < source.length; i++) {
    const c = source[i]!
    if (quote !== '') {
      if (c === quote) quote = ''
    } else if (c === '"' || c === "'") quote = c
    else if ('([{'.includes(c)) depth++
    else if (')]}'.includes(c)) depth--
    else if (depth === 0 && source.startsWith(op, i) && !(op.length === 1 && source[i + 1] === '=')) return source.slice(0, i).trim()
  }
  return source.trim()
}

/** metricOf finds the one metric that an expression is about, "" when there is none or it cannot be told. */
export function metricOf(expression: string, metrics: readonly string[]): string {
  const bare = expression.replace(/"[^"]*"|'[^']*'/g, '').replace(/\battr\.\w+/g, '')
  const found = metrics.filter((m) => new RegExp(`(^|[^\\w.])${m}([^\\w(]|$)`).test(bare))
  return found.length === 1 ? found[0]! : ''
}

function nameOf(leaf: Leaf, model: Model | undefined): { name: string; unit: string | undefined } {
  const left = leafLeft(leaf.text, leaf.op)
  const m = model?.metrics.find((m) => m.name === left)
  if (m !== undefined) return { name: text(m.title, m.name), unit: m.unit }
  // avg(power, "15m") has the unit of power; n_of counts.
  const inner = /^(avg|min|max|last|sum|delta|median|p\d+|stddev)\s*\(/.test(left) ? metricOf(left, model?.metrics.map((m) => m.name) ?? []) : ''
  return { name: phrase(left, model), unit: model?.metrics.find((m) => m.name === inner)?.unit }
}

/** phrase says the function calls that it knows in words: n_of(smoke > 0.12, "60s") as the number of devices. Everything else stays as written. */
export function phrase(expression: string, model: Model | undefined): string {
  const m = /^(\w+)\s*\(([\s\S]*),\s*["']([^"']+)["']\s*\)$/.exec(expression)
  const key = 'why.fn.' + (m?.[1] ?? '')
  if (m === null || !(key in tables.en)) return titled(expression, model)
  return t(key as Key, titled(m[2]!, model), span(duration(m[3])))
}

// titled puts the titles of metrics and attributes in the place of their names, and words for and, or, not;
// what stands in for a value that is not there is left out.
function titled(expression: string, model: Model | undefined): string {
  const said: string[] = []
  return expression
    .trim()
    .replace(/\b(\w+)\s*\(\s*([\w.]+)\s*,\s*["']([^"']+)["']\s*\)/g, (all, fn, x, within) => {
      const key = 'why.fn.' + fn
      return key in tables.en ? `\u0001${said.push(t(key as Key, titled(x, model), span(duration(within)))) - 1}\u0001` : all
    })
    .replace(/\(\s*attr\.(\w+)\s*\?\?[^)]*\)|(?<![\w.])attr\.(\w+)(?:\s*\?\?\s*(?:"[^"]*"|-?[\w.]+))?|(?<![\w.])([A-Za-z_]\w*)(?![\w(])(?:\s*\?\?\s*(?:"[^"]*"|-?[\w.]+))?/g, (all, a, b, word) => {
      const attribute = a ?? b
      if (attribute === undefined) {
        const metric = model?.metrics.find((m) => m.name === word)
        if (metric !== undefined) return text(metric.title, word)
        return `why.word.${word}` in tables.en ? t(`why.word.${word}` as Key) : all
      }
      return text(model?.attributes?.find((x) => x.name === attribute)?.title, all)
    })
    .replace(/>=/g, '≥')
    .replace(/<=/g, '≤')
    .replace(/\u0001(\d+)\u0001/g, (_, i) => said[Number(i)]!)
}

/** leafWords says one comparison in a sentence. */
export function leafWords(leaf: Leaf, model: Model | undefined): string {
  const { name, unit } = nameOf(leaf, model)
  if (leaf.result === 'unknown' && (leaf.left === null || leaf.left === undefined)) return t('why.nodata', name)
  const word = words[leaf.op]
  if (word === undefined || leaf.right === undefined || leaf.right === null) return t('why.plain', name, value(leaf.left, unit))
  const key = (leaf.result === 'false' ? 'why.not.' : 'why.') + word
  return t(key as Key, name, value(leaf.left, unit), value(leaf.right, unit))
}

const reasons: Record<string, Key> = {
  'schedule ended': 're.schedule',
  'rule removed': 're.rule',
  'device removed': 're.device',
  'rule groups differently now': 're.groups',
  'group has no members': 're.empty',
  'not selected any more': 're.select',
}

/** reasonWords says why an alarm was closed without its clear condition; what a person wrote stays as it is. */
export function reasonWords(reason: string): string {
  const key = reasons[reason]
  if (key !== undefined) return t(key)
  const reset = /^reset by (\S+?)(?:: ([\s\S]*))?$/.exec(reason)
  if (reset !== null) return reset[2] ?? ''
  return reason.startsWith('replaced by episode ') ? t('re.replaced') : reason
}

/** stepWords says one step of an alarm's history, without who and when. */
export function stepWords(s: AlarmStep): string {
  const what = known('step.', s.kind)
  if (s.kind === 'assigned') return s.assignee ? t('step.to', s.assignee) : t('step.nobody')
  return ['raised', 'escalated', 'lowered'].includes(s.kind) ? t('step.severity', what, t(`sev.${s.severity}`)) : what
}

/** Curve is which metric to draw, and the limits that belong into it. */
export interface Curve {
  metric: string
  limits: { value: number; text: string }[]
}

/**
 * curve finds the metric an explanation is about and its limits: a comparison of
 * the metric itself (or of a mean, a minimum, a maximum of it) with a number,
 * also one inside n_of(…), where the number may be an attribute.
 */
export function curve(e: Explanation, metrics: readonly string[]): Curve | undefined {
  const found: Curve[] = []
  const take = (metric: string, value: number, words: string) => {
    let c = found.find((c) => c.metric === metric)
    if (c === undefined) found.push((c = { metric, limits: [] }))
    if (!c.limits.some((l) => l.value === value)) c.limits.push({ value, text: words })
  }
  for (const leaf of e.leaves ?? []) {
    const left = leafLeft(leaf.text, leaf.op)
    const level = metrics.includes(left) || /^(avg|min|max|last|median|p\d+)\s*\(/.test(left)
    const m = level ? metricOf(left, metrics) : ''
    if (m !== '' && typeof leaf.right === 'number') take(m, leaf.right, leaf.text)
    const inner = /\b(?:n_of|n_adj|count_if|for_all|any|all)\s*\((.*)$/s.exec(leaf.text)
    if (inner !== null) {
      for (const name of metrics) {
        const cmp = new RegExp(`(?:^|[^\\w.])${name}\\s*(?:>=|<=|>|<)\\s*(\\([^)]*\\)|-?[\\w.]+(?:\\s*\\?\\?\\s*-?[\\w.]+)?)`).exec(inner[1]!)
        const v = cmp === null ? undefined : operand(cmp[1]!, e)
        if (v !== undefined) take(name, v, cmp![0].replace(/^[(\s]+/, ''))
      }
    }
  }
  if (found.length > 0) return found[0]
  const inputs = (e.inputs ?? []).map((i) => i.metric)
  return inputs.length > 0 ? { metric: inputs[0]!, limits: [] } : undefined
}

function operand(s: string, e: Explanation): number | undefined {
  const bare = s.replace(/^\(|\)$/g, '').trim()
  if (bare !== '' && !Number.isNaN(Number(bare))) return Number(bare)
  const name = /attr\.(\w+)/.exec(bare)?.[1]
  const a = e.attributes?.find((a) => a.name === name || a.name === 'attr.' + name)
  if (typeof a?.value === 'number') return a.value
  const fallback = /\?\?\s*(-?[0-9.]+)/.exec(bare)?.[1]
  return fallback === undefined ? undefined : Number(fallback)
}
