package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/citywarden/citywarden"
	"golang.org/x/crypto/argon2"
)

// UserStore keeps the users. Its methods are those of store.DB.
type UserStore interface {
	AddUser(ctx context.Context, u citywarden.User, hash string) error
	UpdateUser(ctx context.Context, u citywarden.User) error
	DeleteUser(ctx context.Context, name string) error
	Users(ctx context.Context) ([]citywarden.User, error)
}

// PasswordStore keeps the hashes of the passwords.
type PasswordStore interface {
	UserByName(ctx context.Context, name string) (u citywarden.User, hash string, err error)
	SetPassword(ctx context.Context, name, hash, keep string) error
}

// SessionStore keeps the sign-ins and the tokens of programs.
type SessionStore interface {
	AddSession(ctx context.Context, s citywarden.Session) error
	Session(ctx context.Context, id string, now time.Time) (citywarden.Session, citywarden.User, error)
	Sessions(ctx context.Context, user string) ([]citywarden.Session, error)
	DeleteSession(ctx context.Context, user, id string) error
}

// AccountStore is all that Accounts needs to keep.
type AccountStore interface {
	UserStore
	PasswordStore
	SessionStore
}

// Rules for accounts.
const (
	// SessionLife is how long a sign-in lasts.
	SessionLife = 12 * time.Hour
	// MinPassword is the least number of characters of a password.
	MinPassword = 8
	maxPassword = 256 // bytes
	maxLabel    = 100

	triesPerUser    = 10 // wrong passwords for one user before a minute's wait
	triesPerAddress = 30 // from one address; several people may share it
)

// hashing are the parameters of argon2id (RFC 9106): the second of those that
// OWASP recommends, 19 MiB for each sign-in under way.
type hashing struct {
	time, memoryKiB uint32
	threads         uint8
}

// Accounts knows who may sign in and what with. Passwords are stored as
// argon2id, secrets of sessions and tokens as SHA-256. Its methods may be
// called by several goroutines.
type Accounts struct {
	store   AccountStore
	hashing hashing
	busy    chan struct{} // bounds the hashes under way, and so their memory
	decoy   string        // a hash that nobody's password has
	users   *limiter
	places  *limiter
}

// NewAccounts returns the accounts kept in s.
func NewAccounts(s AccountStore) *Accounts {
	return newAccounts(s, hashing{time: 2, memoryKiB: 19 << 10, threads: 1})
}

func newAccounts(s AccountStore, h hashing) *Accounts {
	return &Accounts{
		store: s, hashing: h, busy: make(chan struct{}, 2),
		decoy: h.encode(make([]byte, saltBytes), make([]byte, keyBytes)),
		users: newLimiter(triesPerUser), places: newLimiter(triesPerAddress),
	}
}

// EnsureAdmin creates the user admin unless there is an admin already. With
// password "" it makes one up and returns it, to be shown once; "" when nothing
// was created or the password was given. The password that an operator gives
// is taken even when it is shorter than MinPassword.
func (a *Accounts) EnsureAdmin(ctx context.Context, password string) (generated string, err error) {
	us, err := a.store.Users(ctx)
	if err != nil {
		return "", err
	}
	for _, u := range us {
		if u.Role == citywarden.RoleAdmin {
			return "", nil
		}
	}
	if password == "" {
		generated = newSecret(15)
		password = generated
	}
	hash, err := a.hash(ctx, password)
	if err != nil {
		return "", err
	}
	u := citywarden.User{Name: "admin", Role: citywarden.RoleAdmin, Created: time.Now().UTC()}
	if err := a.store.AddUser(ctx, u, hash); err != nil {
		return "", fmt.Errorf("create the first admin: %w", err)
	}
	return generated, nil
}

