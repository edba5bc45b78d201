package ingest

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/citywarden/citywarden"
)

const (
	rollupName = "rollups"
	// rollupGrace is how long after its end, by the clock of the log, a window is
	// still open. What comes later has it computed again.
	rollupGrace = time.Minute
	// rollupPoints bounds the readings that open windows hold one by one; beyond it windows
	// are computed from the series instead.
	rollupPoints = 4_000_000
	// rollupApart is how many of the newest readings a window holds one by one at least, so that each finds its place among
	// them; at twice as many the older half is added up.
	rollupApart = 256
	// rollupLate is how often at most late readings have their windows computed again.
	rollupLate = time.Second
	// rollupKept is for how long at least all that a window is computed from is kept. Older windows are compared with what
	// is stored before they are written over it.
	rollupKept = time.Hour
	// rollupEdge is for how long it is taken as known since when readings or rollups are kept.
	rollupEdge = time.Minute
	// rollupSpan is how much of the series is read at a time to compute windows again.
	rollupSpan = 24 * time.Hour
)

// RollupStore keeps readings and rollups.
type RollupStore interface {
	Rows
	// RollupRows returns the rollups of a level whose windows begin in q's time, as Rows does.
	RollupRows(ctx context.Context, level time.Duration, domain citywarden.Domain, q citywarden.HistoryQuery) ([]citywarden.RollupRow, error)
	// WriteRollups stores rows, over those of the same device and window. anew says, also with an error, that what the
	// level held before is gone, as somebody has deleted it; then it holds none of rows either, as windows between them and
	// those that come would be missing.
	WriteRollups(ctx context.Context, level time.Duration, domain citywarden.Domain, rows []citywarden.RollupRow) (anew bool, err error)
	// OldestRollup returns the begin of the oldest window that is kept, with level 0 the time of the oldest reading, zero for none.
	OldestRollup(ctx context.Context, level time.Duration, domain citywarden.Domain) (time.Time, error)
}

// ReadingStore is the series of the readings themselves.
type ReadingStore interface {
	Query(ctx context.Context, q citywarden.SeriesQuery) ([]citywarden.SeriesPoint, error)
	// Store writes readings that are not from the log. refused says for each entry
	// why the server did not take it, nil when it did.
	Store(ctx context.Context, entries []citywarden.Entry) (refused []error, err error)
	// Reached returns once the readings of the log up to p are written.
	Reached(ctx context.Context, p citywarden.Position) error
}

// RollupCursors remember how far the rollups are.
type RollupCursors interface {
	Cursor(ctx context.Context, name string) (citywarden.Position, error)
	SetCursor(ctx context.Context, name string, p citywarden.Position) error
}

// RollupOptions are what Rollups need: all but the logger.
type RollupOptions struct {
	Store     RollupStore
	Series    ReadingStore
	Cursors   RollupCursors
	Directory Directory
	Domains   []citywarden.Domain
	Logger    *slog.Logger // nil for slog.Default
}

// Rollups is the consumer "rollups". It rolls up the numbers among the readings
// in windows of each length of RollupLevels: as they come while a window is
// open, and again from the series when readings come late, and for the windows in which the
// platform was started. A window is always what the readings of the series in it come to, however
// often they came and in which order. It answers queries, from the rollups where they can.
//
// A window of minutes is closed when the log reaches a minute after its end. The
// cursor stays before the first reading of a window that is open. Longer windows
// that were open when the platform was stopped are computed from the shorter ones.
type Rollups struct {
	opt RollupOptions
	log *slog.Logger

	mu      sync.Mutex
	known   bool // reached and saved are read
	reached citywarden.Position
	saved   citywarden.Position
	begun   bool      // the first entry since the start was seen
	whole   time.Time // windows of minutes that begin before are not whole in memory
	levels  []*rollupLevel
	points  int                 // in the windows of minutes
	late    bool                // there are windows that must be computed again
	missed  citywarden.Position // of the oldest reading that one of them above the minutes is for and no minute, 0 for none
	lateAt  time.Time           // when that was done last
	stage   int                 // of a flush that failed: the level to go on with
	to      time.Time           // of that flush; zero when there is none
	closed  time.Time           // windows of minutes that end before are closed
	kept    map[rollupSource]rollupKeeps

	there atomic.Pointer[rollupsThere]
}

