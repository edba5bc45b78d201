package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/citywarden/citywarden"
)

type auditCmd struct {
	remote
	Since string `help:"How far back: 24h, 7d; from the full hour on." default:"24h" placeholder:"DURATION"`
}

// Run compares and prints the differences; it fails when there are any.
func (a *auditCmd) Run(ctx context.Context, o output) error {
	since, err := citywarden.ParseDuration(a.Since)
	if err != nil || since <= 0 {
		return &usageError{fmt.Sprintf("--since %s: write it like 24h or 7d", a.Since)}
	}
	c, err := a.client(ctx)
	if err != nil {
		return err
	}
	c.http.Timeout = 0 // it reads the whole log of that time
	var r citywarden.Audit
	from := time.Now().Add(-since.Std()).UTC()
	if err := c.call(ctx, "GET", "/ledger/audit?"+url.Values{"from": {from.Format(time.RFC3339)}}.Encode(), nil, &r); err != nil {
		return err
	}
	if a.JSON {
		if err := toJSON(o.out, r); err != nil {
			return err
		}
	} else {
		at, err := c.stamp(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(o.out, "%s to %s: %s with %s in the log, %s looked for in the time series\n",
			at(r.From), at(r.To), counted(r.Messages, "message"), counted(r.Readings, "reading"), counted(r.Points, "point"))
		for _, n := range r.Notes {
			fmt.Fprintln(o.out, "note:", n)
		}
		if len(r.Differences) > 0 {
			rows := [][]string{{"BOOK", "DEVICE", "METRIC", "HOUR", "WHAT"}}
			for _, d := range r.Differences {
				rows = append(rows, []string{d.Book, string(d.Device), dash(string(d.Metric)), at(d.Hour), d.Text})
			}
			table(o.out, rows)
		}
	}
	if r.Found > 0 {
		return fmt.Errorf("found %s", counted(r.Found, "difference"))
	}
	if !a.JSON {
		fmt.Fprintln(o.out, "log, ledger and time series agree")
	}
	return nil
}
