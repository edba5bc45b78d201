// A stand-in for the platform, for work on the console alone: serves ../../dist
// and answers the HTTP API with a made-up county. Never shipped.
//
//   npm run build && node dev/mock.mjs [port] [devices]
import { createServer } from 'node:http'
import { existsSync, readFileSync } from 'node:fs'
import { extname, join } from 'node:path'

const port = Number(process.argv[2] ?? 8099)
const many = Number(process.argv[3] ?? 120)
const dist = join(import.meta.dirname, '../../dist')
const boot = Date.now()
const iso = (ms) => new Date(ms).toISOString()
const ago = (s) => iso(Date.now() - s * 1000)
let seed = 7
const rnd = () => ((seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648)

const T = (zh, en) => ({ zh, en })
const models = [
  { name: 'smoke-detector', title: T('感烟探测器', 'Smoke detector'), domain: 'fire', codec: 'json', report: '1m0s', heartbeat: '15m0s', metrics: [
    { name: 'smoke', title: T('烟雾浓度', 'Smoke'), kind: 'number', unit: 'dB/m', min: 0, max: 2 },
    { name: 'temperature', title: T('温度', 'Temperature'), kind: 'number', unit: 'Cel', min: -40, max: 120 },
    { name: 'button', title: T('手报按钮', 'Call button'), kind: 'bool' },
    { name: 'battery', title: T('电量', 'Battery'), kind: 'number', unit: '%', min: 0, max: 100, stale_after: '24h0m0s' },
    { name: 'mains', title: T('市电', 'Mains power'), kind: 'bool' } ],
    attributes: [ { name: 'zone', title: T('防火分区', 'Fire zone'), kind: 'text' }, { name: 'smoke_limit', title: T('报警限值', 'Smoke limit'), kind: 'number', unit: 'dB/m', default: 0.12 } ] },
  { name: 'pressure-logger', title: T('压力记录仪', 'Pressure logger'), domain: 'pipe', codec: 'json', report: '30s', heartbeat: '10m0s', metrics: [
    { name: 'pressure', title: T('压力', 'Pressure'), kind: 'number', unit: 'bar', min: 0, max: 16 },
    { name: 'flow', title: T('流量', 'Flow'), kind: 'number', unit: 'm3/h' },
    { name: 'battery', title: T('电量', 'Battery'), kind: 'number', unit: '%' } ], attributes: [ { name: 'dma', title: T('计量分区', 'Metering area'), kind: 'text' } ] },
  { name: 'parking-bay', title: T('车位地磁', 'Parking bay sensor'), domain: 'parking', codec: 'json', report: '5m0s', heartbeat: '30m0s', metrics: [
    { name: 'occupied', title: T('占用', 'Occupied'), kind: 'bool' }, { name: 'battery', title: T('电量', 'Battery'), kind: 'number', unit: '%' } ],
    attributes: [ { name: 'kind', title: T('类型', 'Kind'), kind: 'text', default: 'bay' }, { name: 'lane', title: T('车道', 'Lane'), kind: 'text' } ] },
  { name: 'energy-meter', title: T('电能表', 'Energy meter'), domain: 'building', codec: 'json', report: '1m0s', heartbeat: '15m0s', metrics: [
    { name: 'power', title: T('有功功率', 'Power'), kind: 'number', unit: 'kW' }, { name: 'energy', title: T('电量', 'Energy'), kind: 'number', unit: 'kW.h', counter: true }, { name: 'mains', title: T('市电', 'Mains power'), kind: 'bool' } ],
    attributes: [ { name: 'night_limit', title: T('夜间限值', 'Night limit'), kind: 'number', unit: 'kW' } ] },
]
const classes = [
  { code: 'event/0595', standard: 'GB/T 30428.2-2013', name: T('消防隐患', 'Fire hazard'), filing_condition: '发现火情或消防设施告警', closing_condition: '火情消除，设施恢复正常', limit: '2紧急工作时', department: '消防救援大队' },
  { code: 'event/0501', standard: 'GB/T 30428.2-2013', name: T('给水管道破裂', 'Burst water main'), filing_condition: '自来水管破裂、漏水', closing_condition: '修复并恢复路面', limit: '4紧急工作时', department: '县自来水公司' },
  { code: 'event/0496', standard: 'GB/T 30428.2-2013', name: T('占用消防通道', 'Blocked fire lane'), filing_condition: '占用消防通道', closing_condition: '通道恢复畅通', limit: '1工作时', department: '城市管理执法大队' },
  { code: 'event/0699', standard: 'GB/T 30428.2-2013', name: T('用电异常', 'Abnormal load'), limit: '3工作日', department: '机关事务中心' },
]
const rules = [
  { id: 'fire.zone-smoke', title: T('防火分区烟雾', 'Smoke in a fire zone'), version: '3fa9c1d2e0b7', mode: 'live', models: ['smoke-detector'], severity: 'critical', file: 'fire.yaml', line: 2,
    text: `# 一个防火分区一条告警\n- id: fire.zone-smoke\n  select: {model: [smoke-detector]}\n  group: {by: attr.zone}                 # one alarm per zone, members listed\n  levels:\n  - {severity: warning,  when: 'n_of(smoke > (attr.smoke_limit ?? 0.12), "60s") >= 1', for: 10s}\n  - {severity: critical, when: 'n_of(smoke > (attr.smoke_limit ?? 0.12), "60s") >= 2 or n_of(button, "60s") >= 1'}\n  clear: {when: 'n_of(smoke > 0.06, "120s") == 0', for: 5m}\n  latch: true                            # an operator resets it\n  case: {class: event/0595, key: 'fire/{{zone}}'}\n` },
  { id: 'pipe.burst', title: T('管道爆裂', 'Pipe burst'), version: 'aa12bb34cc56', mode: 'live', models: ['pressure-logger'], severity: 'major', file: 'pipe.yaml', line: 2, text: '- id: pipe.burst\n  select: {model: [pressure-logger]}\n  levels:\n  - severity: major\n    when: \'delta(pressure, "2m") < -0.4\'\n    for: 30s\n' },
  { id: 'parking.fire-lane', title: T('消防通道被占', 'Fire lane blocked'), version: '0011aabb2233', mode: 'live', models: ['parking-bay'], severity: 'minor', file: 'parking.yaml', line: 2, text: "- id: parking.fire-lane\n  levels: [{severity: minor, when: 'occupied', for: 3m}]\n" },
  { id: 'meter.night-base-load', title: T('夜间基础负荷过高', 'High night base load'), version: '99887766aabb', mode: 'shadow', models: ['energy-meter'], severity: 'minor', file: 'building.yaml', line: 2, text: '- id: meter.night-base-load\n  mode: shadow\n' },
  { id: 'fire.detector-silent', title: T('探测器失联', 'Detector silent'), version: '5544aabbccdd', mode: 'live', models: ['smoke-detector'], severity: 'warning', file: 'fire.yaml', line: 14, text: "- id: fire.detector-silent\n  levels: [{severity: warning, when: 'silent(attr.heartbeat ?? \"15m\")'}]\n" },
]
const C = { lat: 24.117, lon: 117.613 }
const W = 0.0148, H = 0.0135
const bounds = [[C.lon - W, C.lat - H], [C.lon + W, C.lat + H]]
const rect = (lon, lat, w, h) => [[[lon, lat], [lon + w, lat], [lon + w, lat + h], [lon, lat + h], [lon, lat]]]
const F = (geometry, properties) => ({ type: 'Feature', geometry, properties })
const layers = { grids: [], streets: [], buildings: [], pipes: [], dmas: [] }
const N = 12
for (let i = 0; i < N; i++) for (let j = 0; j < N; j++) {
  const w = (2 * W) / N, h = (2 * H) / N
  layers.grids.push(F({ type: 'Polygon', coordinates: rect(bounds[0][0] + i * w, bounds[0][1] + j * h, w, h) }, { kind: 'grid', code: '350623001' + String(1 + (i >> 2)).padStart(3, '0') + String(i * N + j).padStart(3, '0'), area_m2: 62500 }))
}
const names = ['绥安路', '麦市街', '府前街', '金浦大道', '鹿溪路', '东大路', '西湖路', '朝阳路']
for (let k = 0; k < 8; k++) {
  const v = k % 2, p = (k >> 1) / 3.2 - 0.45
  const line = Array.from({ length: 12 }, (_, i) => v ? [C.lon + p * 2 * W + Math.sin(i / 2 + k) * 0.0005, bounds[0][1] + (i / 11) * 2 * H] : [bounds[0][0] + (i / 11) * 2 * W, C.lat + p * 2 * H + Math.sin(i / 2 + k) * 0.0005])
  layers.streets.push(F({ type: 'LineString', coordinates: line }, { kind: 'street', name: names[k], code: 'S' + k }))
  layers.pipes.push(F({ type: 'LineString', coordinates: line.map(([a, b]) => [a + 0.00025, b + 0.00025]) }, { kind: 'water main', name: 'DN300', code: 'P' + k }))
}
for (let k = 0; k < 260; k++) {
  const lon = bounds[0][0] + rnd() * 2 * W, lat = bounds[0][1] + rnd() * 2 * H
  layers.buildings.push(F({ type: 'Polygon', coordinates: rect(lon, lat, 0.0003 + rnd() * 0.0004, 0.0002 + rnd() * 0.0003) }, { kind: 'building', name: k % 9 === 0 ? ['县医院', '第一中学', '工人文化宫', '中心市场', '县政府'][k % 5] : '', code: 'B' + k }))
}
layers.dmas.push(F({ type: 'Polygon', coordinates: rect(bounds[0][0], bounds[0][1], W, 2 * H) }, { kind: 'dma', name: 'DMA 东区', code: 'D7' }))
layers.dmas.push(F({ type: 'Polygon', coordinates: rect(C.lon, bounds[0][1], W, 2 * H) }, { kind: 'dma', name: 'DMA 西区', code: 'D8' }))

const devices = []
for (let k = 0; k < many; k++) {
  const m = models[k % 4]
  const lat = C.lat + (rnd() - 0.5) * 1.9 * H, lon = C.lon + (rnd() - 0.5) * 1.9 * W
  const i = Math.floor((lon - bounds[0][0]) / ((2 * W) / N)), j = Math.floor((lat - bounds[0][1]) / ((2 * H) / N))
  const short = { 'smoke-detector': 'smk', 'pressure-logger': 'pl', 'parking-bay': 'bay', 'energy-meter': 'em' }[m.name]
  const status = k === 24 ? 'never' : k % 31 === 20 ? 'silent' : 'online'
  const seen = status === 'silent' ? 7300 : rnd() * 50
  const latest = {}
  for (const x of m.metrics) {
    const v = x.kind === 'bool' ? x.name === 'mains' || rnd() > 0.6 : { smoke: 0.021 + rnd() * 0.02, temperature: 22 + rnd() * 4, battery: 60 + rnd() * 40, pressure: 3.4 + rnd() * 0.6, flow: 20 + rnd() * 20, power: 12 + rnd() * 60, energy: 10000 + rnd() * 90000 }[x.name]
    latest[x.name] = { value: v, time: ago(seen), quality: k % 17 === 3 && x.name === 'temperature' ? 'out_of_range' : 'good' }
  }
  devices.push({ id: `${short}-${String(k).padStart(3, '0')}`, name: `${names[k % 8]}${m.title.zh}${(k >> 2) + 1}号`, model: m.name, attributes: m.name === 'smoke-detector' ? { zone: 'A-' + ((k >> 2) % 6), smoke_limit: 0.12 } : m.name === 'energy-meter' ? { night_limit: 18, building: '县政府' } : m.name === 'pressure-logger' ? { dma: 'D7' } : { kind: k % 8 === 2 ? 'fire_lane' : 'bay', lane: 'L' + (k % 5) },
    location: { lat, lon }, grid: '350623001' + String(1 + (i >> 2)).padStart(3, '0') + String(i * N + j).padStart(3, '0'), adjacent: m.name === 'pressure-logger' && k > 3 ? [`pl-${String(k - 4).padStart(3, '0')}`] : undefined, created: iso(boot - 86400000 * 3), updated: iso(boot - 86400000), status, last_seen: status === 'never' ? undefined : ago(seen), latest: status === 'never' ? undefined : latest, alarm: '' })
}
const A = (n, rule, d, severity, secs, more = {}) => { d.alarm = severity; return { id: `${rule}:${d.id}:${n}`, rule, title: rules.find((r) => r.id === rule).title, entity: d.id, device: d.id, episode: n, severity, state: 'active', acked: false, raised_at: ago(secs), ...more } }
const D = (i) => devices[i % devices.length]
const alarms = [
  A(1, 'fire.zone-smoke', D(8), 'critical', 95, { entity: 'A-2', members: [D(8).id, D(32).id], latched: true, case: 'E0595202611230001' }),
  A(3, 'pipe.burst', D(45), 'major', 600, { acked: true, acked_by: 'lin', acked_at: ago(400), case: 'E0501202611230002', clearing: true }),
  A(2, 'parking.fire-lane', D(58), 'minor', 260, { case: 'E0496202611230003' }),
  A(1, 'fire.detector-silent', D(20), 'warning', 6300, { acked: true, acked_by: 'lin', acked_at: ago(6000) }),
  A(1, 'fire.detector-silent', D(84), 'warning', 9000, { shelved_until: iso(Date.now() + 3600e3), shelved_by: 'lin', reason: '正在检修' }),
  A(1, 'parking.fire-lane', D(66), 'minor', 40000, { state: 'cleared', cleared_at: ago(39000), acked: true, acked_by: 'lin', acked_at: ago(39900), case: 'E0496202611220009' }),
  A(7, 'fire.detector-silent', D(28), 'warning', 700, { suppressed_by: `pipe.burst:${D(45).id}:3` }),
  A(8, 'fire.detector-silent', D(36), 'warning', 690, { suppressed_by: `pipe.burst:${D(45).id}:3` }),
  A(4, 'parking.fire-lane', D(62), 'minor', 9000, { out_of_service_since: ago(8000), out_of_service_by: 'lin', out_of_service_reason: '道路施工至周五，施工队通知恢复' }),
  A(5, 'parking.fire-lane', D(50), 'minor', 500, { flapping: true, assignee: 'admin' }),
]
D(66).alarm = ''
const steps = new Map(alarms.map((a) => [a.id, [{ kind: 'raised', severity: a.severity, at: a.raised_at }, ...(a.acked ? [{ kind: 'acked', severity: a.severity, at: a.acked_at, by: a.acked_by }] : []), ...(a.suppressed_by ? [{ kind: 'suppressed', severity: a.severity, at: a.raised_at, suppressed_by: a.suppressed_by }] : [])]]))
const K = (id, klass, zh, en, stage, d, more) => { const c = classes.find((c) => c.code === klass); return { id, class: klass, class_name: c.name, title: T(zh, en), source: 'sensor', stage, location: d.location, grid: d.grid, filing_condition: c.filing_condition, closing_condition: c.closing_condition, limit: c.limit, opened: ago(90), alarms: [], back_to_normal: false, revision: 1, timeline: [{ action: 'open', stage: 'pending_filing', by: 'citywarden', at: ago(90) }], ...more } }
const cases = [
  K('E0595202611230001', 'event/0595', '防火分区 A-2 烟雾', 'Smoke in fire zone A-2', 'pending_filing', D(8), { severity: 'critical', key: 'fire/A-2', alarms: [alarms[0].id] }),
  K('E0501202611230002', 'event/0501', '金浦大道给水管道疑似爆裂', 'Suspected burst on Jinpu Avenue', 'handling', D(45), { severity: 'major', department: '县自来水公司', opened: ago(5200), deadline: iso(Date.now() + 1100e3), light: 'yellow', alarms: [alarms[1].id], revision: 5,
    timeline: [ { action: 'open', stage: 'pending_filing', by: 'citywarden', text: T('重要级告警：管道爆裂', 'major alarm: Pipe burst'), at: ago(5200), alarm: alarms[1].id }, { action: 'file', stage: 'pending_dispatch', by: 'lin', role: 'supervisor', at: ago(5000) }, { action: 'dispatch', stage: 'pending_handling', by: 'chen', role: 'dispatcher', department: '县自来水公司', note: '请先关 3 号阀', at: ago(4700) }, { action: 'accept', stage: 'handling', by: 'water-1', role: 'department', at: ago(4300) }, { action: 'evidence', stage: 'handling', by: 'citywarden', note: '压力回升到 3.6 bar', at: ago(300), alarm: alarms[1].id } ] }),
  K('E0496202611230003', 'event/0496', '县医院东侧消防通道被占', 'Fire lane east of the hospital blocked', 'pending_handling', D(58), { severity: 'minor', department: '城市管理执法大队', opened: ago(9000), deadline: ago(1900), light: 'red', alarms: [alarms[2].id], revision: 3 }),
  K('E0496202611220009', 'event/0496', '麦市街消防通道被占', 'Fire lane on Maishi Street blocked', 'handled', D(66), { severity: 'minor', department: '城市管理执法大队', opened: ago(40000), deadline: iso(Date.now() + 20000e3), light: 'green', back_to_normal: true, handled_by: 'enforce-2', alarms: [alarms[5].id], revision: 6 }),
  K('W0699202611230001', 'event/0699', '探测器 smk-020 失联检修', 'Detector smk-020 silent', 'pending_dispatch', D(20), { work_order: true, alarms: [alarms[3].id] }),
]
const flow = { file: ['pending_filing', 'pending_dispatch'], reject: ['pending_filing', 'rejected'], dispatch: ['pending_dispatch', 'pending_handling'], send_back: ['handling', 'pending_dispatch'], accept: ['pending_handling', 'handling'], handle: ['handling', 'handled'], verify: ['handled', 'pending_close'], rework: ['handled', 'handling'], close: ['pending_close', 'closed'], void: ['handling', 'voided'], comment: [null, null] }
const withActions = (c) => ({ ...c, actions: Object.entries(flow).filter(([, [from]]) => from === null || from === c.stage).map(([a]) => a) })

// events
let eventID = 100
const ring = []
const streams = new Set()
function emit(kind, data) {
  const e = { id: ++eventID, kind, data }
  ring.push(e)
  if (ring.length > 500) ring.shift()
  for (const s of streams) s.send(e)
}
setInterval(() => {
  for (let k = 0; k < 4; k++) {
    const d = D(Math.floor(Math.random() * devices.length))
    if (d.status !== 'online') continue
    const m = models.find((m) => m.name === d.model).metrics.find((m) => m.kind === 'number')
    d.last_seen = iso(Date.now())
    d.latest[m.name] = { value: d.latest[m.name].value * (0.99 + Math.random() * 0.02), time: d.last_seen, quality: 'good' }
    emit('reading', { device: d.id, latest: { [m.name]: d.latest[m.name] } })
  }
}, 1000)

function series(d, metric, from, to, every) {
  const points = []
  const step = every || 60000
  const base = { smoke: 0.025, temperature: 23, pressure: 3.8, flow: 30, power: 30, energy: 50000, battery: 88 }[metric]
  const raised = alarms.find((a) => a.device === d.id && a.state === 'active')
  for (let t = Math.ceil(from / step) * step; t < to; t += step) {
    if (Math.floor(t / 3600e3) % 9 === 4 && t % 3600e3 > 1200e3) continue // a gap
    const wave = Math.sin(t / 4e6) * 0.12 + Math.sin(t / 3e5) * 0.03
    let v = base === undefined ? Math.floor(t / 900e3) % 3 === 0 : base * (1 + wave)
    if (raised && t > Date.parse(raised.raised_at) - 60000 && typeof v === 'number') v = metric === 'smoke' ? 0.31 : metric === 'pressure' ? 2.9 : v
    points.push([iso(t), v])
  }
  return points
}

const users = { admin: { name: 'admin', title: '值班长 林敏', role: 'admin' }, viewer: { name: 'viewer', role: 'viewer' } }
let signedIn = null
let broken = false
const problem = (status, detail, code = '') => ({ status, body: { type: 'about:blank', title: detail, status, detail, code } })

function api(method, path, q, body) {
  const page = (items) => { const from = Number(q.get('after') ?? 0), n = Number(q.get('limit') ?? 100); return { items: items.slice(from, from + n), next: from + n < items.length ? String(from + n) : null } }
  let m
  if (path === '/login') { if (users[body.user] && body.password === 'pass') { signedIn = users[body.user]; return { body: { token: 'x', user: signedIn } } } return problem(401, 'wrong user name or password', 'unauthenticated') }
  if (path === '/logout') { signedIn = null; return { body: {} } }
  if (!signedIn) return problem(401, 'sign in first', 'unauthenticated')
  if (path === '/me') return { body: signedIn }
  if (path === '/info') return { body: { version: '0.1.0-dev', demo: true, time_zone: 'Asia/Shanghai', now: iso(Date.now()), mqtt: '127.0.0.1:1883' } }
  if (path === '/models') return { body: page(models) }
  if (path === '/classes') return { body: page(classes) }
  if (path === '/users') return { body: page([signedIn, { name: 'lin', title: '林值班', role: 'supervisor' }]) }
  if (path === '/alarms/load') return { body: load(Date.parse(q.get('from')), Date.parse(q.get('to'))) }
  if (path === '/rules/status') return { body: { loaded_at: ago(7200), rules: rules.length, tests: 2, ...(refused && { refused_at: ago(60), problems: [typo()] }) } }
  if (path === '/rules/reload') { refused = !refused; return refused ? problem(400, 'rules.yaml:6:32: unknown name "smoek"', 'invalid') : { body: {} } }
  if (path === '/rules/test') return { body: report(body.text) }
  if ((m = /^\/rules\/([^/]+)\/why-not$/.exec(path))) return { body: whyNot(m[1], q.get('device'), q.get('at')) }
  if (path === '/rules') return { body: page(rules) }
  if ((m = /^\/rules\/(.+)$/.exec(path))) { const r = rules.find((r) => r.id === m[1]); return r ? { body: r } : problem(404, `no rule ${m[1]}`) }
  if (path === '/summary') {
    const act = alarms.filter((a) => a.state === 'active'), open = cases.filter((c) => !['closed', 'rejected', 'voided'].includes(c.stage) && !c.work_order)
    const by = (xs, f) => xs.reduce((o, x) => ({ ...o, [f(x)]: (o[f(x)] ?? 0) + 1 }), {})
    return { body: { devices: { total: devices.length, online: devices.filter((d) => d.status === 'online').length, silent: devices.filter((d) => d.status === 'silent').length, never: devices.filter((d) => d.status === 'never').length }, alarms: { active: act.length, unacked: act.filter((a) => !a.acked).length, by_severity: by(act, (a) => a.severity) }, cases: { open: open.length, overdue: open.filter((c) => c.deadline && Date.parse(c.deadline) < Date.now()).length, by_stage: by(open, (c) => c.stage) } } }
  }
  if (path === '/map') return { body: { center: C, bounds, layers: Object.keys(layers) } }
  if ((m = /^\/map\/layers\/(.+)$/.exec(path))) return { body: { type: 'FeatureCollection', features: layers[m[1]] } }
  if (path === '/map/devices') return { body: { type: 'FeatureCollection', features: devices.filter((d) => d.location).map((d) => ({ type: 'Feature', geometry: { type: 'Point', coordinates: [d.location.lon, d.location.lat] }, properties: { id: d.id, name: d.name, model: d.model, status: d.status, grid: d.grid } })) } }
  if (path === '/devices' && method === 'GET') { const s = (q.get('q') ?? '').toLowerCase(); return { body: page(devices.filter((d) => (!q.get('model') || d.model === q.get('model')) && (!q.get('grid') || d.grid === q.get('grid')) && (d.id + d.name).toLowerCase().includes(s))) } }
  if (path === '/devices') { if (devices.some((d) => d.id === body.id)) return problem(409, `there is a device ${body.id} already`, 'conflict'); devices.push({ ...body, created: iso(Date.now()), updated: iso(Date.now()), status: 'never', alarm: '' }); return { body: devices.at(-1) } }
  if ((m = /^\/devices\/([^/]+)\/credentials$/.exec(path))) return { body: { token: 'k3Jd82nFq0Zx7Lm1Pw5v' } }
  if ((m = /^\/devices\/([^/]+)\/series$/.exec(path))) { const d = devices.find((d) => d.id === m[1]); const e = /^(\d+)(m|h)$/.exec(q.get('every') ?? ''); return { body: { points: series(d, q.get('metric'), Date.parse(q.get('from')), Date.parse(q.get('to')), e ? e[1] * (e[2] === 'h' ? 3600e3 : 60e3) : 0), unit: models.find((x) => x.name === d.model).metrics.find((x) => x.name === q.get('metric'))?.unit ?? '' } } }
  if ((m = /^\/devices\/([^/]+)$/.exec(path))) { const d = devices.find((d) => d.id === m[1]); return d ? { body: d } : problem(404, `no device ${m[1]}`) }
  if (path === '/alarms') return { body: page(alarms.filter((a) => (!q.get('state') || a.state === q.get('state')) && (!q.get('device') || a.device === q.get('device')))) }
  if ((m = /^\/alarms\/([^/]+)\/why$/.exec(path))) {
    const a = alarms.find((a) => a.id === m[1]); if (!a) return problem(404, `no alarm ${m[1]}`)
    const at = Date.parse(a.raised_at)
    return { body: a.rule === 'fire.zone-smoke' ? { rule: a.rule, version: '3fa9c1d2e0b7', at: a.raised_at, severity: 'critical', condition: 'n_of(smoke > (attr.smoke_limit ?? 0.12), "60s") >= 2 or n_of(button, "60s") >= 1', held: '0s', summary: T('防火分区 A-2 有 2 个探测器在 60 秒内超过烟雾限值', 'Two detectors of fire zone A-2 were above the smoke limit within 60 s'),
      leaves: [ { text: 'n_of(smoke > (attr.smoke_limit ?? 0.12), "60s") >= 2', left: 2, op: '>=', right: 2, result: 'true' }, { text: 'n_of(button, "60s") >= 1', left: 0, op: '>=', right: 1, result: 'false' } ],
      inputs: a.members.map((d) => ({ device: d, metric: 'smoke', value: 0.31, unit: 'dB/m', time: iso(at - 2000), arrived: iso(at - 1500) })), attributes: [{ name: 'smoke_limit', value: 0.12, from: 'device' }], windows: [{ text: 'n_of(smoke > …, "60s")', from: iso(at - 60000), to: a.raised_at, samples: 4, result: 2 }], members: [...a.members.map((d) => ({ device: d, result: 'true', time: iso(at - 2000) })), { device: D(56).id, result: 'false', time: iso(at - 9000) }, { device: D(20).id, result: 'unknown' }] }
      : { rule: a.rule, version: 'aa12bb34cc56', at: a.raised_at, severity: a.severity, condition: 'pressure < 3.2', held: '30s', since: iso(at - 30000), summary: T('压力骤降', 'Sudden pressure drop'), leaves: [{ text: 'pressure < 3.2', left: 2.9, op: '<', right: 3.2, result: 'true' }], inputs: [{ device: a.device, metric: 'pressure', value: 2.9, unit: 'bar', time: iso(at - 1000), arrived: iso(at) }] } }
  }
  if ((m = /^\/alarms\/([^/]+)\/history$/.exec(path))) return { body: page(steps.get(m[1]) ?? []) }
  if ((m = /^\/alarms\/([^/]+)\/(ack|shelve|unshelve|reset|comment|assign|out-of-service|in-service)$/.exec(path))) {
    const a = alarms.find((a) => a.id === m[1]); if (!a) return problem(404, `no alarm ${m[1]}`)
    if (m[2] === 'ack') Object.assign(a, { acked: true, acked_by: signedIn.name, acked_at: iso(Date.now()) })
    if (m[2] === 'shelve') Object.assign(a, { shelved_until: iso(Date.now() + 7200e3), shelved_by: signedIn.name, reason: body.reason })
    if (m[2] === 'unshelve') delete a.shelved_until
    if (m[2] === 'reset') Object.assign(a, { latched: false, state: 'cleared', cleared_at: iso(Date.now()) })
    if (m[2] === 'assign') a.assignee = body.to || undefined
    if (m[2] === 'out-of-service') Object.assign(a, { out_of_service_since: iso(Date.now()), out_of_service_by: signedIn.name, out_of_service_reason: body.reason })
    if (m[2] === 'in-service') delete a.out_of_service_since
    const kind = { ack: 'acked', shelve: 'shelved', unshelve: 'unshelved', reset: 'cleared', comment: 'commented', assign: 'assigned', 'out-of-service': 'out_of_service', 'in-service': 'in_service' }[m[2]]
    steps.get(a.id)?.push({ kind, severity: a.severity, at: iso(Date.now()), by: signedIn.name, reason: body.reason, text: body.text, assignee: body.to })
    emit('alarm', a)
    return { body: a }
  }
  if ((m = /^\/alarms\/([^/]+)$/.exec(path))) { const a = alarms.find((a) => a.id === m[1]); return a ? { body: a } : problem(404, `no alarm ${m[1]}`) }
  if (path === '/cases') return { body: page(cases.filter((c) => (c.work_order ?? false) === (q.get('work_orders') === 'true') && (q.get('open') !== 'true' || !['closed', 'rejected', 'voided'].includes(c.stage))).map((c) => ({ ...c, timeline: undefined }))) }
  if ((m = /^\/cases\/([^/]+)\/actions\/(.+)$/.exec(path))) {
    const c = cases.find((c) => c.id === m[1]), f = flow[m[2]]
    if (body.revision && body.revision !== c.revision) return problem(409, `case ${c.id} has changed`, 'conflict')
    if (f[1]) c.stage = f[1]
    if (m[2] === 'file') Object.assign(c, { deadline: iso(Date.now() + 7200e3), light: 'green' })
    if (m[2] === 'dispatch') c.department = body.department
    c.revision++
    c.timeline = [...c.timeline, { action: m[2], stage: c.stage, by: signedIn.name, role: signedIn.role, note: body.note, department: body.department, at: iso(Date.now()) }]
    emit('case', { ...c, timeline: undefined })
    return { body: withActions(c) }
  }
  if ((m = /^\/cases\/([^/]+)$/.exec(path))) { const c = cases.find((c) => c.id === m[1]); return c ? { body: withActions(c) } : problem(404, `no case ${m[1]}`) }
  return problem(404, 'no such route ' + path)
}

function load(from, to) {
  const series = []
  for (let at = from, i = 0; at < to; at += 600e3, i++) series.push({ at: iso(at), alarms: i % 17 === 5 ? 3 : i % 29 === 11 ? 14 : i % 5 === 0 ? 1 : 0 })
  const n = series.reduce((x, p) => x + p.alarms, 0), worst = series.reduce((a, b) => (b.alarms > a.alarms ? b : a), { alarms: 0 })
  const top = rules.map((r, i) => ({ rule: r.id, title: r.title, alarms: Math.round(n / 2 ** (i + 1)), share: 1 / 2 ** (i + 1) }))
  const share = (share, target) => ({ alarms: Math.round(n * share), share, target })
  return { from: iso(from), to: iso(to), operators: 2, alarms: n, work_orders: 4, per_operator_10min: { mean: n / 2 / series.length, peak: worst.alarms / 2, peak_at: worst.at, goal: 1, over_goal_share: 0.12 }, floods: [{ from: worst.at, to: iso(Date.parse(worst.at) + 1500e3), alarms: 31 }],
    chattering: [{ rule: 'parking.fire-lane', title: rules[2].title, entity: D(50).id, device: D(50).id, most_per_minute: 4, count: 38 }], stale: [A(2, 'fire.detector-silent', D(12), 'warning', 200000)], top_rules: top, priorities: { critical: share(0.14, 0.05), major: share(0.2, 0.15), minor: share(0.66, 0.8) }, series }
}

let refused = false // every other reload is
const mistake = (line, col, message, snippet) => ({ file: 'rules.yaml', line, col, message, snippet })
const typo = () => mistake(6, 32, 'unknown name "smoek" in smoke-detector; did you mean "smoke"?', "  - {severity: warning,  when: 'n_of(smoek > 0.12, \"60s\") >= 1', for: 10s}\n                                      ^")
function report(text) {
  if (text?.includes('smoek')) return { ok: false, problems: [typo()], warnings: [], results: [] }
  return { ok: false, problems: [], warnings: [], results: [{ name: 'a burst needs a neighbour', file: 'pipe.yaml', line: 20, ok: true, problems: [], took_ms: 3 }, { name: 'two detectors make it critical', file: text ? 'rules.yaml' : 'fire.yaml', line: 30, ok: false, took_ms: 4, problems: [{ ...mistake(41, 5, 'at 2m: fire.zone-smoke is warning, want critical', '  - {at: 2m, alarm: fire.zone-smoke, severity: critical}\n    ^') }] }] }
}
function backtest(q) {
  const from = Date.parse(q.from), to = Date.now(), alarms = []
  for (let i = 0; i < 60; i++) { const at = from + ((to - from) * ((i * 37) % 60)) / 60; alarms.push({ in: ['both', 'both', 'tried', 'now'][i % 4], entity: D(i * 4).id, device: D(i * 4).id, severity: i % 7 ? 'minor' : 'critical', raised: iso(at), cleared: i === 59 ? undefined : iso(at + 400e3), now_raised: i % 4 < 2 ? iso(at + 60e3) : undefined }) }
  const c = (n) => ({ raises: n, clears: n - 1, escalations: 2, standing: 0, open: 1, entities: 15, active: '5h12m', longest: '41m', shortest: '2m', per_10min: n / 144, peak_10min: 4, peak_at: iso(from), chattering: [] })
  return { from: q.from, to: iso(to), warmup: q.from, logged: q.from, messages: 51000, readings: 204000, took: '3.2s', notes: [T('历史中的人工操作（确认、搁置等）也一并重放。', 'Orders of people, like shelving, are replayed, too.')], rules: [{ rule: q.rule ?? 'fire.zone-smoke', title: rules[0].title, version: 'x', running: q.text ? '3fa9c1d2e0b7' : '', tried: c(45), now: q.text ? c(30) : undefined, only_tried: 15, only_now: 15, both: 30, alarms: q.text ? alarms : alarms.map((a) => ({ ...a, in: 'tried' })) }] }
}
function whyNot(rule, device, at) {
  const t = Date.parse(at)
  return { rule, version: '3fa9c1d2e0b7', device, entity: device, at, reason: 'condition', summary: T(device + '：不满足告警条件：压力为 3.4 bar，不低于 3.2 bar。', device + ': the condition is false: pressure is 3.4 bar, not below 3.2 bar.'), last_seen: iso(t - 4000), from: iso(t - 86400e3), levels: [{ rule, version: 'x', at, severity: 'major', condition: 'pressure < 3.2', held: '30s', summary: T('', ''), leaves: [{ text: 'pressure < 3.2', left: 3.4, op: '<', right: 3.2, result: 'false' }], inputs: [{ device, metric: 'pressure', value: 3.4, unit: 'bar', time: iso(t - 5000), arrived: iso(t - 4000) }], result: 'false', state: 'normal' }], notes: [T('在此之前的读数来自时间序列，到达时间未知。', 'Readings before that come from the time series; when they arrived is not known.')] }
}

const kinds = { '.js': 'text/javascript', '.mjs': 'text/javascript', '.css': 'text/css', '.html': 'text/html', '.svg': 'image/svg+xml' }
createServer(async (req, res) => {
  const url = new URL(req.url, 'http://x')
  if (url.pathname === '/mock/break') { broken = url.searchParams.get('on') === '1'; if (broken) for (const s of streams) s.res.destroy(); return res.end() }
  if (url.pathname === '/mock/raise') { alarms.unshift(A(9, 'pipe.burst', D(1), 'major', 1)); emit('alarm', alarms[0]); return res.end() }
  if (broken && url.pathname.startsWith('/api/')) return req.socket.destroy()
  if (url.pathname === '/api/v1/events') {
    if (!signedIn) { res.writeHead(401); return res.end() }
    res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' })
    const want = (url.searchParams.get('kinds') ?? '').split(','), device = url.searchParams.get('device')
    const s = { res, send: (e) => want.includes(e.kind) && (!device || (e.data.device ?? e.data.id) === device) && res.write(`id: ${e.id}\nevent: ${e.kind}\ndata: ${JSON.stringify(e.data)}\n\n`) }
    res.write(': hello\n\n')
    const last = Number(req.headers['last-event-id'] ?? 0)
    if (last) for (const e of ring) if (e.id > last) s.send(e)
    streams.add(s)
    const beat = setInterval(() => res.write(': beat\n\n'), 15000)
    res.on('close', () => { streams.delete(s); clearInterval(beat) })
    return
  }
  if (url.pathname.startsWith('/api/v1/')) {
    let raw = ''
    for await (const c of req) raw += c
    if (url.pathname.endsWith('/rules/backtest')) {
      res.writeHead(200, { 'Content-Type': 'text/event-stream' })
      const asked = JSON.parse(raw)
      for (let i = 0; i < 10 && !res.destroyed; i++) {
        res.write(`event: progress\ndata: ${JSON.stringify({ done: i / 10, at: iso(Date.now() - (10 - i) * 8640e3), readings: i * 20400 })}\n\n`)
        await new Promise((r) => setTimeout(r, 200))
      }
      return res.end(`event: result\ndata: ${JSON.stringify(backtest(asked))}\n\n`)
    }
    const r = api(req.method, decodeURIComponent(url.pathname.slice(7)), url.searchParams, raw ? JSON.parse(raw) : {})
    res.writeHead(r.status ?? 200, { 'Content-Type': r.status ? 'application/problem+json' : 'application/json' })
    return res.end(JSON.stringify(r.body))
  }
  let file = join(dist, url.pathname)
  if (url.pathname === '/' || !existsSync(file)) {
    if (url.pathname.startsWith('/assets/')) { res.writeHead(404); return res.end() }
    file = join(dist, 'index.html')
  }
  res.writeHead(200, { 'Content-Type': kinds[extname(file)] ?? 'application/octet-stream', 'Content-Security-Policy': "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; connect-src 'self'" })
  res.end(readFileSync(file))
}).listen(port, '127.0.0.1', () => console.log(`http://127.0.0.1:${port} admin / pass`))
