package api

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/parquet-go/parquet-go"

	"github.com/citywarden/citywarden"
)

// Series answers what metrics were over time.
type Series interface {
	Query(ctx context.Context, q citywarden.SeriesQuery) ([]citywarden.SeriesPoint, error)
	Groups(ctx context.Context, q citywarden.GroupQuery) ([]citywarden.SeriesGroup, error)
	// Export calls f with the readings in q's time.
	Export(ctx context.Context, q citywarden.HistoryQuery, f func([]citywarden.SeriesRow) error) error
	// Import stores readings of the past; refused says why not, nil for one that was stored.
	Import(ctx context.Context, readings []citywarden.DeviceReading) (refused []error, err error)
}

// Gaps tell when it is not known what a device measured.
type Gaps interface {
	// Gaps returns those that end after from and begin before to, at most 10,000, the oldest.
	Gaps(ctx context.Context, device citywarden.DeviceID, from, to time.Time) ([]citywarden.Gap, error)
}

func (s *server) seriesRoutes() {
	const tag = "series"
	binary := &huma.MediaType{Schema: &huma.Schema{Type: "string", Format: "binary"}}
	handle(s, route{method: "GET", path: "/api/v1/series", id: "group-series", tag: tag, may: citywarden.MayRead,
		summary: "One metric of all devices of a domain, put together by a tag and an interval"}, s.groupSeries)
	handle(s, route{method: "GET", path: "/api/v1/series/export", id: "export-series", tag: tag, may: citywarden.MayRead,
		responses: map[string]*huma.Response{"200": {
			Description: "The readings. When they can't be read to the end, the connection breaks off.",
			Content: map[string]*huma.MediaType{
				"text/csv":                       {Schema: &huma.Schema{Type: "string"}},
				"application/vnd.apache.parquet": binary,
			},
		}},
		summary: "Readings as CSV (time, device, metric, value) or Parquet"}, s.exportSeries)
	handle(s, route{method: "POST", path: "/api/v1/series/import", id: "import-series", tag: tag, may: citywarden.MayWriteDevices, maxBody: 8 << 20,
		summary: "Store readings of the past, older than an hour, from CSV (time, device, metric, value): they are in the series and raise no alarms"}, s.importSeries)
}

type groupsOutput struct {
	Groups []seriesGroup `json:"groups" nullable:"false"`
}

type seriesGroup struct {
	Name   string        `json:"name" doc:"Value of the tag; empty for devices without it"`
	Points []seriesPoint `json:"points" nullable:"false"`
}

func (s *server) groupSeries(ctx context.Context, in *struct {
	Domain citywarden.Domain     `query:"domain" required:"true"`
	Metric citywarden.MetricName `query:"metric" required:"true"`
	By     string                `query:"by" enum:"device,model,grid,site,zone" doc:"One group when left out"`
	From   string                `query:"from" doc:"RFC 3339, inclusive; 24 hours before to when left out"`
	To     string                `query:"to" doc:"RFC 3339, exclusive; now when left out"`
	Every  string                `query:"every" required:"true" doc:"Interval, like 1m, 1h or 1d"`
	Agg    string                `query:"agg" enum:"mean,min,max,sum,count,increase" doc:"mean when left out"`
}) (*output[groupsOutput], error) {
	from, to, err := day(in.From, in.To)
	if err != nil {
		return nil, err
	}
	every, err := citywarden.ParseDuration(in.Every)
	if err != nil {
		return nil, fmt.Errorf("every: %w", err)
	}
	groups, err := s.Series.Groups(ctx, citywarden.GroupQuery{
		Domain: in.Domain, Metric: in.Metric, By: in.By, Area: callerOf(ctx).Area, From: from, To: to, Every: every.Std(), Agg: in.Agg,
	})
	if err != nil {
		return nil, err
	}
	out := groupsOutput{Groups: make([]seriesGroup, len(groups))}
	for i, g := range groups {
		out.Groups[i] = seriesGroup{g.Name, make([]seriesPoint, len(g.Points))}
		for k, p := range g.Points {
			out.Groups[i].Points[k] = seriesPoint(p)
		}
	}
	return outputOf(out), nil
}

