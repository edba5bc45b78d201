// Package api serves the platform's HTTP API: JSON described by OpenAPI at
// /api/openapi.json, live events as server-sent events, sign-in and roles, and
// the console beside it.
//
//	hub := api.NewHub(log)
//	accounts := api.NewAccounts(db)
//	h, err := api.New(api.Options{Devices: registry, Alarms: desk, …, Accounts: accounts, Audit: db, Hub: hub, Logger: log})
//	srv := &http.Server{Handler: h}
//	srv.RegisterOnShutdown(hub.Close) // ends the event streams
//
// Lists are {"items": […], "next": cursor or null}. Errors are problem details
// (RFC 9457), see Problem. Everything but the signing in, the state of health
// and the description of the API needs a session: "Authorization: Bearer
// TOKEN", or the cookie that the sign-in sets, which is not taken from other
// sites. Every change is written to the audit log before it is made.
package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// Options are what the API serves. All interfaces are needed; a field without
// one may be left zero.
type Options struct {
	Devices Devices
	Sites   Sites

	Provisioner Provisioner

	Files    DeviceFiles
	Models   Models
	Series   Series
	Gaps     Gaps
	Alarms   Alarms
	Load     Load
	Orders   Orders
	Service  Service
	Messages Messages
	Cases    Cases

	Commands    Commands
	Firmware    Firmware
	Evaluations Evaluations
	Attachments Attachments
	Reports     Reports
	APIKeys     APIKeys
	Open311     Open311
	Photos      Photos
	Notices     Notices
	Classes     Classes
	Rules       Rules
	RuleFiles   RuleFiles
	Lab         Lab
	Ledger      Ledger
	Layers      Layers
	Grids       Grids
	Accounts    *Accounts
	Audit       Audit
	Hub         *Hub
	Console     http.Handler                           // serves every path that is not the API's; nil: nothing there
	Backup      func(context.Context, io.Writer) error // writes all that the platform keeps
	Metrics     http.Handler                           // serves /metrics; nil: nothing there
	Ready       func() error                           // nil error: messages can be taken; nil func: always
	Links       func() []citywarden.Link               // connections to brokers elsewhere; nil func: none
	Trouble     func() citywarden.Text                 // why they can't, or what else is wrong, for people; zero while nothing is; nil func: always zero
	CAPSender   string                                 // who sends CAP messages, a name that no other sender has
	Citizens    bool                                   // whether they may report cases (随手拍)
	Proxies     []netip.Prefix                         // reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed
	Version     string
	TimeZone    string // IANA name of the zone that people here live in; "" means Asia/Shanghai
	Demo        bool   // tells the console that this is the demo county
	MQTT        string // where MQTT listens, "host:port"; "" when it doesn't
	Logger      *slog.Logger

	Responsibility Responsibility
	Components     Components
}

// Audit keeps who changed what; its methods are those of store.DB.
type Audit interface {
	AppendAudit(ctx context.Context, e citywarden.AuditEntry) (int64, error)
	FinishAudit(ctx context.Context, id int64, status int, after json.RawMessage) error
	Audit(ctx context.Context, f citywarden.AuditFilter) ([]citywarden.AuditEntry, string, error)
}

// server is the API once assembled.
type server struct {
	Options
	log     *slog.Logger
	mux     *http.ServeMux
	api     huma.API
	origins *http.CrossOriginProtection
	paces   paces
	claims  struct{ users, devices *limiter } // wrong secrets
	started time.Time
	zone    *time.Location

	watching atomic.Int32 // who watches messages

	summaryMu sync.Mutex // held while the summary is counted, so that it is counted once
	summaries map[viewer]counted
}

// New returns the handler of the whole HTTP side. It fails when something in o
// is missing.
func New(o Options) (http.Handler, error) {
	s, err := newServer(o)
	if err != nil {
		return nil, err
	}
	return s.guard(s.mux), nil
}

