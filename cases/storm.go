package cases

import (
	"context"
	"fmt"
	"slices"

	"github.com/citywarden/citywarden"
)

// adopt puts the alarm of a storm's child into the case of the storm's alarm. A
// case of its own that nobody has touched yet is given up for that one when
// nothing else in it is active; one that people work on stays as it is, and the two
// say so of each other.
func (d *Desk) adopt(ctx context.Context, tx Tx, t citywarden.Transition, a *citywarden.Alarm, out *changes) error {
	if t.Case.Parent == "" || t.Kind != citywarden.Raised && t.Kind != citywarden.Suppressed {
		return nil
	}
	parent, err := tx.Alarm(ctx, a.SuppressedBy)
	if citywarden.CodeOf(err) == citywarden.CodeNotFound || err == nil && (parent.Case == "" || parent.Case == a.Case) {
		return nil
	}
	if err != nil {
		return err
	}
	into, err := tx.Case(ctx, parent.Case)
	if err != nil || !into.Stage.Open() {
		return err
	}
	if a.Case == "" {
		a.Case = into.ID
		return nil
	}
	own, err := tx.Case(ctx, a.Case)
	if err != nil {
		return err
	}
	touched, err := touched(ctx, tx, &own)
	if err != nil {
		return err
	}
	if touched || own.WorkOrder != into.WorkOrder {
		return d.link(ctx, tx, t, own, into, out)
	}
	a.Case = into.ID
	if err := tx.SaveAlarm(ctx, *a); err != nil {
		return err
	}
	n, err := tx.Tally(ctx, own.ID)
	if err != nil {
		return err
	}
	if n.Active > 0 {
		return d.note(ctx, tx, t, own, citywarden.Evidence, out,
			fmt.Sprintf("alarm %s moved to case %s, which explains it", a.ID, into.ID), fmt.Sprintf("告警 %s 已并入案件 %s", a.ID, into.ID))
	}
	if err := tx.MoveAlarms(ctx, own.ID, into.ID); err != nil {
		return err
	}
	if err := d.hush(ctx, tx, own.ID); err != nil {
		return err
	}
	own.MergedInto, into.LifeSafety = into.ID, into.LifeSafety || own.LifeSafety
	err = d.note(ctx, tx, t, own, citywarden.Absorb, out,
		fmt.Sprintf("merged into case %s, which explains it", into.ID), fmt.Sprintf("已并入案件 %s", into.ID))
	if err != nil {
		return err
	}
	return d.note(ctx, tx, t, into, citywarden.Evidence, out, fmt.Sprintf("case %s merged into this one", own.ID), fmt.Sprintf("案件 %s 并入本案", own.ID))
}

// touched reports whether a person has done anything in c.
func touched(ctx context.Context, tx Tx, c *citywarden.Case) (bool, error) {
	if c.Stage != citywarden.PendingFiling {
		return true, nil
	}
	steps, err := tx.StepsAfter(ctx, c.ID, 0)
	for _, s := range steps {
		if s.By != citywarden.Platform {
			return true, err
		}
	}
	return false, err
}

// link notes in both cases, once, that the alarm of the one explains the other's.
func (d *Desk) link(ctx context.Context, tx Tx, t citywarden.Transition, own, into citywarden.Case, out *changes) error {
	if slices.Contains(own.Linked, into.ID) {
		return nil
	}
	own.Linked, into.Linked = append(own.Linked, into.ID), append(into.Linked, own.ID)
	err := d.note(ctx, tx, t, own, citywarden.Evidence, out,
		fmt.Sprintf("case %s explains the alarm; both stay open", into.ID), fmt.Sprintf("该告警由案件 %s 引起，两案并行办理", into.ID))
	if err != nil {
		return err
	}
	return d.note(ctx, tx, t, into, citywarden.Evidence, out,
		fmt.Sprintf("case %s has the same cause; people work on it already", own.ID), fmt.Sprintf("案件 %s 与本案同因，已在办理", own.ID))
}

// note takes a step of the platform in c because of t.
func (d *Desk) note(ctx context.Context, tx Tx, t citywarden.Transition, c citywarden.Case, action citywarden.Action, out *changes, en, zh string) error {
	was := c.Revision
	step := citywarden.CaseStep{Action: action, By: citywarden.Platform, Alarm: t.Alarm.ID, Text: &citywarden.Text{EN: en, ZH: zh}, At: stamp(t)}
	if err := c.Do(step); err != nil {
		return err
	}
	if err := d.keep(ctx, tx, c, was); err != nil {
		return err
	}
	out.inCase(c.ID)
	return nil
}

// maintain sees to it that somebody repairs what made the alarm flap: by a work
// order, one per rule and entity, which notes every further spell. An alarm that
// has a work order has that already.
func (d *Desk) maintain(ctx context.Context, tx Tx, t citywarden.Transition, a citywarden.Alarm, out *changes) error {
	if t.Case.WorkOrder {
		return nil
	}
	c, err := caseByKey(ctx, tx, fmt.Sprintf("flap/%s/%s", a.Rule, a.Entity))
	if err != nil {
		return err
	}
	text := sentence(citywarden.Text{EN: "comes and goes too often; look after the sensor", ZH: "反复抖动，请检修传感器"}, t, a)
	if c.Stage.Open() && c.ID != "" {
		return d.note(ctx, tx, t, c, citywarden.Evidence, out, text.EN, text.ZH)
	}
	c = citywarden.Case{
		Class: t.Case.Class, Title: citywarden.Text{EN: "Flapping: " + a.Title.In("en"), ZH: "传感器抖动：" + a.Title.In("zh")},
		Key: fmt.Sprintf("flap/%s/%s", a.Rule, a.Entity), Source: citywarden.SourceSensor, WorkOrder: true, Severity: citywarden.Warning, Opened: stamp(t),
	}
	if p, ok := d.opt.Where(a.Device); ok {
		c.Location = &p
	}
	if c, err = d.begin(ctx, tx, c, citywarden.CaseStep{By: citywarden.Platform, Alarm: a.ID, Text: text}); err != nil {
		return err
	}
	if err := d.save(ctx, tx, c, 0); err != nil {
		return err
	}
	out.inCase(c.ID)
	_, err = d.write(ctx, tx, c, citywarden.NoticeOpened, a.ID, text, stamp(t), false)
	return err
}