// rollupLevel is the windows of one length.
type rollupLevel struct {
	length  time.Duration
	windows map[int64]map[rollupKey]*rollupWindow // by the seconds of their begin
	since   map[citywarden.Domain]time.Time       // windows that begin before are not rolled up
	redo    []int64                               // windows to be computed again for all devices, once they close
}

// rollupSource is what windows are computed from: a level, or with 0 the readings.
type rollupSource struct {
	length time.Duration
	domain citywarden.Domain
}

// rollupKeeps is since when a source was kept at a time, zero for nothing.
type rollupKeeps struct{ since, at time.Time }

type rollupKey struct {
	domain citywarden.Domain
	device citywarden.DeviceID
	metric citywarden.MetricName
}

// rollupWindow is a window of one metric that is open, or to be computed again.
type rollupWindow struct {
	first    citywarden.Position // of its first reading, on the level of minutes
	points   []rollupPoint       // the newest by time, each time once; on the level of minutes
	total    citywarden.Rollup   // of those before points
	summed   int64               // the time of the newest in total, on the level of minutes
	rollover float64
	dirty    bool // to be computed from the level below
}

type rollupPoint struct {
	at int64
	v  float64
}

// NewRollups returns Rollups.
func NewRollups(o RollupOptions) *Rollups {
	r := &Rollups{opt: o, log: cmp.Or(o.Logger, slog.Default()), kept: map[rollupSource]rollupKeeps{}}
	for _, l := range citywarden.RollupLevels() {
		r.levels = append(r.levels, &rollupLevel{
			length: l, windows: map[int64]map[rollupKey]*rollupWindow{}, since: map[citywarden.Domain]time.Time{},
		})
	}
	return r
}

// Name implements Consumer.
func (r *Rollups) Name() string { return rollupName }

// Cursor implements Consumer: before the first reading of an open window.
func (r *Rollups) Cursor(ctx context.Context) (citywarden.Position, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.load(ctx)
	return r.saved, err
}

func (r *Rollups) load(ctx context.Context) error {
	if r.known {
		return nil
	}
	p, err := r.opt.Cursors.Cursor(ctx, rollupName)
	if err != nil {
		return err
	}
	r.reached, r.saved, r.known = p, p, true
	return nil
}

// Consume implements Consumer. It waits until the series are as far.
func (r *Rollups) Consume(ctx context.Context, entries []citywarden.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	if err := r.opt.Series.Reached(ctx, last(entries)); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.load(ctx); err != nil {
		return err
	}
	for i := range entries {
		e := &entries[i]
		if e.Position <= r.reached {
			continue
		}
		if err := r.begin(ctx, e.At); err != nil {
			return err
		}
		if err := r.advance(ctx, e.At); err != nil {
			return err
		}
		r.add(e)
		r.reached = e.Position
	}
	return r.again(ctx)
}

// begin notes where the history that this process sees begins: what is in memory
// of the windows before is not all of them.
func (r *Rollups) begin(ctx context.Context, at time.Time) error {
	if r.begun {
		return nil
	}
	whole := at.Add(maxAhead)
	for _, d := range r.opt.Domains {
		after := whole // when nothing was ever rolled up
		for _, l := range r.levels {
			oldest, err := r.opt.Store.OldestRollup(ctx, l.length, d)
			if err != nil {
				return err
			}
			if oldest.IsZero() {
				oldest = ceil(after, l.length)
			}
			l.since[d], after = oldest, oldest
		}
	}
	for _, l := range r.levels[1:] {
		for w := at.Add(-rollupGrace).Truncate(l.length); w.Before(whole); w = w.Add(l.length) {
			l.redo = append(l.redo, w.Unix())
		}
	}
	r.whole, r.begun = whole, true
	r.closed = at.Add(-rollupGrace).Truncate(time.Minute)
	r.publish()
	return nil
}

func ceil(t time.Time, d time.Duration) time.Time {
	if c := t.Truncate(d); c.Before(t) {
		return c.Add(d)
	}
	return t
}

// advance closes the windows that are due when the log has come to at.
func (r *Rollups) advance(ctx context.Context, at time.Time) error {
	to := at.Add(-rollupGrace).Truncate(time.Minute)
	for to.After(r.closed) || !r.to.IsZero() {
		if r.to.IsZero() { // else one that failed before is first
			r.to = to
		}
		if err := r.flush(ctx); err != nil {
			return err
		}
		if err := r.save(ctx); err != nil {
			return err
		}
	}
	return nil
}

