package citywarden

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

type (
	// CaseID is the number of a case: C (component) or E (event), 4 digits of
	// its class, the day it was opened and a 4-digit serial of that day:
	// "E0501202611230001". A maintenance work order begins with W.
	CaseID string
	// ClassCode names a class of component or event of GB/T 30428.2-2013:
	// "component/0101", "event/0501", or of CJ/T 214-2007: "event/0402@cjt214".
	// What a code means is data, see package cases.
	ClassCode string
)

// Stage is where a case stands in the city-management workflow (CJJ/T 106;
// 信息收集, 案卷建立, 任务派遣, 任务处理, 处理反馈, 核查结案).
type Stage string

// The stages, in the order of a case that goes well, then the ends.
const (
	Reported        Stage = "reported"         // 待受理: somebody reported it, nobody has looked at it
	Verifying       Stage = "verifying"        // 核实中: an officer looks whether it is real
	PendingFiling   Stage = "pending_filing"   // 待立案: registered, waits for the shift leader
	PendingDispatch Stage = "pending_dispatch" // 待派遣
	PendingHandling Stage = "pending_handling" // 待处理: dispatched, the department has not accepted yet
	Handling        Stage = "handling"         // 处理中
	Suspended       Stage = "suspended"        // 挂账: can't be handled for now; the limit does not run
	Handled         Stage = "handled"          // 待核查: the department reports it done
	Checking        Stage = "checking"         // 核查中: an officer looks whether it is done
	PendingClose    Stage = "pending_close"    // 待结案: checked on the spot and found good
	Closed          Stage = "closed"           // 已结案
	Rejected        Stage = "rejected"         // 不予立案
	Voided          Stage = "voided"           // 已作废
)

// Stages are all stages, with their names.
var Stages = []struct {
	Stage Stage
	Name  Text
}{
	{Reported, Text{ZH: "待受理", EN: "reported"}},
	{Verifying, Text{ZH: "核实中", EN: "verifying"}},
	{PendingFiling, Text{ZH: "待立案", EN: "pending filing"}},
	{PendingDispatch, Text{ZH: "待派遣", EN: "pending dispatch"}},
	{PendingHandling, Text{ZH: "待处理", EN: "pending handling"}},
	{Handling, Text{ZH: "处理中", EN: "handling"}},
	{Suspended, Text{ZH: "挂账", EN: "suspended"}},
	{Handled, Text{ZH: "待核查", EN: "handled"}},
	{Checking, Text{ZH: "核查中", EN: "checking"}},
	{PendingClose, Text{ZH: "待结案", EN: "pending close"}},
	{Closed, Text{ZH: "已结案", EN: "closed"}},
	{Rejected, Text{ZH: "不予立案", EN: "rejected"}},
	{Voided, Text{ZH: "已作废", EN: "voided"}},
}

// Open reports whether people still have something to do at s.
func (s Stage) Open() bool { return s != Closed && s != Rejected && s != Voided }

// Text returns the name of the stage.
func (s Stage) Text() Text {
	for _, x := range Stages {
		if x.Stage == s {
			return x.Name
		}
	}
	return Text{ZH: string(s), EN: string(s)}
}

// Action is something a person or the platform does to a case.
type Action string

// The actions. 核实 (before filing: is it real?) is asked by SendVerify and
// answered by Exists, NotExists or Unable; 核查 (after the work: is it done?) is
// asked by SendCheck and answered by Verify or Rework.
const (
	Open Action = "open" // 登记: the case comes into being

	Register    Action = "register"     // 受理
	SendVerify  Action = "send_verify"  // 发核实
	Exists      Action = "exists"       // 核实属实
	NotExists   Action = "not_exists"   // 核实不属实
	Unable      Action = "unable"       // 无法核实
	File        Action = "file"         // 立案
	Reject      Action = "reject"       // 不予受理, 不予立案
	Merge       Action = "merge"        // 并案: a duplicate of another case
	SelfHandle  Action = "self_handle"  // 自处理: the officer put it right on the spot
	RefuseSelf  Action = "refuse_self"  // 自处理审核不通过
	Dispatch    Action = "dispatch"     // 派遣
	Redispatch  Action = "redispatch"   // 转派, 改派
	SendBack    Action = "send_back"    // 回退: of a department, that asks for it; of the others, that do it
	Accept      Action = "accept"       // 接单
	Handle      Action = "handle"       // 处置完成, 处理反馈
	SendCheck   Action = "send_check"   // 发核查
	Verify      Action = "verify"       // 核查通过: somebody else saw that it is done
	Rework      Action = "rework"       // 返工: somebody saw that it is not done, or the dispatcher does not take what the department reports
	Close       Action = "close"        // 结案
	ForceClose  Action = "force_close"  // 强制结案
	Void        Action = "void"         // 作废
	RequestVoid Action = "request_void" // 申请作废
	RefuseVoid  Action = "refuse_void"  // 作废申请不通过

	ApproveSendBack   Action = "approve_send_back"  // 同意回退
	RefuseSendBack    Action = "refuse_send_back"   // 不同意回退
	RequestExtension  Action = "request_extension"  // 申请延期
	ApproveExtension  Action = "approve_extension"  // 同意延期
	RefuseExtension   Action = "refuse_extension"   // 不同意延期
	RequestSuspension Action = "request_suspension" // 申请挂账
	ApproveSuspension Action = "approve_suspension" // 同意挂账
	RefuseSuspension  Action = "refuse_suspension"  // 不同意挂账
	Resume            Action = "resume"             // 挂账恢复

	Appeal        Action = "appeal"         // 申诉: against an overdue mark
	EndorseAppeal Action = "endorse_appeal" // 申诉初审通过
	ApproveAppeal Action = "approve_appeal" // 申诉通过
	RefuseAppeal  Action = "refuse_appeal"  // 申诉不通过
	CallBack      Action = "call_back"      // 公众回访

	Supervise Action = "supervise" // 督办; changes no stage
	Urge      Action = "urge"      // 催办; changes no stage
	Comment   Action = "comment"   // 备注; changes no stage
	AddPhoto  Action = "add_photo" // 上传照片; changes no stage

	Reopen    Action = "reopen"     // the same trouble came back within the rule's merge time
	AutoClose Action = "auto_close" // 自动结案: all was normal for as long as the rule says, and nobody had begun to work on it
	Absorb    Action = "absorb"     // 并案: merged into the case that explains it, before anybody had touched it
	Evidence  Action = "evidence"   // what the sensors say; changes no stage
	Notify    Action = "notify"     // 通知: a notice was sent, or could not be; changes no stage
	Overdue   Action = "overdue"    // 超时: a limit passed; changes no stage
)

