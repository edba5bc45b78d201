import { beforeEach, describe, expect, it } from 'vitest'
import { setLang } from '../src/i18n'
import { curve, leafLeft, leafWords, metricOf, phrase, reasonWords, stepWords } from '../src/why'
import type { Explanation, Leaf, Model } from '../src/types'

const model = {
  name: 'smoke-detector',
  metrics: [
    { name: 'smoke', title: { zh: '烟雾浓度', en: 'Smoke' }, kind: 'number', unit: 'dB/m' },
    { name: 'power', title: { zh: '功率', en: 'Power' }, kind: 'number', unit: 'kW' },
    { name: 'button', title: { zh: '手报按钮', en: 'Call button' }, kind: 'bool' },
  ],
  attributes: [{ name: 'smoke_limit', title: { zh: '报警限值', en: 'smoke limit' }, kind: 'number' }],
} as unknown as Model
const metrics = model.metrics.map((m) => m.name)
const leaf = (text: string, left: unknown, op: string, right: unknown, result: Leaf['result'] = 'true'): Leaf => ({ text, left, op, right, result })
const why = (leaves: Leaf[], more: Partial<Explanation> = {}) => ({ leaves, inputs: [], ...more }) as Explanation

beforeEach(() => setLang('en'))

it('finds the comparison of the leaf, not one inside', () => {
  expect(leafLeft('n_of(smoke > 0.12, "60s") >= 2', '>=')).toBe('n_of(smoke > 0.12, "60s")')
  expect(leafLeft('a >= 2', '>')).toBe('a >= 2')
  expect(leafLeft('x == ">" ', '==')).toBe('x')
})

it('knows what an expression is about', () => {
  expect(metricOf('avg(power, "15m")', metrics)).toBe('power')
  expect(metricOf('attr.power', metrics)).toBe('')
  expect(metricOf('smoke + power', metrics)).toBe('')
})

describe('words', () => {
  it('say what held and what did not', () => {
    expect(leafWords(leaf('smoke > 0.12', 0.31, '>', 0.12), model)).toBe('Smoke is 0.31 dB/m, above 0.12 dB/m')
    expect(leafWords(leaf('smoke > 0.12', 0.05, '>', 0.12, 'false'), model)).toBe('Smoke is 0.05 dB/m, not above 0.12 dB/m')
    expect(leafWords(leaf('smoke > 0.12', null, '>', 0.12, 'unknown'), model)).toBe('Smoke is unknown')
    expect(leafWords(leaf('button', true, '', null), model)).toBe('Call button is yes')
    expect(leafWords(leaf('avg(power, "15m") > 18', 21.4, '>', 18), model)).toBe('Mean of Power over 15 min is 21.4 kW, above 18 kW')
  })
  it('put calls into words in both languages, and leave functions that they do not know', () => {
    const n = 'n_of(smoke > (attr.smoke_limit ?? 0.12), "60s")'
    expect(phrase(n, model)).toBe('The number of devices with “Smoke > smoke limit” within 1 min')
    expect(phrase('n_of(smoke > attr.smoke_limit ?? 0.12, "60s")', model)).toBe(phrase(n, model))
    setLang('zh')
    expect(phrase(n, model)).toBe('1 分钟内满足“烟雾浓度 > 报警限值”的设备数')
    expect(phrase('n_of(smoke > 1 and not smoke ?? 0, "60s")', model)).toBe('1 分钟内满足“烟雾浓度 > 1 且 非 烟雾浓度”的设备数')
    expect(phrase('mystery(smoke)', model)).toBe('mystery(烟雾浓度)')
    expect(phrase('n_adj(delta(power, "1m") < -0.4, "2m")', model)).toBe('2 分钟内满足“1 分钟内功率的变化 < -0.4”的相邻设备数')
  })
})

it('says the steps of an alarm and why it was closed in the language in use', () => {
  expect(stepWords({ kind: 'escalated', severity: 'critical', at: '', logged: '' })).toBe('Went up: Critical')
  expect(stepWords({ kind: 'assigned', severity: 'minor', at: '', logged: '', assignee: 'lin' })).toBe('Assigned to lin')
  expect(stepWords({ kind: 'assigned', severity: 'minor', at: '', logged: '' })).toBe('Assigned to nobody')
  expect(stepWords({ kind: 'something_new' as 'raised', severity: 'minor', at: '', logged: '' })).toBe('something_new')
  setLang('zh')
  expect(reasonWords('schedule ended')).toBe('不在规则的生效时段')
  expect(reasonWords('reset by lin: 已更换探测器')).toBe('已更换探测器')
  expect(reasonWords('reset by lin')).toBe('')
  expect(reasonWords('测试告警')).toBe('测试告警')
})

describe('curve', () => {
  it('takes the limit of a plain comparison', () => {
    expect(curve(why([leaf('smoke > 0.12', 0.31, '>', 0.12)]), metrics)).toEqual({ metric: 'smoke', limits: [{ value: 0.12, text: 'smoke > 0.12' }] })
  })
  it('finds the limit inside n_of, by attribute or default', () => {
    const l = leaf('n_of(smoke > (attr.smoke_limit ?? 0.12), "60s") >= 2', 2, '>=', 2)
    const limits = (e: Explanation) => curve(e, metrics)?.limits.map((x) => x.value)
    expect(limits(why([l], { attributes: [{ name: 'smoke_limit', value: 0.2, from: 'device' }] }))).toEqual([0.2])
    expect(limits(why([l]))).toEqual([0.12])
    expect(limits(why([leaf('n_of(smoke > attr.smoke_limit ?? 0.15, "60s") >= 2', 2, '>=', 2)]))).toEqual([0.15])
  })
  it('draws no line for a change, only the curve', () => {
    const e = why([leaf('delta(power, "2m") < -0.4', -0.6, '<', -0.4)], { inputs: [{ device: 'd', metric: 'power', value: 1, time: '', arrived: '' }] })
    expect(curve(e, metrics)).toEqual({ metric: 'power', limits: [] })
    expect(curve(why([]), metrics)).toBeUndefined()
  })
})
