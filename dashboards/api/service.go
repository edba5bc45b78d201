package api

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/citywarden/citywarden"
)

// Service tells what people have taken out of service.
type Service interface {
	OutOfService() []citywarden.OutOfService
}

// OutOfServiceBody says why, and for how long, something goes out of service.
type OutOfServiceBody struct {
	For    citywarden.Duration `json:"for,omitempty" doc:"How long; without it and until, until it is returned"`
	Until  time.Time           `json:"until,omitzero" doc:"Until when; instead of for"`
	Reason string              `json:"reason" minLength:"1" maxLength:"500"`
}

// end returns when it ends, zero for until it is returned.
func (b *OutOfServiceBody) end() (time.Time, error) {
	now := time.Now().UTC()
	until := b.Until.UTC()
	switch {
	case b.For != 0 && !until.IsZero():
		return time.Time{}, citywarden.Errorf(citywarden.CodeInvalid, `out of service: say for how long ("for": "4h") or until when ("until"), one of the two`)
	case b.For != 0:
		until = now.Add(b.For.Std())
	case until.IsZero():
		return until, nil
	}
	if until = until.Truncate(time.Millisecond); !until.After(now) {
		return until, citywarden.Errorf(citywarden.CodeInvalid, "out of service: the end lies at %s; it must be in the future", until.Format(time.RFC3339))
	}
	return until, nil
}

type entityOutBody struct {
	Entity string `json:"entity" minLength:"1" maxLength:"200" doc:"The id of a device that the rule watches, or the key of a group"`
	OutOfServiceBody
}

type entityInBody struct {
	Entity string `json:"entity" minLength:"1" maxLength:"200"`
	Reason string `json:"reason,omitempty" maxLength:"500"`
}

// RulePath holds the path parameter of one rule.
type RulePath struct {
	ID citywarden.RuleID `path:"id" maxLength:"200"`
}

func (s *server) serviceRoutes() {
	const tag = "out of service"
	handle(s, route{method: "GET", path: "/api/v1/out-of-service", id: "list-out-of-service", tag: tag, may: citywarden.MayRead,
		summary: "What is out of service: devices, and what single rules say of an entity"}, s.listOutOfService)
	handle(s, route{method: "POST", path: "/api/v1/devices/{id}/out-of-service", id: "take-device-out-of-service", tag: tag, may: citywarden.MayOutOfService,
		summary: "Take a device out of service, whether it has alarms or not; answers when it is done"}, s.deviceOutOfService)
	handle(s, route{method: "POST", path: "/api/v1/devices/{id}/in-service", id: "return-device-to-service", tag: tag, may: citywarden.MayOutOfService,
		summary: "Return a device to service; answers what has ended"}, s.deviceInService)
	handle(s, route{method: "POST", path: "/api/v1/rules/{id}/out-of-service", id: "take-rule-out-of-service", tag: tag, may: citywarden.MayOutOfService,
		summary: "Take what a rule says of one device or group out of service, whether there is an alarm or not; answers when it is done"}, s.ruleOutOfService)
	handle(s, route{method: "POST", path: "/api/v1/rules/{id}/in-service", id: "return-rule-to-service", tag: tag, may: citywarden.MayOutOfService,
		summary: "Return what a rule says of one device or group to service; answers what has ended"}, s.ruleInService)
}

func (s *server) listOutOfService(ctx context.Context, _ *struct{}) (*listOutput[citywarden.OutOfService], error) {
	all := slices.DeleteFunc(s.Service.OutOfService(), func(x citywarden.OutOfService) bool {
		return !s.seesEntity(ctx, cmp.Or(string(x.Device), x.Entity))
	})
	return listOf(all, ""), nil
}

// seesEntity reports whether the caller sees a device; a group is of the county.
func (s *server) seesEntity(ctx context.Context, entity string) bool {
	return callerOf(ctx).Area.Has(s.gridOf(citywarden.DeviceID(entity)))
}

// watched returns CodeNotFound for an entity that the caller does not see.
func (s *server) watched(ctx context.Context, rule citywarden.RuleID, entity string) error {
	if !s.seesEntity(ctx, entity) {
		return notWatched(rule, entity)
	}
	return nil
}

func notWatched(rule citywarden.RuleID, entity string) error {
	return citywarden.Errorf(citywarden.CodeNotFound, "rule %s does not watch %q; an entity is the id of a device that the rule selects, or the key of a group", rule, entity)
}

