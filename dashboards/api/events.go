package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

const (
	heartbeat     = 15 * time.Second
	eventDeadline = 10 * time.Second // for a subscriber to take what is written
)

type eventsInput struct {
	Kinds   []string            `query:"kinds" enum:"alarm,case,reading,device" doc:"Kinds of events, with commas between; all when left out"`
	Device  citywarden.DeviceID `query:"device" maxLength:"64" doc:"Only events about this device"`
	LastID  string              `header:"Last-Event-ID" doc:"The last id that was seen: the stream goes on behind it"`
	LastID2 string              `query:"last_event_id" doc:"Like the header, for those who can't set one"`
}

func (s *server) eventRoutes() {
	handle(s, route{method: "GET", path: "/api/v1/events", id: "watch-events", tag: "events", may: citywarden.MayRead,
		responses: map[string]*huma.Response{"200": {
			Description: "Server-sent events: id, event (alarm, case, reading, device), data (JSON). " +
				"The event reset says that events were missed for good: load the lists again. " +
				"An id without data and a comment come every 15 s.",
			Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: "string"}}},
		}},
		summary: "Watch what happens, live"}, s.events)
}

func (s *server) events(ctx context.Context, in *eventsInput) (*huma.StreamResponse, error) {
	after, resumes, err := lastID(in)
	if err != nil {
		return nil, err
	}
	kinds := in.Kinds
	if len(kinds) == 0 {
		kinds = nil
	}
	slices.Sort(kinds)
	sub, missed, last, reset, err := s.Hub.subscribe(after, slices.Compact(kinds), in.Device)
	if err != nil {
		return nil, err
	}
	reset = reset || resumes && after == 0 // an id of nobody's
	return s.stream(ctx, "events", func() { s.Hub.cancel(sub) }, func(ctx context.Context, st *stream) error {
		return s.watch(ctx, st, sub, missed, last, reset)
	}), nil
}

// stream answers with server-sent events: those that watch writes until it returns.
// Then end is called.
func (s *server) stream(ctx context.Context, of string, end func(), watch func(context.Context, *stream) error) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer end()
		r, w := humago.Unwrap(hc)
		st := &stream{w: w, rc: http.NewResponseController(w)}
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Accel-Buffering", "no") // nginx would hold the events back
		w.WriteHeader(http.StatusOK)
		st.write("retry: 2000\n\n")
		if err := watch(r.Context(), st); err != nil {
			s.log.Debug("stream of "+of+" ended", "user", callerOf(ctx).Name, "err", err)
		}
	}}
}

func lastID(in *eventsInput) (after uint64, resumes bool, err error) {
	text := in.LastID
	if text == "" {
		text = in.LastID2
	}
	if text == "" {
		return 0, false, nil
	}
	if after, err = strconv.ParseUint(text, 10, 64); err != nil {
		return 0, false, citywarden.Errorf(citywarden.CodeInvalid, "Last-Event-ID %q is not a number", text)
	}
	return after, true, nil
}

// watch writes the events of sub until the caller is gone, the hub cuts it off
// or its session ends.
func (s *server) watch(ctx context.Context, st *stream, sub *subscriber, missed []event, last uint64, reset bool) error {
	if reset {
		st.write("id: %d\nevent: reset\ndata: {}\n\n", last)
	}
	u := callerOf(ctx)
	event := func(e event) error {
		if !s.sees(u, e.about) {
			return nil
		}
		e, err := s.eventFor(ctx, u, e)
		if err == nil {
			st.event(e)
		}
		return err
	}
	for _, e := range missed {
		if err := event(e); err != nil {
			return err
		}
	}
	st.id(last)
	if err := st.flush(); err != nil {
		return err
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-sub.queue:
			if !ok {
				return errors.New("cut off: it was too slow, or the platform stops")
			}
			if err := event(e); err != nil {
				return err
			}
			for n := len(sub.queue); n > 0; n-- { // what is there already goes in the same write
				if e, ok := <-sub.queue; ok {
					if err := event(e); err != nil {
						return err
					}
				}
			}
		case <-beat.C:
			if err := s.stillValid(ctx); err != nil {
				return err
			}
			st.write(": still here\n")
			if id, ok := s.Hub.passed(sub); ok {
				st.id(id)
			} else {
				st.write("\n")
			}
		}
		if err := st.flush(); err != nil {
			return err
		}
	}
}

// eventFor returns e as u sees it. Hardly ever that is not what all see, which is encoded once.
func (s *server) eventFor(ctx context.Context, u citywarden.User, e event) (event, error) {
	if maySeeAll(u) {
		return e, nil
	}
	switch x := e.about.(type) {
	case citywarden.Case: // without its timeline
		seen, err := s.caseFor(ctx, u, x)
		if err != nil {
			return e, err
		}
		if seen.Device != x.Device || seen.Key != x.Key || len(seen.Alarms) != len(x.Alarms) {
			e.json = &lazyJSON{of: seen}
		}
	case citywarden.Alarm:
		seen, err := s.alarmFor(ctx, u, x)
		if err != nil {
			return e, err
		}
		if seen.SuppressedBy != x.SuppressedBy {
			e.json = &lazyJSON{of: seen}
		}
	}
	return e, nil
}

// stillValid returns an error when the session of ctx has ended, or its user may
// see something else than at its beginning.
func (s *server) stillValid(ctx context.Context) error {
	req := requestOf(ctx)
	_, u, err := s.Accounts.store.Session(ctx, req.session.ID, time.Now())
	if err != nil {
		return fmt.Errorf("session of %s: %w", req.user.Name, err)
	}
	if was := req.user; u.Role != was.Role || u.Department != was.Department || u.Area != was.Area {
		return fmt.Errorf("%s may see something else now", u.Name)
	}
	return nil
}

// stream writes server-sent events. The first error stays.
type stream struct {
	w   io.Writer
	rc  *http.ResponseController
	buf strings.Builder
}

func (st *stream) write(format string, args ...any) { fmt.Fprintf(&st.buf, format, args...) }

func (st *stream) event(e event) {
	if data := e.json.text(); data != nil {
		st.write("id: %d\nevent: %s\ndata: %s\n\n", e.id, e.kind, data)
	}
}

// id tells the subscriber how far it has seen everything, without an event.
func (st *stream) id(id uint64) { st.write("id: %d\n\n", id) }

func (st *stream) flush() error {
	// A writer without deadlines waits as long as its server does.
	if err := st.rc.SetWriteDeadline(time.Now().Add(eventDeadline)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := io.WriteString(st.w, st.buf.String()); err != nil {
		return err
	}
	st.buf.Reset()
	return st.rc.Flush()
}
