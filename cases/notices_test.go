package cases_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/store"
)

// mailbox is a receiver's end: it keeps what it got, by key.
type mailbox struct {
	mu   sync.Mutex
	got  []string       // "kind case severity text", in order
	keys map[string]int // how often each key came
	fail func() error   // nil: all is taken
}

func (m *mailbox) Send(_ context.Context, n citywarden.Notice) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if err := m.fail(); err != nil {
			return err
		}
	}
	if m.keys == nil {
		m.keys = map[string]int{}
	}
	m.keys[n.Key]++
	m.got = append(m.got, fmt.Sprintf("%s %s %s %s", n.Kind, n.Case, n.Severity, n.Text.In("en")))
	return nil
}

// failing has what is sent fail with what f returns; nil takes it.
func (m *mailbox) failing(f func() error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = f
}

// take returns what came since the last call.
func (m *mailbox) take() []string {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	got := m.got
	m.got = nil
	return got
}

// office is a desk that runs, with the receivers "all", which gets every notice,
// and "chief", in virtual time from Monday on.
type office struct {
	*cases.Desk
	f          *feed
	db         *store.DB
	all, chief *mailbox
	stop       func()
	limits     map[citywarden.Stage]cases.Limit // none unless the test is about what is overdue
	overdue    []citywarden.Escalation
	grids      *cases.Grids // nil for none
}

func inOffice(t *testing.T, test func(t *testing.T, o *office)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(monday()))
		o := &office{f: &feed{}, all: &mailbox{}, chief: &mailbox{}, limits: map[citywarden.Stage]cases.Limit{}}
		path := filepath.Join(t.TempDir(), "x.db")
		o.open(t, path)
		test(t, o)
		o.stop()
	})
}

func (o *office) open(t *testing.T, path string, receivers ...cases.Receiver) {
	if receivers == nil {
		receivers = []cases.Receiver{{Name: "all", All: true, Sender: o.all}, {Name: "chief", Sender: o.chief}}
	}
	o.Desk, o.db = openDesk(t, path, cases.Options{Notify: receivers, Limits: o.limits, Overdue: o.overdue, Grids: o.grids})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- o.Run(ctx) }()
	o.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// at applies ts as logged now.
func (o *office) at(t *testing.T, ts ...citywarden.Transition) {
	t.Helper()
	for i := range ts {
		ts[i].Logged = time.Now()
	}
	apply(t, o.Desk, o.f, ts...)
	synctest.Wait()
}

func (o *office) raise(entity string, s citywarden.Severity, order *citywarden.CaseOrder) citywarden.Transition {
	return o.f.next(citywarden.Raised, "r", entity, 1, s, order)
}

func (o *office) state(t *testing.T, id citywarden.CaseID) string {
	t.Helper()
	c, err := o.Case(t.Context(), id, "x", citywarden.RoleViewer)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %d devices %v", c.Stage, c.Members, c.Alarms)
}

func (o *office) wantMail(t *testing.T, m *mailbox, want ...string) {
	t.Helper()
	got := m.take()
	if len(got) != len(want) {
		t.Fatalf("notices:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("notice %q, want %q", got[i], want[i])
		}
	}
}

const first = citywarden.CaseID("E0000202611230001")

func keyed(key string) *citywarden.CaseOrder { return &citywarden.CaseOrder{Key: key} }

// explained returns tr with the alarm that explains its alarm, and the key of that
// one's case when it is of a storm.
func explained(tr citywarden.Transition, by citywarden.AlarmID, parent string) citywarden.Transition {
	o := *tr.Case
	o.Parent = parent
	tr.Case, tr.Alarm.SuppressedBy, tr.Annunciated = &o, by, false
	return tr
}

func TestNoticesOfACase(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		order := keyed("k")
		order.Merge = citywarden.Duration(time.Hour)
		o.at(t, o.raise("a", citywarden.Minor, order))
		o.wantMail(t, o.all, "opened "+string(first)+" minor minor alarm: Pipe burst, pressure is raised")
		o.at(t, o.raise("b", citywarden.Minor, order)) // two devices
		o.wantMail(t, o.all, "members "+string(first)+" minor minor alarm: Pipe burst")
		o.at(t, o.raise("c", citywarden.Minor, order), o.raise("d", citywarden.Minor, order))
		o.wantMail(t, o.all)
		o.at(t, o.raise("e", citywarden.Minor, order))
		o.wantMail(t, o.all, "members")
		o.at(t, o.f.next(citywarden.Escalated, "r", "a", 1, citywarden.Major, order))
		o.wantMail(t, o.all, "severity "+string(first)+" major alarm went up to major")
		o.at(t, o.f.next(citywarden.Escalated, "r", "b", 1, citywarden.Major, order)) // the case was major already
		o.wantMail(t, o.all)
		for i, x := range toClosed() {
			if i == 0 {
				time.Sleep(time.Minute)
			}
			if x.Action == citywarden.Dispatch {
				x.Department = "water"
			}
			do(t, o.Desk, first, x)
		}
		o.wantMail(t, o.all, "dispatched "+string(first)+" major dispatched to water by chen")
		o.at(t, o.f.next(citywarden.Cleared, "r", "a", 1, citywarden.Major, order))
		o.at(t, o.f.next(citywarden.Raised, "r", "a", 2, citywarden.Minor, order))
		o.wantMail(t, o.all, "reopened "+string(first))
		// Once reopened it tells everything anew.
		o.at(t, o.f.next(citywarden.Escalated, "r", "a", 2, citywarden.Critical, order))
		o.wantMail(t, o.all, "severity "+string(first)+" critical")
		o.wantMail(t, o.chief)
		steps := timeline(t, o.Desk, first)
		if n := len(slices.DeleteFunc(steps, func(s string) bool {
			return !strings.HasPrefix(s, "notify ") || !strings.Contains(s, "notice sent to all: ")
		})); n != 7 {
			t.Errorf("%d notices in the timeline, want 7:\n%s", n, strings.Join(timeline(t, o.Desk, first), "\n"))
		}
		ns, next, err := o.Notices(t.Context(), citywarden.NoticeFilter{Case: first, State: citywarden.NoticeSent, Page: citywarden.Page{Limit: 4}})
		if err != nil || len(ns) != 4 || next == "" || ns[0].Kind != citywarden.NoticeSeverity || ns[0].SentAt.IsZero() || ns[0].Tries != 1 {
			t.Errorf("notices %+v, %q, %v", ns, next, err)
		}
		ns, _, err = o.Notices(t.Context(), citywarden.NoticeFilter{Alarm: "r:b:1", Page: citywarden.Page{After: next}})
		if err != nil || len(ns) != 1 || ns[0].Kind != citywarden.NoticeMembers {
			t.Errorf("notices of b %+v, %v", ns, err)
		}
	})
}

