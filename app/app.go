// Package app joins the parts of the platform into one running whole: it opens
// them from the case to the socket, runs them, and stops them from the socket
// to the case. It can be embedded:
//
//	a, err := app.Open(ctx, app.Default(), app.Options{Logger: log})
//	if err != nil { … }
//	fmt.Println("console on", a.HTTPAddr())
//	err = a.Run(ctx) // until ctx is done
package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker/coap"
	devicehttp "github.com/citywarden/citywarden/broker/http"
	"github.com/citywarden/citywarden/broker/mqtt"
	"github.com/citywarden/citywarden/broker/uplink"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/dashboards/api"
	"github.com/citywarden/citywarden/dashboards/console"
	"github.com/citywarden/citywarden/devices"
	"github.com/citywarden/citywarden/ingest"
	"github.com/citywarden/citywarden/ingest/influx"
	"github.com/citywarden/citywarden/ingest/journal"
	"github.com/citywarden/citywarden/ingest/trace"
	"github.com/citywarden/citywarden/photos"
	"github.com/citywarden/citywarden/rules"
	"github.com/citywarden/citywarden/store"
)

// Options are what the surroundings give to an App.
type Options struct {
	Logger        *slog.Logger // nil: nothing is logged
	Version       string
	AdminPassword string           // of the first admin; "" generates one, see App.AdminPassword
	ReloadRules   <-chan os.Signal // each signal has the rule files read again at once; nil: only when they change
	Listeners     Listeners
}

// Listeners are sockets that the surroundings have opened, like those that a
// service manager hands over, or ones in memory. One that is set is used instead
// of the address in the Config; nil opens the address. Open takes them over: the
// App closes them, also when Open fails.
type Listeners struct {
	HTTP net.Listener // for people and programs
	MQTT net.Listener // for devices
	CoAP CoAPConn     // for devices
}

// CoAPConn is a UDP socket for CoAP; *net.UDPConn is one.
type CoAPConn interface {
	coap.Conn
	LocalAddr() net.Addr
}

// App is the whole platform, opened.
type App struct {
	config  Config
	log     *slog.Logger
	parts   []part
	closers []func() error          // in the order of opening
	tcp     map[string]net.Listener // by their keys in the config
	coap    CoAPConn
	dtls    CoAPConn // the one for DTLS
	metrics *prometheus.Registry
	admin   string // password to print, "" when one was set before
	posts   string // password of the demo's posts, "" without the demo
}

// HTTPAddr is where console and API listen; nil when they don't.
func (a *App) HTTPAddr() net.Addr { return a.Addr("http.addr") }

// MQTTAddr is where MQTT listens; nil when it doesn't.
func (a *App) MQTTAddr() net.Addr { return a.Addr("mqtt.addr") }

// CoAPAddr is where CoAP listens; nil when it doesn't.
func (a *App) CoAPAddr() net.Addr { return a.Addr("coap.addr") }

// Addr is where the listener with that key in the config is, like "mqtt.tls";
// nil when it is not.
func (a *App) Addr(key string) net.Addr {
	if l := a.tcp[key]; l != nil {
		return l.Addr()
	}
	switch {
	case key == "coap.addr" && a.coap != nil:
		return a.coap.LocalAddr()
	case key == "coap.dtls" && a.dtls != nil:
		return a.dtls.LocalAddr()
	}
	return nil
}

// AdminPassword is the password of the user admin when this start made or
// knows it: at the first start without one given, and always in the demo.
func (a *App) AdminPassword() string { return a.admin }

// PostsPassword is the password of the posts of the demo; "" without the demo.
func (a *App) PostsPassword() string { return a.posts }

