import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { setClock } from '../src/format'
import { setLang } from '../src/i18n'
import { chinese, reason } from '../src/reasons'

vi.stubGlobal('addEventListener', () => {})
vi.stubGlobal('document', { addEventListener: () => {} })
const { ApiError } = await import('../src/api')
const { words } = await import('../src/app')

beforeEach(() => {
  setClock('Asia/Shanghai', new Date().toISOString())
  setLang('zh')
})
afterEach(() => setLang('en'))

it('knows only what the server says', () => {
  const root = join(import.meta.dirname, '../../../..')
  const source = ['.', 'cases', 'devices', 'dashboards/api', 'broker/mqtt', 'app']
    .flatMap((d) => readdirSync(join(root, d)).map((f) => join(d, f)))
    .filter((f) => f.endsWith('.go') && !f.endsWith('_test.go'))
    .map((f) => readFileSync(join(root, f), 'utf8'))
    .join('\n')
  expect(Object.keys(chinese).filter((format) => !source.includes(`"${format}"`) && !source.includes('`' + format + '`'))).toEqual([])
})

it('fills in what the sentence names, and no more than that', () => {
  for (const [format, zh] of Object.entries(chinese)) {
    const verbs = format.match(/%[a-z]/g)?.length ?? 0
    for (const [, i] of zh.matchAll(/\{(\d)\}/g)) expect(Number(i), format).toBeLessThan(verbs)
  }
})

it.each([
  ['alarm smoke:sd-1:3 was acknowledged by lin at 2020-11-26T04:05:06Z', '告警已由 lin 于 2020年11月26日 12:05 确认。'],
  ['device sd-1 is disabled', '设备 sd-1 已禁用。'],
  ['acknowledge: alarm a:b:1 is not shelved', '告警没有搁置。'],
  ['handle case E05-1: a photo after handling is missing, handle_after (处置后); add it to the case first', '缺少照片：处置后。请先上传。'],
  ['too many wrong passwords; wait 59s and try again', '密码错误次数过多，请 59 秒后再试。'],
  ['no component "3506230101000001"', '没有部件 3506230101000001'],
  ['the message of more than 70 bytes is larger than the 64 bytes that the device takes of a packet, as its CONNECT says', '命令的报文超出设备在 CONNECT 中声明的上限（64 字节）。'],
  ['something that nobody translated', 'something that nobody translated'],
])('says %s as %s', (said, zh) => {
  expect(reason(said)).toBe(zh)
  setLang('en')
  expect(reason(said)).toBe(said)
})

it('says what an error means by its code, and the reason with it', () => {
  expect(words(new ApiError(400, 'invalid', 'parameter opening of command set is 120; it is 0 to 100'))).toBe('未执行：参数 opening 的值 120 超出允许范围（0 to 100）。')
  expect(words(new ApiError(400, 'invalid', 'some new rule of the server'))).toBe('未执行：some new rule of the server')
  expect(words(new ApiError(413, 'too_large', 'the file is larger than 8 MB'))).toBe('内容过大：the file is larger than 8 MB')
  expect(words(new ApiError(403, 'denied', 'case E1 belongs to 消防, not to 市政处'))).toBe('您不能这样做。案卷 E1 由消防承办，不归市政处。')
  setLang('en')
  expect(words(new ApiError(400, 'invalid', 'some new rule of the server'))).toBe('some new rule of the server')
})
