package main

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/citywarden/citywarden"
)

type casesCmd struct {
	List caseListCmd `cmd:"" help:"List cases."`
	Show caseShowCmd `cmd:"" help:"Show a case with its timeline and what can be done next."`
	Open caseOpenCmd `cmd:"" help:"Open a case by hand."`
	Do   caseDoCmd   `cmd:"" help:"Take the next action: file, dispatch, accept, handle, verify, close and others."`

	Photo      casePhotoCmd      `cmd:"" help:"Add a photo to a case."`
	Duplicates caseDuplicatesCmd `cmd:"" help:"List the cases that a case may be a duplicate of."`
	Workflow   caseWorkflowCmd   `cmd:"" help:"Print who may do what at which stage, and what has to be said for it."`
}

type caseListCmd struct {
	remote
	Stage      string `help:"Only at that stage, like pending_filing."`
	All        bool   `help:"Closed cases too."`
	Department string `help:"Only of that department."`
	Officer    string `help:"Only those that this officer was sent to verify or check."`
	Source     string `help:"Only of that source: sensor, officer, citizen, app, hotline, transfer or operator."`
	Request    string `help:"Only those with a request that waits: send_back, extension, suspension, void or appeal."`
	WorkOrders bool   `help:"Maintenance work orders instead of cases."`
}

// Run lists cases.
func (k *caseListCmd) Run(ctx context.Context, o output) error {
	q := url.Values{"limit": {"1000"}}
	if k.Stage != "" {
		q.Set("stage", k.Stage)
	}
	if !k.All && k.Stage == "" {
		q.Set("open", "true")
	}
	for name, v := range map[string]string{"department": k.Department, "officer": k.Officer, "source": k.Source, "request": k.Request} {
		if v != "" {
			q.Set(name, v)
		}
	}
	if k.WorkOrders {
		q.Set("work_orders", "true")
	}
	return printList(ctx, o, &k.remote, "/cases", q, []string{"ID", "CLASS", "STAGE", "DEADLINE", "LIGHT", "STAGE LIGHT", "GRID", "DEPARTMENT", "WHERE", "TITLE"}, func(at stamp, x citywarden.Case) []string {
		return []string{string(x.ID), string(x.Class), string(x.Stage), at(x.Deadline), dash(string(x.Light)), dash(string(x.StageLight)), dash(string(x.Grid)), dash(x.Department), dash(where(&x)), x.Title.String()}
	})
}

// where names the component that x is about, or else the device that raised its first alarm.
func where(x *citywarden.Case) string {
	return cmp.Or(x.ComponentName, string(x.Component), x.DeviceName, string(x.Device))
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
	return printCase(ctx, o, c, k.JSON, &x)
}

