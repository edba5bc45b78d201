import { expect, it } from 'vitest'
import { read } from '../src/report/mine'
import { linked } from '../src/report/spot'
import { textIn, w } from '../src/report/words'

it('reads what a phone remembered, and nothing else', () => {
  const one = { number: 'E0506202611230001', secret: 'abc' }
  expect(read(JSON.stringify([one, { number: 5, secret: 'x' }, null, 'x']))).toEqual([one])
  for (const bad of [null, '', '{', '{}', '"x"']) expect(read(bad)).toEqual([])
})

it('takes the position of a link, with its coordinates', () => {
  expect(linked('?lat=24.117&lon=117.613&crs=GCJ-02')).toEqual({ lat: 24.117, lon: 117.613, from: 'link', crs: 'GCJ-02' })
  expect(linked('?lat=24.117&lon=117.613')?.crs).toBe('WGS84')
  for (const bad of ['', '?lat=24.117', '?lat=117.6&lon=24.1', '?lat=x&lon=1', '?lat=&lon=']) expect(linked(bad)).toBeUndefined()
})

it('speaks both languages', () => {
  expect(w('zh', 'photo', 3)).toContain('最多 3 张')
  expect(w('en', 'photo', 3)).toContain('at most 3')
  expect(textIn('en', { zh: '积水', en: '' })).toBe('积水')
})
