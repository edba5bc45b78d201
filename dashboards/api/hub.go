package api

import (
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
)

// Bounds of the hub.
const (
	hubEvents      = 4096 // that a subscriber who comes back can catch up with
	hubSubscribers = 1000 // at a time; the next one is refused
	hubQueue       = 256  // events that a subscriber may lag behind before it is cut off
)

// Hub hands the events of the platform to everybody who watches. Publish never
// waits: a subscriber that can't keep up is cut off, and catches up from the
// newest 4096 events when it comes back.
type Hub struct {
	log *slog.Logger

	mu     sync.Mutex
	last   uint64  // id of the newest event
	first  uint64  // id of the first event of this hub
	ring   []event // the newest events; event id lies at (id-first) % hubEvents
	subs   map[*subscriber]struct{}
	closed bool
	over   chan struct{} // closed with it
}

// event is a citywarden.Event, encoded once for all subscribers.
type event struct {
	id     uint64
	kind   string
	device citywarden.DeviceID
	about  any // citywarden.Event.Data
	json   *lazyJSON
}

// lazyJSON is encoded when somebody wants it: of thousands of readings a second
// hardly one is watched.
type lazyJSON struct {
	once sync.Once
	of   any // nobody changes it
	data []byte
}

// text returns the JSON, nil when it can't be written.
func (l *lazyJSON) text() []byte {
	l.once.Do(func() {
		if l.of != nil {
			l.data, _ = json.Marshal(l.of)
			l.of = nil
		}
	})
	return l.data
}

// subscriber is one stream. Its queue is closed when it is cut off.
type subscriber struct {
	kinds  []string            // nil for all
	device citywarden.DeviceID // "" for all
	queue  chan event
}

// NewHub returns a hub without events. Event ids go on from the current time in
// microseconds, so that they grow from one start of the platform to the next
// (below one million events a second) and stay below 2^53.
func NewHub(log *slog.Logger) *Hub {
	start := uint64(time.Now().UnixMicro())
	return &Hub{log: log, first: start + 1, last: start, subs: map[*subscriber]struct{}{}, over: make(chan struct{})}
}

// Publish numbers e and hands it to the subscribers. An event that can't be
// written as JSON is logged and left out. Nobody changes a ReadingEvent or what a Case
// holds afterwards; what else e holds may change.
func (h *Hub) Publish(e citywarden.Event) {
	ev := event{kind: e.Kind, device: deviceOf(e.Data), about: e.Data, json: &lazyJSON{of: e.Data}}
	if _, ok := e.Data.(citywarden.ReadingEvent); !ok && ev.json.text() == nil {
		h.log.Error("event not published: it can't be written as JSON", "kind", e.Kind)
		return
	}

	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	ev.id = h.last
	if len(h.ring) < hubEvents {
		h.ring = append(h.ring, ev)
	} else {
		h.ring[(ev.id-h.first)%hubEvents] = ev
	}
	for s := range h.subs {
		if !s.wants(ev) {
			continue
		}
		select {
		case s.queue <- ev:
		default:
			h.drop(s)
		}
	}
}

// Close ends all streams; there will be no more. Call it before the HTTP
// server is shut down, which waits for them.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		close(h.over)
	}
	h.closed = true
	for s := range h.subs {
		h.drop(s)
	}
}

func (h *Hub) drop(s *subscriber) {
	if _, ok := h.subs[s]; ok {
		delete(h.subs, s)
		close(s.queue)
	}
}

// subscribe starts a stream of the events after the one with id after, 0 for those
// that come from now on; not everybody may see all of them. It returns the events that were missed, and the
// id that the stream begins behind. reset is true when the missed events are
// not known any more. Call cancel when the stream ends.
func (h *Hub) subscribe(after uint64, kinds []string, device citywarden.DeviceID) (s *subscriber, missed []event, last uint64, reset bool, err error) {
	s = &subscriber{kinds: kinds, device: device, queue: make(chan event, hubQueue)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.subs) >= hubSubscribers {
		return nil, nil, 0, false, citywarden.Errorf(citywarden.CodeTransient, "no more event streams can be opened now; try again later")
	}
	if after != 0 && after != h.last {
		oldest := h.last + 1 - uint64(len(h.ring))
		if reset = after > h.last || after+1 < oldest; !reset {
			for id := after + 1; id <= h.last; id++ {
				if ev := h.ring[(id-h.first)%hubEvents]; s.wants(ev) {
					missed = append(missed, ev)
				}
			}
		}
	}
	h.subs[s] = struct{}{}
	return s, missed, h.last, reset, nil
}

// cancel ends the stream; more than once does no harm.
func (h *Hub) cancel(s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(s)
}

// passed returns the id of the newest event if s has nothing before it left to
// read.
func (h *Hub) passed(s *subscriber) (id uint64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last, len(s.queue) == 0
}

func (s *subscriber) wants(e event) bool {
	return (s.kinds == nil || slices.Contains(s.kinds, e.kind)) && (s.device == "" || s.device == e.device)
}

// deviceOf returns the device that the data of an event is about, "" for none.
func deviceOf(data any) citywarden.DeviceID {
	switch d := data.(type) {
	case citywarden.ReadingEvent:
		return d.Device
	case citywarden.Alarm:
		return d.Device
	case citywarden.DeviceView:
		return d.ID
	case citywarden.DeletedDevice:
		return d.ID
	}
	return ""
}
