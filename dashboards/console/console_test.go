package console

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

var made = fstest.MapFS{
	"index.html":           {Data: []byte("<!doctype html>page" + strings.Repeat(" ", 500))},
	"report.html":          {Data: []byte("<!doctype html>citizens")},
	"favicon.svg":          {Data: []byte("<svg/>")},
	"assets/main-1a.js":    {Data: []byte(strings.Repeat("let x;", 1000))},
	"assets/main-1a.js.br": {Data: []byte("packed")},
}

func get(t *testing.T, h http.Handler, method, path, encoding string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	if encoding != "" {
		r.Header.Set("Accept-Encoding", encoding)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, res *http.Response) []byte {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPaths(t *testing.T) {
	h := handler(made)
	for _, tt := range []struct {
		method, path string
		status       int
		kind, cache  string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8", "no-cache"},
		{"GET", "/alarms", 200, "text/html; charset=utf-8", "no-cache"},
		{"GET", "/alarms?why=fire.zone-smoke:z1:1", 200, "text/html; charset=utf-8", "no-cache"},
		{"GET", "/devices/pump.3.js", 200, "text/html; charset=utf-8", "no-cache"}, // an id, not a file
		{"GET", "/index.html", 200, "text/html; charset=utf-8", "no-cache"},
		{"GET", "/report", 200, "text/html; charset=utf-8", "no-cache"},
		{"GET", "/report/", 200, "text/html; charset=utf-8", "no-cache"},
		{"GET", "/favicon.svg", 200, "image/svg+xml", "no-cache"},
		{"GET", "/assets/main-1a.js", 200, "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"},
		{"HEAD", "/assets/main-1a.js", 200, "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"},
		{"GET", "/assets/main-0.js", 404, "text/plain; charset=utf-8", ""},
		{"GET", "/assets/main-1a.js.br", 404, "text/plain; charset=utf-8", ""},
		{"GET", "/assets/../index.html", 200, "text/html; charset=utf-8", "no-cache"},
		{"GET", "/robots.html", 404, "text/plain; charset=utf-8", ""},
		{"POST", "/", 405, "text/plain; charset=utf-8", ""},
	} {
		res := get(t, h, tt.method, tt.path, "")
		if res.StatusCode != tt.status || res.Header.Get("Content-Type") != tt.kind || res.Header.Get("Cache-Control") != tt.cache {
			t.Errorf("%s %s = %d, %q, %q; want %d, %q, %q", tt.method, tt.path, res.StatusCode, res.Header.Get("Content-Type"),
				res.Header.Get("Cache-Control"), tt.status, tt.kind, tt.cache)
		}
	}
}

func TestPageOfItsOwn(t *testing.T) {
	for path, want := range map[string]string{"/report": "citizens", "/report?lat=24.1&lon=117.6": "citizens", "/reports": "page", "/report/x": "page"} {
		if got := body(t, get(t, handler(made), "GET", path, "")); !bytes.Contains(got, []byte(">"+want)) {
			t.Errorf("%s gives %.30q, want %s", path, got, want)
		}
	}
}

func TestEncodings(t *testing.T) {
	h := handler(made)
	for _, tt := range []struct{ accept, want string }{
		{"", ""},
		{"gzip, deflate, br, zstd", "br"},
		{"gzip, deflate", "gzip"},
		{"br;q=0, gzip;q=0.5", "gzip"},
		{"identity", ""},
	} {
		res := get(t, h, "GET", "/assets/main-1a.js", tt.accept)
		if got := res.Header.Get("Content-Encoding"); got != tt.want {
			t.Errorf("Accept-Encoding %q: got %q, want %q", tt.accept, got, tt.want)
		}
		if res.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("Accept-Encoding %q: no Vary", tt.accept)
		}
	}
	z, err := gzip.NewReader(get(t, h, "GET", "/assets/main-1a.js", "gzip").Body)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, made["assets/main-1a.js"].Data) {
		t.Errorf("gzipped body differs (%v)", err)
	}
}

func TestNotModified(t *testing.T) {
	h := handler(made)
	tag := get(t, h, "GET", "/", "").Header.Get("ETag")
	r := httptest.NewRequest("GET", "/cases", nil)
	r.Header.Set("If-None-Match", tag)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if tag == "" || w.Code != http.StatusNotModified || w.Body.Len() != 0 {
		t.Errorf("ETag %q answered %d with %d bytes, want 304 and none", tag, w.Code, w.Body.Len())
	}
}

// TestPolicy: whoever wraps the handler may set a policy of its own.
func TestPolicy(t *testing.T) {
	if got := get(t, handler(made), "GET", "/", "").Header.Get("Content-Security-Policy"); got != Policy {
		t.Errorf("policy %q", got)
	}
	w := httptest.NewRecorder()
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	handler(made).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if got := w.Result().Header.Get("Content-Security-Policy"); got != "default-src 'none'" {
		t.Errorf("policy of the wrapper was replaced by %q", got)
	}
}

// TestBuilt looks at the files that are really embedded: all that the page
// asks for is there, and no other host is named but in names of XML namespaces
// and in words for developers.
func TestBuilt(t *testing.T) {
	h := Handler()
	for _, path := range []string{"/", "/report"} {
		page := body(t, get(t, h, "GET", path, ""))
		if bytes.Contains(page, []byte("<script>")) || regexp.MustCompile(`\son[a-z]+=`).Match(page) {
			t.Errorf("%s has an inline script, which the policy forbids", path)
		}
		refs := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllSubmatch(page, -1)
		if len(refs) < 3 {
			t.Fatalf("%s refers to %d files", path, len(refs))
		}
		size := 0
		for _, m := range refs {
			res := get(t, h, "GET", string(m[1]), "br")
			if res.StatusCode != 200 || strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
				t.Errorf("%s refers to %s: %d %s", path, m[1], res.StatusCode, res.Header.Get("Content-Type"))
			}
			size += len(body(t, res))
		}
		if most := map[string]int{"/": 150_000, "/report": 60_000}[path]; size > most {
			t.Errorf("%s is %d bytes packed, want at most %d", path, size, most)
		}
		t.Logf("%s: %d bytes packed", path, size)
		if path != "/" {
			continue
		}
		for _, name := range []string{"mapview-*.js.br", "maplibre-gl-worker-*.br"} {
			parts, err := fs.Glob(files, "dist/assets/"+name)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range parts {
				packed, err := files.ReadFile(part)
				if err != nil {
					t.Fatal(err)
				}
				size += len(packed)
			}
		}
		if size < 250_000 || size > 450_000 {
			t.Errorf("with the map %s is %d bytes packed, want at most 450000, and not less than the map's own", path, size)
		}
		t.Logf("%s with the map: %d bytes packed", path, size)
	}
	harmless := regexp.MustCompile(`^https?://(www\.w3\.org/|github\.com/(maplibre|mapbox)/|maplibre\.org/|maplibre\.invalid/|wiki\.openstreetmap\.org/wiki/This_map_requires_WebGL)`)
	url := regexp.MustCompile(`https?://[A-Za-z0-9][A-Za-z0-9.-]*\.[a-z]{2,}[^\s"'` + "`" + `)<>\\]*`)
	err := fs.WalkDir(files, "dist", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, ".br") {
			return err
		}
		body, err := files.ReadFile(name)
		for _, u := range url.FindAll(body, -1) {
			if !harmless.Match(u) {
				t.Errorf("%s names %s", name, u)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
