// Package http is where devices send their messages over HTTP. It speaks
// ThingsBoard's device API:
//
//	POST /api/v1/{token}/telemetry
//	POST /api/v1/{token}/attributes
//	POST /api/v1/{token}/raw
//	POST /api/v1/{token}/lorawan
//	POST /api/v1/{token}/ctwing
//	GET  /api/v1/{token}/attributes?clientKeys=a,b&sharedKeys=c
//	GET  /api/v1/{token}/attributes/updates?timeout=20000
//	GET  /api/v1/{token}/firmware?title=a&version=1&size=4096&chunk=0
//	GET  /api/v1/{token}/software
//	GET  /api/v1/{token}/rpc?timeout=20000
//	POST /api/v1/{token}/rpc
//	POST /api/v1/{token}/rpc/{id}
//	POST /api/v1/{token}/claim
//	POST /api/v1/provision
//
// and leaves every other request to the next handler:
//
//	h := http.New(http.Options{Accept: pipeline, Check: pipeline, Auth: registry, Down: registry, Next: api, Logger: log})
//
// 200 means that the message is durable and was understood. 400 means that it
// is durable too, as a dead letter, and says what is wrong with it.
package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	nethttp "net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/citywarden/citywarden"
	"golang.org/x/time/rate"
)

// The limits of a request.
const (
	maxBody     = 256 << 10        // bytes
	bodyTimeout = 10 * time.Second // for the body to arrive
	retryAfter  = "5"              // seconds
	waitUsual   = time.Minute      // for an update, when the device does not say, or says 0; ThingsBoard's
	waitMost    = 5 * time.Minute
)

// Acceptor takes responsibility for messages.
type Acceptor interface {
	// Accept calls done exactly once, with nil once up is durable. It may block
	// to push back.
	Accept(ctx context.Context, up citywarden.Uplink, done func(error))
}

// Checker says whether a message can be understood.
type Checker interface {
	// Check returns CodeInvalid and the reason when it can't. It stores nothing.
	Check(up citywarden.Uplink) error
}

// Authenticator knows the devices' access tokens.
type Authenticator interface {
	// Authenticate returns the device that token belongs to, or an error with
	// CodeUnauthenticated (unknown) or CodeDenied (disabled).
	Authenticate(token string) (citywarden.DeviceID, error)
}

// Downlinks knows what goes to devices.
type Downlinks interface {
	// Attributes returns the client and shared attributes that are named, all of a
	// scope for nil, or CodeNotFound.
	Attributes(ctx context.Context, id citywarden.DeviceID, client, shared []string) (citywarden.DeviceAttributes, error)
	// Listen has send called with the messages of a kind for a device, and for
	// those behind it, until cancel is called. send reports whether it took the
	// message, and does not block.
	Listen(id citywarden.DeviceID, kind citywarden.DownlinkKind, send func(citywarden.Downlink) bool) (cancel func())
	// Answer takes what a device answers to a command, durable when it returns nil.
	// CodeNotFound when none waits for it.
	Answer(ctx context.Context, device citywarden.DeviceID, id int64, body []byte) error
}

// Limiter knows what devices may send.
type Limiter interface {
	// Limits returns what a device may send.
	Limits(citywarden.DeviceID) citywarden.Limits
}

// Firmware knows what devices are to load.
type Firmware interface {
	// Image returns the file that a device is to have; CodeNotFound when there is
	// none, or title and version, unless they are "", are those of another.
	Image(ctx context.Context, id citywarden.DeviceID, title, version string) ([]byte, error)
}

// Options is what the handler works with; all but Firmware, Limits, Logger, Provision and Announce are required.
type Options struct {
	Accept   Acceptor
	Check    Checker
	Auth     Authenticator
	Down     Downlinks
	Firmware Firmware        // nil for none
	Limits   Limiter         // nil for none
	Next     nethttp.Handler // serves what is not a device's message
	Logger   *slog.Logger    // nil for slog.Default()

	// Provision answers a device that asks for a credential; nil when none may.
	Provision func(ctx context.Context, from citywarden.Asker, request []byte) []byte
	// Announce takes what a device says of being claimed, durable when it returns nil; nil when none may be.
	Announce func(ctx context.Context, device citywarden.DeviceID, body []byte) error
}

// New returns the handler.
func New(o Options) nethttp.Handler {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &handler{Options: o, unkept: rate.Sometimes{Interval: 10 * time.Second}}
}