func TestHold(t *testing.T) {
	held := func() *citywarden.CaseOrder {
		o := keyed("k")
		o.Hold = citywarden.Duration(2 * time.Minute)
		return o
	}
	for _, c := range []struct {
		name string
		then func(t *testing.T, o *office) // after a minute
		want []string                      // by the end of the hold
	}{
		{"nothing happens", func(*testing.T, *office) {}, []string{"opened E0000202611230001 minor minor alarm"}},
		{"more devices", func(t *testing.T, o *office) { o.at(t, o.raise("b", citywarden.Minor, held())) },
			[]string{"opened E0000202611230001 minor minor alarm: Pipe burst (a), 2 devices"}},
		{"more severe", func(t *testing.T, o *office) {
			o.at(t, o.f.next(citywarden.Escalated, "r", "a", 1, citywarden.Major, held()))
		}, []string{"opened E0000202611230001 major major alarm"}},
		{"critical", func(t *testing.T, o *office) {
			o.at(t, o.f.next(citywarden.Escalated, "r", "a", 1, citywarden.Critical, held()))
			o.wantMail(t, o.all, "opened E0000202611230001 critical alarm went up to critical")
		}, nil},
		{"an inhibitor comes", func(t *testing.T, o *office) {
			o.at(t, explained(o.f.next(citywarden.Suppressed, "r", "a", 1, citywarden.Minor, held()), "gw:g1:1", ""))
		}, nil},
		{"it clears", func(t *testing.T, o *office) {
			o.at(t, o.f.next(citywarden.Cleared, "r", "a", 1, citywarden.Minor, held()))
		}, []string{"opened E0000202611230001 minor minor alarm: Pipe burst (a); back to normal by now"}},
		{"people close it", func(t *testing.T, o *office) {
			do(t, o.Desk, first, citywarden.CaseStep{Action: citywarden.Reject, By: "lin", Role: citywarden.RoleSupervisor, Note: "a test"})
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *office) {
				o.at(t, o.raise("a", citywarden.Minor, held()))
				time.Sleep(time.Minute)
				c.then(t, o)
				time.Sleep(59 * time.Second)
				o.wantMail(t, o.all)
				time.Sleep(2 * time.Second)
				o.wantMail(t, o.all, c.want...)
				if c.name == "an inhibitor comes" { // and goes: now somebody has to know
					tr := o.f.next(citywarden.Unsuppressed, "r", "a", 1, citywarden.Minor, held())
					tr.Annunciated = true
					o.at(t, tr)
					o.wantMail(t, o.all, "opened E0000202611230001 minor still active")
				}
			})
		})
	}
	t.Run("critical at once", func(t *testing.T) {
		inOffice(t, func(t *testing.T, o *office) {
			o.at(t, o.raise("a", citywarden.Critical, held()))
			o.wantMail(t, o.all, "opened")
		})
	})
}

func TestEscalation(t *testing.T) {
	order := func(unless bool) *citywarden.CaseOrder {
		o := keyed("k")
		o.Escalate = []citywarden.Escalation{{After: citywarden.Duration(time.Minute), UnlessAcked: unless, To: "chief"}}
		return o
	}
	ack := func(o *office) citywarden.Transition {
		tr := o.f.next(citywarden.Acked, "r", "a", 1, citywarden.Major, order(true))
		tr.Alarm.Acked = true
		return tr
	}
	for _, c := range []struct {
		name   string
		unless bool
		then   func(t *testing.T, o *office)
		want   int
	}{
		{"nobody cares", true, func(*testing.T, *office) {}, 1},
		{"acknowledged", true, func(t *testing.T, o *office) { o.at(t, ack(o)) }, 0},
		{"acknowledged, but to be told all the same", false, func(t *testing.T, o *office) { o.at(t, ack(o)) }, 1},
		{"over", true, func(t *testing.T, o *office) {
			o.at(t, o.f.next(citywarden.Cleared, "r", "a", 1, citywarden.Major, order(true)))
		}, 0},
		{"acknowledged, then critical", true, func(t *testing.T, o *office) {
			o.at(t, ack(o))
			time.Sleep(time.Minute)
			o.at(t, o.f.next(citywarden.Escalated, "r", "a", 1, citywarden.Critical, order(true)))
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *office) {
				o.at(t, o.raise("a", citywarden.Major, order(c.unless)))
				time.Sleep(30 * time.Second)
				c.then(t, o)
				time.Sleep(10 * time.Minute)
				got := o.chief.take()
				if len(got) != c.want {
					t.Errorf("the chief is told %d times, want %d: %q", len(got), c.want, got)
				}
			})
		})
	}
	t.Run("nobody of that name", func(t *testing.T) {
		inOffice(t, func(t *testing.T, o *office) {
			x := order(true)
			x.Escalate[0].To = "boss"
			o.at(t, o.raise("a", citywarden.Major, x))
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			ns, _, err := o.Notices(t.Context(), citywarden.NoticeFilter{State: citywarden.NoticeKept})
			if err != nil || len(ns) != 1 || ns[0].Receiver != "boss" {
				t.Errorf("kept: %+v, %v", ns, err)
			}
			steps := timeline(t, o.Desk, first)
			if last := steps[len(steps)-1]; !strings.Contains(last, "notice to boss could not be sent, there is no receiver of that name: not acknowledged for 1m") {
				t.Errorf("the timeline ends with %q", last)
			}
		})
	})
}

func TestAutoClose(t *testing.T) {
	order := func() *citywarden.CaseOrder {
		o := keyed("k")
		o.ClearedFor = citywarden.Duration(30 * time.Minute)
		return o
	}
	clear := func(o *office, s citywarden.Severity) citywarden.Transition {
		return o.f.next(citywarden.Cleared, "r", "a", 1, s, order())
	}
	acked := func(tr citywarden.Transition) citywarden.Transition {
		tr.Alarm.Acked = true
		return tr
	}
	for _, c := range []struct {
		name     string
		severity citywarden.Severity
		then     func(t *testing.T, o *office)
		want     citywarden.Stage
	}{
		{"minor", citywarden.Minor, func(t *testing.T, o *office) { o.at(t, clear(o, citywarden.Minor)) }, citywarden.Closed},
		{"still active", citywarden.Minor, func(*testing.T, *office) {}, citywarden.PendingFiling},
		{"major and nobody looked", citywarden.Major, func(t *testing.T, o *office) { o.at(t, clear(o, citywarden.Major)) }, citywarden.PendingFiling},
		{"major and acknowledged", citywarden.Major, func(t *testing.T, o *office) { o.at(t, acked(clear(o, citywarden.Major))) }, citywarden.Closed},
		{"acknowledged an hour later", citywarden.Major, func(t *testing.T, o *office) {
			o.at(t, clear(o, citywarden.Major))
			time.Sleep(time.Hour)
			tr := acked(o.f.next(citywarden.Acked, "r", "a", 1, citywarden.Major, order()))
			tr.Alarm.State = citywarden.AlarmCleared
			o.at(t, tr)
		}, citywarden.Closed},
		{"latched", citywarden.Minor, func(t *testing.T, o *office) {
			tr := o.f.next(citywarden.Latched, "r", "a", 1, citywarden.Minor, order())
			tr.Alarm.Latched, tr.Alarm.Acked = true, true
			o.at(t, tr)
		}, citywarden.PendingFiling},
		{"raised again", citywarden.Minor, func(t *testing.T, o *office) {
			o.at(t, clear(o, citywarden.Minor))
			time.Sleep(29 * time.Minute)
			o.at(t, o.f.next(citywarden.Raised, "r", "a", 2, citywarden.Minor, order()))
		}, citywarden.PendingFiling},
		{"people work on it", citywarden.Minor, func(t *testing.T, o *office) {
			do(t, o.Desk, first, citywarden.CaseStep{Action: citywarden.File, By: "lin", Role: citywarden.RoleSupervisor},
				citywarden.CaseStep{Action: citywarden.Dispatch, By: "chen", Role: citywarden.RoleDispatcher, Department: "water"})
			o.at(t, clear(o, citywarden.Minor))
		}, citywarden.PendingHandling},
		{"filed only", citywarden.Minor, func(t *testing.T, o *office) {
			do(t, o.Desk, first, citywarden.CaseStep{Action: citywarden.File, By: "lin", Role: citywarden.RoleSupervisor})
			o.at(t, clear(o, citywarden.Minor))
		}, citywarden.Closed},
		{"the rule was removed", citywarden.Minor, func(t *testing.T, o *office) {
			tr := clear(o, citywarden.Minor)
			tr.Alarm.Reason, tr.Case.ClearedFor = "rule removed", 0
			o.at(t, tr)
		}, citywarden.PendingFiling},
	} {
		t.Run(c.name, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *office) {
				o.at(t, o.raise("a", c.severity, order()))
				time.Sleep(time.Minute)
				c.then(t, o)
				time.Sleep(29*time.Minute + 59*time.Second)
				if got := allCases(t, o.Desk, citywarden.CaseFilter{})[0]; !got.Stage.Open() && c.name != "acknowledged an hour later" {
					t.Errorf("closed too early: %s", got.Stage)
				}
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if got := allCases(t, o.Desk, citywarden.CaseFilter{})[0].Stage; got != c.want {
					t.Errorf("the case is %s, want %s:\n%s", got, c.want, strings.Join(timeline(t, o.Desk, first), "\n"))
				}
				if c.want == citywarden.Closed && !strings.Contains(strings.Join(timeline(t, o.Desk, first), "\n"), "auto_close closed by citywarden: closed by itself: all normal for 30m") {
					t.Errorf("timeline:\n%s", strings.Join(timeline(t, o.Desk, first), "\n"))
				}
			})
		})
	}
}

