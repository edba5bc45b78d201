package grafana

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/citywarden/citywarden"
)

// live returns an empty frame whose channel Grafana subscribes to: the readings of
// one metric of a device, or, without a metric, the alarms as they change.
func (d *Datasource) live(m *Query) (data.Frames, error) {
	path := "alarms"
	if m.Metric != "" {
		id := list(m.Device)
		if len(id) != 1 {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "live readings are of one device; choose it, or leave the metric out for alarms")
		}
		path = "readings/" + id[0] + "/" + m.Metric
	}
	f := data.NewFrame("live")
	f.Meta = &data.FrameMeta{Channel: "ds/" + d.uid + "/" + path}
	return data.Frames{f}, nil
}

// stream is what a channel's path names.
type stream struct {
	device citywarden.DeviceID
	metric citywarden.MetricName // "" for alarms
}

func parseStream(path string) (stream, bool) {
	parts := strings.Split(path, "/")
	switch {
	case path == "alarms":
		return stream{}, true
	case len(parts) == 3 && parts[0] == "readings" && parts[1] != "" && parts[2] != "":
		return stream{citywarden.DeviceID(parts[1]), citywarden.MetricName(parts[2])}, true
	}
	return stream{}, false
}

// SubscribeStream lets everybody watch who may see the datasource.
func (d *Datasource) SubscribeStream(_ context.Context, req *backend.SubscribeStreamRequest) (*backend.SubscribeStreamResponse, error) {
	if _, ok := parseStream(req.Path); !ok {
		return &backend.SubscribeStreamResponse{Status: backend.SubscribeStreamStatusNotFound}, nil
	}
	return &backend.SubscribeStreamResponse{Status: backend.SubscribeStreamStatusOK}, nil
}

// PublishStream refuses: Grafana tells the platform nothing.
func (d *Datasource) PublishStream(context.Context, *backend.PublishStreamRequest) (*backend.PublishStreamResponse, error) {
	return &backend.PublishStreamResponse{Status: backend.PublishStreamStatusPermissionDenied}, nil
}

// RunStream sends a frame for each event, until ctx ends. When the platform
// can't be reached it tries again, and goes on behind the last event.
func (d *Datasource) RunStream(ctx context.Context, req *backend.RunStreamRequest, sender *backend.StreamSender) error {
	s, ok := parseStream(req.Path)
	if !ok {
		return citywarden.Errorf(citywarden.CodeNotFound, "there is no stream %q", req.Path)
	}
	last := ""
	wait := time.Second
	for {
		began := time.Now()
		err := d.watch(ctx, s, &last, func(f *data.Frame) error { return sender.SendFrame(f, data.IncludeAll) })
		if ctx.Err() != nil {
			return nil
		}
		switch citywarden.CodeOf(err) {
		case citywarden.CodeUnauthenticated, citywarden.CodeDenied, citywarden.CodeInvalid:
			return err
		}
		if wait = min(2*wait, 30*time.Second); time.Since(began) > time.Minute {
			wait = time.Second
		}
		backend.Logger.Warn("live events broke off; trying again", "in", wait.String(), "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// watch reads the platform's events behind *last until they end.
func (d *Datasource) watch(ctx context.Context, s stream, last *string, send func(*data.Frame) error) error {
	v := url.Values{"kinds": {"alarm"}}
	if s.metric != "" {
		v = url.Values{"kinds": {"reading"}, "device": {string(s.device)}}
	}
	res, err := d.api.open(ctx, "/api/v1/events?"+v.Encode(), http.Header{"Accept": {"text/event-stream"}, "Last-Event-Id": {*last}})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	var kind, body string
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			*last = value
		case "event":
			kind = value
		case "data":
			body = value
		case "":
			if kind == "reading" || kind == "alarm" {
				f, err := s.frame([]byte(body))
				if err != nil {
					return err
				}
				if f != nil {
					if err := send(f); err != nil {
						return err
					}
				}
			}
			kind, body = "", ""
		}
	}
	return lines.Err()
}

// frame returns what an event adds to s, nil for nothing.
func (s *stream) frame(body []byte) (*data.Frame, error) {
	if s.metric != "" {
		var e citywarden.ReadingEvent
		if err := json.Unmarshal(body, &e); err != nil {
			return nil, err
		}
		l, ok := e.Latest()[s.metric]
		if !ok || e.Device != s.device || l.Value.Kind() == citywarden.KindText {
			return nil, nil
		}
		return data.NewFrame(string(s.device), data.NewField("time", nil, []time.Time{l.Time}), data.NewField(string(s.metric), nil, []float64{l.Value.Float()})), nil
	}
	var a citywarden.Alarm
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, err
	}
	at := slices.MaxFunc([]time.Time{a.RaisedAt, a.ClearedAt, a.AckedAt}, time.Time.Compare)
	return data.NewFrame("alarms", data.NewField("time", nil, []time.Time{at}), data.NewField("severity", nil, []string{a.Severity.String()}),
		data.NewField("alarm", nil, []string{a.Title.EN}), data.NewField("告警", nil, []string{a.Title.ZH}),
		data.NewField("device", nil, []string{string(a.Device)}), data.NewField("state", nil, []string{string(a.State)}),
		data.NewField("id", nil, []string{string(a.ID)})), nil
}
