package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/danielgtaylor/huma/v2"
)

// Problem is what the API answers when it can't do what was asked: problem
// details for HTTP (RFC 9457) with our error code.
type Problem struct {
	Type     string          `json:"type" doc:"Always about:blank: title and status say the kind, code says more"`
	Title    string          `json:"title" doc:"The HTTP status in words"`
	Status   int             `json:"status" doc:"The HTTP status"`
	Detail   string          `json:"detail" doc:"What was wrong, where, and what to do"`
	Instance string          `json:"instance,omitempty" doc:"Names this occurrence; the platform's log has it too"`
	Code     citywarden.Code `json:"code" enum:"invalid,unauthenticated,denied,not_found,conflict,transient,internal" doc:"The kind of error, for programs"`
	Errors   []ProblemField  `json:"errors,omitempty" doc:"Every field or parameter that is wrong"`

	Problems citywarden.Problems `json:"problems,omitempty" doc:"Every mistake in a file that was sent, with its place"`
}

// ProblemField says what is wrong with one field or parameter of a request.
type ProblemField struct {
	Location string `json:"location" doc:"Path of the field, like body.location.lat or query.limit"`
	Message  string `json:"message"`
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// GetStatus returns the HTTP status; it makes a Problem a huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType returns the media type of problem details.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// statusOf is the HTTP status of an error code.
func statusOf(c citywarden.Code) int {
	switch c {
	case citywarden.CodeInvalid:
		return http.StatusBadRequest
	case citywarden.CodeUnauthenticated:
		return http.StatusUnauthorized
	case citywarden.CodeDenied:
		return http.StatusForbidden
	case citywarden.CodeNotFound:
		return http.StatusNotFound
	case citywarden.CodeConflict:
		return http.StatusConflict
	case citywarden.CodeTransient:
		return http.StatusServiceUnavailable
	case citywarden.CodeLimited:
		return http.StatusTooManyRequests
	case citywarden.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusInternalServerError
}

// codeOf is the error code of an HTTP status that huma or net/http chose.
func codeOf(status int) citywarden.Code {
	switch status {
	case http.StatusUnauthorized:
		return citywarden.CodeUnauthenticated
	case http.StatusForbidden:
		return citywarden.CodeDenied
	case http.StatusNotFound:
		return citywarden.CodeNotFound
	case http.StatusConflict:
		return citywarden.CodeConflict
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusRequestTimeout:
		return citywarden.CodeTransient
	}
	if status >= 500 {
		return citywarden.CodeInternal
	}
	return citywarden.CodeInvalid
}

func newProblem(status int, code citywarden.Code, detail string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail}
}

// waitError is an error with the time after which the call may be tried again.
type waitError struct {
	error
	status int
	after  time.Duration
}

func (e *waitError) Unwrap() error { return e.error }

func (e *waitError) seconds() string {
	return strconv.Itoa(max(1, int((e.after+time.Second-1)/time.Second)))
}

// problem turns err into what the caller sees. What went wrong inside is
// logged, and only named to the caller.
func (s *server) problem(ctx context.Context, err error) *Problem {
	req := requestOf(ctx)
	var p *Problem
	var wait *waitError
	switch code := citywarden.CodeOf(err); {
	case errors.As(err, &p):
	case errors.As(err, &wait):
		p = newProblem(wait.status, citywarden.CodeTransient, err.Error())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		p = newProblem(http.StatusServiceUnavailable, citywarden.CodeTransient, "it took too long; try again")
	case code == citywarden.CodeInternal:
		s.log.ErrorContext(ctx, "request failed", "request", req.id, "method", req.method, "path", req.path, "user", req.user.Name, "err", err)
		p = newProblem(http.StatusInternalServerError, code, "something inside the platform went wrong; its log says what, under request "+req.id)
	default:
		p = newProblem(statusOf(code), code, err.Error())
		errors.As(err, &p.Problems)
	}
	p.Instance = instanceOf(req.id)
	return p
}

func instanceOf(id string) string {
	if id == "" {
		return ""
	}
	return "urn:citywarden:request:" + id
}

// headers returns the headers that go with the answer to err.
func headersOf(err error) http.Header {
	h := http.Header{}
	var wait *waitError
	switch {
	case errors.As(err, &wait):
		h.Set("Retry-After", wait.seconds())
	case citywarden.CodeOf(err) == citywarden.CodeTransient:
		h.Set("Retry-After", "1")
	case citywarden.CodeOf(err) == citywarden.CodeUnauthenticated:
		h.Set("WWW-Authenticate", `Bearer realm="citywarden"`)
	}
	return h
}

// transform turns the errors that huma makes (validation, media types) into
// problems of ours. It runs on every answer just before it is written.
func transform(ctx huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	status := merge422(e.Status)
	p := newProblem(status, codeOf(status), e.Detail)
	p.Instance = instanceOf(requestOf(ctx.Context()).id)
	for _, d := range e.Errors {
		// The value is not echoed: it may hold a password.
		p.Errors = append(p.Errors, ProblemField{Location: d.Location, Message: plainMessage(d.Message)})
	}
	slices.SortFunc(p.Errors, func(a, b ProblemField) int {
		return strings.Compare(a.Location+"\x00"+a.Message, b.Location+"\x00"+b.Message)
	})
	if len(p.Errors) > 0 {
		var parts []string
		for _, f := range p.Errors {
			parts = append(parts, f.Location+": "+f.Message)
		}
		p.Detail = strings.Join(parts, "; ")
	}
	return p, nil
}

func plainMessage(s string) string {
	switch s {
	case "unexpected property":
		return "unknown field"
	case "unknown query parameter":
		return "unknown parameter"
	}
	return s
}

// merge422 makes 400 of huma's 422: a caller need not tell a malformed request
// from an invalid one.
func merge422(status int) int {
	if status == http.StatusUnprocessableEntity {
		return http.StatusBadRequest
	}
	return status
}

type humaContext huma.Context

// plainStatus is a huma.Context that answers 400 where huma says 422.
type plainStatus struct{ humaContext }

func (c plainStatus) SetStatus(status int) { c.humaContext.SetStatus(merge422(status)) }

// Unwrap returns the wrapped context; humago needs it.
func (c plainStatus) Unwrap() huma.Context { return c.humaContext }

// writeProblem answers with err outside of huma.
func (s *server) writeProblem(w http.ResponseWriter, r *http.Request, err error) {
	p := s.problem(r.Context(), err)
	h := w.Header()
	for k, v := range headersOf(err) {
		h[k] = v
	}
	h.Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	// An error here means that the caller is gone.
	_ = json.NewEncoder(w).Encode(p)
}
