package trace

import (
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// root is the key of a context with the ids of a trace's first span.
type root struct{}

// ids gives the first span of a trace the ids in its context and each other
// span an id by chance.
type ids struct{}

// NewIDs implements sdk.IDGenerator.
func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	c, _ := ctx.Value(root{}).(trace.SpanContext)
	return c.TraceID(), c.SpanID()
}

// NewSpanID implements sdk.IDGenerator.
func (ids) NewSpanID(context.Context, trace.TraceID) (id trace.SpanID) {
	binary.BigEndian.PutUint64(id[:], rand.Uint64()|1)
	return id
}

// exporter logs that the collector takes nothing, now and then. The library would
// tell a handler that the whole process shares.
type exporter struct {
	sdk.SpanExporter
	logger *slog.Logger
	warned atomic.Int64 // when, in nanoseconds since 1970
}

// ExportSpans sends spans, or loses them.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	now, before := time.Now().UnixNano(), e.warned.Load()
	if now-before >= int64(warnEvery) && e.warned.CompareAndSwap(before, now) {
		e.logger.Warn("the collector does not take traces; they are lost, messages are not", "spans", len(spans), "err", err)
	}
	return nil
}
