package simulators

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"time"

	"github.com/plgd-dev/go-coap/v3/dtls/server"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/net/blockwise"
	"github.com/plgd-dev/go-coap/v3/udp/client"
)

// coapLink is one CoAP endpoint. Requests are confirmable: go-coap sends one
// again until it is acknowledged.
type coapLink struct {
	c    *client.Conn
	path string
}

// UDP returns a Dialer for host:port whose connections carry datagrams.
func UDP(addr string) Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{Timeout: connectWithin}).DialContext(ctx, "udp", addr)
	}
}

// DialCoAP opens a CoAP endpoint; what dial returns must keep datagrams apart.
// token is that of the device. Whether anybody is there shows only when
// something is sent.
func DialCoAP(ctx context.Context, dial Dialer, token string) (Link, error) {
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	o := client.DefaultConfig
	o.MessagePool = pool.New(0, 0)
	o.Errors = func(error) {} // Send reports what matters
	// Of DTLS is only the name: this session takes any connection. It is closed by
	// Close, after the last answer.
	session := server.NewSession(context.WithoutCancel(ctx), coapnet.NewConn(conn), o.MaxMessageSize, o.MTU, true)
	c := client.NewConnWithOpts(session, &o, client.WithBlockWise(func(c *client.Conn) *blockwise.BlockWise[*client.Conn] {
		return blockwise.New(c, o.BlockwiseTransferTimeout, o.Errors, c.GetObservationRequest)
	}))
	go func() { _ = c.Run() }() // until it is closed
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				c.CheckExpirations(now) // sends again what was not acknowledged
			case <-c.Done():
				return
			}
		}
	}()
	return &coapLink{c: c, path: "/api/v1/" + token + "/telemetry"}, nil
}

func (l *coapLink) Send(ctx context.Context, payload []byte) error {
	ctx, cancel := context.WithTimeout(ctx, ackWithin)
	defer cancel()
	r, err := l.c.Post(ctx, l.path, message.AppJSON, bytes.NewReader(payload))
	if err != nil {
		return fmt.Errorf("post: %w", err)
	}
	defer l.c.ReleaseMessage(r)
	switch code := r.Code(); {
	case code >= codes.Created && code < codes.BadRequest:
		return nil
	case code == codes.ServiceUnavailable, code == codes.InternalServerError, code == codes.GatewayTimeout, code == 0x9d: // 4.29
		return fmt.Errorf("answer %v", code)
	default:
		return fmt.Errorf("%w: answer %v", errRefused, code)
	}
}

func (l *coapLink) Close() {
	l.c.Close()
	<-l.c.Done()
}