func newServer(o Options) (*server, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.TimeZone == "" {
		o.TimeZone = "Asia/Shanghai"
	}
	s := &server{Options: o, log: o.Logger, mux: http.NewServeMux(), origins: http.NewCrossOriginProtection(), paces: newPaces(), summaries: map[viewer]counted{}, started: time.Now().UTC().Truncate(time.Second)}
	s.claims.users, s.claims.devices = newLimiter(claimsOfUser), newLimiter(claimsOfDevice)
	var err error
	if s.zone, err = time.LoadLocation(o.TimeZone); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	s.api = humago.New(s.mux, huma.Config{
		OpenAPI: &huma.OpenAPI{
			Info: &huma.Info{
				Title: "citywarden", Version: o.Version,
				Description: "Sensing platform of a county or city: devices, readings, alarms, cases.",
				License:     &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			},
			Components: &huma.Components{
				Schemas: newRegistry(),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"bearer": {Type: "http", Scheme: "bearer", Description: "Token of POST /api/v1/login, or of a service"},
					"cookie": {Type: "apiKey", In: "cookie", Name: cookieName, Description: "Set by POST /api/v1/login"},
				},
			},
		},
		OpenAPIPath:                  "/api/openapi",
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{transform},
	})
	s.signInRoutes()
	s.userRoutes()
	s.deviceRoutes()
	s.commandRoutes()
	s.firmwareRoutes()
	s.messageRoutes()
	s.siteRoutes()
	s.provisioningRoutes()
	s.uplinkRoutes()
	s.alarmRoutes()
	s.serviceRoutes()
	s.capRoutes()
	s.caseRoutes()
	s.evaluationRoutes()
	s.attachmentRoutes()
	s.reportRoutes()
	s.apiKeyRoutes()
	s.ruleRoutes()
	s.labRoutes()
	s.ledgerRoutes()
	s.backupRoutes()
	s.placeRoutes()
	s.gridRoutes()
	s.responsibilityRoutes()
	s.componentRoutes()
	s.infoRoutes()
	s.seriesRoutes()
	s.eventRoutes()
	s.plainRoutes()
	// huma describes its own errors; what is sent are ours, see transform.
	schemas := s.api.OpenAPI().Components.Schemas.Map()
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
	neverNull(schemas)
	return s, nil
}

func (o *Options) check() error {
	v := reflect.ValueOf(o).Elem()
	for _, name := range []string{"Devices", "Commands", "Provisioner", "Firmware", "Messages", "Sites", "Files", "Models", "Series", "Gaps", "Alarms", "Load", "Orders", "Cases", "Evaluations", "Attachments", "Photos", "Reports", "APIKeys", "Notices", "Classes", "Rules", "RuleFiles", "Lab", "Ledger", "Layers", "Grids", "Responsibility", "Components", "Accounts", "Audit", "Hub"} {
		if v.FieldByName(name).IsNil() {
			return fmt.Errorf("api: Options.%s is missing", name)
		}
	}
	return nil
}

// request is what is known of the request under way.
type request struct {
	id      string
	method  string
	path    string
	host    string // that the caller asked for, with the port if there is one
	address netip.Addr
	secure  bool // came by TLS
	user    citywarden.User
	session citywarden.Session
}

type requestKey struct{}

// requestOf returns the request of ctx; a zero one when there is none.
func requestOf(ctx context.Context) *request {
	if r, ok := ctx.Value(requestKey{}).(*request); ok {
		return r
	}
	return &request{}
}

// callerOf returns the person or program that is asking.
func callerOf(ctx context.Context) citywarden.User { return requestOf(ctx).user }

