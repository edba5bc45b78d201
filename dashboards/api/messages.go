package api

import (
	"context"
	"encoding/json"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/danielgtaylor/huma/v2"
)

// Messages shows what devices say, as it comes.
type Messages interface {
	// Watch calls f with every message of a device that is decoded from now on, until
	// ctx is done or f returns an error, which it returns.
	Watch(ctx context.Context, id citywarden.DeviceID, f func(citywarden.Entry) error) error
}

// Bounds of the messages that are watched.
const (
	messageWatchers = 100      // at a time; the next one is refused
	messageQueue    = 64       // messages that a watcher may lag behind; then some are left out
	messageBytes    = 16 << 10 // of each message that are shown
)

// message is a message of a device, and what was made of it.
type message struct {
	Received    time.Time        `json:"received"`
	Protocol    string           `json:"protocol"`
	Topic       string           `json:"topic"`
	Bytes       int              `json:"bytes"`
	Payload     []byte           `json:"payload"`
	Readings    []messageReading `json:"readings" nullable:"false"`
	Attributes  map[string]any   `json:"attributes,omitempty"`
	Duplicates  int              `json:"duplicates"`
	Rejected    int              `json:"rejected"`
	Quarantined int              `json:"quarantined"`
	Reason      string           `json:"reason,omitempty"`
	Missed      int              `json:"missed"`
}

type messageReading struct {
	Metric citywarden.MetricName `json:"metric"`
	citywarden.Latest
}

func messageOf(e citywarden.Entry, missed int) message {
	u := e.Uplink
	m := message{
		Received: u.Received, Protocol: u.Protocol, Topic: u.Topic, Bytes: len(u.Payload), Payload: u.Payload[:min(len(u.Payload), messageBytes)],
		Readings: make([]messageReading, len(e.Readings)), Attributes: e.Attrs,
		Duplicates: e.Duplicates, Rejected: e.Rejected, Quarantined: e.Quarantined, Missed: missed,
	}
	for i, r := range e.Readings {
		m.Readings[i] = messageReading{r.Metric, citywarden.Latest{Value: r.Value, Time: r.Time, Quality: r.Quality}}
	}
	if e.Reject != nil {
		m.Reason = e.Reject.Reason
	}
	return m
}

func (s *server) messageRoutes() {
	handle(s, route{method: "GET", path: "/api/v1/devices/{id}/messages", id: "watch-messages", tag: "devices", may: citywarden.MayRead,
		responses: map[string]*huma.Response{"200": {
			Description: "Server-sent events. Each message is an event message with data (JSON): received, protocol, topic, bytes (how many), " +
				"payload (base64, its first 16 KiB), readings, attributes, how many readings were duplicates, rejected or quarantined, reason of that, " +
				"and how many messages before it were missed by a slow watcher. A comment comes every 15 s.",
			Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: "string"}}},
		}},
		summary: "Watch the messages of a device as they come: their bytes, and what was made of them"}, s.messages)
}

func (s *server) messages(ctx context.Context, in *DevicePath) (*huma.StreamResponse, error) {
	if _, _, err := s.seenDevice(ctx, in.ID); err != nil {
		return nil, err
	}
	if s.watching.Add(1) > messageWatchers {
		s.watching.Add(-1)
		return nil, citywarden.Errorf(citywarden.CodeTransient, "%d people watch messages already; try again later", messageWatchers)
	}
	return s.stream(ctx, "messages of "+string(in.ID), func() { s.watching.Add(-1) }, func(ctx context.Context, st *stream) error {
		return s.watchMessages(ctx, st, in.ID)
	}), nil
}

// watchMessages writes the messages of a device until the caller is gone, their
// session ends or the platform stops.
func (s *server) watchMessages(ctx context.Context, st *stream, id citywarden.DeviceID) error {
	ctx, cancel := context.WithCancel(ctx)
	queue := make(chan message, messageQueue)
	done := make(chan error, 1)
	go func() {
		missed := 0
		done <- s.Messages.Watch(ctx, id, func(e citywarden.Entry) error {
			select {
			case queue <- messageOf(e, missed):
				missed = 0
			default:
				missed++
			}
			return nil
		})
		close(queue)
	}()
	defer func() {
		cancel()
		<-done
	}()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		if err := st.flush(); err != nil {
			return err
		}
		select {
		case <-s.Hub.over:
			return nil
		case m, ok := <-queue:
			if !ok {
				return nil
			}
			data, err := json.Marshal(m)
			if err != nil {
				return err
			}
			st.write("event: message\ndata: %s\n\n", data)
		case <-beat.C:
			if err := s.stillValid(ctx); err != nil {
				return err
			}
			if _, _, err := s.seenDevice(ctx, id); err != nil {
				return err
			}
			st.write(": still here\n\n")
		}
	}
}