// Text returns the name of the action.
func (a Action) Text() Text {
	if t, ok := actionTexts[a]; ok {
		return t
	}
	return Text{ZH: string(a), EN: strings.ReplaceAll(string(a), "_", " ")}
}

var actionTexts = map[Action]Text{
	Open: {"登记", "open"}, Register: {"受理", "register"}, SendVerify: {"发核实", "send to verify"}, Exists: {"核实属实", "it is real"},
	NotExists: {"核实不属实", "it is not real"}, Unable: {"无法核实", "can't be verified"}, File: {"立案", "file"}, Reject: {"不予立案", "reject"},
	Merge: {"并案", "merge as duplicate"}, SelfHandle: {"自处理", "handled on the spot"}, RefuseSelf: {"自处理审核不通过", "refuse handled on the spot"},
	Dispatch: {"派遣", "dispatch"}, Redispatch: {"转派", "dispatch to another"}, SendBack: {"回退", "send back"}, Accept: {"接单", "accept"},
	Handle: {"处置完成", "handled"}, SendCheck: {"发核查", "send to check"}, Verify: {"核查通过", "checked, good"}, Rework: {"返工", "rework"},
	Close: {"结案", "close"}, ForceClose: {"强制结案", "forced close"}, Void: {"作废", "void"}, RequestVoid: {"申请作废", "ask to void"},
	RefuseVoid: {"不同意作废", "refuse to void"}, ApproveSendBack: {"同意回退", "approve sending back"}, RefuseSendBack: {"不同意回退", "refuse sending back"},
	RequestExtension: {"申请延期", "ask for more time"}, ApproveExtension: {"同意延期", "approve more time"}, RefuseExtension: {"不同意延期", "refuse more time"},
	RequestSuspension: {"申请挂账", "ask to suspend"}, ApproveSuspension: {"同意挂账", "suspend"}, RefuseSuspension: {"不同意挂账", "refuse to suspend"},
	Resume: {"挂账恢复", "resume"}, Appeal: {"申诉", "appeal"}, EndorseAppeal: {"申诉初审通过", "endorse the appeal"},
	ApproveAppeal: {"申诉通过", "approve the appeal"}, RefuseAppeal: {"申诉不通过", "refuse the appeal"}, CallBack: {"公众回访", "call back"},
	Supervise: {"督办", "supervise"}, Urge: {"催办", "urge"}, Comment: {"备注", "comment"}, AddPhoto: {"上传照片", "add photo"}, Reopen: {"重新打开", "reopened"},
	AutoClose: {"自动结案", "closed by itself"}, Absorb: {"并案", "merged"}, Evidence: {"感知证据", "evidence"}, Notify: {"通知", "notice"}, Overdue: {"超时", "overdue"},
}

// quiet reports whether a leaves what others do to the case as it is, so that
// they need not look at it again.
func (a Action) quiet() bool {
	switch a {
	case Comment, AddPhoto, Evidence, Notify, Overdue, Urge, Supervise:
		return true
	}
	return false
}

// Moved reports whether one of the steps is more than a remark, so that who saw
// the case before it should look again; at is that step.
func Moved(steps []CaseStep) (at CaseStep, moved bool) {
	i := slices.IndexFunc(steps, func(s CaseStep) bool { return !s.Action.quiet() })
	if i < 0 {
		return at, false
	}
	return steps[i], true
}

// Move is one line of the workflow: who may take a case by Action from one of
// the stages From to the stage To, what they have to say, and what must hold. An
// empty To keeps the stage. An action may have several lines.
type Move struct {
	Action Action  `json:"action"`
	From   []Stage `json:"from" nullable:"false"`
	To     Stage   `json:"to,omitempty"`
	Roles  []Role  `json:"roles,omitempty"` // besides RoleAdmin; nil for the platform itself only
	Needs  []Need  `json:"needs,omitempty"`
	Only   []Guard `json:"only,omitempty"`
}

// Need is what a person has to say for an action.
type Need string

// The needs.
const (
	NeedNote         Need = "note"         // a reason in words
	NeedDepartment   Need = "department"   // the department that shall handle it
	NeedOfficer      Need = "officer"      // the grid officer who shall go and look
	NeedUntil        Need = "until"        // when the suspension ends
	NeedCase         Need = "case"         // the case that it is a duplicate of
	NeedSatisfaction Need = "satisfaction" // what the person who reported it says of the work
	NeedPhoto        Need = "photo"        // a photo, which comes by a call of its own
)

// Guard is what must hold of a case for an action.
type Guard string

// The guards.
const (
	Other         Guard = "other"           // another person than the one who handled it
	Mine          Guard = "mine"            // it was sent to this officer
	Real          Guard = "department"      // a department works on it
	BySelf        Guard = "self_handled"    // an officer put it right on the spot
	FromPublic    Guard = "public"          // a citizen reported it
	InTime        Guard = "in_time"         // the handling limit is not used up
	Late          Guard = "late"            // it was handled after the handling limit
	ExtensionLeft Guard = "extension_left"  // at most two extensions were approved
	FirstTime     Guard = "first_time"      // it was not suspended, or appealed, before
	NotAsked      Guard = "not_asked"       // no request is under way
	Asked         Guard = "asked"           // the request that the action decides on is under way
	Endorsed      Guard = "endorsed_appeal" // the dispatcher has endorsed the appeal
)