// guard is around everything: it knows the caller's address, sets the headers
// that browsers need to be careful, and answers when a handler panics.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		addr, secure := s.origin(r)
		req := &request{id: hex.EncodeToString([]byte(newSecret(4))), method: r.Method, path: r.URL.Path, host: r.Host, address: addr, secure: secure}
		r = r.WithContext(context.WithValue(r.Context(), requestKey{}, req))
		secureHeaders(w.Header(), r.URL.Path)
		w.Header().Set("X-Request-Id", req.id)
		rec := &recorder{ResponseWriter: w}
		defer func() {
			if v := recover(); v != nil {
				if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(v)
				}
				s.log.Error("request panicked", "request", req.id, "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
				if rec.status == 0 {
					s.writeProblem(rec, r, newProblem(http.StatusInternalServerError, citywarden.CodeInternal,
						"something inside the platform went wrong; its log says what, under request "+req.id))
				}
			}
			s.log.Debug("request", "request", req.id, "method", r.Method, "path", r.URL.Path, "status", rec.status, "user", req.user.Name, "took", time.Since(began))
		}()
		next.ServeHTTP(rec, r)
	})
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap returns the wrapped writer; http.ResponseController needs it.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// origin returns the address of the caller and whether it came by TLS. What
// proxies say is believed only from Proxies.
func (s *server) origin(r *http.Request) (netip.Addr, bool) {
	secure := r.TLS != nil
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, secure
	}
	addr := ap.Addr().Unmap()
	if !s.trusts(addr) {
		return addr, secure
	}
	if r.Header.Get("X-Forwarded-Proto") == "https" {
		secure = true
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		a, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		if addr = a.Unmap(); !s.trusts(addr) {
			break
		}
	}
	return addr, secure
}

func (s *server) trusts(a netip.Addr) bool {
	for _, p := range s.Proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// secureHeaders tells browsers to run and load nothing but our own files. The
// map draws in a worker that it makes from a blob; who reports or looks from a
// phone may send where they are.
func secureHeaders(h http.Header, path string) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(self), payment=(), usb=()")
	if strings.HasPrefix(path, "/api/") {
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		return
	}
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "+
		"font-src 'self'; connect-src 'self'; worker-src 'self' blob:; child-src blob:; manifest-src 'self'; "+
		"base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
}

// route is one operation of the API.
type route struct {
	method, path string
	id           string // of the operation; also what the audit log calls it
	summary      string
	tag          string
	may          citywarden.Permission // that the caller's role needs
	public       bool                  // needs no session
	secret       bool                  // its body stays out of the audit log
	status       int                   // of success; 0: 200, or 204 without a body
	maxBody      int64                 // bytes; 0: 1 MiB
	responses    map[string]*huma.Response
}

func (rt *route) writes() bool { return rt.method != http.MethodGet }

// claimer is an input that says who the caller claims to be, before the
// sign-in.
type claimer interface{ claim() string }

// handle adds an operation: its description, who may call it, the audit entry
// of a change, and the error's way out.
func handle[I, O any](s *server, rt route, h func(context.Context, *I) (*O, error)) {
	responses := rt.responses
	if responses == nil {
		responses = map[string]*huma.Response{}
	}
	problems := s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "")
	responses["default"] = &huma.Response{
		Description: "What went wrong",
		Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: problems}},
	}
	op := huma.Operation{
		OperationID: rt.id, Method: rt.method, Path: rt.path, Summary: rt.summary, Tags: []string{rt.tag},
		DefaultStatus: rt.status, MaxBodyBytes: rt.maxBody, Responses: responses,
		Middlewares: huma.Middlewares{s.enter(rt)},
	}
	if !rt.public {
		op.Security = []map[string][]string{{"bearer": {}}, {"cookie": {}}}
	}
	if rt.may != "" && rt.may != citywarden.MayRead {
		op.Description = "For roles that may " + string(rt.may) + "."
	}
	if rt.maxBody > 1<<20 {
		op.BodyReadTimeout = time.Minute
	}
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := audited(ctx, s, rt, in, h)
		if err != nil {
			return nil, huma.ErrorWithHeaders(s.problem(ctx, err), headersOf(err))
		}
		return out, nil
	})
}

// audited calls h, after it has written down that it will, when it changes
// something.
func audited[I, O any](ctx context.Context, s *server, rt route, in *I, h func(context.Context, *I) (*O, error)) (*O, error) {
	if !rt.writes() {
		return h(ctx, in)
	}
	e := entryOf(ctx, rt)
	if c, ok := any(in).(claimer); ok {
		e.User = c.claim()
	}
	if !rt.secret {
		e.Detail = bodyOf(in)
	}
	if rt.public {
		return attempt(ctx, s, e, in, h)
	}
	e.Before = s.stateOf(ctx, in)
	id, err := s.Audit.AppendAudit(ctx, e)
	if err != nil {
		return nil, err
	}
	out, err := h(ctx, in)
	status := statusAfter(rt.status, err)
	// What was done is done, even when the caller is gone by now.
	ctx = context.WithoutCancel(ctx)
	var after json.RawMessage
	if err == nil {
		if after = s.stateOf(ctx, in); after == nil {
			after = madeOf(out)
		}
	}
	if err := s.Audit.FinishAudit(ctx, id, status, after); err != nil {
		s.log.Error("audit entry not finished", "entry", id, "status", status, "err", err)
	}
	return out, err
}

