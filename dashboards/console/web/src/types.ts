// The JSON of the HTTP API, as the root package of the platform names it.

export interface Text {
  zh: string
  en: string
}

export interface Point {
  lat: number
  lon: number
}

export type Source = 'sensor' | 'officer' | 'citizen' | 'app' | 'hotline' | 'transfer' | 'operator'

export type Severity = 'critical' | 'major' | 'minor' | 'warning' | 'indeterminate'
export const severities: Severity[] = ['critical', 'major', 'minor', 'warning', 'indeterminate']

export type Role =
  | 'admin'
  | 'supervisor'
  | 'acceptor'
  | 'shift_leader'
  | 'dispatcher'
  | 'department'
  | 'officer'
  | 'engineer'
  | 'vendor'
  | 'viewer'
  | 'service'
  | 'citizen'

export const allRoles: Role[] = [
  'admin', 'supervisor', 'acceptor', 'shift_leader', 'dispatcher', 'department', 'officer', 'engineer', 'vendor', 'viewer', 'service', 'citizen',
]

export interface User {
  name: string
  title?: string
  role: Role
  department?: string
  area?: string // code of a county, town or village; sees what lies there
  disabled?: boolean // can't sign in, and no token of theirs is taken
  created?: string
}

/** Session is a sign-in of a person, or a token of a program. */
export interface Session {
  id: string
  label?: string
  created: string
  expires?: string
}

/** ApiKey lets an app report cases by Open311. */
export interface ApiKey {
  id: string
  name: string
  contact?: string
  per_minute: number
  created: string
}

/** AuditEntry says who asked for which change. */
export interface AuditEntry {
  id: number
  at: string
  user: string
  role?: Role
  address: string
  action: string
  target: string
  detail?: string
  status: number // 0: the platform stopped before it answered
  before?: unknown
  after?: unknown
}

export interface Info {
  version: string
  demo: boolean
  citizens: boolean // anybody may report at /report
  time_zone: string
  now: string
  mqtt?: string // host:port for devices
  trouble?: Text // why messages of devices are not acknowledged
}

export interface List<T> {
  items: T[] | null
  next: string | null
}

export interface Alarm {
  id: string
  rule: string
  title: Text
  entity: string
  device: string
  members?: string[]
  episode: number
  severity: Severity
  state: 'active' | 'cleared'
  clearing?: boolean
  latched?: boolean
  no_data?: boolean
  acked: boolean
  acked_by?: string
  acked_at?: string
  assignee?: string
  shelved_until?: string
  shelved_by?: string
  suppressed_by?: string // the alarm that explains it
  out_of_service_since?: string
  out_of_service_by?: string
  out_of_service_reason?: string
  flapping?: boolean
  reason?: string
  raised_at: string
  cleared_at?: string
  case?: string
}

export interface AlarmStep {
  kind: string
  severity: Severity
  at: string
  by?: string
  reason?: string // of an order, or why it was closed
  text?: string // of a comment
  assignee?: string
  suppressed_by?: string
}

export type Value = number | boolean | string | null

export interface Explanation {
  rule: string
  version: string
  at: string
  severity: Severity
  condition: string
  held: string
  since?: string
  summary: Text
  leaves: Leaf[] | null
  inputs: Input[] | null
  attributes?: { name: string; value: unknown; from: string }[]
  windows?: { device?: string; text: string; from: string; to: string; samples: number; result: unknown }[]
  members?: { device: string; result: string; time?: string }[]
}

export interface Leaf {
  device?: string
  text: string
  left: unknown
  op: string
  right: unknown
  result: 'true' | 'false' | 'unknown'
}

export interface Input {
  device: string
  metric: string
  value: Value
  unit?: string
  time: string
  arrived: string
}

export type Stage =
  | 'reported'
  | 'verifying'
  | 'pending_filing'
  | 'pending_dispatch'
  | 'pending_handling'
  | 'handling'
  | 'suspended'
  | 'handled'
  | 'checking'
  | 'pending_close'
  | 'closed'
  | 'rejected'
  | 'voided'

export const openStages: Stage[] = [
  'reported',
  'verifying',
  'pending_filing',
  'pending_dispatch',
  'pending_handling',
  'handling',
  'suspended',
  'handled',
  'checking',
  'pending_close',
]
/** sideStages are those that not every case passes: they are shown when there is one. */
export const sideStages: Stage[] = ['reported', 'verifying', 'suspended', 'checking']
export const endStages: Stage[] = ['closed', 'rejected', 'voided']

export type Light = 'green' | 'yellow' | 'red'

/** CaseRequest is what somebody asks for and somebody else decides on. */
export interface CaseRequest {
  kind: 'send_back' | 'extension' | 'suspension' | 'void' | 'appeal'
  by: string
  at: string
  note?: string
  until?: string
  endorsed?: boolean
}

/** PhotoKind is what a photo of a case shows. */
export type PhotoKind = 'near' | 'far' | 'reference' | 'handle_before' | 'handle_after'

