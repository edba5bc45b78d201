package simulators

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/citywarden/citywarden"
)

// Deadlines of a device for the platform's answer.
const (
	connectWithin = 10 * time.Second
	ackWithin     = 20 * time.Second
)

// mqttLink is one MQTT connection. A device begins a clean session on each and
// sends again itself what was not acknowledged: paho's own resending marks a
// token as done in cases where no PUBACK came.
type mqttLink struct {
	c    mqtt.Client
	lost chan struct{} // closed when the connection is gone
}

// Dialer opens a connection to a platform.
type Dialer func(ctx context.Context) (net.Conn, error)

// TCP returns a Dialer for host:port.
func TCP(addr string) Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{Timeout: connectWithin}).DialContext(ctx, "tcp", addr)
	}
}

// DialMQTT connects the device id to a platform.
func DialMQTT(ctx context.Context, dial Dialer, id citywarden.DeviceID, token string) (Link, error) {
	l := &mqttLink{lost: make(chan struct{})}
	o := mqtt.NewClientOptions().
		AddBroker("tcp://platform"). // a name for dial
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return dial(ctx) }).
		SetClientID(string(id)).
		SetUsername(token).
		SetProtocolVersion(4).
		SetCleanSession(true).
		SetAutoReconnect(false).
		SetConnectRetry(false).
		SetKeepAlive(time.Minute).
		SetConnectTimeout(connectWithin).
		SetWriteTimeout(connectWithin).
		SetOrderMatters(true).
		SetConnectionLostHandler(func(mqtt.Client, error) { close(l.lost) })
	l.c = mqtt.NewClient(o)
	t := l.c.Connect()
	select {
	case <-ctx.Done():
		// Connect can't be cancelled: wait until it has come to its end.
		<-t.Done()
		l.Close()
		return nil, ctx.Err()
	case <-t.Done():
	}
	if err := t.Error(); err != nil {
		switch t.(*mqtt.ConnectToken).ReturnCode() {
		case packets.ErrRefusedBadUsernameOrPassword, packets.ErrRefusedNotAuthorised, packets.ErrRefusedIDRejected:
			return nil, fmt.Errorf("connect: %w: %w", errRefused, err)
		}
		return nil, fmt.Errorf("connect: %w", err)
	}
	return l, nil
}

func (l *mqttLink) Send(ctx context.Context, payload []byte) error {
	t := l.c.Publish("v1/devices/me/telemetry", 1, false, payload)
	late := time.NewTimer(ackWithin)
	defer late.Stop()
	select {
	case <-t.Done():
		return t.Error()
	case <-l.lost:
		return errors.New("connection lost before the acknowledgement")
	case <-late.C:
		return fmt.Errorf("no acknowledgement within %s", ackWithin)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *mqttLink) Close() { l.c.Disconnect(50) }
