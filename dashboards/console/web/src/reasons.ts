// What the server says, in Chinese. It speaks English; what people meet is
// translated here, known by the format with which the server writes it (a test
// sees that it still does, and that nothing new is missing). What is not here is
// shown in the server's words, as are names, and what foreign systems say.
import { duration, span, time } from './format'
import { lang } from './i18n'
import { people } from './reasons/people'

/** verb is a verb of a format of Go, with its flags. */
export const verb = /%[-+# 0]*[\d*]*(?:\.\d+)?([a-zA-Z])/g

// A format as what it matches: {0} in zh is what stands for its first verb.
interface Known {
  re: RegExp
  zh: string
  verbs: string[]
  bare: boolean // it has no word of its own
}

const escaped = (s: string) => s.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
const stands: Record<string, string> = { q: '("(?:[^"\\\\]|\\\\.)*")', d: '(-?\\d+)', c: '(.)', t: '(true|false)' }

function known(table: Record<string, string>): Known[] {
  const of = Object.entries(table).map(([format, zh]) => {
    const verbs = [...format.matchAll(verb)].map((m) => m[1]!)
    const words = format.split(/%[-+# 0]*[\d*]*(?:\.\d+)?[a-zA-Z]/)
    const bare = !/\w/.test(words.join(''))
    const hint = (i: number) => i === verbs.length && i > 1 && words[i - 1] === '' && words[i] === '' // as ends the sentence at once
    const re = words.map((w, i) => (i === 0 ? '' : (stands[verbs[i - 1]!] ?? (hint(i) ? '((?:[;,:] .*)?)' : bare && i === 1 ? '(\\S*[^\\s;:,])' : '(.*?)'))) + escaped(w)).join('')
    return { re: new RegExp(`^${re}$`, 's'), zh, verbs, bare, length: words.join('').length }
  })
  return of.sort((a, b) => b.length - a.length) // what says more first: another format may match it, too
}

/** Sayings are the sentences of one subject. */
interface Sayings {
  sentences: Known[]
  plain?: boolean // what is named stands without quotes
}

const daily: Sayings = { sentences: known(people), plain: true }

// What is not said daily, and so comes after the page: it is large.
let more: Awaited<ReturnType<typeof load>> | undefined

async function load() {
  const { away, imports, letters, names, parts, places, rules, shapes, wires } = await import('./reasons/more')
  return {
    around: { sentences: [...known(imports), ...known(away)] },
    mistakes: { sentences: known(rules) },
    refusals: { sentences: known(letters) },
    ends: known(parts),
    before: known(places),
    forms: known(shapes),
    names,
    wires,
  }
}

/** learn gets the sentences that are not said daily; until then they are English. It rejects when they can't be had. */
export async function learn(): Promise<void> {
  more ??= await load()
}

/** reason is what the server says in the language in use, where that is known; else as it says it. */
export function reason(said: string): string {
  if (lang() !== 'zh') return said
  const colon = said.indexOf(': ') // what was tried may stand before
  const tried = colon < 0 ? undefined : fill(said.slice(colon + 2), daily.sentences, daily)
  return fill(said, daily.sentences, daily) ?? tried ?? inChinese(said, more?.around)
}

/** mistake is reason for what is wrong with a rule file, or with what its tests found. */
export const mistake = (said: string) => (lang() === 'zh' ? inChinese(said, more?.mistakes) : said)

/** refusal is reason for why a message could not be used. */
export const refusal = (said: string) => (lang() === 'zh' ? inChinese(said, more?.refusals) : said)

const inChinese = (s: string, of?: Sayings) => (of === undefined ? s : (all(s, of) ?? fill(s, of.sentences, of, true) ?? s))

/** all is s as one sentence, or as some with "; " between them; undefined when one is not known. */
function all(s: string, of: Sayings): string | undefined {
  const whole = one(s, of)
  if (whole !== undefined) return whole
  for (let at = s.indexOf('; '); at >= 0; at = s.indexOf('; ', at + 1)) {
    const first = one(s.slice(0, at), of)
    const rest = first === undefined ? undefined : all(s.slice(at + 2), of)
    if (rest !== undefined) return first + (/[。？]$/.test(first!) ? '' : '；') + rest
  }
  return undefined
}

/** one is a sentence, with where it happened before it or how much was good behind it. */
function one(s: string, of: Sayings): string | undefined {
  for (let at = s.indexOf(': '), n = 0; at >= 0 && n < 4; at = s.indexOf(': ', at + 1), n++) {
    const place = fill(s.slice(0, at), more?.before ?? [], of)
    const rest = place === undefined ? undefined : one(s.slice(at + 2), of)
    if (rest !== undefined) return place + '：' + rest
  }
  const whole = sentence(s, of) ?? fill(s, more?.ends ?? [], of)
  if (whole !== undefined) return whole
  const behind = /^(.*)( \([^()]*\))$/s.exec(s)
  const note = behind === null ? undefined : fill(behind[2]!, of.sentences, of)
  const first = note === undefined ? undefined : all(behind![1]!, of)
  if (first !== undefined) return first + note
  const colon = s.indexOf(': ') // a name of something of theirs
  const rest = colon < 0 ? undefined : one(s.slice(colon + 2), of)
  return rest === undefined ? undefined : s.slice(0, colon) + '：' + rest
}

const sentence = (s: string, of: Sayings) => fill(s, of.sentences, of) ?? wire(s)

/** wire is what the network says, by its words. */
function wire(s: string): string | undefined {
  for (const [re, zh] of more?.wires ?? []) {
    const m = re.exec(s)
    if (m !== null) return filled(zh, m.slice(1).map((x) => wire(x) ?? x))
  }
  return undefined
}

/** fill is s by the first of the formats that match it; in what stands for a verb no further sentence begins, unless loose. */
function fill(s: string, formats: Known[], of: Sayings, loose = false): string | undefined {
  for (const { re, zh, verbs, bare } of formats) {
    const m = re.exec(s)
    if (m === null) continue
    const values = verbs.map((v, i) => {
      const x = m[i + 1]!
      if (v === 'q') return of.plain ? unquoted(x) : x
      if (bare && i > 0) return /^\S+: /.test(x) ? undefined : all(x, { ...of, sentences: of.sentences.filter((k) => !k.bare) })
      if (v === 'v' || v === 'w') return all(x, of) ?? written(x, of)
      const w = written(x, of)
      if (w === x && of.plain && x.includes(' ')) return fill(x, of.sentences, of) ?? x // why, in words of ours
      return w === x && !loose && !of.plain && x.replace(/"(?:[^"\\]|\\.)*"/g, '').includes('; ') ? undefined : w
    })
    if (!values.includes(undefined)) return filled(zh, values as string[])
  }
  return undefined
}

/** filled is zh with values in it, a blank between Chinese and what is not. */
const filled = (zh: string, values: string[]) =>
  zh.replace(/([一-鿿])?\{(\d+)\}/g, (_, left: string | undefined, i) => {
    const x = values[Number(i)] ?? ''
    return (left ?? '') + (left !== undefined && /^[\w"'`<]/.test(x) ? ' ' : '') + x
  })

function unquoted(x: string): string {
  try {
    return String(JSON.parse(x))
  } catch {
    return x.slice(1, -1)
  }
}

/** written is what stands for a verb: a time or a duration as people read it, a word that is known, a hint; else as it is. */
function written(x: string, of: Sayings): string {
  if (/^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(x)) return time(x)
  if (/^(\d+d)?(\d+h)?(\d+m)?(\d+s)?$/.test(x) && x !== '') return span(duration(x))
  if (more === undefined) return x
  const { names, ends, forms } = more
  if (Object.hasOwn(names, x)) return names[x]!
  if (x.startsWith('; ')) return '；' + (all(x.slice(2), of) ?? x.slice(2))
  if (x.startsWith(': ')) return '：' + x.slice(2).split(', ').map((y) => fill(y, forms, of) ?? y).join('，')
  const to = x.indexOf('; ')
  if (to > 0 && Object.hasOwn(names, x.slice(0, to))) return names[x.slice(0, to)] + '；' + (fill(x.slice(to + 2), ends, of) ?? x.slice(to + 2))
  return fill(x, forms, of) ?? x
}
