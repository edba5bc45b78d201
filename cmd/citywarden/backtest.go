package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

type ruleBacktestCmd struct {
	remote
	File   string   `arg:"" type:"existingfile" help:"Rule file to try; each rule is compared with the one of the same id that runs."`
	From   past     `required:"" help:"From when on: ${past}." placeholder:"TIME"`
	To     past     `help:"Until when, the same; now when left out." placeholder:"TIME"`
	Device []string `help:"As if there were only these devices." placeholder:"ID"`
}

// Run has a running platform try the rules of a file over its stored history.
func (b *ruleBacktestCmd) Run(ctx context.Context, o output) error {
	text, err := os.ReadFile(b.File)
	if err != nil {
		return &usageError{err.Error()}
	}
	body := map[string]any{"text": string(text)}
	if b.Device != nil {
		body["devices"] = b.Device
	}
	c, err := b.client(ctx)
	if err != nil {
		return err
	}
	if err := c.moments(ctx, func(name, at string) { body[name] = at }, map[string]moment{"from": b.From.moment, "to": b.To.moment}); err != nil {
		return err
	}
	at, err := c.stamp(ctx)
	if err != nil {
		return err
	}
	var out citywarden.Backtest
	if err := c.watch(ctx, "/rules/backtest", body, &out, progressOn(o.err, at)); err != nil {
		return err
	}
	if b.JSON {
		return toJSON(o.out, out)
	}
	printBacktest(o.out, at, &out)
	return nil
}

// progressOn shows how far a backtest is when w is a terminal.
func progressOn(w io.Writer, at stamp) func(citywarden.BacktestProgress) {
	f, ok := w.(*os.File)
	if !ok {
		return func(citywarden.BacktestProgress) {}
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return func(citywarden.BacktestProgress) {}
	}
	return func(p citywarden.BacktestProgress) {
		if p.Done >= 1 {
			fmt.Fprint(f, "\r\x1b[K")
			return
		}
		fmt.Fprintf(f, "\r\x1b[K%3.0f %%  %s  %d readings", 100*p.Done, at(p.At), p.Readings)
	}
}

// watch posts body and follows the events of the answer: progress, then result,
// which is decoded into out, or problem, which becomes the error.
func (c *client) watch(ctx context.Context, path string, body, out any, progress func(citywarden.BacktestProgress)) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", c.base+path, bytes.NewReader(b))
	if err != nil {
		return &usageError{fmt.Sprintf("--server: %v", err)}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Authorization", "Bearer "+c.token)
	res, err := (&http.Client{}).Do(req) // takes as long as it takes
	if err != nil {
		return fmt.Errorf("%w; is the platform running, and is --server right?", err)
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		return answered(res)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 64<<20)
	kind := ""
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			kind = v
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		switch kind {
		case "progress":
			var p citywarden.BacktestProgress
			if err := json.Unmarshal([]byte(data), &p); err != nil {
				return fmt.Errorf("read the progress of %s: %w", path, err)
			}
			progress(p)
		case "problem":
			progress(citywarden.BacktestProgress{Done: 1})
			var p problem
			if err := json.Unmarshal([]byte(data), &p); err != nil {
				return fmt.Errorf("read the problem of %s: %w", path, err)
			}
			return errors.New(p.Detail)
		case "result":
			progress(citywarden.BacktestProgress{Done: 1})
			return json.Unmarshal([]byte(data), out)
		}
	}
	return fmt.Errorf("the platform ended the backtest without a result: %w", errors.Join(lines.Err(), io.ErrUnexpectedEOF))
}

// printBacktest prints a report for people.
func printBacktest(w io.Writer, at stamp, b *citywarden.Backtest) {
	fmt.Fprintf(w, "%s to %s, %s in %s, in %s\n", at(b.From), at(b.To), counted(b.Readings, "reading"), counted(b.Messages, "message"), b.Took)
	for i := range b.Rules {
		r := &b.Rules[i]
		now := "no rule of that id runs"
		if r.Running != "" {
			now = "version " + r.Running + " runs"
		}
		fmt.Fprintf(w, "\n%s  %s\nversion %s; %s\n\n", r.Rule, r.Title, r.Version, now)
		rows := [][]string{{"", "TRIED"}}
		sides := []*citywarden.BacktestCounts{&r.Tried}
		if r.Now != nil {
			rows[0] = append(rows[0], "NOW")
			sides = append(sides, r.Now)
		}
		for _, line := range []struct {
			name string
			text func(*citywarden.BacktestCounts) string
		}{
			{"raised", func(c *citywarden.BacktestCounts) string { return fmt.Sprint(c.Raises) }},
			{"escalated", func(c *citywarden.BacktestCounts) string { return fmt.Sprint(c.Escalations) }},
			{"cleared", func(c *citywarden.BacktestCounts) string { return fmt.Sprint(c.Clears) }},
			{"active at the beginning", func(c *citywarden.BacktestCounts) string { return fmt.Sprint(c.Standing) }},
			{"active at the end", func(c *citywarden.BacktestCounts) string { return fmt.Sprint(c.Open) }},
			{"entities", func(c *citywarden.BacktestCounts) string { return fmt.Sprint(c.Entities) }},
			{"time active", func(c *citywarden.BacktestCounts) string { return short(c.Active) }},
			{"longest", func(c *citywarden.BacktestCounts) string { return short(c.Longest) }},
			{"shortest", func(c *citywarden.BacktestCounts) string {
				if c.Shortest == 0 { // none ended
					return "-"
				}
				return short(c.Shortest)
			}},
			{"alarms per 10 min", func(c *citywarden.BacktestCounts) string { return fmt.Sprintf("%.3g", c.PerTenMin) }},
			{"most in 10 min", func(c *citywarden.BacktestCounts) string {
				if c.Peak == 0 {
					return "0"
				}
				return fmt.Sprintf("%d from %s", c.Peak, at(c.PeakAt))
			}},
			{"chattering", func(c *citywarden.BacktestCounts) string { return dash(strings.Join(c.Chattering, " ")) }},
		} {
			row := []string{line.name}
			for _, c := range sides {
				row = append(row, line.text(c))
			}
			rows = append(rows, row)
		}
		table(w, rows)
		if r.Now != nil {
			fmt.Fprintf(w, "\n%s in both, %d only in tried, %d only now\n", counted(r.Both, "alarm"), r.OnlyTried, r.OnlyNow)
		}
		if len(r.Alarms) > 0 {
			fmt.Fprintln(w)
			table(w, alarmRows(at, r))
		}
		if r.More > 0 {
			fmt.Fprintf(w, "and %d more\n", r.More)
		}
	}
	if len(b.Notes) > 0 {
		fmt.Fprintln(w)
	}
	for _, n := range b.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
}

