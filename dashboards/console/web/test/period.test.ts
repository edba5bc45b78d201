import { expect, it } from 'vitest'
import { dayAfter, daysOf, type Period } from '../src/period'

const own = { from: '2026-11-03', to: '2026-11-05' }

it.each<[Period, string, string, string]>([
  ['month', '2026-11-26', '2026-11-01', ''],
  ['lastMonth', '2026-11-26', '2026-10-01', '2026-10-31'],
  ['lastMonth', '2027-01-01', '2026-12-01', '2026-12-31'],
  ['lastMonth', '2028-03-31', '2028-02-01', '2028-02-29'],
  ['quarter', '2026-11-26', '2026-10-01', ''],
  ['quarter', '2026-03-31', '2026-01-01', ''],
  ['year', '2026-11-26', '2026-01-01', ''],
  ['own', '2026-11-26', '2026-11-03', '2026-11-05'],
])('%s on %s begins on %s', (p, today, from, to) => {
  expect(daysOf(p, today, own)).toEqual({ from, to })
})

it('ends with the whole last day', () => {
  expect(dayAfter('2026-12-31')).toBe('2027-01-01')
  expect(dayAfter('')).toBe('')
})
