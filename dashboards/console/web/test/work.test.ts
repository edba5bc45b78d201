import { beforeEach, expect, it, vi } from 'vitest'
import type { Case, CaseClass } from '../src/types'

// The pages look at the browser when they are loaded.
vi.stubGlobal('addEventListener', () => {})
vi.stubGlobal('document', { addEventListener: () => {} })
const { byDue, grouped, isLate } = await import('../src/pages/work')
const { flags } = await import('../src/pages/desks')
const { classOf, departments } = await import('../src/pages/act')
const { kindAt } = await import('../src/pages/photos')
const { may, state } = await import('../src/app')
const { dueLight } = await import('../src/ui')
const { setClock } = await import('../src/format')

beforeEach(() => setClock('Asia/Shanghai', new Date().toISOString()))

const at = (ms: number) => new Date(Date.now() + ms).toISOString()
const kase = (id: string, more: Partial<Case> = {}) => ({ id, stage: 'handling', opened: '2026-11-23T00:00:00Z', ...more }) as Case

it('puts what a critical alarm reports on top, then what is due first, what has no limit below, and knows what is late', () => {
  const xs = [kase('none'), kase('fire', { severity: 'critical' }), kase('fire out', { severity: 'critical', back_to_normal: true, stage_deadline: at(90_000) }), kase('later', { stage_deadline: at(60_000) }), kase('late', { stage_deadline: at(-60_000) })]
  expect(xs.sort(byDue).map((c) => c.id)).toEqual(['fire', 'late', 'later', 'fire out', 'none'])
  expect(xs.filter(isLate).map((c) => c.id)).toEqual(['late'])
})

it('shows the light of the stage, not of the whole handling', () => {
  expect(dueLight(kase('x'))).toBeUndefined()
  expect(dueLight(kase('x', { stage_yellow_at: at(60_000), stage_deadline: at(90_000) }))).toBe('green')
  expect(dueLight(kase('x', { stage_yellow_at: at(-1000), stage_deadline: at(90_000) }))).toBe('yellow')
  expect(dueLight(kase('x', { stage_yellow_at: at(-2000), stage_deadline: at(-1000), deadline: at(90_000) }))).toBe('red')
})

it('groups in the order that is asked for, then as they come, without empty groups', () => {
  const xs = [kase('a', { department: 'Z' }), kase('b', { department: 'A' }), kase('c', { department: 'Z' })]
  expect(grouped(xs, (c) => c.department!, ['A', 'none'])).toEqual([
    { title: 'A', items: [xs[1]] },
    { title: 'Z', items: [xs[0], xs[2]] },
  ])
})

it('finds what supervision looks for', () => {
  const of = (c: Case) => flags.filter((f) => f.of(c)).map((f) => f.name)
  expect(of(kase('calm'))).toEqual([])
  expect(of(kase('x', { stage: 'suspended', urged: 2, reworked: 1, supervised: true }))).toEqual(['suspended', 'urged', 'supervised', 'reworked'])
  expect(of(kase('x', { stage: 'handled', stage_deadline: at(-1000), request: { kind: 'void', by: 'li', at: at(0) } }))).toEqual(['late', 'asks', 'checks'])
})

it('takes a class by label, code or name', () => {
  const k = { code: 'event/0506', name: { zh: '道路积水', en: 'Flooded road' }, limit: '4小时', department: '市政处' } as CaseClass
  state.classes = new Map([[k.code, k]])
  expect(['道路积水', 'Flooded road', ' event/0506 ', 'Flooded road event/0506'].map(classOf)).toEqual([k, k, k, k])
  expect(classOf('Flood')).toBeUndefined()
  expect(departments()).toEqual(['市政处'])
})

it('knows what a photo shows by the stage', () => {
  expect(['reported', 'handling', 'checking'].map((stage) => kindAt(kase('x', { stage: stage as Case['stage'] })))).toEqual(['near', 'handle_before', 'handle_after'])
})

it('shows each post its own pages', () => {
  const pages = (role: string) => {
    state.user = { name: 'x', role } as typeof state.user
    return (['intake', 'dispatch', 'handling', 'tasks', 'supervision'] as const).filter(may)
  }
  expect(pages('acceptor')).toEqual(['intake', 'supervision'])
  expect(pages('dispatcher')).toEqual(['dispatch', 'supervision'])
  expect(pages('department')).toEqual(['handling'])
  expect(pages('officer')).toEqual(['tasks'])
  expect(pages('vendor')).toEqual([])
  state.user = undefined
})
