import { expect, it, vi } from 'vitest'
import type { Alarm } from '../src/types'

vi.stubGlobal('addEventListener', () => {})
vi.stubGlobal('document', { addEventListener: () => {} })
const { calls } = await import('../src/sound')
const { dump, readable } = await import('../src/bytes')

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
  expect(dump(text('{"smoke": 0.31}!'))).toBe('0000  7b 22 73 6d 6f 6b 65 22 3a 20 30 2e 33 31 7d 21  {"smoke": 0.31}!')
  expect(dump(Uint8Array.of(0, 65))).toBe('0000  00 41' + ' '.repeat(44) + '.A')
  expect(readable(text('x'.repeat(300)))).toBe('x'.repeat(256) + ' …')
})
