package ingest

import (
	"context"
	"slices"
	"time"

	"github.com/citywarden/citywarden"
)

// replayFirst is of how many dead letters that still fail it is said why.
const replayFirst = 20

// Replay brings dead letters in again, the oldest first, of one device or with ""
// of all: those that can be used now, as when a model was corrected, a device
// registered or the retention of the series changed. Each becomes a new message
// of the log that arrived when the old one did; readings of it that were taken
// before are written over themselves. What still fails stays as it
// is. Letters that came into being after the call began are not looked at.
func (p *Pipeline) Replay(ctx context.Context, l *Ledger, device citywarden.DeviceID) (citywarden.Replay, error) {
	out := citywarden.Replay{First: []citywarden.DeadLetter{}}
	end := p.log.Last()
	f := citywarden.DeadLetterFilter{Device: device, Open: true, Oldest: true, Page: citywarden.Page{Limit: citywarden.MaxPage}}
	for {
		letters, next, err := l.DeadLetters(ctx, f)
		if err != nil {
			return out, err
		}
		letters = slices.DeleteFunc(letters, func(x citywarden.DeadLetter) bool { return x.Position > end })
		n := len(letters)
		letters = slices.DeleteFunc(letters, func(x citywarden.DeadLetter) bool {
			err := p.Check(citywarden.AsSent(x.Uplink()))
			if err != nil && len(out.First) < replayFirst {
				x.Reason = err.Error()
				out.First = append(out.First, x)
			}
			return err != nil
		})
		out.Failing += n - len(letters)
		if err := p.again(ctx, letters); err != nil {
			return out, err
		}
		if err := l.store.SetReplayed(ctx, letters, time.Now()); err != nil {
			return out, err // they come in once more at the next try, over themselves
		}
		out.Replayed += len(letters)
		if f.After = next; next == "" {
			return out, nil
		}
	}
}

// again puts the messages of letters into the log and returns when they are durable.
func (p *Pipeline) again(ctx context.Context, letters []citywarden.DeadLetter) error {
	var ups []citywarden.Uplink
	for i := range letters {
		up := citywarden.AsSent(letters[i].Uplink())
		parts, _ := split(p.directory, &up)
		ups = append(ups, parts...)
	}
	done := make(chan error, len(ups))
	for _, up := range ups {
		if err := p.admit(ctx); err != nil {
			return citywarden.Errorf(citywarden.CodeTransient, "bring in the dead letter of device %s: %w", up.Device, err)
		}
		p.log.Append(citywarden.Record{Kind: citywarden.RecordUplink, Uplink: &up}, func(_ citywarden.Position, err error) { done <- err })
	}
	for range ups {
		if err := <-done; err != nil {
			return err
		}
	}
	return nil
}
