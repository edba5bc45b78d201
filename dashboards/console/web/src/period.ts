// Periods of an evaluation, in days of the county.

export const periods = ['month', 'lastMonth', 'quarter', 'year', 'own'] as const
export type Period = (typeof periods)[number]

/** Days is from a day to another, both inclusive; to is '' for until now. */
export interface Days {
  from: string
  to: string
}

const day = (y: number, m: number, d: number) => new Date(Date.UTC(y, m, d)).toISOString().slice(0, 10)

/** daysOf returns the days of a period on today ("2026-11-26"); own ones are as they were typed. */
export function daysOf(p: Period, today: string, own: Days): Days {
  const y = Number(today.slice(0, 4))
  const m = Number(today.slice(5, 7)) - 1
  switch (p) {
    case 'month':
      return { from: day(y, m, 1), to: '' }
    case 'lastMonth':
      return { from: day(y, m - 1, 1), to: day(y, m, 0) }
    case 'quarter':
      return { from: day(y, m - (m % 3), 1), to: '' }
    case 'year':
      return { from: day(y, 0, 1), to: '' }
  }
  return own
}

/** dayAfter returns the day after d, which the API takes as the exclusive end; '' stays ''. */
export const dayAfter = (d: string) => (d === '' ? '' : day(Number(d.slice(0, 4)), Number(d.slice(5, 7)) - 1, Number(d.slice(8, 10)) + 1))