// The posts, as groups of roles. A supervisor is acceptor and shift leader at
// once, as in a small county.
var (
	acceptors   = []Role{RoleAcceptor, RoleSupervisor}
	leaders     = []Role{RoleShiftLeader, RoleSupervisor}
	supervision = []Role{RoleAcceptor, RoleShiftLeader, RoleSupervisor}
	command     = []Role{RoleDispatcher}
	departments = []Role{RoleDepartment}
	officers    = []Role{RoleOfficer}
	staff       = []Role{RoleAcceptor, RoleShiftLeader, RoleSupervisor, RoleDispatcher, RoleDepartment, RoleOfficer}
)

// Groups of stages.
var (
	unfiled    = []Stage{Reported, PendingFiling}
	atWork     = []Stage{PendingHandling, Handling}
	filedStage = []Stage{PendingDispatch, PendingHandling, Handling, Suspended}
	everyOpen  = []Stage{Reported, Verifying, PendingFiling, PendingDispatch, PendingHandling, Handling, Suspended, Handled, Checking, PendingClose}
	every      = append(slices.Clone(everyOpen), Closed, Rejected, Voided)
)

// Workflow is the whole workflow of a case (CJJ/T 106, GB/T 30428.8).
// Supervision (filing, checking, closing) and command (dispatching, deciding on
// requests of the departments) are in different hands, and nobody checks their own work.
var Workflow = []Move{
	// 案卷建立
	{Register, []Stage{Reported}, PendingFiling, acceptors, nil, nil},
	{SendVerify, unfiled, Verifying, acceptors, []Need{NeedOfficer}, nil},
	{Exists, []Stage{Verifying}, PendingFiling, officers, nil, []Guard{Mine}},
	{NotExists, []Stage{Verifying}, Rejected, officers, []Need{NeedNote}, []Guard{Mine}},
	{Unable, []Stage{Verifying}, Reported, officers, []Need{NeedNote}, []Guard{Mine}},
	{File, []Stage{PendingFiling}, PendingDispatch, leaders, nil, nil},
	{Reject, []Stage{Reported}, Rejected, acceptors, []Need{NeedNote}, nil},
	{Reject, []Stage{PendingFiling}, Rejected, leaders, []Need{NeedNote}, nil},
	{Merge, unfiled, Voided, supervision, []Need{NeedCase}, nil},
	// 任务派遣
	{Dispatch, []Stage{PendingDispatch}, PendingHandling, command, []Need{NeedDepartment}, nil},
	{Redispatch, atWork, PendingHandling, command, []Need{NeedDepartment, NeedNote}, nil},
	{SendBack, []Stage{PendingFiling}, Reported, leaders, []Need{NeedNote}, nil},
	{SendBack, []Stage{PendingDispatch}, Reported, command, []Need{NeedNote}, nil},
	{SendBack, atWork, "", departments, []Need{NeedNote}, []Guard{NotAsked}},
	{ApproveSendBack, atWork, PendingDispatch, command, nil, []Guard{Asked}},
	{RefuseSendBack, atWork, "", command, []Need{NeedNote}, []Guard{Asked}},
	// 任务处理
	{Accept, []Stage{PendingHandling}, Handling, departments, nil, nil},
	{Handle, atWork, Handled, departments, nil, nil},
	{RequestExtension, atWork, "", departments, []Need{NeedNote}, []Guard{InTime, ExtensionLeft, NotAsked}},
	{ApproveExtension, atWork, "", command, nil, []Guard{Asked}},
	{RefuseExtension, atWork, "", command, []Need{NeedNote}, []Guard{Asked}},
	{RequestSuspension, atWork, "", departments, []Need{NeedNote, NeedUntil}, []Guard{FirstTime, NotAsked}},
	{ApproveSuspension, atWork, Suspended, command, nil, []Guard{Asked}},
	{RefuseSuspension, atWork, "", command, []Need{NeedNote}, []Guard{Asked}},
	{Resume, []Stage{Suspended}, Handling, command, nil, nil},
	{SelfHandle, unfiled, Handled, officers, []Need{NeedNote}, nil},
	// 核查结案
	{SendCheck, []Stage{Handled, Checking}, Checking, acceptors, []Need{NeedOfficer}, nil},
	{Verify, []Stage{Handled}, PendingClose, []Role{RoleOfficer, RoleSupervisor, RoleAcceptor}, nil, []Guard{Other}},
	{Verify, []Stage{Checking}, PendingClose, officers, nil, []Guard{Mine, Other}},
	{Rework, []Stage{Handled}, Handling, []Role{RoleOfficer, RoleSupervisor, RoleAcceptor}, []Need{NeedNote}, []Guard{Real, Other}},
	{Rework, []Stage{Handled}, Handling, command, []Need{NeedNote}, []Guard{Real}}, // what the department says of its work is not enough
	{Rework, []Stage{Checking}, Handling, officers, []Need{NeedNote}, []Guard{Real, Mine, Other}},
	{Rework, []Stage{PendingClose}, Handling, leaders, []Need{NeedNote}, []Guard{Real, Other}},
	{RefuseSelf, []Stage{Handled, PendingClose}, PendingFiling, supervision, []Need{NeedNote}, []Guard{BySelf}},
	{Close, []Stage{PendingClose}, Closed, leaders, nil, nil},
	{ForceClose, []Stage{Suspended, Handled, Checking, PendingClose}, Closed, leaders, []Need{NeedNote}, nil},
	{RequestVoid, filedStage, "", []Role{RoleDispatcher, RoleAcceptor}, []Need{NeedNote}, []Guard{NotAsked}},
	{Void, filedStage, Voided, leaders, []Need{NeedNote}, nil},
	{RefuseVoid, filedStage, "", leaders, []Need{NeedNote}, []Guard{Asked}},
	// 结案后
	{Appeal, []Stage{Closed}, "", departments, []Need{NeedNote}, []Guard{Late, FirstTime, NotAsked}},
	{EndorseAppeal, []Stage{Closed}, "", command, nil, []Guard{Asked}},
	{ApproveAppeal, []Stage{Closed}, "", acceptors, nil, []Guard{Asked, Endorsed}},
	{RefuseAppeal, []Stage{Closed}, "", []Role{RoleDispatcher, RoleAcceptor, RoleSupervisor}, []Need{NeedNote}, []Guard{Asked}},
	{CallBack, []Stage{Closed, Rejected}, "", acceptors, []Need{NeedSatisfaction}, []Guard{FromPublic}},
	// 督办, 催办, 备注, 照片
	{Supervise, append([]Stage{Handled, Checking, PendingClose}, filedStage...), "", leaders, []Need{NeedNote}, nil},
	{Urge, append([]Stage{Handled, Checking}, filedStage...), "", []Role{RoleAcceptor, RoleShiftLeader, RoleSupervisor, RoleDispatcher}, nil, nil},
	{Comment, append(slices.Clone(everyOpen), Closed), "", staff, []Need{NeedNote}, nil},
	{AddPhoto, append(slices.Clone(everyOpen), Closed), "", staff, []Need{NeedPhoto}, nil},
	// the platform
	{Reopen, []Stage{Closed}, PendingDispatch, nil, nil, nil},
	{AutoClose, []Stage{PendingFiling, PendingDispatch}, Closed, nil, nil, nil},
	{Absorb, []Stage{PendingFiling}, Voided, nil, nil, nil},
	{Notify, every, "", nil, nil, nil},
	{Evidence, every, "", nil, nil, nil},
	{Overdue, everyOpen, "", nil, nil, nil},
}