// Create stores a new user with a password; "" makes a user that signs in with
// tokens only, which RoleService must be. It returns CodeInvalid for a bad
// name, role or password and CodeConflict when the name is taken.
func (a *Accounts) Create(ctx context.Context, u citywarden.User, password string) (citywarden.User, error) {
	if err := checkUser(u); err != nil {
		return citywarden.User{}, err
	}
	var hash string
	switch {
	case u.Role == citywarden.RoleService && password != "":
		return citywarden.User{}, citywarden.Errorf(citywarden.CodeInvalid, "user %s: a service has tokens, no password", u.Name)
	case u.Role != citywarden.RoleService || password != "":
		if err := checkPassword(u.Name, password); err != nil {
			return citywarden.User{}, err
		}
		// AddUser says so too, but after the work of hashing.
		_, _, err := a.store.UserByName(ctx, u.Name)
		if err == nil {
			return citywarden.User{}, citywarden.Errorf(citywarden.CodeConflict, "there is a user %s already", u.Name)
		}
		if citywarden.CodeOf(err) != citywarden.CodeNotFound {
			return citywarden.User{}, err
		}
		if hash, err = a.hash(ctx, password); err != nil {
			return citywarden.User{}, err
		}
	}
	u.Created = time.Now().UTC().Truncate(time.Millisecond)
	if err := a.store.AddUser(ctx, u, hash); err != nil {
		return citywarden.User{}, err
	}
	return u, nil
}

// Update changes title, role, department and area, and whether the user is disabled,
// which ends their sign-ins and tokens at once. CodeNotFound, CodeInvalid, and
// CodeConflict when nobody would be left who is admin.
func (a *Accounts) Update(ctx context.Context, u citywarden.User) (citywarden.User, error) {
	if err := checkUser(u); err != nil {
		return citywarden.User{}, err
	}
	old, hash, err := a.store.UserByName(ctx, u.Name)
	if err != nil {
		return citywarden.User{}, err
	}
	if hash == "" && u.Role != citywarden.RoleService {
		return citywarden.User{}, citywarden.Errorf(citywarden.CodeInvalid, "user %s has no password and so stays a service; create another user", u.Name)
	}
	if hash != "" && u.Role == citywarden.RoleService {
		return citywarden.User{}, citywarden.Errorf(citywarden.CodeInvalid, "user %s has a password and so can't be a service; create another user", u.Name)
	}
	if err := a.store.UpdateUser(ctx, u); err != nil {
		return citywarden.User{}, err
	}
	u.Created = old.Created
	return u, nil
}

// Officer returns CodeInvalid unless name is a grid officer who sees the unit grids.
func (a *Accounts) Officer(ctx context.Context, name string, grids ...citywarden.GridCode) error {
	u, _, err := a.store.UserByName(ctx, name)
	switch {
	case citywarden.CodeOf(err) == citywarden.CodeNotFound:
		return citywarden.Errorf(citywarden.CodeInvalid, "send an officer: %w", err)
	case err != nil:
		return err
	case u.Role != citywarden.RoleOfficer:
		return citywarden.Errorf(citywarden.CodeInvalid, "send an officer: %s is %s, not officer", name, u.Role)
	case u.Disabled:
		return citywarden.Errorf(citywarden.CodeInvalid, "send an officer: %s is disabled", name)
	}
	for _, g := range grids {
		if !u.Area.Has(g) {
			return citywarden.Errorf(citywarden.CodeInvalid, "send an officer: %s sees the area %s only; name an officer of the place", name, u.Area)
		}
	}
	return nil
}

// SignIn checks name and password and opens a session. Address is where the
// caller is. It returns CodeUnauthenticated when name or password is wrong, in
// the same time for both, and CodeTransient after too many wrong tries.
func (a *Accounts) SignIn(ctx context.Context, name, password string, address netip.Addr) (token string, s citywarden.Session, u citywarden.User, err error) {
	place := placeOf(address)
	if err := a.guard(name, place); err != nil {
		return "", s, u, err
	}
	u, hash, err := a.store.UserByName(ctx, name)
	switch {
	case citywarden.CodeOf(err) == citywarden.CodeNotFound || err == nil && hash == "":
		hash, u = a.decoy, citywarden.User{}
	case err != nil:
		return "", s, u, err
	}
	right, err := a.verify(ctx, hash, password)
	if err != nil {
		return "", s, u, err
	}
	if !right || u.Name == "" {
		return "", s, citywarden.User{}, citywarden.Errorf(citywarden.CodeUnauthenticated, "user name or password is wrong")
	}
	a.users.forget(name)
	a.places.forgive(place)
	if u.Disabled {
		return "", s, citywarden.User{}, citywarden.Errorf(citywarden.CodeUnauthenticated, "user %s is disabled; ask an admin", name)
	}
	token, s, err = a.open(ctx, u.Name, "", SessionLife)
	return token, s, u, err
}

