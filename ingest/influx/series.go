package influx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	influxdb2 "github.com/influxdata/influxdb-client-go/v2"
	"github.com/influxdata/influxdb-client-go/v2/api"
	influxhttp "github.com/influxdata/influxdb-client-go/v2/api/http"
	"github.com/influxdata/influxdb-client-go/v2/domain"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
)

// Cursors remember how far the log has been written; store.DB is one.
type Cursors interface {
	// Cursor returns the position that the consumer called name has reached, 0 at first.
	Cursor(ctx context.Context, name string) (citywarden.Position, error)
	// SetCursor stores it.
	SetCursor(ctx context.Context, name string, p citywarden.Position) error
}

// Refusals keep the readings that the server refuses; store.DB is one.
type Refusals interface {
	// SaveRefused stores them, once: it may be called again with the same.
	SaveRefused(ctx context.Context, refused []citywarden.Refused) error
}

// Options say where the series are.
type Options struct {
	URL       string            // of a server, like "https://influx.example:8086"; "" for the Core behind Transport
	Transport http.RoundTripper // nil for the net; Core.Transport for the core
	Token     string            // of InfluxDB 2 and 3
	Username  string            // of InfluxDB 1, with Password
	Password  string
	Org       string           // of InfluxDB 2
	Database  string           // database, or bucket; "" means "citywarden"
	Retention time.Duration    // how long readings are kept, at least 1h, 0 for ever; a server's own setting is left as it is
	Rollups   [4]time.Duration // the same of each of citywarden.RollupLevels; at least as long as that before, and as Retention
	MaxSeries int              // how many series the database may hold: readings that would make one more are refused; 0 for no limit
	Cursors   Cursors
	Refusals  Refusals
	Logger    *slog.Logger          // nil for none
	Metrics   prometheus.Registerer // nil for none
}

const (
	name         = "series"
	batch        = 5000             // lines in one write; more costs memory and gains nothing
	lineBytes    = 160              // of a line, about
	writeTimeout = 30 * time.Second // of one write or query
	saveEvery    = time.Second      // how often the cursor is stored
)

// Series writes the readings of the log into InfluxDB, as the consumer "series",
// and reads them. Writes come from one goroutine, reads from any.
type Series struct {
	opt    Options
	log    *slog.Logger
	client influxdb2.Client
	writer api.WriteAPIBlocking
	todo   []line // empty: the array for what is written next
	base   string // URL with a slash at its end

	written, rejected prometheus.Counter
	seconds           prometheus.Histogram

	prepared atomic.Bool // of the core: the database is there and its retention set
	wrote    atomic.Bool // points were written to the database, or the cursor says that a start before may have

	seriesMu sync.Mutex // held while a batch is looked at
	series   cardinality

	rollups  [4]api.WriteAPIBlocking
	policies [4]bool // whether the retention policy, or bucket, of the level is there

	mu      sync.Mutex
	moved   chan struct{} // closed when reached grows; nil when nobody waits
	loaded  bool
	reached citywarden.Position // written
	saved   citywarden.Position // stored as the cursor
	savedAt time.Time
}

