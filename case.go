package citywarden

import (
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
	// "component/0101", "event/0501". What a code means is data, see package cases.
	ClassCode string
)

// Stage is where a case stands in the city-management workflow (CJJ/T 106;
// 信息收集, 案卷建立, 任务派遣, 任务处理, 处理反馈, 核查结案).
type Stage string

// The stages, in the order of a case that goes well, then the ends.
const (
	PendingFiling   Stage = "pending_filing"   // 待立案: registered, waits for the shift leader
	PendingDispatch Stage = "pending_dispatch" // 待派遣
	PendingHandling Stage = "pending_handling" // 待处理: dispatched, the department has not accepted yet
	Handling        Stage = "handling"         // 处理中
	Handled         Stage = "handled"          // 待核查: the department reports it done
	PendingClose    Stage = "pending_close"    // 待结案: checked on the spot and found good
	Closed          Stage = "closed"           // 已结案
	Rejected        Stage = "rejected"         // 不予立案
	Voided          Stage = "voided"           // 已作废
)

// Open reports whether people still have something to do at s.
func (s Stage) Open() bool { return s != Closed && s != Rejected && s != Voided }

// Action is something a person or the platform does to a case.
type Action string

// The actions.
const (
	Open     Action = "open"      // 登记: the case comes into being
	File     Action = "file"      // 立案
	Reject   Action = "reject"    // 不予立案
	Dispatch Action = "dispatch"  // 派遣
	SendBack Action = "send_back" // 回退: the department says it is not theirs
	Accept   Action = "accept"    // 接单
	Handle   Action = "handle"    // 处置完成, 处理反馈
	Verify   Action = "verify"    // 核查通过: somebody else saw that it is done
	Rework   Action = "rework"    // 返工: somebody saw that it is not done
	Close    Action = "close"     // 结案
	Void     Action = "void"      // 作废
	Reopen   Action = "reopen"    // the same trouble came back within the rule's merge time
	Comment  Action = "comment"   // 备注; changes no stage
	Evidence Action = "evidence"  // what the sensors say; changes no stage

	AutoClose Action = "auto_close" // 自动结案: all was normal for as long as the rule says, and nobody had begun to work on it
	Absorb    Action = "absorb"     // 并案: merged into the case that explains it, before anybody had touched it
	Notify    Action = "notify"     // 通知: a notice was sent, or could not be; changes no stage
)

// Move is one line of the workflow: who may take a case by Action from one of
// the stages From to the stage To. An empty To keeps the stage.
type Move struct {
	Action Action
	From   []Stage
	To     Stage
	Roles  []Role // besides RoleAdmin; nil for the platform itself only
	Needs  []Need
}

// Need is what an action cannot do without.
type Need string

// The needs.
const (
	NeedNote       Need = "note"       // a reason in words
	NeedDepartment Need = "department" // the department that shall handle it
	NeedOther      Need = "other"      // another person than the one who handled it
)

// Workflow is the whole workflow of a case. Supervision (filing, verifying,
// closing) and command (dispatching) are in different hands, and nobody
// verifies their own work.
var Workflow = []Move{
	{File, []Stage{PendingFiling}, PendingDispatch, []Role{RoleSupervisor}, nil},
	{Reject, []Stage{PendingFiling}, Rejected, []Role{RoleSupervisor}, []Need{NeedNote}},
	{Dispatch, []Stage{PendingDispatch, PendingHandling}, PendingHandling, []Role{RoleDispatcher}, []Need{NeedDepartment}},
	{SendBack, []Stage{PendingHandling, Handling}, PendingDispatch, []Role{RoleDepartment}, []Need{NeedNote}},
	{Accept, []Stage{PendingHandling}, Handling, []Role{RoleDepartment}, nil},
	{Handle, []Stage{PendingHandling, Handling}, Handled, []Role{RoleDepartment}, nil},
	{Verify, []Stage{Handled}, PendingClose, []Role{RoleOfficer, RoleSupervisor}, []Need{NeedOther}},
	{Rework, []Stage{Handled, PendingClose}, Handling, []Role{RoleOfficer, RoleSupervisor}, []Need{NeedNote, NeedOther}},
	{Close, []Stage{PendingClose}, Closed, []Role{RoleSupervisor}, nil},
	{Void, []Stage{PendingDispatch, PendingHandling, Handling}, Voided, []Role{RoleSupervisor}, []Need{NeedNote}},
	{Reopen, []Stage{Closed}, PendingDispatch, nil, nil},
	{Comment, []Stage{PendingFiling, PendingDispatch, PendingHandling, Handling, Handled, PendingClose, Closed}, "",
		[]Role{RoleSupervisor, RoleDispatcher, RoleDepartment, RoleOfficer}, []Need{NeedNote}},
	{AutoClose, []Stage{PendingFiling, PendingDispatch}, Closed, nil, nil},
	{Absorb, []Stage{PendingFiling}, Voided, nil, nil},
	{Notify, []Stage{PendingFiling, PendingDispatch, PendingHandling, Handling, Handled, PendingClose, Closed, Rejected, Voided}, "", nil, nil},
	{Evidence, []Stage{PendingFiling, PendingDispatch, PendingHandling, Handling, Handled, PendingClose, Closed, Rejected, Voided}, "", nil, nil},
}

