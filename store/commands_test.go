package store

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/store/pgtest"
)

func TestCommands(t *testing.T) {
	ctx, began := t.Context(), time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	path := filepath.Join(t.TempDir(), "x.db")
	db := pgtest.Open(t, path, Open)
	save := func(id int64, device citywarden.DeviceID, state citywarden.CommandState) {
		t.Helper()
		at := began.Add(time.Duration(id) * time.Hour)
		c := citywarden.Command{ID: id, Device: device, Method: "open", Params: []byte(`{"pct":1}`), State: state, By: "li", Created: at, Expires: at.Add(time.Minute)}
		if err := db.SaveCommand(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	ids := func(f citywarden.CommandFilter) (out string) {
		t.Helper()
		for {
			cs, next, err := db.Commands(ctx, f)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range cs {
				out += fmt.Sprintf("%d %s %s %s, ", c.ID, c.Device, c.State, c.Created.Format("15:04"))
			}
			if f.After = next; next == "" {
				return out
			}
		}
	}
	must := func(what, got, want string) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	for i, s := range []citywarden.CommandState{citywarden.CommandSent, citywarden.CommandQueued, citywarden.CommandAnswered, citywarden.CommandTimedOut} {
		save(int64(i+1), "v1", s)
	}
	save(1, "v1", citywarden.CommandAnswered)
	save(5, "v2", citywarden.CommandAnswered)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = pgtest.Open(t, path, Open)
	open, last, err := db.OpenCommands(ctx)
	if err != nil || last != 5 || len(open) != 1 || open[0].ID != 2 {
		t.Errorf("open %v of %d, %v; want 2 of 5", open, last, err)
	}
	must("pages", ids(citywarden.CommandFilter{Device: "v1", Page: citywarden.Page{Limit: 3}}),
		"4 v1 timed_out 12:00, 3 v1 answered 11:00, 2 v1 queued 10:00, 1 v1 answered 09:00, ")
	must("open ones", ids(citywarden.CommandFilter{Open: true}), "2 v1 queued 10:00, ")
	for _, c := range []struct {
		hours time.Duration
		want  string
	}{
		{3, "5 v2 answered 13:00, 4 v1 timed_out 12:00, 3 v1 answered 11:00, 2 v1 queued 10:00, "},
		{100, "5 v2 answered 13:00, 2 v1 queued 10:00, "},
	} {
		if err := db.PruneCommands(ctx, began.Add(c.hours*time.Hour)); err != nil {
			t.Fatal(err)
		}
		must(fmt.Sprint("after ", c.hours, " hours"), ids(citywarden.CommandFilter{}), c.want)
	}
}
