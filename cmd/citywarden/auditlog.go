package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"

	"github.com/citywarden/citywarden"
)

type auditLogCmd struct {
	remote
	By      string `help:"Only what this user did; citywarden for what the platform did by itself." placeholder:"USER"`
	Action  string `help:"Only this operation of the API, like act-on-case; take-rules for rule files that changed."`
	Target  string `help:"Only this path, like /api/v1/devices/p1, or what begins so when it ends in *."`
	Address string `help:"Only from this IP address."`
	From    past   `help:"From when on: ${past}." placeholder:"TIME"`
	To      past   `help:"Until when, the same; now when left out." placeholder:"TIME"`
	After   string `help:"Only what comes after this one of an earlier list, which said it at its end." placeholder:"ID"`
	Limit   int    `help:"How many at most, the newest first." default:"100"`
	Changes bool   `help:"Print how things were before and after, below each line."`
}

// Run lists who changed what.
func (a *auditLogCmd) Run(ctx context.Context, o output) error {
	if a.Limit < 1 || a.Limit > citywarden.MaxPage {
		return &usageError{fmt.Sprintf("--limit %d: it can be 1 to %d; narrow it down with --from and --to", a.Limit, citywarden.MaxPage)}
	}
	q := url.Values{"limit": {strconv.Itoa(a.Limit)}}
	for name, v := range map[string]string{"user": a.By, "action": a.Action, "target": a.Target, "address": a.Address, "after": a.After} {
		if v != "" {
			q.Set(name, v)
		}
	}
	c, err := a.client(ctx)
	if err != nil {
		return err
	}
	if err := c.moments(ctx, q.Set, map[string]moment{"from": a.From.moment, "to": a.To.moment}); err != nil {
		return err
	}
	var page struct {
		Items []citywarden.AuditEntry `json:"items"`
		Next  string                  `json:"next"`
	}
	if err := c.call(ctx, "GET", "/audit?"+q.Encode(), nil, &page); err != nil {
		return err
	}
	if a.JSON {
		return toJSON(o.out, page.Items)
	}
	at, err := c.stamp(ctx)
	if err != nil {
		return err
	}
	rows := [][]string{{"AT", "BY", "ROLE", "FROM", "ACTION", "TARGET", "STATUS", "DETAIL"}}
	for _, e := range page.Items {
		rows = append(rows, []string{at(e.At), dash(e.User), dash(string(e.Role)), dash(e.Address), e.Action, e.Target, strconv.Itoa(e.Status), dash(payload([]byte(e.Detail)))})
		for _, s := range []struct {
			name string
			is   []byte
		}{{"before", e.Before}, {"after", e.After}} {
			if a.Changes && len(s.is) > 0 {
				rows = append(rows, []string{"", "", "", "", "", s.name, "", string(s.is)})
			}
		}
	}
	table(o.out, rows)
	if page.Next != "" {
		fmt.Fprintf(o.err, "there are more; with --after %s too it lists those before, and with a greater --limit more at once\n", page.Next)
	}
	return nil
}
