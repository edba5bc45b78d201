package citywarden

import "time"

// DeadLetter keeps a message, or the part of one, that could not be used.
type DeadLetter struct {
	Position Position  `json:"position"`
	Stage    Failed    `json:"stage"`
	Device   DeviceID  `json:"device"`
	Protocol string    `json:"protocol"`
	Topic    string    `json:"topic"`
	Payload  []byte    `json:"payload"` // base64 in JSON
	Received time.Time `json:"received"`
	Reason   string    `json:"reason"`               // what was wrong, where, and what to do
	Replayed time.Time `json:"replayed_at,omitzero"` // when it was brought in again
}

// Uplink is the message as it came.
func (l *DeadLetter) Uplink() Uplink {
	return Uplink{Device: l.Device, Protocol: l.Protocol, Topic: l.Topic, Payload: l.Payload, Received: l.Received}
}

// Failed says where a message became a dead letter.
type Failed string

// The places.
const (
	FailedDecode Failed = "decode" // not understood, or not believed
	FailedSeries Failed = "series" // decoded, but the time series refused it
)

// DeadLetterFilter selects dead letters; zero fields select all.
type DeadLetterFilter struct {
	Device DeviceID
	Area   AreaCode // only of devices there
	Stage  Failed
	Open   bool // only those that were not brought in again
	Oldest bool // the oldest first, instead of the newest
	Page
}

// Refused are readings that the time series refused after they had been
// counted as stored.
type Refused struct {
	DeadLetter
	Logged   time.Time // Record.At of the message: the ledger counts it in that hour
	Readings int64
}

// Replay says what became of dead letters that were brought in again.
type Replay struct {
	Replayed int          `json:"replayed"`               // in the log again, like new messages
	Failing  int          `json:"failing"`                // still can't be used; they stay where they are
	First    []DeadLetter `json:"first" nullable:"false"` // of those, with the reason of now; at most 20
}

// LedgerFilter selects rows of the ledger: those of the hours that begin in [From,
// To). Zero fields select all.
type LedgerFilter struct {
	From, To time.Time
	Device   DeviceID
	Area     AreaCode // only of devices there
	Uneven   bool     // only rows with something that was not stored, that is missing, or that does not balance
	ByHour   bool     // the sum of all devices of each hour, its Device "", all of them on one page
	Page
}

// LedgerRow balances what one device sent in one hour:
// Received = Stored + Rejected + Duplicate + Quarantined, counted in readings;
// a message that can't be decoded counts as one rejected reading.
type LedgerRow struct {
	Device      DeviceID  `json:"device"`
	Hour        time.Time `json:"hour"` // beginning of the hour, UTC, by our clock
	Messages    int64     `json:"messages"`
	Received    int64     `json:"received"`
	Stored      int64     `json:"stored"`
	Rejected    int64     `json:"rejected"`
	Duplicate   int64     `json:"duplicate"`
	Quarantined int64     `json:"quarantined"`
	Missing     int64     `json:"missing"`  // messages that never came, by the device's sequence numbers; one that comes late after all is taken off
	Silent      int64     `json:"silent_s"` // seconds of the hour in which nothing was heard for longer than the heartbeat of the model allows
	Gaps        []Gap     `json:"-"`        // that were found in the hour, while the row is counted
}

// Gap is a time in which it is not known what a device measured: a curve that goes on through
// it would say that nothing happened.
type Gap struct {
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Missing int64     `json:"missing"` // messages that never came, by the device's sequence numbers; 0 for a silence
	Outage  bool      `json:"outage,omitempty" doc:"The platform itself heard nobody then: it is no silence of the device"`
}

// LateMessage is the Gap that stands for a message that was counted as missing and came after all.
var LateMessage = Gap{Missing: -1}

// Covered reports whether gaps, of which no two are at the same time, are why nothing is known between two readings: together they are
// most of the time between them, and it is most of theirs. A device that sends what it kept leaves no gap, though it was silent.
func Covered(before, after time.Time, gaps ...Gap) bool {
	var both, all time.Duration
	for _, g := range gaps {
		from, to := g.From, g.To
		if before.After(from) {
			from = before
		}
		if after.Before(to) {
			to = after
		}
		both += max(to.Sub(from), 0)
		all += g.To.Sub(g.From)
	}
	return both > 0 && 2*both >= after.Sub(before) && 2*both >= all
}

// LastHeard is what is remembered of a device to notice what is missing.
type LastHeard struct {
	Device    DeviceID  // "" for the platform: At is when the newest record was logged
	At        time.Time // when its newest message was logged
	Sequence  int64     // the highest of its sequence numbers, when Sequenced
	Sequenced bool
	Numbered  time.Time // of the reading with that number
}

// LedgerAdd is what is added to the ledger at a time.
type LedgerAdd struct {
	Rows    []LedgerRow
	Dead    []DeadLetter
	Heard   []LastHeard
	Outages []Gap // those that began, or lasted longer
}

// Add counts an entry with an uplink.
func (r *LedgerRow) Add(e *Entry) {
	r.Messages++
	r.Stored += int64(len(e.Readings))
	r.Duplicate += int64(e.Duplicates)
	r.Rejected += int64(e.Rejected)
	r.Quarantined += int64(e.Quarantined)
	r.Received += int64(len(e.Readings) + e.Duplicates + e.Rejected + e.Quarantined)
}

// Audit is what comparing the durable log, the ledger and the time series
// found. The log is the truth.
type Audit struct {
	From        time.Time    `json:"from"` // a full hour: the beginning of what was compared
	To          time.Time    `json:"to"`   // when the last message that was looked at was logged
	Messages    int64        `json:"messages"`
	Readings    int64        `json:"readings"`    // in the messages, duplicates left out
	Points      int64        `json:"points"`      // looked for in the time series
	Found       int64        `json:"found"`       // differences
	Differences []Difference `json:"differences"` // the first 100
	Notes       []string     `json:"notes"`       // what could not be compared, and why
}

// Difference is one place where the books do not agree.
type Difference struct {
	Book     string     `json:"book"` // "ledger" or "series"
	Device   DeviceID   `json:"device"`
	Hour     time.Time  `json:"hour"`             // of arrival in the ledger, of the readings in the series
	Metric   MetricName `json:"metric,omitempty"` // in the series
	Expected int64      `json:"expected"`         // by the log: messages, readings, or points
	Found    int64      `json:"found"`            // in the book
	Text     string     `json:"text"`             // what it means
}
