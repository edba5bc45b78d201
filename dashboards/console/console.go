// Package console serves the web console: the built files of web/, embedded.
//
// Its one job is to hand out these files well: hashed assets are cached for
// ever, every address that is not a file gives the page itself (it finds its
// own way), and what the browser can unpack is sent packed. It knows nothing
// of the API that the page talks to.
//
//	mux.Handle("/", console.Handler())
//
// The files in dist are built by `npm ci && npm run build` in web/ and
// committed, so that building the platform needs no Node.
package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

//go:embed all:dist
var files embed.FS

// Policy is the Content-Security-Policy that the console works under: nothing
// from another host, no inline script. The map draws its letters into
// canvases, and its worker is a file of ours.
const Policy = "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; " +
	"worker-src 'self' blob:; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// file is one asset in every form it can be sent.
type file struct {
	kind string // Content-Type
	tag  string // ETag
	body []byte
	gzip func() []byte // packs once, when first asked for; nil when it gains nothing
	br   []byte        // nil when the build made none
}

// Handler returns a handler for GET and HEAD of the console's files. Below
// /assets/ and for names with an extension a missing file is 404; /report gives
// report.html, the page of citizens, and every other path index.html. Files gzipped for clients
// that take no Brotli stay in memory, under 1 MB together.
func Handler() http.Handler {
	dist, err := fs.Sub(files, "dist")
	if err != nil {
		panic(err) // the directive above names it
	}
	return handler(dist)
}

func handler(dist fs.FS) http.Handler {
	all := load(dist)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "the console's files can only be read", http.StatusMethodNotAllowed)
			return
		}
		name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
		f, ok := all[name]
		if page, is := all[name+".html"]; !ok && is { // one with an entry of its own, like that of citizens
			name, f, ok = name+".html", page, true
		}
		if !ok {
			if strings.HasPrefix(name, "assets/") || hasExtension(name) {
				http.Error(w, "no such file", http.StatusNotFound)
				return
			}
			name, f = "index.html", all["index.html"]
		}
		serve(w, r, name, f)
	})
}

// hasExtension reports whether the last element of name looks like a file's:
// ".js", but not the ".1" of the alarm or device that a page is about.
func hasExtension(name string) bool {
	return !strings.Contains(name, "/") && mime.TypeByExtension(path.Ext(name)) != ""
}

func serve(w http.ResponseWriter, r *http.Request, name string, f *file) {
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("ETag", f.tag)
	h.Add("Vary", "Accept-Encoding")
	if strings.HasPrefix(name, "assets/") {
		h.Set("Cache-Control", "public, max-age=31536000, immutable") // the name holds a hash of the content
	} else {
		h.Set("Cache-Control", "no-cache")
	}
	if h.Get("Content-Security-Policy") == "" {
		h.Set("Content-Security-Policy", Policy)
	}
	h.Set("Referrer-Policy", "same-origin")
	if r.Header.Get("If-None-Match") == f.tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := f.body
	if f.br != nil && accepts(r, "br") {
		h.Set("Content-Encoding", "br")
		body = f.br
	} else if accepts(r, "gzip") {
		if packed := f.gzip(); packed != nil {
			h.Set("Content-Encoding", "gzip")
			body = packed
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodHead {
		return
	}
	w.Write(body) //nolint:errcheck // the browser went away: nobody is left to tell
}

// accepts reports whether the client takes an encoding; "br;q=0" refuses it.
func accepts(r *http.Request, encoding string) bool {
	for _, part := range strings.Split(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		if !strings.EqualFold(strings.TrimSpace(name), encoding) {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(q), "q="), 64)
		return err != nil || v > 0
	}
	return false
}

func load(dist fs.FS) map[string]*file {
	all := make(map[string]*file)
	err := fs.WalkDir(dist, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, ".br") {
			return err
		}
		body, err := fs.ReadFile(dist, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		f := &file{kind: contentType(name), tag: `"` + hex.EncodeToString(sum[:8]) + `"`, body: body, gzip: sync.OnceValue(func() []byte { return pack(body) })}
		if br, err := fs.ReadFile(dist, name+".br"); err == nil {
			f.br = br
		}
		all[name] = f
		return nil
	})
	if err != nil {
		panic(err) // an embedded file system cannot fail to be read
	}
	return all
}

// contentType does not ask the operating system, whose tables differ.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".woff2":
		return "font/woff2"
	case ".png":
		return "image/png"
	}
	return "application/octet-stream"
}

// pack returns body gzipped, nil when that is not a tenth smaller.
func pack(body []byte) []byte {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil
	}
	if _, err := z.Write(body); err != nil {
		return nil
	}
	if err := z.Close(); err != nil || b.Len()*10 > len(body)*9 {
		return nil
	}
	return b.Bytes()
}
