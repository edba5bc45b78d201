package app

import (
	"context"
	"slices"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/ingest"
)

// history reads what came in, as long as the live platform keeps up.
type history struct {
	*ingest.History
	lag func() map[string]uint64
}

const (
	behindLive = 8                     // commit groups that alarms and latest values may be behind
	waitLive   = 50 * time.Millisecond // before looking again
)

func (b *building) history() history {
	return history{&ingest.History{Log: b.journal, Directory: b.devices, Series: b.series, Domains: b.domains()},
		func() map[string]uint64 { return b.ingest.Lag() }} // the pipeline comes later
}

// domains returns the domains that there are models of.
func (b *building) domains() []citywarden.Domain {
	var out []citywarden.Domain
	for _, m := range b.models.All() {
		if !slices.Contains(out, m.Domain) {
			out = append(out, m.Domain)
		}
	}
	return out
}

func (b *building) books() *books {
	return &books{Ledger: b.ledger, pipeline: b.ingest, auditor: &ingest.Auditor{
		History: *b.history().History, Ledger: b.ledger, Written: b.series.Written, Retention: b.config.Series.Retention.Std(),
	}}
}

// Entries is that of ingest.History; before each piece it waits until the live
// platform has nothing more urgent to do.
func (h history) Entries(ctx context.Context, q citywarden.HistoryQuery, f func([]citywarden.Entry) error) (time.Time, error) {
	return h.History.Entries(ctx, q, func(entries []citywarden.Entry) error {
		for {
			lag := h.lag()
			if max(lag["alarms"], lag["latest"]) <= behindLive {
				return f(entries)
			}
			select {
			case <-time.After(waitLive):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
}
