package api

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// Lab tries rules without running them.
type Lab interface {
	// Backtest steps rules over the stored history until ctx is done. It calls
	// progress a few times a second.
	Backtest(ctx context.Context, r citywarden.BacktestRequest, progress func(citywarden.BacktestProgress)) (citywarden.Backtest, error)
	WhyNot(ctx context.Context, rule citywarden.RuleID, device citywarden.DeviceID, at time.Time) (citywarden.WhyNot, error)
	// Test checks a rule file and runs its tests; the files that run when text is empty.
	Test(ctx context.Context, text string) (citywarden.RuleReport, error)
}

// maxLabBody holds a rule file of 1 MiB with every character escaped.
const maxLabBody = 3 << 20

type backtestBody struct {
	Text    string                `json:"text,omitempty" doc:"A rule file in YAML, at most 1 MiB; each rule is compared with the one of the same id that runs"`
	Rule    citywarden.RuleID     `json:"rule,omitempty" maxLength:"200" doc:"Instead of text: a rule that runs"`
	From    time.Time             `json:"from" doc:"RFC 3339, inclusive"`
	To      time.Time             `json:"to,omitzero" doc:"RFC 3339, exclusive, at most 31 days after from; now when left out"`
	Devices []citywarden.DeviceID `json:"devices,omitempty" maxItems:"10000" doc:"As if there were only these; all when left out"`
}

type rulesTestBody struct {
	Text string `json:"text,omitempty" doc:"A rule file in YAML, at most 1 MiB; the files that run when left out"`
}

func (s *server) labRoutes() {
	const tag = "rules"
	result := s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[citywarden.Backtest](), true, "")
	handle(s, route{method: "POST", path: "/api/v1/rules/backtest", id: "backtest-rules", tag: tag, may: citywarden.MayWriteRules, maxBody: maxLabBody,
		responses: map[string]*huma.Response{"200": {
			Description: "The result. With Accept: text/event-stream server-sent events: progress " +
				"({\"done\": 0 to 1, \"at\", \"readings\"}) a few times a second, then result, or problem with problem details. " +
				"It ends when the caller hangs up.",
			Content: map[string]*huma.MediaType{
				"application/json":  {Schema: result},
				"text/event-stream": {Schema: &huma.Schema{Type: "string"}},
			},
		}},
		summary: "What rules would have done over stored history, beside those that run"}, s.backtest)
	handle(s, route{method: "POST", path: "/api/v1/rules/test", id: "test-rules", tag: tag, may: citywarden.MayWriteRules, maxBody: maxLabBody,
		summary: "Check a rule file and run the tests in it; the running rules stay as they are"}, s.testRules)
	handle(s, route{method: "GET", path: "/api/v1/rules/{id}/why-not", id: "explain-silence", tag: tag, may: citywarden.MayRead,
		summary: "Why a rule had no alarm on a device at a moment, from the history stepped again"}, s.whyNot)
}

func (s *server) backtest(ctx context.Context, in *struct {
	Accept string `header:"Accept"`
	Body   backtestBody
}) (*huma.StreamResponse, error) {
	b := in.Body
	q := citywarden.BacktestRequest{Text: b.Text, Rule: b.Rule, From: b.From, To: b.To, Devices: b.Devices}
	live := strings.Contains(in.Accept, "text/event-stream")
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		r, w := humago.Unwrap(hc)
		rc := http.NewResponseController(w)
		// The time for reading the body would end the request. A writer without
		// deadlines has none to take back.
		_ = rc.SetReadDeadline(time.Time{})
		if !live {
			s.answerBacktest(w, r, q)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Accel-Buffering", "no") // nginx would hold the events back
		w.WriteHeader(http.StatusOK)
		if err := s.streamBacktest(r, &stream{w: w, rc: rc}, q); err != nil {
			s.log.Debug("backtest stream ended", "user", callerOf(ctx).Name, "err", err)
		}
	}}, nil
}

func (s *server) answerBacktest(w http.ResponseWriter, r *http.Request, q citywarden.BacktestRequest) {
	out, err := s.Lab.Backtest(r.Context(), q, func(citywarden.BacktestProgress) {})
	if err != nil {
		s.writeProblem(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// An error here means that the caller is gone.
	_ = json.NewEncoder(w).Encode(out)
}

// streamBacktest sends progress, and at the end the result or the problem. A
// caller who takes nothing any more ends the backtest.
func (s *server) streamBacktest(r *http.Request, st *stream, q citywarden.BacktestRequest) error {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	send := func(kind string, v any) error {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		st.write("event: %s\ndata: %s\n\n", kind, b)
		return st.flush()
	}
	st.write(": it began\n\n")
	if err := st.flush(); err != nil {
		return err
	}
	out, err := s.Lab.Backtest(ctx, q, func(p citywarden.BacktestProgress) {
		if err := send("progress", p); err != nil {
			cancel(err)
		}
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return send("problem", s.problem(ctx, err))
	}
	return send("result", out)
}

func (s *server) testRules(ctx context.Context, in *struct{ Body *rulesTestBody }) (*output[citywarden.RuleReport], error) {
	text := ""
	if in.Body != nil {
		text = in.Body.Text
	}
	out, err := s.Lab.Test(ctx, text)
	if err != nil {
		return nil, err
	}
	return outputOf(out), nil
}

func (s *server) whyNot(ctx context.Context, in *struct {
	ID     citywarden.RuleID   `path:"id" maxLength:"200"`
	Device citywarden.DeviceID `query:"device" required:"true" maxLength:"64"`
	At     time.Time           `query:"at" doc:"RFC 3339, by the platform's clock; now when left out"`
}) (*output[citywarden.WhyNot], error) {
	at := in.At
	if at.IsZero() {
		at = time.Now()
	}
	if _, _, err := s.seenDevice(ctx, in.Device); err != nil {
		return nil, err
	}
	out, err := s.Lab.WhyNot(ctx, in.ID, in.Device, at.UTC())
	if err != nil {
		return nil, err
	}
	if err := s.whyNotFor(ctx, callerOf(ctx), &out); err != nil {
		return nil, err
	}
	return outputOf(out), nil
}
