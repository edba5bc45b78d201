package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"

	"github.com/citywarden/citywarden"
)

type evaluationCmd struct {
	remote
	From  past   `help:"Beginning: ${past}; the first of this month when left out." placeholder:"TIME"`
	To    past   `help:"End, exclusive, the same; now when left out." placeholder:"TIME"`
	By    string `help:"area, department or post." enum:"area,department,post" default:"department"`
	Level string `help:"Of the areas: county, town, village, or grid with --under; towns when left out." enum:"county,town,village,grid," default:""`
	Under string `help:"Only in the area of that code, like 350623100."`
	Lang  string `help:"Of names and files: zh or en." enum:"zh,en" default:"en"`

	CSV  string `help:"Write a CSV file instead." name:"csv" placeholder:"FILE" xor:"form"`
	XLSX string `help:"Write an XLSX file instead." name:"xlsx" placeholder:"FILE" xor:"form"`
}

// Run prints the evaluation, or writes it into a file.
func (k *evaluationCmd) Run(ctx context.Context, o output) error {
	c, err := k.client(ctx)
	if err != nil {
		return err
	}
	q := url.Values{"by": {k.By}}
	for name, v := range map[string]string{"level": k.Level, "under": k.Under} {
		if v != "" {
			q.Set(name, v)
		}
	}
	if err := c.moments(ctx, q.Set, map[string]moment{"from": k.From.moment, "to": k.To.moment}); err != nil {
		return err
	}
	if file := cmp.Or(k.CSV, k.XLSX); file != "" {
		q.Set("lang", k.Lang)
		q.Set("format", "csv")
		if k.XLSX != "" {
			q.Set("format", "xlsx")
		}
		var b bytes.Buffer
		if err := c.call(ctx, "GET", "/evaluation?"+q.Encode(), nil, io.Writer(&b)); err != nil {
			return err
		}
		if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
			return err
		}
		fmt.Fprintln(o.out, "wrote", file)
		return nil
	}
	var e citywarden.Evaluation
	if err := c.call(ctx, "GET", "/evaluation?"+q.Encode(), nil, &e); err != nil {
		return err
	}
	if k.JSON {
		return toJSON(o.out, e)
	}
	at, err := c.stamp(ctx)
	if err != nil {
		return err
	}
	printEvaluation(o.out, at, &e, k.Lang)
	return nil
}

// printEvaluation prints a line for each figure, with what it is a share of.
func printEvaluation(w io.Writer, at stamp, e *citywarden.Evaluation, lang string) {
	fmt.Fprintf(w, "%s to %s, as of %s\n", at(e.From), at(e.To), at(e.AsOf))
	rows := e.Rows
	if e.Total != nil {
		rows = append(rows, *e.Total)
	}
	for i := range rows {
		r := &rows[i]
		fmt.Fprintf(w, "\n%s", r.Name.In(lang))
		if r.Key != "" && r.Key != r.Name.In(lang) {
			fmt.Fprintf(w, " (%s)", r.Key)
		}
		if r.Score != nil {
			fmt.Fprintf(w, ": %.2f, %s", *r.Score, r.Grade)
		}
		fmt.Fprintln(w)
		var lines [][]string
		for _, x := range e.Indicators {
			f := r.Figure(x.Code)
			switch {
			case f.Indicator == "":
			case x.Denominator == nil:
				lines = append(lines, []string{"  " + x.Name.In(lang), fmt.Sprint(f.Cases), ""})
			case f.Rate == nil:
				lines = append(lines, []string{"  " + x.Name.In(lang), "no cases", ""})
			default:
				lines = append(lines, []string{"  " + x.Name.In(lang), fmt.Sprintf("%.2f %%", 100**f.Rate), fmt.Sprintf("%d of %d %s", f.Cases, f.Of, x.Denominator.Name.In(lang))})
			}
		}
		table(w, lines)
	}
}
