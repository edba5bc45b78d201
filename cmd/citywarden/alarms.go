package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/citywarden/citywarden"
)

type alarmsCmd struct {
	List   alarmListCmd   `cmd:"" help:"List alarms."`
	Why    alarmWhyCmd    `cmd:"" help:"Say why an alarm was raised."`
	Ack    alarmAckCmd    `cmd:"" help:"Acknowledge an alarm."`
	Shelve alarmShelveCmd `cmd:"" help:"Keep an alarm quiet for a while."`
	Reset  alarmResetCmd  `cmd:"" help:"End an alarm that is latched with its condition gone, or whose device is silent."`

	OutOfService alarmOutOfServiceCmd `cmd:"" help:"Take an alarm, a device or what a rule says of it out of service, as for maintenance; without any of them, list what is."`
	InService    alarmInServiceCmd    `cmd:"" help:"Return an alarm, a device or what a rule says of it to service."`
	Comment      alarmCommentCmd      `cmd:"" help:"Write a comment into the history of an alarm."`
	Assign       alarmAssignCmd       `cmd:"" help:"Say who shall look after an alarm."`
	History      alarmHistoryCmd      `cmd:"" help:"Print everything that happened to an alarm."`
	Load         alarmLoadCmd         `cmd:"" help:"Print what alarms demanded of the operators (EEMUA 191, ISA-18.2)."`
}

type alarmListCmd struct {
	remote
	State  string `help:"Only those that are active or cleared." enum:"active,cleared," default:""`
	Rule   string `help:"Only of that rule."`
	Device string `help:"Only of that device."`

	Suppressed string `help:"Only those that are suppressed in that way now: none, shelved, by_design, out_of_service or any." enum:"none,shelved,by_design,out_of_service,any," default:""`
	Assignee   string `help:"Only those that this user shall look after."`
	Acked      string `help:"Only those that are acknowledged (true) or not (false)." enum:"true,false," default:""`
}

// Run lists alarms, the newest first.
func (a *alarmListCmd) Run(ctx context.Context, o output) error {
	q := url.Values{"limit": {"1000"}}
	for k, v := range map[string]string{"state": a.State, "rule": a.Rule, "device": a.Device,
		"suppressed": a.Suppressed, "assignee": a.Assignee, "acked": a.Acked} {
		if v != "" {
			q.Set(k, v)
		}
	}
	return printList(ctx, o, &a.remote, "/alarms", q, []string{"ID", "SEVERITY", "STATE", "ACKED", "SUPPRESSED", "RAISED", "CASE", "TITLE"}, func(at stamp, x citywarden.Alarm) []string {
		return []string{string(x.ID), x.Severity.String(), string(x.State), yes(x.Acked), suppressed(&x), at(x.RaisedAt), dash(string(x.Case)), x.Title.String()}
	})
}