// Source says how a case came to be known.
type Source string

// The sources. Sensor alarms are a source of their own: they never count as
// public reports, which would raise a collector's rate of missed cases (漏报率).
const (
	SourceSensor   Source = "sensor"   // 物联感知
	SourceOfficer  Source = "officer"  // 监督员上报
	SourceCitizen  Source = "citizen"  // 公众举报: 随手拍, the public page
	SourceApp      Source = "app"      // 公众举报: WeChat and other apps, by Open311
	SourceHotline  Source = "hotline"  // 公众举报: 12345, 12319
	SourceTransfer Source = "transfer" // 部门批转
	SourceOperator Source = "operator" // entered by the centre on its own
)

// Sources are all sources.
var Sources = []Source{SourceSensor, SourceOfficer, SourceCitizen, SourceApp, SourceHotline, SourceTransfer, SourceOperator}

// Public reports whether citizens reported it.
func (s Source) Public() bool { return s == SourceCitizen || s == SourceApp || s == SourceHotline }

// Request is what somebody asks for and somebody else decides on.
type Request struct {
	Kind     RequestKind `json:"kind"`
	By       string      `json:"by"`
	At       time.Time   `json:"at"`
	Note     string      `json:"note,omitempty"`
	Until    time.Time   `json:"until,omitzero"`     // of a suspension
	Endorsed bool        `json:"endorsed,omitempty"` // of an appeal: by the dispatcher
}

// RequestKind says what is asked for.
type RequestKind string

// The kinds of requests.
const (
	AskSendBack   RequestKind = "send_back"
	AskExtension  RequestKind = "extension"
	AskSuspension RequestKind = "suspension"
	AskVoid       RequestKind = "void"
	AskAppeal     RequestKind = "appeal"
)

// RequestKinds are all kinds of requests.
var RequestKinds = []RequestKind{AskSendBack, AskExtension, AskSuspension, AskVoid, AskAppeal}

// asks returns what kind of request an action makes or decides on; "" for none.
func (a Action) asks() RequestKind {
	switch a {
	case SendBack, ApproveSendBack, RefuseSendBack:
		return AskSendBack
	case RequestExtension, ApproveExtension, RefuseExtension:
		return AskExtension
	case RequestSuspension, ApproveSuspension, RefuseSuspension:
		return AskSuspension
	case RequestVoid, Void, RefuseVoid:
		return AskVoid
	case Appeal, EndorseAppeal, ApproveAppeal, RefuseAppeal:
		return AskAppeal
	}
	return ""
}

// Limits of the workflow.
const (
	MaxExtensions = 2 // that may be approved; each adds the original limit
	MaxSuspension = 366 * 24 * time.Hour
)

// Satisfaction is what the person who reported a case says of the work.
type Satisfaction string

// The answers.
const (
	Satisfied    Satisfaction = "satisfied"    // 满意
	FairlyGood   Satisfaction = "fairly"       // 基本满意
	Dissatisfied Satisfaction = "dissatisfied" // 不满意
	Unreached    Satisfaction = "unreached"    // 未接通
)

// Satisfactions are all answers.
var Satisfactions = []Satisfaction{Satisfied, FairlyGood, Dissatisfied, Unreached}

