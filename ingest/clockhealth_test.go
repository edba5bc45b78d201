package ingest

import (
	"fmt"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

// clocked is what becomes of messages of one device with times of their own.
func clocked(t *testing.T, tests clockCases) {
	t.Helper()
	d, arrival := newDecoder(one{testModel()}), testArrival
	for _, tt := range tests {
		arrival = arrival.Add(time.Millisecond)
		e := d.group([]citywarden.Record{{Kind: citywarden.RecordUplink, At: arrival, Uplink: &citywarden.Uplink{
			Device: "a", Topic: "v1/devices/me/telemetry", Payload: []byte(tt.body), Received: arrival}}})[0]
		clamped, at := 0, ""
		for _, r := range e.Readings {
			at = r.Time.Format(time.RFC3339Nano)
			if r.Quality == citywarden.Clamped {
				clamped, at = clamped+1, "arrival"
			}
		}
		if len(e.Readings) != tt.stored || e.Duplicates != tt.again || e.Quarantined != tt.quarantine || clamped != tt.clamped || at != tt.at {
			t.Errorf("%s: %d stored at %s, %d again, %d quarantined, %d clamped; want %d at %s, %d, %d, %d",
				tt.name, len(e.Readings), at, e.Duplicates, e.Quarantined, clamped, tt.stored, tt.at, tt.again, tt.quarantine, tt.clamped)
		}
		if tt.quarantine > 0 && e.Reject == nil {
			t.Errorf("%s: quarantined, and no dead letter", tt.name)
		}
	}
}

type clockCases []struct {
	name, body                         string
	at                                 string // when the reading counts, "" when there is none
	stored, again, quarantine, clamped int
}

// TestSecondsMillisecondsMicrosecondsAreToldApart (ThingsBoard #1754).
func TestSecondsMillisecondsMicrosecondsAreToldApart(t *testing.T) {
	s := testArrival.Add(-time.Minute).Unix()
	at := time.Unix(s, 0).UTC().Format(time.RFC3339Nano)
	clocked(t, clockCases{
		{"seconds", fmt.Sprintf(`{"ts":%d,"values":{"smoke":1}}`, s), at, 1, 0, 0, 0},
		{"milliseconds", fmt.Sprintf(`{"ts":%d000,"values":{"smoke":2}}`, s), at, 1, 0, 0, 0},
		{"microseconds", fmt.Sprintf(`{"ts":%d000000,"values":{"smoke":3}}`, s), at, 1, 0, 0, 0},
		{"seconds with a fraction", fmt.Sprintf(`{"ts":%d.0,"values":{"smoke":4}}`, s), at, 1, 0, 0, 0},
		{"milliseconds as a float, as ThingsBoard's gateway sends", fmt.Sprintf(`{"ts":%d000.25,"values":{"smoke":5}}`, s), at, 1, 0, 0, 0},
	})
}

// TestTimesThatCannotBeTrueAreQuarantined: 1970 and the far future; five minutes to a day ahead counts at its arrival.
func TestTimesThatCannotBeTrueAreQuarantined(t *testing.T) {
	clocked(t, clockCases{
		{"1970", `{"ts":60000,"values":{"smoke":1}}`, "", 0, 0, 1, 0},
		{"2014", `{"ts":1400000000000,"values":{"smoke":1}}`, "", 0, 0, 1, 0},
		{"two days ahead", fmt.Sprintf(`{"ts":%d,"values":{"smoke":1}}`, testArrival.AddDate(0, 0, 2).UnixMilli()), "", 0, 0, 1, 0},
		{"2099", `{"ts":4070908800000,"values":{"smoke":1,"temperature":2}}`, "", 0, 0, 2, 0},
		{"an hour ahead", fmt.Sprintf(`{"ts":%d,"values":{"smoke":1}}`, testArrival.Add(time.Hour).UnixMilli()), "arrival", 1, 0, 0, 1},
	})
}

// TestStaleRepeatsCountOnce: a value that a gateway sends again with its old time is the same reading, however often it
// comes (ThingsBoard gateway #2119); what is re-stamped as fresh, the rules pipe.sensor-stuck and parking.sensor-stuck find.
func TestStaleRepeatsCountOnce(t *testing.T) {
	old := testArrival.Add(-3 * time.Hour).Truncate(time.Second)
	body, at := fmt.Sprintf(`{"ts":%d,"values":{"smoke":1}}`, old.UnixMilli()), old.UTC().Format(time.RFC3339Nano)
	clocked(t, clockCases{
		{"first", body, at, 1, 0, 0, 0},
		{"again", body, "", 0, 1, 0, 0},
		{"and again, in seconds", fmt.Sprintf(`{"ts":%d,"values":{"smoke":1.0}}`, old.Unix()), "", 0, 1, 0, 0},
		{"corrected", fmt.Sprintf(`{"ts":%d,"values":{"smoke":2}}`, old.UnixMilli()), at, 1, 0, 0, 0},
	})
}