// A case that a fire alarm was ever in stays open until people close it, and what
// is told of it never waits, whatever else is in it.
func TestFireInACaseOfOthers(t *testing.T) {
	for _, how := range []string{"one key", "merged"} {
		t.Run(how, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *office) {
				other, fire := keyed("k"), keyed("k")
				other.ClearedFor, other.Class, fire.Class, fire.LifeSafety = citywarden.Duration(time.Minute), "event/0501", "event/0501", true
				if how == "merged" {
					fire.Key = "f"
				}
				o.at(t, o.raise("b", citywarden.Minor, other))
				o.at(t, o.raise("a", citywarden.Minor, fire))
				id := citywarden.CaseID("E0501202611230001")
				if how == "merged" {
					do(t, o.Desk, "E0501202611230002", citywarden.CaseStep{Action: citywarden.Merge, By: "lin", Role: citywarden.RoleSupervisor, Case: id})
				}
				o.at(t, o.f.next(citywarden.Cleared, "r", "a", 1, citywarden.Minor, fire))
				o.at(t, o.f.next(citywarden.Cleared, "r", "b", 1, citywarden.Minor, other))
				time.Sleep(time.Hour)
				synctest.Wait()
				c, err := o.Case(t.Context(), id, "lin", citywarden.RoleSupervisor)
				if err != nil || !c.Normal || !c.LifeSafety || c.Stage != citywarden.PendingFiling {
					t.Errorf("%s: normal %v, of life safety %v, %v", c.Stage, c.Normal, c.LifeSafety, err)
				}
				do(t, o.Desk, id, citywarden.CaseStep{Action: citywarden.File, By: "lin", Role: citywarden.RoleSupervisor},
					citywarden.CaseStep{Action: citywarden.Urge, By: "lin", Role: citywarden.RoleSupervisor})
				synctest.Wait()
				ns, _, err := o.Notices(t.Context(), citywarden.NoticeFilter{Case: id})
				if err != nil || len(ns) == 0 || ns[0].Kind != citywarden.NoticeUrged || !ns[0].Urgent {
					t.Errorf("urged: %+v, %v", ns, err)
				}
				if want := (citywarden.Text{EN: "urged by lin", ZH: "lin 催办"}); len(ns) > 0 && ns[0].Text != want {
					t.Errorf("without a word of hers the notice says %q, want %q", ns[0].Text, want)
				}
			})
		})
	}
}

func TestTheCaseOfAStorm(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		order := func(key string) *citywarden.CaseOrder {
			x := keyed(key)
			x.Hold = citywarden.Duration(2 * time.Minute)
			return x
		}
		up := &citywarden.CaseOrder{Key: "outage/D1", Storm: true}
		// B1 with two meters is untouched, B2 is being worked on, B3 has one alarm of another cause.
		o.at(t, o.raise("m1", citywarden.Major, order("B1")), o.raise("m2", citywarden.Major, order("B1")), o.raise("m3", citywarden.Major, order("B2")),
			o.raise("m4", citywarden.Major, order("B3")), o.f.next(citywarden.Raised, "other", "m4", 1, citywarden.Major, order("B3")))
		do(t, o.Desk, "E0000202611230002", citywarden.CaseStep{Action: citywarden.File, By: "lin", Role: citywarden.RoleSupervisor})
		parent := o.f.next(citywarden.Raised, "outage", "D1", 1, citywarden.Critical, up)
		parent.Alarm.Members = []citywarden.DeviceID{"m1", "m2", "m3", "m4"}
		parent.Alarm.Device = "m4"
		ts := []citywarden.Transition{parent}
		for i, key := range []string{"B1", "B1", "B2", "B3"} {
			ts = append(ts, explained(o.f.next(citywarden.Suppressed, "r", fmt.Sprintf("m%d", i+1), 1, citywarden.Major, order(key)), parent.Alarm.ID, "outage/D1"))
		}
		o.at(t, ts...)
		o.at(t, explained(o.raise("m5", citywarden.Major, order("B3")), parent.Alarm.ID, "outage/D1"))
		o.wantMail(t, o.all, "opened E0000202611230004 critical")
		for id, want := range map[citywarden.CaseID]string{
			"E0000202611230001": "voided 2 devices []",
			"E0000202611230002": "pending_dispatch 1 devices [r:m3:1]",
			"E0000202611230003": "pending_filing 1 devices [other:m4:1]",
			"E0000202611230004": "pending_filing 4 devices [outage:D1:1 r:m1:1 r:m2:1 r:m4:1 r:m5:1]",
		} {
			if got := o.state(t, id); got != want {
				t.Errorf("case %s: %s, want %s", id, got, want)
			}
		}
		for id, want := range map[citywarden.CaseID][]string{
			"E0000202611230001": {
				"open pending_filing by citywarden: major alarm: Pipe burst (m1), pressure is raised",
				"evidence pending_filing by citywarden: major alarm: Pipe burst (m2), pressure is raised",
				"evidence pending_filing by citywarden: alarm r:m1:1 moved to case E0000202611230004, which explains it",
				"absorb voided by citywarden: merged into case E0000202611230004, which explains it",
			},
			"E0000202611230002": {
				"open pending_filing by citywarden: major alarm: Pipe burst (m3), pressure is raised", "file pending_dispatch by lin: ",
				"evidence pending_dispatch by citywarden: case E0000202611230004 explains the alarm; both stay open",
			},
			"E0000202611230004": {
				"open pending_filing by citywarden: critical alarm: Pipe burst (D1), pressure is raised",
				"evidence pending_filing by citywarden: case E0000202611230001 merged into this one",
				"evidence pending_filing by citywarden: case E0000202611230002 has the same cause; people work on it already",
				"notify pending_filing by citywarden: notice sent to all: critical alarm: Pipe burst (D1), pressure is raised",
			},
		} {
			if diff := cmp.Diff(want, timeline(t, o.Desk, id)); diff != "" {
				t.Errorf("timeline of %s (-want +got):\n%s", id, diff)
			}
		}
		// By the end of the hold only the alarm that nothing explains is told.
		time.Sleep(3 * time.Minute)
		o.wantMail(t, o.all, "opened E0000202611230003 major")

		// The storm ends; the two that stay are told once, in the storm's case.
		over := o.f.next(citywarden.Cleared, "outage", "D1", 1, citywarden.Critical, up)
		rest := []citywarden.Transition{over}
		for _, m := range []string{"m1", "m2"} {
			tr := o.f.next(citywarden.Unsuppressed, "r", m, 1, citywarden.Major, order("B1"))
			tr.Annunciated, tr.Position = true, over.Position
			rest = append(rest, tr)
		}
		for i := range rest {
			rest[i].Alarm.Members = parent.Alarm.Members[:0]
		}
		o.at(t, rest...)
		o.wantMail(t, o.all, "remaining E0000202611230004 critical still active, though nothing explains it any more: Pipe burst (m1)")
	})
}

