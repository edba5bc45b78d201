package api

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/citywarden/citywarden"
)

// A case, and an alarm that another one explains, may concern devices that not all
// who see it may see. For them it is without what tells of those: ids of alarms,
// which hold the id of a device, the key of the case, and a device's id in what the
// platform says. What is to be done, and where, stays.

// maySeeAll reports whether u sees every device.
func maySeeAll(u citywarden.User) bool {
	return u.Role.May(citywarden.MayRead) == nil && u.Area == ""
}

// maySee reports whether u sees a device; one that is deleted is the county's.
func (s *server) maySee(u citywarden.User, id citywarden.DeviceID) bool {
	return u.Role.May(citywarden.MayRead) == nil && (u.Area == "" || u.Area.Has(s.gridOf(id)))
}

// sight is which alarms somebody sees.
type sight struct {
	s  *server
	of citywarden.User
	// unseen has the alarms that they don't see, each with the device whose id
	// stands in the alarm's, "" when that is the key of a group.
	unseen map[citywarden.AlarmID]citywarden.DeviceID
}

// sightOf looks which of the alarms u sees.
func (s *server) sightOf(ctx context.Context, u citywarden.User, ids []citywarden.AlarmID) (*sight, error) {
	v := &sight{s: s, of: u, unseen: map[citywarden.AlarmID]citywarden.DeviceID{}}
	slices.Sort(ids)
	var others []citywarden.AlarmID // not of one device that is registered
	for _, id := range slices.Compact(ids) {
		entity := entityOf(id)
		switch _, _, err := s.Devices.Device(entity); {
		case err != nil:
			v.unseen[id] = ""
			others = append(others, id)
		case !s.maySee(u, entity):
			v.unseen[id] = entity
		}
	}
	for some := range slices.Chunk(others, citywarden.MaxPage) {
		as, _, err := s.Alarms.Alarms(ctx, citywarden.AlarmFilter{IDs: some, Page: citywarden.Page{Limit: len(some)}})
		if err != nil {
			return nil, err
		}
		for i := range as {
			switch a := &as[i]; {
			case u.Role.May(citywarden.MayRead) == nil && s.sees(u, *a):
				delete(v.unseen, a.ID)
			case string(a.Device) == a.Entity:
				v.unseen[a.ID] = a.Device
			}
		}
	}
	return v, nil
}

// entityOf returns what stands between rule and episode in the id of an alarm: the
// id of a device, or the key of a group.
func entityOf(id citywarden.AlarmID) citywarden.DeviceID {
	_, entity, _ := strings.Cut(string(id), ":")
	entity, _, _ = strings.Cut(entity, ":")
	return citywarden.DeviceID(entity)
}

// alarmID finds the ids of alarms in what the platform says.
var alarmID = regexp.MustCompile(`[a-z0-9][a-z0-9._-]*:[A-Za-z0-9._-]+:[0-9]+`)

// named returns the alarms that t names.
func named(t *citywarden.Text) (out []citywarden.AlarmID) {
	if t == nil {
		return nil
	}
	for _, id := range alarmID.FindAllString(t.EN+" "+t.ZH, -1) {
		out = append(out, citywarden.AlarmID(id))
	}
	return out
}

// say returns what the platform says of the alarm about, "" for none, without the
// devices that are not seen, and those that are named besides. It does not change t.
func (v *sight) say(t *citywarden.Text, about citywarden.AlarmID, besides ...citywarden.DeviceID) *citywarden.Text {
	if t == nil {
		return nil
	}
	line := func(s, device, of string) string {
		hidden := append(slices.Clone(besides), v.unseen[about])
		s = alarmID.ReplaceAllStringFunc(s, func(id string) string {
			if d := v.unseen[citywarden.AlarmID(id)]; d != "" {
				hidden = append(hidden, d)
				return of
			}
			return id
		})
		for _, d := range hidden {
			s = replaceWord(s, string(d), device)
		}
		return s
	}
	return &citywarden.Text{EN: line(t.EN, "a device", "of a device"), ZH: line(t.ZH, "某设备", "（某设备）")}
}

// replaceWord replaces word, unless it is "", where no letter or digit touches it.
func replaceWord(s, word, by string) string {
	if word == "" {
		return s
	}
	alone := regexp.MustCompile(`(^|[^A-Za-z0-9])` + regexp.QuoteMeta(word) + `($|[^A-Za-z0-9])`)
	by = "${1}" + by + "${2}"
	return alone.ReplaceAllString(alone.ReplaceAllString(s, by), by) // what is between two has one neighbour for both
}

