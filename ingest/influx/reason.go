package influx

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
)

// spoken gives what InfluxDB 1 and 3 say of a write the form that the client library
// understands, which is that of InfluxDB 2.
//
// InfluxDB 3 names no type of content. Since 3.4.2 it answers {"code": "invalid", "message": "write buffer error: …"},
// before that {"error": "parsing failed for write_lp endpoint", "data": {"line_number": 2, "error_message": "…"}}.
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

// plain returns an error of any InfluxDB as InfluxDB 2 says it, nil for anything else.
func plain(body []byte) []byte {
	var e struct {
		Error, Message string
		Data           json.RawMessage
	}
	switch {
	case json.Unmarshal(body, &e) != nil:
		return nil
	case e.Message != "":
		return body
	case e.Error == "":
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
