package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// maxSignIns is how many sign-ins one person may have open at a time; the
// oldest ends when there is one more. Tokens of programs do not count.
const maxSignIns = 50

const userColumns = `u.name, u.title, u.role, u.department, u.area, u.disabled, u.created`

func scanUser(u *citywarden.User, created *int64) []any {
	return []any{&u.Name, &u.Title, &u.Role, &u.Department, &u.Area, &u.Disabled, created}
}

// AddUser stores a new user; hash is the hash of the password, "" for nobody
// can sign in as this user. CodeConflict when the name is taken.
func (d *DB) AddUser(ctx context.Context, u citywarden.User, hash string) error {
	r, err := d.exec(ctx, `INSERT INTO users (name, title, role, department, password, created, area)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO NOTHING`,
		u.Name, u.Title, u.Role, u.Department, hash, toMS(u.Created), string(u.Area))
	if err != nil {
		return fmt.Errorf("add user %s: %w", u.Name, err)
	}
	if n, err := r.RowsAffected(); err != nil {
		return fmt.Errorf("add user %s: %w", u.Name, err)
	} else if n == 0 {
		return citywarden.Errorf(citywarden.CodeConflict, "there is a user %s already", u.Name)
	}
	return nil
}

// UpdateUser changes title, role, department and area of the user named u.Name, and
// whether they are disabled, which ends their sessions and tokens. CodeNotFound when
// there is none, CodeConflict when nobody would be left who is admin.
func (d *DB) UpdateUser(ctx context.Context, u citywarden.User) error {
	return d.tx(ctx, func(q querier) error {
		r, err := q.ExecContext(ctx, `UPDATE users SET title = $2, role = $3, department = $4, area = $5, disabled = $6 WHERE name = $1`,
			u.Name, u.Title, u.Role, u.Department, string(u.Area), toInt(u.Disabled))
		if err != nil {
			return fmt.Errorf("update user %s: %w", u.Name, err)
		}
		if err := userChanged(ctx, q, r, u.Name); err != nil || !u.Disabled {
			return err
		}
		if _, err := q.ExecContext(ctx, `DELETE FROM sessions WHERE owner = $1`, u.Name); err != nil {
			return fmt.Errorf("end sessions of %s: %w", u.Name, err)
		}
		return nil
	})
}

// DeleteUser deletes the user and ends its sessions and tokens. CodeNotFound
// and CodeConflict as UpdateUser.
func (d *DB) DeleteUser(ctx context.Context, name string) error {
	return d.tx(ctx, func(q querier) error {
		r, err := q.ExecContext(ctx, `DELETE FROM users WHERE name = $1`, name)
		if err != nil {
			return fmt.Errorf("delete user %s: %w", name, err)
		}
		return userChanged(ctx, q, r, name)
	})
}

// userChanged returns CodeNotFound when r changed no row, CodeConflict when
// there is no admin any more.
func userChanged(ctx context.Context, q querier, r sql.Result, name string) error {
	if n, err := r.RowsAffected(); err != nil {
		return fmt.Errorf("user %s: %w", name, err)
	} else if n == 0 {
		return noUser(name)
	}
	var admins int
	err := q.QueryRowContext(ctx, `SELECT COUNT(*) FROM users WHERE role = $1 AND password <> '' AND disabled = 0`, citywarden.RoleAdmin).Scan(&admins)
	if err != nil {
		return fmt.Errorf("count admins: %w", err)
	}
	if admins == 0 {
		return citywarden.Errorf(citywarden.CodeConflict, "%s is the last admin; make somebody else admin first", name)
	}
	return nil
}

func noUser(name string) error {
	return citywarden.Errorf(citywarden.CodeNotFound, "no user %s", name)
}

// Users returns all users by name.
func (d *DB) Users(ctx context.Context) ([]citywarden.User, error) {
	users, err := list(ctx, d.sql, func(row scanner) (u citywarden.User, err error) {
		var created int64
		err = row.Scan(scanUser(&u, &created)...)
		u.Created = fromMS(created)
		return u, err
	}, `SELECT `+userColumns+` FROM users u ORDER BY u.name`)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	return users, nil
}