// Open opens every part that c asks for. Its errors say which part could not be
// opened, and what to do. The caller closes the App by Run, or by Close when it
// never runs.
func Open(ctx context.Context, c Config, o Options) (_ *App, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	a := &App{config: c, log: o.Logger, tcp: map[string]net.Listener{}, coap: o.Listeners.CoAP}
	for key, l := range map[string]net.Listener{"http.addr": o.Listeners.HTTP, "mqtt.addr": o.Listeners.MQTT} {
		if l != nil {
			a.tcp[key] = l
			a.closers = append(a.closers, closeOnce(l.Close))
		}
	}
	if a.coap != nil {
		a.closers = append(a.closers, closeOnce(a.coap.Close))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if err := c.Check(); err != nil {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "%w", err)
	}
	b := &building{App: a, options: o}
	for _, step := range []func(context.Context) error{
		b.folder, b.listen, b.certificates, b.tracer, b.state, b.registry, b.desk, b.ruleEngine, b.pipeline, b.serveHTTP, b.serveDevices, b.demo,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// Run runs the platform until ctx is done, then stops and closes it.
func (a *App) Run(ctx context.Context) error {
	err := runAll(ctx, a.parts)
	return errors.Join(err, a.Close())
}

// Close closes what Open opened, the last first. It does nothing the second time.
func (a *App) Close() error {
	var errs []error
	for _, c := range slices.Backward(a.closers) {
		errs = append(errs, c())
	}
	a.closers = nil
	return errors.Join(errs...)
}

// building holds what the steps of Open hand to each other.
type building struct {
	*App
	options  Options
	location *time.Location
	tls      *certificate // nil when no listener speaks TLS
	hub      *api.Hub
	db       *store.DB
	people   *api.Accounts
	journal  *journal.Journal
	space    *journal.Space
	core     *influx.Core // nil when the series are in an InfluxDB of its own
	series   *influx.Series
	rollups  *ingest.Rollups
	models   *devices.Models
	devices  *devices.Registry
	commands *devices.Commands
	enroll   *devices.Provisioner
	firmware *devices.Firmware
	grids    *cases.Grids
	officers *cases.Responsibility
	classes  *cases.Classes
	calendar *cases.Calendar
	cases    *cases.Desk
	photos   *photos.Dir
	rules    *ruleFiles
	engine   *rules.Runner
	lab      *rules.Lab
	ledger   *ingest.Ledger
	trace    *trace.Tracer // nil when no message is followed
	ingest   *ingest.Pipeline
	uplinks  *uplink.Uplinks // nil without any

	components *cases.Components

	demoState *demoState // nil unless this is the demo
}

func (b *building) folder(context.Context) error {
	var err error
	if b.location, err = time.LoadLocation(b.config.TimeZone); err != nil {
		return err
	}
	if err := os.MkdirAll(b.config.Data, 0o700); err != nil {
		return fmt.Errorf("data folder: %w; choose another with --data", err)
	}
	unlock, err := lockFolder(b.config.Data)
	if err != nil {
		return err
	}
	b.closers = append(b.closers, unlock)
	if _, err := os.Stat(b.path(restoring)); err == nil {
		return citywarden.Errorf(citywarden.CodeConflict, "a restore into %s has not come to its end; wait for it, or remove the folder and restore again", b.config.Data)
	}
	if err := b.removeCopies(); err != nil {
		return err
	}
	if b.config.Demo {
		if b.demoState, err = openDemo(b.config.Data, b.options.AdminPassword != ""); err != nil {
			return err
		}
	}
	b.metrics = prometheus.NewRegistry()
	live := collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/gc/heap/live:bytes$`)})
	b.metrics.MustRegister(collectors.NewGoCollector(live), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	b.hub = api.NewHub(b.component("events"))
	return nil
}

// removeCopies removes what backups left when the process was killed.
func (b *building) removeCopies() error {
	list, err := os.ReadDir(b.config.Data)
	for _, e := range list {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), copies) {
			continue
		}
		dir := b.path(e.Name())
		b.log.Info("removing what is left of a backup that was cut off", "folder", dir)
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// listen takes the addresses before anything is changed on disk, so that a port
// in use is found at once.
func (b *building) listen(ctx context.Context) error {
	var lc net.ListenConfig
	for _, a := range b.config.addresses() {
		if *a.addr == "" || b.Addr(a.key) != nil {
			continue
		}
		var err error
		var l io.Closer
		if to, ok := map[string]*CoAPConn{"coap.addr": &b.coap, "coap.dtls": &b.dtls}[a.key]; ok {
			var udp net.PacketConn
			if udp, err = lc.ListenPacket(ctx, "udp", *a.addr); err == nil {
				*to, l = udp.(*net.UDPConn), udp
			}
		} else {
			var tcp net.Listener
			if tcp, err = lc.Listen(ctx, "tcp", *a.addr); err == nil {
				b.tcp[a.key], l = tcp, tcp
			}
		}
		if err != nil {
			return citywarden.Errorf(citywarden.CodeInternal,
				"%s: %w; stop the program that uses %s, or choose another address with --%s or %s in the config", a.key, err, *a.addr, a.flag, a.key)
		}
		b.closers = append(b.closers, closeOnce(l.Close))
	}
	return nil
}

// certificates reads the certificate when a listener shows it; that of DTLS does when there is one.
func (b *building) certificates(context.Context) error {
	if !slices.ContainsFunc(b.config.addresses(), func(a address) bool { return a.tls && *a.addr != "" }) && (b.dtls == nil || b.config.TLS.Cert == "") {
		return nil
	}
	var err error
	if b.tls, err = openCertificate(b.config.TLS, b.component("tls")); err != nil {
		return err
	}
	b.parts = append(b.parts, part{"tls", b.tls.Run})
	return nil
}

// closeOnce makes a second Close of a socket, which its server has closed
// already, no error.
func closeOnce(f func() error) func() error {
	return func() error {
		if err := f(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

func (b *building) path(name ...string) string {
	return filepath.Join(append([]string{b.config.Data}, name...)...)
}

func (b *building) component(name string) *slog.Logger { return b.log.With("component", name) }

// tracer opens the way to the collector of traces, before anything that has to tell it something.
func (b *building) tracer(ctx context.Context) error {
	c := b.config.Traces
	if c.URL == "" {
		return nil
	}
	var err error
	if b.trace, err = trace.New(ctx, trace.Options{
		URL: c.URL, Ratio: c.Ratio, Service: c.Service, Version: b.options.Version, Logger: b.component("traces"),
	}); err != nil {
		return err
	}
	b.closers = append(b.closers, b.trace.Close)
	return nil
}

// state opens what keeps: the database, the log and the series.
func (b *building) state(ctx context.Context) error {
	var err error
	if b.db, err = store.Open(ctx, orDefault(b.config.SQL.URL, b.path(dbFile))); err != nil {
		return err
	}
	b.closers = append(b.closers, b.db.Close)
	b.journal, err = journal.Open(ctx, journal.Options{
		Dir: b.path(logDir), URL: b.config.Log.URL, Logger: b.component("log"),
		MaxAge: b.config.Log.MaxAge.Std(), MaxBytes: b.config.Log.MaxBytes,
	})
	if err != nil {
		return err
	}
	b.closers = append(b.closers, b.journal.Close)
	b.space, err = journal.NewSpace(journal.SpaceOptions{
		Dir: b.config.Data, Reserve: b.config.Log.Reserve, Logger: b.component("disk"), Metrics: b.metrics,
	})
	if err != nil {
		return err
	}
	s := b.config.Series
	o := influx.Options{
		URL: s.URL, Database: s.Database, Org: s.Org, Token: s.Token, Username: s.User, Password: s.Password,
		Retention: s.Retention.Std(), Rollups: s.kept(), MaxSeries: s.MaxSeries, Cursors: b.db, Refusals: b.db, Logger: b.component("series"), Metrics: b.metrics,
	}
	if s.URL == "" {
		if b.core, err = influx.OpenCore(b.path(seriesDir)); err != nil {
			return err
		}
		b.closers = append(b.closers, b.core.Close)
		o.Transport = b.core.Transport()
	}
	if b.series, err = influx.New(o); err != nil {
		return err
	}
	b.closers = append(b.closers, b.series.Close)
	b.parts = append(b.parts, part{"log", b.journal.Run}, part{"disk", b.space.Run})
	return nil
}

func (b *building) registry(ctx context.Context) error {
	if err := os.MkdirAll(b.config.modelsDir(), 0o700); err != nil {
		return fmt.Errorf("models folder: %w", err)
	}
	var err error
	if b.models, err = devices.LoadModels(devices.Builtin(), os.DirFS(b.config.modelsDir())); err != nil {
		return citywarden.Errorf(citywarden.CodeInvalid, "device models in %s:\n%w", b.config.modelsDir(), err)
	}
	if b.grids, err = cases.LoadGrids(ctx, b.db); err != nil {
		return err
	}
	b.people = api.NewAccounts(b.db)
	if b.officers, err = cases.LoadResponsibility(ctx, b.db, b.grids, b.people.Officer); err != nil {
		return err
	}
	if b.classes, err = b.config.Cases.classes(); err != nil {
		return err
	}
	if b.components, err = cases.LoadComponents(ctx, b.db, b.classes, b.grids); err != nil {
		return err
	}
	seal, err := openSeal(orDefault(b.config.SecretKey, b.path(sealFile)), func() (bool, error) { return b.db.HasSealed(ctx) }, b.component("devices"))
	if err != nil {
		return err
	}
	b.devices, err = devices.New(ctx, b.db, b.models, devices.Options{
		Seal: seal, Grid: b.grids.At, Component: b.componentAt, Publish: b.hub.Publish, OnChange: b.deviceChanged, Ready: b.journal.Ready, Logger: b.component("devices"),
	})
	if err != nil {
		return err
	}
	b.metrics.MustRegister(b.devices.Clocks())
	if b.firmware, err = devices.NewFirmware(ctx, b.db, b.devices); err != nil {
		return err
	}
	b.commands, err = devices.NewCommands(ctx, b.db, b.devices, b.component("commands"))
	if err != nil {
		return err
	}
	b.enroll, err = devices.NewProvisioner(ctx, b.db, b.devices, b.component("provisioning"))
	b.parts = append(b.parts, part{"commands", func(ctx context.Context) error { return b.commands.Run(ctx) }})
	return err
}

func (b *building) desk(ctx context.Context) error {
	var err error
	if err := b.classes.Keep(ctx, b.db); err != nil {
		return err
	}
	if b.calendar, err = b.config.Cases.calendar(b.location); err != nil {
		return err
	}
	limits, err := b.config.Cases.stageLimits()
	if err != nil {
		return err
	}
	overdue, err := b.config.Cases.overdue(b.config.Notices.names())
	if err != nil {
		return err
	}
	measures, err := b.config.Cases.measures()
	if err != nil {
		return err
	}
	if b.photos, err = photos.Open(b.path(photosDir)); err != nil {
		return err
	}
	receivers, err := b.config.Notices.receivers(b.location)
	if err != nil {
		return err
	}
	b.cases, err = cases.New(b.db, cases.Options{
		Classes: b.classes, Calendar: b.calendar, Grids: b.grids, Notify: receivers,
		Where: b.where, Attached: b.attached, Components: b.components, Officers: b.officers.Officer, Publish: b.hub.Publish, Logger: b.component("cases"),
		Limits: limits, Overdue: overdue, Near: b.config.Cases.Near, Within: b.config.Cases.Within.Std(), Photos: b.config.Cases.Photos,
		Measures: measures, Operators: b.config.Operators, Metrics: b.metrics,
	})
	b.parts = append(b.parts, part{"cases", b.runCases})
	return err
}

// catchUpLimit is how long deadlines of cases wait for the log after a start.
const catchUpLimit = time.Minute

// runCases runs the desk when what was logged before the start is with it: what
// explains an alarm, or acknowledges it, may be there.
func (b *building) runCases(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, catchUpLimit)
	defer cancel()
	if err := b.ingest.Wait(wait, b.engine.Name(), b.journal.Last()); err != nil && ctx.Err() == nil {
		b.component("cases").Warn("deadlines and notices of cases go on before the log is read", "err", err)
	}
	return b.cases.Run(ctx)
}

// deviceChanged tells the rule engine, and who keeps commands, of a device that was
// created, changed or deleted; at the start, while the registry is filled, there is no engine yet.
func (b *building) deviceChanged(d citywarden.Device, deleted bool) {
	if deleted {
		b.commands.Forget(d.ID)
	}
	if b.engine != nil {
		b.engine.DeviceChanged(d, deleted)
	}
}

// where returns the position of a device.
func (b *building) where(id citywarden.DeviceID) (citywarden.Point, bool) {
	d, _, err := b.devices.Device(id)
	if err != nil || d.Location == nil {
		return citywarden.Point{}, false
	}
	return *d.Location, true
}

// attached returns the component that a device is attached to, "" for none.
func (b *building) attached(id citywarden.DeviceID) citywarden.ComponentID {
	d, _, err := b.devices.Device(id)
	if err != nil {
		return ""
	}
	return d.Component
}

// componentAt returns where a component is.
func (b *building) componentAt(id citywarden.ComponentID) (citywarden.Point, error) {
	x, err := b.components.Component(id)
	return x.Location, err
}

// accounts makes the first admin, and the posts of the demo.
func (b *building) accounts(ctx context.Context) error {
	password := b.options.AdminPassword
	if b.demoState != nil && password == "" {
		password = b.demoState.password()
	}
	made, err := b.people.EnsureAdmin(ctx, password)
	if err != nil {
		return err
	}
	b.admin = made
	if b.demoState == nil {
		return nil
	}
	b.posts = b.demoState.password()
	if !b.demoState.OwnPassword {
		b.admin = b.posts
	}
	return b.seedUsers(ctx)
}

func (b *building) serveHTTP(ctx context.Context) error {
	if err := b.accounts(ctx); err != nil {
		return err
	}
	plain, secured := b.tcp["http.addr"], b.tcp["http.tls"]
	if plain == nil && secured == nil {
		return nil
	}
	mqttAddr := ""
	if a := b.MQTTAddr(); a != nil {
		mqttAddr = a.String()
	}
	proxies, err := b.config.HTTP.proxies()
	if err != nil {
		return err
	}
	handler, err := api.New(api.Options{
		Devices: alarmed{b.devices, b.cases}, Commands: b.commands, Provisioner: b.enroll, Firmware: b.firmware, Sites: b.devices, Files: deviceFiles{b.devices}, Models: b.models, Series: b.rollups, Gaps: b.ledger,
		Alarms: b.cases, Load: b.cases, Orders: b.ingest, Service: b.engine, Messages: b.ingest, Cases: b.cases, Evaluations: b.cases, Notices: b.cases, Classes: b.classes, Rules: b.engine, RuleFiles: b.rules, Lab: b.lab, Ledger: b.books(),
		Attachments: b.cases, Photos: b.photos, Reports: b.cases, Citizens: b.config.Reports.Citizens || b.config.Demo, APIKeys: b.db, Open311: api.Open311(b.config.Open311), CAPSender: b.config.CAP.Sender,
		Layers: &layers{dir: b.path("map"), grids: b.grids}, Grids: countyGrids{b.grids, b.devices, b.components}, Responsibility: b.officers, Components: b.components, Accounts: b.people, Audit: b.db, Hub: b.hub,
		Console: console.Handler(), Backup: b.backup, Metrics: promhttp.HandlerFor(b.metrics, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, ErrorLog: slog.NewLogLogger(b.component("metrics").Handler(), slog.LevelError)}), Ready: b.ready, Trouble: b.trouble, Links: b.links,
		Version: b.options.Version, Proxies: proxies, TimeZone: b.config.TimeZone, Demo: b.config.Demo, MQTT: mqttAddr, Logger: b.component("api"),
	})
	if err != nil {
		return err
	}
	handler = devicehttp.New(devicehttp.Options{
		Provision: b.enroll.Provision, Announce: b.devices.Announce, Accept: b.ingest, Check: b.ingest, Auth: b.devices, Down: b.downlinks(), Firmware: b.firmware, Limits: b.ingest, Next: handler, Logger: b.component("http"),
	})
	b.parts = append(b.parts, part{"http", func(ctx context.Context) error { return b.serve(ctx, handler, plain, secured) }})
	return nil
}

// serve serves h on both listeners, of which one may be nil, until ctx is done:
// open event streams end at once, other requests get two seconds.
func (b *building) serve(ctx context.Context, h http.Handler, plain, secured net.Listener) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(b.log.Handler(), slog.LevelDebug),
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	failed := make(chan error, 2)
	if secured != nil {
		s.TLSConfig = b.tls.forWeb()
	}
	if plain != nil {
		serving.Go(func() { failed <- s.Serve(plain) })
	}
	if secured != nil {
		serving.Go(func() { failed <- s.ServeTLS(secured, "", "") })
	}
	select {
	case err := <-failed:
		return errors.Join(err, s.Close())
	case <-ctx.Done():
	}
	b.hub.Close()
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	err := s.Shutdown(sctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.Close()
	}
	return err
}

// disabled reports whether the messages of a device are refused.
func (b *building) disabled(id citywarden.DeviceID) bool {
	d, _, err := b.devices.Device(id)
	return err == nil && d.Disabled
}

// ready returns nil when messages can be taken. An InfluxDB that is away delays
// only the series: who asks here must not keep the devices out for it.
func (b *building) ready() error {
	if err := b.space.Full(); err != nil {
		return err
	}
	if err := b.journal.Ready(); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	return nil
}

// links returns how the connections to brokers elsewhere are.
func (b *building) links() []citywarden.Link {
	if b.uplinks == nil {
		return []citywarden.Link{}
	}
	return b.uplinks.Links()
}

// seriesAway is for how long the time series can't be written until people are told.
const seriesAway = 30 * time.Second

// trouble is what people are told while ready returns an error, or the time series can't be written for seriesAway.
func (b *building) trouble() citywarden.Text {
	switch {
	case b.space.Full() != nil:
		return citywarden.Text{
			ZH: "磁盘空间不足：暂不确认设备消息，设备会保留并重发；腾出空间后自动恢复。",
			EN: "The disk is nearly full: messages of devices are not acknowledged, and devices send them again later. It goes on by itself when there is room.",
		}
	case b.journal.Ready() != nil:
		return citywarden.Text{
			ZH: "持久日志无法写入：暂不确认设备消息，设备会保留并重发。",
			EN: "The durable log can't be written: messages of devices are not acknowledged, and devices send them again later.",
		}
	}
	if since := b.ingest.Failing(b.series.Name()); !since.IsZero() && time.Since(since) >= seriesAway {
		return citywarden.Text{
			ZH: "时序库无法写入：曲线和报表暂缺最近的数据。设备消息照常确认，告警不受影响，恢复后自动补写。",
			EN: "The time series can't be written: charts and reports lack the newest readings. Messages are acknowledged and alarms raised as ever, and what is missing is written once it can be.",
		}
	}
	return citywarden.Text{}
}

func (b *building) serveDevices(context.Context) error {
	var listeners []mqtt.Listener
	for _, l := range []struct {
		key                string
		secured, webSocket bool
	}{{"mqtt.addr", false, false}, {"mqtt.tls", true, false}, {"mqtt.ws", false, true}, {"mqtt.wss", true, true}} {
		from := mqtt.Listener{Listener: b.tcp[l.key], WebSocket: l.webSocket}
		if from.Listener == nil {
			continue
		}
		if l.secured {
			from.TLS = b.tls.forDevices()
		}
		listeners = append(listeners, from)
	}
	if len(listeners) > 0 {
		m, err := mqtt.New(mqtt.Options{Listeners: listeners, Certified: b.tls.certified, Provision: b.enroll, Claims: b.devices, Accept: b.ingest, Check: b.ingest, Auth: b.devices, Down: b.downlinks(), Firmware: b.firmware, Limits: b.ingest, Logger: b.component("mqtt"), Metrics: b.metrics})
		if err != nil {
			return err
		}
		b.parts = append(b.parts, part{"mqtt", m.Run})
	}
	if err := b.serveCoAP(); err != nil {
		return err
	}
	if len(b.config.Uplinks) > 0 {
		brokers, err := b.config.brokers()
		if err != nil {
			return err
		}
		u, err := uplink.New(uplink.Options{Brokers: brokers, Accept: b.ingest, Barred: b.disabled, Logger: b.component("uplink"), Metrics: b.metrics})
		if err != nil {
			return err
		}
		b.uplinks = u
		b.parts = append(b.parts, part{"uplinks", u.Run})
	}
	return nil
}

func (b *building) serveCoAP() error {
	o := coap.Options{Keys: b.devices, Certified: b.tls.certified, Provision: b.enroll.Provision, Announce: b.devices.Announce, Accept: b.ingest, Check: b.ingest, Auth: b.devices, Down: b.downlinks(), Firmware: b.firmware, Limits: b.ingest, Models: b.devices, Logger: b.component("coap"), Metrics: b.metrics}
	if b.coap != nil {
		o.Conn = b.coap
	}
	if b.dtls != nil {
		o.DTLS = &coap.DTLS{Conn: b.dtls}
		if b.tls != nil {
			o.DTLS.Certificate = func() *tls.Certificate { return b.tls.now.Load().pair }
		}
	}
	if l := b.tcp["coap.tcp"]; l != nil {
		o.Streams = append(o.Streams, coap.Stream{Listener: l})
	}
	if l := b.tcp["coap.tls"]; l != nil {
		c := b.tls.forDevices()
		c.NextProtos = []string{"coap"} // RFC 8323 §8.2
		o.Streams = append(o.Streams, coap.Stream{Listener: l, TLS: c})
	}
	if o.Conn == nil && o.DTLS == nil && len(o.Streams) == 0 {
		return nil
	}
	s, err := coap.New(o)
	if err != nil {
		return err
	}
	b.parts = append(b.parts, part{"coap", s.Run})
	return nil
}

func (b *building) ruleEngine(ctx context.Context) error {
	dir := b.config.rulesDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("rules folder: %w", err)
	}
	if b.config.Demo {
		if err := seedRules(dir); err != nil {
			return err
		}
	}
	var err error
	if b.rules, err = newRuleFiles(dir, b.models, b.classes, b.config.Notices.names(), b.db, b.metrics, b.component("rules")); err != nil {
		return err
	}
	set, err := b.rules.load()
	if err != nil {
		return err
	}
	engine := rules.New(set, rules.Options{Devices: b.devices, Holiday: b.calendar.Holiday})
	var desk rules.Desk = b.cases
	if b.trace != nil {
		desk = tracedDesk{b.cases, b.trace}
	}
	b.engine = rules.NewRunner(engine, desk, b.db, rules.RunnerOptions{Tick: b, History: b.history(), Past: b.history().History, Logger: b.component("rules")})
	b.rules.engine, b.rules.asked = b.engine, b.options.ReloadRules
	return nil
}

// Tick appends the passing of time to the log; the rule engine asks for it when
// a deadline is due.
func (b *building) Tick(ctx context.Context) error { return b.ingest.Tick(ctx) }

func (b *building) pipeline(context.Context) error {
	o := ingest.Options{
		Log: b.journal, Directory: b.devices, Trim: b.journal.Trim, Full: b.space.Full, Doing: b.journal.Doing, Logger: b.component("ingest"), Metrics: b.metrics,
	}
	if b.trace != nil {
		o.Trace = b.trace
	}
	var err error
	b.ingest, err = ingest.New(o)
	if err != nil {
		return err
	}
	b.ledger = ingest.NewLedger(b.db, b.config.Log.Ledger.Std(), b.component("ledger"))
	b.rollups = ingest.NewRollups(ingest.RollupOptions{
		Store: b.series, Series: b.series, Cursors: b.db, Directory: b.devices, Domains: b.domains(), Logger: b.component("rollups"),
	})
	for _, c := range []ingest.Consumer{b.devices, b.ledger, b.series, b.rollups, b.engine} {
		b.ingest.Attach(c)
	}
	b.lab = rules.NewLab(b.engine, b.history(), b.cases, b.classes.Check, b.location)
	// Before any message: what lies between the last record and this one, the
	// platform did not hear. It waits in the queue until the log runs.
	b.journal.Append(citywarden.Record{Kind: citywarden.RecordStart}, func(_ citywarden.Position, err error) {
		if err != nil {
			b.component("log").Warn("start not logged; backtests can't tell this outage from silence", "err", err)
		}
	})
	b.parts = append(b.parts, part{"devices", b.devices.Run}, part{"ledger", b.ledger.Run}, part{"rollups", b.rollups.Run},
		part{"rules", b.engine.Run}, part{"ingest", b.ingest.Run}, part{"rule files", b.rules.Run})
	return nil
}