// moveOf returns the line of Workflow for a; ok is false for an unknown action.
func moveOf(a Action) (m Move, ok bool) {
	i := slices.IndexFunc(Workflow, func(m Move) bool { return m.Action == a })
	if i < 0 {
		return Move{}, false
	}
	return Workflow[i], true
}

// Source says how a case came to be known.
type Source string

// The sources. Sensor alarms are a source of their own: they never count as
// public reports, which would raise a collector's rate of missed cases (漏报率).
const (
	SourceSensor   Source = "sensor"   // 物联感知
	SourceOperator Source = "operator" // entered by hand
)

// Case is one piece of work for the city, opened by an alarm or by hand.
type Case struct {
	ID         CaseID     `json:"id"`
	Class      ClassCode  `json:"class"`
	ClassName  Text       `json:"class_name"`
	Title      Text       `json:"title"`
	Key        string     `json:"key,omitempty"` // at most one open case per key
	Source     Source     `json:"source"`
	WorkOrder  bool       `json:"work_order,omitempty"` // maintenance, not city management
	Severity   Severity   `json:"severity,omitempty"`   // the highest of its alarms
	Stage      Stage      `json:"stage"`
	Department string     `json:"department,omitempty"`
	Location   *Point     `json:"location,omitempty"`
	Grid       GridCode   `json:"grid,omitempty"`
	Condition  string     `json:"filing_condition,omitempty"`  // 立案条件
	Closing    string     `json:"closing_condition,omitempty"` // 结案条件
	Limit      string     `json:"limit,omitempty"`             // handling limit in the words of the class table: "2紧急工作时"
	Opened     time.Time  `json:"opened"`
	Filed      time.Time  `json:"filed_at,omitzero"`  // when the handling limit began to run: filed, or reopened
	Deadline   time.Time  `json:"deadline,omitzero"`  // of the handling; set when filed
	Yellow     time.Time  `json:"yellow_at,omitzero"` // when 80 % of the limit are used, as the limit counts
	Light      Light      `json:"light,omitempty"`    // of Deadline, at the time of reading
	Finished   time.Time  `json:"closed_at,omitzero"`
	Alarms     []AlarmID  `json:"alarms"`
	Members    int        `json:"members,omitempty"` // devices that its alarms concern
	Rule       RuleID     `json:"rule,omitempty"`    // whose alarm opened it; "" when a person did
	Reopened   int        `json:"reopened,omitempty"`
	MergedInto CaseID     `json:"merged_into,omitempty"` // the case that took its alarms
	Linked     []CaseID   `json:"linked,omitempty"`      // cases of alarms that explain its own
	Normal     bool       `json:"back_to_normal"`        // every alarm of it is cleared, or latched with its condition gone
	HandledBy  string     `json:"handled_by,omitempty"`
	HandledAt  time.Time  `json:"handled_at,omitzero"` // when the department last reported it done; zero again after rework
	Timeline   []CaseStep `json:"timeline,omitempty"`  // left out in lists
	Actions    []Action   `json:"actions,omitempty"`   // what the asking person may do next
	Revision   int64      `json:"revision"`            // grows with every step
}

