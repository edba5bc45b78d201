package influx

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
)

// spoken gives what InfluxDB 3 says of a write the form that the client library
// understands, which is that of InfluxDB 2.
//
// InfluxDB 3 answers {"error": "partial write of line protocol occurred", "data": [{"line_number": 2,
// "error_message": "…"}]}, or one object as data, with no type of content.
type spoken struct{ next http.RoundTripper }

// maxAnswer is of how much of an answer that is an error is read: 100 lines are told of.
const maxAnswer = 1 << 20

// RoundTrip implements http.RoundTripper.
func (s spoken) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := s.next.RoundTrip(r)
	if err != nil || res.StatusCode < 400 {
		return res, err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	res.Body.Close()
	if err != nil {
		return nil, err
	}
	if b := plain(body); b != nil {
		body = b
		res.Header.Set("Content-Type", "application/json")
	}
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return res, nil
}

// plain returns an error of InfluxDB 1 or 3 as one of InfluxDB 2, nil for anything else.
func plain(body []byte) []byte {
	var e struct {
		Error, Message string
		Data           json.RawMessage
	}
	if json.Unmarshal(body, &e) != nil || e.Error == "" || e.Message != "" {
		return nil
	}
	type line struct {
		Reason string `json:"error_message"`
	}
	var lines []line
	if json.Unmarshal(e.Data, &lines) != nil {
		var one line
		if json.Unmarshal(e.Data, &one) == nil {
			lines = append(lines, one)
		}
	}
	words := []string{e.Error}
	for _, l := range lines {
		if l.Reason != "" {
			words = append(words, l.Reason)
		}
	}
	b, err := json.Marshal(map[string]string{"code": "invalid", "message": strings.Join(words, ": ")})
	if err != nil {
		return nil
	}
	return b
}