func alarmRows(at stamp, r *citywarden.BacktestRule) [][]string {
	rows := [][]string{{"IN", "ENTITY", "SEVERITY", "RAISED", "CLEARED", "NOW RAISED", "NOW CLEARED"}}
	for _, a := range r.Alarms {
		row := []string{a.In, a.Entity, a.Severity.String(), at(a.Raised), at(a.Cleared)}
		if a.In == "both" {
			row = append(row, at(a.NowRaised), at(a.NowCleared))
		}
		rows = append(rows, row)
	}
	return rows
}

func short(d citywarden.Duration) string {
	return citywarden.Duration(d.Std().Round(time.Second)).String()
}

type ruleWhyNotCmd struct {
	remote
	Device string `arg:"" help:"The device's id."`
	Rule   string `arg:"" help:"The rule's id."`
	At     past   `help:"The moment: ${past}; now when left out." placeholder:"TIME"`
}

// Run prints why a rule had no alarm on a device.
func (r *ruleWhyNotCmd) Run(ctx context.Context, o output) error {
	q := url.Values{"device": {r.Device}}
	c, err := r.client(ctx)
	if err != nil {
		return err
	}
	if err := c.moments(ctx, q.Set, map[string]moment{"at": r.At.moment}); err != nil {
		return err
	}
	c.http.Timeout = 0 // a long window takes as long as it takes
	var x citywarden.WhyNot
	if err := c.call(ctx, "GET", "/rules/"+url.PathEscape(r.Rule)+"/why-not?"+q.Encode(), nil, &x); err != nil {
		return err
	}
	if r.JSON {
		return toJSON(o.out, x)
	}
	at, err := c.stamp(ctx)
	if err != nil {
		return err
	}
	printWhyNot(o.out, at, &x)
	return nil
}

func printWhyNot(w io.Writer, at stamp, x *citywarden.WhyNot) {
	fmt.Fprintf(w, "%s\n\n%-10s rule %s, version %s, at %s\n", x.Summary.In("en"), x.Reason, x.Rule, x.Version, at(x.At))
	if !x.LastSeen.IsZero() {
		fmt.Fprintf(w, "last heard %s\n", at(x.LastSeen))
	}
	for i := range x.Levels {
		l := &x.Levels[i]
		fmt.Fprintf(w, "\n%s is %s: %s is %s", l.Severity, l.State, oneLine(l.Condition), l.Result)
		if !l.Due.IsZero() {
			fmt.Fprintf(w, ", since %s, due %s", at(l.Since), at(l.Due))
		}
		fmt.Fprintln(w)
		printEvidence(w, at, &l.Explanation)
	}
	for _, m := range x.Missing {
		if m.Last.IsZero() {
			fmt.Fprintf(w, "missing    %s.%s, none in the history\n", m.Device, m.Metric)
			continue
		}
		fmt.Fprintf(w, "missing    %s.%s, last of %s\n", m.Device, m.Metric, at(m.Last))
	}
	for _, in := range x.Late {
		fmt.Fprintf(w, "too late   %s.%s = %s %s, measured %s, arrived %s\n", in.Device, in.Metric, in.Value, in.Unit, at(in.Time), at(in.Arrived))
	}
	for _, in := range x.After {
		fmt.Fprintf(w, "afterwards %s.%s = %s %s, measured %s, arrived %s\n", in.Device, in.Metric, in.Value, in.Unit, at(in.Time), at(in.Arrived))
	}
	for i := range x.OutOfService {
		printOutOfService(w, at, &x.OutOfService[i])
	}
	for _, n := range x.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