// UserByName returns the user and the hash of the password. CodeNotFound when
// there is none.
func (d *DB) UserByName(ctx context.Context, name string) (u citywarden.User, hash string, err error) {
	var created int64
	row := d.sql.QueryRowContext(ctx, `SELECT `+userColumns+`, u.password FROM users u WHERE u.name = $1`, name)
	err = row.Scan(append(scanUser(&u, &created), &hash)...)
	if errors.Is(err, sql.ErrNoRows) {
		return citywarden.User{}, "", noUser(name)
	}
	if err != nil {
		return citywarden.User{}, "", fmt.Errorf("read user %s: %w", name, err)
	}
	u.Created = fromMS(created)
	return u, hash, nil
}

// SetPassword stores the hash of a new password and ends the user's sign-ins
// except the session keep, "" for none. Tokens of programs stay. CodeNotFound
// when there is no such user.
func (d *DB) SetPassword(ctx context.Context, name, hash, keep string) error {
	return d.tx(ctx, func(q querier) error {
		r, err := q.ExecContext(ctx, `UPDATE users SET password = $2 WHERE name = $1`, name, hash)
		if err != nil {
			return fmt.Errorf("set password of %s: %w", name, err)
		}
		if n, err := r.RowsAffected(); err != nil {
			return fmt.Errorf("set password of %s: %w", name, err)
		} else if n == 0 {
			return noUser(name)
		}
		_, err = q.ExecContext(ctx, `DELETE FROM sessions WHERE owner = $1 AND label = '' AND id <> $2`, name, keep)
		if err != nil {
			return fmt.Errorf("end sessions of %s: %w", name, err)
		}
		return nil
	})
}

// AddSession stores a session, deletes those that are expired at s.Created,
// and ends the user's oldest sign-ins when there are more than 50. CodeNotFound
// when there is no such user, or they are disabled.
func (d *DB) AddSession(ctx context.Context, s citywarden.Session) error {
	return d.tx(ctx, func(q querier) error {
		_, err := q.ExecContext(ctx, `DELETE FROM sessions WHERE expires > 0 AND expires <= $1`, toMS(s.Created))
		if err != nil {
			return fmt.Errorf("delete expired sessions: %w", err)
		}
		r, err := q.ExecContext(ctx, `INSERT INTO sessions (id, owner, label, created, expires)
			SELECT $1, name, $3, $4, $5 FROM users WHERE name = $2 AND disabled = 0`,
			s.ID, s.User, s.Label, toMS(s.Created), toMS(s.Expires))
		if err != nil {
			return fmt.Errorf("add session of %s: %w", s.User, err)
		}
		if n, err := r.RowsAffected(); err != nil {
			return fmt.Errorf("add session of %s: %w", s.User, err)
		} else if n == 0 {
			return noUser(s.User)
		}
		_, err = q.ExecContext(ctx, `DELETE FROM sessions WHERE owner = $1 AND label = '' AND id NOT IN
			(SELECT id FROM sessions WHERE owner = $1 AND label = '' ORDER BY created DESC, id LIMIT $2)`, s.User, maxSignIns)
		if err != nil {
			return fmt.Errorf("end old sessions of %s: %w", s.User, err)
		}
		return nil
	})
}

// Session returns the session and its user. CodeNotFound when there is none or
// it has expired at now.
func (d *DB) Session(ctx context.Context, id string, now time.Time) (s citywarden.Session, u citywarden.User, err error) {
	var created, began, expires int64
	row := d.sql.QueryRowContext(ctx, `SELECT `+userColumns+`, s.id, s.owner, s.label, s.created, s.expires
		FROM sessions s JOIN users u ON u.name = s.owner
		WHERE s.id = $1 AND (s.expires = 0 OR s.expires > $2)`, id, toMS(now))
	err = row.Scan(append(scanUser(&u, &created), &s.ID, &s.User, &s.Label, &began, &expires)...)
	if errors.Is(err, sql.ErrNoRows) {
		return citywarden.Session{}, citywarden.User{}, citywarden.Errorf(citywarden.CodeNotFound, "no such session, or it has expired")
	}
	if err != nil {
		return citywarden.Session{}, citywarden.User{}, fmt.Errorf("read session: %w", err)
	}
	u.Created, s.Created, s.Expires = fromMS(created), fromMS(began), fromMS(expires)
	return s, u, nil
}

