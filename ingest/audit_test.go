package ingest_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/ingest"
	"github.com/citywarden/citywarden/ingest/influx"
	"github.com/citywarden/citywarden/ingest/journal"
	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
)

// holes is the time series without some readings of one device.
type holes struct {
	*influx.Series
	device citywarden.DeviceID
	metric citywarden.MetricName
}

func (h *holes) Rows(ctx context.Context, d citywarden.Domain, q citywarden.HistoryQuery) ([]citywarden.SeriesRow, error) {
	rows, err := h.Series.Rows(ctx, d, q)
	for i := range rows {
		if rows[i].Device == h.device {
			delete(rows[i].Values, h.metric)
		}
	}
	return rows, err
}

// unread is a store whose dead letters nobody may read, as an audit of a million would for a long time.
type unread struct {
	*store.DB
	t *testing.T
}

func (u unread) DeadLetters(context.Context, citywarden.DeadLetterFilter) ([]citywarden.DeadLetter, string, error) {
	u.t.Error("the dead letters are read")
	return nil, "", nil
}

// TestAudit has everything that a message can be, and then books that lie.
func TestAudit(t *testing.T) {
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	dev := &directory{citywarden.Model{Name: "meter", Domain: citywarden.Building, Codec: "json", Metrics: []citywarden.Metric{
		{Name: "energy", Kind: citywarden.KindNumber}, {Name: "power", Kind: citywarden.KindNumber}}}}
	db := pgtest.Open(t, filepath.Join(dir, "x.db"), store.Open)
	j, err := journal.Open(t.Context(), journal.Options{Dir: filepath.Join(dir, "log"), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	core, err := influx.OpenCore(filepath.Join(dir, "series"))
	if err != nil {
		t.Fatal(err)
	}
	defer core.Close()
	series, err := influx.New(influx.Options{Transport: core.Transport(), Cursors: db, Refusals: db})
	if err != nil {
		t.Fatal(err)
	}
	ledger := ingest.NewLedger(unread{db, t}, 0, log)
	p, err := ingest.New(ingest.Options{Log: j, Directory: dev, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	p.Attach(ledger)
	p.Attach(series)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { j.Run(ctx) })
	running.Go(func() { p.Run(ctx) })
	begun := time.Now()
	var acks sync.WaitGroup
	for i := range 300 {
		device := citywarden.DeviceID(fmt.Sprint("m", i%7))
		at := begun.Add(time.Duration(i-300) * time.Minute).UnixMilli() // a backlog of five hours
		payload := fmt.Sprintf(`{"ts":%d,"values":{"energy":%d,"power":0.5}}`, at, i)
		switch i % 10 {
		case 3:
			payload = `{"energy":`
		case 4:
			payload = fmt.Sprintf(`{"ts":%d,"values":{"energy":1}}`, i)
		case 5:
			payload = fmt.Sprintf(`{"energy":%d,"volume":1}`, i) // half of it is of use, now
		}
		for range 1 + i%2 { // every second one is a duplicate
			acks.Add(1)
			p.Accept(ctx, citywarden.Uplink{Device: device, Protocol: "mqtt", Topic: "v1/devices/me/telemetry", Payload: []byte(payload)}, func(err error) {
				if err != nil {
					t.Error(err)
				}
				acks.Done()
			})
		}
	}
	acks.Wait()
	for _, name := range []string{"ledger", "series"} {
		if err := p.Wait(t.Context(), name, j.Last()); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	running.Wait()
	if err := series.Close(); err != nil { // stores its cursor
		t.Fatal(err)
	}

	hole := &holes{Series: series}
	audit := func() citywarden.Audit {
		t.Helper()
		a := &ingest.Auditor{
			History: ingest.History{Log: j, Directory: dev, Series: hole, Domains: []citywarden.Domain{citywarden.Building}},
			Ledger:  ledger, Written: series.Written,
		}
		r, err := a.Audit(t.Context(), begun.Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := audit()
	if r.Found != 0 || len(r.Notes) != 0 || r.Messages != 450 || r.Points != r.Readings || r.Points < 400 {
		t.Fatalf("an audit of books that agree: %+v", r)
	}

	// Since then one message was brought in again, and the series refused what was of use of another.
	letters, _, err := db.DeadLetters(t.Context(), citywarden.DeadLetterFilter{Oldest: true, Page: citywarden.Page{Limit: citywarden.MaxPage}})
	if err != nil {
		t.Fatal(err)
	}
	half := slices.IndexFunc(letters, func(l citywarden.DeadLetter) bool { return strings.Contains(string(l.Payload), "volume") })
	none := slices.IndexFunc(letters, func(l citywarden.DeadLetter) bool { return string(l.Payload) == `{"energy":` })
	if err := db.SetReplayed(t.Context(), letters[none:none+1], time.Now()); err != nil {
		t.Fatal(err)
	}
	refused := citywarden.Refused{DeadLetter: letters[half], Logged: begun, Readings: 1}
	refused.Stage = citywarden.FailedSeries
	if err := db.SaveRefused(t.Context(), []citywarden.Refused{refused}); err != nil {
		t.Fatal(err)
	}
	points := r.Points
	r = audit()
	if r.Found != 0 || r.Points != points-1 || len(r.Notes) != 1 || !strings.HasPrefix(r.Notes[0], "dead letters brought in again since: 1;") {
		t.Fatalf("an audit with a message brought in again and one that was refused: %+v", r)
	}

	hole.device, hole.metric = "m2", "power"
	lie := citywarden.LedgerRow{Device: "m3", Hour: begun.UTC().Truncate(time.Hour), Messages: 1, Received: 1, Stored: 1}
	old := citywarden.LedgerRow{Device: "m4", Hour: lie.Hour.Add(-time.Hour), Messages: 1, Received: 1, Duplicate: 1}
	at, err := ledger.Cursor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.SaveLedger(t.Context(), "ledger", at, at+1, citywarden.LedgerAdd{Rows: []citywarden.LedgerRow{lie, old}}); err != nil {
		t.Fatal(err)
	}
	r = audit()
	var got []string
	missing := int64(0)
	for _, d := range r.Differences {
		if d.Book == "series" {
			missing += d.Expected
			if d.Device != "m2" || d.Metric != "power" {
				t.Errorf("%+v", d)
			}
			continue
		}
		got = append(got, fmt.Sprintf("%s %d", d.Device, d.Found-d.Expected))
		if !strings.Contains(d.Text, "messages: ") || strings.Contains(d.Text, "decoded differently") {
			t.Errorf("%+v does not say what differs, or blames the model for a lack of messages", d)
		}
	}
	if diff := cmp.Diff([]string{"m4 1", "m3 1"}, got); diff != "" {
		t.Errorf("the ledger:\n%s", diff)
	}
	if missing < 20 || r.Found != int64(len(r.Differences)) {
		t.Errorf("%d points of m2 are missing: %+v", missing, r)
	}
}