// caseFor returns c as u sees it.
func (s *server) caseFor(ctx context.Context, u citywarden.User, c citywarden.Case) (citywarden.Case, error) {
	cs, err := s.casesFor(ctx, u, []citywarden.Case{c})
	if err != nil {
		return citywarden.Case{}, err
	}
	return cs[0], nil
}

// casesFor changes cs to what u sees of them and returns it. What lies in several
// areas is the case of all of them, and a report may get the alarms of others.
func (s *server) casesFor(ctx context.Context, u citywarden.User, cs []citywarden.Case) ([]citywarden.Case, error) {
	if maySeeAll(u) {
		return cs, nil
	}
	var ids []citywarden.AlarmID
	for i := range cs {
		ids = append(ids, cs[i].Alarms...)
		for _, step := range cs[i].Timeline {
			if step.Alarm != "" {
				ids = append(ids, step.Alarm)
			}
			ids = append(ids, named(step.Text)...)
		}
	}
	v, err := s.sightOf(ctx, u, ids)
	if err != nil {
		return nil, err
	}
	for i := range cs {
		v.strip(&cs[i])
	}
	return cs, nil
}

// strip takes out of c what tells of devices that are not seen. It changes nothing
// that c points to.
func (v *sight) strip(c *citywarden.Case) {
	if c.Device != "" && !v.s.maySee(v.of, c.Device) {
		c.Device, c.DeviceName = "", ""
	}
	seen := slices.DeleteFunc(slices.Clone(c.Alarms), v.hides)
	if len(seen) == 0 || len(seen) < len(c.Alarms) {
		c.Key = "" // names what its first alarm was of
	}
	c.Alarms = seen
	c.Timeline = slices.Clone(c.Timeline)
	for i := range c.Timeline {
		step := &c.Timeline[i]
		step.Text = v.say(step.Text, step.Alarm)
		if v.hides(step.Alarm) {
			step.Alarm = ""
		}
	}
}

// hides reports whether the alarm is not seen.
func (v *sight) hides(id citywarden.AlarmID) bool {
	_, unseen := v.unseen[id]
	return unseen
}

// seesAlarm reports whether u sees the alarm called id; not when there is none.
func (s *server) seesAlarm(ctx context.Context, u citywarden.User, id citywarden.AlarmID) (bool, error) {
	if maySeeAll(u) {
		return true, nil
	}
	v, err := s.sightOf(ctx, u, []citywarden.AlarmID{id})
	return err == nil && !v.hides(id), err
}

// noticesFor changes ns to what u sees of them and returns it.
func (s *server) noticesFor(ctx context.Context, u citywarden.User, ns []citywarden.Notice) ([]citywarden.Notice, error) {
	if maySeeAll(u) {
		return ns, nil
	}
	var ids []citywarden.AlarmID
	for i := range ns {
		if ns[i].Alarm != "" {
			ids = append(ids, ns[i].Alarm)
		}
		ids = append(ids, named(&ns[i].Text)...)
	}
	v, err := s.sightOf(ctx, u, ids)
	if err != nil {
		return nil, err
	}
	for i := range ns {
		n := &ns[i]
		n.Text = *v.say(&n.Text, n.Alarm)
		if v.hides(n.Alarm) {
			n.Alarm = ""
		}
	}
	return ns, nil
}

// alarmFor returns a, which u sees, as u sees it.
func (s *server) alarmFor(ctx context.Context, u citywarden.User, a citywarden.Alarm) (citywarden.Alarm, error) {
	as, err := s.alarmsFor(ctx, u, []citywarden.Alarm{a})
	if err != nil {
		return citywarden.Alarm{}, err
	}
	return as[0], nil
}

// alarmsFor changes as, which u sees, to what u sees of them and returns it: of an
// alarm elsewhere that explains one of them only the rule is left.
func (s *server) alarmsFor(ctx context.Context, u citywarden.User, as []citywarden.Alarm) ([]citywarden.Alarm, error) {
	if maySeeAll(u) {
		return as, nil
	}
	var ids []citywarden.AlarmID
	for i := range as {
		if by := as[i].SuppressedBy; by != "" {
			ids = append(ids, by)
		}
	}
	v, err := s.sightOf(ctx, u, ids)
	if err != nil {
		return nil, err
	}
	for i := range as {
		as[i].SuppressedBy = v.cause(as[i].SuppressedBy)
	}
	return as, nil
}