// again has windows computed again that late readings came for.
func (r *Rollups) again(ctx context.Context) error {
	if !r.late && r.to.IsZero() || time.Since(r.lateAt) < rollupLate || r.closed.IsZero() {
		return nil
	}
	if r.to.IsZero() {
		r.to = r.closed
	}
	if err := r.flush(ctx); err != nil {
		return err
	}
	return r.save(ctx)
}

// Run has windows computed again that the last late readings came for, until ctx is done.
func (r *Rollups) Run(ctx context.Context) error {
	for pause(ctx, 2*rollupLate) {
		r.mu.Lock()
		err := r.again(ctx)
		r.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			r.log.Warn("rollups of late readings not written; it is tried again", "err", err)
		}
	}
	return nil
}

// add adds the numbers of e to their windows of minutes.
func (r *Rollups) add(e *citywarden.Entry) {
	if e.Device == nil || e.Model == nil {
		return
	}
	l := r.levels[0]
	for i := range e.Readings {
		x := &e.Readings[i]
		v := x.Value.Float()
		if x.Value.Kind() != citywarden.KindNumber || v-v != 0 { // the series hold no infinite ones
			continue
		}
		begin := x.Time.Truncate(l.length)
		if since, ok := l.since[e.Model.Domain]; !ok {
			continue
		} else if begin.Before(since) {
			r.miss(e, x)
			continue
		}
		w := l.window(begin.Unix(), rollupKey{e.Model.Domain, e.Device.ID, x.Metric})
		if w.first == 0 {
			w.first = e.Position
			w.rollover = rollover(e.Model, x.Metric)
		}
		if !w.dirty && (begin.Before(r.whole) || !begin.Add(l.length).After(r.closed) || r.points >= rollupPoints) {
			w.dirty = true
		}
		n := len(w.points)
		if w.dirty = w.dirty || !w.put(rollupPoint{x.Time.UnixNano(), v}); w.dirty {
			r.late = r.late || !begin.Add(l.length).After(r.closed)
			w.points = nil
		}
		r.points += len(w.points) - n
	}
}

// lowest returns the lowest level from first on that has the window which t lies in, and its begin; nil when none has.
func (r *Rollups) lowest(first int, domain citywarden.Domain, t time.Time) (*rollupLevel, time.Time) {
	for _, l := range r.levels[min(first, len(r.levels)):] {
		if begin := t.Truncate(l.length).UTC(); !begin.Before(l.since[domain]) {
			return l, begin
		}
	}
	return nil, time.Time{}
}

// miss notes that x, for which there is no minute any more, changes the window of the lowest level that has one: it is
// computed from what there is.
func (r *Rollups) miss(e *citywarden.Entry, x *citywarden.Reading) {
	l, begin := r.lowest(1, e.Model.Domain, x.Time)
	if l == nil {
		return // queries take the reading itself
	}
	l.window(begin.Unix(), rollupKey{e.Model.Domain, e.Device.ID, x.Metric}).dirty = true
	if !begin.Add(l.length).After(r.closed) { // else the next start computes it again in any case
		r.late = true
		if r.missed == 0 {
			r.missed = e.Position
		}
	}
}

// window returns the window of k that begins at, which it makes when it is not there.
func (l *rollupLevel) window(at int64, k rollupKey) *rollupWindow {
	all := l.windows[at]
	if all == nil {
		all = map[rollupKey]*rollupWindow{}
		l.windows[at] = all
	}
	w := all[k]
	if w == nil {
		w = new(rollupWindow)
		all[k] = w
	}
	return w
}

// put adds p; the last of one time counts, as in the series. It reports false when p belongs among those that are added up.
func (w *rollupWindow) put(p rollupPoint) bool {
	if w.total.Count > 0 && p.at <= w.summed {
		return false
	}
	i := len(w.points)
	if i > 0 && w.points[i-1].at >= p.at {
		i = sort.Search(i, func(i int) bool { return w.points[i].at >= p.at })
		if w.points[i].at == p.at {
			w.points[i].v = p.v
			return true
		}
	}
	w.points = slices.Insert(w.points, i, p)
	if len(w.points) == 2*rollupApart {
		older := rollupWindow{total: w.total, rollover: w.rollover, points: w.points[:rollupApart]}
		w.total, w.summed = older.sum(), older.points[rollupApart-1].at
		w.points = slices.Delete(w.points, 0, rollupApart)
	}
	return true
}

