package citywarden

import "time"

// DeviceRaw is the topic of payloads in the model's own format, see Model.Raw.
const DeviceRaw = "v1/devices/me/raw"

// Decoder reads payloads of one format. Several goroutines may use it.
type Decoder interface {
	// Decode returns what is in p, or an error that says what is wrong at which byte.
	Decode(p RawPayload) (Decoded, error)
}

// RawPayload is a message as its device sent it.
type RawPayload struct {
	Bytes    []byte
	Port     int // of LoRaWAN (FPort), 0 elsewhere
	Received time.Time
}

// Decoded is what a Decoder found.
type Decoded struct {
	Readings []Reading      // zero Time: none was given
	Attrs    map[string]any // client attributes, nil for none
	Relative bool           // times count from the arrival
	Rejected []string       // values that can't be used, and why
}

// UnixTime returns the time that n is after 1970 in the unit that makes it a
// year before 2100: seconds, milliseconds, microseconds or nanoseconds.
func UnixTime(n int64) (t time.Time, ok bool) {
	const s = 4_100_000_000 // the end of 2099
	switch {
	case n < s:
		return time.Unix(max(n, -s), 0).UTC(), true
	case n < s*1e3:
		return time.UnixMilli(n).UTC(), true
	case n < s*1e6:
		return time.UnixMicro(n).UTC(), true
	case n < s*1e9:
		return time.Unix(0, n).UTC(), true
	}
	return time.Time{}, false
}
