import { expect, it, vi } from 'vitest'
import type { Alarm } from '../src/types'

vi.stubGlobal('addEventListener', () => {})
vi.stubGlobal('document', { addEventListener: () => {} })
const { calls } = await import('../src/sound')
const { readable } = await import('../src/pages/commands')

const alarm = (id: string, more: Partial<Alarm> = {}) => ({ id, severity: 'critical', state: 'active', acked: false, ...more }) as Alarm

it('sounds once for each critical alarm that calls for a person', () => {
  const heard = new Set<string>()
  expect(calls(alarm('a'), heard)).toBe(true)
  expect(calls(alarm('a'), heard)).toBe(false)
  const quiet: Partial<Alarm>[] = [{ severity: 'major' }, { acked: true }, { state: 'cleared' }, { suppressed_by: 'a' }, { out_of_service_since: '2026-11-26T00:00:00Z' }]
  for (const more of quiet) expect(calls(alarm('b', more), heard)).toBe(false)
  expect(calls(alarm('b'), heard)).toBe(true) // it was held back, and is no more
})

it('shows payloads as text, and in hexadecimal what is none', () => {
  const text = (s: string) => new TextEncoder().encode(s)
  expect(readable(text('{"smoke": "高"}'))).toBe('{"smoke": "高"}')
  expect(readable(Uint8Array.of(0, 255, 16))).toBe('00 ff 10')
  expect(readable(text('x'.repeat(300)))).toBe('x'.repeat(256) + ' …')
})