type handler struct {
	Options
	unkept rate.Sometimes // paces what is logged of messages that can't be stored
}

func (h *handler) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	if h.Provision != nil && r.Method == nethttp.MethodPost && r.URL.Path == "/api/v1/provision" {
		request, err := body(w, r)
		if err != nil {
			h.bodyProblem(w, "", err)
			return
		}
		_ = answer(w, json.RawMessage(h.Provision(r.Context(), askerOf(r), request))) // the device hung up
		return
	}
	token, what, ok := target(r)
	if !ok || what == "claim" && h.Announce == nil {
		h.Next.ServeHTTP(w, r)
		return
	}
	id, err := h.Auth.Authenticate(token)
	if err != nil {
		h.refuse(w, r, token, err)
		return
	}
	if r.Method == nethttp.MethodGet {
		h.get(w, r, id, token, what)
		return
	}
	up := citywarden.Uplink{Device: id, Protocol: "http", Topic: "v1/devices/me/" + what, Received: time.Now().UTC()}
	if what == "lorawan" || what == "ctwing" {
		up.Topic = "v1/gateway/" + what
	}
	if up.Payload, err = body(w, r); err != nil {
		h.bodyProblem(w, id, err)
		return
	}
	if what == "rpc" {
		var limits citywarden.Limits
		if h.Limits != nil {
			limits = h.Limits.Limits(id)
		}
		if called, err := citywarden.AnswerCall(up.Payload, time.Now(), limits); err != nil {
			problem(w, nethttp.StatusBadRequest, err.Error())
		} else {
			_ = answer(w, called) // the device hung up
		}
		return
	}
	if command, ok := strings.CutPrefix(what, "rpc/"); ok {
		h.answered(w, r, id, command, up.Payload)
		return
	}
	if what == "claim" {
		h.settled(w, id, what, h.Announce(r.Context(), id, up.Payload))
		return
	}
	done := make(chan error, 1)
	h.Accept.Accept(r.Context(), up, func(err error) { done <- err })
	select {
	case err = <-done:
	case <-r.Context().Done():
		return // the device hung up: it doesn't know the outcome and will send again
	}
	switch {
	case err == nil:
	case citywarden.CodeOf(err) == citywarden.CodeInvalid:
		problem(w, nethttp.StatusBadRequest, err.Error())
		return
	case citywarden.CodeOf(err) == citywarden.CodeLimited:
		h.tooMuch(w, id, what, err)
		return
	case citywarden.CodeOf(err) == citywarden.CodeDenied, citywarden.CodeOf(err) == citywarden.CodeNotFound:
		h.Logger.Warn("uplink refused", "device", id, "topic", up.Topic, "err", err)
		problem(w, nethttp.StatusForbidden, err.Error())
		return
	default:
		h.unkept.Do(func() {
			h.Logger.Error("uplink not stored; the device was told to send it again", "device", id, "topic", up.Topic, "err", err)
		})
		unavailable(w)
		return
	}
	if err := h.Check.Check(up); err != nil {
		status := nethttp.StatusBadRequest
		if citywarden.CodeOf(err) == citywarden.CodeTooLarge {
			status = nethttp.StatusRequestEntityTooLarge
		}
		problem(w, status, err.Error())
		return
	}
	w.WriteHeader(nethttp.StatusOK)
}

// askerOf says who asks for a credential.
func askerOf(r *nethttp.Request) citywarden.Asker {
	from := citywarden.Asker{Protocol: "http", Address: r.RemoteAddr}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		from.Certificate = r.TLS.PeerCertificates[0]
	}
	return from
}

