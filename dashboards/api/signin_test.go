package api

import (
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
)

func TestSignInWorkSignOut(t *testing.T) {
	p := newPlatform(t)
	a := p.do("", "POST /api/v1/login", `{"user":"admin","password":"correct horse"}`)
	if a.status != 200 {
		t.Fatalf("login = %d %s", a.status, a.body)
	}
	var in signedIn
	a.into(t, &in)
	if in.User.Name != "admin" || in.User.Role != citywarden.RoleAdmin || len(in.Token) < 40 || time.Until(in.Expires) < 11*time.Hour {
		t.Errorf("login = %s", a.body)
	}
	c, err := http.ParseSetCookie(a.header.Get("Set-Cookie"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != cookieName || c.Value != in.Token || !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" {
		t.Errorf("cookie = %v", c)
	}
	for _, h := range [][]string{{"Authorization", "Bearer " + in.Token}, {"Authorization", "bearer " + in.Token}, {"Cookie", c.String()}} {
		if a := p.do("", "GET /api/v1/me", "", h...); a.status != 200 || !strings.Contains(a.body, `"name":"admin"`) {
			t.Errorf("GET /me with %s = %d %s", h[0], a.status, a.body)
		}
	}
	for _, h := range []string{"Basic YTpi", "Bearer", "Bearer wrong", in.Token} {
		if a := p.do("", "GET /api/v1/me", "", "Authorization", h); a.status != 401 || a.problem(t).Code != citywarden.CodeUnauthenticated {
			t.Errorf("GET /me with Authorization %q = %d %s, want 401", h, a.status, a.body)
		}
	}
	out := p.do(in.Token, "POST /api/v1/logout", "")
	if c, err := http.ParseSetCookie(out.header.Get("Set-Cookie")); out.status != 204 || err != nil || c.Value != "" || c.Expires.After(time.Now()) {
		t.Errorf("logout = %d, cookie %v, %v", out.status, c, err)
	}
	if a := p.do(in.Token, "GET /api/v1/me", ""); a.status != 401 {
		t.Errorf("GET /me after logout = %d", a.status)
	}
	// The secret itself must not lie in the database.
	if ss, err := p.db.Sessions(t.Context(), "admin"); err != nil || len(ss) != 0 {
		t.Errorf("sessions after logout = %v, %v", ss, err)
	}
}

func TestInfoTellsTheVersionOnlyToThoseSignedIn(t *testing.T) {
	p := newPlatform(t)
	if a := p.do("", "GET /api/v1/info", ""); a.status != 200 || strings.Contains(a.body, "version") || strings.Contains(a.body, "mqtt") || !strings.Contains(a.body, `"time_zone":"Asia/Shanghai"`) {
		t.Errorf("info = %d %s", a.status, a.body)
	}
	if a := p.do(p.as(citywarden.RoleViewer), "GET /api/v1/info", ""); !strings.Contains(a.body, `"version":"test"`) || !strings.Contains(a.body, `"mqtt":"example.com:11883"`) {
		t.Errorf("info as viewer = %s", a.body)
	}
	if a := p.do("stale", "GET /api/v1/info", ""); a.status != 200 {
		t.Errorf("info with a stale token = %d", a.status)
	}
}

func TestWhereDevicesFindMQTT(t *testing.T) {
	for _, c := range []struct{ listener, host, want string }{
		{"", "county.example", ""},
		{"[::]:1883", "county.example", "county.example:1883"},
		{"0.0.0.0:1883", "county.example:8080", "county.example:1883"},
		{":1883", "[2001:db8::1]:8080", "[2001:db8::1]:1883"},
		{"[::]:1883", "[2001:db8::1]", "[2001:db8::1]:1883"},
		{"[::]:1883", "", "localhost:1883"},
		{"127.0.0.1:11883", "county.example", "127.0.0.1:11883"},
		{"iot.example:1883", "county.example", "iot.example:1883"},
	} {
		if got := reachable(c.listener, c.host); got != c.want {
			t.Errorf("reachable(%q, %q) = %q, want %q", c.listener, c.host, got, c.want)
		}
	}
}

func TestPagesOfOtherSitesCannotAct(t *testing.T) {
	p := newPlatform(t)
	tok := p.as(citywarden.RoleAdmin)
	cookie := []string{"Cookie", cookieName + "=" + tok}
	other := map[string][]string{
		"cross-site":          {"Sec-Fetch-Site", "cross-site"},
		"same-site":           {"Sec-Fetch-Site", "same-site"},
		"origin of elsewhere": {"Origin", "https://elsewhere.example"},
	}
	for name, h := range other {
		for what, body := range map[string]string{
			"DELETE /api/v1/devices/smoke-1":               "",
			"POST /api/v1/alarms/fire.smoke:smoke-1:1/ack": "",
			"PUT /api/v1/devices/smoke-1":                  `{"name":"n","model":"m"}`,
			"POST /api/v1/logout":                          "",
			"POST /api/v1/users":                           `{"name":"li","role":"viewer","password":"a good one"}`,
		} {
			if a := p.do("", what, body, append(h, cookie...)...); a.status != 403 {
				t.Errorf("%s, %s = %d %s, want 403", name, what, a.status, a.body)
			}
		}
		if a := p.do("", "POST /api/v1/login", `{"user":"admin","password":"correct horse"}`, h...); a.status != 403 {
			t.Errorf("%s, login = %d, want 403", name, a.status)
		}
		if a := p.do("", "GET /api/v1/me", "", append(h, cookie...)...); a.status != 200 {
			t.Errorf("%s, GET = %d, want 200", name, a.status)
		}
		// A token in the header is not sent by a browser on its own.
		if a := p.do(tok, "POST /api/v1/devices/smoke-1/credentials", `{"type":"token"}`, h...); a.status != 201 {
			t.Errorf("%s, with a token = %d, want 201", name, a.status)
		}
	}
	for _, h := range [][]string{{"Sec-Fetch-Site", "same-origin"}, {"Origin", "http://example.com"}, {"Accept", "*/*"}} {
		if a := p.do("", "POST /api/v1/devices/smoke-1/credentials", `{"type":"token"}`, append(h, cookie...)...); a.status != 201 {
			t.Errorf("own page with %s = %d %s, want 201", h[0], a.status, a.body)
		}
	}
}

func TestGuessingPasswordsIsSlowedDown(t *testing.T) {
	p := newPlatform(t)
	synctest.Test(t, func(t *testing.T) {
		login := func(user, password string) answer {
			return p.do("", "POST /api/v1/login", `{"user":"`+user+`","password":"`+password+`"}`)
		}
		var first answer
		for i := range triesPerUser {
			a := login("admin", "wrong")
			if a.status != 401 {
				t.Fatalf("try %d = %d %s, want 401", i+1, a.status, a.body)
			}
			first = a
		}
		if a := login("nobody", "wrong"); a.status != 401 || a.problem(t).Detail != first.problem(t).Detail {
			t.Errorf("unknown user = %d %s, want the answer of a known one", a.status, a.body)
		}
		time.Sleep(20 * time.Second)
		a := login("admin", adminPassword)
		if a.status != 429 || a.header.Get("Retry-After") != "40" || a.problem(t).Code != citywarden.CodeTransient {
			t.Errorf("right password while slowed down = %d, Retry-After %s, %s", a.status, a.header.Get("Retry-After"), a.body)
		}
		time.Sleep(40 * time.Second)
		if a := login("admin", adminPassword); a.status != 200 {
			t.Errorf("right password a minute later = %d %s", a.status, a.body)
		}
		// Many users from one address.
		for i := range triesPerAddress {
			login("user-"+string(rune('a'+i)), "wrong")
		}
		if a := login("admin", adminPassword); a.status != 429 {
			t.Errorf("after %d wrong tries from one address = %d, want 429", triesPerAddress, a.status)
		}
		time.Sleep(coolDown)
		if a := login("admin", adminPassword); a.status != 200 {
			t.Errorf("a minute later = %d %s", a.status, a.body)
		}
	})
	es, _, err := p.db.Audit(t.Context(), citywarden.AuditFilter{User: "admin", Page: citywarden.Page{Limit: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	n := map[int]int{}
	for _, e := range es {
		n[e.Status]++
		if e.Detail != "" || e.Address != "192.0.2.1" || e.Action != "login" {
			t.Errorf("audit entry %+v", e)
		}
	}
	if n[401] != triesPerUser || n[200] != 2 || n[429] != 0 {
		t.Errorf("audit entries by status = %v", n)
	}
}

func TestLimiterStaysSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(2)
		for i := range maxKeys + 300 {
			if i%1000 == 0 {
				time.Sleep(time.Second)
			}
			l.try(string(rune(i)) + "x")
		}
		if n := len(l.keys); n > maxKeys {
			t.Errorf("%d keys, want at most %d", n, maxKeys)
		}
	})
}

func TestSessionExpires(t *testing.T) {
	p := newPlatform(t)
	synctest.Test(t, func(t *testing.T) {
		tok := p.as(citywarden.RoleViewer)
		time.Sleep(SessionLife - time.Second)
		if a := p.do(tok, "GET /api/v1/me", ""); a.status != 200 {
			t.Errorf("just before the end = %d", a.status)
		}
		time.Sleep(time.Second)
		if a := p.do(tok, "GET /api/v1/me", ""); a.status != 401 {
			t.Errorf("at the end = %d, want 401", a.status)
		}
	})
}

func TestChangePassword(t *testing.T) {
	p := newPlatform(t)
	tok := p.as(citywarden.RoleOfficer)
	login := func(password string) answer {
		return p.do("", "POST /api/v1/login", `{"user":"officer","password":"`+password+`"}`)
	}
	var other signedIn
	login("of the officer").into(t, &other)
	for body, want := range map[string]int{
		`{"old":"wrong","new":"another one"}`:       403,
		`{"old":"of the officer","new":"short"}`:    400,
		`{"old":"of the officer","new":"        "}`: 400,
	} {
		if a := p.do(tok, "POST /api/v1/me/password", body); a.status != want {
			t.Errorf("%s = %d %s, want %d", body, a.status, a.body, want)
		}
	}
	if a := p.do(tok, "POST /api/v1/me/password", `{"old":"of the officer","new":"another one"}`); a.status != 204 {
		t.Fatalf("change = %d %s", a.status, a.body)
	}
	if a := p.do(other.Token, "GET /api/v1/me", ""); a.status != 401 {
		t.Errorf("other sign-in after the change = %d, want 401", a.status)
	}
	if a := p.do(tok, "GET /api/v1/me", ""); a.status != 200 {
		t.Errorf("own sign-in after the change = %d", a.status)
	}
	if a := login("of the officer"); a.status != 401 {
		t.Errorf("old password = %d", a.status)
	}
	if a := login("another one"); a.status != 200 {
		t.Errorf("new password = %d", a.status)
	}
	if a := p.do(p.as(citywarden.RoleService), "POST /api/v1/me/password", `{"old":"x","new":"another one"}`); a.status != 409 {
		t.Errorf("password of a service = %d %s, want 409", a.status, a.body)
	}
}

func TestFirstAdmin(t *testing.T) {
	for _, given := range []string{"", "given one"} {
		db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), store.Open)
		a := newAccounts(db, hashing{time: 1, memoryKiB: 8, threads: 1})
		pw, err := a.EnsureAdmin(t.Context(), given)
		if err != nil || (pw == "") != (given != "") || given == "" && len(pw) < 20 {
			t.Errorf("EnsureAdmin(%q) = %q, %v", given, pw, err)
		}
		if _, _, u, err := a.SignIn(t.Context(), "admin", pw+given, netip.Addr{}); err != nil || u.Role != citywarden.RoleAdmin {
			t.Errorf("SignIn with %q: %v, %v", pw+given, u, err)
		}
		if pw, err := a.EnsureAdmin(t.Context(), "something else"); err != nil || pw != "" {
			t.Errorf("EnsureAdmin again = %q, %v", pw, err)
		}
		if _, _, _, err := a.SignIn(t.Context(), "admin", "something else", netip.Addr{}); citywarden.CodeOf(err) != citywarden.CodeUnauthenticated {
			t.Errorf("SignIn with the password of the second EnsureAdmin: %v", err)
		}
	}
}

