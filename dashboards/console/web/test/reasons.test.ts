import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { setClock } from '../src/format'
import { setLang } from '../src/i18n'
import { learn, mistake, reason, refusal, verb } from '../src/reasons'
import { away } from '../src/reasons/away'
import { imports } from '../src/reasons/imports'
import { letters } from '../src/reasons/letters'
import { people } from '../src/reasons/people'
import { rules } from '../src/reasons/rules'

vi.stubGlobal('addEventListener', () => {})
vi.stubGlobal('document', { addEventListener: () => {} })
const { ApiError } = await import('../src/api')
const { words } = await import('../src/app')

beforeAll(learn)
beforeEach(() => {
  setClock('Asia/Shanghai', new Date().toISOString())
  setLang('zh')
})
afterEach(() => setLang('en'))

const root = join(import.meta.dirname, '../../../..')
const tables = { people, imports, away, rules, letters }

/** sources are the Go files of a folder, or one of them, without tests. */
function sources(...of: string[]): { file: string; text: string }[] {
  return of
    .flatMap((d) => (d.endsWith('.go') ? [d] : readdirSync(join(root, d)).map((f) => join(d, f))))
    .filter((f) => f.endsWith('.go') && !f.endsWith('_test.go'))
    .map((file) => ({ file, text: readFileSync(join(root, file), 'utf8') }))
}

const literal = /"(?:[^"\\\n]|\\.)*"|`[^`]*`/