// rolled is the rollup of a window, and what the level above needs to know.
type rolled struct {
	total    citywarden.Rollup
	rollover float64
	again    bool // it may have been written before
}

// flush closes the windows that end by r.to, level by level: what is written of
// one is read by the next. When it fails, the next call goes on with that level.
func (r *Rollups) flush(ctx context.Context) error {
	for ; r.stage < len(r.levels); r.stage++ {
		l := r.levels[r.stage]
		due := l.due(r.to)
		done := map[int64]map[rollupKey]rolled{}
		for _, at := range due {
			done[at] = map[rollupKey]rolled{}
			for k, w := range l.windows[at] {
				if !w.dirty {
					done[at][k] = rolled{w.sum(), w.rollover, false}
				}
			}
		}
		if err := r.compute(ctx, l, due, done); err != nil {
			return err
		}
		if err := r.write(ctx, l, done); err != nil {
			return err
		}
		// From here on nothing fails.
		for _, at := range due {
			for _, w := range l.windows[at] {
				r.points -= len(w.points)
			}
			delete(l.windows, at)
		}
		if r.stage == 0 {
			r.late = false
		}
		l.redo = slices.DeleteFunc(l.redo, func(at int64) bool { return !time.Unix(at, 0).Add(l.length).After(r.to) })
		if r.stage+1 < len(r.levels) {
			r.pass(r.stage+1, done)
		}
	}
	r.closed, r.to, r.stage = r.to, time.Time{}, 0
	if !r.late { // else some came while it failed
		r.missed = 0
	}
	r.lateAt = time.Now()
	r.publish()
	return nil
}

// due returns the begins of the windows that end by to, in order.
func (l *rollupLevel) due(to time.Time) []int64 {
	begins := slices.Collect(maps.Keys(l.windows))
	begins = append(begins, l.redo...)
	begins = slices.DeleteFunc(begins, func(at int64) bool { return time.Unix(at, 0).Add(l.length).After(to) })
	slices.Sort(begins)
	return slices.Compact(begins)
}

func (w *rollupWindow) sum() citywarden.Rollup {
	out := w.total
	for _, p := range w.points {
		out.Merge(citywarden.RollupOf(p.v), w.rollover)
	}
	return out
}

// pass hands what was rolled up to the windows of the next level, or where that does not have them, of the next one that does.
func (r *Rollups) pass(next int, done map[int64]map[rollupKey]rolled) {
	for _, at := range slices.Sorted(maps.Keys(done)) {
		for k, x := range done[at] {
			l, begin := r.lowest(next, k.domain, time.Unix(at, 0))
			if l == nil {
				continue
			}
			w := l.window(begin.Unix(), k)
			w.rollover = x.rollover
			w.dirty = w.dirty || l != r.levels[next]
			closed := !begin.Add(l.length).After(r.closed)
			if w.dirty = w.dirty || x.again || closed || begin.Before(r.whole); !w.dirty {
				w.total.Merge(x.total, x.rollover)
			}
		}
	}
}