// guard returns a CodeTransient error when there were too many wrong tries.
func (a *Accounts) guard(name, place string) error {
	wait := a.places.try(place)
	if wait == 0 {
		if wait = a.users.try(name); wait > 0 {
			a.places.forgive(place) // it was not looked at
		}
	}
	if wait == 0 {
		return nil
	}
	return &waitError{
		error:  citywarden.Errorf(citywarden.CodeTransient, "too many wrong passwords; wait %s and try again", wait.Round(time.Second)),
		status: http.StatusTooManyRequests, after: wait,
	}
}

// ChangePassword lets a person replace their own password. Their other
// sign-ins end; the session keep stays. CodeDenied when old is wrong.
func (a *Accounts) ChangePassword(ctx context.Context, name, old, password, keep string, address netip.Addr) error {
	place := placeOf(address)
	if err := a.guard(name, place); err != nil {
		return err
	}
	_, hash, err := a.store.UserByName(ctx, name)
	if err != nil {
		return err
	}
	if hash == "" {
		return citywarden.Errorf(citywarden.CodeConflict, "user %s has tokens, no password", name)
	}
	right, err := a.verify(ctx, hash, old)
	if err != nil {
		return err
	}
	if !right {
		return citywarden.Errorf(citywarden.CodeDenied, "the old password is wrong")
	}
	a.users.forget(name)
	a.places.forgive(place)
	return a.SetPassword(ctx, name, password, keep)
}

// SetPassword replaces a password without asking for the old one; sign-ins of
// the user end, except the session keep. CodeInvalid for a bad password,
// CodeConflict for a service.
func (a *Accounts) SetPassword(ctx context.Context, name, password, keep string) error {
	u, _, err := a.store.UserByName(ctx, name)
	if err != nil {
		return err
	}
	if u.Role == citywarden.RoleService {
		return citywarden.Errorf(citywarden.CodeConflict, "user %s is a service: it has tokens, no password", name)
	}
	if err := checkPassword(name, password); err != nil {
		return err
	}
	hash, err := a.hash(ctx, password)
	if err != nil {
		return err
	}
	return a.store.SetPassword(ctx, name, hash, keep)
}

// IssueToken makes a token for a program, valid for life, 0 for ever. It is
// returned once and kept as a hash. CodeNotFound when there is no such user,
// CodeInvalid without a label, CodeConflict unless the user is a service.
func (a *Accounts) IssueToken(ctx context.Context, user, label string, life time.Duration) (string, citywarden.Session, error) {
	var s citywarden.Session
	if label = strings.TrimSpace(label); label == "" || len(label) > maxLabel || life < 0 {
		return "", s, citywarden.Errorf(citywarden.CodeInvalid, "token for %s: say in the label what it is for (at most %d bytes); its life can't be negative", user, maxLabel)
	}
	u, _, err := a.store.UserByName(ctx, user)
	if err != nil {
		return "", s, err
	}
	if u.Role != citywarden.RoleService {
		return "", s, citywarden.Errorf(citywarden.CodeConflict, "user %s is a person and signs in; tokens are for users with the role service", user)
	}
	if u.Disabled {
		return "", s, citywarden.Errorf(citywarden.CodeConflict, "user %s is disabled; enable it first", user)
	}
	return a.open(ctx, user, label, life)
}

// Authenticate returns whose token it is. CodeUnauthenticated when it is
// unknown or has expired.
func (a *Accounts) Authenticate(ctx context.Context, token string) (citywarden.Session, citywarden.User, error) {
	s, u, err := a.store.Session(ctx, sessionID(token), time.Now())
	if citywarden.CodeOf(err) == citywarden.CodeNotFound {
		err = citywarden.Errorf(citywarden.CodeUnauthenticated, "the session is unknown or has expired; sign in again")
	}
	return s, u, err
}

