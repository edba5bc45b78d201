package app

import (
	"bytes"
	"context"
	"crypto/hmac"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/notices/webhook"
)

// A message of a device reaches the duty desk's webhook, signed, and the case says so; the department that it
// is dispatched to is told by its own.
func TestNoticesReachAWebhook(t *testing.T) {
	if testing.Short() {
		t.Skip("opens the whole platform")
	}
	type post struct {
		header http.Header
		body   []byte
		path   string
	}
	posts := make(chan post, 10)
	duty := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		posts <- post{r.Header, b, r.URL.Path}
	}))
	defer duty.Close()
	c := Default()
	c.Data, c.MQTT.Addr, c.CoAP.Addr = t.TempDir(), "", ""
	c.Notices.Receivers = []ReceiverConfig{{Name: "duty-desk", All: true, Webhook: duty.URL, Secret: "geheim"}, {Name: "供水公司", Webhook: duty.URL + "/water"}}
	if err := os.MkdirAll(filepath.Join(c.Data, "rules"), 0o700); err != nil {
		t.Fatal(err)
	}
	rule := "rules:\n- {id: low, title: {zh: 压力过低, en: Pressure too low}, select: {model: [pressure-logger]}, levels: [{severity: major, when: 'pressure < 2.5'}], case: {class: event/0501, key: 'low/{{device}}'}}\n"
	if err := os.WriteFile(filepath.Join(c.Data, "rules", "r.yaml"), []byte(rule), 0o600); err != nil {
		t.Fatal(err)
	}
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, err := Open(t.Context(), c, Options{AdminPassword: adminPassword, Listeners: Listeners{HTTP: web}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- a.Run(ctx) }()
	token := ""
	call := func(method, path string, in, out any) {
		t.Helper()
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequest(method, "http://"+web.Addr().String()+"/api/v1"+path, bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		answer, _ := io.ReadAll(res.Body)
		if res.StatusCode/100 != 2 {
			t.Fatalf("%s %s: %s %s", method, path, res.Status, answer)
		}
		if out != nil {
			if err := json.Unmarshal(answer, out); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got struct{ Token string }
	call("POST", "/login", map[string]string{"user": "admin", "password": adminPassword}, &got)
	token = got.Token
	call("POST", "/devices", map[string]any{"id": "p1", "name": "p1", "model": "pressure-logger"}, nil)
	call("POST", "/devices/p1/credentials", map[string]string{"type": "token"}, &got)
	call("POST", "/"+got.Token+"/telemetry", map[string]any{"pressure": 1.0}, nil)
	select {
	case p := <-posts:
		sign := webhook.Sign([]byte("geheim"), p.header.Get(webhook.HeaderTimestamp), p.body)
		if !hmac.Equal([]byte(sign), []byte(p.header.Get(webhook.HeaderSignature))) || !strings.Contains(string(p.body), `"zh":"重要级告警：压力过低`) {
			t.Errorf("%v %s", p.header, p.body)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing came")
	}
	var one citywarden.Case
	for last := time.Now().Add(30 * time.Second); ; {
		var list struct{ Items []citywarden.Case }
		call("GET", "/cases", nil, &list)
		call("GET", "/cases/"+string(list.Items[0].ID), nil, &one)
		if n := len(one.Timeline); one.Timeline[n-1].Action == citywarden.Notify {
			break
		} else if time.Now().After(last) {
			t.Fatalf("the timeline is %+v", one.Timeline)
		}
	}
	if said := one.Timeline[len(one.Timeline)-1].Said("en"); !strings.HasPrefix(said, "notice sent to duty-desk: major alarm: Pressure too low") {
		t.Errorf("the case says %q", said)
	}
	at := "/cases/" + string(one.ID) + "/actions/"
	call("POST", at+"file", map[string]any{}, nil)
	call("POST", at+"dispatch", map[string]any{}, &one)
	until := one.Deadline.In(time.FixedZone("CST", 8*60*60)).Format("2006-01-02 15:04")
	told := map[string]bool{}
	for range 2 {
		select {
		case p := <-posts:
			told[p.path] = true
			for _, want := range []string{
				`"kind":"dispatched"`, `"title":{"zh":"压力过低"`, `"zh":"admin 派遣给 供水公司，供水管道破裂，处置时限 ` + until + `"`,
				`"en":"dispatched to 供水公司 by admin, water main burst, due by ` + until + `"`,
			} {
				if !strings.Contains(string(p.body), want) {
					t.Errorf("%s got %s, want %s", p.path, p.body, want)
				}
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("of the dispatch only %v was told", told)
		}
	}
	if !told["/water"] || !told["/"] {
		t.Errorf("told were %v, want the department and who gets all", told)
	}
	stop()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