// subject is an input that names the thing that is changed; state returns it, or
// an error when there is none, for the audit.
type subject interface {
	state(context.Context, *server) (any, error)
}

// stateOf returns what in is about, as it is now; nil when that is nothing.
func (s *server) stateOf(ctx context.Context, in any) json.RawMessage {
	x, ok := in.(subject)
	if !ok {
		return nil
	}
	v, err := x.state(ctx, s)
	if err != nil {
		return nil
	}
	return rawOf(v)
}

// madeOf returns what an answer says was made, when that holds no secret.
func madeOf(out any) json.RawMessage {
	switch o := out.(type) {
	case *created[citywarden.Case]:
		c := o.Body
		c.Timeline, c.Actions = nil, nil
		return rawOf(c)
	case *created[citywarden.DeviceView]:
		return rawOf(o.Body.Device)
	case *created[citywarden.User]:
		return rawOf(o.Body)
	case *created[citywarden.Firmware]:
		return rawOf(o.Body)
	}
	return nil
}

func rawOf(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return b
}

// attempt calls h for somebody who is not known yet, and writes down what came
// of it; not when h refused to look, because strangers could fill the disk so.
func attempt[I, O any](ctx context.Context, s *server, e citywarden.AuditEntry, in *I, h func(context.Context, *I) (*O, error)) (*O, error) {
	out, err := h(ctx, in)
	var wait *waitError
	if errors.As(err, &wait) {
		return nil, err
	}
	e.Status = statusAfter(http.StatusOK, err)
	if _, aerr := s.Audit.AppendAudit(context.WithoutCancel(ctx), e); aerr != nil {
		return nil, aerr
	}
	return out, err
}

// statusAfter returns the HTTP status of the answer to a call that ended with err.
func statusAfter(success int, err error) int {
	var wait *waitError
	switch {
	case errors.As(err, &wait):
		return wait.status
	case err != nil:
		return statusOf(citywarden.CodeOf(err))
	case success == 0:
		return http.StatusOK
	}
	return success
}

func entryOf(ctx context.Context, rt route) citywarden.AuditEntry {
	req := requestOf(ctx)
	return citywarden.AuditEntry{
		At: time.Now().UTC(), User: req.user.Name, Role: req.user.Role, Address: req.address.String(), Action: rt.id, Target: req.path,
	}
}

const maxAuditDetail = 2000

// bodyOf returns the decoded body of an input as JSON, cut at 2000 bytes.
func bodyOf(in any) string {
	body := reflect.ValueOf(in).Elem().FieldByName("Body")
	if !body.IsValid() || body.Kind() == reflect.Pointer && body.IsNil() {
		return ""
	}
	b, err := json.Marshal(body.Interface())
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(string(b[:min(len(b), maxAuditDetail)]), "")
}

// enter lets in who may call the operation.
func (s *server) enter(rt route) func(huma.Context, func(huma.Context)) {
	return func(hc huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(hc)
		if err := s.admit(rt, r); err != nil {
			s.writeProblem(w, r, err)
			return
		}
		if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/") { // huma bounds other bodies only
			r.Body = http.MaxBytesReader(w, r.Body, max(rt.maxBody, 1<<20))
		}
		next(plainStatus{hc})
		if r.MultipartForm != nil {
			if err := r.MultipartForm.RemoveAll(); err != nil {
				s.log.Error("files of a form not deleted", "err", err)
			}
		}
	}
}

