package api

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// Alarms looks alarms up.
type Alarms interface {
	Alarms(ctx context.Context, f citywarden.AlarmFilter) (page []citywarden.Alarm, next string, err error)
	Alarm(ctx context.Context, id citywarden.AlarmID) (citywarden.Alarm, error)
	Why(ctx context.Context, id citywarden.AlarmID) (*citywarden.Explanation, error)
	History(ctx context.Context, id citywarden.AlarmID) ([]citywarden.AlarmStep, error) // the oldest first
}

// Load measures what alarms demand of the operators.
type Load interface {
	Load(ctx context.Context, area citywarden.AreaCode, from, to time.Time) (citywarden.AlarmLoad, error)
}

// Orders takes people's orders to the rule engine. Order returns once the order
// is durable, Wait once the consumer has dealt with it.
type Orders interface {
	Order(ctx context.Context, o citywarden.AlarmOrder) (citywarden.Position, error)
	Wait(ctx context.Context, consumer string, p citywarden.Position) error
}

const (
	alarmConsumer = "alarms"         // the consumer of the log that applies orders
	orderWait     = 10 * time.Second // for the engine to apply an order
	maxShelving   = 30 * 24 * time.Hour
)

// AlarmPath holds the path parameter of one alarm.
type AlarmPath struct {
	ID citywarden.AlarmID `path:"id" maxLength:"300"`
}

func (p AlarmPath) state(ctx context.Context, s *server) (any, error) {
	return s.Alarms.Alarm(ctx, p.ID)
}

type shelveBody struct {
	For    citywarden.Duration `json:"for,omitempty" doc:"How long; at most 30 days"`
	Until  time.Time           `json:"until,omitzero" doc:"Until when; instead of for"`
	Reason string              `json:"reason" minLength:"1" maxLength:"500"`
}

type reasonBody struct {
	Reason string `json:"reason,omitempty" maxLength:"500"`
}

type commentBody struct {
	Text string `json:"text" minLength:"1" maxLength:"2000"`
}

type assignBody struct {
	To string `json:"to" maxLength:"64" doc:"Name of a user; empty takes the alarm from whoever has it"`
}

type reasonInput struct {
	AlarmPath
	Body *reasonBody
}

func (in *reasonInput) reason() string {
	if in.Body == nil {
		return ""
	}
	return in.Body.Reason
}

