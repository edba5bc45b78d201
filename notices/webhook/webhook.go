// Package webhook sends notices to a URL: a POST with the notice as JSON, in
// Chinese and English, signed with a secret that both sides know.
//
//	h, err := webhook.New("https://duty.example/citywarden", "secret")
//	err = h.Send(ctx, notice)
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/citywarden/citywarden"
)

// The headers of a request besides Content-Type.
const (
	HeaderKey       = "Idempotency-Key"      // the notice's key: the same notice may come twice, never under another key
	HeaderTimestamp = "Citywarden-Timestamp" // seconds since 1970 UTC
	HeaderSignature = "Citywarden-Signature" // see Sign; left out without a secret
)

// Hook sends notices to one URL. It may be used by several goroutines.
type Hook struct {
	url    string
	secret []byte
	client *http.Client
}

// New returns a hook to an http or https URL; "" is no secret.
func New(to, secret string) (*Hook, error) {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "%q is no URL; write it like https://duty.example/citywarden", to)
	}
	return &Hook{url: to, secret: []byte(secret), client: &http.Client{
		// What is signed for one address is not for another.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// body is what a receiver gets: the notice without the state of its sending.
type body struct {
	Key      string                `json:"key"`
	Kind     citywarden.NoticeKind `json:"kind"`
	Case     citywarden.CaseID     `json:"case"`
	Alarm    citywarden.AlarmID    `json:"alarm,omitempty"`
	Severity citywarden.Severity   `json:"severity"`
	Title    citywarden.Text       `json:"title"`
	Text     citywarden.Text       `json:"text"`
	Class    citywarden.ClassCode  `json:"class"`
	Grid     citywarden.GridCode   `json:"grid,omitempty"`
	Location *citywarden.Point     `json:"location,omitempty"`
	At       time.Time             `json:"at"`
}

// Send posts n and returns nil when the answer is 2xx. After 429, or 503 with
// Retry-After, it returns a *citywarden.BusyError. Errors don't hold the URL:
// there may be a secret in it.
func (h *Hook) Send(ctx context.Context, n citywarden.Notice) error {
	b, err := json.Marshal(body{n.Key, n.Kind, n.Case, n.Alarm, n.Severity, n.Title, n.Text, n.Class, n.Grid, n.Location, n.At})
	if err != nil {
		return fmt.Errorf("write notice %s: %w", n.Key, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("send notice %s: %w", n.Key, err)
	}
	at := strconv.FormatInt(time.Now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "citywarden")
	r.Header.Set(HeaderKey, n.Key)
	r.Header.Set(HeaderTimestamp, at)
	if len(h.secret) > 0 {
		r.Header.Set(HeaderSignature, Sign(h.secret, at, b))
	}
	res, err := h.client.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("send notice to %s: %w", r.URL.Host, err)
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, 200)) // a word on what is wrong, if there is one
	if res.StatusCode/100 == 2 {
		return nil
	}
	err = fmt.Errorf("send notice: %s answers %s %s", r.URL.Host, res.Status, bytes.TrimSpace(said))
	after, perr := strconv.Atoi(res.Header.Get("Retry-After"))
	switch {
	case res.StatusCode == http.StatusTooManyRequests && perr != nil:
		after = 60
	case res.StatusCode != http.StatusTooManyRequests && (res.StatusCode != http.StatusServiceUnavailable || perr != nil):
		return err
	}
	return &citywarden.BusyError{After: time.Duration(min(max(after, 1), 3600)) * time.Second, Err: err}
}

// Sign returns "v1=" and the hex digits of the HMAC-SHA256, under secret, of the
// timestamp header, a dot and the body. A receiver compares it in constant time
// and refuses timestamps that are minutes off, so that nothing can be replayed.
func Sign(secret []byte, timestamp string, body []byte) string {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(timestamp + "."))
	m.Write(body)
	return "v1=" + hex.EncodeToString(m.Sum(nil))
}
