import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { age, duration, fromLocalInput, fullTime, isStale, limit, localInput, measured, num, setClock, span, time, unit, value, withGaps } from '../src/format'
import { setLang } from '../src/i18n'
import type { Metric, Model } from '../src/types'

beforeEach(() => {
  vi.useFakeTimers()
  vi.setSystemTime(Date.parse('2026-11-23T08:00:00Z'))
  setClock('Asia/Shanghai', '2026-11-23T08:00:00Z')
  setLang('en')
})
afterEach(() => vi.useRealTimers())

describe('times', () => {
  it('are those of the county, wherever the browser is', () => {
    expect(time('2026-11-23T07:59:05Z')).toBe('15:59:05')
    expect(time('2026-11-22T15:59:59Z')).toBe('22 Nov 23:59')
    expect(time('2026-11-22T16:00:00Z')).toBe('00:00:00') // midnight in the county: today
    expect(fullTime('2026-11-23T07:59:05Z')).toBe('23/11/2026, 15:59:05')
    expect(time(undefined)).toBe('')
    setLang('zh')
    expect(time('2026-11-22T15:59:59Z')).toBe('11月22日 23:59')
  })
  it('go by the clock of the server', () => {
    setClock('Asia/Shanghai', '2026-11-23T08:10:00Z')
    expect(age('2026-11-23T08:00:00Z')).toBe('10 min ago')
    expect(age('2026-11-23T08:10:30Z')).toBe('just now')
  })
  it('keep the zone when the server names one that is not known', () => {
    setClock('Mars/Olympus', '2026-11-23T08:00:00Z')
    expect(time('2026-11-23T07:59:05Z')).toBe('15:59:05')
  })
})

it('fields for date and time hold the county\'s wall clock, also where clocks are put back', () => {
  const at = Date.parse('2026-11-23T07:59:05Z')
  expect(localInput(at)).toBe('2026-11-23T15:59:05')
  expect(fromLocalInput('2026-11-23T15:59:05')).toBe(at)
  expect(fromLocalInput('2026-11-23T15:59')).toBe(at - 5000)
  expect(fromLocalInput('')).toBeNaN()
  setClock('Europe/Berlin', '2026-11-23T08:00:00Z')
  for (const s of ['2026-10-24T23:30:00', '2026-10-25T04:30:00', '2026-03-29T04:00:00', '2026-03-29T01:30:00']) expect(localInput(fromLocalInput(s))).toBe(s)
})

it('spans have at most two units', () => {
  const s = [0, 59_999, 60_000, 3_599_000, 3_600_000, 7_500_000, 86_400_000, 100_000_000, 8 * 86_400_000 + 5e6]
  expect(s.map(span)).toEqual(['0 s', '59 s', '1 min', '59 min', '1 h', '2 h 5 min', '1 d', '1 d 3 h', '8 d'])
})

it('reads durations as Go writes them', () => {
  expect(['1m30s', '500ms', '24h0m0s', '7d', '0s', '', 'soon'].map(duration)).toEqual([90_000, 500, 86_400_000, 604_800_000, 0, 0, 0])
  expect(duration(undefined)).toBe(0)
})

it('writes numbers, units and values', () => {
  expect([0, 0.0312, 3.14159, 27.126, 123.456, 54344.2, 1e-5].map(num)).toEqual(['0', '0.031', '3.142', '27.13', '123.5', '54,344.2', '1.00e-5'])
  expect(['Cel', 'm3/h', 'kW.h', '{count}', 'bar', undefined].map(unit)).toEqual(['°C', 'm³/h', 'kWh', 'count', 'bar', ''])
  expect(value(21.5, 'Cel')).toBe('21.5 °C')
  expect(value(80, '%')).toBe('80 %')
  expect(value(true)).toBe('yes')
  expect(value(null)).toBe('–')
  expect(value('')).toBe('(empty)')
  expect(value('open')).toBe('open')
  const model = { metrics: [{ name: 'event', kind: 'text' }, { name: 'pressure', unit: 'MPa' }], events: [{ name: 'full', title: { zh: '满', en: 'Store full' } }] } as unknown as Model
  expect(measured(0.2, 'pressure', model)).toBe('0.2 MPa')
  expect(measured('full', 'event', model)).toBe('Store full')
  expect(measured('other', 'event', model)).toBe('other')
  expect(measured('full', 'mode', model)).toBe('full')
})

it('a value is old after what the metric says, else after twice the heartbeat', () => {
  const model = { heartbeat: '10m0s' } as Model
  const m = { stale_after: '1h0m0s' } as Metric
  expect(isStale('2026-11-23T07:45:00Z', undefined, model)).toBe(false)
  expect(isStale('2026-11-23T07:39:00Z', undefined, model)).toBe(true)
  expect(isStale('2026-11-23T07:39:00Z', m, model)).toBe(false)
  expect(isStale('2020-01-01T00:00:00Z', undefined, undefined)).toBe(false)
})

it('a gap stays a gap', () => {
  const [xs, ys] = withGaps(
    [
      ['2026-11-23T07:00:00Z', 1],
      ['2026-11-23T07:01:00Z', 2],
      ['2026-11-23T07:11:00Z', true],
      ['2026-11-23T07:12:00Z', 'text'],
    ],
    120_000,
  )
  expect(ys).toEqual([1, 2, null, 1, null])
  expect(xs[2]).toBe(Date.parse('2026-11-23T07:06:00Z') / 1000)
  expect([...xs].sort((a, b) => a - b)).toEqual(xs)
})

it('handling limits are said in the language in use', () => {
  const s = ['1紧急工作时', '4小时', '2天', '3工作日', '5自然日', '尽快', undefined]
  expect(s.map(limit)).toEqual(['1 h, day and night', '4 working h', '2 working d', '3 working d', '5 calendar d', '尽快', ''])
  setLang('zh')
  expect(limit('2紧急工作时')).toBe('2 紧急工作时')
})