func (s *server) alarmRoutes() {
	const tag = "alarms"
	handle(s, route{method: "GET", path: "/api/v1/alarms", id: "list-alarms", tag: tag, may: citywarden.MayRead,
		summary: "Alarms, the newest first"}, s.listAlarms)
	handle(s, route{method: "GET", path: "/api/v1/alarms/{id}", id: "get-alarm", tag: tag, may: citywarden.MayRead,
		summary: "One alarm"}, s.getAlarm)
	handle(s, route{method: "GET", path: "/api/v1/alarms/{id}/why", id: "explain-alarm", tag: tag, may: citywarden.MayRead,
		summary: "Why the alarm was raised, from the values that were used"}, s.why)
	handle(s, route{method: "POST", path: "/api/v1/alarms/{id}/ack", id: "ack-alarm", tag: tag, may: citywarden.MayOperateAlarms,
		summary: "Acknowledge an alarm; answers when it is done"}, s.ack)
	handle(s, route{method: "POST", path: "/api/v1/alarms/{id}/shelve", id: "shelve-alarm", tag: tag, may: citywarden.MayOperateAlarms,
		summary: "Put an alarm aside for a time; answers when it is done"}, s.shelve)
	handle(s, route{method: "POST", path: "/api/v1/alarms/{id}/unshelve", id: "unshelve-alarm", tag: tag, may: citywarden.MayOperateAlarms,
		summary: "End the shelving of an alarm; answers when it is done"}, s.unshelve)
	handle(s, route{method: "POST", path: "/api/v1/alarms/{id}/reset", id: "reset-alarm", tag: tag, may: citywarden.MayOperateAlarms,
		summary: "Reset an alarm that is latched, or whose device is silent; answers when it is done"}, s.reset)
	handle(s, route{method: "POST", path: "/api/v1/alarms/{id}/out-of-service", id: "take-alarm-out-of-service", tag: tag, may: citywarden.MayOutOfService,
		summary: "Take an alarm out of service until it is returned, as for maintenance; answers when it is done"}, s.outOfService)
	handle(s, route{method: "POST", path: "/api/v1/alarms/{id}/in-service", id: "return-alarm-to-service", tag: tag, may: citywarden.MayOutOfService,
		summary: "Return an alarm to service; answers when it is done"}, s.inService)
	handle(s, route{method: "POST", path: "/api/v1/alarms/{id}/comment", id: "comment-alarm", tag: tag, may: citywarden.MayOperateAlarms,
		summary: "Write a comment into the history of an alarm; answers when it is done"}, s.comment)
	handle(s, route{method: "POST", path: "/api/v1/alarms/{id}/assign", id: "assign-alarm", tag: tag, may: citywarden.MayOperateAlarms,
		summary: "Say who shall look after an alarm; answers when it is done"}, s.assign)
	handle(s, route{method: "GET", path: "/api/v1/alarms/{id}/history", id: "get-alarm-history", tag: tag, may: citywarden.MayRead,
		summary: "Everything that happened to an alarm, the oldest first"}, s.alarmHistory)
	handle(s, route{method: "GET", path: "/api/v1/alarms/load", id: "get-alarm-load", tag: tag, may: citywarden.MayRead,
		summary: "What alarms demanded of the operators (EEMUA 191, ISA-18.2)"}, s.alarmLoad)
}

func (s *server) listAlarms(ctx context.Context, in *struct {
	Paging
	State    citywarden.AlarmState `query:"state"`
	Severity string                `query:"severity" enum:"indeterminate,warning,minor,major,critical"`
	Rule     citywarden.RuleID     `query:"rule"`
	Device   citywarden.DeviceID   `query:"device"`

	Suppressed citywarden.Suppression `query:"suppressed" enum:"none,shelved,by_design,out_of_service,any" doc:"How it is suppressed now; what is shelved or out of service is found by its newest alarm, even when that is cleared"`
	Assignee   string                 `query:"assignee" maxLength:"64" doc:"Name of the user who shall look after it"`
	Acked      string                 `query:"acked" enum:"true,false"`
}) (*listOutput[citywarden.Alarm], error) {
	f := citywarden.AlarmFilter{Area: callerOf(ctx).Area, State: in.State, Rule: in.Rule, Device: in.Device, Suppressed: in.Suppressed, Assignee: in.Assignee, Page: in.page()}
	if in.Acked != "" {
		acked := in.Acked == "true"
		f.Acked = &acked
	}
	if err := f.Severity.UnmarshalText([]byte(in.Severity)); err != nil {
		return nil, err
	}
	as, next, err := s.Alarms.Alarms(ctx, f)
	if err == nil && len(as) == 0 && in.Rule != "" {
		err = s.isRule(ctx, in.Rule)
	}
	if err != nil {
		return nil, err
	}
	if as, err = s.alarmsFor(ctx, callerOf(ctx), as); err != nil {
		return nil, err
	}
	return listOf(as, next), nil
}

// isRule returns CodeInvalid when there is no rule of that id, nor an alarm of
// one that there was.
func (s *server) isRule(ctx context.Context, id citywarden.RuleID) error {
	var ids []string
	for _, r := range s.Rules.Rules() {
		ids = append(ids, string(r.ID))
	}
	if slices.Contains(ids, string(id)) {
		return nil
	}
	for _, shadow := range []bool{false, true} {
		as, _, err := s.Alarms.Alarms(ctx, citywarden.AlarmFilter{Rule: id, Shadow: shadow, Page: citywarden.Page{Limit: 1}})
		if err != nil || len(as) > 0 {
			return err
		}
	}
	return citywarden.Errorf(citywarden.CodeInvalid, "no rule %s%s", id, citywarden.DidYouMean(string(id), ids))
}

