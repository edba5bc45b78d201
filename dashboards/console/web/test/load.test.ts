import { beforeEach, expect, it } from 'vitest'
import { setLang } from '../src/i18n'
import { advice, raises, worst } from '../src/load'
import type { AlarmLoad, BacktestAlarm } from '../src/types'

const load = (more: Partial<AlarmLoad> = {}): AlarmLoad => ({
  from: '2026-11-23T00:00:00Z', to: '2026-11-24T00:00:00Z', operators: 1, alarms: 40, work_orders: 0,
  per_operator_10min: { mean: 0.3, peak: 3, goal: 1, over_goal_share: 0 },
  floods: [], chattering: [], stale: [], top_rules: [], series: [],
  priorities: { critical: { alarms: 2, share: 0.05, target: 0.05 }, major: { alarms: 6, share: 0.15, target: 0.15 }, minor: { alarms: 32, share: 0.8, target: 0.8 } },
  ...more,
})

beforeEach(() => setLang('en'))

it('says that the load is fine, and only then', () => {
  expect(advice(load())).toEqual([{ good: true, text: expect.stringContaining('0.3 alarms per operator') }])
  expect(advice(load({ alarms: 0 }))).toEqual([{ good: true, text: 'No alarm called for anybody in this time.' }])
  expect(advice(load({ floods: [{ from: '', to: '', alarms: 20 }] })).map((a) => a.good)).toEqual([false])
})

it('names what stands out, each with what to do', () => {
  const said = advice(
    load({
      per_operator_10min: { mean: 2.5, peak: 30, goal: 1, over_goal_share: 0.5 },
      top_rules: [{ rule: 'r', title: { zh: '漏水', en: 'Leak' }, alarms: 30, share: 0.75 }],
      priorities: { ...load().priorities, critical: { alarms: 20, share: 0.5, target: 0.05 } },
    }),
  ).map((a) => a.text)
  expect(said[0]).toContain('2.5 alarms per operator')
  expect(said[1]).toContain('“Leak” alone makes 75 %')
  expect(said[2]).toContain('50 % of the alarms are critical')
})

it('draws no conclusion from a handful of alarms', () => {
  expect(advice(load({ alarms: 1, top_rules: [{ rule: 'r', title: { zh: '', en: 'r' }, alarms: 1, share: 1 }] }))[0]!.good).toBe(true)
})

it('keeps the worst 10 minutes when several share a bar', () => {
  const from = Date.parse('2026-11-01T00:00:00Z')
  const series = Array.from({ length: 30 * 144 }, (_, i) => ({ at: new Date(from + i * 600_000).toISOString(), alarms: i === 1000 ? 12 : i % 2 }))
  const bars = worst(load({ series, to: '2026-12-01T00:00:00Z' }))
  expect(bars.length).toBeLessThanOrEqual(168)
  expect(Math.max(...bars.map((b) => b.values[0]!))).toBe(12)
  expect(bars.at(-1)!.to).toBe(Date.parse('2026-12-01T00:00:00Z'))
  expect(worst(load())).toEqual([])
})

it('counts the alarms of a backtest by when each rule raised them', () => {
  const at = (min: number) => new Date(min * 60_000).toISOString()
  const alarm = (more: Partial<BacktestAlarm>): BacktestAlarm => ({ in: 'both', entity: 'd', device: 'd', severity: 'minor', raised: at(0), ...more })
  const bars = raises([alarm({ now_raised: at(50) }), alarm({ in: 'tried' }), alarm({ in: 'now', raised: at(50) }), alarm({ in: 'tried', raised: at(-5) })], 0, 72 * 60_000, true)
  expect(bars.length).toBe(72)
  expect(bars[0]!.values).toEqual([2, 0])
  expect(bars[50]!.values).toEqual([0, 2])
  expect(raises([alarm({ in: 'tried' })], 0, 72 * 60_000, false)[0]!.values).toEqual([1])
})
