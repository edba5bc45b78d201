package ingest

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
)

const (
	ledgerName = "ledger"
	// ledgerBatch, ledgerLetters and ledgerEvery say when what the ledger has counted
	// is saved: at so many entries or dead letters, and so often.
	ledgerBatch   = 20_000
	ledgerLetters = 1000
	ledgerEvery   = 500 * time.Millisecond

	// keepLetters is how many dead letters are kept, the newest; the oldest go
	// every trimLetters.
	keepLetters = 1_000_000
	maxGaps     = 10_000 // of one answer
	trimLetters = time.Hour
)

// LedgerStore keeps the ledger.
type LedgerStore interface {
	// Cursor returns the position a consumer's work reaches, 0 at first.
	Cursor(ctx context.Context, name string) (citywarden.Position, error)
	// SaveLedger adds the rows of add to what is stored for their device and hour, adds its dead
	// letters, remembers who was heard and the outages, of which one that begins when another does takes its place, and moves the
	// cursor from one position to the next, all or nothing. It does nothing when the cursor is at to already, and returns CodeConflict when it is
	// neither there nor at from.
	SaveLedger(ctx context.Context, name string, from, to citywarden.Position, add citywarden.LedgerAdd) error
	// LastHeard returns what SaveLedger was given last of each device, that of "" first.
	LastHeard(ctx context.Context) ([]citywarden.LastHeard, error)
	// Gaps returns those of a device that end after from and begin before to, by when they end; at most 10,000.
	Gaps(ctx context.Context, device citywarden.DeviceID, from, to time.Time) ([]citywarden.Gap, error)
	// Outages returns those that end after from and, unless to is zero, begin before it, by when they begin.
	Outages(ctx context.Context, from, to time.Time) ([]citywarden.Gap, error)
	// TrimGaps removes all but the newest keep gaps, and as many outages.
	TrimGaps(ctx context.Context, keep int) error
	// LedgerRows returns the rows of the hours that begin in [from, to), of one device or
	// with "" of all, by hour and device.
	LedgerRows(ctx context.Context, from, to time.Time, device citywarden.DeviceID) ([]citywarden.LedgerRow, error)
	// TrimLedger removes the rows of the oldest hour, if that began before before, and returns how many those were.
	TrimLedger(ctx context.Context, before time.Time) (int64, error)
	// LedgerPage returns rows by hour and device, and the cursor of the next page.
	LedgerPage(ctx context.Context, f citywarden.LedgerFilter) ([]citywarden.LedgerRow, string, error)
	// DeadLetters returns dead letters and the cursor of the next page, "" when there is none.
	DeadLetters(ctx context.Context, f citywarden.DeadLetterFilter) ([]citywarden.DeadLetter, string, error)
	// SetReplayed notes that dead letters were brought in again at that time.
	SetReplayed(ctx context.Context, letters []citywarden.DeadLetter, at time.Time) error
	// Amended returns, of the messages behind after, those of which the time series refused something and those
	// of which a dead letter of the decoding was brought in again.
	Amended(ctx context.Context, after citywarden.Position) (refused, again []citywarden.Position, err error)
	// TrimDeadLetters removes all but the newest keep and returns how many.
	TrimDeadLetters(ctx context.Context, keep int) (int64, error)
}

// Ledger is the consumer "ledger": it counts what became of every reading,
// exactly once also across restarts, notices what never came, and keeps what could not be used. Its
// methods may be called by several goroutines.
type Ledger struct {
	store LedgerStore
	keep  time.Duration // of the rows, 0 for ever
	log   *slog.Logger

	mu      sync.Mutex // held while saving, so that batches are saved in order
	known   bool       // saved was read from the store
	saved   citywarden.Position
	counted citywarden.Position // what the counts below reach up to
	entries int
	rows    map[ledgerKey]*citywarden.LedgerRow
	dead    []citywarden.DeadLetter
	gaps    gaps
}

type ledgerKey struct {
	device citywarden.DeviceID
	hour   int64 // since 1970
}

