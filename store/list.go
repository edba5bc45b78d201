package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/citywarden/citywarden"
)

// scanner is one row.
type scanner interface{ Scan(...any) error }

// list returns what scan makes of each row of a query; an empty list for none.
func list[T any](ctx context.Context, q querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := []T{}
	for rows.Next() {
		x, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, rows.Err()
}

// page cuts all, which was read one row further than p asks for, to that size
// and returns the cursor of the next page, "" when there is none.
func page[T any](all []T, p citywarden.Page, cursor func(*T) string) ([]T, string) {
	n := p.Size()
	if len(all) <= n {
		return all, ""
	}
	return all[:n], cursor(&all[n-1])
}

// limit returns the LIMIT that page needs.
func limit(p citywarden.Page) string { return fmt.Sprintf(" LIMIT %d", p.Size()+1) }

// where builds a WHERE clause.
type where struct {
	terms []string
	args  []any
}

// and adds a term; each $ in it stands for the next of args.
func (w *where) and(term string, args ...any) {
	var b strings.Builder
	for _, r := range term {
		b.WriteRune(r)
		if r == '$' {
			w.args = append(w.args, args[0])
			args = args[1:]
			b.WriteString(strconv.Itoa(len(w.args)))
		}
	}
	w.terms = append(w.terms, b.String())
}

// oneOf adds that column is one of ids; nil adds nothing.
func oneOf[T ~string](w *where, column string, ids []T) {
	if ids == nil {
		return
	}
	var args []any
	for _, id := range ids {
		args = append(args, string(id))
	}
	w.and(column+" IN ("+strings.Join(slices.Repeat([]string{"$"}, len(ids)), ", ")+")", args...)
}

// in adds that what lies in the unit grid that the column, or another
// expression, says lies in a.
func (w *where) in(a citywarden.AreaCode, grid string) {
	switch len(a) {
	case 0:
	case 6: // what lies in no grid, too
		w.and("substr("+grid+", 1, 6) IN ($, '')", string(a))
	default:
		w.and(fmt.Sprintf("substr(%s, 1, %d) = $", grid, len(a)), string(a))
	}
}

// concerns adds that the area or unit grid that the column, or another expression,
// says lies in a, or has it.
func (w *where) concerns(a citywarden.AreaCode, area string) {
	if len(a) <= 6 {
		w.in(a, area)
		return
	}
	wider := []any{string(a), string(a[:6])}
	marks := "$"
	if len(a) == 12 {
		wider, marks = append(wider, string(a[:9])), "$, $"
	}
	w.and(fmt.Sprintf("(substr(%s, 1, %d) = $ OR %s IN (%s))", area, len(a), area, marks), wider...)
}

// alarmIn adds that a has all devices which the alarm, a column, ever concerned.
func (w *where) alarmIn(a citywarden.AreaCode, alarm string) {
	const concerned = "SELECT 1 FROM alarm_devices y LEFT JOIN devices d ON d.id = y.device WHERE y.alarm = "
	switch len(a) {
	case 0:
	case 6:
		w.and("NOT EXISTS ("+concerned+alarm+" AND substr(COALESCE(d.grid, ''), 1, 6) NOT IN ($, ''))", string(a))
	default:
		w.and("EXISTS (" + concerned + alarm + ")")
		w.and(fmt.Sprintf("NOT EXISTS (%s%s AND substr(COALESCE(d.grid, ''), 1, %d) <> $)", concerned, alarm, len(a)), string(a))
	}
}

// after adds that rows come behind the page cursor in the order of the columns
// at and id, both descending.
func (w *where) after(at, id, cursor string) error { return w.beyond("DESC", at, id, cursor) }

// beyond is after in either order, ASC or DESC.
func (w *where) beyond(order, at, id, cursor string) error {
	if cursor == "" {
		return nil
	}
	ms, last, ok := strings.Cut(cursor, ".")
	n, err := strconv.ParseInt(ms, 10, 64)
	if !ok || err != nil {
		return badCursor(cursor)
	}
	sign := "<"
	if order == "ASC" {
		sign = ">"
	}
	w.and("("+at+", "+id+") "+sign+" ($, $)", n, last)
	return nil
}

// before adds that column is less than the number that is the page cursor.
func (w *where) before(column, cursor string) error {
	if cursor == "" {
		return nil
	}
	n, err := strconv.ParseInt(cursor, 10, 64)
	if err != nil {
		return badCursor(cursor)
	}
	w.and(column+" < $", n)
	return nil
}

func badCursor(cursor string) error {
	return citywarden.Errorf(citywarden.CodeInvalid, "page cursor %q: use the next of the page before", cursor)
}

func (w *where) text() string {
	if len(w.terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.terms, " AND ")
}

func pageCursor(at int64, id string) string { return strconv.FormatInt(at, 10) + "." + id }
