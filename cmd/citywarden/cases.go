package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/citywarden/citywarden"
)

type casesCmd struct {
	List caseListCmd `cmd:"" help:"List cases."`
	Show caseShowCmd `cmd:"" help:"Show a case with its timeline and what can be done next."`
	Open caseOpenCmd `cmd:"" help:"Open a case by hand."`
	Do   caseDoCmd   `cmd:"" help:"Take the next action: file, dispatch, accept, handle, verify, close and others."`
}

type caseListCmd struct {
	remote
	Stage      string `help:"Only at that stage, like pending_filing."`
	All        bool   `help:"Closed cases too."`
	Department string `help:"Only of that department."`
	WorkOrders bool   `help:"Maintenance work orders instead of cases."`
}

// Run lists cases.
func (k *caseListCmd) Run(ctx context.Context, o output) error {
	c, err := k.client(ctx)
	if err != nil {
		return err
	}
	q := url.Values{"limit": {"1000"}}
	if k.Stage != "" {
		q.Set("stage", k.Stage)
	}
	if !k.All && k.Stage == "" {
		q.Set("open", "true")
	}
	if k.Department != "" {
		q.Set("department", k.Department)
	}
	if k.WorkOrders {
		q.Set("work_orders", "true")
	}
	items := []citywarden.Case{}
	rows := [][]string{{"ID", "CLASS", "STAGE", "DEADLINE", "LIGHT", "GRID", "DEPARTMENT", "TITLE"}}
	err = list(ctx, c, "/cases", q, func(x citywarden.Case) error {
		items = append(items, x)
		rows = append(rows, []string{string(x.ID), string(x.Class), string(x.Stage), when(x.Deadline), dash(string(x.Light)), dash(string(x.Grid)), dash(x.Department), x.Title.String()})
		return nil
	})
	if err != nil {
		return err
	}
	if k.JSON {
		return toJSON(o.out, items)
	}
	table(o.out, rows)
	return nil
}

type caseShowCmd struct {
	remote
	ID string `arg:"" help:"The case's number."`
}

// Run shows one case.
func (k *caseShowCmd) Run(ctx context.Context, o output) error {
	c, err := k.client(ctx)
	if err != nil {
		return err
	}
	var x citywarden.Case
	if err := c.call(ctx, "GET", "/cases/"+url.PathEscape(k.ID), nil, &x); err != nil {
		return err
	}
	return printCase(o, k.JSON, &x)
}

func printCase(o output, asJSON bool, x *citywarden.Case) error {
	if asJSON {
		return toJSON(o.out, x)
	}
	fmt.Fprintf(o.out, "case %s  %s\n", x.ID, x.Title)
	rows := [][]string{
		{"stage", string(x.Stage)}, {"class", fmt.Sprintf("%s %s", x.Class, x.ClassName)}, {"grid", dash(string(x.Grid))},
		{"department", dash(x.Department)}, {"limit", dash(x.Limit)},
		{"deadline", strings.TrimSpace(when(x.Deadline) + " " + string(x.Light))}, {"closing", dash(x.Closing)},
		{"back to normal", yes(x.Normal)},
	}
	for _, a := range x.Alarms {
		rows = append(rows, []string{"alarm", string(a)})
	}
	table(o.out, rows)
	fmt.Fprintln(o.out)
	rows = nil
	for _, s := range x.Timeline {
		rows = append(rows, []string{when(s.At), string(s.Action), string(s.Stage), s.By, strings.TrimSpace(s.Department + " " + s.Said("en"))})
	}
	table(o.out, rows)
	if len(x.Actions) > 0 {
		names := make([]string, len(x.Actions))
		for i, a := range x.Actions {
			names[i] = string(a)
		}
		fmt.Fprintf(o.out, "\nyou may now: %s\n", strings.Join(names, ", "))
	}
	return nil
}

type caseOpenCmd struct {
	remote
	Class       string   `required:"" help:"Class, like event/0506."`
	Title       string   `required:"" help:"What is the matter, in a few words."`
	Description string   `help:"More of it."`
	Lat         *float64 `help:"Latitude, WGS 84, degrees."`
	Lon         *float64 `help:"Longitude, WGS 84, degrees."`
	Device      string   `help:"A device that it concerns; the case takes its position."`
}

// Run opens a case by hand.
func (k *caseOpenCmd) Run(ctx context.Context, o output) error {
	in := citywarden.NewCase{Class: citywarden.ClassCode(k.Class), Title: k.Title, Description: k.Description, Device: citywarden.DeviceID(k.Device)}
	if (k.Lat == nil) != (k.Lon == nil) {
		return &usageError{"say both --lat and --lon, or neither"}
	}
	if k.Lat != nil {
		in.Location = &citywarden.Point{Lat: *k.Lat, Lon: *k.Lon}
	}
	c, err := k.client(ctx)
	if err != nil {
		return err
	}
	var x citywarden.Case
	if err := c.call(ctx, "POST", "/cases", in, &x); err != nil {
		return err
	}
	return printCase(o, k.JSON, &x)
}

type caseDoCmd struct {
	remote
	ID         string `arg:"" help:"The case's number."`
	Action     string `arg:"" enum:"file,reject,dispatch,send_back,accept,handle,verify,rework,close,void,comment" help:"What to do: ${enum}."`
	Note       string `help:"A word on it; some actions need one." short:"n"`
	Department string `help:"For dispatch: who shall handle it; the class's own when left out."`
	Revision   int64  `help:"Only if nobody did anything since that revision."`
}

// Run takes one action on a case.
func (k *caseDoCmd) Run(ctx context.Context, o output) error {
	c, err := k.client(ctx)
	if err != nil {
		return err
	}
	body := map[string]any{}
	if k.Note != "" {
		body["note"] = k.Note
	}
	if k.Department != "" {
		body["department"] = k.Department
	}
	if k.Revision != 0 {
		body["revision"] = k.Revision
	}
	var x citywarden.Case
	path := "/cases/" + url.PathEscape(k.ID) + "/actions/" + url.PathEscape(k.Action)
	if err := c.call(ctx, "POST", path, body, &x); err != nil {
		return err
	}
	if k.JSON {
		return toJSON(o.out, x)
	}
	fmt.Fprintf(o.out, "case %s is %s\n", x.ID, strings.ReplaceAll(string(x.Stage), "_", " "))
	return nil
}