// NewLedger returns a Ledger that saves to s and keeps the rows of hours for keep, 0 for ever; log may be nil.
func NewLedger(s LedgerStore, keep time.Duration, log *slog.Logger) *Ledger {
	return &Ledger{
		store: s, keep: keep, log: cmp.Or(log, slog.Default()),
		rows: map[ledgerKey]*citywarden.LedgerRow{},
		gaps: gaps{heard: map[citywarden.DeviceID]citywarden.LastHeard{}, changed: map[citywarden.DeviceID]bool{}},
	}
}

// Name implements Consumer.
func (l *Ledger) Name() string { return ledgerName }

// Cursor implements Consumer: up to where the ledger is saved.
func (l *Ledger) Cursor(ctx context.Context) (citywarden.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.load(ctx); err != nil {
		return 0, err
	}
	return l.saved, nil
}

func (l *Ledger) load(ctx context.Context) error {
	if l.known {
		return nil
	}
	at, err := l.store.Cursor(ctx, ledgerName)
	if err != nil {
		return err
	}
	heard, err := l.store.LastHeard(ctx)
	if err != nil {
		return err
	}
	var newest time.Time
	if n := len(heard); n > 0 && heard[0].Device == "" {
		newest = heard[0].At
	}
	outages, err := l.store.Outages(ctx, newest.Add(-maxSilence), time.Time{})
	if err != nil {
		return err
	}
	l.gaps.load(heard, outages)
	l.saved, l.counted, l.known = at, at, true
	return nil
}

// Consume implements Consumer. It counts in memory and saves when 20,000
// entries were counted, or 1,000 dead letters; Run saves the rest. It fails when that many can't be saved.
func (l *Ledger) Consume(ctx context.Context, entries []citywarden.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.load(ctx); err != nil {
		return err
	}
	for i := range entries {
		if entries[i].Position > l.counted {
			l.count(&entries[i])
		}
	}
	if l.entries < ledgerBatch && len(l.dead) < ledgerLetters {
		return nil
	}
	return l.save(ctx)
}

func (l *Ledger) count(e *citywarden.Entry) {
	l.counted = e.Position
	l.entries++
	l.gaps.note(e, l.row)
	if e.Kind != citywarden.RecordUplink {
		return
	}
	l.row(e.Uplink.Device, e.At.UTC().Truncate(time.Hour)).Add(e)
	if e.Reject != nil {
		l.dead = append(l.dead, *e.Reject)
	}
}

// row returns what was counted of a device and hour since the last save.
func (l *Ledger) row(device citywarden.DeviceID, hour time.Time) *citywarden.LedgerRow {
	key := ledgerKey{device, hour.Unix() / 3600}
	r := l.rows[key]
	if r == nil {
		r = &citywarden.LedgerRow{Device: device, Hour: hour}
		l.rows[key] = r
	}
	return r
}

// save stores what was counted. Call it with mu held, which it keeps across
// the transaction: nothing may be counted into rows that are being saved.
func (l *Ledger) save(ctx context.Context) error {
	if l.counted == l.saved {
		return nil
	}
	rows := make([]citywarden.LedgerRow, 0, len(l.rows))
	for _, r := range l.rows {
		rows = append(rows, *r)
	}
	slices.SortFunc(rows, func(a, b citywarden.LedgerRow) int { // a message that comes late belongs to a gap before it
		return cmp.Or(a.Hour.Compare(b.Hour), cmp.Compare(a.Device, b.Device))
	})
	add := citywarden.LedgerAdd{Rows: rows, Dead: l.dead}
	add.Heard, add.Outages = l.gaps.save()
	if err := l.store.SaveLedger(ctx, ledgerName, l.saved, l.counted, add); err != nil {
		return fmt.Errorf("save ledger up to group %d: %w", l.counted.Group(), err)
	}
	l.saved, l.entries, l.dead = l.counted, 0, nil
	clear(l.rows)
	l.gaps.saved()
	return nil
}

// flush saves what was counted so far.
func (l *Ledger) flush(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.save(ctx)
}

