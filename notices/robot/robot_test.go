package robot

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/notices"
)

func aNotice(text string) citywarden.Notice {
	return citywarden.Notice{
		Key: "E0501202611230001/0/opened", Kind: citywarden.NoticeOpened, Case: "E0501202611230001", Severity: citywarden.Major,
		Title: citywarden.Text{ZH: "爆管"}, Text: citywarden.Text{ZH: text}, At: time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC),
	}
}

func template(t *testing.T) *notices.Template {
	t.Helper()
	x, err := notices.NewTemplate(notices.Options{Text: "{{.Text}}"})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// group is a vendor's end.
type group struct {
	*httptest.Server
	request *http.Request
	body    string
	status  int
	answer  string
}

func newGroup(t *testing.T, answer string) *group {
	g := &group{status: http.StatusOK, answer: answer}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		g.request, g.body = r, string(b)
		w.WriteHeader(g.status)
		io.WriteString(w, g.answer)
	}))
	t.Cleanup(g.Close)
	return g
}

const good = `{"errcode":0,"errmsg":"ok"}`

// The signatures of one moment, computed with openssl:
//
//	printf '1795399200000\nSECabc' | openssl dgst -sha256 -hmac SECabc -binary | base64
//	printf '' | openssl dgst -sha256 -mac HMAC -macopt hexkey:$(printf '1795399200\nabc' | xxd -p) -binary | base64
const (
	dingSign   = "FmN28uYy0Rl2UqTYBs6i6Z5U76UdzQN3VRPHncFxpno%3D" // as in a URL
	feishuSign = "hRq0jEq/NP98IfWzE+LF/04oEWutexAKYD8Lcuj5aF4="
)

func TestSignatures(t *testing.T) {
	at := time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)
	if at.Unix() != 1795399200 {
		t.Fatal(at.Unix())
	}
	ding, err := NewDingTalk("https://x/send?access_token=1", "SECabc", nil)
	if err != nil {
		t.Fatal(err)
	}
	q := ding.url.Query()
	ding.request("x", "SECabc", at, q)
	if got := q.Encode(); got != "access_token=1&sign="+dingSign+"&timestamp=1795399200000" {
		t.Errorf("DingTalk: %s", got)
	}
	fei, err := NewFeishu("https://x/hook/1", "abc", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := fei.request("x", "abc", at, nil).(feishu); got.Sign != feishuSign || got.Timestamp != "1795399200" {
		t.Errorf("Feishu: %+v", got)
	}
}

