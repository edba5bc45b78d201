package simulators

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/udp"
	"github.com/plgd-dev/go-coap/v3/udp/client"
)

// coapLink is one CoAP endpoint. Requests are confirmable: go-coap sends one
// again until it is acknowledged.
type coapLink struct {
	c    *client.Conn
	path string
}

// DialCoAP opens a CoAP endpoint towards addr, a host:port; token is that of the
// device. Whether anybody is there shows only when something is sent.
func DialCoAP(ctx context.Context, addr, token string) (Link, error) {
	c, err := udp.Dial(addr,
		options.WithContext(context.WithoutCancel(ctx)), // closed by close, after the last answer
		options.WithErrors(func(error) {}),              // send reports what matters
		options.WithPeriodicRunner(func(check func(time.Time) bool) {
			go func() {
				tick := time.NewTicker(time.Second)
				defer tick.Stop()
				for now := range tick.C {
					if !check(now) {
						return
					}
				}
			}()
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
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