// New returns a Series. It does not connect: a server that is down delays only
// the series, until it is back. CodeInvalid says what is wrong with o.
func New(o Options) (*Series, error) {
	if o.Database == "" {
		o.Database = "citywarden"
	}
	switch {
	case o.Cursors == nil || o.Refusals == nil:
		return nil, citywarden.Errorf(citywarden.CodeInternal, "series need cursors and a place for what the server refuses")
	case o.URL == "" && o.Transport == nil:
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "series need the URL of a server or the core's transport")
	case o.Retention != 0 && o.Retention < time.Hour:
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "series retention %s: keep readings for at least 1h, or 0 for ever", o.Retention)
	case o.Token != "" && o.Username != "":
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "series: give a token (InfluxDB 2 and 3) or a user name and password (InfluxDB 1), not both")
	}
	base := o.URL
	if base == "" {
		base = "http://embedded"
	}
	if u, err := url.Parse(base); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "series URL %q: write it like http://influx.example:8086", o.URL)
	}
	token := o.Token
	if o.Username != "" {
		token = o.Username + ":" + o.Password
	}
	s := &Series{opt: o, log: o.Logger, series: newCardinality(o.MaxSeries), base: strings.TrimRight(base, "/") + "/"}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	opts := influxdb2.DefaultOptions().SetPrecision(time.Nanosecond).SetApplicationName("citywarden")
	way := o.Transport
	if way == nil {
		way = http.DefaultTransport
	}
	opts.SetHTTPClient(&http.Client{Transport: spoken{way}, Timeout: writeTimeout, CheckRedirect: noRedirect})
	s.client = influxdb2.NewClientWithOptions(s.base, token, opts)
	s.writer = s.client.WriteAPIBlocking(o.Org, o.Database)
	for i := range s.rollups {
		s.rollups[i] = s.client.WriteAPIBlocking(o.Org, o.Database+"/"+policyName(i))
	}

	points := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "citywarden_series_points_total",
		Help: "Points for the time series by what became of them: written, or rejected by the server for good.",
	}, []string{"result"})
	s.written, s.rejected = points.WithLabelValues("written"), points.WithLabelValues("rejected")
	s.seconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "citywarden_series_write_seconds",
		Help:    "How long the writes of a batch to the time series took.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
	})
	if o.Metrics != nil {
		for _, c := range []prometheus.Collector{points, s.seconds, s.series.gauge} {
			if err := o.Metrics.Register(c); err != nil {
				return nil, fmt.Errorf("series metrics: %w", err)
			}
		}
	}
	return s, nil
}

// noRedirect refuses redirects: following one would turn a write into a read
// and send the token elsewhere.
func noRedirect(r *http.Request, _ []*http.Request) error {
	return fmt.Errorf("the server redirects to %s: use that address", r.URL.Redacted())
}

// Name returns "series".
func (s *Series) Name() string { return name }

// Pace is the least time between two writes while there is no more: each is a sync of the disk, and what comes in meanwhile
// goes into the next one. With the core it is shorter, as a long write keeps those waiting who acknowledge messages in the same process.
func (s *Series) Pace() time.Duration {
	if s.opt.URL != "" {
		return 50 * time.Millisecond
	}
	return 20 * time.Millisecond
}

// Cursor returns the position up to which everything is written and known to
// be so after a restart. It follows the writes by up to a second.
func (s *Series) Cursor(ctx context.Context) (citywarden.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.load(ctx)
	return s.saved, err
}

// load reads the stored cursor once. It needs mu.
func (s *Series) load(ctx context.Context) error {
	if s.loaded {
		return nil
	}
	p, err := s.opt.Cursors.Cursor(ctx, name)
	if err != nil {
		return err
	}
	s.reached, s.saved, s.loaded = p, p, true
	if p > 0 {
		s.wrote.Store(true)
	}
	return nil
}

// Written returns the position up to which everything is written.
func (s *Series) Written(ctx context.Context) (citywarden.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.load(ctx)
	return s.reached, err
}

// Reached returns once the readings of the log up to p are written.
func (s *Series) Reached(ctx context.Context, p citywarden.Position) error {
	for {
		s.mu.Lock()
		if err := s.load(ctx); err != nil || s.reached >= p {
			s.mu.Unlock()
			return err
		}
		if s.moved == nil {
			s.moved = make(chan struct{})
		}
		moved := s.moved
		s.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return citywarden.Errorf(citywarden.CodeTransient, "wait for the series: %w", ctx.Err())
		}
	}
}