// SignOut ends the session.
func (a *Accounts) SignOut(ctx context.Context, s citywarden.Session) error {
	err := a.store.DeleteSession(ctx, s.User, s.ID)
	if citywarden.CodeOf(err) == citywarden.CodeNotFound {
		return nil // it ended meanwhile
	}
	return err
}

func (a *Accounts) open(ctx context.Context, user, label string, life time.Duration) (string, citywarden.Session, error) {
	token := newSecret(32)
	now := time.Now().UTC().Truncate(time.Millisecond)
	s := citywarden.Session{ID: sessionID(token), User: user, Label: label, Created: now}
	if life > 0 {
		s.Expires = now.Add(life)
	}
	if err := a.store.AddSession(ctx, s); err != nil {
		return "", citywarden.Session{}, err
	}
	return token, s, nil
}

// newSecret returns n random bytes as text for a URL.
func newSecret(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

func sessionID(token string) string {
	h := sha256.Sum256([]byte(token))
	return hex.EncodeToString(h[:])
}

// placeOf returns what wrong tries are counted by: an IPv4 address, or the /64
// of an IPv6 address, which one customer has for himself.
func placeOf(a netip.Addr) string {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}

var userName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,31}$`)

func checkUser(u citywarden.User) error {
	if !userName.MatchString(u.Name) || u.Name == citywarden.Platform {
		return citywarden.Errorf(citywarden.CodeInvalid, "user name %q: use 1 to 32 small letters, digits, '.', '_' or '-', beginning with a letter or digit, and not %s", u.Name, citywarden.Platform)
	}
	return u.Check()
}

func checkPassword(user, password string) error {
	switch {
	case utf8.RuneCountInString(password) < MinPassword:
		return citywarden.Errorf(citywarden.CodeInvalid, "the password is too short: use at least %d characters", MinPassword)
	case len(password) > maxPassword:
		return citywarden.Errorf(citywarden.CodeInvalid, "the password is too long: use at most %d bytes", maxPassword)
	case strings.EqualFold(password, user) || strings.Trim(password, password[:1]) == "":
		return citywarden.Errorf(citywarden.CodeInvalid, "the password is too easy: it is the user name, or one character again and again")
	}
	return nil
}

const (
	saltBytes = 16
	keyBytes  = 32
)

// hash returns the argon2id hash of a password in PHC form.
func (a *Accounts) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltBytes)
	rand.Read(salt) // never fails
	key, err := a.derive(ctx, a.hashing, password, salt)
	if err != nil {
		return "", err
	}
	return a.hashing.encode(salt, key), nil
}

// verify reports whether hash is that of password.
func (a *Accounts) verify(ctx context.Context, hash, password string) (bool, error) {
	h, salt, want, err := decodeHash(hash)
	if err != nil {
		return false, err
	}
	if len(password) > maxPassword {
		password = "" // hash something, so that it takes the usual time; no password is empty
	}
	got, err := a.derive(ctx, h, password, salt)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got, want) == 1 && password != "", nil
}

func (a *Accounts) derive(ctx context.Context, h hashing, password string, salt []byte) ([]byte, error) {
	select {
	case a.busy <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-a.busy }()
	return argon2.IDKey([]byte(password), salt, h.time, h.memoryKiB, h.threads, keyBytes), nil
}

func (h hashing) encode(salt, key []byte) string {
	b := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memoryKiB, h.time, h.threads, b.EncodeToString(salt), b.EncodeToString(key))
}

func decodeHash(s string) (h hashing, salt, key []byte, err error) {
	var version int
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return h, nil, nil, fmt.Errorf("stored password hash has an unknown form")
	}
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return h, nil, nil, fmt.Errorf("stored password hash has version %q of argon2", parts[2])
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memoryKiB, &h.time, &h.threads); err != nil {
		return h, nil, nil, fmt.Errorf("stored password hash has parameters %q: %w", parts[3], err)
	}
	if salt, err = base64.RawStdEncoding.DecodeString(parts[4]); err != nil {
		return h, nil, nil, fmt.Errorf("salt of stored password hash: %w", err)
	}
	if key, err = base64.RawStdEncoding.DecodeString(parts[5]); err != nil {
		return h, nil, nil, fmt.Errorf("stored password hash: %w", err)
	}
	return h, salt, key, nil
}
