package influx

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/influxdata/influxdb-client-go/v2/api"
	influxhttp "github.com/influxdata/influxdb-client-go/v2/api/http"

	"github.com/citywarden/citywarden"
)

const (
	defaultPoints = 10_000
	maxPoints     = 1_000_000
)

// aggregates are the functions that a query may use.
var aggregates = [...]string{"mean", "min", "max", "sum", "count", "last"}

// Query returns the points of one metric of one device in the order of time,
// raw or one per interval; an interval without readings has no point. Intervals
// begin at multiples of Every since 1970 UTC, so that the first may begin before
// From; From and To that are zero don't bound the query. No readings are no
// error. CodeInvalid for a query that makes no sense, CodeTransient when the
// server can't be reached.
func (s *Series) Query(ctx context.Context, q citywarden.SeriesQuery) ([]citywarden.SeriesPoint, error) {
	if _, err := selectText(q); err != nil {
		return nil, err
	}
	points := []citywarden.SeriesPoint{}
	q.Limit = cmp.Or(q.Limit, defaultPoints)
	for {
		more, cut, err := s.selectPoints(ctx, q)
		if err != nil && q.Agg == "" && q.Every > 0 && noMean(err) {
			// A bool or a text has no mean: the last one stands for the interval.
			q.Agg = "last"
			more, cut, err = s.selectPoints(ctx, q)
		}
		if err != nil {
			return nil, fmt.Errorf("series %s of %s: %w", q.Metric, q.Device, err)
		}
		points = append(points, more...)
		q.Limit -= len(more)
		if !cut || len(more) == 0 || q.Limit <= 0 {
			return points, nil
		}
		q.From = more[len(more)-1].Time.Add(max(q.Every, 1))
		if !q.To.IsZero() && !q.From.Before(q.To) {
			return points, nil
		}
	}
}

// noMean reports whether err says that there is no mean of a bool or a text.
func noMean(err error) bool {
	return strings.Contains(err.Error(), "unsupported mean") || strings.Contains(err.Error(), "Avg does not support inputs") // InfluxDB 3
}

// selectText returns q in InfluxQL. Names and values are quoted: whatever they
// hold, it stays a name or a value.
func selectText(q citywarden.SeriesQuery) (string, error) {
	switch {
	case q.Device == "" || q.Metric == "" || q.Domain == "":
		return "", citywarden.Errorf(citywarden.CodeInvalid, "a series needs a device, its domain and a metric")
	case !q.From.IsZero() && !q.To.IsZero() && !q.From.Before(q.To):
		return "", citywarden.Errorf(citywarden.CodeInvalid, "series from %s to %s: from is not before to", q.From.Format(time.RFC3339), q.To.Format(time.RFC3339))
	case q.Every < 0 || q.Every > 0 && q.Every < time.Second:
		return "", citywarden.Errorf(citywarden.CodeInvalid, "series every %s: the interval is at least 1s", q.Every)
	case q.Every == 0 && q.Agg != "":
		return "", citywarden.Errorf(citywarden.CodeInvalid, "series agg %s needs an interval: say every", q.Agg)
	case q.Limit < 0 || q.Limit > maxPoints:
		return "", citywarden.Errorf(citywarden.CodeInvalid, "series limit %d: ask for at most %d points", q.Limit, maxPoints)
	}
	var b strings.Builder
	b.WriteString("SELECT ")
	if q.Every > 0 {
		agg := ""
		for _, a := range aggregates {
			if a == q.Agg || q.Agg == "" && a == "mean" {
				agg = a
			}
		}
		if agg == "" {
			return "", citywarden.Errorf(citywarden.CodeInvalid, "series agg %q: it is %s", q.Agg, strings.Join(aggregates[:], ", "))
		}
		fmt.Fprintf(&b, "%s(%s)", agg, ident(string(q.Metric)))
	} else {
		b.WriteString(ident(string(q.Metric)))
	}
	fmt.Fprintf(&b, ` FROM %s WHERE "device" = %s`, ident(string(q.Domain)), quote(string(q.Device)))
	for _, bound := range []struct {
		op string
		at time.Time
	}{{">=", q.From}, {"<", q.To}} {
		if !bound.at.IsZero() {
			if y := bound.at.Year(); y < 1700 || y > 2250 {
				return "", citywarden.Errorf(citywarden.CodeInvalid, "series time %s: a time lies between 1700 and 2250", bound.at.Format(time.RFC3339))
			}
			fmt.Fprintf(&b, " AND time %s %d", bound.op, bound.at.UnixNano())
		}
	}
	if q.Every > 0 {
		fmt.Fprintf(&b, " GROUP BY time(%dms) fill(none)", q.Every.Milliseconds())
	}
	fmt.Fprintf(&b, " ORDER BY time ASC LIMIT %d", cmp.Or(q.Limit, defaultPoints))
	return b.String(), nil
}