func TestASummaryCaseTakesTheOverflow(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		order := func(i int) *citywarden.CaseOrder {
			x := keyed(fmt.Sprintf("k/%d", i))
			x.Limit = citywarden.CaseLimit{Cases: 3, In: citywarden.Duration(10 * time.Minute)}
			return x
		}
		for i := range 10 {
			o.at(t, o.raise(fmt.Sprintf("m%d", i), citywarden.Minor, order(i)))
		}
		list := allCases(t, o.Desk, citywarden.CaseFilter{})
		if len(list) != 4 || list[0].Key != "summary/r" || len(list[0].Alarms) != 7 || list[0].Title.EN != "Pipe burst: too many for a case each" {
			t.Fatalf("%d cases, the newest %+v", len(list), list[0])
		}
		o.wantMail(t, o.all, "opened", "opened", "opened", "opened E0000202611230004", "members E0000202611230004", "members E0000202611230004")
		// An alarm of a case that is there joins it, and later all is as before.
		o.at(t, o.raise("n0", citywarden.Minor, order(0)))
		time.Sleep(11 * time.Minute)
		o.at(t, o.raise("n1", citywarden.Minor, order(100)))
		if list := allCases(t, o.Desk, citywarden.CaseFilter{}); len(list) != 5 || list[0].Key != "k/100" || len(list[4].Alarms) != 2 {
			t.Errorf("later: %+v", list)
		}
		// Fire is never put together.
		for i := range 10 {
			x := order(200 + i)
			x.LifeSafety = true
			o.at(t, o.raise(fmt.Sprintf("f%d", i), citywarden.Minor, x))
		}
		if n := len(allCases(t, o.Desk, citywarden.CaseFilter{})); n != 15 {
			t.Errorf("%d cases with those of fire, want 15", n)
		}
	})
}

func TestAFlappingSensorIsMaintained(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		order := keyed("k")
		order.Hold = citywarden.Duration(time.Minute)
		flap := func() citywarden.Transition {
			tr := o.f.next(citywarden.Flapped, "r", "a", 1, citywarden.Major, order)
			tr.Alarm.Flapping, tr.Why = true, nil
			return tr
		}
		o.at(t, o.raise("a", citywarden.Major, order))
		o.at(t, flap())
		time.Sleep(2 * time.Minute)
		o.wantMail(t, o.all, "opened W0000202611230002 warning comes and goes too often; look after the sensor")
		o.at(t, o.f.next(citywarden.Steadied, "r", "a", 1, citywarden.Major, order), flap())
		o.wantMail(t, o.all)
		list := allCases(t, o.Desk, citywarden.CaseFilter{WorkOrders: true})
		if len(list) != 1 || list[0].Key != "flap/r/a" || len(timeline(t, o.Desk, list[0].ID)) != 3 {
			t.Errorf("work orders: %+v\n%q", list, timeline(t, o.Desk, list[0].ID))
		}
	})
}

// The rule of an alarm in a case loses its case: order.
func TestARuleThatLostItsCase(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.at(t, o.raise("a", citywarden.Minor, keyed("k")))
		joined := o.f.next(citywarden.Joined, "r", "a", 1, citywarden.Minor, nil)
		joined.Alarm.Members = []citywarden.DeviceID{"a", "b"}
		o.at(t, joined, o.f.next(citywarden.Escalated, "r", "a", 1, citywarden.Major, nil), o.f.next(citywarden.Cleared, "r", "a", 1, citywarden.Major, nil))
		o.wantMail(t, o.all, "opened")
		if got := allCases(t, o.Desk, citywarden.CaseFilter{})[0]; got.Severity != citywarden.Major || !got.Normal || got.Members != 2 {
			t.Errorf("the case: %+v", got)
		}
	})
}

func TestDeadNotices(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.all.failing(func() error { return errors.New("connection refused") })
		o.at(t, o.raise("a", citywarden.Major, keyed("k")))
		look := func() citywarden.Notice {
			t.Helper()
			synctest.Wait()
			ns, _, err := o.Notices(t.Context(), citywarden.NoticeFilter{})
			if err != nil || len(ns) != 1 {
				t.Fatalf("%+v, %v", ns, err)
			}
			return ns[0]
		}
		for i, after := range []time.Duration{0, 10 * time.Second, 20 * time.Second, 40 * time.Second} {
			time.Sleep(after)
			if n := look(); n.Tries != i+1 || n.State != citywarden.NoticePending || n.Error != "connection refused" {
				t.Errorf("try %d: %+v", i+1, n)
			}
		}
		time.Sleep(2 * time.Hour)
		if n := look(); n.Tries != 10 || n.State != citywarden.NoticeDead || !n.Next.IsZero() {
			t.Errorf("at the end: %+v", n)
		}
		steps := timeline(t, o.Desk, first)
		if last := steps[len(steps)-1]; !strings.HasPrefix(last, "notify pending_filing by citywarden: notice to all could not be sent in 10 tries: ") {
			t.Errorf("the timeline ends with %q", last)
		}
		// Once the receiver is back, somebody has it sent again: once, with the same key.
		o.all.failing(nil)
		key := look().Key
		for receiver, code := range map[string]citywarden.Code{"chief": citywarden.CodeNotFound, "all": "", "": citywarden.CodeNotFound} {
			if _, err := o.Resend(t.Context(), key, receiver); citywarden.CodeOf(err) != code {
				t.Errorf("resend to %q: %v, want %q", receiver, err, code)
			}
		}
		o.wantMail(t, o.all, "opened "+string(first))
		if n := look(); n.State != citywarden.NoticeSent || n.Tries != 1 || n.Key != key || n.Error != "" {
			t.Errorf("sent again: %+v", n)
		}
		if _, err := o.Resend(t.Context(), key, "all"); citywarden.CodeOf(err) != citywarden.CodeConflict {
			t.Errorf("resend what arrived: %v", err)
		}
	})
}

// A receiver that is busy is asked again when it said, for that no try is counted;
// what is urgent does not wait behind what is not.
func TestABusyReceiver(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		var asked, most atomic.Int64
		most.Store(2)
		o.all.failing(func() error {
			if asked.Add(1); int64(len(o.all.keys)) < most.Load() {
				return nil
			}
			return &citywarden.BusyError{After: time.Minute, Err: errors.New("enough")}
		})
		for i := range 4 {
			o.at(t, o.raise(fmt.Sprintf("a%d", i), citywarden.Major, keyed(fmt.Sprintf("a%d", i))))
		}
		o.wantMail(t, o.all, "opened E0000202611230001", "opened E0000202611230002")
		if n := asked.Load(); n != 3 {
			t.Errorf("asked %d times, want 3", n)
		}
		ns, _, err := o.Notices(t.Context(), citywarden.NoticeFilter{State: citywarden.NoticePending})
		if err != nil || len(ns) != 2 || ns[0].Error+ns[1].Error != "enough" || ns[0].Tries+ns[1].Tries != 0 {
			t.Errorf("pending: %+v, %v", ns, err)
		}
		most.Store(3)
		o.at(t, o.raise("b", citywarden.Critical, keyed("b")))
		o.wantMail(t, o.all, "opened E0000202611230005 critical")
		o.at(t, o.raise("c", citywarden.Critical, keyed("c"))) // now it takes not even that
		time.Sleep(59 * time.Second)
		o.wantMail(t, o.all)
		if n := asked.Load(); n != 5 {
			t.Errorf("asked %d times, want 5", n)
		}
		most.Store(1000)
		time.Sleep(2 * time.Second)
		o.wantMail(t, o.all, "opened E0000202611230006 critical", "opened E0000202611230003", "opened E0000202611230004")
	})
}