func (s *server) getAlarm(ctx context.Context, in *AlarmPath) (*output[citywarden.Alarm], error) {
	a, err := s.seenAlarm(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if a, err = s.alarmFor(ctx, callerOf(ctx), a); err != nil {
		return nil, err
	}
	return outputOf(a), nil
}

func (s *server) why(ctx context.Context, in *AlarmPath) (*output[citywarden.Explanation], error) {
	if _, err := s.seenAlarm(ctx, in.ID); err != nil {
		return nil, err
	}
	e, err := s.Alarms.Why(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, citywarden.Errorf(citywarden.CodeNotFound, "alarm %s has no explanation", in.ID)
	}
	s.whyFor(callerOf(ctx), e)
	return outputOf(*e), nil
}

func (s *server) ack(ctx context.Context, in *reasonInput) (*output[citywarden.Alarm], error) {
	o := citywarden.AlarmOrder{Kind: citywarden.OrderAck, Alarm: in.ID, Reason: in.reason()}
	return s.order(ctx, o, ackable, func(a *citywarden.Alarm) error {
		if a.Acked && a.AckedBy == callerOf(ctx).Name {
			return nil
		}
		return ackable(a)
	})
}

func ackable(a *citywarden.Alarm) error {
	if a.Acked {
		return citywarden.Errorf(citywarden.CodeConflict, "alarm %s was acknowledged by %s at %s", a.ID, a.AckedBy, a.AckedAt.UTC().Format(time.RFC3339))
	}
	return nil
}

func (s *server) shelve(ctx context.Context, in *struct {
	AlarmPath
	Body shelveBody
}) (*output[citywarden.Alarm], error) {
	now := time.Now().UTC()
	until := in.Body.Until.UTC()
	if (in.Body.For != 0) == !in.Body.Until.IsZero() {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, `shelve alarm %s: say for how long ("for": "2h") or until when ("until"), one of the two`, in.ID)
	}
	if in.Body.For != 0 {
		until = now.Add(in.Body.For.Std())
	}
	until = until.Truncate(time.Millisecond)
	if !until.After(now) || until.Sub(now) > maxShelving {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "shelve alarm %s: the end lies at %s; it must be in the future and at most 30 days away", in.ID, until.Format(time.RFC3339))
	}
	o := citywarden.AlarmOrder{Kind: citywarden.OrderShelve, Alarm: in.ID, Until: until, Reason: in.Body.Reason}
	return s.order(ctx, o, func(a *citywarden.Alarm) error {
		if a.State == citywarden.AlarmCleared {
			return citywarden.Errorf(citywarden.CodeConflict, "alarm %s is cleared; only an active alarm can be shelved", a.ID)
		}
		return nil
	}, func(a *citywarden.Alarm) error {
		if a.ShelvedBy == callerOf(ctx).Name && a.Shelved.Equal(until) {
			return nil
		}
		return nothingChanged(a, "shelved")
	})
}

func (s *server) unshelve(ctx context.Context, in *reasonInput) (*output[citywarden.Alarm], error) {
	o := citywarden.AlarmOrder{Kind: citywarden.OrderUnshelve, Alarm: in.ID, Reason: in.reason()}
	return s.order(ctx, o, func(a *citywarden.Alarm) error {
		if a.Shelved.IsZero() {
			return citywarden.Errorf(citywarden.CodeConflict, "alarm %s is not shelved", a.ID)
		}
		return nil
	}, func(a *citywarden.Alarm) error {
		if a.Shelved.IsZero() {
			return nil
		}
		return nothingChanged(a, "unshelved")
	})
}