// Consume writes the readings of entries in batches. It returns an error, and
// the cursor stays before what is not known to be written, when the server can't
// be reached or refuses for a reason that is not in the data (CodeTransient, or
// CodeDenied for a bad token): the same entries may come again, a point that is
// written twice is there once. A point that the server rejects for itself (its
// metric had another kind before, it is older than the retention) becomes a dead
// letter with the server's words, and the others are kept.
func (s *Series) Consume(ctx context.Context, entries []citywarden.Entry) error {
	reached, err := s.Written(ctx)
	if err != nil {
		return err
	}
	todo := s.todo[:0]
	defer func() { // of which nobody keeps anything
		clear(todo[:cap(todo)])
		s.todo = todo
	}()
	for i := range entries {
		if entries[i].Position <= reached {
			continue
		}
		todo = lines(todo, &entries[i])
		if len(todo) >= batch {
			if err := s.write(ctx, todo, entries[i].Position); err != nil {
				return err
			}
			todo = todo[:0]
		}
	}
	if n := len(entries); n > 0 && entries[n-1].Position > reached {
		if err := s.write(ctx, todo, entries[n-1].Position); err != nil {
			return err
		}
	}
	return s.save(ctx, false)
}

// write sends lines and then notes that the log is written up to p.
func (s *Series) write(ctx context.Context, ls []line, p citywarden.Position) error {
	if len(ls) > 0 {
		begin := time.Now()
		if err := s.prepare(ctx); err != nil {
			return err
		}
		var lost rejects
		ls, err := s.admit(ctx, ls, &lost)
		if err != nil {
			return err
		}
		for part := range slices.Chunk(ls, batch) {
			if err := s.send(ctx, part, &lost); err != nil {
				return err
			}
		}
		s.seconds.Observe(time.Since(begin).Seconds())
		if err := s.refuse(ctx, &lost); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reached = max(s.reached, p)
	if s.moved != nil {
		close(s.moved)
		s.moved = nil
	}
	return nil
}

// Store writes readings that are not from the log; they change no cursor and
// become no dead letters. refused says for each entry why the server did not take it, nil when it did.
func (s *Series) Store(ctx context.Context, entries []citywarden.Entry) (refused []error, err error) {
	var todo []line
	for i := range entries {
		e := entries[i]
		e.Position = citywarden.Position(i) // to know it again
		todo = lines(todo, &e)
	}
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	var lost rejects
	todo, err = s.admit(ctx, todo, &lost)
	if err != nil {
		return nil, err
	}
	for part := range slices.Chunk(todo, batch) {
		if err := s.send(ctx, part, &lost); err != nil {
			return nil, err
		}
	}
	refused = make([]error, len(entries))
	for i := range lost.list {
		refused[lost.list[i].Position] = citywarden.Errorf(citywarden.CodeInvalid, "%s", lost.list[i].Reason)
	}
	return refused, nil
}

// rejects are the readings that the server did not take, by message.
type rejects struct {
	list []citywarden.Refused
}

func (r *rejects) add(l line, err *influxhttp.Error) {
	e := l.entry
	n := len(r.list)
	if n == 0 || r.list[n-1].Position != e.Position {
		r.list = append(r.list, citywarden.Refused{Logged: e.At, DeadLetter: citywarden.DeadLetter{
			Position: e.Position, Stage: citywarden.FailedSeries, Device: e.Device.ID, Protocol: e.Uplink.Protocol, Topic: e.Uplink.Topic,
			Payload: e.Uplink.Payload, Received: e.Uplink.Received,
		}})
		n++
	}
	last := &r.list[n-1]
	last.Readings++
	switch {
	case last.Readings == 1:
		last.Reason = fmt.Sprintf("the time series refused %s: %s", l.readings[0].Metric, clip(err.Message))
	case last.Readings <= maxReasons:
		last.Reason += fmt.Sprintf("; %s: %s", l.readings[0].Metric, clip(err.Message))
	case last.Readings == maxReasons+1:
		last.Reason += "; and more"
	}
}

// maxReasons is of how many readings of one message it is said why they were refused.
const maxReasons = 6

// refuse makes dead letters of what was not taken.
func (s *Series) refuse(ctx context.Context, r *rejects) error {
	if len(r.list) == 0 {
		return nil
	}
	if err := s.opt.Refusals.SaveRefused(ctx, r.list); err != nil {
		return fmt.Errorf("keep what the time series refused: %w", err)
	}
	s.log.Warn("readings refused by the time series are dead letters", "messages", len(r.list),
		"device", r.list[0].Device, "first", r.list[0].Reason)
	return nil
}

// clip shortens words to what a person reads. Servers say the line first and then what is wrong with it.
func clip(s string) string {
	const head, tail = 200, 150
	if len(s) > head+tail {
		s = strings.ToValidUTF8(s[:head], "") + " … " + strings.ToValidUTF8(s[len(s)-tail:], "")
	}
	return s
}

// send writes lines. When the server rejects some of them it does not say
// which, and may have left out others that are good, as shards fail one by one.
// So the halves are sent again, until each bad line stands alone; a bad line
// with several readings is split into them.
func (s *Series) send(ctx context.Context, ls []line, lost *rejects) error {
	var body strings.Builder
	body.Grow(len(ls) * lineBytes)
	var one [2 * lineBytes]byte
	points := 0
	for _, l := range ls {
		body.Write(l.appendTo(one[:0]))
		points += writable(l)
	}
	runtime.Gosched() // a write lasts some milliseconds: those who take and acknowledge messages go first
	err := s.post(ctx, body.String())
	var e *influxhttp.Error
	switch {
	case err == nil:
		s.written.Add(float64(points))
		return nil
	case !errors.As(err, &e) || !blames(e, len(ls)):
		return s.explain(err)
	case len(ls) > 1:
		for _, half := range [][]line{ls[:len(ls)/2], ls[len(ls)/2:]} {
			if err := s.send(ctx, half, lost); err != nil {
				return err
			}
		}
		return nil
	case len(ls[0].readings) > 1:
		for i := range ls[0].readings {
			if l := (line{ls[0].entry, ls[0].readings[i : i+1]}); writable(l) > 0 {
				if err := s.send(ctx, []line{l}, lost); err != nil {
					return err
				}
			}
		}
		return nil
	}
	s.rejected.Inc()
	lost.add(ls[0], e)
	return nil
}

// blames reports whether e is about the data and not about the request, the
// server, its disk or the way there: sending it again would change nothing.
func blames(e *influxhttp.Error, lines int) bool {
	switch e.StatusCode {
	case http.StatusRequestEntityTooLarge:
		return lines > 1
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return says(e, "partial write", "unable to parse", "field type conflict", "beyond retention", "max key size",
			"parsing failed", "parsing for line protocol failed", "line protocol parse failed") && // InfluxDB 3.0, 3.4.2, 3.8.1
			!says(e, "no space left", "read-only file system", "input/output error", "too many open files", "cannot allocate memory", "is closed")
	}
	return false
}

func says(e *influxhttp.Error, any ...string) bool {
	return slices.ContainsFunc(any, func(words string) bool { return strings.Contains(e.Message, words) })
}

// post writes body; when the database is not there it is created first.
func (s *Series) post(ctx context.Context, body string) error {
	err := s.writer.WriteRecord(ctx, body)
	if missing(err) {
		if create := s.create(ctx); create != nil {
			return fmt.Errorf("%w (and it can't be created: %w)", err, create)
		}
		if _, cursor := s.Cursor(ctx); cursor == nil && s.wrote.Load() {
			s.log.Warn("the database of the series was gone and is made again; citywarden audit tells what is missing in it", "database", s.opt.Database)
		}
		err = s.writer.WriteRecord(ctx, body)
	}
	if err == nil {
		s.wrote.Store(true)
	}
	return err
}

// missing reports whether a write failed because its database or bucket is not there.
func missing(err error) bool {
	var e *influxhttp.Error
	return errors.As(err, &e) && e.StatusCode == http.StatusNotFound
}

// explain gives a failed write a code and says what to do.
func (s *Series) explain(err error) error {
	var e *influxhttp.Error
	if errors.As(err, &e) {
		switch e.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return citywarden.Errorf(citywarden.CodeDenied, "write to %s: %w: check the token or password of the series", s.where(), err)
		case http.StatusNotFound:
			return citywarden.Errorf(citywarden.CodeTransient, "write to %s: %w: create the database or bucket %q, or correct its name", s.where(), err, s.opt.Database)
		}
		if says(e, "orgID or org") {
			return citywarden.Errorf(citywarden.CodeTransient, "write to %s: %w: an InfluxDB 2 needs the organisation, too (series.org)", s.where(), err)
		}
	}
	return citywarden.Errorf(citywarden.CodeTransient, "write to %s: %w", s.where(), err)
}