// Case is one piece of work for the city, opened by an alarm or by a person.
type Case struct {
	ID         CaseID    `json:"id"`
	Class      ClassCode `json:"class"`
	ClassName  Text      `json:"class_name"`
	Title      Text      `json:"title"`
	Key        string    `json:"key,omitempty"` // at most one open case per key; "" for who does not see all of its alarms, or when it has none
	Source     Source    `json:"source"`
	OpenedBy   string    `json:"opened_by,omitempty"`   // user name; "" for the platform
	WorkOrder  bool      `json:"work_order,omitempty"`  // maintenance, not city management
	Severity   Severity  `json:"severity,omitempty"`    // the highest of its alarms
	LifeSafety bool      `json:"life_safety,omitempty"` // an alarm of life safety was in it: it is never closed by itself, and its notices never wait
	Stage      Stage     `json:"stage"`
	Department string    `json:"department,omitempty"`
	Dispatched []string  `json:"dispatched_to,omitempty"` // every department it ever went to, in order
	Officer    string    `json:"officer,omitempty"`       // who was sent to verify or check
	Location   *Point    `json:"location,omitempty"`
	Grid       GridCode  `json:"grid,omitempty"`              // where Location lies
	Area       AreaCode  `json:"area,omitempty"`              // the smallest that has all devices of its alarms, when they lie in several unit grids
	Condition  string    `json:"filing_condition,omitempty"`  // 立案条件
	Closing    string    `json:"closing_condition,omitempty"` // 结案条件
	Limit      string    `json:"limit,omitempty"`             // handling limit in the words of the class table: "2紧急工作时"
	Opened     time.Time `json:"opened"`
	Filed      time.Time `json:"filed_at,omitzero"`  // when the handling limit began to run: filed, or reopened
	Deadline   time.Time `json:"deadline,omitzero"`  // of the handling; set when filed
	Yellow     time.Time `json:"yellow_at,omitzero"` // when 80 % of the limit are used, as the limit counts
	Light      Light     `json:"light,omitempty"`    // of Deadline, at the time of reading
	Entered    time.Time `json:"stage_since,omitzero"`
	StageDue   time.Time `json:"stage_deadline,omitzero"` // of the stage; Deadline while the department works
	StageWarn  time.Time `json:"stage_yellow_at,omitzero"`
	StageLight Light     `json:"stage_light,omitempty"` // of StageDue, at the time of reading
	Finished   time.Time `json:"closed_at,omitzero"`
	Alarms     []AlarmID `json:"alarms"`            // that the asking person sees
	Members    int       `json:"members,omitempty"` // devices that its alarms concern
	Rule       RuleID    `json:"rule,omitempty"`    // whose alarm opened it; "" when a person did
	Reopened   int       `json:"reopened,omitempty"`
	MergedInto CaseID    `json:"merged_into,omitempty"` // the case that took its alarms, or that it is a duplicate of
	Linked     []CaseID  `json:"linked,omitempty"`      // cases of alarms that explain its own
	Normal     bool      `json:"back_to_normal"`        // every alarm of it is cleared, or latched with its condition gone
	HandledBy  string    `json:"handled_by,omitempty"`
	HandledAt  time.Time `json:"handled_at,omitzero"` // when the work was last reported done; zero again after rework

	Component     ComponentID `json:"component,omitempty"`           // that it is about; "" for none or unknown
	ComponentName string      `json:"component_name,omitempty"`      // as it was when the case got it
	Device        DeviceID    `json:"device,omitempty"`              // that it was opened about, or else whose reading raised the first of its alarms; "" for none, and for who does not see that device
	DeviceName    string      `json:"device_name,omitempty"`         // of Device, as it is now; "" when Device is, when it has none or is deleted
	Proposed      string      `json:"proposed_department,omitempty"` // who would be dispatched to when nobody is named; left out in lists and after the dispatch

	FilingRule   string `json:"filing_rule,omitempty"`   // of the class: which of its conditions the case meets
	ClassVersion int    `json:"class_version,omitempty"` // of the class table that name, conditions and limit are from

	Request        *Request     `json:"request,omitempty"`     // that waits for a decision
	Extensions     int          `json:"extensions,omitempty"`  // approved
	Suspensions    int          `json:"suspensions,omitempty"` // approved
	SuspendedAt    time.Time    `json:"suspended_at,omitzero"` // zero unless it is suspended now
	SuspendedUntil time.Time    `json:"suspended_until,omitzero"`
	Reworked       int          `json:"reworked,omitempty"`
	Supervised     bool         `json:"supervised,omitempty"`
	Urged          int          `json:"urged,omitempty"`
	Forced         bool         `json:"forced_close,omitempty"`
	SelfHandled    bool         `json:"self_handled,omitempty"`
	Appealed       bool         `json:"appealed,omitempty"`
	Exempt         bool         `json:"overdue_exempt,omitempty"` // an appeal was approved; that it was late stays a fact
	Satisfaction   Satisfaction `json:"satisfaction,omitempty"`   // of the call-back

	TaskSince     time.Time                   `json:"task_since,omitzero"`      // when it was last sent to handle, verify or check: photos that an action demands are from then on
	MissingPhotos map[Action][]AttachmentKind `json:"missing_photos,omitempty"` // that actions of the asking person demand still; left out in lists

	Timeline    []CaseStep   `json:"timeline,omitempty"`     // left out in lists
	Attachments []Attachment `json:"attachments,omitempty"`  // left out in lists
	Actions     []Action     `json:"actions,omitempty"`      // what the asking person may do next
	GridOfficer string       `json:"grid_officer,omitempty"` // who looks after its unit grid now; left out in lists
	Revision    int64        `json:"revision"`               // grows with every step
}

// SeenBy returns nil when u may see the case: a department sees what it has or
// once had, a citizen what they reported, all others everything; else CodeDenied.
// For who is confined to an area there are no cases elsewhere: CodeNotFound.
func (c *Case) SeenBy(u User) error {
	switch {
	case !c.concerns(u.Area):
		return Errorf(CodeNotFound, "no case %s", c.ID)
	case u.Role == RoleCitizen && c.OpenedBy != u.Name:
		return Errorf(CodeDenied, "case %s was reported by somebody else", c.ID)
	case u.Role == RoleDepartment && c.Department != u.Department && !slices.Contains(c.Dispatched, u.Department):
		return c.theirs(CaseStep{Role: u.Role, Department: u.Department})
	}
	return nil
}

// concerns reports whether the case lies in a, or in an area that a is a part of:
// what concerns several villages is the town's, and that of its villages.
func (c *Case) concerns(a AreaCode) bool {
	if c.Area != "" {
		return a.Meets(c.Area)
	}
	return a.Has(c.Grid)
}

// Spread widens the area of the case so that it has code, of a unit grid or an area,
// too. What lies in no unit grid, or in another county, widens nothing.
func (c *Case) Spread(code string) {
	from := cmp.Or(string(c.Area), string(c.Grid))
	if from == "" || strings.HasPrefix(code, from) {
		return
	}
	for _, n := range []int{12, 9, 6} { // digits of villages, towns, counties
		if len(from) >= n && len(code) >= n && from[:n] == code[:n] {
			c.Area = AreaCode(from[:n])
			return
		}
	}
}

// HandledLate reports whether the work was reported done after the handling
// limit, whatever an appeal said of it.
func (c *Case) HandledLate() bool {
	return !c.HandledAt.IsZero() && !c.Deadline.IsZero() && c.HandledAt.After(c.Deadline)
}

