package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/citywarden/citywarden"
)

type ledgerCmd struct {
	remote
	Device string `arg:"" optional:"" help:"Only of that device."`
	Since  string `help:"How far back: 24h, 7d; at most 30d." default:"24h" placeholder:"DURATION"`
	Gaps   bool   `help:"Only hours in which messages are missing or a device was silent."`
}

// Run prints what became of the readings, by hour and device.
func (l *ledgerCmd) Run(ctx context.Context, o output) error {
	since, err := citywarden.ParseDuration(l.Since)
	if err != nil || since <= 0 {
		return &usageError{fmt.Sprintf("--since %s: write it like 24h or 7d", l.Since)}
	}
	c, err := l.client(ctx)
	if err != nil {
		return err
	}
	q := url.Values{"limit": {"1000"}, "from": {time.Now().Add(-since.Std()).UTC().Truncate(time.Hour).Format(time.RFC3339)}}
	if l.Device != "" {
		q.Set("device", l.Device)
	}
	all := []citywarden.LedgerRow{}
	if err := list(ctx, c, "/ledger", q, func(r citywarden.LedgerRow) error {
		if !l.Gaps || r.Missing != 0 || r.Silent != 0 {
			all = append(all, r)
		}
		return nil
	}); err != nil {
		return err
	}
	if l.JSON {
		return toJSON(o.out, all)
	}
	at, err := c.stamp(ctx)
	if err != nil {
		return err
	}
	rows := [][]string{{"HOUR", "DEVICE", "MESSAGES", "RECEIVED", "STORED", "REJECTED", "DUPLICATE", "QUARANTINED", "MISSING", "SILENT"}}
	for _, r := range all {
		row := []string{at(r.Hour), string(r.Device)}
		for _, n := range []int64{r.Messages, r.Received, r.Stored, r.Rejected, r.Duplicate, r.Quarantined, r.Missing} {
			row = append(row, strconv.FormatInt(n, 10))
		}
		rows = append(rows, append(row, (time.Duration(r.Silent)*time.Second).String()))
	}
	table(o.out, rows)
	return nil
}
