package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// Some tables hold things as JSON text in the column data, under their id.

// documents returns what a query selects, the column data alone.
func documents[T any](ctx context.Context, q querier, query string, args ...any) ([]T, error) {
	return list(ctx, q, scanDocument[T], query, args...)
}

func scanDocument[T any](row scanner) (x T, err error) {
	var data string
	if err := row.Scan(&data); err != nil {
		return x, err
	}
	return x, json.Unmarshal([]byte(data), &x)
}

// saveDocuments inserts or replaces xs, whose ids id returns, in a table, a
// hundred by one statement: most of the time goes into going there.
func saveDocuments[T any, ID ~string](ctx context.Context, q querier, table string, xs []T, id func(T) ID) error {
	const most = 100
	for n := 1; len(xs) > 0; xs = xs[n:] {
		if n = most; len(xs) < most {
			n = 1 // few texts of statements, which are kept compiled
		}
		var rows []string
		var args []any
		for _, x := range xs[:n] {
			b, err := json.Marshal(x)
			if err != nil {
				return fmt.Errorf("write %s of %s: %w", id(x), table, err)
			}
			args = append(args, string(id(x)), string(b))
			rows = append(rows, fmt.Sprintf("($%d, $%d)", len(args)-1, len(args)))
		}
		_, err := q.ExecContext(ctx, `INSERT INTO `+table+` (id, data) VALUES `+strings.Join(rows, ", ")+`
			ON CONFLICT (id) DO UPDATE SET data = excluded.data`, args...)
		if err != nil {
			return fmt.Errorf("save %s of %s: %w", id(xs[0]), table, err)
		}
	}
	return nil
}