// CaseStep is one entry of a case's timeline.
type CaseStep struct {
	Action     Action    `json:"action"`
	Stage      Stage     `json:"stage"` // after the action
	By         string    `json:"by"`    // user name; "citywarden" for the platform
	Role       Role      `json:"role,omitempty"`
	Note       string    `json:"note,omitempty"`       // in a person's own words
	Text       *Text     `json:"text,omitempty"`       // what the platform says of its own steps, and of photos; nil for a person's others
	Department string    `json:"department,omitempty"` // that shall handle it; of a department's person their own
	Alarm      AlarmID   `json:"alarm,omitempty"`      // "" for who does not see it, too
	At         time.Time `json:"at"`

	Officer      string       `json:"officer,omitempty"`      // who is sent to look
	Class        ClassCode    `json:"class,omitempty"`        // when it is registered or filed as another class
	FilingRule   string       `json:"filing_rule,omitempty"`  // of the class, when another than before
	Until        time.Time    `json:"until,omitzero"`         // when the suspension shall end
	Case         CaseID       `json:"case,omitempty"`         // that it is a duplicate of
	Satisfaction Satisfaction `json:"satisfaction,omitempty"` // of the person who reported it
	Photo        *Attachment  `json:"photo,omitempty"`        // that was added
	Late         bool         `json:"late,omitempty"`         // it ended a stage after the stage's limit
	Deadline     time.Time    `json:"deadline,omitzero"`      // of the handling, when the step set it
	Yellow       time.Time    `json:"yellow_at,omitzero"`
	StageDue     time.Time    `json:"stage_deadline,omitzero"` // of the stage that the step began
	StageWarn    time.Time    `json:"stage_yellow_at,omitzero"`
}

// Said returns what the step says in lang ("zh" or "en"): the platform's
// sentence, or the note as it was written.
func (s *CaseStep) Said(lang string) string {
	if s.Text != nil {
		return s.Text.In(lang)
	}
	return s.Note
}

// Platform is the name under which the platform itself acts.
const Platform = "citywarden"

// Do applies step to the case if the workflow allows it, and appends it to the
// timeline. It returns CodeNotFound for an unknown action, CodeDenied when the
// person may not, CodeConflict when the case does not allow it, CodeInvalid when
// something the action needs is missing. step.Role is "" for the platform.
//
// Do knows no calendar: it takes the limits over from step.Deadline and
// step.StageDue, and leaves them to TimeIs when those are zero.
func (c *Case) Do(step CaseStep) error {
	m, err := c.move(step)
	if err != nil {
		return err
	}
	for _, n := range m.Needs {
		if err := c.lacks(n, step); err != nil {
			return err
		}
	}
	before := c.Stage
	if m.To != "" {
		c.Stage = m.To
	}
	c.record(m, step)
	step.Stage = c.Stage
	if c.Stage != before {
		step.Late = !c.StageDue.IsZero() && step.At.After(c.StageDue)
		c.Entered, c.StageDue, c.StageWarn = step.At, time.Time{}, time.Time{}
	}
	c.Timeline = append(c.Timeline, step)
	c.Revision++
	c.TimeIs(step.Yellow, step.Deadline, step.StageWarn, step.StageDue)
	return nil
}

// TimeIs sets the limits that begin with the last step: of the handling, and of
// the stage; 80 % of each are used at yellow and warn. A zero time changes nothing.
func (c *Case) TimeIs(yellow, deadline, warn, due time.Time) {
	last := &c.Timeline[len(c.Timeline)-1]
	if !deadline.IsZero() {
		c.Yellow, c.Deadline = yellow, deadline
		last.Yellow, last.Deadline = yellow, deadline
	}
	if !due.IsZero() {
		c.StageWarn, c.StageDue = warn, due
		last.StageWarn, last.StageDue = warn, due
	}
}

// Begin starts the timeline of a new case, at the stage of step.
func (c *Case) Begin(step CaseStep) {
	step.Action = Open
	c.Stage, c.Entered, c.Revision = step.Stage, step.At, 1
	c.Timeline = []CaseStep{step}
	c.TimeIs(step.Yellow, step.Deadline, step.StageWarn, step.StageDue)
}

// ReplayCase returns the case that a whole timeline leads to: everything that its
// steps decide, without what sensors and the class table say. of is the case
// without its steps: its ID and Source matter. It fails when the workflow does
// not allow one of the steps.
func ReplayCase(of Case, timeline []CaseStep) (Case, error) {
	c := Case{ID: of.ID, Source: of.Source, Class: of.Class, Opened: of.Opened}
	if len(timeline) == 0 || timeline[0].Action != Open {
		return c, Errorf(CodeInvalid, "case %s: its timeline does not begin with %s", of.ID, Open)
	}
	c.Begin(timeline[0])
	for i, s := range timeline[1:] {
		want := s.Stage
		if err := c.Do(s); err != nil {
			return c, fmt.Errorf("step %d of case %s: %w", i+2, of.ID, err)
		}
		if c.Stage != want {
			return c, Errorf(CodeInvalid, "step %d of case %s leads to %s, the timeline says %s", i+2, of.ID, c.Stage, want)
		}
	}
	return c, nil
}