/** Attachment is a photo of a case. */
export interface Attachment {
  id: string
  type: string
  kind: string
  by: string
  role?: Role
  at: string
}

/** Officer is somebody who may be sent to look. */
export interface Officer {
  name: string
  title?: string
}

/** Report is what somebody outside of the administration said. */
export interface Report {
  description?: string
  address?: string
  answers?: Record<string, string>
  media_url?: string
  reporter: { name?: string; phone?: string; email?: string }
  at: string
}

/** Nearby is a component of the city with how far it is away. */
export interface Nearby {
  id: string
  name: string
  address?: string
  state: string
  distance_m: number
}

/** Component is a managed component of the city. */
export interface Component {
  id: string
  class: string
  name: string
  location: Point
  grid?: string
  state: 'intact' | 'damaged' | 'lost' | 'abandoned' | 'removed'
  address?: string
  authority?: string
  owner?: string
  maintainer?: string
  remark?: string
}

/** OutOfService is a device, or what a rule says of an entity, that calls for nobody. */
export interface OutOfService {
  device?: string
  rule?: string
  entity?: string
  since: string
  until?: string
  by: string
  reason: string
}

/** ModelCommand is what devices of a model can be told. */
export interface ModelCommand {
  name: string
  title: Text
  params?: { name: string; title: Text; kind: 'number' | 'bool' | 'text'; unit?: string; min?: number; max?: number; optional?: boolean }[] | null
}

/** Command is something that a device was told, and what became of it. */
export interface Command {
  id: number
  method: string
  params: unknown
  answer?: unknown
  state: 'queued' | 'sent' | 'delivered' | 'answered' | 'timed_out'
  by: string
  created: string
  expires: string
  sent?: string
  delivered?: string
  answered?: string
}

/** DeadLetter is a message that could not be used. */
export interface DeadLetter {
  position: number
  protocol: string
  topic: string
  payload: string // base64
  received: string
  reason: string
  replayed_at?: string
}

/** Duplicate is a case that another may be a duplicate of. */
export interface Duplicate {
  case: Case
  distance_m: number
}

/** Move is a line of the workflow: what an action needs at a stage. */
export interface Move {
  action: string
  from: Stage[]
  needs?: ('note' | 'department' | 'officer' | 'until' | 'case' | 'satisfaction')[]
}

export interface CaseStep {
  action: string
  stage: Stage
  by: string
  role?: Role
  note?: string // a person's words
  text?: Text // the platform's own
  department?: string
  alarm?: string
  at: string
}

export interface Case {
  id: string
  class: string
  class_name: Text
  title: Text
  key?: string
  source: Source
  work_order?: boolean
  severity?: Severity
  stage: Stage
  department?: string
  location?: Point
  grid?: string
  component?: string // the code of the component that it is about
  component_name?: string
  filing_condition?: string
  closing_condition?: string
  limit?: string
  opened: string
  filed_at?: string
  deadline?: string
  /** when 80 % of the limit is used, counted as the limit is */
  yellow_at?: string
  light?: Light
  closed_at?: string
  alarms: string[] | null
  members?: number // devices that its alarms concern
  merged_into?: string
  linked?: string[] // cases of alarms that explain its own
  back_to_normal: boolean
  handled_by?: string
  handled_at?: string
  officer?: string // who was sent to verify or check
  opened_by?: string
  stage_since?: string
  stage_deadline?: string
  stage_yellow_at?: string
  stage_light?: Light
  request?: CaseRequest
  extensions?: number
  suspended_until?: string
  reworked?: number
  supervised?: boolean
  urged?: number
  forced_close?: boolean
  self_handled?: boolean
  overdue_exempt?: boolean
  /** photos that actions demand still */
  missing_photos?: Record<string, PhotoKind[]>
  timeline?: CaseStep[]
  actions?: string[]
  revision: number
}

export interface CaseClass {
  code: string
  standard: string
  name: Text
  filing_condition?: string
  closing_condition?: string
  limit: string
  department: string
}

export type Status = 'online' | 'silent' | 'never'
export type Domain = 'parking' | 'fire' | 'pipe' | 'building'

export interface Latest {
  value: Value
  time: string
  quality: 'good' | 'clamped' | 'out_of_range'
}

export interface Device {
  id: string
  name: string
  model: string
  component?: string // the code of the one that it is attached to
  attributes: Record<string, unknown> | null
  location?: Point
  grid?: string
  adjacent?: string[]
  disabled?: boolean
  created: string
  updated: string
  status: Status
  last_seen?: string
  latest?: Record<string, Latest>
  alarm?: Severity | ''
}

export interface Metric {
  name: string
  title: Text
  kind: 'number' | 'bool' | 'text'
  unit?: string
  min?: number
  max?: number
  counter?: boolean
  stale_after?: string
}

export interface Attribute {
  name: string
  title: Text
  kind: 'number' | 'bool' | 'text'
  unit?: string
  default?: unknown
}

