package main

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"github.com/citywarden/citywarden"
)

type classesCmd struct {
	remote
	Standard     string `help:"Numbering: GB/T 30428.2-2013 or CJ/T 214-2007. Left out: the one that is used there." enum:",GB/T 30428.2-2013,CJ/T 214-2007" default:""`
	ClassVersion int    `help:"As they were in that version of the table, in both numberings."`
}

// Run lists the classes, a line for each of their filing rules.
func (k *classesCmd) Run(ctx context.Context, o output) error {
	c, err := k.client(ctx)
	if err != nil {
		return err
	}
	q := url.Values{}
	if k.Standard != "" {
		q.Set("standard", k.Standard)
	}
	if k.ClassVersion != 0 {
		q.Set("version", strconv.Itoa(k.ClassVersion))
	}
	items := []citywarden.Class{}
	rows := [][]string{{"CODE", "RULE", "NAME", "LIMIT", "DEPARTMENT", "SAME AS", "FILED WHEN"}}
	err = list(ctx, c, "/classes", q, func(x citywarden.Class) error {
		items = append(items, x)
		same := make([]string, len(x.Same))
		for i, s := range x.Same {
			same[i] = string(s)
		}
		for _, r := range x.Rules {
			rows = append(rows, []string{string(x.Code), r.ID, x.Name.String(), dash(r.Limit), dash(r.Department), dash(strings.Join(same, " ")), dash(r.Condition)})
		}
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
