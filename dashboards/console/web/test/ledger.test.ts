import { beforeEach, expect, it } from 'vitest'
import { setLang } from '../src/i18n'
import { balances, bars, reasons, total, unheard } from '../src/ledger'
import type { LedgerRow } from '../src/types'

const ten = Date.parse('2026-11-26T10:00:00Z')
const row = (more: Partial<LedgerRow> = {}): LedgerRow => ({
  device: 'd', hour: '2026-11-26T10:00:00Z', messages: 1, received: 4, stored: 4, rejected: 0, duplicate: 0, quarantined: 0, missing: 0, silent_s: 0, ...more,
})

beforeEach(() => setLang('en'))

it('has nothing to say of a row where all was stored', () => {
  expect(reasons(row())).toEqual([])
  expect(balances(row())).toBe(true)
})

it('says each thing that differs, what does not balance first', () => {
  expect(reasons(row({ stored: 1, rejected: 1, duplicate: 1, quarantined: 1, missing: 2, silent_s: 600 })).map((s) => s.slice(0, 2))).toEqual(['1 ', '1 ', '1 ', '2 ', 'No'])
  expect(reasons(row({ received: 5 }))[0]).toContain('5')
  expect(balances(row({ received: 5 }))).toBe(false)
})

it('adds up', () => {
  expect(total([row(), row({ received: 2, stored: 0, rejected: 2 })])).toMatchObject({ messages: 2, received: 6, stored: 4, rejected: 2 })
})

it('draws an hour in which nothing came in as nothing', () => {
  expect(bars([row({ stored: 3, rejected: 1 })], ten - 3_600_000, ten + 3_600_000)).toEqual([
    { from: ten - 3_600_000, to: ten, values: [0, 0] },
    { from: ten, to: ten + 3_600_000, values: [4, 1] },
  ])
})

it('marks the hours in which nothing came in, from the first that did', () => {
  const later = row({ hour: '2026-11-26T12:00:00Z' })
  expect(unheard([row(), later], ten - 3_600_000, ten + 3 * 3_600_000)).toEqual([ten + 3_600_000])
  expect(unheard([], ten, ten + 3_600_000)).toEqual([])
})
