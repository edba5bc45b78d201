package api

import (
	"context"
	"slices"

	"github.com/citywarden/citywarden"
)

// Who is confined to an area sees what lies there. For them there is nothing
// elsewhere: CodeNotFound, in the words that are used for what is not there.

// gridOf returns the unit grid of a device, "" when it is not registered.
func (s *server) gridOf(id citywarden.DeviceID) citywarden.GridCode {
	d, _, err := s.Devices.Device(id)
	if err != nil {
		return ""
	}
	return d.Grid
}

// seenDevice returns a device that the caller may see.
func (s *server) seenDevice(ctx context.Context, id citywarden.DeviceID) (*citywarden.Device, *citywarden.Model, error) {
	d, m, err := s.Devices.Device(id)
	if err == nil && !callerOf(ctx).Area.Has(d.Grid) {
		return nil, nil, citywarden.Errorf(citywarden.CodeNotFound, "no device %s", id)
	}
	return d, m, err
}

// seenComponent returns a component that the caller may see.
func (s *server) seenComponent(ctx context.Context, id citywarden.ComponentID) (citywarden.Component, error) {
	x, err := s.Components.Component(id)
	if err == nil && !callerOf(ctx).Area.Has(x.Grid) {
		return citywarden.Component{}, citywarden.Errorf(citywarden.CodeNotFound, "no component %q", id)
	}
	return x, err
}

// seenAlarm returns an alarm that the caller may see.
func (s *server) seenAlarm(ctx context.Context, id citywarden.AlarmID) (citywarden.Alarm, error) {
	a, err := s.Alarms.Alarm(ctx, id)
	if err != nil {
		return a, err
	}
	return a, s.alarmSeenBy(ctx, &a, callerOf(ctx))
}

// alarmSeenBy returns CodeNotFound unless u sees all devices that a ever concerned.
func (s *server) alarmSeenBy(ctx context.Context, a *citywarden.Alarm, u citywarden.User) error {
	if u.Area == "" {
		return nil
	}
	there, _, err := s.Alarms.Alarms(ctx, citywarden.AlarmFilter{IDs: []citywarden.AlarmID{a.ID}, Area: u.Area, Shadow: a.Shadow})
	if err == nil && len(there) == 0 {
		return citywarden.Errorf(citywarden.CodeNotFound, "no alarm %s", a.ID)
	}
	return err
}

// sees reports whether u sees what a live event is about.
func (s *server) sees(u citywarden.User, about any) bool {
	switch x := about.(type) {
	case citywarden.Case:
		return x.SeenBy(u) == nil
	case citywarden.Alarm:
		outside := func(id citywarden.DeviceID) bool { return !u.Area.Has(s.gridOf(id)) }
		return u.Area == "" || !outside(x.Device) && !slices.ContainsFunc(x.Members, outside)
	case citywarden.ReadingEvent:
		return u.Area == "" || u.Area.Has(s.gridOf(x.Device))
	case citywarden.DeviceView:
		return u.Area.Has(x.Grid)
	case citywarden.DeletedDevice:
		return u.Area.Has(x.Grid)
	}
	return u.Area == ""
}

// seesSites returns which sites u sees: those with a device in their area. What no
// device is at lies nowhere.
func (s *server) seesSites(u citywarden.User) (func(citywarden.SiteID) bool, error) {
	devices, err := s.sitesOf(u)
	return func(id citywarden.SiteID) bool {
		in, known := devices[id]
		return in || !known && u.Area.Has("")
	}, err
}

// sitesOf returns the sites that devices are at, and whether u sees one of those.
func (s *server) sitesOf(u citywarden.User) (map[citywarden.SiteID]bool, error) {
	devices := map[citywarden.SiteID]bool{} // whether one of the site's lies in the area
	err := pages(func(p citywarden.Page) (string, error) {
		ds, next, err := s.Devices.List(citywarden.DeviceFilter{Page: p})
		for i := range ds {
			if id := ds[i].Site(); id != "" {
				devices[id] = devices[id] || u.Area.Has(ds[i].Grid)
			}
		}
		return next, err
	})
	return devices, err
}

// within returns the code of the area that asked for the part of under that u
// sees; ok is false when that is nothing.
func within(u citywarden.User, under string) (code string, ok bool) {
	if !u.Area.Meets(citywarden.AreaCode(under)) {
		return "", false
	}
	return max(under, string(u.Area)), true // one begins with the other
}

// mayOpen returns CodeDenied unless what a case shall be opened about lies in the
// caller's area, or when the caller names a device and may see none; CodeNotFound when
// there is no such device for them or, for who is confined to an area, no such component.
func (s *server) mayOpen(ctx context.Context, c citywarden.NewCase) error {
	u := callerOf(ctx)
	var at *citywarden.Point // where the case will be, as cases.Desk.Create has it
	if c.Device != "" {
		if u.Role.May(citywarden.MayRead) != nil { // whether there is one or not
			return citywarden.Errorf(citywarden.CodeDenied, "%s may not name a device; say where it is with location, or leave device out", u.Role)
		}
		d, _, err := s.seenDevice(ctx, c.Device)
		if err != nil {
			return err
		}
		at = d.Location
	}
	if u.Area == "" {
		return nil
	}
	if c.Component != "" {
		x, err := s.seenComponent(ctx, c.Component)
		if err != nil {
			return err
		}
		at = &x.Location
	}
	if c.Location != nil {
		p, err := citywarden.PointIn(c.CRS, *c.Location)
		if err != nil {
			return err
		}
		at = &p
	}
	var grid citywarden.GridCode
	if at != nil {
		grid = s.Grids.At(*at)
	}
	if !u.Area.Has(grid) {
		return citywarden.Errorf(citywarden.CodeDenied, "%s opens cases in the area %s only; say a place there", u.Name, u.Area)
	}
	return nil
}

// areaOfUser returns CodeInvalid unless there are unit grids in the area that a
// user shall be confined to.
func (s *server) areaOfUser(a citywarden.AreaCode) error {
	if err := a.Check(); err != nil || a == "" {
		return err
	}
	if len(s.Grids.Areas(citywarden.LevelCounty, string(a))) == 0 {
		return citywarden.Errorf(citywarden.CodeInvalid, "area %s: no unit grid lies there; import the unit grids first, or correct the code", a)
	}
	return nil
}