/** unquoted is what a literal of Go stands for. */
const unquoted = (s: string) => (s.startsWith('`') ? s.slice(1, -1) : s.slice(1, -1).replace(/\\(["\\])/g, '$1'))

/** literals are all texts of Go files, and those that are the first of a call of one of the functions. */
function literals(of: { text: string }[]): Set<string> {
  return new Set(of.flatMap(({ text }) => [...text.matchAll(new RegExp(literal, 'g'))].map((m) => unquoted(m[0]))))
}

function said(of: { file: string; text: string }[], functions: string): { file: string; format: string }[] {
  const call = new RegExp(`\\b(?:${functions})\\((?:[^"\`\\n]|\\n\\s*(?=["\`]))*?(${literal.source})`, 'g')
  return of.flatMap(({ file, text }) => [...text.matchAll(call)].map((m) => ({ file, format: unquoted(m[1]!) })))
}

it('knows only what the server says', () => {
  const all = literals(
    sources('.', 'app', 'broker/mqtt', 'broker/http', 'broker/uplink', 'cases', 'dashboards/api', 'devices', 'devices/codec', 'ingest', 'ingest/influx', 'notices', 'notices/mail', 'notices/robot', 'notices/webhook', 'rules', 'store'),
  )
  // what stands before ": " or after "; " is translated apart
  const parts = new Set([...all].flatMap((x) => [x, ...[...x.matchAll(/[:;] /g)].map((m) => x.slice(m.index + 2))]))
  const begun = [...all].filter((x) => x.length > 20 && x.endsWith(' ')) // joined to what a constant says
  const is = (format: string) => parts.has(format) || begun.some((x) => x.startsWith(format) || format.startsWith(x))
  for (const [name, table] of Object.entries(tables)) expect(Object.keys(table).filter((f) => !is(f)), name).toEqual([])
})

it('fills in what the sentence names, and no more than that', () => {
  for (const [format, zh] of Object.values(tables).flatMap(Object.entries)) {
    const verbs = format.match(verb)?.length ?? 0
    for (const [, i] of zh.matchAll(/\{(\d+)\}/g)) expect(Number(i), format).toBeLessThan(verbs)
  }
})

// What people read in Chinese, by who says it. A new message there has to be translated, or to stand here with why not.
describe('knows all that is said', () => {
  const example: Record<string, string> = { q: '"abc"', d: '7', c: '(', t: 'true', v: 'connection refused', w: 'connection refused' }
  /** sentence is a format as it may be said. */
  const sentence = (format: string) => format.replace(/(%[.\d]*\w)%s$/, '$1; there are x1').replaceAll('%%', '%').replace(verb, (_, v: string) => example[v] ?? 'x1')
  it.each<[string, string[], string, (s: string) => string, string[]]>([
    ['of a rule file', ['rules/calls.go', 'rules/compile.go', 'rules/filetest.go', 'rules/lint.go', 'rules/lint_truth.go', 'rules/load.go', 'rules/plan.go', 'rules/source.go', 'rules/syntax.go'],
      'errAt|report|reportAt|warning|warningAt|say', mistake, ['%v', '%s', '%s: %v']],
    ['of a schedule', ['rules/schedule.go'], 'Errorf', mistake, ['bad time %q']], // it is said as another of them
    ['of a payload', ['ingest/decode.go', 'ingest/json.go', 'ingest/senml.go', 'ingest/sparkplug.go', 'ingest/lwm2m.go', 'ingest/scan.go', 'ingest/gateway.go', 'sparkplug.go', 'devices/codec/decode.go', 'devices/codec/json.go'],
      'reject|quarantine|errorf|whole|refuse|Errorf', refusal,
      // of the birth of a node, which is no dead letter
      ['%s', '%v', '%w', '%s: %w', '%s: %v', 'byte %d: %v', 'byte %d: %w', 'byte %d: %s', 'time: %w', '%s: when: %w', '%s: repeat: %w', '%s: time: %v', '%s: its length: %w',
        'metric %s of the device is an %s, %v is none', 'metric %s of the device is a %s, and can\'t be a %s']],
    ['of a line of devices', ['devices/csv.go'], 'Errorf|New', reason, ['read import: %w', 'export devices: %w']],
    ['of the device in it', ['text.go', 'crs.go'], 'Errorf', reason, []],
    ['of a component or a grid in a file', ['cases/sheet.go', 'cases/topology.go', 'component.go'], 'Errorf|fail|warn', reason, ['read CSV: %w', 'read import: %w', 'GeoJSON: %w', 'grid %s: %v']],
    ['of a receiver', ['notices/mail/mail.go', 'notices/robot/robot.go', 'notices/webhook/webhook.go'], 'Errorf', reason,
      // of the configuration, said at the start
      ['from %q is no mail address; write it like citywarden@city.example', 'server %q is no address; write host:port, like mail.example:587', 'security %q is not known; it is starttls, tls or none',
        'that is no URL; copy the webhook address of the %s robot', '%q is no URL; write it like https://duty.example/citywarden']],
    ['of a notice that is not sent', ['notice.go'], 'Sprintf', reason, []],
    ['of an uplink', ['broker/uplink/link.go'], 'Errorf', reason, []],
    ['of an order to an alarm', ['dashboards/api/alarms.go'], 'Errorf', reason,
      ['alarm %s has no explanation', 'shelve alarm %s: say for how long ("for": "2h") or until when ("until"), one of the two', 'assign alarm %s: %w', 'assign alarm %s to %s: %w', 'the order %s for %s is stored but not applied yet; look at it again later']],
    ['of a claim', ['devices/claim.go'], 'Errorf', reason,
      // to the device, and to the log
      ['say {"NAME": {"secretKey": "…", "durationMs": 60000}} of the devices that may be claimed', '%d devices in one message; at most %d are taken', '%.64q: %w',
        'say {"secretKey": "…", "durationMs": 60000} of a device that may be claimed', 'secretKey is a text', 'durationMs is a number of milliseconds, at most %d (%s)', 'save claims: %w', 'claim device %s: %w', 'and %d more', '%w']],
  ])('%s', (_, files, functions, says, not) => {
    const found = said(sources(...files), functions)
    expect(found.length).toBeGreaterThan(1)
    const missing = found.filter(({ format }) => !not.includes(format) && !/[一-鿿]/.test(says(sentence(format))))
    expect(missing).toEqual([])
    expect(not.filter((format) => !found.some((x) => x.format === format))).toEqual([]) // nothing stands there in vain
  })
  it('each by its own words', () => {
    for (const [name, table, says] of [['rules', rules, mistake], ['letters', letters, refusal]] as const)
      for (const [format, zh] of Object.entries(table)) {
        if (!/[a-z]{2}/.test(format.replace(verb, '')) || format.startsWith(' ')) continue
        const got = says(sentence(format))
        const want = zh.split(/\{\d+\}/).map((x) => x.trim()).filter(Boolean)
        for (const part of want) expect(got, `${name}: ${format}`).toContain(part)
      }
  })
})

it.each([
  ['alarm smoke:sd-1:3 was acknowledged by lin at 2020-11-26T04:05:06Z', '告警已由 lin 于 2020年11月26日 12:05 确认。'],
  ['device sd-1 is disabled', '设备 sd-1 已禁用。'],
  ['device sd-1 is disabled; enable it first', '设备 sd-1 已禁用，请先启用。'],
  ['acknowledge: alarm a:b:1 is not shelved', '告警没有搁置。'],
  ['handle case E05-1: a photo after handling is missing, handle_after (处置后); add it to the case first', '缺少照片：处置后。请先上传。'],
  ['too many wrong passwords; wait 59s and try again', '密码错误次数过多，请 59 秒后再试。'],
  ['no component "3506230101000001"', '没有部件 3506230101000001'],
  ['the message of more than 70 bytes is larger than the 64 bytes that the device takes of a packet, as its CONNECT says', '命令的报文超出设备在 CONNECT 中声明的上限（64 字节）。'],
  ['cannot request extension case E05-1: it is overdue; more time can be had only before', '案卷 E05-1 不能这样办理：已超时，延期须在超时之前申请。'],
  ['something that nobody translated', 'something that nobody translated'],
  // lines of imports
  ['unknown model "smok"; did you mean "smoke-detector"?', '没有型号 "smok"；是指 "smoke-detector" 吗？'],
  ['3 cells for 5 columns', '5 列却有 3 格'],
  ['model smoke-detector declares no attribute "hight"; did you mean "height"? (kept as text)', '型号 smoke-detector 没有声明属性 "hight"；是指 "height" 吗？（按文本保存）'],
  ['attribute height: "tall" is not a number', '属性 height：文本 "tall" 不是数字'.replace('文本 ', '')],
  ['line 1: there is no column "model"', '第 1 行：缺少列 "model"'],
  ['grid 350623100001001: its ring crosses itself at lat 24.117000, lon 117.613000; draw it again there', '网格 350623100001001：环在纬度 24.117000、经度 117.613000 处自相交；请在那里重画'],
  // receivers and uplinks
  ['send notice to duty.example: dial tcp 192.0.2.7:443: connect: connection refused', '未能发往 duty.example：连接 192.0.2.7:443：对方拒绝连接（服务没有运行，或端口不对）'],
  ['send notice: oapi.dingtalk.com answers 310000 keywords not in content', 'oapi.dingtalk.com 应答 310000 keywords not in content'],
  ['series smoke of sd-1: InfluxDB at http://influx.example:8086: dial tcp 192.0.2.7:8086: connect: connection refused', '读不到 sd-1 的 smoke 曲线：时序库 http://influx.example:8086：连接 192.0.2.7:8086：对方拒绝连接（服务没有运行，或端口不对）'],
  ['connect: not Authorized', '连接失败：用户名或密码不对，或没有权限'],
  ['connect: network Error : dial tcp: lookup broker.example on 127.0.0.53:53: no such host', '连接失败：网络错误：解析 broker.example：没有这个主机名'],
  ['subscribe to factory/#: the broker refuses it; let user "city" read there', '订阅 factory/# 被对方拒绝；请允许用户 "city" 在那里读取'],
])('says %s as %s', (said, zh) => {
  expect(reason(said)).toBe(zh)
  setLang('en')
  expect(reason(said)).toBe(said)
})

it.each([
  ['no function "avrage"; did you mean "avg"?', '没有函数 "avrage"；是指 "avg" 吗？'],
  ['model smoke-detector has no metric "smok"; did you mean "smoke"? It has smoke, battery', '型号 smoke-detector 没有指标 "smok"；是指 "smoke" 吗？可用的有 smoke, battery'],
  ['unknown key "wen" of a level; did you mean "when"? It has severity, when, for, clear', '级别没有键 "wen"；是指 "when" 吗？可用的有 severity, when, for, clear'],
  ['"=" is not part of the rule language; compare with ==', '规则语言没有 "="；请用 == 比较'],
  ['< needs the same kind on both sides, but smoke is a bool and 3 is a number; write smoke or not smoke', '< 需要两边同类，而 smoke 是开关量，3 是数字；请写 smoke or not smoke'],
  ['a water-level reports each 15m, so that a window of 5m is mostly empty and avg(level, "5m") unknown; make it longer', 'water-level 每 15 分钟上报一次，5 分钟的窗口多半为空，avg(level, "5m") 未知；请加长'],
  ['at 5m0s an alarm of fire.zone-smoke was expected to be active; there is none', '5 分钟时期望有规则 fire.zone-smoke 的告警为 active；实际没有'],
  ['a list can\'t stand here; begin the file with rules: and put the list under it', '这里不能写列表；文件以 rules: 开头，列表写在其下'],
])('says of a rule %s as %s', (said, zh) => {
  expect(mistake(said)).toBe(zh)
  setLang('en')
  expect(mistake(said)).toBe(said)
})

it.each([
  ['byte 9: levelM is a number, found the string "3.2"; send it without quotes', '第 9 字节：levelM 应为数字，实为字符串 "3.2"；发送时不要加引号'],
  ['byte 9: levelM is a number, found the string "3.2"; send it without quotes; unknown metric "lvl"; did you mean "level"? (1 of 3 readings were taken)',
    '第 9 字节：levelM 应为数字，实为字符串 "3.2"；发送时不要加引号；没有指标 "lvl"；是指 "level" 吗？（3 个读数中已收下 1 个）'],
  ['byte 0: expected an object or an array of objects, found \'x\'; and 3 more', '第 0 字节：应为对象或对象的数组，实为 \'x\'；另有 3 处'],
  ['byte 8: expected a value, found NaN, which is not JSON (leave a metric out when there is no value)', '第 8 字节：应为值，实为 NaN，不是 JSON（没有值的指标请不发）'],
  ['time 1970-01-01T00:00:12Z is before 2015; set the clock of the device, or leave ts out', '时间 1970年1月1日 08:00 早于 2015 年；请校准设备时钟，或不发 ts'],
  ['no device "sensor-9" behind gateway gw-1; register it and set its attribute gateway to "gw-1"', '网关 gw-1 下没有设备 "sensor-9"；请登记它，并将其属性 gateway 设为 "gw-1"'],
  ['byte 4: level has 2 bytes, the payload ends after byte 5', '第 4 字节：level 有 2 字节，而报文在第 5 字节后结束'],
  ['byte 2: check is 0x1A, the crc16 of bytes 0 to 1 is 0x2B', '第 2 字节：check 为 0x1A，而第 0 至 1 字节的 crc16 为 0x2B'],
  ['the time series refused level: field type conflict: input field "level" is type float, already exists as type string', '时序库拒绝 level：field type conflict: input field "level" is type float, already exists as type string'],
  ['something that nobody translated', 'something that nobody translated'],
])('says of a message %s as %s', (said, zh) => {
  expect(refusal(said)).toBe(zh)
  setLang('en')
  expect(refusal(said)).toBe(said)
})

it('says what an error means by its code, and the reason with it', () => {
  expect(words(new ApiError(400, 'invalid', 'parameter opening of command set is 120; it is 0 to 100'))).toBe('未执行：参数 opening 的值 120 超出允许范围（0 to 100）。')
  expect(words(new ApiError(400, 'invalid', 'some new rule of the server'))).toBe('未执行：some new rule of the server')
  expect(words(new ApiError(413, 'too_large', 'the file is larger than 8 MB'))).toBe('内容过大：the file is larger than 8 MB')
  expect(words(new ApiError(403, 'denied', 'case E1 belongs to 消防, not to 市政处'))).toBe('您不能这样做。案卷 E1 由消防承办，不归市政处。')
  setLang('en')
  expect(words(new ApiError(400, 'invalid', 'some new rule of the server'))).toBe('some new rule of the server')
})