func (s *server) admit(rt route, r *http.Request) error {
	ctx := r.Context()
	req := requestOf(ctx)
	token, cookie, err := credential(r)
	if err != nil {
		return err
	}
	if rt.writes() && (cookie || rt.public) {
		// A page of another site may make a browser send the cookie (CSRF) or
		// sign it in as somebody else.
		if err := s.origins.Check(r); err != nil {
			return citywarden.Errorf(citywarden.CodeDenied, "a page of another site may not do this")
		}
	}
	if token != "" {
		session, user, err := s.Accounts.Authenticate(ctx, token)
		switch {
		case err == nil:
			req.session, req.user = session, user
		case !rt.public:
			return err
		}
	}
	if rt.public {
		return nil
	}
	if token == "" {
		return citywarden.Errorf(citywarden.CodeUnauthenticated, "sign in first: POST /api/v1/login, then send Authorization: Bearer TOKEN")
	}
	if rt.may == "" {
		return nil
	}
	err = req.user.Role.May(rt.may)
	if err != nil && rt.writes() {
		e := entryOf(ctx, rt)
		e.Status = http.StatusForbidden
		if _, aerr := s.Audit.AppendAudit(ctx, e); aerr != nil {
			return aerr
		}
	}
	return err
}

const cookieName = "citywarden_session"

// credential returns the token of a request, "" for none, and whether it came
// as a cookie.
func credential(r *http.Request) (token string, cookie bool, err error) {
	if h := r.Header.Get("Authorization"); h != "" {
		scheme, token, _ := strings.Cut(h, " ")
		if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "Bearer") || token == "" {
			return "", false, citywarden.Errorf(citywarden.CodeUnauthenticated, "the Authorization header must read: Bearer TOKEN")
		}
		return token, false, nil
	}
	if c, err := r.Cookie(cookieName); err == nil && c.Value != "" {
		return c.Value, true, nil
	}
	return "", false, nil
}

// plainRoutes adds what is not part of the described API.
func (s *server) plainRoutes() {
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeStatus(w, "ok") })
	s.mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if s.Ready != nil {
			if err := s.Ready(); err != nil {
				s.writeProblem(w, r, citywarden.Errorf(citywarden.CodeTransient, "not ready: %w", err))
				return
			}
		}
		writeStatus(w, "ready")
	})
	if s.Metrics != nil {
		s.mux.Handle("GET /metrics", s.Metrics)
	}
	s.mux.HandleFunc("/open311/", s.open311)
	s.mux.HandleFunc("/api/", s.unknown)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if s.Console == nil || r.Method != http.MethodGet && r.Method != http.MethodHead {
			s.unknown(w, r)
			return
		}
		s.Console.ServeHTTP(w, r)
	})
}

func writeStatus(w http.ResponseWriter, status string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	fmt.Fprintf(w, "{\"status\":%q}\n", status)
}

// unknown answers for paths and methods that the API doesn't have.
func (s *server) unknown(w http.ResponseWriter, r *http.Request) {
	var allow []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		other := &http.Request{Method: m, URL: r.URL, Host: r.Host}
		if _, pattern := s.mux.Handler(other); strings.Contains(pattern, " /api/") {
			allow = append(allow, m)
		}
	}
	if len(allow) == 0 {
		what := fmt.Sprintf("there is nothing at %s; ", r.URL.Path)
		if path, ok := strings.CutPrefix(r.URL.Path, "/api/v1/"); ok && strings.Count(path, "/") == 1 { // as of a device, which broker/http takes
			what = fmt.Sprintf("there is nothing to %s at %s; devices POST to /api/v1/{token}/telemetry, attributes, raw, claim or rpc; ", r.Method, r.URL.Path)
		}
		s.writeProblem(w, r, citywarden.Errorf(citywarden.CodeNotFound, "%s/api/openapi.json says what there is", what))
		return
	}
	w.Header().Set("Allow", strings.Join(allow, ", "))
	p := newProblem(http.StatusMethodNotAllowed, citywarden.CodeInvalid,
		fmt.Sprintf("%s can't be done to %s; it takes %s", r.Method, r.URL.Path, strings.Join(allow, ", ")))
	s.writeProblem(w, r, p)
}
