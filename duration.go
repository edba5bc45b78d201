package citywarden

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that files and the API write as "1m30s" or "7d".
type Duration time.Duration

// maxDays is what a Duration can hold.
const maxDays = int(math.MaxInt64 / (24 * time.Hour))

// ParseDuration reads what time.ParseDuration does, and whole days: "7d".
func ParseDuration(s string) (Duration, error) {
	if n := len(s); n > 1 && s[n-1] == 'd' {
		var days int
		if _, err := fmt.Sscanf(s, "%dd", &days); err == nil && fmt.Sprintf("%dd", days) == s {
			if days > maxDays || days < -maxDays {
				return 0, Errorf(CodeInvalid, "bad duration %q; %dd is the longest", s, maxDays)
			}
			return Duration(time.Duration(days) * 24 * time.Hour), nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, Errorf(CodeInvalid, "bad duration %q; write it like 90s, 15m, 24h or 7d", s)
	}
	return Duration(d), nil
}

// Std returns d as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String writes d as people do: "5m", not "5m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Text returns d as people read it: "1h30m", "1 小时 30 分钟".
func (d Duration) Text() Text {
	var parts []string
	rest := d.Std()
	for _, u := range [...]struct {
		d    time.Duration
		name string
	}{{24 * time.Hour, " 天"}, {time.Hour, " 小时"}, {time.Minute, " 分钟"}} {
		if n := rest / u.d; n > 0 {
			parts, rest = append(parts, strconv.Itoa(int(n))+u.name), rest%u.d
		}
	}
	if rest > 0 || len(parts) == 0 {
		parts = append(parts, strconv.FormatFloat(rest.Seconds(), 'g', 4, 64)+" 秒")
	}
	return Text{EN: d.String(), ZH: strings.Join(parts, " ")}
}

// MarshalJSON writes d as a string.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	return d.UnmarshalText([]byte(s))
}

// UnmarshalText reads what ParseDuration does.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	if err == nil {
		*d = v
	}
	return err
}
