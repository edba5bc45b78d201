// The JSON of the HTTP API. The types are those of its OpenAPI description, from
// which `npm run types` makes openapi.d.ts; here they get the names that the
// console calls them by.
import type { components } from './openapi'

type Schemas = components['schemas']

export type Text = Schemas['Text']
export type Point = Schemas['Point']

/** List is a page of a list. */
export interface List<T> {
  items: T[]
  next: string | null
}

export type User = Schemas['User']
export type Role = User['role']
export const allRoles: Role[] = [
  'admin', 'supervisor', 'acceptor', 'shift_leader', 'dispatcher', 'department', 'officer', 'engineer', 'vendor', 'viewer', 'service', 'citizen',
]

/** Session is a sign-in of a person, or a token of a program. */
export type Session = Schemas['Session']
/** ApiKey lets an app report cases by Open311. */
export type ApiKey = Schemas['APIKey']
/** AuditEntry says who asked for which change. */
export type AuditEntry = Schemas['AuditEntry']
export type Info = Schemas['Info']
export type Summary = Schemas['Summary']
export type MapInfo = Schemas['MapView']

export type Alarm = Schemas['Alarm']
export type AlarmStep = Schemas['AlarmStep']
export type Severity = Alarm['severity']
export const severities: Severity[] = ['critical', 'major', 'minor', 'warning', 'indeterminate']
export type Explanation = Schemas['Explanation']
export type Leaf = Schemas['ExplainLeaf']
export type Input = Schemas['ExplainInput']
export type WhyNot = Schemas['WhyNot']
export type WhyNotLevel = Schemas['WhyNotLevel']
/** OutOfService is a device, or what a rule says of an entity, that calls for nobody. */
export type OutOfService = Schemas['OutOfService']
export type AlarmLoad = Schemas['AlarmLoad']
export type Priority = 'critical' | 'major' | 'minor'
export const priorities: Priority[] = ['critical', 'major', 'minor']

export type Case = Schemas['Case']
export type CaseStep = Schemas['CaseStep']
export type CaseClass = Schemas['Class']
export type Source = Case['source']
export type Light = NonNullable<Case['light']>
export type Stage = Case['stage']
export type Action = CaseStep['action']
export const openStages: Stage[] = [
  'reported', 'verifying', 'pending_filing', 'pending_dispatch', 'pending_handling', 'handling', 'suspended', 'handled', 'checking', 'pending_close',
]
/** sideStages are those that not every case passes: they are shown when there is one. */
export const sideStages: Stage[] = ['reported', 'verifying', 'suspended', 'checking']
export const endStages: Stage[] = ['closed', 'rejected', 'voided']
/** Move is a line of the workflow: what an action needs at a stage. */
export type Move = Schemas['Move']
/** CaseRequest is what somebody asks for and somebody else decides on. */
export type CaseRequest = Schemas['Request']
/** Attachment is a photo of a case; PhotoKind is what it shows. */
export type Attachment = Schemas['Attachment']
export type PhotoKind = Attachment['kind']
/** Officer is somebody who may be sent to look. */
export type Officer = Schemas['Officer']
/** Report is what somebody outside of the administration said. */
export type Report = Schemas['Report']
/** Duplicate is a case that another may be a duplicate of. */
export type Duplicate = Schemas['Duplicate']
export const componentStates: Component['state'][] = ['intact', 'damaged', 'lost', 'abandoned', 'removed']
/** Component is a managed component of the city; Nearby says how far one is away. */
export type Component = Schemas['Component']
export type Nearby = Schemas['Nearby']

export type Device = Schemas['DeviceView']
export const clockStates: NonNullable<Device['clock']>['state'][] = ['ahead', 'behind', 'drifting', 'unset', 'good']
export type Status = Device['status']
export type Latest = Schemas['Latest']
export type Value = Latest['value']
export type Metric = Schemas['Metric']
export type Attribute = Schemas['Attribute']
export type Model = Schemas['Model']
export type Domain = Model['domain']
/** ModelCommand is what devices of a model can be told. */
export type ModelCommand = Schemas['ModelCommand']
/** Command is something that a device was told, and what became of it. */
export type Command = Schemas['Command']
/** DeadLetter is a message that could not be used. */
export type DeadLetter = Schemas['DeadLetter']
/** AttributeState is an attribute of a device: what is set, and what the device reports. */
export type AttributeState = Schemas['AttributeState']
/** Site is a place whose attributes hold for its devices. */
export type Site = Schemas['Site']
export type Series = Schemas['SeriesOutput']

export type Rule = Schemas['Rule']
/** Mistake is one mistake in a rule file. */
export type Mistake = Schemas['Mistake']
export type RuleReport = Schemas['RuleReport']
export type RuleResult = Schemas['RuleResult']
/** RuleStatus is what became of the rule files. */
export type RuleStatus = Schemas['RuleStatus']
export type Backtest = Schemas['Backtest']
export type BacktestRule = Schemas['BacktestRule']
export type BacktestCounts = Schemas['BacktestCounts']
export type BacktestAlarm = Schemas['BacktestAlarm']

/** BacktestProgress comes while a backtest runs, as an event of its stream. */
export interface BacktestProgress {
  done: number // 0 to 1
  at: string
  readings: number
}

/** Evaluation is what the work on cases of a period was worth. */
export type Evaluation = Schemas['Evaluation']
export type EvaluationBy = Evaluation['by']
export type EvaluationRow = Schemas['EvaluationRow']
export type Indicator = Schemas['Indicator']
export type Figure = Schemas['Figure']

/** Credential is what a device is known by, without the secret; Credentials what was issued, with it. */
export type Credential = Schemas['DeviceCredential']
export type Credentials = Schemas['Credentials']
/** Provisioning lets devices of a model get a credential by themselves. */
export type Provisioning = Schemas['Provisioning']
export type Firmware = Schemas['Firmware']
export type FirmwareTarget = Schemas['FirmwareTarget']
/** TableReport says what became of a table, GridReport of unit grids. */
export type TableReport = Schemas['TableReport']
export type GridReport = Schemas['GridReport']
/** Area is a county, town or village; ResponsibilityGrid are the unit grids that an officer looks after. */
export type Area = Schemas['Area']
export type ResponsibilityGrid = Schemas['ResponsibilityGrid']
/** Receiver is somebody whom notices go to; Notice is one of them, and what became of it. */
export type Receiver = Schemas['Receiver']
export type Notice = Schemas['Notice']
export const noticeStates: Notice['state'][] = ['pending', 'sent', 'dead', 'dropped', 'kept']
/** ImportReport says what became of each line of a CSV file. */
export type ImportReport = Schemas['ImportReport']

/** LedgerRow balances what one device, or all of them, sent in one hour. */
export type LedgerRow = Schemas['LedgerRow']
/** Books is what comparing log, ledger and time series found. */
export type Books = Schemas['Audit']
export type Replay = Schemas['Replay']
/** Link is a connection to a broker elsewhere. */
export type Link = Schemas['Link']
