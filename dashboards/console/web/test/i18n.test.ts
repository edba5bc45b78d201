import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, expect, it } from 'vitest'
import { known, setLang, t, tables, text } from '../src/i18n'
import { firstLang, type Lang } from '../src/lang'
import { tables as citizens } from '../src/report/words'

afterEach(() => setLang('en'))

it.each<[string, Record<Lang, Record<string, string>>]>([['the console', tables], ['the page of citizens', citizens]])('%s has the same keys, none empty, with the same places to fill in', (_, tables) => {
  expect(Object.keys(tables.zh).sort()).toEqual(Object.keys(tables.en).sort())
  const places = (s: string) => [...new Set(s.match(/\{\d\}/g) ?? [])].sort()
  for (const [k, v] of Object.entries(tables.en)) {
    const z = tables.zh[k]!
    expect(v, k).not.toBe('')
    expect(z, k).not.toBe('')
    expect(places(z), k).toEqual(places(v))
  }
})

it('has no text that nothing uses', () => {
  const src = join(import.meta.dirname, '../src')
  const code = readdirSync(src, { recursive: true, encoding: 'utf8' })
    .filter((f) => /\.tsx?$/.test(f) && !f.endsWith('i18n.ts') && !f.startsWith('report'))
    .map((f) => readFileSync(join(src, f), 'utf8'))
    .join('\n')
  const prefixes = [...code.matchAll(/['`]([a-z]+\.(?:[a-z0-9_]+\.)*)(?:\$\{|')/g)].map((m) => m[1]!)
  const written = new Set(code.match(/'[a-z]+\.[A-Za-z0-9._-]+'/g))
  const unused = Object.keys(tables.en).filter((k) => !written.has(`'${k}'`) && !prefixes.some((p) => k.startsWith(p)))
  expect(unused).toEqual([])
})

/** api is the description of the API. */
const api = JSON.parse(readFileSync(join(import.meta.dirname, '../../../api/testdata/openapi.json'), 'utf8')) as {
  paths: Record<string, Record<string, { operationId?: string }>>
  components: { schemas: Record<string, { properties: Record<string, { enum?: string[] }> }> }
}

it.each([
  ['Command', 'state', 'cm.'],
  ['DeviceView', 'status', 'status.'],
  ['Alarm', 'severity', 'sev.'],
  ['AttributeState', 'from', 'at.from.'],
  ['Case', 'light', 'ca.light.'],
  ['Case', 'source', 'ca.source.'],
  ['User', 'role', 'role.'],
  ['WhyNot', 'reason', 'wn.r.'],
  ['WhyNotLevel', 'state', 'wn.s.'],
])('has a word for all that %s.%s may be', (schema, property, prefix) => {
  const values = api.components.schemas[schema]!.properties[property]!.enum!
  expect(values.filter((v) => !(prefix + v in tables.en))).toEqual([])
})

it('names each change that the audit may tell of', () => {
  const changes = Object.values(api.paths).flatMap((p) => Object.entries(p).filter(([method]) => method !== 'get').map(([, o]) => o.operationId!))
  const unnamed = changes.filter((id) => !(`op.${id}` in tables.en))
  expect(unnamed).toEqual([])
})

it('has no text for citizens that nothing uses', () => {
  const code = readFileSync(join(import.meta.dirname, '../src/report/main.tsx'), 'utf8')
  expect(Object.keys(citizens.en).filter((k) => !code.includes(`'${k}'`))).toEqual([])
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