// withUnknown puts a point without a value between two that a gap is between, or silences and outages that together are
// most of the time between them, as a silence that goes on after an outage. An outage is between two only when a
// heartbeat is, as what the device said before and after it may be all that it had to say. An aggregate's point stands for its whole interval, every long.
func withUnknown(points []citywarden.SeriesPoint, gaps []citywarden.Gap, every, heartbeat time.Duration) []citywarden.SeriesPoint {
	// A gap is between those two points that its middle lies between, or on one of which.
	between := map[int]citywarden.Gap{} // by the index of the later point
	put := func(k int, first citywarden.Gap, more ...citywarden.Gap) {
		before, after := points[k-1].Time, points[k].Time
		if _, taken := between[k]; taken || !citywarden.Covered(before, after, append(more, first)...) {
			return
		}
		if first.Outage && after.Sub(before) <= heartbeat {
			return
		}
		between[k] = first
	}
	for _, g := range gaps {
		middle := g.From.Add(g.To.Sub(g.From) / 2)
		i, _ := slices.BinarySearchFunc(points, middle, func(p citywarden.SeriesPoint, t time.Time) int { return p.Time.Compare(t) })
		for k := max(i, 1); k <= i+1 && k < len(points); k++ {
			put(k, g)
		}
	}
	var quiet []citywarden.Gap // no two of one device are at the same time
	for _, g := range gaps {
		if g.Missing == 0 {
			quiet = append(quiet, g)
		}
	}
	slices.SortFunc(quiet, func(a, b citywarden.Gap) int { return a.From.Compare(b.From) })
	for k := 1; k < len(points) && len(quiet) > 0; k++ {
		for len(quiet) > 0 && !quiet[0].To.After(points[k-1].Time) {
			quiet = quiet[1:]
		}
		n := 0
		for n < len(quiet) && quiet[n].From.Before(points[k].Time) {
			n++
		}
		if n > 1 {
			put(k, quiet[0], slices.Clone(quiet[1:n])...)
		}
	}
	out := make([]citywarden.SeriesPoint, 0, len(points)+len(between))
	for i, p := range points {
		if g, ok := between[i]; ok {
			before, step := points[i-1].Time, max(every, time.Millisecond)
			steps := (g.From.Sub(before) + step - 1) / step
			if at := before.Add(max(steps, 1) * step); at.Before(p.Time) {
				out = append(out, citywarden.SeriesPoint{Time: at})
			}
		}
		out = append(out, p)
	}
	return out
}

// readingWriter writes an export.
type readingWriter interface {
	write(at time.Time, d citywarden.DeviceID, m citywarden.MetricName, v citywarden.Value) error
	close() error
}