func TestBodies(t *testing.T) {
	g := newGroup(t, good)
	for _, secret := range []string{"", "SECabc"} {
		r, err := NewDingTalk(g.URL+"/robot/send?access_token=1", secret, template(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Send(t.Context(), aNotice("压力低")); err != nil {
			t.Fatal(err)
		}
		q := g.request.URL.Query()
		if want := `{"msgtype":"text","text":{"content":"【重要】爆管\n压力低"}}`; g.body != want || q.Get("access_token") != "1" || g.request.URL.Path != "/robot/send" || g.request.Header.Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("DingTalk: %s %s", g.request.URL, g.body)
		}
		if secret == "" && (q.Has("sign") || q.Has("timestamp")) || secret != "" && q.Get("sign") != sign(secret, q.Get("timestamp")+"\n"+secret) {
			t.Errorf("DingTalk with secret %q: %s", secret, g.request.URL)
		}
		if ms, _ := strconv.ParseInt(q.Get("timestamp"), 10, 64); secret != "" && time.Since(time.UnixMilli(ms)).Abs() > time.Minute {
			t.Errorf("DingTalk: timestamp %d", ms)
		}
	}
	r, err := NewWeCom(g.URL+"/cgi-bin/webhook/send?key=1", template(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Send(t.Context(), aNotice("压力低")); err != nil {
		t.Fatal(err)
	}
	if want := `{"msgtype":"text","text":{"content":"【重要】爆管\n压力低"}}`; g.body != want || g.request.URL.String() != "/cgi-bin/webhook/send?key=1" {
		t.Errorf("WeCom: %s %s", g.request.URL, g.body)
	}
	g.answer = `{"code":0,"msg":"success","data":{}}`
	if r, err = NewFeishu(g.URL+"/open-apis/bot/v2/hook/1", "", template(t)); err != nil {
		t.Fatal(err)
	}
	if err := r.Send(t.Context(), aNotice("压力低")); err != nil {
		t.Fatal(err)
	}
	if want := `{"msg_type":"text","content":{"text":"【重要】爆管\n压力低"}}`; g.body != want {
		t.Errorf("Feishu: %s", g.body)
	}
	if r, err = NewFeishu(g.URL+"/open-apis/bot/v2/hook/1", "abc", template(t)); err != nil {
		t.Fatal(err)
	}
	if err := r.Send(t.Context(), aNotice("压力低")); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(g.body, `{"timestamp":"`) || !strings.Contains(g.body, `","sign":"`) || !strings.HasSuffix(g.body, `,"msg_type":"text","content":{"text":"【重要】爆管\n压力低"}}`) {
		t.Errorf("Feishu, signed: %s", g.body)
	}
}

func TestLongTextsAreCut(t *testing.T) {
	g := newGroup(t, good)
	r, err := NewWeCom(g.URL+"/?key=1", template(t))
	if err != nil {
		t.Fatal(err)
	}
	for pad := range 3 {
		if err := r.Send(t.Context(), aNotice(strings.Repeat("x", pad)+strings.Repeat("水", 2000))); err != nil {
			t.Fatal(err)
		}
		said := strings.TrimSuffix(strings.TrimPrefix(g.body, `{"msgtype":"text","text":{"content":"`), `"}}`)
		if n := len(said) - len(`\n`) + 1; n > 2048 || n < 2040 || !utf8.ValidString(said) || !strings.HasSuffix(said, "水…") {
			t.Errorf("%d bytes: …%s", n, said[len(said)-20:])
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		status int
		answer string
		says   string
	}{
		{200, `{"errcode":310000,"errmsg":"sign not match"}`, "DingTalk answers 310000 sign not match"},
		{200, `<html>maintenance</html>`, "DingTalk answers <html>"},
		{200, `{"StatusCode":0}`, "DingTalk answers"},
		{200, ``, "DingTalk answers"},
		{502, good, "502 Bad Gateway"},
		{302, good, "302 Found"},
	} {
		g := newGroup(t, c.answer)
		g.status = c.status
		r, err := NewDingTalk(g.URL+"/?access_token=geheim", "SECgeheim", template(t))
		if err != nil {
			t.Fatal(err)
		}
		err = r.Send(t.Context(), aNotice("x"))
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%d %s: %v", c.status, c.answer, err)
		}
		g.Close()
		if err := r.Send(t.Context(), aNotice("x")); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("nobody listens: %v", err)
		}
	}
	for _, u := range []string{"", "duty", "ftp://x", "http://"} {
		if _, err := NewWeCom(u, nil); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("NewWeCom(%q): %v", u, err)
		}
	}
}

// No vendor gets more than it takes, and what is urgent does not wait behind what
// is not.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := NewDingTalk("https://x/send?access_token=1", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		fill := func(urgent bool) (n int, after time.Duration) {
			t.Helper()
			for {
				var busy *citywarden.BusyError
				switch err := r.pace(urgent, time.Now()); {
				case err == nil:
					n++
				case errors.As(err, &busy):
					return n, busy.After
				default:
					t.Fatal(err)
				}
			}
		}
		for _, c := range []struct {
			urgent bool
			n      int
			after  time.Duration
			sleep  time.Duration
		}{
			{false, 15, time.Minute, 10 * time.Second}, {true, 5, 50 * time.Second, 50 * time.Second}, // a minute after the 15, 5 are left
			{false, 10, 10 * time.Second, 10 * time.Second}, {false, 5, 50 * time.Second, 0},
		} {
			if n, after := fill(c.urgent); n != c.n || after != c.after {
				t.Errorf("%+v: %d at once, then after %s", c, n, after)
			}
			time.Sleep(c.sleep)
		}
	})
}

func TestTheVendorHasHadEnough(t *testing.T) {
	for _, c := range []struct {
		open   func(url string, x *notices.Template) (*Robot, error)
		status int
		answer string
		after  time.Duration
	}{
		{func(u string, x *notices.Template) (*Robot, error) { return NewDingTalk(u, "", x) }, 200, `{"errcode":130101,"errmsg":"send too fast"}`, 10 * time.Minute},
		{NewWeCom, 200, `{"errcode":45009,"errmsg":"api freq out of limit"}`, time.Minute},
		{func(u string, x *notices.Template) (*Robot, error) { return NewFeishu(u, "", x) }, 200, `{"code":11232,"msg":"frequency limited"}`, time.Minute},
		{NewWeCom, 429, `slow down`, time.Minute},
	} {
		g := newGroup(t, c.answer)
		g.status = c.status
		r, err := c.open(g.URL+"/?key=1", template(t))
		if err != nil {
			t.Fatal(err)
		}
		var busy *citywarden.BusyError
		if err := r.Send(t.Context(), aNotice("x")); !errors.As(err, &busy) || busy.After != c.after {
			t.Errorf("%s: %v", c.answer, err)
		}
		g.body = ""
		if err := r.Send(t.Context(), aNotice("x")); !errors.As(err, &busy) || busy.After > c.after || g.body != "" {
			t.Errorf("%s: asked again too early: %v", c.answer, err)
		}
	}
}