// record does to the case what the step says, but for stage and time.
func (c *Case) record(m Move, step CaseStep) {
	decided := m.To != "" // who moves a case on has answered what was asked
	switch step.Action {
	case Register, File:
		if step.Class != "" {
			c.Class = step.Class
		}
		if step.FilingRule != "" {
			c.FilingRule = step.FilingRule
		}
	case SendVerify, SendCheck:
		c.Officer = step.Officer
	case Exists, NotExists, Unable:
		c.Officer = ""
	case Dispatch, Redispatch:
		c.Department = step.Department
		c.unhandle()
		if !slices.Contains(c.Dispatched, step.Department) {
			c.Dispatched = append(slices.Clone(c.Dispatched), step.Department)
		}
	case SendBack:
		if slices.Contains(m.Only, NotAsked) {
			c.ask(step)
			break
		}
		c.Department = ""
	case ApproveSendBack:
		c.Department = ""
		c.unhandle()
	case RequestExtension, RequestSuspension, RequestVoid:
		c.ask(step)
	case Appeal:
		c.Appealed = true
		c.ask(step)
	case EndorseAppeal:
		r := *c.Request
		r.Endorsed = true
		c.Request = &r
	case ApproveExtension:
		c.Extensions++
		decided = true
	case ApproveSuspension:
		c.Suspensions++
		c.SuspendedAt, c.SuspendedUntil = step.At, c.Request.Until
	case Resume:
		c.SuspendedAt, c.SuspendedUntil = time.Time{}, time.Time{}
	case ApproveAppeal:
		c.Exempt, decided = true, true
	case RefuseSendBack, RefuseExtension, RefuseSuspension, RefuseVoid, RefuseAppeal:
		decided = true
	case SelfHandle:
		c.SelfHandled, c.HandledBy, c.HandledAt = true, step.By, step.At
	case RefuseSelf:
		c.SelfHandled = false
		c.unhandle()
	case Handle:
		c.HandledBy, c.HandledAt = step.By, step.At
	case Verify:
		c.Officer = ""
	case Rework:
		c.Officer, c.HandledAt = "", time.Time{}
		c.Reworked++
	case ForceClose:
		c.Forced = true
	case Merge:
		c.MergedInto = step.Case
	case CallBack:
		c.Satisfaction = step.Satisfaction
	case Supervise:
		c.Supervised = true
	case Urge:
		c.Urged++
	case AddPhoto:
		c.Attachments = append(slices.Clone(c.Attachments), *step.Photo)
	case Reopen:
		c.Reopened++
		c.Finished, c.Filed = time.Time{}, step.At
		c.unhandle()
		c.Extensions, c.Suspensions, c.Forced, c.SelfHandled, c.Appealed, c.Exempt, c.Satisfaction = 0, 0, false, false, false, false, ""
	}
	if decided {
		c.Request = nil
	}
	switch step.Action {
	case SendVerify, Dispatch, Redispatch, Handle, SelfHandle, RefuseSelf, SendCheck, Rework, Reopen:
		c.TaskSince = step.At
	}
	if step.Action == File {
		c.Filed = step.At
	}
	if !c.Stage.Open() && m.To != "" {
		c.Finished, c.Officer = step.At, ""
		c.SuspendedAt, c.SuspendedUntil = time.Time{}, time.Time{}
	}
}

func (c *Case) unhandle() { c.HandledBy, c.HandledAt = "", time.Time{} }

func (c *Case) ask(step CaseStep) {
	c.Request = &Request{Kind: step.Action.asks(), By: step.By, At: step.At, Note: step.Note, Until: step.Until}
}

// lacks returns an error when step does not say what n needs.
func (c *Case) lacks(n Need, step CaseStep) error {
	missing := ""
	switch n {
	case NeedNote:
		if strings.TrimSpace(step.Note) == "" {
			missing = "say why in the note"
		}
	case NeedDepartment:
		if step.Department == "" {
			missing = "name the department that shall handle it"
		}
		if step.Action == Redispatch && step.Department == c.Department {
			missing = "name another department than " + c.Department
		}
	case NeedOfficer:
		if step.Officer == "" {
			missing = "name the officer who shall go and look"
		}
	case NeedUntil:
		if !step.Until.After(step.At) || step.Until.After(step.At.Add(MaxSuspension)) {
			missing = "say until when, at most a year from now"
		}
	case NeedCase:
		if step.Case == "" || step.Case == c.ID {
			missing = "name the case that it is a duplicate of"
		}
	case NeedPhoto:
		if step.Photo == nil {
			missing = "send the photo itself, to the attachments of the case"
		}
	case NeedSatisfaction:
		if !slices.Contains(Satisfactions, step.Satisfaction) {
			missing = fmt.Sprintf("say how satisfied the person is: %s, %s, %s or %s", Satisfied, FairlyGood, Dissatisfied, Unreached)
		}
	}
	if missing == "" {
		return nil
	}
	return Errorf(CodeInvalid, "%s case %s: %s", step.Action, c.ID, missing)
}

// move returns the line of Workflow by which step goes, or why there is none.
func (c *Case) move(step CaseStep) (Move, error) {
	known, roles := false, []Role(nil)
	platform := step.Role == "" && step.By == Platform
	var refused error
	for _, m := range Workflow {
		if m.Action != step.Action {
			continue
		}
		known = true
		for _, r := range m.Roles {
			if !slices.Contains(roles, r) {
				roles = append(roles, r)
			}
		}
		if !platform && !slices.Contains(m.Roles, step.Role) && (step.Role != RoleAdmin || m.Roles == nil) || !slices.Contains(m.From, c.Stage) {
			continue
		}
		err := c.holds(m, step)
		if err == nil {
			return m, nil
		}
		if refused == nil {
			refused = err
		}
	}
	switch {
	case !known:
		return Move{}, Errorf(CodeNotFound, "no action %q; there are %s", step.Action, strings.Join(Actions(), ", "))
	case !platform && !slices.Contains(roles, step.Role) && (step.Role != RoleAdmin || roles == nil):
		return Move{}, Errorf(CodeDenied, "%s may not %s a case; %s may", orNobody(string(step.Role)), spaced(step.Action), orNobody(joinRoles(roles)))
	case refused != nil:
		return Move{}, refused
	}
	if err := c.theirs(step); err != nil {
		return Move{}, err
	}
	return Move{}, Errorf(CodeConflict, "cannot %s a case that is %s", spaced(step.Action), c.Stage.Text().EN)
}

// theirs returns CodeDenied when a department's person acts on a case that is
// not their department's.
func (c *Case) theirs(step CaseStep) error {
	switch {
	case step.Role != RoleDepartment || step.Department == "" || step.Department == c.Department:
		return nil
	case c.Department == "":
		return Errorf(CodeDenied, "case %s is not dispatched to a department yet", c.ID)
	}
	return Errorf(CodeDenied, "case %s belongs to %s, not to %s", c.ID, c.Department, step.Department)
}

