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
	"strconv"
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
	return newRobot(vendor{"DingTalk", 20_000, func(s, secret string, at time.Time, q url.Values) any {
		if secret != "" {
			stamp := strconv.FormatInt(at.UnixMilli(), 10)
			q.Set("timestamp", stamp)
			q.Set("sign", sign(secret, stamp+"\n"+secret))
		}
		return text{"text", content{s}}
	}, "errcode", "errmsg"}, to, secret, t)
}

// NewWeCom returns the robot at a webhook URL of WeCom, which has no signature:
// the key in the URL is the secret.
func NewWeCom(to string, t *notices.Template) (*Robot, error) {
	return newRobot(vendor{"WeCom", 2048, func(s, _ string, _ time.Time, _ url.Values) any {
		return text{"text", content{s}}
	}, "errcode", "errmsg"}, to, "", t)
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
	return newRobot(vendor{"Feishu", 18_000, func(s, secret string, at time.Time, _ url.Values) any {
		m := feishu{Kind: "text", Content: feishuText{s}}
		if secret != "" {
			m.Timestamp = strconv.FormatInt(at.Unix(), 10)
			m.Sign = sign(m.Timestamp+"\n"+secret, "") // the text is the key here
		}
		return m
	}, "code", "msg"}, to, secret, t)
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
	return &Robot{v, u, secret, t, &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Send posts n and returns nil when the vendor says that it took it. Errors
// don't hold the URL, whose token is a secret.
func (r *Robot) Send(ctx context.Context, n citywarden.Notice) error {
	title, rest, err := r.template.Write(n)
	if err != nil {
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
	case code != 0:
		return fmt.Errorf("send notice: %s answers %.0f %.200s", r.name, code, a[r.why])
	}
	return nil
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