export interface Model {
  name: string
  title: Text
  domain: Domain
  codec: string
  report: string
  heartbeat: string
  metrics: Metric[]
  attributes: Attribute[] | null
  commands?: ModelCommand[] | null
}

export interface Rule {
  id: string
  title: Text
  version: string
  mode: 'live' | 'shadow'
  models: string[] | null
  severity: Severity
  file: string
  line: number
  text: string
}

/** Mistake is one mistake in a rule file. */
export interface Mistake {
  file: string
  line: number // 0: of the whole file
  col: number
  message: string
  snippet: string // the line, and a caret below the place
}

export interface RuleReport {
  ok: boolean
  problems: Mistake[] | null
  warnings: Mistake[] | null
  results: RuleResult[] | null
}

export interface RuleResult {
  name: string
  file: string
  line: number
  ok: boolean
  problems: Mistake[] | null
  took_ms: number
}

/** RuleStatus is what became of the rule files. */
export interface RuleStatus {
  loaded_at: string
  rules: number
  tests: number
  warnings?: Mistake[]
  refused_at?: string // set while the files can't be used and the rules before go on
  problems?: Mistake[]
}

export interface BacktestProgress {
  done: number // 0 to 1
  at: string
  readings: number
}

export interface Backtest {
  from: string
  to: string
  warmup: string
  messages: number
  readings: number
  took: string
  rules: BacktestRule[] | null
  notes: Text[] | null
}

export interface BacktestRule {
  rule: string
  title: Text
  version: string
  running?: string // version of the one that runs
  tried: BacktestCounts
  now?: BacktestCounts
  only_tried: number
  only_now: number
  both: number
  alarms: BacktestAlarm[] | null
  more?: number
}

export interface BacktestCounts {
  raises: number
  clears: number
  escalations: number
  standing: number
  open: number
  entities: number
  active: string
  longest: string
  shortest: string
  per_10min: number
  peak_10min: number
  peak_at?: string
  chattering: string[] | null
}

export interface BacktestAlarm {
  in: 'both' | 'tried' | 'now'
  entity: string
  device: string
  severity: Severity
  raised: string
  cleared?: string
  now_raised?: string
}

export interface WhyNot {
  rule: string
  version: string
  device: string
  entity?: string
  at: string
  reason: string
  summary: Text
  since?: string
  until?: string
  last_seen?: string
  alarm?: Alarm
  levels?: WhyNotLevel[]
  missing?: { device: string; metric: string; last?: string; stale?: string }[]
  late?: Input[]
  after?: Input[]
  from: string
  notes?: Text[]
}

export interface WhyNotLevel extends Explanation {
  result: Leaf['result']
  state: 'normal' | 'pending' | 'active' | 'clearing'
  due?: string
}

export type Priority = 'critical' | 'major' | 'minor'
export const priorities: Priority[] = ['critical', 'major', 'minor']

export interface AlarmLoad {
  from: string
  to: string
  operators: number
  alarms: number
  work_orders: number
  per_operator_10min: { mean: number; peak: number; peak_at?: string; goal: number; over_goal_share: number }
  floods: { from: string; to: string; alarms: number }[] | null
  chattering: { rule: string; title: Text; entity: string; device: string; most_per_minute: number; count: number }[] | null
  stale: Alarm[] | null
  top_rules: { rule: string; title: Text; alarms: number; share: number }[] | null
  priorities: Record<Priority, { alarms: number; share: number; target: number }>
  series: { at: string; alarms: number }[] | null
}

export interface Summary {
  devices: { total: number; online: number; silent: number; never: number }
  alarms: { active: number; unacked: number; by_severity: Partial<Record<Severity, number>> | null }
  cases: { open: number; overdue: number; by_stage: Partial<Record<Stage, number>> | null }
}

export interface MapInfo {
  center: Point
  bounds: [[number, number], [number, number]]
  layers: string[] | null
}

export interface Series {
  points: [string, Value][] | null
  unit?: string
}

export type EvaluationBy = 'area' | 'department' | 'post'

/** Evaluation is what the work on cases of a period was worth. */
export interface Evaluation {
  from: string
  to: string // exclusive
  as_of: string
  by: EvaluationBy
  indicators: Indicator[]
  scores: { of: string; name: Text; parts: { indicator: string; weight: number }[] }[]
  volume: { from: number; score: number }[]
  grades: { grade: string; from: number }[]
  rows: EvaluationRow[]
  total?: EvaluationRow
}

/** Indicator is a share of cases, or, without a denominator, how many there are. */
export interface Indicator {
  code: string
  name: Text
  numerator: Text
  denominator?: { code: string; name: Text }
  better?: 'higher' | 'lower'
  clause: string
}

export interface EvaluationRow {
  key: string
  name: Text
  post?: string
  person?: string
  figures: Figure[]
  score?: number
  grade?: string
}

export interface Figure {
  indicator: string
  cases: number
  of: number
  rate?: number // none when there is nothing to be a share of
}
