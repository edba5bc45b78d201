// The attributes of devices and sites, as people type them.
import type { Attribute } from './types'

/** Typed is what stands in the fields: a text for each attribute, '' for none. */
export type Typed = Record<string, string>

/** typed returns what the fields begin with. */
export const typed = (values: Record<string, unknown> | null | undefined): Typed =>
  Object.fromEntries(Object.entries(values ?? {}).map(([k, v]) => [k, String(v)]))

/** read returns the values that were typed, of the kinds that are declared, or the attribute whose number is none. What no model declares keeps the kind that it had. */
export function read(fields: Typed, declared: readonly Attribute[], before?: Record<string, unknown> | null): { values: Record<string, unknown> } | { wrong: string } {
  const values: Record<string, unknown> = {}
  for (const [name, raw] of Object.entries(fields)) {
    const text = raw.trim()
    if (text === '') continue
    const kind = declared.find((a) => a.name === name)?.kind ?? kindOf(before?.[name])
    if (kind === 'number' && !Number.isFinite(Number(text))) return { wrong: name }
    values[name] = kind === 'number' ? Number(text) : kind === 'bool' ? text === 'true' : text
  }
  return { values }
}

const kindOf = (v: unknown): Attribute['kind'] => (typeof v === 'number' ? 'number' : typeof v === 'boolean' ? 'bool' : 'text')

/** union are the attributes that any of the models declares, each once, by name; site names the site itself, which has none. */
export function union(models: Iterable<{ attributes: Attribute[] | null }>): Attribute[] {
  const all = new Map<string, Attribute>()
  for (const m of models) for (const a of m.attributes ?? []) if (a.name !== 'site' && !all.has(a.name)) all.set(a.name, a)
  return [...all.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
}
