package scenario

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/simulators"
)

// Verdict is what became of a scenario.
type Verdict struct {
	Title   citywarden.Text `json:"title"`
	Start   time.Time       `json:"start"`
	Lasts   string          `json:"lasts"`
	Devices int             `json:"devices"`
	Sent    uint64          `json:"sent"`    // messages
	Acked   uint64          `json:"acked"`   // of them acknowledged
	Refused uint64          `json:"refused"` // of them refused
	Truth   []Happened      `json:"truth"`
	Found   []Finding       `json:"found"`
	Missed  []Finding       `json:"missed"`
	False   []Finding       `json:"false"`
	Good    bool            `json:"good"` // all was found in time and as it was expected, and nothing else
}

// Happened is one thing that happened.
type Happened struct {
	Kind   string              `json:"kind"`
	Device citywarden.DeviceID `json:"device,omitempty"`
	Place  string              `json:"place,omitempty"`
	From   time.Time           `json:"from"`
	To     time.Time           `json:"to"`
}

// Finding is an alarm that was found, missed or false.
type Finding struct {
	Expected
	Alarm    citywarden.AlarmID `json:"alarm,omitempty"`
	Happened time.Time          `json:"happened,omitzero"`
	Known    time.Time          `json:"known,omitzero"` // when the platform knew
	LatencyS float64            `json:"latency_s,omitempty"`
	Case     citywarden.CaseID  `json:"case,omitempty"`
	Why      string             `json:"why,omitempty"` // it counts as missed
}

// raised is an alarm with when the platform knew of it, and its case.
type raised struct {
	citywarden.Alarm
	known time.Time
	of    *citywarden.Case
}

// alarmsOf returns the alarms of the devices that the platform has raised since.
func alarmsOf(ctx context.Context, p Platform, devices []citywarden.Device, since time.Time) ([]raised, error) {
	var out []raised
	q := url.Values{"limit": {"1000"}}
	for {
		var page struct {
			Items []citywarden.Alarm
			Next  *string
		}
		if err := p.Call(ctx, "GET", "/alarms?"+q.Encode(), nil, &page); err != nil {
			return nil, fmt.Errorf("list the alarms: %w", err)
		}
		for _, a := range page.Items {
			ours := func(id citywarden.DeviceID) bool {
				return slices.ContainsFunc(devices, func(d citywarden.Device) bool { return d.ID == id })
			}
			if a.Shadow || !ours(a.Device) && !slices.ContainsFunc(a.Members, ours) {
				continue
			}
			r := raised{Alarm: a}
			var steps struct{ Items []citywarden.AlarmStep }
			if err := p.Call(ctx, "GET", "/alarms/"+url.PathEscape(string(a.ID))+"/history", nil, &steps); err != nil {
				return nil, fmt.Errorf("history of alarm %s: %w", a.ID, err)
			}
			for _, s := range steps.Items {
				if s.Kind == citywarden.Raised {
					r.known = s.Logged
				}
			}
			if r.known.Before(since) {
				continue
			}
			if a.Case != "" {
				r.of = new(citywarden.Case)
				if err := p.Call(ctx, "GET", "/cases/"+url.PathEscape(string(a.Case)), nil, r.of); err != nil {
					return nil, fmt.Errorf("case %s: %w", a.Case, err)
				}
			}
			out = append(out, r)
		}
		if page.Next == nil || *page.Next == "" {
			break
		}
		q.Set("after", *page.Next)
	}
	slices.SortStableFunc(out, func(a, b raised) int { return a.known.Compare(b.known) })
	return out, nil
}

// verdict returns the truth, not judged yet.
func (s *Scenario) verdict(start time.Time, w *simulators.World) *Verdict {
	v := &Verdict{
		Title: s.Title, Start: start, Lasts: citywarden.Duration(s.Lasts).String(), Devices: len(s.Devices),
		Truth: []Happened{}, Found: []Finding{}, Missed: []Finding{}, False: []Finding{},
	}
	for _, i := range w.Incidents(start, start.Add(s.Lasts)) {
		v.Truth = append(v.Truth, Happened{Kind: i.Kind, Device: i.Device, Place: i.Place, From: i.From, To: i.To})
	}
	for _, f := range s.Faults {
		at := f.at(start)
		v.Truth = append(v.Truth, Happened{Kind: f.Kind, Device: f.Device, From: at.From, To: at.To})
	}
	slices.SortStableFunc(v.Truth, func(a, b Happened) int { return a.From.Compare(b.From) })
	return v
}

