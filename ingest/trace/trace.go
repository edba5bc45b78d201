// Package trace sends the way of some messages through the platform to an
// OpenTelemetry collector, over OTLP/HTTP.
//
//	t, err := trace.New(ctx, trace.Options{URL: "http://collector.example:4318", Ratio: 0.01})
//	if err != nil { … }
//	defer t.Close()
//	if t.Follows(pos) {
//		t.Span(pos, "decode", begin, end, nil, slog.Int("readings", 3))
//	}
//
// A trace is one record of the log. Its ids follow from the record's position, so whoever
// works with the record later, also after a restart, adds to the same trace and nothing needs to
// be carried along.
package trace

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/citywarden/citywarden"
)

// closeLimit is how long Close waits for the collector, and warnEvery how often
// at most it is logged that the collector takes nothing.
const (
	closeLimit = 2 * time.Second
	warnEvery  = time.Minute
)

// Options say where traces go.
type Options struct {
	URL     string  // of the collector, without a path for its usual one, /v1/traces
	Ratio   float64 // how many of the records are followed: 0.01 is one in a hundred, 1 all of them
	Service string  // the name of this platform among those that one collector serves; "" for citywarden
	Version string
	Logger  *slog.Logger // nil for slog.Default
}

// Tracer tells a collector of the way of some records. It never blocks: spans that
// the collector can't take in time are lost. Its methods may be called by several goroutines.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	salt     uint64
	below    uint64 // a record is followed when its hash is not above
}

// New returns a Tracer. The collector need not be there yet.
func New(ctx context.Context, o Options) (*Tracer, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "%q is no URL of a collector; write it like http://collector.example:4318", o.URL)
	}
	if o.Ratio <= 0 || o.Ratio > 1 {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "ratio %v: write more than 0, up to 1 for every message", o.Ratio)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	out, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()))
	if err != nil {
		return nil, fmt.Errorf("traces to %s: %w", o.URL, err)
	}
	service := cmp.Or(o.Service, "citywarden")
	h := fnv.New64a()
	h.Write([]byte(service))
	t := &Tracer{salt: h.Sum64(), below: math.MaxUint64}
	if o.Ratio < 1 {
		t.below = uint64(o.Ratio * math.MaxUint64)
	}
	t.provider = sdk.NewTracerProvider(
		sdk.WithBatcher(&exporter{SpanExporter: out, logger: cmp.Or(o.Logger, slog.Default())}),
		sdk.WithIDGenerator(ids{}), sdk.WithSampler(sdk.AlwaysSample()),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", service), attribute.String("service.version", o.Version))),
	)
	t.tracer = t.provider.Tracer("citywarden")
	return t, nil
}

// Close sends what waits, for two seconds at most.
func (t *Tracer) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // that the collector is away has been logged, and is no reason not to stop
	return nil
}

// Follows reports whether the record at pos is followed.
func (t *Tracer) Follows(pos citywarden.Position) bool {
	return mix(uint64(pos)^t.salt) <= t.below
}

// Root tells of the first stage of a record that is followed: how it came in.
func (t *Tracer) Root(pos citywarden.Position, stage string, begin, end time.Time, attrs ...slog.Attr) {
	ctx := context.WithValue(context.Background(), root{}, t.context(pos))
	t.span(ctx, pos, stage, begin, end, nil, attrs)
}

// Span tells of a later stage of a record that is followed, and of the error with which it
// ended, nil for none.
func (t *Tracer) Span(pos citywarden.Position, stage string, begin, end time.Time, err error, attrs ...slog.Attr) {
	t.span(trace.ContextWithRemoteSpanContext(context.Background(), t.context(pos)), pos, stage, begin, end, err, attrs)
}

func (t *Tracer) span(ctx context.Context, pos citywarden.Position, stage string, begin, end time.Time, err error, attrs []slog.Attr) {
	_, s := t.tracer.Start(ctx, stage, trace.WithTimestamp(begin))
	s.SetAttributes(attribute.Int64("citywarden.position", int64(pos)))
	for _, a := range attrs {
		s.SetAttributes(keyValue(a))
	}
	if err != nil {
		s.SetStatus(codes.Error, err.Error())
	}
	s.End(trace.WithTimestamp(end))
}

func keyValue(a slog.Attr) attribute.KeyValue {
	key := "citywarden." + a.Key
	if a.Value.Kind() == slog.KindInt64 {
		return attribute.Int64(key, a.Value.Int64())
	}
	return attribute.String(key, a.Value.String())
}

// context returns the trace of a record and its first span.
func (t *Tracer) context(pos citywarden.Position) trace.SpanContext {
	var id trace.TraceID
	var first trace.SpanID
	h := mix(uint64(pos) ^ t.salt)
	binary.BigEndian.PutUint64(id[:8], h)
	binary.BigEndian.PutUint64(id[8:], mix(h^t.salt))
	binary.BigEndian.PutUint64(first[:], mix(h+1)|1) // never all zero, which is no id
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: first, TraceFlags: trace.FlagsSampled, Remote: true})
}

// mix is the finalizer of SplitMix64: each bit of x moves half of the bits of the result.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
