package webhook

import (
	"crypto/hmac"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

func aNotice() citywarden.Notice {
	return citywarden.Notice{
		Key: "E0501202611230001/0/opened", Receiver: "duty", Kind: citywarden.NoticeOpened, Case: "E0501202611230001", Alarm: "pipe.burst:p1:1",
		Severity: citywarden.Major, Title: citywarden.Text{ZH: "爆管", EN: "burst"}, Text: citywarden.Text{ZH: "压力低", EN: "pressure is low"},
		Class: "event/0501", At: time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC), State: citywarden.NoticePending, Tries: 3, Error: "last time",
	}
}

func TestSend(t *testing.T) {
	var got *http.Request
	var body []byte
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
	}))
	defer s.Close()
	h, err := New(s.URL+"/in", "geheim")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Send(t.Context(), aNotice()); err != nil {
		t.Fatal(err)
	}
	want := `{"key":"E0501202611230001/0/opened","kind":"opened","case":"E0501202611230001","alarm":"pipe.burst:p1:1","severity":"major",` +
		`"title":{"zh":"爆管","en":"burst"},"text":{"zh":"压力低","en":"pressure is low"},"class":"event/0501","at":"2026-11-23T02:00:00Z"}`
	if string(body) != want {
		t.Errorf("body %s\nwant %s", body, want)
	}
	if got.Method != "POST" || got.URL.Path != "/in" || got.Header.Get("Content-Type") != "application/json" || got.Header.Get(HeaderKey) != aNotice().Key {
		t.Errorf("%s %s %v", got.Method, got.URL, got.Header)
	}
	at := got.Header.Get(HeaderTimestamp)
	if !hmac.Equal([]byte(got.Header.Get(HeaderSignature)), []byte(Sign([]byte("geheim"), at, body))) {
		t.Errorf("signature %q at %q", got.Header.Get(HeaderSignature), at)
	}
	if other := Sign([]byte("geheim"), at+"0", body); other == got.Header.Get(HeaderSignature) {
		t.Error("the signature does not cover the timestamp")
	}
}

func TestSendFails(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("followed a redirection") }))
	defer elsewhere.Close()
	for _, c := range []struct {
		status int
		says   string
	}{{500, "500 Internal Server Error down for repair"}, {404, "404"}, {302, "302"}} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get(HeaderSignature) != "" {
				t.Error("signed without a secret")
			}
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(c.status)
			w.Write([]byte("down for repair" + strings.Repeat("x", 10000)))
		}))
		h, err := New(s.URL, "")
		if err != nil {
			t.Fatal(err)
		}
		err = h.Send(t.Context(), aNotice())
		if err == nil || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 400 {
			t.Errorf("%d: %v", c.status, err)
		}
		s.Close()
		if err := h.Send(t.Context(), aNotice()); err == nil {
			t.Error("nobody listens, and nothing is wrong")
		}
	}
	for _, u := range []string{"", "duty", "ftp://x", "http://"} {
		if _, err := New(u, ""); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("New(%q): %v", u, err)
		}
	}
}

func TestTheReceiverIsBusy(t *testing.T) {
	for _, c := range []struct {
		status int
		retry  string
		after  time.Duration // 0: it is a failure like others
	}{{429, "", time.Minute}, {429, "30", 30 * time.Second}, {429, "Wed, 21 Oct 2015 07:28:00 GMT", time.Minute}, {503, "5", 5 * time.Second}, {503, "0", time.Second}, {503, "99999", time.Hour}, {503, "", 0}, {500, "5", 0}} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", c.retry)
			w.WriteHeader(c.status)
		}))
		h, err := New(s.URL+"/?token=geheim", "")
		if err != nil {
			t.Fatal(err)
		}
		err = h.Send(t.Context(), aNotice())
		var busy *citywarden.BusyError
		if errors.As(err, &busy) != (c.after > 0) || busy != nil && busy.After != c.after {
			t.Errorf("%+v: %v", c, err)
		}
		s.Close()
		for _, err := range []error{err, h.Send(t.Context(), aNotice())} { // the second: nobody listens
			if err == nil || strings.Contains(err.Error(), "geheim") {
				t.Errorf("%+v: %v", c, err)
			}
		}
	}
}
