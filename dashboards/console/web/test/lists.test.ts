import { beforeEach, expect, it, vi } from 'vitest'
import type { Alarm, Case } from '../src/types'

// The pages look at the browser when they are loaded.
vi.stubGlobal('addEventListener', () => {})
vi.stubGlobal('document', { addEventListener: () => {} })
const { byWeight, explained, fits, newest } = await import('../src/pages/alarms')
const { byUrgency, narrowed } = await import('../src/pages/cases')
const { lightOf } = await import('../src/ui')
const { setClock } = await import('../src/format')

beforeEach(() => setClock('Asia/Shanghai', new Date().toISOString()))

const alarm = (more: Partial<Alarm>): Alarm => ({
  id: 'r:d:1', rule: 'r', title: { zh: '烟雾', en: 'Smoke' }, entity: 'd', device: 'd', episode: 1, severity: 'minor', state: 'active', acked: false,
  raised_at: '2026-11-23T07:00:00Z', ...more,
})

it('sorts alarms by severity, then unacknowledged, then the oldest', () => {
  const xs = [
    alarm({ id: 'young', raised_at: '2026-11-23T07:30:00Z' }),
    alarm({ id: 'acked', acked: true, raised_at: '2026-11-23T05:00:00Z' }),
    alarm({ id: 'old', raised_at: '2026-11-23T06:00:00Z' }),
    alarm({ id: 'bad', severity: 'critical', raised_at: '2026-11-23T07:59:00Z' }),
  ]
  expect(xs.sort(byWeight).map((a) => a.id)).toEqual(['bad', 'old', 'young', 'acked'])
})

it('filters alarms by what stands in the address', () => {
  const q = (s: string) => new URLSearchParams(s)
  const shelved = alarm({ shelved_until: new Date(Date.now() + 60_000).toISOString() })
  const back = alarm({ shelved_until: new Date(Date.now() - 60_000).toISOString() })
  expect([alarm({}), shelved, back, alarm({ state: 'cleared' })].map((a) => fits(a, q('')))).toEqual([true, false, true, false])
  expect(fits(shelved, q('view=shelved'))).toBe(true)
  expect(fits(alarm({ state: 'cleared' }), q('view=cleared'))).toBe(true)
  expect(fits(alarm({}), q('severity=critical,major'))).toBe(false)
  expect(fits(alarm({ acked: true }), q('unacked=1'))).toBe(false)
  expect(fits(alarm({ members: ['x'] }), q('device=x'))).toBe(true)
  expect(fits(alarm({}), q('q=SMOKE'))).toBe(true)
  expect(fits(alarm({}), q('q=烟'))).toBe(true)
  expect(fits(alarm({}), q('q=pipe'))).toBe(false)
})

it('keeps what is suppressed, shelved or out of service out of the open list, each in its own view', () => {
  const xs = [
    alarm({ id: 'plain' }),
    alarm({ id: 'child', suppressed_by: 'plain' }),
    alarm({ id: 'over', suppressed_by: 'plain', state: 'cleared' }),
    alarm({ id: 'out', out_of_service_since: '2026-11-23T06:00:00Z' }),
    alarm({ id: 'out and cleared', out_of_service_since: '2026-11-23T06:00:00Z', state: 'cleared' }),
  ]
  const seen = (view: string) => xs.filter((a) => fits(a, new URLSearchParams({ view }))).map((a) => a.id)
  expect(seen('open')).toEqual(['plain'])
  expect(seen('suppressed')).toEqual(['child'])
  expect(seen('out')).toEqual(['out', 'out and cleared'])
  expect(explained(xs).get('plain')!.map((a) => a.id)).toEqual(['child'])
  expect(fits(alarm({ assignee: 'lin' }), new URLSearchParams({ assignee: 'lin' }))).toBe(true)
  expect(fits(alarm({}), new URLSearchParams({ assignee: 'lin' }))).toBe(false)
})

it('shows what stays out of service by its newest alarm only', () => {
  const xs = [alarm({ id: '1', state: 'cleared', episode: 1 }), alarm({ id: '2', state: 'cleared', episode: 2 }), alarm({ id: 'x', state: 'cleared', entity: 'x' })]
  expect(newest(xs).map((a) => a.id)).toEqual(['2', 'x'])
  expect(newest([...xs, alarm({ id: '3', episode: 3 })]).map((a) => a.id)).toEqual(['x', '3'])
})

it('sorts cases by deadline; those without one come last, oldest first', () => {
  const c = (id: string, deadline?: string, opened = '2026-11-23T00:00:00Z') => ({ id, deadline, opened }) as Case
  const xs = [c('new', undefined, '2026-11-23T02:00:00Z'), c('older'), c('late', '2026-11-23T01:00:00Z'), c('later', '2026-11-23T05:00:00Z'),
    { ...c('staged'), stage_deadline: '2026-11-23T03:00:00Z' }, { ...c('both', '2026-11-23T04:00:00Z'), stage_deadline: '2026-11-23T00:30:00Z' }]
  expect(xs.sort(byUrgency).map((x) => x.id)).toEqual(['late', 'staged', 'both', 'later', 'older', 'new'])
})

it('narrows cases to a stage, a department and words, the most urgent first and what is over last', () => {
  const c = (id: string, stage: string, deadline: string, more: Partial<Case> = {}) =>
    ({ id, stage, deadline, opened: '2026-11-23T00:00:00Z', title: { zh: '积水', en: 'Flood' }, class_name: { zh: '排水', en: 'Drains' }, ...more }) as Case
  const xs = [
    c('closed', 'closed', '2026-11-23T01:00:00Z'),
    c('next', 'handling', '2026-11-23T03:00:00Z', { department: '消防', grid: '350623100001001' }),
    c('first', 'intake', '2026-11-23T02:00:00Z', { title: { zh: '烟雾', en: 'Smoke' } }),
  ]
  const ids = (...asked: [Case['stage'] | undefined, string, string]) => narrowed(xs, ...asked).map((x) => x.id)
  expect(ids(undefined, '', '')).toEqual(['first', 'next', 'closed'])
  expect(ids('handling', '', '')).toEqual(['next'])
  expect(ids(undefined, '消防', '')).toEqual(['next'])
  expect(ids(undefined, '', 'SMOKE')).toEqual(['first'])
  expect(ids(undefined, '', '3506231')).toEqual(['next'])
})

it('knows the light of a case from its limit, and keeps the one that it was handled under', () => {
  const now = Date.now()
  const of = (yellow: number, deadline: number, more: Partial<Case> = {}) =>
    lightOf({ yellow_at: new Date(now + yellow).toISOString(), deadline: new Date(now + deadline).toISOString(), light: 'green', ...more } as Case)
  expect(of(70_000, 90_000)).toBe('green')
  expect(of(-5_000, 15_000)).toBe('yellow')
  expect(of(-30_000, -10_000)).toBe('red')
  expect(of(-30_000, -10_000, { handled_at: new Date(now - 60_000).toISOString() })).toBe('green')
  expect(lightOf({ opened: new Date(now).toISOString() } as Case)).toBeUndefined()
})
