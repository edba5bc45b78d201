// Package robot sends notices to the group robots of DingTalk (钉钉), WeCom
// (企业微信) and Feishu (飞书), as text, signed where the vendor has signatures.
//
//	r, err := robot.NewDingTalk("https://oapi.dingtalk.com/robot/send?access_token=…", "SEC…", template)
//	err = r.Send(ctx, notice)
package robot

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/notices"
)

// Robot sends notices to one group. It may be used by several goroutines.
type Robot struct {
	vendor
	url      *url.URL
	secret   string
	template *notices.Template
	client   *http.Client

	mu     sync.Mutex
	sent   []time.Time // of the last minute
	closed time.Time   // until when the vendor takes nothing
}

// vendor is what differs between them.
type vendor struct {
	name string
	most int // bytes of a text
	// request returns the body for a text, signed at a moment; what of the
	// signature goes into the URL is set in q.
	request func(text, secret string, at time.Time, q url.Values) any
	// code and why are what the vendor answers; code 0 is good.
	code, why string
	minute    int           // texts that it takes in a minute
	full      []float64     // codes that say that these were too many
	ban       time.Duration // and then nothing is taken for so long
}

// text is how DingTalk and WeCom write a text message.
type text struct {
	Kind string  `json:"msgtype"`
	Text content `json:"text"`
}

type content struct {
	Content string `json:"content"`
}

// NewDingTalk returns the robot at a webhook URL of DingTalk; secret is that of
// its signature (加签), "" when it has none.
func NewDingTalk(to, secret string, t *notices.Template) (*Robot, error) {
	return newRobot(vendor{name: "DingTalk", most: 20_000, minute: 20, full: []float64{130101, 410100}, ban: 10 * time.Minute, code: "errcode", why: "errmsg", request: func(s, secret string, at time.Time, q url.Values) any {
		if secret != "" {
			stamp := strconv.FormatInt(at.UnixMilli(), 10)
			q.Set("timestamp", stamp)
			q.Set("sign", sign(secret, stamp+"\n"+secret))
		}
		return text{"text", content{s}}
	}}, to, secret, t)
}

// NewWeCom returns the robot at a webhook URL of WeCom, which has no signature:
// the key in the URL is the secret.
func NewWeCom(to string, t *notices.Template) (*Robot, error) {
	return newRobot(vendor{name: "WeCom", most: 2048, minute: 20, full: []float64{45009}, ban: time.Minute, code: "errcode", why: "errmsg", request: func(s, _ string, _ time.Time, _ url.Values) any {
		return text{"text", content{s}}
	}}, to, "", t)
}

// feishu is how Feishu writes a text message.
type feishu struct {
	Timestamp string     `json:"timestamp,omitempty"`
	Sign      string     `json:"sign,omitempty"`
	Kind      string     `json:"msg_type"`
	Content   feishuText `json:"content"`
}

type feishuText struct {
	Text string `json:"text"`
}

// NewFeishu returns the robot at a webhook URL of Feishu; secret is that of its
// signature (签名校验), "" when it has none.
func NewFeishu(to, secret string, t *notices.Template) (*Robot, error) {
	return newRobot(vendor{name: "Feishu", most: 18_000, minute: 100, full: []float64{9499, 11232}, ban: time.Minute, code: "code", why: "msg", request: func(s, secret string, at time.Time, _ url.Values) any {
		m := feishu{Kind: "text", Content: feishuText{s}}
		if secret != "" {
			m.Timestamp = strconv.FormatInt(at.Unix(), 10)
			m.Sign = sign(m.Timestamp+"\n"+secret, "") // the text is the key here
		}
		return m
	}}, to, secret, t)
}

// sign returns the HMAC-SHA256 of message in base64.
func sign(key, message string) string {
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(message))
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}

func newRobot(v vendor, to, secret string, t *notices.Template) (*Robot, error) {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "that is no URL; copy the webhook address of the %s robot", v.name)
	}
	return &Robot{vendor: v, url: u, secret: secret, template: t, client: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// pace returns nil when a text may be sent at now, which counts it, and a
// *citywarden.BusyError until then. A quarter of what the vendor takes is left
// for what is urgent.
func (r *Robot) pace(urgent bool, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Before(r.closed) {
		return &citywarden.BusyError{After: r.closed.Sub(now), Err: fmt.Errorf("%s takes nothing until %s", r.name, r.closed.UTC().Format(time.RFC3339))}
	}
	r.sent = slices.DeleteFunc(r.sent, func(t time.Time) bool { return now.Sub(t) >= time.Minute })
	most := r.minute
	if !urgent {
		most -= most / 4
	}
	if over := len(r.sent) - most; over >= 0 {
		return &citywarden.BusyError{After: time.Minute - now.Sub(r.sent[over]), Err: fmt.Errorf("%s takes %d texts a minute; the rest waits", r.name, r.minute)}
	}
	r.sent = append(r.sent, now)
	return nil
}

// close remembers that the vendor takes nothing for a while, for which it said err.
func (r *Robot) close(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = time.Now().Add(r.ban)
	return &citywarden.BusyError{After: r.ban, Err: err}
}

// Send posts n and returns nil when the vendor says that it took it, and a
// *citywarden.BusyError when it has had enough for now. Errors don't hold the
// URL, whose token is a secret.
func (r *Robot) Send(ctx context.Context, n citywarden.Notice) error {
	title, rest, err := r.template.Write(n)
	if err != nil {
		return err
	}
	if err := r.pace(n.Urgent, time.Now()); err != nil {
		return err
	}
	to := *r.url
	q := to.Query()
	b, err := json.Marshal(r.request(cut(title+"\n"+rest, r.most), r.secret, time.Now(), q))
	if err != nil {
		return fmt.Errorf("write notice %s: %w", n.Key, err)
	}
	to.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("send notice to %s: %w", r.name, err)
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("User-Agent", "citywarden")
	res, err := r.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("send notice to %s: %w", r.name, err)
	}
	defer res.Body.Close()
	said, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("send notice to %s: read the answer: %w", r.name, err)
	}
	return r.taken(res, said)
}

// taken returns nil when the answer says that the message was taken: 2xx is not
// enough, the vendors say in the body what is wrong.
func (r *Robot) taken(res *http.Response, said []byte) error {
	if res.StatusCode == http.StatusTooManyRequests {
		return r.close(fmt.Errorf("send notice: %s answers %s %.200s", r.name, res.Status, said))
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("send notice: %s answers %s %.200s", r.name, res.Status, said)
	}
	var a map[string]any
	code, ok := 0.0, false
	if json.Unmarshal(said, &a) == nil {
		code, ok = a[r.code].(float64)
	}
	switch {
	case !ok:
		return fmt.Errorf("send notice: %s answers %.200s", r.name, said)
	case code == 0:
		return nil
	}
	err := fmt.Errorf("send notice: %s answers %.0f %.200s", r.name, code, a[r.why])
	if slices.Contains(r.full, code) {
		return r.close(err)
	}
	return err
}

// cut returns s in at most n bytes of whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const more = "…"
	for i := n - len(more); ; i-- {
		if i <= 0 || s[i]&0xc0 != 0x80 {
			return s[:max(i, 0)] + more
		}
	}
}