// A receiver that the configuration does not name any more: what it would have
// got is kept, and the case says so.
func TestAReceiverIsTakenOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(monday()))
		o := &office{f: &feed{}, all: &mailbox{}, chief: &mailbox{}, limits: map[citywarden.Stage]cases.Limit{}}
		path := filepath.Join(t.TempDir(), "x.db")
		o.open(t, path)
		o.all.failing(func() error { return errors.New("connection refused") })
		o.at(t, o.raise("a", citywarden.Major, keyed("k")))
		o.stop()
		if err := o.db.Close(); err != nil {
			t.Fatal(err)
		}
		o.open(t, path, cases.Receiver{Name: "duty", Channel: "mail", All: true, Sender: o.chief})
		synctest.Wait()
		ns, _, err := o.Notices(t.Context(), citywarden.NoticeFilter{})
		if err != nil || len(ns) != 1 || ns[0].State != citywarden.NoticeKept || !ns[0].Next.IsZero() || !strings.Contains(ns[0].Error, "taken out") {
			t.Errorf("%+v, %v", ns, err)
		}
		steps := timeline(t, o.Desk, first)
		if last := steps[len(steps)-1]; !strings.Contains(last, "notice to all could not be sent, there is no receiver of that name any more: ") {
			t.Errorf("the timeline ends with %q", last)
		}
		if diff := cmp.Diff([]citywarden.Receiver{{Name: "duty", Channel: "mail", All: true}}, o.Receivers()); diff != "" {
			t.Error(diff)
		}
		if err := o.TestReceiver(t.Context(), "all", "admin"); citywarden.CodeOf(err) != citywarden.CodeNotFound {
			t.Errorf("test of a receiver that is gone: %v", err)
		}
		if err := o.TestReceiver(t.Context(), "duty", "admin"); err != nil {
			t.Error(err)
		}
		o.wantMail(t, o.chief, "test  indeterminate sent by admin; nothing is to be done")
		o.chief.failing(func() error { return errors.New("sign not match") })
		if err := o.TestReceiver(t.Context(), "duty", "admin"); err == nil || !strings.Contains(err.Error(), "the test did not reach duty: sign not match") {
			t.Errorf("test that is refused: %v", err)
		}
		o.stop()
	})
}

func TestQuietHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(monday()))
		shanghai, err := time.LoadLocation("Asia/Shanghai")
		if err != nil {
			t.Fatal(err)
		}
		quiet, err := cases.ParseQuiet("22:00-07:00", shanghai)
		if err != nil {
			t.Fatal(err)
		}
		o := &office{f: &feed{}, all: &mailbox{}, chief: &mailbox{}, limits: map[citywarden.Stage]cases.Limit{}}
		o.open(t, filepath.Join(t.TempDir(), "x.db"), cases.Receiver{Name: "all", All: true, Quiet: quiet, Sender: o.all}, cases.Receiver{Name: "chief", Quiet: quiet, Sender: o.chief})
		defer o.stop()
		order := keyed("k")
		order.Escalate = []citywarden.Escalation{{After: citywarden.Duration(time.Hour), To: "chief"}}
		fire := keyed("f")
		fire.LifeSafety = true
		fire.Escalate = order.Escalate

		time.Sleep(12*time.Hour + 30*time.Minute) // 22:30
		o.at(t, o.raise("a", citywarden.Major, order))
		o.wantMail(t, o.all)
		o.at(t, o.raise("b", citywarden.Critical, keyed("c")))
		o.wantMail(t, o.all, "opened")
		o.at(t, o.raise("c", citywarden.Minor, fire)) // fire never waits
		o.wantMail(t, o.all, "opened")
		time.Sleep(time.Hour)
		o.wantMail(t, o.chief, "escalated "+"E0000202611230003")
		time.Sleep(7*time.Hour + 29*time.Minute) // 06:59
		o.wantMail(t, o.all)
		o.wantMail(t, o.chief)
		time.Sleep(2 * time.Minute)
		o.wantMail(t, o.all, "opened "+string(first)+" major")
		o.wantMail(t, o.chief, "escalated "+string(first))
		// A try that failed waits for the morning, too.
		time.Sleep(14*time.Hour + 58*time.Minute + 55*time.Second) // 21:59:55
		o.all.failing(func() error { return errors.New("busy") })
		o.at(t, o.raise("d", citywarden.Major, keyed("d")))
		o.all.failing(nil)
		time.Sleep(9 * time.Hour)
		o.wantMail(t, o.all)
		time.Sleep(5 * time.Second)
		o.wantMail(t, o.all, "opened")
	})
}

// A department is told, once, of what it has to do: when a case comes to it, from
// another department, too, and when its work is not good.
func TestADepartmentIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(monday()))
		ring := []citywarden.Point{{Lat: 24.1, Lon: 117.6}, {Lat: 24.1, Lon: 117.61}, {Lat: 24.11, Lon: 117.61}, {Lat: 24.11, Lon: 117.6}}
		grids, err := cases.LoadGrids(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := grids.Add(t.Context(), []citywarden.UnitGrid{{Code: "350623100001001", Town: "绥安镇", Village: "龙湖社区", Ring: ring}}); err != nil {
			t.Fatal(err)
		}
		quiet, err := cases.ParseQuiet("22:00-07:00", time.FixedZone("CST", 8*60*60))
		if err != nil {
			t.Fatal(err)
		}
		o := &office{f: &feed{}, all: &mailbox{}, chief: &mailbox{}, limits: map[citywarden.Stage]cases.Limit{}, grids: grids}
		water, roads := &mailbox{}, &mailbox{}
		receivers := []cases.Receiver{
			{Name: "all", All: true, Sender: o.all}, {Name: "chief", Sender: o.chief}, {Name: "water", Quiet: quiet, Sender: water}, {Name: "roads", Sender: roads},
		}
		path := filepath.Join(t.TempDir(), "x.db")
		o.open(t, path, receivers...)
		defer func() { o.stop() }()
		c, err := o.Create(t.Context(), citywarden.NewCase{Class: "event/0501", Title: "East gate", Location: &citywarden.Point{Lat: 24.105, Lon: 117.605}}, "xu", citywarden.RoleAcceptor)
		if err != nil {
			t.Fatal(err)
		}
		file := citywarden.CaseStep{Action: citywarden.File, By: "lin", Role: citywarden.RoleSupervisor}
		send := citywarden.CaseStep{Action: citywarden.Dispatch, By: "chen", Role: citywarden.RoleDispatcher, Department: "water"}
		done := citywarden.CaseStep{Action: citywarden.Handle, By: "wu", Role: citywarden.RoleDepartment, Department: "roads"}
		for _, tt := range []struct {
			after    time.Duration
			steps    []citywarden.CaseStep
			to       *mailbox
			want, zh string
			former   string // what the department is told from which it was taken
		}{
			{to: water, steps: []citywarden.CaseStep{file, send},
				want: "dispatched to water by chen, water main burst, 绥安镇, 龙湖社区, due by 2026-11-23 11:00", zh: "chen 派遣给 water，供水管道破裂，绥安镇，龙湖社区，处置时限 2026-11-23 11:00"},
			{to: roads, steps: []citywarden.CaseStep{{Action: citywarden.Redispatch, By: "chen", Role: citywarden.RoleDispatcher, Department: "roads", Note: "a sewer"}},
				want: "dispatched to roads by chen, water main burst, 绥安镇, 龙湖社区, due by 2026-11-23 11:00: a sewer", zh: "chen 转派给 roads，供水管道破裂，绥安镇，龙湖社区，处置时限 2026-11-23 11:00：a sewer",
				former: "withdrawn E0501202611230001  taken from water by chen and dispatched to roads, water main burst, 绥安镇, 龙湖社区: a sewer"},
			{to: roads, after: 2 * time.Hour, steps: []citywarden.CaseStep{done, {Action: citywarden.Rework, By: "sun", Role: citywarden.RoleOfficer, Note: "still leaks"}},
				want: "to be done again by roads, says sun, water main burst, 绥安镇, 龙湖社区, was due by 2026-11-23 11:00: still leaks", zh: "sun 要求 roads 返工，供水管道破裂，绥安镇，龙湖社区，处置时限 2026-11-23 11:00 已过：still leaks"},
		} {
			time.Sleep(tt.after)
			o.all.take()
			roads.take()
			do(t, o.Desk, c.ID, tt.steps...)
			o.wantMail(t, tt.to, "dispatched "+string(c.ID)+"  "+tt.want)
			o.wantMail(t, o.all, "dispatched "+string(c.ID)+"  "+tt.want)
			if tt.former != "" {
				o.wantMail(t, water, tt.former)
			}
			for _, other := range []*mailbox{o.chief, water, roads} {
				o.wantMail(t, other)
			}
			ns, _, err := o.Notices(t.Context(), citywarden.NoticeFilter{Case: c.ID})
			ns = slices.DeleteFunc(ns, func(n citywarden.Notice) bool { return n.Kind != citywarden.NoticeDispatched })
			if err != nil || len(ns) == 0 || ns[0].Text != (citywarden.Text{EN: tt.want, ZH: tt.zh}) || ns[0].Grid != c.Grid {
				t.Errorf("notice %+v, %v; want %q", ns, err, tt.zh)
			}
		}

		// A step that is refused tells nobody.
		if _, err := o.Do(t.Context(), c.ID, citywarden.CaseStep{Action: citywarden.Redispatch, By: "chen", Role: citywarden.RoleDispatcher, Department: "water"}, 0); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("to another without a reason: %v", err)
		}
		o.wantMail(t, water)

		// In the quiet hours it waits, across a restart, and a try that failed comes again.
		time.Sleep(time.Until(monday().Add(13 * time.Hour)))
		o.all.take()
		roads.take()
		water.failing(func() error { return errors.New("busy") })
		do(t, o.Desk, c.ID, citywarden.CaseStep{Action: citywarden.Redispatch, By: "chen", Role: citywarden.RoleDispatcher, Department: "water", Note: "a main after all"})
		o.wantMail(t, roads, "withdrawn "+string(c.ID)+"  taken from roads by chen and dispatched to water, ")
		o.stop()
		if err := o.db.Close(); err != nil {
			t.Fatal(err)
		}
		o.open(t, path, receivers...)
		time.Sleep(time.Until(monday().Add(21*time.Hour + time.Second))) // past seven
		o.wantMail(t, water)
		water.failing(nil)
		time.Sleep(10 * time.Second)
		o.wantMail(t, water, "dispatched "+string(c.ID)+"  dispatched to water by chen")
		time.Sleep(time.Hour)
		for _, box := range []*mailbox{water, roads} {
			for key, n := range box.keys {
				if n != 1 {
					t.Errorf("%s came %d times", key, n)
				}
			}
		}
		if len(water.keys) != 3 {
			t.Errorf("water got %v, want three notices", water.keys)
		}
	})
}