// suppressed says how x is suppressed.
func suppressed(x *citywarden.Alarm) string {
	var all []string
	for _, s := range x.Suppressions() {
		all = append(all, string(s))
	}
	return dash(strings.Join(all, ","))
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

type alarmWhyCmd struct {
	remote
	ID string `arg:"" help:"The alarm's id."`
}

// Run prints the explanation of an alarm.
func (a *alarmWhyCmd) Run(ctx context.Context, o output) error {
	c, err := a.client(ctx)
	if err != nil {
		return err
	}
	var e citywarden.Explanation
	if err := c.call(ctx, "GET", "/alarms/"+url.PathEscape(a.ID)+"/why", nil, &e); err != nil {
		return err
	}
	if a.JSON {
		return toJSON(o.out, e)
	}
	at, err := c.stamp(ctx)
	if err != nil {
		return err
	}
	printWhy(o.out, at, &e)
	return nil
}

func printWhy(w io.Writer, at stamp, e *citywarden.Explanation) {
	fmt.Fprintf(w, "%s\n\nrule %s, version %s, level %s, at %s\n", e.Summary.In("en"), e.Rule, e.Version, e.Severity, at(e.At))
	fmt.Fprintf(w, "condition  %s\n", oneLine(e.Condition))
	if e.Held > 0 {
		fmt.Fprintf(w, "held       for %s, since %s\n", e.Held, at(e.Since))
	}
	printEvidence(w, at, e)
	printOutOfService(w, at, &e.OutOfService)
}

// printOutOfService prints that nobody is told, if that is so.
func printOutOfService(w io.Writer, at stamp, x *citywarden.OutOfService) {
	if x.Since.IsZero() {
		return
	}
	end := "until it is returned"
	if !x.Until.IsZero() {
		end = "until " + at(x.Until)
	}
	fmt.Fprintf(w, "nobody is told: %s is out of service since %s, %s, by %s: %s\n", subject(x), at(x.Since), end, x.By, x.Reason)
}

// printEvidence prints what a condition saw.
func printEvidence(w io.Writer, at stamp, e *citywarden.Explanation) {
	for _, l := range e.Leaves {
		fmt.Fprintf(w, "  %-8s %s%s", l.Result, whose(l.Device), l.Text)
		if l.Op != "" {
			fmt.Fprintf(w, ": %v %s %v", shown(l.Left), l.Op, shown(l.Right))
		}
		fmt.Fprintln(w)
	}
	for _, x := range e.Windows {
		fmt.Fprintf(w, "window     %s%s = %v from %d samples, %s to %s\n", whose(x.Device), x.Text, shown(x.Result), x.Samples, at(x.From), at(x.To))
	}
	for _, x := range e.Inputs {
		value := strings.TrimSpace(x.Value.String() + " " + x.Unit)
		fmt.Fprintf(w, "input      %s.%s = %s, measured %s, arrived %s\n", x.Device, x.Metric, value, at(x.Time), at(x.Arrived))
	}
	for _, x := range e.Attributes {
		if x.From == "" {
			fmt.Fprintf(w, "attribute  %s has no value\n", x.Name)
			continue
		}
		fmt.Fprintf(w, "attribute  %s = %v from the %s\n", x.Name, shown(x.Value), x.From)
	}
	for _, x := range e.Members {
		fmt.Fprintf(w, "member     %s: %s\n", x.Device, x.Result)
	}
}

// whose is the beginning of a line about d; "" for a whole group.
func whose(d citywarden.DeviceID) string {
	if d == "" {
		return ""
	}
	return string(d) + ": "
}

func shown(v any) any {
	if v == nil {
		return "unknown"
	}
	if f, ok := v.(float64); ok {
		return fmt.Sprintf("%.6g", f)
	}
	return v
}

type alarmAckCmd struct {
	remote
	ID string `arg:"" help:"The alarm's id."`
}

// Run acknowledges an alarm.
func (a *alarmAckCmd) Run(ctx context.Context, o output) error {
	return orderAlarm(ctx, o, &a.remote, a.ID, "ack", map[string]any{}, "acknowledged")
}

type alarmResetCmd struct {
	remote
	ID     string `arg:"" help:"The alarm's id."`
	Reason string `help:"Why."`
}

// Run resets a latched alarm.
func (a *alarmResetCmd) Run(ctx context.Context, o output) error {
	return orderAlarm(ctx, o, &a.remote, a.ID, "reset", map[string]any{"reason": a.Reason}, "reset")
}

type alarmShelveCmd struct {
	remote
	ID     string              `arg:"" help:"The alarm's id."`
	For    citywarden.Duration `required:"" help:"How long, like 2h or 1d." placeholder:"DURATION"`
	Reason string              `required:"" help:"Why."`
}

// Run shelves an alarm.
func (a *alarmShelveCmd) Run(ctx context.Context, o output) error {
	return orderAlarm(ctx, o, &a.remote, a.ID, "shelve", map[string]any{"for": a.For.String(), "reason": a.Reason}, "shelved")
}

// served is what is taken out of service or returned.
type served struct {
	ID     string `arg:"" optional:"" help:"The alarm's id."`
	Device string `help:"Instead of an alarm: a device, and all its alarms with it." xor:"target"`
	Rule   string `help:"Instead of an alarm: what this rule says of --entity." xor:"target" and:"rule"`
	Entity string `help:"The id of a device, or the key of a group." and:"rule"`
}

// order gives the order for what s names.
func (s *served) order(ctx context.Context, o output, r *remote, order string, body map[string]any, done string) error {
	path, what := "/devices/"+url.PathEscape(s.Device), "device "+s.Device
	switch {
	case s.ID != "" && s.Device+s.Rule != "":
		return &usageError{"an alarm's id, --device or --rule: one of them"}
	case s.ID != "":
		return orderAlarm(ctx, o, r, s.ID, order, body, done)
	case s.Rule != "":
		path, what = "/rules/"+url.PathEscape(s.Rule), "rule "+s.Rule+" on "+s.Entity
		body["entity"] = s.Entity
	}
	c, err := r.client(ctx)
	if err != nil {
		return err
	}
	var x citywarden.OutOfService
	if err := c.call(ctx, "POST", path+"/"+order, body, &x); err != nil {
		return err
	}
	if r.JSON {
		return toJSON(o.out, x)
	}
	fmt.Fprintf(o.out, "%s %s\n", what, done)
	return nil
}

type alarmOutOfServiceCmd struct {
	remote
	served
	Reason string              `help:"Why; needed unless it lists."`
	For    citywarden.Duration `help:"How long, like 4h or 2d; without it, until it is returned." placeholder:"DURATION"`
}

// Run takes something out of service, or lists what is.
func (a *alarmOutOfServiceCmd) Run(ctx context.Context, o output) error {
	if a.ID+a.Device+a.Rule == "" {
		return printList(ctx, o, &a.remote, "/out-of-service", url.Values{}, []string{"WHAT", "SINCE", "UNTIL", "BY", "REASON"}, func(at stamp, x citywarden.OutOfService) []string {
			return []string{subject(&x), at(x.Since), at(x.Until), x.By, x.Reason}
		})
	}
	if a.Reason == "" {
		return &usageError{"say with --reason why it is taken out of service"}
	}
	body := map[string]any{"reason": a.Reason}
	if a.For != 0 {
		body["for"] = a.For.String()
	}
	return a.order(ctx, o, &a.remote, "out-of-service", body, "taken out of service")
}

// subject names what is out of service.
func subject(x *citywarden.OutOfService) string {
	if x.Rule != "" {
		return "rule " + string(x.Rule) + " on " + x.Entity
	}
	return "device " + string(x.Device)
}

type alarmInServiceCmd struct {
	remote
	served
	Reason string `help:"What was done."`
}

// Run returns something to service.
func (a *alarmInServiceCmd) Run(ctx context.Context, o output) error {
	if a.ID+a.Device+a.Rule == "" {
		return &usageError{"say what: an alarm's id, --device, or --rule and --entity; citywarden alarms out-of-service lists what there is"}
	}
	return a.order(ctx, o, &a.remote, "in-service", map[string]any{"reason": a.Reason}, "returned to service")
}

type alarmCommentCmd struct {
	remote
	ID   string `arg:"" help:"The alarm's id."`
	Text string `arg:"" help:"What to write."`
}

// Run comments an alarm.
func (a *alarmCommentCmd) Run(ctx context.Context, o output) error {
	return orderAlarm(ctx, o, &a.remote, a.ID, "comment", map[string]any{"text": a.Text}, "commented")
}

type alarmAssignCmd struct {
	remote
	ID string `arg:"" help:"The alarm's id."`
	To string `arg:"" optional:"" help:"Name of the user; left out, nobody has it any more."`
}

// Run assigns an alarm.
func (a *alarmAssignCmd) Run(ctx context.Context, o output) error {
	done := "assigned to " + a.To
	if a.To == "" {
		done = "assigned to nobody"
	}
	return orderAlarm(ctx, o, &a.remote, a.ID, "assign", map[string]any{"to": a.To}, done)
}

type alarmHistoryCmd struct {
	remote
	ID string `arg:"" help:"The alarm's id."`
}

// Run prints the history of an alarm, the oldest first.
func (a *alarmHistoryCmd) Run(ctx context.Context, o output) error {
	return printList(ctx, o, &a.remote, "/alarms/"+url.PathEscape(a.ID)+"/history", url.Values{}, []string{"LOGGED", "WHAT", "SEVERITY", "BY", "MORE"}, func(at stamp, s citywarden.AlarmStep) []string {
		more := cmp.Or(s.Text, s.Reason, s.Assignee, string(s.SuppressedBy))
		if more == "" && s.Why != nil {
			more = s.Why.Summary.In("en")
		}
		return []string{at(s.Logged), string(s.Kind), s.Severity.String(), dash(s.By), dash(more)}
	})
}

type alarmLoadCmd struct {
	remote
	From past `help:"Beginning: ${past}; 24 hours before the end when left out." placeholder:"TIME"`
	To   past `help:"End, exclusive, the same; now when left out." placeholder:"TIME"`
}

// Run prints the alarm load.
func (a *alarmLoadCmd) Run(ctx context.Context, o output) error {
	c, err := a.client(ctx)
	if err != nil {
		return err
	}
	q := url.Values{}
	if err := c.moments(ctx, q.Set, map[string]moment{"from": a.From.moment, "to": a.To.moment}); err != nil {
		return err
	}
	var l citywarden.AlarmLoad
	if err := c.call(ctx, "GET", "/alarms/load?"+q.Encode(), nil, &l); err != nil {
		return err
	}
	if a.JSON {
		return toJSON(o.out, l)
	}
	at, err := c.stamp(ctx)
	if err != nil {
		return err
	}
	printLoad(o.out, at, &l)
	return nil
}

func printLoad(w io.Writer, at stamp, l *citywarden.AlarmLoad) {
	p := l.PerOperator
	fmt.Fprintf(w, "%s to %s, operators: %d\n\n", at(l.From), at(l.To), l.Operators)
	fmt.Fprintf(w, "alarms       %d, and %d for maintenance\n", l.Alarms, l.WorkOrders)
	fmt.Fprintf(w, "each 10 min  %.2f per operator (goal at most %g), peak %g at %s, over the goal %.1f %% of the time\n", p.Mean, p.Goal, p.Peak, at(p.PeakAt), 100*p.OverGoalShare)
	for _, name := range []citywarden.Priority{citywarden.PriorityCritical, citywarden.PriorityMajor, citywarden.PriorityMinor} {
		s := l.Priorities[name]
		fmt.Fprintf(w, "%-12s %d, %.1f %% (should be about %g %%)\n", name, s.Alarms, 100*s.Share, 100*s.Target)
	}
	fmt.Fprintf(w, "floods       %d\n", len(l.Floods))
	for _, f := range l.Floods {
		fmt.Fprintf(w, "  %s to %s, %s\n", at(f.From), at(f.To), counted(f.Alarms, "alarm"))
	}
	fmt.Fprintf(w, "chattering   %d\n", len(l.Chattering))
	for _, c := range l.Chattering {
		fmt.Fprintf(w, "  %s %s: %d in a minute, %d in all\n", c.Rule, c.Entity, c.MostPerMinute, c.Count)
	}
	fmt.Fprintf(w, "stale        %d\n", len(l.Stale))
	for _, a := range l.Stale {
		fmt.Fprintf(w, "  %s since %s\n", a.ID, at(a.RaisedAt))
	}
	fmt.Fprintln(w, "most alarms by rule")
	for _, r := range l.TopRules {
		fmt.Fprintf(w, "  %s: %d, %.1f %%\n", r.Rule, r.Alarms, 100*r.Share)
	}
}

func orderAlarm(ctx context.Context, o output, r *remote, id, order string, body map[string]any, done string) error {
	c, err := r.client(ctx)
	if err != nil {
		return err
	}
	var x citywarden.Alarm
	if err := c.call(ctx, "POST", "/alarms/"+url.PathEscape(id)+"/"+order, body, &x); err != nil {
		return err
	}
	if r.JSON {
		return toJSON(o.out, x)
	}
	fmt.Fprintf(o.out, "alarm %s %s\n", x.ID, done)
	return nil
}