// get answers a device that asks.
func (h *handler) get(w nethttp.ResponseWriter, r *nethttp.Request, id citywarden.DeviceID, token, what string) {
	q := r.URL.Query()
	if what == "attributes" {
		client, shared := citywarden.AttributeKeys(q.Get("clientKeys"), q.Get("sharedKeys"))
		attrs, err := h.Down.Attributes(r.Context(), id, client, shared)
		if err != nil {
			h.Logger.Error("attributes not read", "device", id, "err", err)
			unavailable(w)
			return
		}
		_ = answer(w, attrs) // the device hung up
		return
	}
	switch what {
	case "firmware":
		h.firmware(w, r, id)
		return
	case "software":
		problem(w, nethttp.StatusNotFound, "there is no software for the device; firmware is at "+"/api/v1/TOKEN/firmware")
		return
	}
	wait := waitUsual
	if s := q.Get("timeout"); s != "" {
		ms, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			problem(w, nethttp.StatusBadRequest, fmt.Sprintf("timeout %q: it is a number of milliseconds", s))
			return
		}
		if ms > 0 {
			wait = min(time.Duration(ms)*time.Millisecond, waitMost)
		}
	}
	kind := citywarden.DownlinkAttributes
	if what == "rpc" {
		kind = citywarden.DownlinkCommand
	}
	got := make(chan citywarden.Downlink, 1)
	var full atomic.Bool // one answer has one message; the device comes again
	cancel := h.Down.Listen(id, kind, func(m citywarden.Downlink) bool {
		if m.Device != id || !full.CompareAndSwap(false, true) {
			return false
		}
		got <- m
		return true
	})
	late := time.NewTimer(wait)
	defer late.Stop()
	var m citywarden.Downlink
	select {
	case m = <-got:
	case <-late.C:
	case <-r.Context().Done():
	}
	cancel()
	if m.Body == nil {
		if full.CompareAndSwap(false, true) {
			w.WriteHeader(nethttp.StatusRequestTimeout) // as ThingsBoard: nothing new
			return
		}
		m = <-got // it came while we gave up
	}
	err := r.Context().Err()
	if err == nil {
		var now citywarden.DeviceID
		if now, err = h.Auth.Authenticate(token); err == nil && now != id {
			err = citywarden.Errorf(citywarden.CodeUnauthenticated, "the token is another device's now")
		}
		if err != nil { // revoked while it waited
			h.refuse(w, r, token, err)
		}
	}
	if err == nil {
		if m.Kind == citywarden.DownlinkCommand {
			m.Body = m.WithID()
		}
		err = answer(w, m.Body)
	}
	if m.Done != nil {
		m.Done(err)
	}
}

// firmware sends the firmware that a device is to load, or a chunk of it.
func (h *handler) firmware(w nethttp.ResponseWriter, r *nethttp.Request, id citywarden.DeviceID) {
	q := r.URL.Query()
	err := citywarden.Errorf(citywarden.CodeNotFound, "there is no firmware")
	var file []byte
	if h.Firmware != nil {
		if file, err = h.Firmware.Image(r.Context(), id, q.Get("title"), q.Get("version")); citywarden.CodeOf(err) == citywarden.CodeNotFound {
			if _, none := h.Firmware.Image(r.Context(), id, "", ""); none == nil { // ThingsBoard's answer to who asks for another
				err = citywarden.Errorf(citywarden.CodeInvalid, "%w", err)
			}
		}
	}
	if err == nil {
		file, err = citywarden.Chunk(file, q.Get("size"), q.Get("chunk"))
	}
	switch citywarden.CodeOf(err) {
	case "":
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(file)))
		_, _ = w.Write(file) // the device hung up
	case citywarden.CodeNotFound:
		problem(w, nethttp.StatusNotFound, err.Error())
	case citywarden.CodeInvalid:
		problem(w, nethttp.StatusBadRequest, err.Error())
	default:
		h.Logger.Error("firmware not read", "device", id, "err", err)
		unavailable(w)
	}
}

// answered takes the answer to a command.
func (h *handler) answered(w nethttp.ResponseWriter, r *nethttp.Request, device citywarden.DeviceID, command string, body []byte) {
	id, err := strconv.ParseInt(command, 10, 64)
	if err != nil {
		problem(w, nethttp.StatusBadRequest, fmt.Sprintf("%.32q is not the number of a command", command))
		return
	}
	h.settled(w, device, "rpc", h.Down.Answer(r.Context(), device, id, body))
}

// settled says what became of a message that is not for the log.
func (h *handler) settled(w nethttp.ResponseWriter, device citywarden.DeviceID, what string, err error) {
	switch citywarden.CodeOf(err) {
	case "":
		w.WriteHeader(nethttp.StatusOK)
	case citywarden.CodeInvalid:
		problem(w, nethttp.StatusBadRequest, err.Error())
	case citywarden.CodeNotFound:
		problem(w, nethttp.StatusNotFound, err.Error())
	case citywarden.CodeLimited:
		h.tooMuch(w, device, what, err)
	default:
		h.unkept.Do(func() {
			h.Logger.Error("message not stored; the device was told to send it again", "device", device, "what", what, "err", err)
		})
		unavailable(w)
	}
}

