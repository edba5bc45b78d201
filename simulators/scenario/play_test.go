package scenario

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// recorder is a platform that takes everything, acknowledges it, keeps it and
// raises nothing.
type recorder struct {
	mu    sync.Mutex
	heard []string // device and payload
}

// Call implements Platform.
func (*recorder) Call(_ context.Context, method, path string, in, out any) error {
	if token, ok := out.(*struct{ Token string }); ok {
		token.Token = "secret"
	}
	return nil
}

// Dial is a simulators.Dialer.
func (r *recorder) Dial(context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	go r.serve(there)
	return here, nil
}

// serve speaks MQTT until the device hangs up.
func (r *recorder) serve(c net.Conn) {
	defer c.Close()
	device := ""
	for {
		p, err := packets.ReadPacket(c)
		if err != nil {
			return
		}
		var answer packets.ControlPacket
		switch p := p.(type) {
		case *packets.ConnectPacket:
			device, answer = p.ClientIdentifier, packets.NewControlPacket(packets.Connack)
		case *packets.PublishPacket:
			r.mu.Lock()
			r.heard = append(r.heard, device+" "+string(p.Payload))
			r.mu.Unlock()
			ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
			ack.MessageID, answer = p.MessageID, ack
		case *packets.PingreqPacket:
			answer = packets.NewControlPacket(packets.Pingresp)
		default:
			continue
		}
		if answer.Write(c) != nil {
			return
		}
	}
}

// TestSameTruthAtAnySpeed plays every scenario that comes with the simulators at
// several speeds: the same happens, and the platform hears the same, byte for
// byte and in the same order of each device.
func TestSameTruthAtAnySpeed(t *testing.T) {
	for file, s := range shipped(t) {
		begins := time.Date(2026, 11, 23, 9, 0, 0, 0, shanghai)
		if s.Start != nil {
			begins = s.Start.Next(begins)
		}
		play := func(speed float64) (v *Verdict, heard []string) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(begins.Add(time.Duration(float64(s.Lasts) * (1 - 1/speed)))))
				var r recorder
				var err error
				if v, err = s.Play(t.Context(), Options{Dial: r.Dial, Platform: &r, Speed: speed}); err != nil {
					t.Fatal(err)
				}
				heard = r.heard
			})
			// Of each device in order; devices do not wait for one another.
			slices.SortStableFunc(heard, func(a, b string) int {
				a, _, _ = strings.Cut(a, " ")
				b, _, _ = strings.Cut(b, " ")
				return strings.Compare(a, b)
			})
			return v, heard
		}
		one, want := play(1)
		if uint64(len(want)) != one.Acked || one.Acked != one.Sent || one.Sent == 0 {
			t.Errorf("%s: %d sent, %d acknowledged, %d heard", file, one.Sent, one.Acked, len(want))
		}
		for _, speed := range []float64{13, 600} {
			v, heard := play(speed)
			if !reflect.DeepEqual(v, one) {
				t.Errorf("%s: at speed %g the verdict is\n%+v\nat speed 1\n%+v", file, speed, v, one)
			}
			if !slices.Equal(heard, want) {
				t.Errorf("%s: at speed %g the platform hears %d messages, at speed 1 %d: %s", file, speed, len(heard), len(want), firstOther(heard, want))
			}
		}
	}
}

func firstOther(got, want []string) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("%s, want %s", got[i], want[i])
		}
	}
	return "one ends before the other"
}