// cause returns id, of an alarm that is not seen the rule only.
func (v *sight) cause(id citywarden.AlarmID) citywarden.AlarmID {
	if v.hides(id) {
		rule, _, _ := strings.Cut(string(id), ":")
		return citywarden.AlarmID(rule)
	}
	return id
}

// stepsFor changes the history of an alarm that u sees to what u sees of it.
func (s *server) stepsFor(ctx context.Context, u citywarden.User, steps []citywarden.AlarmStep) ([]citywarden.AlarmStep, error) {
	if maySeeAll(u) {
		return steps, nil
	}
	var ids []citywarden.AlarmID
	for i := range steps {
		if by := steps[i].SuppressedBy; by != "" {
			ids = append(ids, by)
		}
	}
	v, err := s.sightOf(ctx, u, ids)
	if err != nil {
		return nil, err
	}
	for i := range steps {
		steps[i].SuppressedBy = v.cause(steps[i].SuppressedBy)
		s.whyFor(u, steps[i].Why)
	}
	return steps, nil
}

// whyFor takes out of x, which may be nil, why an alarm that u sees is so, what was
// read of devices that u does not see: neighbours, and members of a group that did not
// raise the alarm.
func (s *server) whyFor(u citywarden.User, x *citywarden.Explanation) {
	if x != nil && !maySeeAll(u) {
		stripWhy(x, func(id citywarden.DeviceID) bool { return id != "" && !s.maySee(u, id) })
	}
}

// stripWhy takes out of x what was read of hidden devices.
func stripWhy(x *citywarden.Explanation, hidden func(citywarden.DeviceID) bool) {
	x.Leaves = slices.DeleteFunc(x.Leaves, func(l citywarden.ExplainLeaf) bool { return hidden(l.Device) })
	x.Inputs = slices.DeleteFunc(x.Inputs, func(in citywarden.ExplainInput) bool { return hidden(in.Device) })
	x.Windows = slices.DeleteFunc(x.Windows, func(w citywarden.ExplainWindow) bool { return hidden(w.Device) })
	x.Members = slices.DeleteFunc(x.Members, func(m citywarden.ExplainMember) bool { return hidden(m.Device) })
}

// whyNotFor takes out of x, the answer about a device that u sees, what tells of
// devices that u does not see.
func (s *server) whyNotFor(ctx context.Context, u citywarden.User, x *citywarden.WhyNot) error {
	if maySeeAll(u) {
		return nil
	}
	ids := named(&x.Summary)
	for i := range x.Notes {
		ids = append(ids, named(&x.Notes[i])...)
	}
	if x.Alarm != nil && x.Alarm.SuppressedBy != "" {
		ids = append(ids, x.Alarm.SuppressedBy)
	}
	v, err := s.sightOf(ctx, u, ids)
	if err != nil {
		return err
	}
	outside := map[citywarden.DeviceID]bool{}
	hidden := func(id citywarden.DeviceID) bool {
		if id != "" && !s.maySee(u, id) {
			outside[id] = true
		}
		return outside[id]
	}
	for i := range x.Levels {
		stripWhy(&x.Levels[i].Explanation, hidden)
	}
	x.Missing = slices.DeleteFunc(x.Missing, func(m citywarden.WhyNotMetric) bool { return hidden(m.Device) })
	x.Late = slices.DeleteFunc(x.Late, func(in citywarden.ExplainInput) bool { return hidden(in.Device) })
	x.After = slices.DeleteFunc(x.After, func(in citywarden.ExplainInput) bool { return hidden(in.Device) })
	devices := slices.Collect(maps.Keys(outside))
	x.Summary = *v.say(&x.Summary, "", devices...)
	for i := range x.Levels {
		x.Levels[i].Summary = *v.say(&x.Levels[i].Summary, "", devices...)
	}
	for i := range x.Notes {
		x.Notes[i] = *v.say(&x.Notes[i], "", devices...)
	}
	switch {
	case x.Alarm == nil:
	case !s.sees(u, *x.Alarm):
		x.Alarm = nil
	default:
		a := *x.Alarm
		a.SuppressedBy = v.cause(a.SuppressedBy)
		x.Alarm = &a
	}
	return nil
}