// CaseStep is one entry of a case's timeline.
type CaseStep struct {
	Action     Action    `json:"action"`
	Stage      Stage     `json:"stage"` // after the action
	By         string    `json:"by"`    // user name; "citywarden" for the platform
	Role       Role      `json:"role,omitempty"`
	Note       string    `json:"note,omitempty"` // in a person's own words
	Text       *Text     `json:"text,omitempty"` // what the platform says of its own steps; nil for a person's
	Department string    `json:"department,omitempty"`
	Alarm      AlarmID   `json:"alarm,omitempty"`
	At         time.Time `json:"at"`
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
// role may not, CodeConflict when the stage does not allow it, CodeInvalid when
// something the action needs is missing. step.Role is "" for the platform.
func (c *Case) Do(step CaseStep) error {
	m, ok := moveOf(step.Action)
	if !ok {
		return Errorf(CodeNotFound, "no action %q; there are %s", step.Action, strings.Join(actionNames(), ", "))
	}
	if err := c.may(m, step); err != nil {
		return err
	}
	for _, n := range m.Needs {
		switch {
		case n == NeedNote && strings.TrimSpace(step.Note) == "":
			return Errorf(CodeInvalid, "%s case %s: say why in the note", step.Action, c.ID)
		case n == NeedDepartment && step.Department == "":
			return Errorf(CodeInvalid, "%s case %s: name the department that shall handle it", step.Action, c.ID)
		}
	}
	if m.To != "" {
		c.Stage = m.To
	}
	switch step.Action {
	case Dispatch:
		c.Department, c.HandledBy, c.HandledAt = step.Department, "", time.Time{}
	case Handle:
		c.HandledBy, c.HandledAt = step.By, step.At
	case Rework, SendBack:
		c.HandledAt = time.Time{}
	case Close, Reject, Void, AutoClose, Absorb:
		c.Finished = step.At
	case Reopen:
		c.Reopened++
		c.Finished, c.HandledBy, c.HandledAt = time.Time{}, "", time.Time{}
	}
	step.Stage = c.Stage
	c.Timeline = append(c.Timeline, step)
	c.Revision++
	return nil
}

func (c *Case) may(m Move, step CaseStep) error {
	switch {
	case step.Role == "" && step.By == Platform, step.Role == RoleAdmin && m.Roles != nil:
	case !slices.Contains(m.Roles, step.Role):
		return Errorf(CodeDenied, "%s may not %s a case; %s may", orNobody(string(step.Role)), step.Action, orNobody(joinRoles(m.Roles)))
	}
	if !slices.Contains(m.From, c.Stage) {
		return Errorf(CodeConflict, "cannot %s a case that is %s", step.Action, strings.ReplaceAll(string(c.Stage), "_", " "))
	}
	if slices.Contains(m.Needs, NeedOther) && step.Role != RoleAdmin && step.By == c.HandledBy {
		return Errorf(CodeDenied, "%s handled case %s; another person must %s it", step.By, c.ID, step.Action)
	}
	return nil
}

// Next returns the actions that a person may take on the case now, in the order
// of Workflow.
func (c *Case) Next(by string, role Role) []Action {
	var out []Action
	for _, m := range Workflow {
		if m.Roles != nil && c.may(m, CaseStep{Action: m.Action, By: by, Role: role}) == nil {
			out = append(out, m.Action)
		}
	}
	return out
}

func actionNames() []string {
	var out []string
	for _, m := range Workflow {
		if m.Roles != nil {
			out = append(out, string(m.Action))
		}
	}
	return out
}

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
	Stage      Stage
	Open       bool // only those that are not closed, rejected or voided
	Department string
	Grid       GridCode
	Alarm      AlarmID
	WorkOrders bool // work orders instead of cases
	Page
}

// NewCase is what a person says to open a case by hand.
type NewCase struct {
	Class       ClassCode `json:"class"`
	Title       string    `json:"title"`
	Description string    `json:"description,omitempty"`
	Location    *Point    `json:"location,omitempty"`
	Device      DeviceID  `json:"device,omitempty"` // takes its location when none is given
}

// Class is one row of the table of components and events, with the rule for
// filing, closing and the handling limit (GB/T 30428.2 and .8).
type Class struct {
	Code       ClassCode `json:"code"`
	Standard   string    `json:"standard"` // "GB/T 30428.2-2013" or "CJ/T 214-2007"
	Name       Text      `json:"name"`
	Condition  string    `json:"filing_condition,omitempty"`
	Closing    string    `json:"closing_condition,omitempty"`
	Limit      string    `json:"limit"` // "2紧急工作时", "4小时", "1天"
	Department string    `json:"department"`
}