// A department that works on a case is told when it has nothing to do with it any
// more, and only then; and only of what it was told of, or has accepted.
func TestACaseIsTakenFromADepartment(t *testing.T) {
	quiet, err := cases.ParseQuiet("22:00-07:00", time.FixedZone("CST", 8*60*60))
	if err != nil {
		t.Fatal(err)
	}
	by := func(a citywarden.Action, who string, role citywarden.Role, note string) citywarden.CaseStep {
		x := citywarden.CaseStep{Action: a, By: who, Role: role, Note: note}
		if role == citywarden.RoleDepartment {
			x.Department = "water"
		}
		return x
	}
	to := func(department string) citywarden.CaseStep {
		return citywarden.CaseStep{Action: citywarden.Redispatch, By: "chen", Role: citywarden.RoleDispatcher, Department: department, Note: "a sewer"}
	}
	accept := by(citywarden.Accept, "wu", citywarden.RoleDepartment, "")
	suspend := by(citywarden.RequestSuspension, "wu", citywarden.RoleDepartment, "a part is missing")
	suspend.Until = monday().Add(30 * 24 * time.Hour)
	for _, tt := range []struct {
		name   string
		at     time.Duration // after ten on Monday
		steps  []citywarden.CaseStep
		en, zh string // what water is told, "" for nothing
	}{
		{name: "transferred", steps: []citywarden.CaseStep{accept, to("roads")},
			en: "taken from water by chen and dispatched to roads, water main burst: a sewer", zh: "chen 转派给 roads，water 不再处理，供水管道破裂：a sewer"},
		{name: "returned", steps: []citywarden.CaseStep{by(citywarden.SendBack, "wu", citywarden.RoleDepartment, "not ours"), by(citywarden.ApproveSendBack, "chen", citywarden.RoleDispatcher, "")},
			en: "taken back from water by chen, as it asked, water main burst", zh: "chen 同意回退，water 不再处理，供水管道破裂"},
		{name: "voided", steps: []citywarden.CaseStep{by(citywarden.Void, "lin", citywarden.RoleSupervisor, "a test")},
			en: "voided by lin, water has nothing to do any more, water main burst: a test", zh: "lin 作废，water 不再处理，供水管道破裂：a test"},
		{name: "closed by force", steps: []citywarden.CaseStep{suspend, by(citywarden.ApproveSuspension, "chen", citywarden.RoleDispatcher, ""), by(citywarden.ForceClose, "lin", citywarden.RoleSupervisor, "the road goes")},
			en: "closed by lin, water has nothing to do any more, water main burst: the road goes", zh: "lin 强制结案，water 不再处理，供水管道破裂：the road goes"},
		{name: "asked only", steps: []citywarden.CaseStep{by(citywarden.SendBack, "wu", citywarden.RoleDepartment, "not ours")}},
		{name: "done", steps: []citywarden.CaseStep{by(citywarden.Handle, "wu", citywarden.RoleDepartment, ""), by(citywarden.Verify, "sun", citywarden.RoleOfficer, ""), by(citywarden.Close, "lin", citywarden.RoleSupervisor, "")}},
		{name: "in the night, before it was told", at: 13 * time.Hour, steps: []citywarden.CaseStep{to("roads")}},
		{name: "in the night, accepted", at: 13 * time.Hour, steps: []citywarden.CaseStep{accept, to("roads")},
			en: "taken from water by chen and dispatched to roads, water main burst: a sewer", zh: "chen 转派给 roads，water 不再处理，供水管道破裂：a sewer"},
		{name: "in the night, and comes back", at: 13 * time.Hour, steps: []citywarden.CaseStep{accept, to("roads"), to("water")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(monday().Add(tt.at)))
				o := &office{f: &feed{}, all: &mailbox{}, chief: &mailbox{}, limits: map[citywarden.Stage]cases.Limit{}}
				water := &mailbox{}
				o.open(t, filepath.Join(t.TempDir(), "x.db"), cases.Receiver{Name: "all", All: true, Sender: o.all}, cases.Receiver{Name: "water", Quiet: quiet, Sender: water})
				defer o.stop()
				c, err := o.Create(t.Context(), citywarden.NewCase{Class: "event/0501", Title: "East gate"}, "xu", citywarden.RoleAcceptor)
				if err != nil {
					t.Fatal(err)
				}
				send := citywarden.CaseStep{Action: citywarden.Dispatch, By: "chen", Role: citywarden.RoleDispatcher, Department: "water"}
				do(t, o.Desk, c.ID, by(citywarden.File, "lin", citywarden.RoleSupervisor, ""), send)
				for _, x := range tt.steps {
					time.Sleep(time.Minute)
					do(t, o.Desk, c.ID, x)
				}
				time.Sleep(tt.at)
				is := func(s string) bool { return strings.HasPrefix(s, "withdrawn ") }
				got := slices.DeleteFunc(water.take(), func(s string) bool { return !is(s) })
				if want := "withdrawn " + string(c.ID) + "  " + tt.en; tt.en == "" && len(got) != 0 || tt.en != "" && !slices.Equal(got, []string{want}) {
					t.Errorf("water is told %q, want %q", got, tt.en)
				}
				if got := o.all.take(); slices.ContainsFunc(got, is) {
					t.Errorf("who gets all is told %q", got)
				}
				ns, _, err := o.Notices(t.Context(), citywarden.NoticeFilter{Case: c.ID, State: citywarden.NoticeSent})
				i := slices.IndexFunc(ns, func(n citywarden.Notice) bool { return n.Kind == citywarden.NoticeWithdrawn })
				if err != nil || i >= 0 != (tt.zh != "") || i >= 0 && ns[i].Text.In("zh") != tt.zh {
					t.Errorf("sent: %+v, %v; want %q", ns, err, tt.zh)
				}
			})
		})
	}
}

