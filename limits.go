package citywarden

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limits bound what the devices of a model may send. The zero value bounds nothing beyond
// what the platform takes.
type Limits struct {
	Messages    Rate `json:"messages,omitzero"`     // of one device
	AllMessages Rate `json:"all_messages,omitzero"` // of all devices of the model together
	Connections Rate `json:"connections,omitzero"`  // of one device, over MQTT, and over CoAP with DTLS or TCP
	Payload     int  `json:"payload,omitempty"`     // bytes of one message, at most MaxPayload; 0 for MaxPayload
}

// MaxPayload is how many bytes a message may have at most; over CoAP it is less.
const MaxPayload = 256 << 10

// Rate is how many there may be in a time, all of them at once too; the zero value bounds nothing.
// Files write it as "60/1m".
type Rate struct {
	Count int      `json:"count"`
	Per   Duration `json:"per"`
}

// ParseRate reads "60/1m": 1 to 1,000,000 in 1s to 1d. CodeInvalid when it is none.
func ParseRate(s string) (Rate, error) {
	count, per, ok := strings.Cut(s, "/")
	n, err := strconv.Atoi(count)
	if !ok || err != nil || n < 1 || n > 1e6 {
		return Rate{}, Errorf(CodeInvalid, "bad rate %q; write how many in what time, like 60/1m: 1 to 1000000 in 1s to 1d", s)
	}
	d, err := ParseDuration(per)
	if err != nil || d.Std() < time.Second || d.Std() > 24*time.Hour {
		return Rate{}, Errorf(CodeInvalid, "bad rate %q; the time is 1s to 1d, as in 60/1m", s)
	}
	return Rate{n, d}, nil
}

// IsZero reports whether r bounds nothing.
func (r Rate) IsZero() bool { return r.Count == 0 }

// String writes r as files do: "60/1m", "" for the zero value.
func (r Rate) String() string {
	if r.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d/%s", r.Count, r.Per)
}

// Every returns the time in which one of them comes back.
func (r Rate) Every() time.Duration { return r.Per.Std() / time.Duration(max(r.Count, 1)) }

// LimitError is why a device is to wait: it, or all of its model, send or connect more than the
// model's Limits. In an error its code is CodeLimited.
type LimitError struct {
	Reason string
	After  time.Duration // when it may come again
}

// Seconds returns After in whole seconds, rounded up and at least one: who comes then is not too early.
func (e *LimitError) Seconds() int {
	return max(int((e.After+time.Second-1)/time.Second), 1)
}

// Error returns the reason and when to come again.
func (e *LimitError) Error() string {
	return fmt.Sprintf("%s; come again in %s", e.Reason, time.Duration(e.Seconds())*time.Second)
}

// overrate begins the topic of what came when its device had sent more than it may and
// could not be told.
const overrate = "overrate/"

// Overrate returns such a message as a dead letter: all of it is kept.
func Overrate(up Uplink) Uplink {
	up.Topic = overrate + up.Topic
	return up
}

// Overrated reports whether topic is one of Overrate, and of what.
func Overrated(topic string) (original string, ok bool) { return strings.CutPrefix(topic, overrate) }

// AsSent returns a message that Overrate or Overlong changed as its device sent it. Of what Oversize
// returned there is only the beginning: it stays as it is.
func AsSent(up Uplink) Uplink {
	if topic, ok := Overrated(up.Topic); ok {
		up.Topic = topic
	}
	if bytes, topic, ok := Oversized(up.Topic); ok && bytes == len(up.Payload) {
		up.Topic = topic
	}
	return up
}

// SessionLimits is what ThingsBoard's SDKs ask for when they connect, in its order and form:
// a rate is "60:60", how many in how many seconds.
func (l Limits) SessionLimits() json.RawMessage {
	type rates struct {
		Messages  string `json:"messages,omitempty"`
		Telemetry string `json:"telemetryMessages,omitempty"`
	}
	x := struct {
		MaxPayload  int   `json:"maxPayloadSize"`
		MaxInFlight int   `json:"maxInflightMessages"`
		Rates       rates `json:"rateLimits"`
	}{MaxPayload: MaxPayload, MaxInFlight: 256}
	if l.Payload > 0 {
		x.MaxPayload = min(l.Payload, MaxPayload)
	}
	if !l.Messages.IsZero() {
		s := fmt.Sprintf("%d:%d", l.Messages.Count, int(l.Messages.Per.Std()/time.Second))
		x.Rates = rates{s, s}
	}
	b, _ := json.Marshal(x) // texts and numbers: no error
	return b
}

// PlainJSON is json.Marshal as devices expect it: < stays <.
func PlainJSON(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