func (s *Series) where() string {
	if s.opt.URL == "" {
		return "the embedded series"
	}
	return "InfluxDB at " + s.opt.URL
}

// prepare makes the core's database and sets its retention, once. A server's
// database is made only when it turns out to be missing.
func (s *Series) prepare(ctx context.Context) error {
	if s.opt.URL != "" || s.prepared.Load() {
		return nil
	}
	if err := s.create(ctx); err != nil {
		return citywarden.Errorf(citywarden.CodeTransient, "prepare %s: %w", s.where(), err)
	}
	alter := fmt.Sprintf(`ALTER RETENTION POLICY "autogen" ON %s DURATION %s SHARD DURATION %s`,
		ident(s.opt.Database), duration(s.opt.Retention), duration(shardDuration(s.opt.Retention)))
	if _, err := s.influxQL(ctx, http.MethodPost, alter); err != nil {
		return citywarden.Errorf(citywarden.CodeTransient, "set the retention of %s: %w", s.where(), err)
	}
	s.prepared.Store(true)
	return nil
}

// create makes the database or bucket, for as long as Options.Retention.
func (s *Series) create(ctx context.Context) error {
	if s.opt.Org != "" {
		return s.createBucket(ctx, s.opt.Database, s.opt.Retention)
	}
	q := "CREATE DATABASE " + ident(s.opt.Database)
	if s.opt.URL != "" && s.opt.Retention > 0 {
		q += " WITH DURATION " + duration(s.opt.Retention)
	}
	_, err := s.influxQL(ctx, http.MethodPost, q)
	return err
}