// slow is a receiver that takes what it gets after a while, and may have given no
// answer by then.
type slow struct {
	mailbox
	after time.Duration
}

func (s *slow) Send(ctx context.Context, n citywarden.Notice) error {
	sent := make(chan error, 1)
	s.mu.Lock()
	after := s.after
	s.mu.Unlock()
	go func() {
		time.Sleep(after)
		sent <- s.mailbox.Send(context.WithoutCancel(ctx), n)
	}()
	select {
	case err := <-sent:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A case is taken from a department while that is being told of it, or when nobody
// knows whether it was told: it is told that too, and after it.
func TestACaseIsTakenWhileItIsTold(t *testing.T) {
	for _, tt := range []struct {
		name    string
		after   time.Duration // how long the sending takes
		taken   time.Duration // after the dispatching
		restart bool          // after it was taken
		fail    error
		want    []string
	}{
		{name: "sent later", after: 10 * time.Second, taken: 5 * time.Second, want: []string{"dispatched", "withdrawn"}},
		{name: "arrived without an answer", after: 16 * time.Second, taken: 20 * time.Second, want: []string{"dispatched", "withdrawn"}},
		{name: "arrives after the limit", after: 16 * time.Second, taken: 5 * time.Second, want: []string{"dispatched", "withdrawn"}},
		{name: "we stop in the sending", after: 10 * time.Second, taken: 5 * time.Second, restart: true, want: []string{"dispatched", "withdrawn"}},
		{name: "the receiver is busy", taken: 5 * time.Second, fail: &citywarden.BusyError{After: time.Minute, Err: errors.New("too many")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *office) {
				o.stop()
				water := &slow{after: tt.after}
				if tt.fail != nil {
					water.failing(func() error { return tt.fail })
				}
				path := filepath.Join(t.TempDir(), "y.db")
				o.open(t, path, cases.Receiver{Name: "water", Sender: water})
				c, err := o.Create(t.Context(), citywarden.NewCase{Class: "event/0501", Title: "East gate"}, "xu", citywarden.RoleAcceptor)
				if err != nil {
					t.Fatal(err)
				}
				send := citywarden.CaseStep{Action: citywarden.Dispatch, By: "chen", Role: citywarden.RoleDispatcher, Department: "water"}
				do(t, o.Desk, c.ID, citywarden.CaseStep{Action: citywarden.File, By: "lin", Role: citywarden.RoleSupervisor}, send)
				time.Sleep(tt.taken)
				send.Action, send.Department, send.Note = citywarden.Redispatch, "roads", "a sewer"
				do(t, o.Desk, c.ID, send)
				if tt.restart {
					o.stop()
					time.Sleep(time.Minute)
					if err := o.db.Close(); err != nil {
						t.Fatal(err)
					}
					o.open(t, path, cases.Receiver{Name: "water", Sender: water})
				}
				water.failing(nil)
				if water.after > 15*time.Second {
					time.Sleep(20 * time.Second)
					water.mu.Lock()
					water.after = 0
					water.mu.Unlock()
				}
				time.Sleep(30 * time.Minute)
				got := water.take()
				for i, s := range got {
					got[i], _, _ = strings.Cut(s, " ")
				}
				if got := slices.Compact(got); !slices.Equal(got, tt.want) {
					t.Errorf("water is told %q, want %q", got, tt.want)
				}
			})
		})
	}
}

// What waits to be told to a department is not told when it is not true any more at
// the time: the case has left it, is closed, or the work is done.
func TestACaseLeavesADepartmentInQuietHours(t *testing.T) {
	quiet, err := cases.ParseQuiet("22:00-07:00", time.FixedZone("CST", 8*60*60))
	if err != nil {
		t.Fatal(err)
	}
	to := func(department string) citywarden.CaseStep {
		return citywarden.CaseStep{Action: citywarden.Redispatch, By: "chen", Role: citywarden.RoleDispatcher, Department: department, Note: "a sewer"}
	}
	by := func(a citywarden.Action, who string, role citywarden.Role, note string) citywarden.CaseStep {
		x := citywarden.CaseStep{Action: a, By: who, Role: role, Note: note}
		if role == citywarden.RoleDepartment {
			x.Department = "water"
		}
		return x
	}
	extend := by(citywarden.RequestExtension, "wu", citywarden.RoleDepartment, "a part is missing")
	for _, tt := range []struct {
		name         string
		steps        []citywarden.CaseStep
		late         []citywarden.CaseStep // when its limit has passed
		water, roads []string
		why          string // in the timeline
	}{
		{name: "it stays", steps: []citywarden.CaseStep{by(citywarden.Accept, "wu", citywarden.RoleDepartment, "")}, water: []string{"dispatched", "overdue"}},
		{name: "it is transferred", steps: []citywarden.CaseStep{to("roads")}, roads: []string{"dispatched", "overdue"}, why: "the case is not with water any more"},
		{name: "it is transferred and comes back", steps: []citywarden.CaseStep{to("roads"), to("water")}, water: []string{"dispatched", "overdue"}, why: "it was told anew or is done"},
		{name: "it is returned", steps: []citywarden.CaseStep{by(citywarden.SendBack, "wu", citywarden.RoleDepartment, "not ours"), by(citywarden.ApproveSendBack, "chen", citywarden.RoleDispatcher, "")},
			why: "the case is not with water any more"},
		{name: "it is done", steps: []citywarden.CaseStep{by(citywarden.Handle, "wu", citywarden.RoleDepartment, "")}, why: "it was told anew or is done"},
		{name: "it is done, and urged before", steps: []citywarden.CaseStep{by(citywarden.Urge, "chen", citywarden.RoleDispatcher, ""), by(citywarden.Handle, "wu", citywarden.RoleDepartment, "")},
			water: []string{"urged"}, why: "it was told anew or is done"},
		{name: "it is voided", steps: []citywarden.CaseStep{by(citywarden.Void, "lin", citywarden.RoleSupervisor, "a test")}, why: "the case is voided"},
		{name: "overdue, then accepted", late: []citywarden.CaseStep{by(citywarden.Accept, "wu", citywarden.RoleDepartment, "")}, water: []string{"dispatched", "overdue"}},
		{name: "overdue, then done", late: []citywarden.CaseStep{by(citywarden.Handle, "wu", citywarden.RoleDepartment, "")}, why: "it was told anew or is done"},
		{name: "overdue, then extended", steps: []citywarden.CaseStep{extend},
			late: []citywarden.CaseStep{by(citywarden.ApproveExtension, "chen", citywarden.RoleDispatcher, "")}, water: []string{"dispatched", "overdue"}, why: "it is done or has another limit"}, // passed again
		{name: "overdue, then transferred and back", late: []citywarden.CaseStep{to("roads"), to("water")}, water: []string{"dispatched", "overdue"}, why: "it was told anew or is done"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(monday().Add(12*time.Hour + 30*time.Minute))) // 22:30
				o := &office{f: &feed{}, all: &mailbox{}, chief: &mailbox{}, limits: map[citywarden.Stage]cases.Limit{}}
				water, roads := &mailbox{}, &mailbox{}
				o.open(t, filepath.Join(t.TempDir(), "x.db"), cases.Receiver{Name: "all", All: true, Quiet: quiet, Sender: o.all},
					cases.Receiver{Name: "water", Quiet: quiet, Sender: water}, cases.Receiver{Name: "roads", Quiet: quiet, Sender: roads})
				defer o.stop()
				c, err := o.Create(t.Context(), citywarden.NewCase{Class: "event/0501", Title: "East gate"}, "xu", citywarden.RoleAcceptor)
				if err != nil {
					t.Fatal(err)
				}
				send := citywarden.CaseStep{Action: citywarden.Dispatch, By: "chen", Role: citywarden.RoleDispatcher, Department: "water"}
				do(t, o.Desk, c.ID, by(citywarden.File, "lin", citywarden.RoleSupervisor, ""), send)
				told := 1
				for i, x := range slices.Concat(tt.steps, tt.late) {
					if i == len(tt.steps) {
						time.Sleep(2 * time.Hour)
					}
					time.Sleep(time.Minute)
					do(t, o.Desk, c.ID, x)
					if x.Action == citywarden.Redispatch || x.Action == citywarden.Urge {
						told++
					}
				}
				o.wantMail(t, o.all)
				time.Sleep(time.Until(monday().Add(21*time.Hour + 30*time.Minute)))
				o.wantMail(t, water, tt.water...)
				o.wantMail(t, roads, tt.roads...)
				got := slices.DeleteFunc(o.all.take(), func(s string) bool { return strings.HasPrefix(s, "overdue ") })
				if len(got) != told { // who gets all reads what happened, in its order
					t.Errorf("who gets all got %q, want %d", got, told)
				}
				steps := timeline(t, o.Desk, c.ID)
				said := slices.ContainsFunc(steps, func(s string) bool {
					return strings.Contains(s, "notice to water was not sent, "+tt.why+": ")
				})
				if said != (tt.why != "") {
					t.Errorf("the timeline, want %q:\n%s", tt.why, strings.Join(steps, "\n"))
				}
				ns, _, err := o.Notices(t.Context(), citywarden.NoticeFilter{State: citywarden.NoticeDropped})
				if err != nil || len(ns) > 0 != said || said && (ns[len(ns)-1].Error != tt.why || !ns[0].Next.IsZero()) {
					t.Errorf("dropped: %+v, %v", ns, err)
				}
			})
		})
	}
}