var (
	identEscapes = strings.NewReplacer("\n", `\n`, `\`, `\\`, `"`, `\"`)
	quoteEscapes = strings.NewReplacer("\n", `\n`, `\`, `\\`, `'`, `\'`)
)

// ident returns s as a quoted InfluxQL name, quote as a string.
func ident(s string) string { return `"` + identEscapes.Replace(s) + `"` }

func quote(s string) string { return `'` + quoteEscapes.Replace(s) + `'` }

// selectPoints runs the statement of q; cut reports that there are more points than the server answered with.
func (s *Series) selectPoints(ctx context.Context, q citywarden.SeriesQuery) (points []citywarden.SeriesPoint, cut bool, err error) {
	text, err := selectText(q)
	if err != nil {
		return nil, false, err
	}
	t, err := s.run(ctx, http.MethodGet, s.opt.Database, text)
	if err != nil {
		return nil, false, s.absent(ctx, s.writer, err)
	}
	points = make([]citywarden.SeriesPoint, 0, len(t.Values))
	for _, r := range t.Values {
		p, ok, err := point(r)
		if err != nil {
			return nil, false, fmt.Errorf("answer of %s: %w", s.where(), err)
		}
		if ok {
			points = append(points, p)
		}
	}
	return points, t.Partial, nil
}

// point reads a row of time and value; ok is false for an empty value.
func point(row []json.RawMessage) (p citywarden.SeriesPoint, ok bool, err error) {
	if len(row) != 2 {
		return p, false, fmt.Errorf("a row has %d columns, not time and value", len(row))
	}
	ns, err := strconv.ParseInt(string(row[0]), 10, 64)
	if err != nil {
		return p, false, fmt.Errorf("time %s is not in nanoseconds", row[0])
	}
	var x any
	if err := json.Unmarshal(row[1], &x); err != nil {
		return p, false, err
	}
	if x == nil {
		return p, false, nil
	}
	p.Time = time.Unix(0, ns).UTC()
	if p.Value, ok = citywarden.ValueOf(x); !ok {
		return p, false, fmt.Errorf("value %s is not a number, a bool or a text", row[1])
	}
	return p, true, nil
}

// influxQL runs one statement and returns the rows of its first series.
func (s *Series) influxQL(ctx context.Context, method, text string) ([][]json.RawMessage, error) {
	t, err := s.run(ctx, method, s.opt.Database, text)
	return t.Values, err
}

// table is one series of an answer.
type table struct {
	Columns []string
	Values  [][]json.RawMessage
	Partial bool // InfluxDB 1 has more rows than its max-row-limit, after which it cuts an answer
}

// readings is the level of the readings themselves, below those of the rollups.
const readings = -1

// source is a domain's measurement at a level of the rollups or of the readings, the
// database that a statement about it has to be run in, and what writes there. InfluxDB 3 takes no policy
// beside the statement, and up to 3.6 no other database than the statement names.
func (s *Series) source(level int, domain citywarden.Domain) (from, database string, w api.WriteAPIBlocking) {
	if level == readings {
		return ident(string(domain)), s.opt.Database, s.writer
	}
	return ident(s.opt.Database) + "." + ident(policyName(level)) + "." + ident(string(domain)), "", s.rollups[level]
}

// run runs one statement in a database, "" for that which it names, and
// returns the first series of the answer.
func (s *Series) run(ctx context.Context, method, database, text string) (table, error) {
	args := url.Values{"q": {text}, "epoch": {"ns"}}
	if database != "" {
		args.Set("db", database)
	}
	var body io.Reader
	target := s.base + "query"
	if method == http.MethodPost {
		body = strings.NewReader(args.Encode())
	} else {
		target += "?" + args.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return table{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	var out struct {
		Error   string
		Results []struct {
			Error  string
			Series []table
		}
	}
	if err := s.client.HTTPService().DoHTTPRequest(req, nil, func(r *http.Response) error {
		defer r.Body.Close()
		return json.NewDecoder(r.Body).Decode(&out)
	}); err != nil {
		return table{}, s.queryError(err)
	}
	if out.Error != "" { // what could not be written in an answer that had begun
		return table{}, citywarden.Errorf(citywarden.CodeTransient, "%s: %s", s.where(), out.Error)
	}
	if len(out.Results) == 0 {
		return table{}, nil
	}
	first := out.Results[0]
	if first.Error != "" {
		return table{}, citywarden.Errorf(citywarden.CodeInvalid, "%s: %s", s.where(), first.Error)
	}
	if len(first.Series) == 0 {
		return table{}, nil
	}
	return first.Series[0], nil
}

// nothingThere reports whether err says that nothing was ever written.
func nothingThere(err error) bool {
	return citywarden.CodeOf(err) == citywarden.CodeInvalid && noDatabase.MatchString(err.Error())
}

// noDatabase is how InfluxDB 1, 2 and 3, and 3.7 and later, say that a database or retention policy is not there.
var noDatabase = regexp.MustCompile(`database not found|retention policy not found|Database .* not found`)

// absent returns nil when err, of a query, says that nothing was ever written to where w
// writes, and an error otherwise. An InfluxDB 2 says so too when the token may not read, and is
// asked by a write of nothing: what is taken for empty would overwrite rollups.
func (s *Series) absent(ctx context.Context, w api.WriteAPIBlocking, err error) error {
	if !nothingThere(err) {
		return err
	}
	if s.opt.Org == "" {
		return nil
	}
	write := w.WriteRecord(ctx, "")
	var e *influxhttp.Error
	switch {
	case missing(write), errors.As(write, &e) && says(e, "incoming write was empty"): // InfluxDB 3, which takes an organisation and does not look at it
		return nil
	case write == nil:
		return citywarden.Errorf(citywarden.CodeDenied, "%w: it is there, but the token may not read it", err)
	}
	return s.explain(write)
}

func (s *Series) queryError(err error) error {
	code := citywarden.CodeTransient
	var e *influxhttp.Error
	if errors.As(err, &e) {
		switch {
		case e.StatusCode == http.StatusBadRequest, e.StatusCode == http.StatusNotFound, // InfluxDB 3 has no database before the first write
			says(e, "error in InfluxQL statement"): // and up to 3.6 says 500 to what it does not know
			code = citywarden.CodeInvalid
		case e.StatusCode == http.StatusUnauthorized, e.StatusCode == http.StatusForbidden:
			code = citywarden.CodeDenied
		}
	}
	var u *url.Error
	if errors.As(err, &u) { // which says the whole query, and nobody who reads it asked that
		err = u.Err
	}
	return citywarden.Errorf(code, "%s: %w", s.where(), err)
}