func printCase(ctx context.Context, o output, c *client, asJSON bool, x *citywarden.Case) error {
	if asJSON {
		return toJSON(o.out, x)
	}
	at, err := c.stamp(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(o.out, "case %s  %s\n", x.ID, x.Title)
	rows := [][]string{
		{"stage", strings.TrimSpace(string(x.Stage) + " " + string(x.StageLight))}, {"source", string(x.Source)}, {"class", fmt.Sprintf("%s %s", x.Class, x.ClassName)}, {"grid", dash(string(x.Grid))},
		{"component", dash(strings.TrimSpace(string(x.Component) + " " + x.ComponentName))}, {"device", dash(strings.TrimSpace(string(x.Device) + " " + x.DeviceName))}, {"department", dash(x.Department)}, {"proposed", dash(x.Proposed)}, {"limit", dash(x.Limit)},
		{"deadline", strings.TrimSpace(at(x.Deadline) + " " + string(x.Light))}, {"closing", dash(x.Closing)},
		{"back to normal", yes(x.Normal)},
	}
	if r := x.Request; r != nil {
		rows = append(rows, []string{"asked", strings.TrimSpace(fmt.Sprintf("%s by %s: %s", r.Kind, r.By, r.Note))})
	}
	if !x.SuspendedAt.IsZero() {
		rows = append(rows, []string{"suspended", "until " + at(x.SuspendedUntil)})
	}
	for _, a := range x.Alarms {
		rows = append(rows, []string{"alarm", string(a)})
	}
	for _, a := range x.Attachments {
		rows = append(rows, []string{"photo", fmt.Sprintf("%s, %s, by %s at %s", a.Kind, a.Type, a.By, at(a.At))})
	}
	table(o.out, rows)
	fmt.Fprintln(o.out)
	rows = nil
	for _, s := range x.Timeline {
		rows = append(rows, []string{at(s.At), string(s.Action), string(s.Stage), s.By, strings.TrimSpace(s.Department + " " + s.Said("en"))})
	}
	table(o.out, rows)
	if len(x.Actions) > 0 {
		names := make([]string, len(x.Actions))
		for i, a := range x.Actions {
			names[i] = string(a)
		}
		fmt.Fprintf(o.out, "\nyou may now: %s\n", strings.Join(names, ", "))
	}
	for _, a := range x.Actions {
		if kinds := x.MissingPhotos[a]; len(kinds) > 0 {
			fmt.Fprintf(o.out, "before %s add a photo: %s\n", a, joined(kinds))
		}
	}
	return nil
}

type caseOpenCmd struct {
	remote
	Class       string   `required:"" help:"Class, like event/0506."`
	Title       string   `required:"" help:"What is the matter, in a few words."`
	Description string   `help:"More of it."`
	Lat         *float64 `help:"Latitude, degrees."`
	Lon         *float64 `help:"Longitude, degrees."`
	CRS         string   `help:"Of the position: WGS84, CGCS2000 or GCJ-02." name:"crs"`
	Component   string   `help:"Code of the component that it is about."`
	Device      string   `help:"A device that it concerns; the case takes its position."`
	Source      string   `help:"Where it comes from: hotline, transfer, citizen, app, officer or operator; what your post says when left out."`
	Reporter    string   `help:"Name of the person who reported it; only those who verify and call back see it."`
	Phone       string   `help:"Phone number of that person."`
}

// Run opens a case by hand.
func (k *caseOpenCmd) Run(ctx context.Context, o output) error {
	in := citywarden.NewCase{Class: citywarden.ClassCode(k.Class), Title: k.Title, Description: k.Description, Device: citywarden.DeviceID(k.Device), Source: citywarden.Source(k.Source), CRS: k.CRS, Component: citywarden.ComponentID(k.Component)}
	if k.Reporter != "" || k.Phone != "" {
		in.Reporter = &citywarden.Reporter{Name: k.Reporter, Phone: k.Phone}
	}
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
	return printCase(ctx, o, c, k.JSON, &x)
}

type caseDoCmd struct {
	remote
	ID     string `arg:"" help:"The case's number."`
	Action string `arg:"" help:"What to do; show says what you may, and workflow what there is."`

	Note         string `help:"A word on it; some actions need one." short:"n"`
	Department   string `help:"For dispatch and redispatch: who shall handle it; for dispatch the class's own when left out."`
	Officer      string `help:"For send_verify and send_check: the grid officer who shall go and look."`
	Class        string `help:"For register and file: the class that it is instead."`
	FilingRule   string `help:"For register and file: which filing rule of the class it meets, 1, 2, 3 …; classes lists them."`
	Until        moment `help:"For request_suspension: when it shall end: ${moment}." placeholder:"TIME"`
	Into         string `help:"For merge: the case that it is a duplicate of."`
	Satisfaction string `help:"For call_back: satisfied, fairly, dissatisfied or unreached."`
	Revision     int64  `help:"Only if nobody did anything since that revision."`
}

// Run takes one action on a case.
func (k *caseDoCmd) Run(ctx context.Context, o output) error {
	if all := citywarden.Actions(); !slices.Contains(all, k.Action) {
		return &usageError{fmt.Sprintf("no action %q; there are %s%s", k.Action, strings.Join(all, ", "), citywarden.DidYouMean(k.Action, all))}
	}
	c, err := k.client(ctx)
	if err != nil {
		return err
	}
	body := map[string]any{}
	for name, v := range map[string]string{
		"note": k.Note, "department": k.Department, "officer": k.Officer, "class": k.Class, "filing_rule": k.FilingRule, "case": k.Into, "satisfaction": k.Satisfaction,
	} {
		if v != "" {
			body[name] = v
		}
	}
	if err := c.moments(ctx, func(name, at string) { body[name] = at }, map[string]moment{"until": k.Until}); err != nil {
		return err
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

type casePhotoCmd struct {
	remote
	ID   string `arg:"" help:"The case's number."`
	File string `arg:"" type:"existingfile" help:"The photo: JPEG, PNG or WebP, at most 8 MiB."`
	Kind string `required:"" help:"What it shows: near, far, reference, handle_before or handle_after."`
}

// Run adds a photo to a case.
func (k *casePhotoCmd) Run(ctx context.Context, o output) error {
	photo, err := os.ReadFile(k.File)
	if err != nil {
		return err
	}
	c, err := k.client(ctx)
	if err != nil {
		return err
	}
	var x citywarden.Attachment
	f := form{fields: url.Values{"kind": {k.Kind}}, name: filepath.Base(k.File), file: photo}
	if err := c.call(ctx, "POST", "/cases/"+url.PathEscape(k.ID)+"/attachments", f, &x); err != nil {
		return err
	}
	if k.JSON {
		return toJSON(o.out, x)
	}
	fmt.Fprintf(o.out, "case %s has the photo %.8s, %d×%d, %s\n", k.ID, x.ID, x.Width, x.Height, x.Kind)
	return nil
}

type caseDuplicatesCmd struct {
	remote
	ID string `arg:"" help:"The case's number."`
}

// Run lists what a case may be a duplicate of.
func (k *caseDuplicatesCmd) Run(ctx context.Context, o output) error {
	return printList(ctx, o, &k.remote, "/cases/"+url.PathEscape(k.ID)+"/duplicates", url.Values{}, []string{"ID", "AWAY", "OPENED", "STAGE", "TITLE"}, func(at stamp, x citywarden.Duplicate) []string {
		return []string{string(x.Case.ID), fmt.Sprintf("%.0f m", x.Distance), at(x.Case.Opened), string(x.Case.Stage), x.Case.Title.String()}
	})
}

type caseWorkflowCmd struct{}

// Run prints the workflow.
func (caseWorkflowCmd) Run(o output) error {
	rows := [][]string{{"ACTION", "名称", "FROM", "TO", "WHO", "NEEDS", "ONLY IF"}}
	for _, m := range citywarden.Workflow {
		who := "the platform"
		if m.Roles != nil {
			who = joined(m.Roles)
		}
		rows = append(rows, []string{string(m.Action), m.Action.Text().ZH, joined(m.From), dash(string(m.To)), who, dash(joined(m.Needs)), dash(joined(m.Only))})
	}
	table(o.out, rows)
	return nil
}

func joined[T ~string](all []T) string {
	names := make([]string, len(all))
	for i, x := range all {
		names[i] = string(x)
	}
	return strings.Join(names, ",")
}
