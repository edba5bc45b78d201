import { expect, it } from 'vitest'
import { choices, href, parse, toggled, withFilter } from '../src/url'
import { severities } from '../src/types'

it('reads and writes addresses, ids with colons and dots included', () => {
  const to = href(['alarms'], { why: 'fire.zone-smoke:A-2:1', q: '', rule: undefined })
  expect(to).toBe('/alarms?why=fire.zone-smoke%3AA-2%3A1')
  expect(href(['devices', 'a/b 1'])).toBe('/devices/a%2Fb%201')
  expect(parse('/devices/a%2Fb%201', '?metric=smoke').path).toEqual(['devices', 'a/b 1'])
  expect(parse('/devices/100%', '').path).toEqual(['devices', '100%'])
  expect(href([])).toBe('/')
})

it('changes one filter and keeps the others, always in the same order', () => {
  expect(withFilter('?view=shelved', 'q', '麦市街')).toBe('?q=%E9%BA%A6%E5%B8%82%E8%A1%97&view=shelved')
  expect(withFilter('?q=x&view=shelved', 'q', '')).toBe('?view=shelved')
  expect(withFilter('?q=x', 'q', '')).toBe('')
})

it('reads filters of several values and drops what it does not know', () => {
  expect(choices('minor,critical,nonsense', severities)).toEqual(['critical', 'minor'])
  expect(choices(null, severities)).toEqual([])
  expect(toggled('critical', 'minor', severities)).toBe('critical,minor')
  expect(toggled('critical,minor', 'critical', severities)).toBe('minor')
  expect(toggled('critical,major,minor,warning', 'indeterminate', severities)).toBe('') // all is no filter
})
