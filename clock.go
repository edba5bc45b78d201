package citywarden

import "time"

// ClockState says in a word how good the clock of a device is.
type ClockState string

// The states; the first that holds counts.
const (
	ClockUnset    ClockState = "unset"    // its newest message with a time gives one that can't be true
	ClockAhead    ClockState = "ahead"    // by more than a minute
	ClockBehind   ClockState = "behind"   // by more than a minute, also in the message that was under way for the shortest time
	ClockDrifting ClockState = "drifting" // more than MaxDrift
	ClockGood     ClockState = "good"
)

const (
	// MaxSkew is how far a clock may be off.
	MaxSkew = time.Minute
	// MaxDrift is how fast or slow a clock may go, in parts per million: about 9 s a day. A usual quartz has 20 to 50.
	MaxDrift = 100
)

// Clock is what the times that a device gives tell of its clock, against ours.
type Clock struct {
	State  ClockState `json:"state" enum:"unset,ahead,behind,drifting,good"`
	Offset float64    `json:"offset_s"`            // how many seconds it is ahead, negative behind: of the message lately that was under way for the shortest time
	Drift  *float64   `json:"drift_ppm,omitempty"` // how much it gains, in parts per million, negative loses; nil until 6 h are known
	Since  time.Time  `json:"since"`               // of the first message that Drift is computed from
	At     time.Time  `json:"at"`                  // of the message that Offset is of, as it arrived
}

// ClockHistory is what Clock is computed from.
type ClockHistory struct {
	Width  int64      `json:"w"` // of a point, in seconds
	Points [][2]int64 `json:"p"` // the message of each Width that was under way for the shortest time: when it arrived, in seconds since 1970, and how far ahead its time was, in milliseconds
	Untrue int64      `json:"u"` // when a message arrived last whose time can't be true, in seconds since 1970; 0 for never
}