// holds returns an error unless all that the line asks of the case holds.
func (c *Case) holds(m Move, step CaseStep) error {
	if err := c.theirs(step); err != nil {
		return err
	}
	free := step.Role == RoleAdmin || step.Role == ""
	for _, g := range m.Only {
		why := ""
		switch g {
		case Other:
			if !free && step.By == c.HandledBy {
				return Errorf(CodeDenied, "%s handled case %s; another person must %s it", step.By, c.ID, spaced(step.Action))
			}
		case Mine:
			if !free && step.By != c.Officer {
				return Errorf(CodeDenied, "case %s was sent to %s; another person can't answer", c.ID, c.Officer)
			}
		case Real:
			if c.Department == "" {
				why = "no department has worked on it"
			}
		case BySelf:
			if !c.SelfHandled {
				why = "no officer handled it on the spot"
			}
		case FromPublic:
			if !c.Source.Public() {
				why = "no citizen reported it"
			}
		case InTime:
			if !c.Deadline.IsZero() && step.At.After(c.Deadline) {
				why = "it is overdue; more time can be had only before"
			}
		case Late:
			if !c.HandledLate() {
				why = "it was handled in time"
			}
		case ExtensionLeft:
			if c.Extensions >= MaxExtensions {
				why = fmt.Sprintf("it was given more time %d times already", MaxExtensions)
			}
		case FirstTime:
			if step.Action == Appeal && c.Appealed || step.Action == RequestSuspension && c.Suspensions > 0 {
				why = "that was done once already"
			}
		case NotAsked:
			if c.Request != nil {
				why = fmt.Sprintf("%s asked for %s, which waits for a decision", c.Request.By, spaced(Action(c.Request.Kind)))
			}
		case Asked:
			if c.Request == nil || c.Request.Kind != step.Action.asks() {
				why = "nobody asked for it"
			}
		case Endorsed:
			if !free && c.Request != nil && !c.Request.Endorsed {
				why = "the dispatcher has not endorsed it yet"
			}
		}
		if why != "" {
			return Errorf(CodeConflict, "cannot %s case %s: %s", spaced(step.Action), c.ID, why)
		}
	}
	return nil
}

// Next returns the actions that somebody may take on the case now, in the order
// of Workflow; but AddPhoto, which who may Comment may. who holds By, Role, At, and the Department of a department's person.
func (c *Case) Next(who CaseStep) []Action {
	var out []Action
	for _, m := range Workflow {
		if m.Roles == nil || m.Action == AddPhoto || slices.Contains(out, m.Action) {
			continue
		}
		who.Action = m.Action
		if _, err := c.move(who); err == nil {
			out = append(out, m.Action)
		}
	}
	return out
}

// Actions returns what people may do to cases with words alone, in the order of
// Workflow.
func Actions() []string {
	var out []string
	for _, m := range Workflow {
		if m.Roles != nil && m.Action != AddPhoto && !slices.Contains(out, string(m.Action)) {
			out = append(out, string(m.Action))
		}
	}
	return out
}

func spaced(a Action) string { return strings.ReplaceAll(string(a), "_", " ") }

// Light is the colour of a deadline: green to 80 % of the time, yellow to
// 100 %, red above. It is never shown as a colour alone.
type Light string

// The lights.
const (
	Green  Light = "green"
	Yellow Light = "yellow"
	Red    Light = "red"
)

// LightAt returns the light at now of a limit of which 80 % are used at yellow and
// all at deadline; "" when there is no deadline. Limits are counted in working
// time, so that yellow need not lie at 80 % of the time on the clock.
func LightAt(yellow, deadline, now time.Time) Light {
	switch {
	case deadline.IsZero():
		return ""
	case now.After(deadline):
		return Red
	case !yellow.IsZero() && now.After(yellow):
		return Yellow
	}
	return Green
}

// CaseFilter selects cases; zero fields select all.
type CaseFilter struct {
	Area       AreaCode // in which they lie
	Stage      Stage
	Open       bool // only those that are not closed, rejected or voided
	Department string
	Grid       GridCode
	Alarm      AlarmID
	Officer    string // who is sent to verify or check it now
	OpenedBy   string
	Source     Source
	Class      ClassCode
	Component  ComponentID
	Request    RequestKind // waits for a decision on such a request
	WorkOrders bool        // work orders instead of cases

	Work []WorkFilter // has work that one of these selects; nil for all
	Page
}

// SeenBy leaves in f what u may see: a department its cases, a citizen what they
// reported, who is confined to an area what lies there. CodeDenied when f asks for
// the cases of another department.
func (f *CaseFilter) SeenBy(u User) error {
	f.Area = u.Area
	switch u.Role {
	case RoleDepartment:
		if u.Department == "" || f.Department != "" && f.Department != u.Department {
			return Errorf(CodeDenied, "%s sees the cases of %s only", u.Name, orNobody(u.Department))
		}
		f.Department = u.Department
	case RoleCitizen:
		f.OpenedBy = u.Name
	}
	return nil
}

// NewCase is what somebody says to open a case.
type NewCase struct {
	Class       ClassCode `json:"class"`
	Title       string    `json:"title"`
	Description string    `json:"description,omitempty"`
	Location    *Point    `json:"location,omitempty"`
	Device      DeviceID  `json:"device,omitempty"`   // that it is about; takes its location when none is given
	Source      Source    `json:"source,omitempty"`   // "" for what the post of the person says
	Reporter    *Reporter `json:"reporter,omitempty"` // who reported it, when that is somebody else

	FilingRule string `json:"filing_rule,omitempty"` // of the class: which of its conditions it meets; "" for the first

	CRS       string      `json:"crs,omitempty"`       // of Location, as ParseCRS reads it; "" for WGS 84
	Component ComponentID `json:"component,omitempty"` // that it is about; else that of Device
}

// Duplicate is a case that may be about the same thing as another.
type Duplicate struct {
	Case     Case    `json:"case"`
	Distance float64 `json:"distance_m"`
}
