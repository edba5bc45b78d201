package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker/mqtt"
	"github.com/citywarden/citywarden/ingest"
	"github.com/citywarden/citywarden/ingest/journal"
)

// The programs below are what the platform's way to the acknowledgement is compared with;
// they print the address at which they listen and run until they are told to end.

// sinkProgram is mochi alone, which acknowledges what it reads and drops it: the most that can be reached with it.
func sinkProgram() {
	go paceCollections(context.Background()) // as `citywarden serve`
	ln := listenForBench()
	s := mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := s.AddHook(new(drop), nil); err != nil {
		panic(err)
	}
	if err := s.AddListener(listeners.NewNet("t", ln)); err != nil {
		panic(err)
	}
	if err := s.Serve(); err != nil {
		panic(err)
	}
	untilTold()
}

// drop is a hook of mochi that lets everybody in and passes no message on.
type drop struct{ mochi.HookBase }

func (*drop) Provides(b byte) bool {
	return b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck || b == mochi.OnPublish
}
func (*drop) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }
func (*drop) OnACLCheck(*mochi.Client, string, bool) bool              { return true }
func (*drop) OnPublish(_ *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	return pk, packets.CodeSuccessIgnore
}

// ackProgram is the platform's own way from the socket through the synced log to the
// acknowledgement, with nobody who reads the log.
func ackProgram() {
	go paceCollections(context.Background())
	dir, err := os.MkdirTemp(".", "log")
	if err != nil {
		panic(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	j, err := journal.Open(context.Background(), journal.Options{Dir: dir, Logger: quiet})
	if err != nil {
		panic(err)
	}
	everybody := everybody{&sync.Map{}, &citywarden.Model{}}
	p, err := ingest.New(ingest.Options{Log: j, Directory: everybody, Logger: quiet})
	if err != nil {
		panic(err)
	}
	b, err := mqtt.New(mqtt.Options{Listeners: []mqtt.Listener{{Listener: listenForBench()}}, Accept: p, Check: p, Auth: everybody, Down: everybody, Logger: quiet})
	if err != nil {
		panic(err)
	}
	go func() { _ = j.Run(context.Background()) }()
	go func() { _ = b.Run(context.Background()) }()
	untilTold()
}

// everybody is a registry that knows every device and has nothing to tell it. As the real one it makes
// nothing anew to say who a device is.
type everybody struct {
	devices *sync.Map
	model   *citywarden.Model
}

func (e everybody) Device(id citywarden.DeviceID) (*citywarden.Device, *citywarden.Model, error) {
	d, ok := e.devices.Load(id)
	if !ok {
		d, _ = e.devices.LoadOrStore(id, &citywarden.Device{ID: id})
	}
	return d.(*citywarden.Device), e.model, nil
}
func (everybody) Authenticate(token string) (citywarden.DeviceID, error) {
	return citywarden.DeviceID(token), nil
}
func (everybody) AuthenticateCertificate(*x509.Certificate, func() bool) (citywarden.DeviceID, error) {
	return "", citywarden.Errorf(citywarden.CodeUnauthenticated, "no certificates")
}
func (everybody) Child(citywarden.DeviceID, string) (citywarden.DeviceID, error) {
	return "", citywarden.Errorf(citywarden.CodeNotFound, "no gateway")
}
func (everybody) Attributes(context.Context, citywarden.DeviceID, []string, []string) (a citywarden.DeviceAttributes, err error) {
	return a, nil
}
func (everybody) Listen(citywarden.DeviceID, citywarden.DownlinkKind, func(citywarden.Downlink) bool) func() {
	return func() {}
}
func (everybody) Answer(context.Context, citywarden.DeviceID, int64, []byte) error {
	return citywarden.Errorf(citywarden.CodeNotFound, "no command")
}

func listenForBench() net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(ln.Addr())
	return ln
}

func untilTold() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	<-c
}