// judge compares the alarms with what s expects. An alarm belongs to the first
// expectation of its rule and entity that has none yet.
func (v *Verdict) judge(s *Scenario, start time.Time, alarms []raised) {
	taken := make([]bool, len(alarms))
	for _, x := range s.Expect {
		f := Finding{Expected: x, Happened: start.Add(x.At)}
		k := -1
		for i, a := range alarms {
			if !taken[i] && a.Rule == x.Rule && a.Entity == x.Entity {
				k = i
				break
			}
		}
		if k < 0 {
			f.Why = "no such alarm"
			v.Missed = append(v.Missed, f)
			continue
		}
		taken[k] = true
		a := alarms[k]
		f.Alarm, f.Known, f.Case = a.ID, a.known, a.Case
		f.LatencyS = a.known.Sub(f.Happened).Seconds()
		if f.Why = x.wrong(&a, f.Happened); f.Why != "" {
			v.Missed = append(v.Missed, f)
		} else {
			v.Found = append(v.Found, f)
		}
	}
	for i, a := range alarms {
		fine := slices.ContainsFunc(s.Allow, func(w Allowed) bool { return w.Rule == a.Rule && (w.Entity == "" || w.Entity == a.Entity) })
		if !taken[i] && !fine {
			v.False = append(v.False, Finding{
				Expected: Expected{Rule: a.Rule, Entity: a.Entity, Severity: a.Severity}, Alarm: a.ID, Known: a.known, Case: a.Case,
			})
		}
	}
	v.Good = len(v.Missed)+len(v.False) == 0
}

// wrong says why a is not what was expected, "" when it is.
func (x *Expected) wrong(a *raised, happened time.Time) string {
	switch {
	case a.RaisedAt.Before(happened):
		return fmt.Sprintf("raised %s before it happened", happened.Sub(a.RaisedAt).Round(time.Second))
	case a.known.After(happened.Add(x.Within)):
		return fmt.Sprintf("known after %s, want within %s", a.known.Sub(happened).Round(time.Second), citywarden.Duration(x.Within))
	case x.Severity != 0 && a.Severity != x.Severity:
		return fmt.Sprintf("it was %s, want %s", a.Severity, x.Severity)
	case x.Cleared && a.State != citywarden.AlarmCleared:
		return "it is still active"
	case x.Suppressed != (len(a.Suppressions()) > 0):
		return fmt.Sprintf("suppressed: %t, want %t", !x.Suppressed, x.Suppressed)
	case x.Key == "":
		return ""
	case a.of == nil:
		return "it has no case"
	case a.of.Key != x.Key:
		return fmt.Sprintf("its case is of %s, want %s", a.of.Key, x.Key)
	case string(a.of.Class) != x.Class:
		return fmt.Sprintf("its case is of class %q, want %q", a.of.Class, x.Class)
	}
	return ""
}

// Write writes v for people.
func (v *Verdict) Write(to io.Writer) {
	word := "good"
	if !v.Good {
		word = "NOT good"
	}
	fmt.Fprintf(to, "%s: %s\n", v.Title.EN, word)
	fmt.Fprintf(to, "  %s from %s, %d devices, %d messages sent, %d acknowledged, %d refused\n", v.Lasts, clock(v.Start), v.Devices, v.Sent, v.Acked, v.Refused)
	for _, h := range v.Truth {
		where := strings.TrimSpace(string(h.Device) + " " + h.Place)
		fmt.Fprintf(to, "  happened %s %s to %s\n", strings.TrimSpace(h.Kind+" "+where), clock(h.From), clock(h.To))
	}
	for _, f := range v.Found {
		fmt.Fprintf(to, "  found    %s of %s after %s %s\n", f.Rule, f.Entity, time.Duration(f.LatencyS*float64(time.Second)).Round(time.Second), f.Case)
	}
	for _, f := range v.Missed {
		fmt.Fprintf(to, "  missed   %s of %s, %s: %s\n", f.Rule, f.Entity, clock(f.Happened), f.Why)
	}
	for _, f := range v.False {
		fmt.Fprintf(to, "  false    %s of %s, %s, at %s %s\n", f.Rule, f.Entity, f.Severity, clock(f.Known), f.Case)
	}
}

func clock(t time.Time) string { return t.In(shanghai).Format("2006-01-02 15:04:05") }