// compute adds to done the due windows that memory does not have: those of
// minutes from the readings, the others from the nearest level below that goes back so far, or from the readings too when none does. What
// is there stays where less than it is made of is still kept.
func (r *Rollups) compute(ctx context.Context, l *rollupLevel, due []int64, done map[int64]map[rollupKey]rolled) error {
	type part struct {
		domain citywarden.Domain
		span   int64
	}
	type need struct {
		from, to int64
		devices  map[citywarden.DeviceID]bool // nil for all
		keys     map[int64]map[rollupKey]bool // nil for a window of which all are needed
	}
	parts := map[part]*need{}
	span := max(rollupSpan, l.length)
	ask := func(domain citywarden.Domain, at int64) *need {
		p := part{domain, time.Unix(at, 0).Truncate(span).Unix()}
		n := parts[p]
		if n == nil {
			n = &need{from: at, devices: map[citywarden.DeviceID]bool{}, keys: map[int64]map[rollupKey]bool{}}
			parts[p] = n
		}
		n.from, n.to = min(n.from, at), max(n.to, at+int64(l.length/time.Second))
		if n.keys[at] == nil {
			n.keys[at] = map[rollupKey]bool{}
		}
		return n
	}
	for _, at := range due {
		if slices.Contains(l.redo, at) {
			for _, d := range r.opt.Domains {
				if !time.Unix(at, 0).Before(l.since[d]) {
					n := ask(d, at)
					n.devices, n.keys[at] = nil, nil
				}
			}
			continue
		}
		for k, w := range l.windows[at] {
			if w.dirty {
				n := ask(k.domain, at)
				if n.devices != nil {
					n.devices[k.device] = true
				}
				n.keys[at][k] = true
			}
		}
	}
	below := r.levels[:slices.Index(r.levels, l)]
	for p, n := range parts {
		level := time.Duration(0)
		for _, b := range slices.Backward(below) {
			if !time.Unix(n.from, 0).Before(b.since[p.domain]) {
				level = b.length
				break
			}
		}
		q := citywarden.HistoryQuery{From: time.Unix(n.from, 0).UTC(), To: time.Unix(n.to, 0).UTC(), Devices: n.devices}
		take := func(device citywarden.DeviceID, metric citywarden.MetricName, at time.Time, x citywarden.Rollup) {
			k, begin := rollupKey{p.domain, device, metric}, at.Truncate(l.length).Unix()
			keys, asked := n.keys[begin]
			if !asked || keys != nil && !keys[k] {
				return
			}
			if done[begin] == nil {
				done[begin] = map[rollupKey]rolled{}
			}
			have, ok := done[begin][k]
			if !ok || !have.again {
				have = rolled{again: true, rollover: r.rollover(k)}
			}
			have.total.Merge(x, have.rollover)
			done[begin][k] = have
		}
		if err := r.each(ctx, level, p.domain, q, take); err != nil {
			return err
		}
		if len(below) == 0 || !q.From.Before(time.Now().Add(-rollupKept)) {
			continue
		}
		source, err := r.keptSince(ctx, level, p.domain)
		if err != nil {
			return err
		}
		first, err := r.keptSince(ctx, l.length, p.domain)
		if err != nil {
			return err
		}
		left := 0
		keep := func(device citywarden.DeviceID, metric citywarden.MetricName, at time.Time, x citywarden.Rollup) {
			k := rollupKey{p.domain, device, metric}
			// What came late may be as many as what is gone. Before the first window of all there was nothing.
			part := source.After(at) && first.Before(at)
			if have, ok := done[at.Unix()][k]; ok && have.again && (part || x.Count > have.total.Count) {
				delete(done[at.Unix()], k)
				left++
			}
		}
		if err := r.each(ctx, l.length, p.domain, q, keep); err != nil {
			return err
		}
		if left > 0 {
			r.log.Warn("readings came late for rollups of which not all readings are kept any more: these stay as they are",
				"domain", p.domain, "level", l.length, "from", q.From, "windows", left)
		}
	}
	return nil
}

// keptSince returns when the oldest that is kept of a level, or with 0 of the readings, begins, as of a minute ago or later; zero
// for nothing.
func (r *Rollups) keptSince(ctx context.Context, length time.Duration, domain citywarden.Domain) (time.Time, error) {
	s := rollupSource{length, domain}
	if k, ok := r.kept[s]; ok && time.Since(k.at) < rollupEdge {
		return k.since, nil
	}
	at := time.Now()
	since, err := r.opt.Store.OldestRollup(ctx, length, domain)
	if err != nil {
		return time.Time{}, err
	}
	r.kept[s] = rollupKeeps{since, at}
	return since, nil
}

// each calls take for every rollup of a level in q's time, or with 0 for every
// number, in the order of time.
func (r *Rollups) each(ctx context.Context, level time.Duration, domain citywarden.Domain, q citywarden.HistoryQuery,
	take func(citywarden.DeviceID, citywarden.MetricName, time.Time, citywarden.Rollup)) error {
	if level > 0 {
		for q.From.Before(q.To) {
			rows, err := r.opt.Store.RollupRows(ctx, level, domain, q)
			if err != nil || len(rows) == 0 {
				return err
			}
			for i := range rows {
				for m, x := range rows[i].Metrics {
					take(rows[i].Device, m, rows[i].Time, x)
				}
			}
			q.From = rows[len(rows)-1].Time.Add(1)
		}
		return nil
	}
	for q.From.Before(q.To) {
		rows, err := r.opt.Store.Rows(ctx, domain, q)
		if err != nil || len(rows) == 0 {
			return err
		}
		for i := range rows {
			for m, v := range rows[i].Values {
				if v.Kind() == citywarden.KindNumber {
					take(rows[i].Device, m, rows[i].Time, citywarden.RollupOf(v.Float()))
				}
			}
		}
		q.From = rows[len(rows)-1].Time.Add(1)
	}
	return nil
}

