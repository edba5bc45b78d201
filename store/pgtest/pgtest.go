// Package pgtest opens databases for tests, without the time that migrations
// take, and lets the tests of a package run on a PostgreSQL of their own, too: a
// private server on a unix socket, started from the installed binaries.
//
//	func TestOnPostgres(t *testing.T) { pgtest.Rerun(t, store.Open) }
//
//	func TestX(t *testing.T) {
//		db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), store.Open)
package pgtest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// env names the folder of the server's socket to the tests that run on it.
	env = "CITYWARDEN_TEST_POSTGRES"
	// template is the database that those of Place are copies of.
	template = "prepared"
)

// ErrMissing says that PostgreSQL is not installed here.
var ErrMissing = errors.New("no PostgreSQL here; install postgresql (Debian) to run this test")

// Server is a running PostgreSQL.
type Server struct {
	dir  string
	bin  string
	cred *syscall.Credential
}

// Installed reports whether there is a PostgreSQL to start.
func Installed() bool {
	_, err := binaries()
	return err == nil
}

// Start starts a server in a folder of its own; ErrMissing when there is none
// to start. What it stores is not synced.
func Start() (s *Server, err error) {
	s = new(Server)
	if s.bin, err = binaries(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "pg"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(s.dir)
		}
	}()
	if os.Getuid() == 0 { // PostgreSQL refuses to be root
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		s.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(s.dir, uid, gid); err != nil {
			return nil, err
		}
	}
	if err := s.run("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"); err != nil {
		return nil, err
	}
	err = s.run("pg_ctl", "-D", s.data(), "-w", "-l", filepath.Join(s.dir, "log"), "start",
		"-o", fmt.Sprintf("-c listen_addresses= -c unix_socket_directories=%s -c fsync=off -c max_connections=200", s.dir))
	return s, err
}

// Stop ends the server and removes its folder.
func (s *Server) Stop() error {
	return errors.Join(s.run("pg_ctl", "-D", s.data(), "-w", "-m", "immediate", "stop"), os.RemoveAll(s.dir))
}

// Create makes an empty database, unless there is one of that name, and
// returns its URL.
func (s *Server) Create(name string) (string, error) { return create(s.dir, name, "template0") }

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) run(name string, args ...string) error {
	c := exec.Command(filepath.Join(s.bin, name), args...)
	c.Dir = s.dir
	c.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	out := filepath.Join(s.dir, name+".out") // a pipe would stay open as long as the server runs
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	c.Stdout, c.Stderr = f, f
	if err := c.Run(); err != nil {
		text, _ := os.ReadFile(out)
		return fmt.Errorf("%s: %w\n%s", name, err, text)
	}
	return nil
}

// binaries returns the folder of initdb and the rest, of the newest version.
func binaries() (string, error) {
	if p, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(p), nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", cmp.Or(err, ErrMissing)
	}
	return filepath.Dir(found[len(found)-1]), nil
}

var creating sync.Mutex

func create(dir, name, template string) (string, error) {
	creating.Lock()
	defer creating.Unlock()
	place := func(name string) string { return "postgres://postgres@/" + name + "?host=" + url.QueryEscape(dir) }
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, place("postgres"))
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+template)
	if pg := new(pgconn.PgError); errors.As(err, &pg) && pg.Code == "42P04" { // it is there
		err = nil
	}
	return place(name), err
}

// Rerun runs all tests of the package once more on a PostgreSQL; the test that
// calls it is left out. The tests must open databases with Open, or what Place returns.
func Rerun[DB io.Closer](t *testing.T, open func(context.Context, string) (DB, error)) {
	if Rerunning() {
		t.Skip("this is the run on PostgreSQL")
	}
	if testing.Short() || raced { // the goroutines are those of the run on SQLite
		t.Skip("takes long")
	}
	s, err := Start()
	if errors.Is(err, ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}()
	place, err := s.Create(template)
	if err != nil {
		t.Fatal(err)
	}
	prepare(t, place, open)
	// -test.cpu is not inherited, and make race depends on it.
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.skip=^"+t.Name()+"$", fmt.Sprintf("-test.cpu=%d", runtime.GOMAXPROCS(0)))
	c.Env = append(os.Environ(), env+"="+s.dir)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("on PostgreSQL: %v\n%s", err, out)
	}
}

// Rerunning reports whether this is the run on PostgreSQL that Rerun began.
func Rerunning() bool { return os.Getenv(env) != "" }

// Open opens the database at path with open, or under Rerun a PostgreSQL database
// of that path alone, and closes it when the test ends. A new one begins as a
// copy of one that open made before.
func Open[DB io.Closer](t testing.TB, path string, open func(context.Context, string) (DB, error)) DB {
	t.Helper()
	if !Rerunning() {
		fill(t, path, open)
	}
	db, err := open(t.Context(), Place(t, path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// prepared is an SQLite file that open made.
var prepared struct {
	sync.Once
	file []byte
}

// fill writes a prepared SQLite file to path, unless there is one.
func fill[DB io.Closer](t testing.TB, path string, open func(context.Context, string) (DB, error)) {
	t.Helper()
	prepared.Do(func() {
		made := filepath.Join(t.TempDir(), "prepared.db")
		prepare(t, made, open)
		var err error
		if prepared.file, err = os.ReadFile(made); err != nil {
			t.Fatal(err)
		}
	})
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(prepared.file); err != nil {
		t.Fatal(err)
	}
}

// prepare lets open bring the database at place up to date.
func prepare[DB io.Closer](t testing.TB, place string, open func(context.Context, string) (DB, error)) {
	t.Helper()
	db, err := open(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// Place returns where a test opens the database that is to be at path: there,
// or under Rerun in a PostgreSQL database of that path alone.
func Place(t testing.TB, path string) string {
	t.Helper()
	dir := os.Getenv(env)
	if dir == "" {
		return path
	}
	place, err := create(dir, fmt.Sprintf("t%x", sha256.Sum256([]byte(path)))[:32], template)
	if err != nil {
		t.Fatal(err)
	}
	return place
}