// Run saves every 500 ms until ctx is done, and then once more. Start it
// before the pipeline and end it after. Once an hour it lets the oldest dead letters go beyond the
// newest 1,000,000, and the oldest gaps beyond as many, and the rows of hours that are not to be kept any more, those
// of one hour each time that it saves.
func (l *Ledger) Run(ctx context.Context) error {
	old := false // there may be rows that are not to be kept
	for trimmed := time.Now(); pause(ctx, ledgerEvery); {
		if time.Since(trimmed) >= trimLetters {
			trimmed, old = time.Now(), l.keep > 0
			l.trim(ctx)
		}
		old = old && l.trimHour(ctx)
		if err := l.flush(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn("ledger not saved; it is tried again", "err", err)
		}
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := l.flush(end); err != nil {
		l.log.Warn("ledger not saved; the same messages are counted after the restart", "err", err)
	}
	return nil
}

// trimHour removes the rows of the oldest hour that is not to be kept, and reports whether there was one.
func (l *Ledger) trimHour(ctx context.Context) bool {
	n, err := l.store.TrimLedger(ctx, time.Now().Add(-l.keep))
	if err != nil && ctx.Err() == nil {
		l.log.Warn("ledger not trimmed", "err", err)
	}
	return n > 0 && err == nil
}

func (l *Ledger) trim(ctx context.Context) {
	if err := l.store.TrimGaps(ctx, keepLetters); err != nil && ctx.Err() == nil {
		l.log.Warn("gaps not trimmed", "err", err)
	}
	n, err := l.store.TrimDeadLetters(ctx, keepLetters)
	switch {
	case err != nil && ctx.Err() == nil:
		l.log.Warn("dead letters not trimmed", "err", err)
	case n > 0:
		l.log.Warn("the oldest dead letters were removed", "letters", n, "kept", keepLetters)
	}
}

// balance returns the rows of the hours from from on, and the position up to
// which they count.
func (l *Ledger) balance(ctx context.Context, from time.Time) ([]citywarden.LedgerRow, citywarden.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.load(ctx); err != nil {
		return nil, 0, err
	}
	if err := l.save(ctx); err != nil {
		return nil, 0, err
	}
	rows, err := l.store.LedgerRows(ctx, from, time.Time{}, "")
	return rows, l.saved, err
}

// Rows returns the rows that f selects by hour and device, and the cursor of the next
// page, "" when there is none.
func (l *Ledger) Rows(ctx context.Context, f citywarden.LedgerFilter) ([]citywarden.LedgerRow, string, error) {
	if err := l.flush(ctx); err != nil {
		return nil, "", err
	}
	return l.store.LedgerPage(ctx, f)
}

// Gaps returns when between from and to it is not known what a device measured, because it was silent for
// longer than twice the heartbeat of its model, by its sequence numbers messages are missing, or for half a minute or longer
// the platform itself heard nobody; by when they end, at most 10,000. A
// silence that lasts is there when it ends. Those of the last moment are left out while the ledger can't
// be saved.
func (l *Ledger) Gaps(ctx context.Context, device citywarden.DeviceID, from, to time.Time) ([]citywarden.Gap, error) {
	_ = l.flush(ctx) // Run tries again, and says so
	all, err := l.store.Gaps(ctx, device, from, to)
	if err != nil {
		return nil, err
	}
	outages, err := l.store.Outages(ctx, from, to)
	if err != nil {
		return nil, err
	}
	for _, o := range outages {
		if o.To.Sub(o.From) >= citywarden.Outage { // else it is a stumble
			all = append(all, o)
		}
	}
	slices.SortStableFunc(all, func(a, b citywarden.Gap) int { return a.To.Compare(b.To) })
	return all[:min(len(all), maxGaps)], nil
}

// DeadLetters returns what could not be used, and the cursor of the next page,
// "" when there is none.
func (l *Ledger) DeadLetters(ctx context.Context, f citywarden.DeadLetterFilter) ([]citywarden.DeadLetter, string, error) {
	if err := l.flush(ctx); err != nil {
		return nil, "", err
	}
	return l.store.DeadLetters(ctx, f)
}
