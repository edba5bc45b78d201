package citywarden_test

import (
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

func TestAnswerCall(t *testing.T) {
	now := time.UnixMilli(1631881236974)
	for call, want := range map[string]string{
		`{"method":"getCurrentTime","params":{}}`:                 `1631881236974`,
		`{"method":"getTime"}`:                                    `1631881236974`,
		`{"method":"getSessionLimits","params":{"timeout":5000}}`: `{"maxPayloadSize":262144,"maxInflightMessages":256,"rateLimits":{}}`,
		`{"method":"getWeather","params":"x"}`:                    `{"error":"no method getWeather; the platform answers getCurrentTime, getTime, getSessionLimits"}`,
	} {
		got, err := citywarden.AnswerCall([]byte(call), now, citywarden.Limits{})
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v; want %s", call, got, err, want)
		}
	}
	for _, call := range []string{"", "x", "[]", "{}", `{"method":7}`} {
		if got, err := citywarden.AnswerCall([]byte(call), now, citywarden.Limits{}); citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), "getCurrentTime") {
			t.Errorf("%s: %s, %v", call, got, err)
		}
	}
}
