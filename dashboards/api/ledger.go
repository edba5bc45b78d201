package api

import (
	"context"
	"time"

	"github.com/citywarden/citywarden"
)

// Ledger answers what became of the messages.
type Ledger interface {
	Rows(ctx context.Context, f citywarden.LedgerFilter) ([]citywarden.LedgerRow, string, error)
	DeadLetters(ctx context.Context, f citywarden.DeadLetterFilter) ([]citywarden.DeadLetter, string, error)
	// Replay brings in again those of one device, or with "" of all, that can be used now.
	Replay(ctx context.Context, device citywarden.DeviceID) (citywarden.Replay, error)
	// Audit compares log, ledger and time series from the hour of from on.
	Audit(ctx context.Context, from time.Time) (citywarden.Audit, error)
}

func (s *server) ledgerRoutes() {
	const tag = "ledger"
	handle(s, route{method: "GET", path: "/api/v1/ledger", id: "get-ledger", tag: tag, may: citywarden.MayRead,
		summary: "What became of the readings, by device and hour"}, s.ledgerRows)
	handle(s, route{method: "GET", path: "/api/v1/ledger/audit", id: "audit-ledger", tag: tag, may: citywarden.MayRead,
		summary: "Compare the durable log, the ledger and the time series"}, s.auditLedger)
	handle(s, route{method: "GET", path: "/api/v1/deadletters", id: "list-dead-letters", tag: tag, may: citywarden.MayRead,
		summary: "Messages that could not be used, with the reason, the newest first"}, s.deadLetters)
	handle(s, route{method: "POST", path: "/api/v1/deadletters/replay", id: "replay-dead-letters", tag: tag, may: citywarden.MayWriteDevices,
		summary: "Bring in again what can be used now, as after a correction of a model"}, s.replay)
}

const maxLedgerSpan = 31 * 24 * time.Hour

func (s *server) ledgerRows(ctx context.Context, in *struct {
	Paging
	From   string              `query:"from" doc:"RFC 3339, inclusive; 24 hours before to when left out"`
	To     string              `query:"to" doc:"RFC 3339, exclusive; now when left out"`
	Device citywarden.DeviceID `query:"device" maxLength:"64"`
	Uneven bool                `query:"uneven" doc:"Only rows with readings that were not stored, with messages that are missing, or silence"`
	By     string              `query:"by" enum:"device,hour" doc:"hour: the sums of all devices, on one page whatever limit says; device when left out"`
}) (*listOutput[citywarden.LedgerRow], error) {
	from, to, err := day(in.From, in.To)
	if err != nil {
		return nil, err
	}
	if to.Sub(from) > maxLedgerSpan {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "from %s to %s: ask for at most 31 days", from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	rows, next, err := s.Ledger.Rows(ctx, citywarden.LedgerFilter{
		From: from, To: to, Device: in.Device, Area: callerOf(ctx).Area, Uneven: in.Uneven, ByHour: in.By == "hour", Page: in.page(),
	})
	if err != nil {
		return nil, err
	}
	return listOf(rows, next), nil
}

func (s *server) deadLetters(ctx context.Context, in *struct {
	Paging
	Device citywarden.DeviceID `query:"device" maxLength:"64"`
	Open   bool                `query:"open" doc:"Only those that were not brought in again"`
}) (*listOutput[citywarden.DeadLetter], error) {
	ls, next, err := s.Ledger.DeadLetters(ctx, citywarden.DeadLetterFilter{Device: in.Device, Area: callerOf(ctx).Area, Open: in.Open, Page: in.page()})
	if err != nil {
		return nil, err
	}
	return listOf(ls, next), nil
}

func (s *server) replay(ctx context.Context, in *struct {
	Body struct {
		Device citywarden.DeviceID `json:"device,omitempty" maxLength:"64" doc:"Only its dead letters; those of all devices when left out"`
	}
}) (*output[citywarden.Replay], error) {
	r, err := s.Ledger.Replay(ctx, in.Body.Device)
	if err != nil {
		return nil, err
	}
	return outputOf(r), nil
}

func (s *server) auditLedger(ctx context.Context, in *struct {
	From string `query:"from" doc:"RFC 3339: begin at its full hour, 24 hours ago when left out"`
}) (*output[citywarden.Audit], error) {
	from, _, err := day(in.From, "")
	if err != nil {
		return nil, err
	}
	if u := callerOf(ctx); u.Area != "" {
		return nil, citywarden.Errorf(citywarden.CodeDenied, "%s sees the area %s only, and an audit is of all devices together", u.Name, u.Area)
	}
	a, err := s.Ledger.Audit(ctx, from)
	if err != nil {
		return nil, err
	}
	return outputOf(a), nil
}
