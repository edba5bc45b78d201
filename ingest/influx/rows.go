package influx

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

const (
	pageRows   = 10_000
	maxNamed   = 100 // devices that a statement names; more are picked out of the answer
	deviceName = "device"
)

// Rows returns all readings of a domain from q.From on, before q.To, in the order
// of time: as many as come in one page, but never only some of those of one
// time. None means that there are no more.
func (s *Series) Rows(ctx context.Context, domain citywarden.Domain, q citywarden.HistoryQuery) ([]citywarden.SeriesRow, error) {
	return s.rows(ctx, readings, domain, q)
}

// rows are the Rows of a level of the rollups or of the readings.
func (s *Series) rows(ctx context.Context, level int, domain citywarden.Domain, q citywarden.HistoryQuery) ([]citywarden.SeriesRow, error) {
	for from := q.From; from.Before(q.To); {
		rows, next, err := s.page(ctx, level, domain, from, q)
		if err != nil {
			return nil, fmt.Errorf("series of %s from %s: %w", domain, from.Format(time.RFC3339), err)
		}
		if len(rows) > 0 {
			return rows, nil
		}
		from = next
	}
	return nil, nil
}

// page returns the rows of one statement, and where the next one begins.
func (s *Series) page(ctx context.Context, level int, domain citywarden.Domain, from time.Time, q citywarden.HistoryQuery) (rows []citywarden.SeriesRow, next time.Time, err error) {
	for limit := cmp.Or(q.Rows, pageRows); ; limit *= 10 {
		source, database, w := s.source(level, domain)
		t, err := s.run(ctx, http.MethodGet, database, rowsText(source, from, q, limit))
		if err != nil {
			return nil, q.To, s.absent(ctx, w, err)
		}
		if rows, err = t.rows(); err != nil {
			return nil, q.To, fmt.Errorf("answer of %s: %w", s.where(), err)
		}
		next = q.To
		if full := len(t.Values) == limit; len(rows) > 0 && (full || t.Partial) { // the last time may be there in part only
			next = rows[len(rows)-1].Time
			n := len(rows)
			for n > 0 && rows[n-1].Time.Equal(next) {
				n--
			}
			switch {
			case n > 0:
			case !full:
				return nil, q.To, citywarden.Errorf(citywarden.CodeTransient, "%s cuts its answers after %d rows, and has more for %s alone: raise max-row-limit in the part [http] of its configuration",
					s.where(), len(rows), next.Format(time.RFC3339Nano))
			case limit < maxPoints:
				continue
			default:
				return nil, q.To, citywarden.Errorf(citywarden.CodeInternal, "more than %d rows at %s", limit, next)
			}
			rows = rows[:n]
		}
		break
	}
	rows = slices.DeleteFunc(rows, func(r citywarden.SeriesRow) bool { return q.Devices != nil && !q.Devices[r.Device] })
	return rows, next, nil
}

// rowsText is the statement of a page.
func rowsText(source string, from time.Time, q citywarden.HistoryQuery, limit int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `SELECT "%s"::tag, *::field FROM %s WHERE time >= %d AND time < %d`, deviceName, source, from.UnixNano(), q.To.UnixNano())
	if n := len(q.Devices); n > 0 && n <= maxNamed {
		sep := " AND ("
		for _, id := range slices.Sorted(maps.Keys(q.Devices)) {
			fmt.Fprintf(&b, `%s"%s" = %s`, sep, deviceName, quote(string(id)))
			sep = " OR "
		}
		b.WriteString(")")
	}
	fmt.Fprintf(&b, " ORDER BY time ASC LIMIT %d", limit)
	return b.String()
}

// rows reads the table, ordered by time and device.
func (t *table) rows() ([]citywarden.SeriesRow, error) {
	tag := slices.Index(t.Columns, deviceName)
	if len(t.Values) > 0 && (tag < 1 || t.Columns[0] != "time") {
		return nil, fmt.Errorf("the columns are %v, without time and device", t.Columns)
	}
	out := make([]citywarden.SeriesRow, 0, len(t.Values))
	ids := map[string]citywarden.DeviceID{}
	for _, cells := range t.Values {
		if len(cells) != len(t.Columns) {
			return nil, fmt.Errorf("a row has %d cells for %d columns", len(cells), len(t.Columns))
		}
		ns, err := strconv.ParseInt(string(cells[0]), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("time %s is not in nanoseconds", cells[0])
		}
		id, known := ids[string(cells[tag])]
		if !known {
			if err := json.Unmarshal(cells[tag], &id); err != nil {
				return nil, fmt.Errorf("device %s: %w", cells[tag], err)
			}
			ids[string(cells[tag])] = id
		}
		r := citywarden.SeriesRow{Device: id, Time: time.Unix(0, ns).UTC(), Values: map[citywarden.MetricName]citywarden.Value{}}
		for i, c := range cells {
			if i == 0 || i == tag || string(c) == "null" {
				continue
			}
			v, err := cell(c)
			if err != nil {
				return nil, err
			}
			r.Values[citywarden.MetricName(t.Columns[i])] = v
		}
		out = append(out, r)
	}
	slices.SortStableFunc(out, func(a, b citywarden.SeriesRow) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Device, b.Device))
	})
	return out, nil
}

// cell reads a value. Most are numbers, which come by the million.
func cell(c json.RawMessage) (v citywarden.Value, err error) {
	if n, err := strconv.ParseFloat(string(c), 64); err == nil {
		return citywarden.Number(n), nil
	}
	err = json.Unmarshal(c, &v)
	return v, err
}