func (s *server) reset(ctx context.Context, in *reasonInput) (*output[citywarden.Alarm], error) {
	o := citywarden.AlarmOrder{Kind: citywarden.OrderReset, Alarm: in.ID, Reason: in.reason()}
	return s.order(ctx, o, func(a *citywarden.Alarm) error {
		if a.State == citywarden.AlarmCleared || !a.Latched && !a.NoData {
			return citywarden.Errorf(citywarden.CodeConflict, "alarm %s is not latched and its device not silent; it clears by itself", a.ID)
		}
		return nil
	}, func(a *citywarden.Alarm) error {
		if a.State == citywarden.AlarmCleared {
			return nil
		}
		return nothingChanged(a, "reset")
	})
}

func (s *server) outOfService(ctx context.Context, in *struct {
	AlarmPath
	Body OutOfServiceBody
}) (*output[citywarden.Alarm], error) {
	until, err := in.Body.end()
	if err != nil {
		return nil, err
	}
	o := citywarden.AlarmOrder{Kind: citywarden.OrderOutOfService, Alarm: in.ID, Until: until, Reason: in.Body.Reason}
	return s.order(ctx, o, func(a *citywarden.Alarm) error {
		if a.OutOfServiceItself() && a.OutOfServiceUntil.Equal(until) {
			return citywarden.Errorf(citywarden.CodeConflict, "alarm %s was taken out of service by %s at %s", a.ID, a.OutOfServiceBy, a.OutOfService.UTC().Format(time.RFC3339))
		}
		return nil
	}, func(a *citywarden.Alarm) error {
		if a.OutOfServiceItself() && a.OutOfServiceBy == callerOf(ctx).Name && a.OutOfServiceUntil.Equal(until) {
			return nil
		}
		return nothingChanged(a, "taken out of service")
	})
}

func (s *server) inService(ctx context.Context, in *reasonInput) (*output[citywarden.Alarm], error) {
	o := citywarden.AlarmOrder{Kind: citywarden.OrderInService, Alarm: in.ID, Reason: in.reason()}
	return s.order(ctx, o, func(a *citywarden.Alarm) error {
		switch {
		case a.OutOfService.IsZero():
			return citywarden.Errorf(citywarden.CodeConflict, "alarm %s is not out of service", a.ID)
		case !a.OutOfServiceItself():
			return citywarden.Errorf(citywarden.CodeConflict, "alarm %s is out of service with device %s; return the device", a.ID, a.OutOfServiceWith)
		}
		return nil
	}, func(a *citywarden.Alarm) error {
		if !a.OutOfServiceItself() {
			return nil
		}
		return nothingChanged(a, "returned to service")
	})
}

func (s *server) comment(ctx context.Context, in *struct {
	AlarmPath
	Body commentBody
}) (*output[citywarden.Alarm], error) {
	text := strings.TrimSpace(in.Body.Text)
	if text == "" {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "comment alarm %s: the text is empty", in.ID)
	}
	o := citywarden.AlarmOrder{Kind: citywarden.OrderComment, Alarm: in.ID, Text: text}
	return s.order(ctx, o, func(*citywarden.Alarm) error { return nil }, func(a *citywarden.Alarm) error {
		steps, err := s.Alarms.History(ctx, a.ID)
		if err != nil {
			return err
		}
		for _, step := range slices.Backward(steps) {
			if step.Kind == citywarden.Commented && step.By == callerOf(ctx).Name && step.Text == text {
				return nil
			}
		}
		return nothingChanged(a, "commented")
	})
}