// Sessions returns the user's sign-ins and tokens, the newest first.
func (d *DB) Sessions(ctx context.Context, user string) ([]citywarden.Session, error) {
	all, err := list(ctx, d.sql, func(row scanner) (s citywarden.Session, err error) {
		var created, expires int64
		err = row.Scan(&s.ID, &s.User, &s.Label, &created, &expires)
		s.Created, s.Expires = fromMS(created), fromMS(expires)
		return s, err
	}, `SELECT id, owner, label, created, expires FROM sessions WHERE owner = $1 ORDER BY created DESC, id`, user)
	if err != nil {
		return nil, fmt.Errorf("list sessions of %s: %w", user, err)
	}
	return all, nil
}

// DeleteSession ends a sign-in or token of the user. CodeNotFound when there
// is none with that id.
func (d *DB) DeleteSession(ctx context.Context, user, id string) error {
	r, err := d.exec(ctx, `DELETE FROM sessions WHERE owner = $1 AND id = $2`, user, id)
	if err != nil {
		return fmt.Errorf("end session of %s: %w", user, err)
	}
	if n, err := r.RowsAffected(); err != nil {
		return fmt.Errorf("end session of %s: %w", user, err)
	} else if n == 0 {
		return citywarden.Errorf(citywarden.CodeNotFound, "%s has no session %s", user, id)
	}
	return nil
}

// AppendAudit stores an entry and returns its id, which grows.
func (d *DB) AppendAudit(ctx context.Context, e citywarden.AuditEntry) (int64, error) {
	var id int64
	err := d.tx(ctx, func(q querier) error {
		return q.QueryRowContext(ctx, `INSERT INTO audit (id, at, actor, role, address, action, target, detail, status, before)
			VALUES ((SELECT COALESCE(MAX(id), 0) + 1 FROM audit), $1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id`,
			toMS(e.At), e.User, e.Role, e.Address, e.Action, e.Target, e.Detail, e.Status, string(e.Before)).Scan(&id)
	})
	if err != nil {
		return 0, fmt.Errorf("write audit entry %s %s: %w", e.Action, e.Target, err)
	}
	return id, nil
}

// FinishAudit adds what came of the entry: the HTTP status, and how the thing is
// after it, nil for nothing.
func (d *DB) FinishAudit(ctx context.Context, id int64, status int, after json.RawMessage) error {
	if _, err := d.exec(ctx, `UPDATE audit SET status = $2, after = $3 WHERE id = $1`, id, status, string(after)); err != nil {
		return fmt.Errorf("finish audit entry %d: %w", id, err)
	}
	return nil
}

// Audit returns entries, the newest first, and the cursor of the next page.
// CodeInvalid when f.After is not a cursor.
func (d *DB) Audit(ctx context.Context, f citywarden.AuditFilter) ([]citywarden.AuditEntry, string, error) {
	var w where
	for _, x := range []struct{ column, value string }{{"actor", f.User}, {"action", f.Action}, {"address", f.Address}} {
		if x.value != "" {
			w.and(x.column+" = $", x.value)
		}
	}
	if begin, ok := strings.CutSuffix(f.Target, "*"); ok {
		w.and("substr(target, 1, $) = $", len([]rune(begin)), begin)
	} else if f.Target != "" {
		w.and("target = $", f.Target)
	}
	if !f.From.IsZero() {
		w.and("at >= $", toMS(f.From))
	}
	if !f.To.IsZero() {
		w.and("at < $", toMS(f.To))
	}
	if err := w.before("id", f.After); err != nil {
		return nil, "", err
	}
	all, err := list(ctx, d.sql, func(row scanner) (e citywarden.AuditEntry, err error) {
		var at int64
		var before, after string
		err = row.Scan(&e.ID, &at, &e.User, &e.Role, &e.Address, &e.Action, &e.Target, &e.Detail, &e.Status, &before, &after)
		e.At = fromMS(at)
		if before != "" {
			e.Before = json.RawMessage(before)
		}
		if after != "" {
			e.After = json.RawMessage(after)
		}
		return e, err
	}, `SELECT id, at, actor, role, address, action, target, detail, status, before, after FROM audit`+w.text()+` ORDER BY id DESC`+limit(f.Page), w.args...)
	if err != nil {
		return nil, "", fmt.Errorf("read audit: %w", err)
	}
	items, next := page(all, f.Page, func(e *citywarden.AuditEntry) string { return strconv.FormatInt(e.ID, 10) })
	return items, next, nil
}