// createBucket makes a bucket of an InfluxDB 2, which knows no other way.
func (s *Series) createBucket(ctx context.Context, name string, keep time.Duration) error {
	org, err := s.client.OrganizationsAPI().FindOrganizationByName(ctx, s.opt.Org)
	if err != nil {
		return fmt.Errorf("find the organisation %q: %w", s.opt.Org, err)
	}
	_, err = s.client.BucketsAPI().CreateBucketWithName(ctx, org, name, domain.RetentionRule{EverySeconds: int64(keep / time.Second)}) // 0: for ever
	return err
}

// shardDuration is what InfluxDB itself takes for a retention: readings are
// dropped a shard at a time.
func shardDuration(retention time.Duration) time.Duration {
	const day = 24 * time.Hour
	switch {
	case retention == 0 || retention > 180*day:
		return 7 * day
	case retention >= 2*day:
		return day
	}
	return time.Hour
}

// duration returns d in InfluxQL; 0 is for ever.
func duration(d time.Duration) string {
	if d == 0 {
		return "INF"
	}
	return fmt.Sprintf("%ds", int64(d/time.Second))
}

// save stores the cursor, at most every saveEvery unless now. What is written
// after the stored cursor is written again after a crash, which changes nothing.
func (s *Series) save(ctx context.Context, now bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reached == s.saved || !now && time.Since(s.savedAt) < saveEvery {
		return nil
	}
	// The lock is held so that an older position never overwrites a newer one.
	if err := s.opt.Cursors.SetCursor(ctx, name, s.reached); err != nil {
		return err
	}
	s.saved, s.savedAt = s.reached, time.Now()
	return nil
}

// Close stores the cursor and closes idle connections. Call it after the last Consume.
func (s *Series) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := s.save(ctx, true)
	s.client.Options().HTTPClient().CloseIdleConnections()
	return err
}
