// What an evaluation is about. Pure functions over what GET /evaluation returns.
import type { Evaluation, EvaluationRow } from './types'

export const levels = ['county', 'town', 'village', 'grid'] as const

/** digits of the code of an area, by level */
const digits = { county: 6, town: 9, village: 12, grid: 15 }

/** below is the level under that of an area's code; '' when there is none. */
export const below = (key: string) => levels[levels.findIndex((l) => digits[l] === key.length) + 1] ?? ''

/** tables puts the rows of each post into a table of their own; all others, with the total, into one. */
export function tables(e: Evaluation): { of: string; rows: EvaluationRow[] }[] {
  if (e.by !== 'post') return [{ of: e.by, rows: e.total === undefined ? e.rows : [...e.rows, e.total] }]
  const out = new Map<string, EvaluationRow[]>()
  for (const r of e.rows) out.set(r.post ?? '', [...(out.get(r.post ?? '') ?? []), r])
  return [...out].map(([of, rows]) => ({ of, rows }))
}
