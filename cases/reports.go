package cases

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// ReportTx is what a transaction does with what people report.
type ReportTx interface {
	// AddReport keeps r beside its case; secret is the hash of what its reporter
	// may look it up with, "" for nothing.
	AddReport(ctx context.Context, r citywarden.Report, secret string) error
}

// ReportReader reads reports outside of a transaction.
type ReportReader interface {
	Report(context.Context, citywarden.CaseID) (r citywarden.ReportedCase, secret string, err error)
	Reports(context.Context, citywarden.ReportFilter) ([]citywarden.ReportedCase, error) // the newest first
}

// reportRange is how far from the unit grids a report may lie, in metres. Grids
// cover towns, not the hills between them, so that lying in none is no mistake.
const reportRange = 30_000

// Report opens a case for what somebody outside of the administration says, with
// the photos, which are kept already. Nothing of it is verified. CodeInvalid says
// what is wrong with it; a place that is far from every unit grid is another county's.
func (d *Desk) Report(ctx context.Context, r citywarden.Report, photos []citywarden.Photo, secret string) (citywarden.Case, error) {
	var c citywarden.Case
	if err := r.Check(); err != nil {
		return c, err
	}
	k, ok := d.opt.Classes.Class(r.Class)
	if !ok {
		return c, citywarden.Errorf(citywarden.CodeInvalid, "report: %w", d.opt.Classes.Check(r.Class))
	}
	r.At = time.Now().UTC().Truncate(time.Millisecond)
	draft := citywarden.Case{Class: r.Class, FilingRule: r.FilingRule, Title: k.Name, Source: r.Source, Opened: r.At}
	if r.Location != nil {
		p := *r.Location
		draft.Location = &p
	}
	if r.Component != "" {
		if err := d.named(&draft, r.Component); err != nil {
			return c, fmt.Errorf("report: %w", err)
		}
	}
	if p := draft.Location; p != nil {
		if away := d.opt.Grids.distance(*p); away > reportRange {
			return c, citywarden.Errorf(citywarden.CodeInvalid, "report: the position %.5f, %.5f lies %.0f km from this county", p.Lat, p.Lon, away/1000)
		}
	}
	by := string(citywarden.SourceCitizen)
	err := d.once(ctx, func(ctx context.Context, tx Tx, out *changes) (err error) {
		note := strings.TrimSpace(r.Description)
		if r.Address != "" {
			note = strings.TrimSpace(note + "\n地址：" + r.Address)
		}
		if c, err = d.begin(ctx, tx, draft, citywarden.CaseStep{By: by, Note: note, Stage: citywarden.Reported}); err != nil {
			return err
		}
		if c.Location != nil && c.Grid == "" {
			err := c.Do(citywarden.CaseStep{Action: citywarden.Evidence, By: citywarden.Platform, At: r.At, Text: &citywarden.Text{
				ZH: "上报位置不在任何单元网格内", EN: "the place that was reported lies in no unit grid",
			}})
			if err != nil {
				return err
			}
		}
		if err := d.save(ctx, tx, c, 0); err != nil {
			return err
		}
		r.Case = c.ID
		if err := tx.AddReport(ctx, r, secret); err != nil {
			return err
		}
		out.inCase(c.ID)
		if len(photos) == 0 {
			return nil
		}
		was := c.Revision
		c.Timeline = nil
		for _, p := range photos {
			a := citywarden.Attachment{Photo: p, Kind: citywarden.PhotoNear, By: by, At: r.At}
			if _, err := attach(ctx, tx, &c, a, citywarden.CaseStep{By: citywarden.Platform}); err != nil {
				return err
			}
		}
		return tx.SaveCase(ctx, c, was)
	})
	return c, err
}

// distance returns how far p is from the unit grids, in metres; 0 inside of them
// and when there are none.
func (g *Grids) distance(p citywarden.Point) float64 {
	all := g.All()
	if len(all) == 0 || g.At(p) != "" {
		return 0
	}
	away := math.Inf(1)
	for _, u := range all {
		for _, q := range u.Ring {
			away = min(away, p.Distance(q))
		}
	}
	return away
}

// Reported returns the report that a case was opened for, with what became of
// it and the hash of its secret; CodeNotFound when there is none.
func (d *Desk) Reported(ctx context.Context, id citywarden.CaseID) (r citywarden.ReportedCase, secret string, err error) {
	return d.read.Report(ctx, id)
}

// Reports returns the reports that f selects with what became of them, the
// newest first.
func (d *Desk) Reports(ctx context.Context, f citywarden.ReportFilter) ([]citywarden.ReportedCase, error) {
	return d.read.Reports(ctx, f)
}
