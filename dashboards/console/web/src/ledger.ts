// The ledger in plain words: whether it balances, and why not all that came in
// was stored. Pure functions over what GET /ledger returns.
import { num, span } from './format'
import { t } from './i18n'
import type { Bar } from './load'
import type { LedgerRow } from './types'

export const hour = 3_600_000

const counts = ['messages', 'received', 'stored', 'rejected', 'duplicate', 'quarantined', 'missing', 'silent_s'] as const
export type Counts = Pick<LedgerRow, (typeof counts)[number]>

/** total adds rows up. */
export function total(rows: Counts[]): Counts {
  const sum = Object.fromEntries(counts.map((c) => [c, 0])) as Counts
  for (const r of rows) for (const c of counts) sum[c] += r[c]
  return sum
}

/** unstored is how many readings of those that came in were not stored. */
export const unstored = (r: Counts) => r.rejected + r.duplicate + r.quarantined

/** balances says whether each reading that came in is accounted for. */
export const balances = (r: Counts) => r.received === r.stored + unstored(r)

/** reasons says what differs, each with what it means; none when all that came in was stored. */
export function reasons(r: Counts): string[] {
  return [
    !balances(r) && t('le.unbalanced', num(r.received), num(r.stored + unstored(r))),
    r.rejected > 0 && t('le.why.rejected', num(r.rejected)),
    r.quarantined > 0 && t('le.why.quarantined', num(r.quarantined)),
    r.duplicate > 0 && t('le.why.duplicate', num(r.duplicate)),
    r.missing > 0 && t('le.why.missing', num(r.missing)),
    r.silent_s > 0 && t('le.why.silent', span(r.silent_s * 1000)),
  ].filter((s) => s !== false)
}

/** bars are the hours from one time to another, each as high as what came in and as what of it was not stored. */
export function bars(rows: LedgerRow[], from: number, to: number): Bar[] {
  const at = new Map(rows.map((r) => [Date.parse(r.hour), r]))
  const out: Bar[] = []
  for (let h = from; h < to; h += hour) {
    const r = at.get(h)
    out.push({ from: h, to: h + hour, values: [r?.received ?? 0, r === undefined ? 0 : unstored(r)] })
  }
  return out
}

/** unheard are the hours of one device from one time to another in which nothing came in, though something had before. */
export function unheard(rows: LedgerRow[], from: number, to: number): number[] {
  const heard = new Set(rows.filter((r) => r.messages > 0).map((r) => Date.parse(r.hour)))
  const first = Math.min(...heard)
  const out: number[] = []
  for (let h = Math.max(from, first); h < to; h += hour) if (!heard.has(h)) out.push(h)
  return out
}