// A notice to a department that was given up is not sent again when it is moot by then.
func TestADeadNoticeIsMoot(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.stop()
		water := &mailbox{}
		water.failing(func() error { return errors.New("connection refused") })
		o.open(t, filepath.Join(t.TempDir(), "y.db"), cases.Receiver{Name: "water", Sender: water})
		c, err := o.Create(t.Context(), citywarden.NewCase{Class: "event/0501", Title: "East gate"}, "xu", citywarden.RoleAcceptor)
		if err != nil {
			t.Fatal(err)
		}
		send := citywarden.CaseStep{Action: citywarden.Dispatch, By: "chen", Role: citywarden.RoleDispatcher, Department: "water"}
		do(t, o.Desk, c.ID, citywarden.CaseStep{Action: citywarden.File, By: "lin", Role: citywarden.RoleSupervisor}, send)
		time.Sleep(3 * time.Hour)
		send.Action, send.Department, send.Note = citywarden.Redispatch, "roads", "a sewer"
		do(t, o.Desk, c.ID, send)
		water.failing(nil)
		ns, _, err := o.Notices(t.Context(), citywarden.NoticeFilter{State: citywarden.NoticeDead})
		if err != nil || len(ns) == 0 {
			t.Fatalf("dead notices %+v, %v", ns, err)
		}
		for _, n := range ns {
			n, err := o.Resend(t.Context(), n.Key, n.Receiver)
			if err != nil || n.State != citywarden.NoticeDropped || n.Error != "the case is not with water any more" || !n.Next.IsZero() {
				t.Errorf("sent again: %+v, %v", n, err)
			}
		}
		o.wantMail(t, water, "withdrawn "+string(c.ID))
	})
}

// Whatever stops the loops, whenever: each notice arrives, and only those arrive
// twice whose sending came to an end but was not noted.
func TestEveryNoticeArrivesAcrossCrashes(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(monday()))
			r := rand.New(rand.NewPCG(seed, 3))
			o := &office{f: &feed{}, all: &mailbox{}, chief: &mailbox{}, limits: map[citywarden.Stage]cases.Limit{}}
			unsure := 0
			for i, m := range []*mailbox{o.all, o.chief} {
				luck := rand.New(rand.NewPCG(seed, uint64(4+i)))
				m.failing(func() error {
					if luck.IntN(4) == 0 {
						return errors.New("busy")
					}
					return nil
				})
			}
			path := filepath.Join(t.TempDir(), "x.db")
			o.open(t, path)
			order := keyed("k")
			order.Hold = citywarden.Duration(time.Minute)
			order.Escalate = []citywarden.Escalation{{After: citywarden.Duration(3 * time.Minute), UnlessAcked: true, To: "chief"}}
			for i := range 25 {
				x := *order
				x.Key = fmt.Sprintf("k/%d", r.IntN(6))
				tr := o.raise(fmt.Sprintf("m%d", i), citywarden.Severity(1+r.IntN(5)), &x)
				o.at(t, tr)
				if r.IntN(3) == 0 {
					o.stop()
					time.Sleep(time.Duration(r.IntN(100)) * time.Second)
					if r.IntN(2) == 0 { // the crash came right after a sending
						unsure += resend(t, o, r)
					}
					if err := o.db.Close(); err != nil {
						t.Fatal(err)
					}
					o.open(t, path)
				}
				time.Sleep(time.Duration(r.IntN(60)) * time.Second)
			}
			time.Sleep(3 * time.Hour)
			synctest.Wait()
			ns, _, err := o.Notices(t.Context(), citywarden.NoticeFilter{Page: citywarden.Page{Limit: 1000}})
			if err != nil || len(ns) < 10 {
				t.Fatalf("%d notices, %v", len(ns), err)
			}
			extra := 0
			for _, n := range ns {
				box := map[string]*mailbox{"all": o.all, "chief": o.chief}[n.Receiver]
				if n.State != citywarden.NoticeSent || box.keys[n.Key] == 0 {
					t.Errorf("seed %d: %s to %s is %s and came %d times", seed, n.Key, n.Receiver, n.State, box.keys[n.Key])
				}
				extra += box.keys[n.Key] - 1
			}
			if len(o.all.keys)+len(o.chief.keys) != len(ns) || extra != unsure {
				t.Errorf("seed %d: %d and %d keys came for %d notices, %d came again, want %d", seed, len(o.all.keys), len(o.chief.keys), len(ns), extra, unsure)
			}
			o.stop()
		})
	}
}

// resend makes a sent notice look as it does when the process dies between the
// sending and noting it.
func resend(t *testing.T, o *office, r *rand.Rand) int {
	t.Helper()
	ns, _, err := o.Notices(t.Context(), citywarden.NoticeFilter{State: citywarden.NoticeSent, Page: citywarden.Page{Limit: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	if len(ns) == 0 {
		return 0
	}
	n := ns[r.IntN(len(ns))]
	n.State, n.Next, n.SentAt = citywarden.NoticePending, n.At, time.Time{}
	if err := o.db.UpdateDesk(t.Context(), func(tx *store.DeskTx) error { return tx.SaveNotice(t.Context(), n) }); err != nil {
		t.Fatal(err)
	}
	return 1
}
