package citywarden

import (
	"fmt"
	"strconv"
	"time"
)

// NoticeKind says what a notice tells of.
type NoticeKind string

// The kinds of notices.
const (
	NoticeOpened    NoticeKind = "opened"    // a case was opened
	NoticeReopened  NoticeKind = "reopened"  // the trouble came back
	NoticeSeverity  NoticeKind = "severity"  // the case is more severe than before
	NoticeMembers   NoticeKind = "members"   // it concerns many more devices than before, see Milestone
	NoticeRemaining NoticeKind = "remaining" // a storm is over, but some alarms of it are still active
	NoticeEscalated NoticeKind = "escalated" // it stands for too long

	NoticeDispatched NoticeKind = "dispatched" // 派遣, 转派, 返工: a department has to work on it, or to do it again
	NoticeWithdrawn  NoticeKind = "withdrawn"  // 转派, 回退, 作废: a department has no longer to work on it
	NoticeOverdue    NoticeKind = "overdue"    // a limit has passed
	NoticeSupervised NoticeKind = "supervised" // 督办
	NoticeUrged      NoticeKind = "urged"      // 催办

	NoticeTest NoticeKind = "test" // of no case: whether it arrives
)

// NoticeState is what became of a notice.
type NoticeState string

// The states of a notice.
const (
	NoticePending NoticeState = "pending" // is sent, again when that failed
	NoticeSent    NoticeState = "sent"
	NoticeDropped NoticeState = "dropped" // before it was sent, the case was merged into another, or what it tells its department was not true any more
	NoticeDead    NoticeState = "dead"    // given up after too many tries
	NoticeKept    NoticeState = "kept"    // nobody is configured to receive it
)

// Notice tells one receiver of one event in the life of a case. Its key names
// the event for ever: the same notice may reach a receiver twice when the
// platform crashes right after sending it, but always with the same key.
type Notice struct {
	Key      string      `json:"key"`
	Receiver string      `json:"receiver,omitempty"` // "" when there is none
	Kind     NoticeKind  `json:"kind"`
	Case     CaseID      `json:"case"`
	Alarm    AlarmID     `json:"alarm,omitempty"` // "" for who does not see it, too
	Severity Severity    `json:"severity,omitempty"`
	Title    Text        `json:"title"` // of the case
	Text     Text        `json:"text"`
	Class    ClassCode   `json:"class"`
	Grid     GridCode    `json:"grid,omitempty"`
	Location *Point      `json:"location,omitempty"`
	At       time.Time   `json:"at"`
	Urgent   bool        `json:"urgent,omitempty"` // goes out in quiet hours, too: critical, or of life safety
	State    NoticeState `json:"state"`
	Tries    int         `json:"tries,omitempty"`
	Next     time.Time   `json:"next_try,omitzero"` // of a pending one
	SentAt   time.Time   `json:"sent_at,omitzero"`
	Error    string      `json:"error,omitempty"` // of the last try, or why it is kept or dropped

	// The department that the receiver is told as, which it is only while the case concerns it; "" for one who is told in any case.
	Department string `json:"department,omitempty" doc:"The department that the receiver is told as: only while the case is with it"`
}

// Moot returns why nobody is to be told n any more as c is now, empty when it is
// to be told still: a department is told only what concerns it at the time.
func (n *Notice) Moot(c *Case) Text {
	switch {
	case n.Department == "":
	case n.Kind == NoticeWithdrawn:
		if c.Stage.Open() && c.Department == n.Department {
			return Text{EN: fmt.Sprintf("the case is with %s again", n.Department), ZH: "案卷又回到" + n.Department}
		}
	case c.Stage == Closed:
		return Text{EN: "the case is closed", ZH: "案卷已结案"}
	case c.Stage == Voided:
		return Text{EN: "the case is voided", ZH: "案卷已作废"}
	case c.Stage == Rejected:
		return Text{EN: "the case is rejected", ZH: "案卷不予立案"}
	case c.Department != n.Department:
		return Text{EN: fmt.Sprintf("the case is not with %s any more", n.Department), ZH: "案卷已不在" + n.Department}
	case n.Kind == NoticeDispatched && n.At.Before(c.TaskSince):
		return Text{EN: "it was told anew or is done", ZH: "任务已重新下达或已完成"}
	case n.Kind == NoticeOverdue && c.Stage != Suspended && (c.StageDue.IsZero() || !n.At.After(c.StageDue)):
		return Text{EN: "it is done or has another limit", ZH: "任务已完成或时限已变更"}
	}
	return Text{}
}

// Receiver is somebody who can be told of cases.
type Receiver struct {
	Name    string `json:"name"`    // that rules escalate to
	Channel string `json:"channel"` // mail, webhook, …
	All     bool   `json:"all"`     // gets every notice, not only the escalations to it
	Quiet   string `json:"quiet,omitempty" doc:"Hours in which only urgent notices go out"`
}

// BusyError says that a receiver takes nothing for a while, whatever it is: no
// notice was refused.
type BusyError struct {
	After time.Duration // when to try again
	Err   error         // why
}

// Error says why.
func (e *BusyError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *BusyError) Unwrap() error { return e.Err }

// NoticeFilter selects notices; zero fields select all.
type NoticeFilter struct {
	Case       CaseID
	Alarm      AlarmID
	State      NoticeState
	Key        string
	Department string   // only of cases that this department has, and to the receiver of its name
	Area       AreaCode // only of cases there
	Page
}

// Milestone returns the greatest of 1, 2, 5, 10, 20, 50, 100 … that is at most n,
// 0 for none: a case tells when the number of its devices reaches the next.
func Milestone(n int) int {
	best := 0
	for unit := 1; unit <= n; unit *= 10 {
		for _, k := range []int{1, 2, 5} {
			if k*unit <= n {
				best = k * unit
			}
		}
	}
	return best
}

// NoticeKey returns the key of a notice. A case that is reopened tells
// everything anew; what tells several events of one kind apart comes last.
func NoticeKey(c *Case, kind NoticeKind, parts ...string) string {
	key := string(c.ID) + "/" + strconv.Itoa(c.Reopened) + "/" + string(kind)
	for _, p := range parts {
		key += "/" + p
	}
	return key
}

// TimerKind says what a case waits for.
type TimerKind string

// The kinds of timers.
const (
	TimerHold     TimerKind = "hold"     // the first notice
	TimerEscalate TimerKind = "escalate" // an escalation
	TimerClose    TimerKind = "close"    // that the platform closes the case
	TimerOverdue  TimerKind = "overdue"  // that the limit of the stage passes, and escalations after it
	TimerResume   TimerKind = "resume"   // that a suspension ends
)

// CaseTimer is a moment in a case's life that comes by itself. It runs in our
// time: people wait in wall time.
type CaseTimer struct {
	Case   CaseID
	Kind   TimerKind
	N      int // of several of one kind, from 0
	Due    time.Time
	Parked bool // due, but an alarm has to be acknowledged before
	Alarm  AlarmID
	Urgent bool     // of life safety
	After  Duration // how long it was set for
	Unless bool     // TimerEscalate: not when the alarms are acknowledged
	To     string   // TimerEscalate and TimerOverdue: the receiver; "" for those who get all
}

// CaseTally counts the alarms of a case.
type CaseTally struct {
	All         int
	Active      int // without the latched, whose condition is gone
	Standing    int // active or latched, and nothing suppresses them
	Unacked     int // of those, not acknowledged
	Unexplained int // not suppressed, not explained by another when they cleared, and not flapping
	Unsettled   int // active, latched, or more than minor and not acknowledged
}
