import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, expect, it } from 'vitest'
import { firstLang, known, setLang, t, tables, text } from '../src/i18n'

afterEach(() => setLang('en'))

it('has the same keys, none empty, with the same places to fill in', () => {
  expect(Object.keys(tables.zh).sort()).toEqual(Object.keys(tables.en).sort())
  const places = (s: string) => [...new Set(s.match(/\{\d\}/g) ?? [])].sort()
  for (const [k, v] of Object.entries(tables.en)) {
    const z = tables.zh[k as keyof typeof tables.zh]
    expect(v, k).not.toBe('')
    expect(z, k).not.toBe('')
    expect(places(z), k).toEqual(places(v))
  }
})

it('has no text that nothing uses', () => {
  const src = join(import.meta.dirname, '../src')
  const code = readdirSync(src, { recursive: true, encoding: 'utf8' })
    .filter((f) => /\.tsx?$/.test(f) && !f.endsWith('i18n.ts'))
    .map((f) => readFileSync(join(src, f), 'utf8'))
    .join('\n')
  const prefixes = [...code.matchAll(/['`]([a-z]+\.(?:[a-z0-9_]+\.)*)(?:\$\{|')/g)].map((m) => m[1]!)
  const unused = Object.keys(tables.en).filter((k) => !code.includes(`'${k}'`) && !prefixes.some((p) => k.startsWith(p)))
  expect(unused).toEqual([])
})

it('begins with what was remembered, else with what the browser prefers', () => {
  expect(firstLang('zh', ['en'])).toBe('zh')
  expect(firstLang(null, ['fr', 'zh-TW', 'en'])).toBe('zh')
  expect(firstLang(null, ['en-US', 'zh'])).toBe('en')
  expect(firstLang('xx', ['fr'])).toBe('en')
})

it('fills in and falls back to the other language', () => {
  expect(t('d.hm', 2, 5)).toBe('2 h 5 min')
  expect(text({ zh: '水压', en: '' })).toBe('水压')
  expect(text(undefined, 'id')).toBe('id')
  setLang('zh')
  expect(t('d.hm', 2, 5)).toBe('2 小时 5 分')
  expect(text({ zh: '', en: 'Pressure' })).toBe('Pressure')
  expect(known('act.', 'file')).toBe('立案')
  expect(known('act.', 'something_new')).toBe('something_new')
})
