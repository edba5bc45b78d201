package cases

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/citywarden/citywarden"
)

// WorkTx is what a transaction does with the work on cases.
type WorkTx interface {
	// SetWork replaces the work on a case.
	SetWork(context.Context, citywarden.CaseID, []citywarden.CaseWork) error
}

// keep saves c, which was at revision was, and the work on it that evaluation
// counts.
func (d *Desk) keep(ctx context.Context, tx Tx, c citywarden.Case, was int64) error {
	if err := tx.SaveCase(ctx, c, was); err != nil {
		return err
	}
	_, moved := citywarden.Moved(c.Timeline)
	if !moved || c.WorkOrder {
		return nil
	}
	return d.account(ctx, tx, c)
}

// account stores the work on c.
func (d *Desk) account(ctx context.Context, tx Tx, c citywarden.Case) error {
	steps, err := tx.StepsAfter(ctx, c.ID, 0)
	if err != nil {
		return err
	}
	return tx.SetWork(ctx, c.ID, work(c, steps, d.opt.Officers(c.Grid)))
}

// accountBatch is how many cases of before are accounted for in one transaction.
const accountBatch = 200

// accountAll accounts for the cases that were there before evaluation was.
func (d *Desk) accountAll(ctx context.Context) error {
	for {
		ids, err := d.read.CasesWithoutWork(ctx, accountBatch)
		if err != nil || len(ids) == 0 {
			return err
		}
		d.opt.Logger.Info("cases of before are made ready to be evaluated", "cases", len(ids))
		err = d.once(ctx, func(ctx context.Context, tx Tx, _ *changes) error {
			for _, id := range ids {
				c, err := tx.Case(ctx, id)
				if err != nil {
					return err
				}
				if err := d.account(ctx, tx, c); err != nil {
					return fmt.Errorf("work on case %s: %w", id, err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// work returns the work on c that its steps tell of. collector is the officer who
// answers for its unit grid, "" for nobody.
//
// What posts do to a case, they may do several times: each counts. What counts
// for the case itself (report, file, handle, close) counts once, by the last time
// it was done. What waits to be done is work, too.
func work(c citywarden.Case, steps []citywarden.CaseStep, collector string) []citywarden.CaseWork {
	w := &worker{c: &c, out: []citywarden.CaseWork{report(&c, collector)}}
	for _, s := range steps {
		w.take(s)
	}
	w.waits()
	for i := range w.out {
		w.out[i].Grid = c.Grid
		if w.out[i].Department == "" {
			w.out[i].Department = c.Department
		}
	}
	return w.out
}

// report returns the reporting of c.
func report(c *citywarden.Case, collector string) citywarden.CaseWork {
	r := citywarden.CaseWork{Kind: citywarden.WorkReport, Person: collector, Began: c.Opened, Done: c.Opened}
	switch {
	case c.Source == citywarden.SourceOfficer:
		r.Marks |= citywarden.MarkOfficer
		if c.OpenedBy != "" {
			r.Person = c.OpenedBy
		}
	case c.Source == citywarden.SourceSensor:
		r.Marks |= citywarden.MarkSensor
	case c.Source.Public():
		r.Marks |= citywarden.MarkPublic
	}
	filed := isFiled(c)
	r.Marks |= when(filed, citywarden.MarkFiled) | when(c.Stage.Open(), citywarden.MarkOpen) |
		when(filed || c.SelfHandled || c.Stage == citywarden.PendingFiling, citywarden.MarkValid)
	return r
}

// isFiled reports whether c is filed, and did not come back from there.
func isFiled(c *citywarden.Case) bool {
	return !c.Filed.IsZero() && c.Stage != citywarden.Rejected && !slices.Contains(beforeFiling, c.Stage)
}

var beforeFiling = []citywarden.Stage{citywarden.Reported, citywarden.Verifying, citywarden.PendingFiling}

func when(yes bool, m citywarden.WorkMark) citywarden.WorkMark {
	if yes {
		return m
	}
	return 0
}

// worker follows a case through its timeline.
type worker struct {
	c   *citywarden.Case
	out []citywarden.CaseWork

	stage        citywarden.Stage
	entered, due time.Time // of the stage
	dispatched   time.Time // the last time
	round        int       // work before it was done before the case was reopened
	closer       citywarden.CaseStep
}

// take adds the work that step s ended.
func (w *worker) take(s citywarden.CaseStep) {
	left, entered, due := w.stage, w.entered, w.due
	moved := s.Stage != left
	done := func(kind citywarden.WorkKind) {
		w.out = append(w.out, citywarden.CaseWork{
			Kind: kind, Person: s.By, Began: entered, Due: due, Done: s.At, Marks: when(s.Late, citywarden.MarkLate),
		})
	}
	answer := s.Action == citywarden.Verify || s.Action == citywarden.Rework
	switch {
	case !moved:
	case left == citywarden.Reported && s.Action != citywarden.SelfHandle:
		done(citywarden.WorkAccept)
	case left == citywarden.Verifying:
		done(citywarden.WorkVerify)
	case left == citywarden.Checking && answer, left == citywarden.Handled && answer && s.Role == citywarden.RoleOfficer:
		done(citywarden.WorkCheck)
	}
	switch s.Action {
	case citywarden.SendVerify:
		done(citywarden.WorkSendVerify)
	case citywarden.SendCheck:
		if moved {
			done(citywarden.WorkSendCheck)
		}
	case citywarden.File:
		w.drop(citywarden.WorkFile)
		done(citywarden.WorkFile)
		w.last().Marks |= when(w.c.Stage == citywarden.Voided || w.c.Stage == citywarden.Rejected, citywarden.MarkVoided)
	case citywarden.Dispatch, citywarden.Redispatch:
		for i := w.round; i < len(w.out); i++ {
			if w.out[i].Kind == citywarden.WorkDispatch && w.out[i].Department != s.Department {
				w.out[i].Marks |= citywarden.MarkWrong
			}
		}
		if s.Action == citywarden.Dispatch {
			done(citywarden.WorkDispatch)
			w.last().Department = s.Department
		}
		w.dispatched = s.At
	case citywarden.Rework:
		for i := w.round; i < len(w.out); i++ {
			if w.out[i].Kind == citywarden.WorkDispatch {
				w.out[i].Marks |= citywarden.MarkReworked
			}
		}
	case citywarden.Reopen:
		w.round = len(w.out)
	}
	if s.Stage == citywarden.Closed && moved {
		w.closer = s
	}
	if moved {
		w.stage, w.entered, w.due = s.Stage, s.At, time.Time{}
	}
	if !s.StageDue.IsZero() {
		w.due = s.StageDue
	}
}

func (w *worker) last() *citywarden.CaseWork { return &w.out[len(w.out)-1] }

func (w *worker) drop(kind citywarden.WorkKind) {
	w.out = slices.DeleteFunc(w.out, func(x citywarden.CaseWork) bool { return x.Kind == kind })
}

// waits adds the work that is not done, and the handling and closing of the case.
func (w *worker) waits() {
	c := w.c
	wait := func(kind citywarden.WorkKind, person string) {
		w.out = append(w.out, citywarden.CaseWork{Kind: kind, Person: person, Began: w.entered, Due: w.due})
	}
	if slices.Contains(beforeFiling, c.Stage) {
		w.drop(citywarden.WorkFile) // it came back
	}
	switch c.Stage {
	case citywarden.Reported:
		wait(citywarden.WorkAccept, "")
	case citywarden.Verifying:
		wait(citywarden.WorkVerify, c.Officer)
	case citywarden.PendingFiling:
		wait(citywarden.WorkFile, "")
	case citywarden.PendingDispatch:
		wait(citywarden.WorkDispatch, "")
	case citywarden.Handled:
		wait(citywarden.WorkSendCheck, "")
	case citywarden.Checking:
		wait(citywarden.WorkCheck, c.Officer)
	}
	quality := when(c.Reworked > 0, citywarden.MarkReworked) | when(c.Extensions > 0, citywarden.MarkExtended)
	limit := c.Deadline
	if c.Stage == citywarden.Suspended {
		limit = time.Time{}
		quality |= citywarden.MarkSuspended
	}
	if c.Stage == citywarden.Voided || c.Stage == citywarden.Rejected {
		return
	}
	atWork := c.Stage == citywarden.PendingHandling || c.Stage == citywarden.Handling || c.Stage == citywarden.Suspended
	if handled := !c.HandledAt.IsZero() && !c.SelfHandled; handled || atWork {
		w.out = append(w.out, citywarden.CaseWork{
			Kind: citywarden.WorkHandle, Person: c.HandledBy, Began: w.dispatched, Due: limit, Done: c.HandledAt,
			Marks: quality | when(c.HandledLate() && !c.Exempt, citywarden.MarkLate),
		})
	}
	if !isFiled(c) && !c.SelfHandled {
		return
	}
	x := citywarden.CaseWork{Kind: citywarden.WorkClose, Began: c.Filed, Due: limit, Marks: quality}
	if c.SelfHandled {
		x.Began = c.HandledAt
	}
	if c.Stage == citywarden.Closed {
		late := !c.Deadline.IsZero() && c.Finished.After(c.Deadline) && !c.Exempt
		x.Person, x.Done = w.closer.By, c.Finished
		x.Marks |= when(late, citywarden.MarkLate) | when(w.closer.Late, citywarden.MarkTardy)
	}
	if !c.HandledAt.IsZero() && (x.Due.IsZero() || c.HandledAt.Before(x.Due)) {
		x.Due = c.HandledAt // what is handled is to be closed
	}
	w.out = append(w.out, x)
}
