package ingest_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/ingest"
	"github.com/citywarden/citywarden/ingest/journal"
	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
)

type directory struct{ model citywarden.Model }

func (*directory) Child(_ citywarden.DeviceID, name string) (citywarden.DeviceID, error) {
	return "", citywarden.Errorf(citywarden.CodeNotFound, "no device %q", name)
}

func (d *directory) Device(id citywarden.DeviceID) (*citywarden.Device, *citywarden.Model, error) {
	return &citywarden.Device{ID: id, Model: d.model.Name}, &d.model, nil
}

// sent counts what a device was told to be durable.
type sent struct{ stored, rejected, duplicate, quarantined atomic.Int64 }

// The platform is stopped again and again without a word to the ledger, which
// then has counted more than it saved. In the end every reading that was acknowledged was
// counted once.
func TestTheLedgerBalancesAcrossCrashes(t *testing.T) {
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	dev := &directory{citywarden.Model{Name: "meter", Codec: "json", Metrics: []citywarden.Metric{{Name: "energy", Kind: citywarden.KindNumber}}}}
	db := pgtest.Open(t, filepath.Join(dir, "x.db"), store.Open)
	random := rand.New(rand.NewPCG(1, 2))
	counts := map[citywarden.DeviceID]*sent{"a": {}, "b": {}, "c": {}}
	devices := []citywarden.DeviceID{"a", "b", "c"}
	number := 0
	var ledger *ingest.Ledger
	for round := range 8 {
		j, err := journal.Open(t.Context(), journal.Options{Dir: filepath.Join(dir, "log"), Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		ledger = ingest.NewLedger(db, 0, log)
		p, err := ingest.New(ingest.Options{Log: j, Directory: dev, Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		p.Attach(ledger)
		ctx, crash := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { j.Run(ctx) })
		running.Go(func() {
			if err := p.Run(ctx); err != nil {
				t.Errorf("Run = %v", err)
			}
		})
		var acks sync.WaitGroup
		for range 300 + random.IntN(1500) {
			number++
			device := devices[random.IntN(len(devices))]
			c := counts[device]
			what, payload := &c.stored, fmt.Sprintf(`{"ts":%d,"values":{"energy":%d}}`, 1795420000000+number, number)
			switch random.IntN(10) {
			case 0:
				what, payload = &c.rejected, `{"energy":`
			case 1:
				what, payload = &c.quarantined, fmt.Sprintf(`{"ts":%d,"values":{"energy":1}}`, number)
			case 2:
				// Sent twice: the first is stored, the second a duplicate, on whichever side of a crash.
				acks.Add(1)
				p.Accept(ctx, citywarden.Uplink{Device: device, Protocol: "mqtt", Topic: "v1/devices/me/telemetry", Payload: []byte(payload)}, func(err error) {
					if err == nil {
						c.stored.Add(1)
					}
					acks.Done()
				})
				what = &c.duplicate
			}
			acks.Add(1)
			p.Accept(ctx, citywarden.Uplink{Device: device, Protocol: "mqtt", Topic: "v1/devices/me/telemetry", Payload: []byte(payload)}, func(err error) {
				if err == nil {
					what.Add(1)
				}
				acks.Done()
			})
		}
		acks.Wait()
		if round == 7 {
			if err := p.Wait(t.Context(), "ledger", j.Last()); err != nil {
				t.Fatal(err)
			}
		}
		crash() // the ledger's Run never ran: what it had not saved is gone
		running.Wait()
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}

	rows, _, err := ledger.Rows(t.Context(), citywarden.LedgerFilter{To: time.Now().Add(time.Hour), Page: citywarden.Page{Limit: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[citywarden.DeviceID]citywarden.LedgerRow{}
	for _, r := range rows { // more than one when the hour changed meanwhile
		if r.Received != r.Stored+r.Rejected+r.Duplicate+r.Quarantined {
			t.Errorf("%+v does not balance", r)
		}
		sum := got[r.Device]
		sum.Messages += r.Messages
		sum.Stored += r.Stored
		sum.Rejected += r.Rejected
		sum.Duplicate += r.Duplicate
		sum.Quarantined += r.Quarantined
		got[r.Device] = sum
	}
	want := map[citywarden.DeviceID]citywarden.LedgerRow{}
	letters := 0
	for id, c := range counts {
		r := citywarden.LedgerRow{Stored: c.stored.Load(), Rejected: c.rejected.Load(), Duplicate: c.duplicate.Load(), Quarantined: c.quarantined.Load()}
		r.Messages = r.Stored + r.Rejected + r.Duplicate + r.Quarantined
		want[id] = r
		letters += int(r.Rejected + r.Quarantined)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ledger (-acknowledged +counted):\n%s", diff)
	}

	found := 0
	for page := (citywarden.Page{Limit: 100}); ; {
		list, next, err := ledger.DeadLetters(t.Context(), citywarden.DeadLetterFilter{Page: page})
		if err != nil {
			t.Fatal(err)
		}
		found += len(list)
		if page.After = next; next == "" {
			break
		}
	}
	if found != letters {
		t.Errorf("%d dead letters, want %d", found, letters)
	}
}

// A message over the whole way costs this much; Append alone is measured in
// package journal.
func BenchmarkPipeline(b *testing.B) {
	log := slog.New(slog.DiscardHandler)
	dev := &directory{citywarden.Model{Name: "meter", Codec: "json", Metrics: []citywarden.Metric{{Name: "energy", Kind: citywarden.KindNumber}, {Name: "power", Kind: citywarden.KindNumber}}}}
	db, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "x.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	j, err := journal.Open(b.Context(), journal.Options{Dir: b.TempDir(), Logger: log})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	ledger := ingest.NewLedger(db, 0, log)
	p, err := ingest.New(ingest.Options{Log: j, Directory: dev, Logger: log})
	if err != nil {
		b.Fatal(err)
	}
	p.Attach(ledger)
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { j.Run(ctx) })
	running.Go(func() { p.Run(ctx) })
	defer running.Wait()
	defer cancel()
	b.ResetTimer()
	var acks sync.WaitGroup
	acks.Add(b.N)
	for i := range b.N {
		p.Accept(ctx, citywarden.Uplink{Device: "a", Protocol: "mqtt", Topic: "v1/devices/me/telemetry",
			Payload: fmt.Appendf(nil, `{"ts":%d,"values":{"energy":%d,"power":0.5}}`, 1795420000000+i, i)}, func(err error) {
			if err != nil {
				b.Error(err)
			}
			acks.Done()
		})
	}
	acks.Wait()
	if err := p.Wait(ctx, "ledger", j.Last()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