func (s *server) deviceOutOfService(ctx context.Context, in *struct {
	DevicePath
	Body OutOfServiceBody
}) (*output[citywarden.OutOfService], error) {
	if _, _, err := s.seenDevice(ctx, in.ID); err != nil {
		return nil, err
	}
	return s.takeOut(ctx, citywarden.AlarmOrder{Device: in.ID}, &in.Body)
}

func (s *server) deviceInService(ctx context.Context, in *struct {
	DevicePath
	Body *reasonBody
}) (*output[citywarden.OutOfService], error) {
	if !s.seesEntity(ctx, string(in.ID)) {
		return nil, citywarden.Errorf(citywarden.CodeNotFound, "no device %s", in.ID)
	}
	reason := ""
	if in.Body != nil {
		reason = in.Body.Reason
	}
	return s.putBack(ctx, citywarden.AlarmOrder{Device: in.ID, Reason: reason})
}

func (s *server) ruleOutOfService(ctx context.Context, in *struct {
	RulePath
	Body entityOutBody
}) (*output[citywarden.OutOfService], error) {
	if _, err := s.rule(in.ID); err != nil {
		return nil, err
	}
	if err := s.watched(ctx, in.ID, in.Body.Entity); err != nil {
		return nil, err
	}
	return s.takeOut(ctx, citywarden.AlarmOrder{Rule: in.ID, Entity: in.Body.Entity}, &in.Body.OutOfServiceBody)
}

func (s *server) ruleInService(ctx context.Context, in *struct {
	RulePath
	Body entityInBody
}) (*output[citywarden.OutOfService], error) {
	if err := s.watched(ctx, in.ID, in.Body.Entity); err != nil {
		return nil, err
	}
	return s.putBack(ctx, citywarden.AlarmOrder{Rule: in.ID, Entity: in.Body.Entity, Reason: in.Body.Reason})
}

// takeOut has the engine take out of service what o names.
func (s *server) takeOut(ctx context.Context, o citywarden.AlarmOrder, b *OutOfServiceBody) (*output[citywarden.OutOfService], error) {
	until, err := b.end()
	if err != nil {
		return nil, err
	}
	o.Kind, o.Until, o.Reason = citywarden.OrderOutOfService, until, b.Reason
	if x, ok := s.outOf(&o); ok && x.Until.Equal(until) {
		return nil, takenOut(&o, x)
	}
	if err := s.submit(ctx, o); err != nil {
		return nil, err
	}
	switch x, ok := s.outOf(&o); {
	case !ok && o.Device == "":
		return nil, notWatched(o.Rule, o.Entity)
	case !ok:
		return nil, citywarden.Errorf(citywarden.CodeConflict, "%s could not be taken out of service; somebody else has deleted or returned it", target(&o))
	case x.By != callerOf(ctx).Name || !x.Until.Equal(until):
		return nil, takenOut(&o, x)
	default:
		return outputOf(x), nil
	}
}

func takenOut(o *citywarden.AlarmOrder, x citywarden.OutOfService) error {
	return citywarden.Errorf(citywarden.CodeConflict, "%s was taken out of service by %s at %s", target(o), x.By, x.Since.UTC().Format(time.RFC3339))
}

// putBack has the engine return to service what o names.
func (s *server) putBack(ctx context.Context, o citywarden.AlarmOrder) (*output[citywarden.OutOfService], error) {
	o.Kind = citywarden.OrderInService
	was, ok := s.outOf(&o)
	if !ok {
		return nil, citywarden.Errorf(citywarden.CodeConflict, "%s is not out of service", target(&o))
	}
	if err := s.submit(ctx, o); err != nil {
		return nil, err
	}
	if x, still := s.outOf(&o); still {
		return nil, takenOut(&o, x)
	}
	return outputOf(was), nil
}

// outOf returns how what o names is out of service.
func (s *server) outOf(o *citywarden.AlarmOrder) (citywarden.OutOfService, bool) {
	all := s.Service.OutOfService()
	i := slices.IndexFunc(all, func(x citywarden.OutOfService) bool {
		return x.Device == o.Device && x.Rule == o.Rule && x.Entity == o.Entity
	})
	if i < 0 {
		return citywarden.OutOfService{}, false
	}
	return all[i], true
}

// target names what an order without an alarm is about.
func target(o *citywarden.AlarmOrder) string {
	if o.Device != "" {
		return "device " + string(o.Device)
	}
	return "rule " + string(o.Rule) + " on " + o.Entity
}
