package simulators

import (
	"context"
	"errors"
	"fmt"
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

func dialMQTT(ctx context.Context, addr string, id citywarden.DeviceID, token string) (link, error) {
	l := &mqttLink{lost: make(chan struct{})}
	o := mqtt.NewClientOptions().
		AddBroker("tcp://" + addr).
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
		l.close()
		return nil, ctx.Err()
	case <-t.Done():
	}
	if err := t.Error(); err != nil {
		switch t.(*mqtt.ConnectToken).ReturnCode() {
		case packets.ErrRefusedBadUsernameOrPassword, packets.ErrRefusedNotAuthorised, packets.ErrRefusedIDRejected:
			return nil, fmt.Errorf("connect %s: %w: %w", addr, errRefused, err)
		}
		return nil, fmt.Errorf("connect %s: %w", addr, err)
	}
	return l, nil
}

func (l *mqttLink) send(ctx context.Context, payload []byte) error {
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

func (l *mqttLink) close() { l.c.Disconnect(50) }
