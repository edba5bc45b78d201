package ingest

import (
	"errors"
	"log/slog"
	"time"

	"github.com/citywarden/citywarden"
)

// untraced is the Tracer of a pipeline without one.
type untraced struct{}

// Follows returns false.
func (untraced) Follows(citywarden.Position) bool { return false }

// Root does nothing.
func (untraced) Root(citywarden.Position, string, time.Time, time.Time, ...slog.Attr) {}

// Span does nothing.
func (untraced) Span(citywarden.Position, string, time.Time, time.Time, error, ...slog.Attr) {}

// traceDecoding tells what became of the messages of a group that was decoded since begin.
func (p *Pipeline) traceDecoding(entries []citywarden.Entry, begin time.Time) {
	if p.trace == (untraced{}) {
		return
	}
	var end time.Time
	for i := range entries {
		e := &entries[i]
		if e.Uplink == nil || !p.trace.Follows(e.Position) {
			continue
		}
		if end.IsZero() {
			end = time.Now()
		}
		var err error
		if e.Reject != nil {
			err = errors.New(e.Reject.Reason)
		}
		p.trace.Span(e.Position, "decode", begin, end, err, slog.Int("readings", len(e.Readings)))
	}
}

// traceConsuming tells that a consumer had entries since begin.
func (p *Pipeline) traceConsuming(name string, entries []citywarden.Entry, begin time.Time, err error) {
	if p.trace == (untraced{}) {
		return
	}
	var end time.Time
	for i := range entries {
		if !p.trace.Follows(entries[i].Position) {
			continue
		}
		if end.IsZero() {
			end = time.Now()
		}
		p.trace.Span(entries[i].Position, name, begin, end, err, slog.Int("batch", len(entries)))
	}
}
