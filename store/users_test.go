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

var usersNoon = time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)

func openUsers(t *testing.T) *DB {
	t.Helper()
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), Open)
	for _, u := range []citywarden.User{
		{Name: "admin", Role: citywarden.RoleAdmin, Created: usersNoon},
		{Name: "li", Title: "派遣员 李", Role: citywarden.RoleDispatcher, Created: usersNoon},
	} {
		if err := db.AddUser(t.Context(), u, "hash of "+u.Name); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

func wantCode(t *testing.T, what string, err error, want citywarden.Code) {
	t.Helper()
	if got := citywarden.CodeOf(err); got != want {
		t.Errorf("%s: %v (code %q), want code %q", what, err, got, want)
	}
}

func TestUsers(t *testing.T) {
	db, ctx := openUsers(t), t.Context()
	wantCode(t, "add twice", db.AddUser(ctx, citywarden.User{Name: "li"}, ""), citywarden.CodeConflict)
	wantCode(t, "update nobody", db.UpdateUser(ctx, citywarden.User{Name: "nobody"}), citywarden.CodeNotFound)
	wantCode(t, "delete nobody", db.DeleteUser(ctx, "nobody"), citywarden.CodeNotFound)
	wantCode(t, "password of nobody", db.SetPassword(ctx, "nobody", "x", ""), citywarden.CodeNotFound)
	wantCode(t, "delete the last admin", db.DeleteUser(ctx, "admin"), citywarden.CodeConflict)
	wantCode(t, "demote the last admin", db.UpdateUser(ctx, citywarden.User{Name: "admin", Role: citywarden.RoleViewer}), citywarden.CodeConflict)
	_, _, err := db.UserByName(ctx, "nobody")
	wantCode(t, "read nobody", err, citywarden.CodeNotFound)

	if err := db.UpdateUser(ctx, citywarden.User{Name: "li", Title: "李", Role: citywarden.RoleDepartment, Department: "fire"}); err != nil {
		t.Fatal(err)
	}
	got, hash, err := db.UserByName(ctx, "li")
	want := citywarden.User{Name: "li", Title: "李", Role: citywarden.RoleDepartment, Department: "fire", Created: usersNoon}
	if diff := cmp.Diff(want, got); err != nil || diff != "" || hash != "hash of li" {
		t.Errorf("li = %v, hash %q (-want +got)\n%s", err, hash, diff)
	}
	us, err := db.Users(ctx)
	if err != nil || len(us) != 2 || us[0].Name != "admin" || us[0].Role != citywarden.RoleAdmin || us[1].Name != "li" {
		t.Errorf("Users = %v, %v", us, err)
	}
}

// Who is disabled has no session or token any more and gets none; an admin stays.
func TestDisabledUser(t *testing.T) {
	db, ctx := openUsers(t), t.Context()
	li := citywarden.User{Name: "li", Role: citywarden.RoleDispatcher, Disabled: true, Created: usersNoon}
	session := citywarden.Session{ID: "s", User: "li", Created: usersNoon}
	for _, s := range []citywarden.Session{session, {ID: "token", User: "li", Label: "grafana", Created: usersNoon}} {
		if err := db.AddSession(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.UpdateUser(ctx, li); err != nil {
		t.Fatal(err)
	}
	if got, _, err := db.UserByName(ctx, "li"); err != nil || got != li {
		t.Errorf("disabled: %+v, %v; want %+v", got, err, li)
	}
	if all, err := db.Sessions(ctx, "li"); err != nil || len(all) != 0 {
		t.Errorf("sessions of a disabled user: %v, %v", all, err)
	}
	wantCode(t, "session of a disabled user", db.AddSession(ctx, session), citywarden.CodeNotFound)
	wantCode(t, "disable the last admin", db.UpdateUser(ctx, citywarden.User{Name: "admin", Role: citywarden.RoleAdmin, Disabled: true}), citywarden.CodeConflict)
	li.Disabled = false
	if err := db.UpdateUser(ctx, li); err != nil {
		t.Fatal(err)
	}
	if err := db.AddSession(ctx, session); err != nil {
		t.Errorf("a session after being enabled: %v", err)
	}
}

func TestSessions(t *testing.T) {
	db, ctx := openUsers(t), t.Context()
	add := func(id, user, label string, at time.Time, life time.Duration) {
		t.Helper()
		s := citywarden.Session{ID: id, User: user, Label: label, Created: at}
		if life > 0 {
			s.Expires = at.Add(life)
		}
		if err := db.AddSession(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, "session of nobody", db.AddSession(ctx, citywarden.Session{ID: "x", User: "nobody", Created: usersNoon}), citywarden.CodeNotFound)
	add("token", "li", "grafana", usersNoon, 0)
	add("s", "li", "", usersNoon, time.Hour)
	s, u, err := db.Session(ctx, "s", usersNoon.Add(time.Hour-time.Millisecond))
	if want := (citywarden.Session{ID: "s", User: "li", Created: usersNoon, Expires: usersNoon.Add(time.Hour)}); err != nil || s != want || u.Name != "li" || u.Role != citywarden.RoleDispatcher {
		t.Errorf("Session = %+v, %+v, %v", s, u, err)
	}
	_, _, err = db.Session(ctx, "s", usersNoon.Add(time.Hour))
	wantCode(t, "expired", err, citywarden.CodeNotFound)
	if _, _, err := db.Session(ctx, "token", usersNoon.Add(1e5*time.Hour)); err != nil {
		t.Errorf("token without end: %v", err)
	}

	// Another sign-in clears away what has expired, and the oldest beyond 50.
	later := usersNoon.Add(2 * time.Hour)
	for i := range maxSignIns + 3 {
		add(fmt.Sprintf("n%02d", i), "li", "", later.Add(time.Duration(i)*time.Second), time.Hour)
	}
	all, err := db.Sessions(ctx, "li")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != maxSignIns+1 || all[0].ID != "n52" || all[len(all)-2].ID != "n03" || all[len(all)-1].ID != "token" {
		t.Errorf("%d sessions, %s … %s, %s", len(all), all[0].ID, all[len(all)-2].ID, all[len(all)-1].ID)
	}

	wantCode(t, "session of somebody else", db.DeleteSession(ctx, "admin", "n52"), citywarden.CodeNotFound)
	if err := db.SetPassword(ctx, "li", "new", "n52"); err != nil {
		t.Fatal(err)
	}
	if all, err = db.Sessions(ctx, "li"); err != nil || len(all) != 2 || all[0].ID != "n52" || all[1].ID != "token" {
		t.Errorf("sessions after the password changed = %v, %v", all, err)
	}
	if err := db.DeleteSession(ctx, "li", "n52"); err != nil {
		t.Error(err)
	}
	if err := db.DeleteUser(ctx, "li"); err != nil {
		t.Fatal(err)
	}
	_, _, err = db.Session(ctx, "token", later)
	wantCode(t, "token of a deleted user", err, citywarden.CodeNotFound)
}

func TestAudit(t *testing.T) {
	db, ctx := openUsers(t), t.Context()
	var ids []int64
	for i := range 5 {
		e := citywarden.AuditEntry{
			At: usersNoon.Add(time.Duration(i) * time.Minute), User: []string{"admin", "li"}[i%2], Role: citywarden.RoleAdmin,
			Address: "192.0.2.1", Action: "create-device", Target: "/api/v1/devices", Detail: "{}",
		}
		id, err := db.AppendAudit(ctx, e)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := db.FinishAudit(ctx, ids[4], 201, nil); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		f    citywarden.AuditFilter
		want []int64
		next bool
	}{
		"all":         {citywarden.AuditFilter{}, []int64{ids[4], ids[3], ids[2], ids[1], ids[0]}, false},
		"of li":       {citywarden.AuditFilter{User: "li"}, []int64{ids[3], ids[1]}, false},
		"a time":      {citywarden.AuditFilter{From: usersNoon.Add(time.Minute), To: usersNoon.Add(3 * time.Minute)}, []int64{ids[2], ids[1]}, false},
		"first page":  {citywarden.AuditFilter{Page: citywarden.Page{Limit: 2}}, []int64{ids[4], ids[3]}, true},
		"second page": {citywarden.AuditFilter{Page: citywarden.Page{Limit: 3, After: fmt.Sprint(ids[3])}}, []int64{ids[2], ids[1], ids[0]}, false},
	} {
		es, next, err := db.Audit(ctx, c.f)
		var got []int64
		for _, e := range es {
			got = append(got, e.ID)
		}
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" || (next != "") != c.next {
			t.Errorf("%s: next %q, %v (-want +got)\n%s", name, next, err, diff)
		}
	}
	es, _, err := db.Audit(ctx, citywarden.AuditFilter{Page: citywarden.Page{Limit: 1}})
	want := citywarden.AuditEntry{ID: ids[4], At: usersNoon.Add(4 * time.Minute), User: "admin", Role: citywarden.RoleAdmin, Address: "192.0.2.1", Action: "create-device", Target: "/api/v1/devices", Detail: "{}", Status: 201}
	if diff := cmp.Diff([]citywarden.AuditEntry{want}, es); err != nil || diff != "" {
		t.Errorf("newest: %v (-want +got)\n%s", err, diff)
	}
	_, _, err = db.Audit(ctx, citywarden.AuditFilter{Page: citywarden.Page{After: "x"}})
	wantCode(t, "wrong cursor", err, citywarden.CodeInvalid)
}