func (s *server) assign(ctx context.Context, in *struct {
	AlarmPath
	Body assignBody
}) (*output[citywarden.Alarm], error) {
	to := in.Body.To
	a, err := s.seenAlarm(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if to != "" {
		u, _, err := s.Accounts.store.UserByName(ctx, to)
		if citywarden.CodeOf(err) == citywarden.CodeNotFound {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "assign alarm %s: %w", in.ID, err)
		}
		if err != nil {
			return nil, err
		}
		if err := u.Role.May(citywarden.MayRead); err != nil {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "assign alarm %s to %s: %w", in.ID, to, err)
		}
		if err := s.alarmSeenBy(ctx, &a, u); err != nil {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "assign alarm %s: %s sees the area %s only", in.ID, to, u.Area)
		}
	}
	o := citywarden.AlarmOrder{Kind: citywarden.OrderAssign, Alarm: in.ID, To: to}
	return s.order(ctx, o, func(a *citywarden.Alarm) error {
		switch {
		case a.Assignee != to:
			return nil
		case to == "":
			return citywarden.Errorf(citywarden.CodeConflict, "alarm %s is assigned to nobody", a.ID)
		}
		return citywarden.Errorf(citywarden.CodeConflict, "alarm %s is assigned to %s already", a.ID, to)
	}, func(a *citywarden.Alarm) error {
		if a.Assignee == to {
			return nil
		}
		return nothingChanged(a, "assigned")
	})
}

func (s *server) alarmHistory(ctx context.Context, in *AlarmPath) (*listOutput[citywarden.AlarmStep], error) {
	if _, err := s.seenAlarm(ctx, in.ID); err != nil {
		return nil, err
	}
	steps, err := s.Alarms.History(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if steps, err = s.stepsFor(ctx, callerOf(ctx), steps); err != nil {
		return nil, err
	}
	return listOf(steps, ""), nil
}

const maxLoadSpan = 31 * 24 * time.Hour

func (s *server) alarmLoad(ctx context.Context, in *struct {
	From string `query:"from" doc:"RFC 3339, inclusive; 24 hours before to when left out"`
	To   string `query:"to" doc:"RFC 3339, exclusive; now when left out"`
}) (*output[citywarden.AlarmLoad], error) {
	from, to, err := day(in.From, in.To)
	if err != nil {
		return nil, err
	}
	if to.Sub(from) > maxLoadSpan {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "from %s to %s: ask for at most 31 days", from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	if in.From == "" {
		from = from.Truncate(citywarden.LoadInterval) // intervals begin where people expect it
	}
	l, err := s.Load.Load(ctx, callerOf(ctx).Area, from, to)
	if err != nil {
		return nil, err
	}
	return outputOf(l), nil
}

func nothingChanged(a *citywarden.Alarm, done string) error {
	return citywarden.Errorf(citywarden.CodeConflict, "alarm %s could not be %s: it is %s now; somebody else may have been faster, or a later alarm of the same rule has taken its place", a.ID, done, a.State)
}

// order hands an order to the engine and answers with the alarm after it was
// applied. before says whether the alarm can be ordered so at all, after
// whether the order changed it: somebody else may have been faster.
func (s *server) order(ctx context.Context, o citywarden.AlarmOrder, before, after func(*citywarden.Alarm) error) (*output[citywarden.Alarm], error) {
	a, err := s.seenAlarm(ctx, o.Alarm)
	if err != nil {
		return nil, err
	}
	if err := before(&a); err != nil {
		return nil, err
	}
	if err := s.submit(ctx, o); err != nil {
		return nil, err
	}
	if a, err = s.Alarms.Alarm(ctx, o.Alarm); err != nil {
		return nil, err
	}
	if err := after(&a); err != nil {
		return nil, err
	}
	if a, err = s.alarmFor(ctx, callerOf(ctx), a); err != nil {
		return nil, err
	}
	return outputOf(a), nil
}

// submit hands an order of the caller to the engine and waits until it is applied.
func (s *server) submit(ctx context.Context, o citywarden.AlarmOrder) error {
	o.By = callerOf(ctx).Name
	ctx, cancel := context.WithTimeout(ctx, orderWait)
	defer cancel()
	pos, err := s.Orders.Order(ctx, o)
	if err != nil {
		return err
	}
	err = s.Orders.Wait(ctx, alarmConsumer, pos)
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	what := "alarm " + string(o.Alarm)
	if o.Alarm == "" {
		what = target(&o)
	}
	return citywarden.Errorf(citywarden.CodeTransient, "the order %s for %s is stored but not applied yet; look at it again later", o.Kind, what)
}