// tooMuch tells a device when it may send again.
func (h *handler) tooMuch(w nethttp.ResponseWriter, device citywarden.DeviceID, what string, err error) {
	if limit := (*citywarden.LimitError)(nil); errors.As(err, &limit) {
		w.Header().Set("Retry-After", strconv.Itoa(limit.Seconds()))
	}
	h.unkept.Do(func() {
		h.Logger.Warn("message refused; the device sends too much", "device", device, "what", what, "err", err)
	})
	problem(w, nethttp.StatusTooManyRequests, err.Error())
}

// answer writes body as JSON, all of it.
func answer(w nethttp.ResponseWriter, body any) error {
	b, err := citywarden.PlainJSON(body)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(b); err != nil {
		return err
	}
	return nethttp.NewResponseController(w).Flush()
}

// target takes the token out of the path, and what follows it: telemetry,
// attributes, raw, attributes/updates, firmware, claim, rpc or rpc/ID.
func target(r *nethttp.Request) (token, what string, ok bool) {
	rest, ok := strings.CutPrefix(r.URL.Path, "/api/v1/")
	if !ok {
		return "", "", false
	}
	token, what, _ = strings.Cut(rest, "/")
	switch r.Method {
	case nethttp.MethodPost:
		return token, what, what == "telemetry" || what == "attributes" || what == "raw" || what == "lorawan" || what == "ctwing" || what == "rpc" || what == "claim" || strings.HasPrefix(what, "rpc/")
	case nethttp.MethodGet:
		return token, what, what == "attributes" || what == "attributes/updates" || what == "firmware" || what == "software" || what == "rpc"
	}
	return "", "", false
}

// hint shows as much of a token as a person needs to recognise it.
func hint(token string) string {
	if len(token) < 8 {
		return fmt.Sprintf("of %d characters", len(token))
	}
	return token[:4] + "…"
}

// body reads the body of r within bodyTimeout.
func body(w nethttp.ResponseWriter, r *nethttp.Request) ([]byte, error) {
	// A ResponseWriter without deadlines is a test's: it has no slow peer either.
	control := nethttp.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	b, err := io.ReadAll(nethttp.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		// The server goes on reading to notice when the device hangs up.
		_ = control.SetReadDeadline(time.Time{})
	}
	return b, err
}

func (h *handler) bodyProblem(w nethttp.ResponseWriter, id citywarden.DeviceID, err error) {
	var tooLarge *nethttp.MaxBytesError
	if errors.As(err, &tooLarge) {
		h.Logger.Warn("uplink refused", "device", id, "err", fmt.Sprintf("body of more than %d bytes", maxBody))
		problem(w, nethttp.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes; send it in parts", maxBody))
		return
	}
	h.Logger.Debug("body not read", "device", id, "err", err)
	problem(w, nethttp.StatusRequestTimeout, "the body did not arrive in time")
}

func (h *handler) refuse(w nethttp.ResponseWriter, r *nethttp.Request, token string, err error) {
	w.Header().Set("Connection", "close") // the body is not read
	switch citywarden.CodeOf(err) {
	case citywarden.CodeUnauthenticated, citywarden.CodeNotFound:
		h.Logger.Warn("uplink refused", "remote", r.RemoteAddr, "token", hint(token), "err", err,
			"do", "issue a token with POST /api/v1/devices/{id}/credentials and put it into the device's URL")
		problem(w, nethttp.StatusUnauthorized, "the access token in the path is unknown")
	case citywarden.CodeDenied:
		h.Logger.Warn("uplink refused", "remote", r.RemoteAddr, "token", hint(token), "err", err)
		problem(w, nethttp.StatusForbidden, err.Error())
	default:
		h.Logger.Error("access token not checked", "remote", r.RemoteAddr, "err", err)
		unavailable(w)
	}
}

func unavailable(w nethttp.ResponseWriter) {
	w.Header().Set("Retry-After", retryAfter)
	problem(w, nethttp.StatusServiceUnavailable, "the message could not be stored; send it again")
}

// problem writes problem details (RFC 9457).
func problem(w nethttp.ResponseWriter, status int, detail string) {
	b, _ := json.Marshal(struct { // strings and an int: no error
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{"about:blank", nethttp.StatusText(status), status, detail})
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the device hung up
}