func TestHashing(t *testing.T) {
	a := NewAccounts(nil)
	h, err := a.hash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(h, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("hash = %s", h)
	}
	for pw, want := range map[string]bool{"correct horse": true, "correct horsf": false, "": false, strings.Repeat("x", 300): false} {
		if got, err := a.verify(t.Context(), h, pw); err != nil || got != want {
			t.Errorf("verify(%.20q) = %v, %v; want %v", pw, got, err, want)
		}
	}
	for _, bad := range []string{"", "plain", "$argon2i$v=19$m=8,t=1,p=1$AAAA$AAAA", "$argon2id$v=18$m=8,t=1,p=1$AAAA$AAAA", "$argon2id$v=19$m=8$AAAA$AAAA", "$argon2id$v=19$m=8,t=1,p=1$!$AAAA"} {
		if _, err := a.verify(t.Context(), bad, "x"); err == nil {
			t.Errorf("verify against %q: no error", bad)
		}
	}
}

func TestWhereTheCallerIs(t *testing.T) {
	s := &server{Options: Options{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	for _, c := range []struct {
		remote, forwarded, proto string
		want                     string
		secure                   bool
	}{
		{"192.0.2.7:99", "198.51.100.1", "https", "192.0.2.7", false}, // not a proxy of ours
		{"10.0.0.1:99", "198.51.100.1", "https", "198.51.100.1", true},
		{"10.0.0.1:99", "203.0.113.9, 198.51.100.1, 10.0.0.2", "http", "198.51.100.1", false}, // the first one is the caller's own claim
		{"10.0.0.1:99", "", "", "10.0.0.1", false},
		{"10.0.0.1:99", "unknown", "", "10.0.0.1", false},
		{"[::ffff:192.0.2.7]:99", "", "", "192.0.2.7", false},
		{"@", "", "", "invalid IP", false},
	} {
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{"X-Forwarded-For": {c.forwarded}, "X-Forwarded-Proto": {c.proto}}}
		if a, secure := s.origin(r); a.String() != c.want || secure != c.secure {
			t.Errorf("origin(%s, %q, %q) = %s, %v; want %s, %v", c.remote, c.forwarded, c.proto, a, secure, c.want, c.secure)
		}
	}
	for addr, want := range map[string]string{"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8:1:2:3::4": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64"} {
		if got := placeOf(netip.MustParseAddr(addr)); got != want {
			t.Errorf("placeOf(%s) = %s, want %s", addr, got, want)
		}
	}
}