func (s *server) exportSeries(ctx context.Context, in *struct {
	Device string `query:"device" doc:"Ids separated by commas; all when left out"`
	Metric string `query:"metric" doc:"Names separated by commas; all when left out"`
	From   string `query:"from" doc:"RFC 3339, inclusive; 24 hours before to when left out"`
	To     string `query:"to" doc:"RFC 3339, exclusive; now when left out"`
	Format string `query:"format" enum:"csv,parquet" doc:"csv when left out"`
}) (*huma.StreamResponse, error) {
	from, to, err := day(in.From, in.To)
	if err != nil {
		return nil, err
	}
	q := citywarden.HistoryQuery{From: from, To: to}
	if in.Device != "" {
		q.Devices = map[citywarden.DeviceID]bool{}
		for id := range strings.SplitSeq(in.Device, ",") {
			if _, _, err := s.seenDevice(ctx, citywarden.DeviceID(id)); err != nil {
				return nil, err
			}
			q.Devices[citywarden.DeviceID(id)] = true
		}
	} else if u := callerOf(ctx); u.Area != "" {
		q.Devices = map[citywarden.DeviceID]bool{}
		err := pages(func(p citywarden.Page) (string, error) {
			ds, next, err := s.Devices.List(citywarden.DeviceFilter{Area: u.Area, Page: p})
			for i := range ds {
				q.Devices[ds[i].ID] = true
			}
			return next, err
		})
		if err != nil {
			return nil, err
		}
	}
	metrics := map[citywarden.MetricName]bool{}
	if in.Metric != "" {
		for m := range strings.SplitSeq(in.Metric, ",") {
			metrics[citywarden.MetricName(m)] = true
		}
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		_, w := humago.Unwrap(hc)
		kind, name := "text/csv; charset=utf-8", "series.csv"
		var out readingWriter = newCSVReadings(w)
		if in.Format == "parquet" {
			kind, name, out = "application/vnd.apache.parquet", "series.parquet", newParquetReadings(w)
		}
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
		w.WriteHeader(http.StatusOK)
		err := s.Series.Export(ctx, q, func(rows []citywarden.SeriesRow) error {
			for i := range rows {
				for _, m := range slices.Sorted(maps.Keys(rows[i].Values)) {
					if len(metrics) > 0 && !metrics[m] {
						continue
					}
					if err := out.write(rows[i].Time, rows[i].Device, m, rows[i].Values[m]); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err == nil {
			err = out.close()
		}
		if err != nil {
			s.log.Error("export of series failed", "user", callerOf(ctx).Name, "err", err)
			panic(http.ErrAbortHandler) // the client must not take what it has for all of it
		}
	}}, nil
}

// csvReadings writes time,device,metric,value, which the import reads.
type csvReadings struct{ w *csv.Writer }

func newCSVReadings(w io.Writer) *csvReadings {
	c := csv.NewWriter(w)
	_ = c.Write(readingColumns[:]) // close says what went wrong
	return &csvReadings{c}
}

var readingColumns = [...]string{"time", "device", "metric", "value"}

func (c *csvReadings) write(at time.Time, d citywarden.DeviceID, m citywarden.MetricName, v citywarden.Value) error {
	text := v.String()
	if v.Kind() == citywarden.KindNumber {
		text = strconv.FormatFloat(v.Float(), 'g', -1, 64)
	}
	return c.w.Write([]string{at.Format(time.RFC3339Nano), string(d), string(m), text})
}

func (c *csvReadings) close() error {
	c.w.Flush()
	return c.w.Error()
}

// parquetReading is a row of an export in Parquet; one of number, flag and text is there.
type parquetReading struct {
	Time   time.Time `parquet:"time,timestamp(nanosecond)"`
	Device string    `parquet:"device,dict"`
	Metric string    `parquet:"metric,dict"`
	Number *float64  `parquet:"number,optional"`
	Flag   *bool     `parquet:"flag,optional"`
	Text   *string   `parquet:"text,optional"`
}

// parquetGroup is how many rows are kept in memory before they are written.
const parquetGroup = 100_000

type parquetReadings struct {
	w    *parquet.GenericWriter[parquetReading]
	rows []parquetReading
}

func newParquetReadings(w io.Writer) *parquetReadings {
	return &parquetReadings{w: parquet.NewGenericWriter[parquetReading](w, parquet.Compression(&parquet.Zstd), parquet.MaxRowsPerRowGroup(parquetGroup))}
}

func (p *parquetReadings) write(at time.Time, d citywarden.DeviceID, m citywarden.MetricName, v citywarden.Value) error {
	r := parquetReading{Time: at, Device: string(d), Metric: string(m)}
	switch x := v.Any().(type) {
	case float64:
		r.Number = &x
	case bool:
		r.Flag = &x
	case string:
		r.Text = &x
	}
	if p.rows = append(p.rows, r); len(p.rows) < 1000 {
		return nil
	}
	return p.flush()
}

func (p *parquetReadings) flush() error {
	_, err := p.w.Write(p.rows)
	p.rows = p.rows[:0]
	return err
}

func (p *parquetReadings) close() error { return errors.Join(p.flush(), p.w.Close()) }

// SeriesImport says what became of imported readings.
type SeriesImport struct {
	Stored int          `json:"stored"`
	Failed int          `json:"failed"`
	Lines  []FailedLine `json:"lines" nullable:"false" doc:"The first 100 that failed"`
}

// FailedLine is a line of a file that was not taken.
type FailedLine struct {
	Line  int    `json:"line"`
	Error string `json:"error"`
}

const maxFailedLines = 100

func (i *SeriesImport) fail(line int, err error) {
	i.Failed++
	if len(i.Lines) < maxFailedLines {
		i.Lines = append(i.Lines, FailedLine{line, err.Error()})
	}
}

func (s *server) importSeries(ctx context.Context, in *struct {
	RawBody []byte `contentType:"text/csv"`
}) (*output[SeriesImport], error) {
	out := SeriesImport{Lines: []FailedLine{}}
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(in.RawBody, []byte("\ufeff"))))
	r.FieldsPerRecord = len(readingColumns)
	if head, err := r.Read(); err != nil || !slices.Equal(head, readingColumns[:]) {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "the first line must read %s", strings.Join(readingColumns[:], ","))
	}
	var readings []citywarden.DeviceReading
	var lines []int
	for {
		cells, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		line, _ := r.FieldPos(0)
		if err != nil {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "CSV: %w", err)
		}
		x, err := s.reading(cells)
		if err != nil {
			out.fail(line, err)
			continue
		}
		readings, lines = append(readings, x), append(lines, line)
	}
	refused, err := s.Series.Import(ctx, readings)
	if err != nil {
		return nil, err
	}
	for i, err := range refused {
		if err != nil {
			out.fail(lines[i], err)
		} else {
			out.Stored++
		}
	}
	slices.SortFunc(out.Lines, func(a, b FailedLine) int { return a.Line - b.Line })
	return outputOf(out), nil
}

// reading reads a line of a CSV file; the model of the device says of what kind the value is.
func (s *server) reading(cells []string) (r citywarden.DeviceReading, err error) {
	at, err := time.Parse(time.RFC3339Nano, cells[0])
	if err != nil {
		return r, citywarden.Errorf(citywarden.CodeInvalid, "time %q: write it like 2026-11-23T08:00:00Z", cells[0])
	}
	r.Device, r.Metric, r.Time = citywarden.DeviceID(cells[1]), citywarden.MetricName(cells[2]), at.UTC()
	d, model, err := s.Devices.Device(r.Device)
	if err != nil {
		return r, err
	}
	m, ok := model.Metric(r.Metric)
	if !ok {
		return r, unknownMetric(d, model, r.Metric)
	}
	switch m.Kind {
	case citywarden.KindNumber:
		f, err := strconv.ParseFloat(cells[3], 64)
		if err != nil || f-f != 0 {
			return r, citywarden.Errorf(citywarden.CodeInvalid, "value %q of %s is no number", cells[3], m.Name)
		}
		r.Value = citywarden.Number(f)
	case citywarden.KindBool:
		b, err := strconv.ParseBool(cells[3])
		if err != nil {
			return r, citywarden.Errorf(citywarden.CodeInvalid, "value %q of %s is neither true nor false", cells[3], m.Name)
		}
		r.Value = citywarden.Bool(b)
	default:
		r.Value = citywarden.TextValue(cells[3])
	}
	return r, nil
}