func (r *Rollups) rollover(k rollupKey) float64 {
	_, model, err := r.opt.Directory.Device(k.device)
	if err != nil {
		return -1 // deleted meanwhile
	}
	return rollover(model, k.metric)
}

func rollover(model *citywarden.Model, metric citywarden.MetricName) float64 {
	m, ok := model.Metric(metric)
	if !ok {
		return -1
	}
	return m.Rollover()
}

// write stores what was rolled up, a row for each device and window.
func (r *Rollups) write(ctx context.Context, l *rollupLevel, done map[int64]map[rollupKey]rolled) error {
	type place struct {
		device citywarden.DeviceID
		at     int64
	}
	domains := map[citywarden.Domain]map[place]citywarden.RollupRow{}
	for at, keys := range done {
		for k, x := range keys {
			rows := domains[k.domain]
			if rows == nil {
				rows = map[place]citywarden.RollupRow{}
				domains[k.domain] = rows
			}
			p := place{k.device, at}
			row, ok := rows[p]
			if !ok {
				row = citywarden.RollupRow{Device: k.device, Time: time.Unix(at, 0).UTC(), Metrics: map[citywarden.MetricName]citywarden.Rollup{}}
				rows[p] = row
			}
			row.Metrics[k.metric] = x.total
		}
	}
	for d, rows := range domains {
		anew, err := r.opt.Store.WriteRollups(ctx, l.length, d, slices.Collect(maps.Values(rows)))
		if anew {
			r.lose(ctx, l)
		}
		if err != nil {
			return fmt.Errorf("rollups of %s: %w", l.length, err)
		}
		if anew {
			break
		}
	}
	return nil
}

// lose has queries read from the readings what was rolled up before now: somebody has deleted the level, and of the
// others what they do not have any more, either. Windows that are open are not written there, as the next start would take them for
// the oldest ones that are whole; those of levels that are still there are computed anew.
func (r *Rollups) lose(ctx context.Context, lost *rollupLevel) {
	clear(r.kept)
	for _, l := range r.levels {
		since := make(map[citywarden.Domain]time.Time, len(r.opt.Domains)) // a new one, as queries read that of before
		for _, d := range r.opt.Domains {
			oldest, err := r.opt.Store.OldestRollup(ctx, l.length, d)
			switch {
			case l == lost || err == nil && oldest.IsZero():
				since[d] = ceil(r.to, l.length)
			case err == nil && oldest.After(l.since[d]):
				since[d] = oldest
			default:
				since[d] = l.since[d]
			}
		}
		l.since = since
	}
	var until time.Time // since when the levels below are whole
	for i, l := range r.levels {
		if until.After(r.to) {
			for w := r.to.Truncate(l.length); w.Before(until); w = w.Add(l.length) {
				l.redo = append(l.redo, w.Unix())
			}
		}
		for _, since := range l.since {
			if since.After(until) {
				until = since
			}
		}
		if i == 0 {
			continue // the windows of minutes before end by now
		}
		for at, all := range l.windows {
			maps.DeleteFunc(all, func(k rollupKey, _ *rollupWindow) bool { return time.Unix(at, 0).Before(l.since[k.domain]) })
		}
	}
	r.publish()
}

// save stores the cursor: before the newest entry, so that a restart begins at a
// time that was reached, and before the first reading of every window of minutes and the first that was missed.
func (r *Rollups) save(ctx context.Context) error {
	p := r.reached
	if r.missed > 0 {
		p = min(p, r.missed)
	}
	for _, all := range r.levels[0].windows {
		for _, w := range all {
			p = min(p, w.first)
		}
	}
	if p = max(p, 1) - 1; p <= r.saved {
		return nil
	}
	if err := r.opt.Cursors.SetCursor(ctx, rollupName, p); err != nil {
		return err
	}
	r.saved = p
	return nil
}
