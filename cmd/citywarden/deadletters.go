package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/citywarden/citywarden"
)

type deadlettersCmd struct {
	List   deadListCmd   `cmd:"" help:"List messages that could not be used: why, and what was sent."`
	Replay deadReplayCmd `cmd:"" help:"Bring in again what can be used now, as after a correction of a model."`
}

type deadListCmd struct {
	remote
	Device string `arg:"" optional:"" help:"Only of that device."`
	Open   bool   `help:"Only those that were not brought in again."`
	Limit  int    `help:"How many at most, the newest first." default:"20"`
}

// Run lists dead letters.
func (d *deadListCmd) Run(ctx context.Context, o output) error {
	c, err := d.client(ctx)
	if err != nil {
		return err
	}
	q := url.Values{"limit": {strconv.Itoa(d.Limit)}}
	if d.Device != "" {
		q.Set("device", d.Device)
	}
	if d.Open {
		q.Set("open", "true")
	}
	var page struct {
		Items []citywarden.DeadLetter `json:"items"`
	}
	if err := c.call(ctx, "GET", "/deadletters?"+q.Encode(), nil, &page); err != nil {
		return err
	}
	if d.JSON {
		return toJSON(o.out, page.Items)
	}
	return deadLetters(ctx, o, c, page.Items)
}

func deadLetters(ctx context.Context, o output, c *client, list []citywarden.DeadLetter) error {
	at, err := c.stamp(ctx)
	if err != nil {
		return err
	}
	rows := [][]string{{"ARRIVED", "DEVICE", "OVER", "WHY", "WHAT", "REPLAYED"}}
	for _, l := range list {
		rows = append(rows, []string{at(l.Received), string(l.Device), l.Protocol, l.Reason, payload(l.Payload), at(l.Replayed)})
	}
	table(o.out, rows)
	return nil
}

// payload prints what a device sent on one line: text as it is, other bytes in
// hex, at most 120 characters.
func payload(b []byte) string {
	const most = 120
	s := string(b)
	if !utf8.Valid(b) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && !unicode.IsSpace(r) }) {
		s = hex.EncodeToString(b)
	}
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return s
}

type deadReplayCmd struct {
	remote
	Device string `arg:"" optional:"" help:"Only what that device sent."`
}

// Run replays, and prints what still fails.
func (d *deadReplayCmd) Run(ctx context.Context, o output) error {
	c, err := d.client(ctx)
	if err != nil {
		return err
	}
	c.http.Timeout = 0 // as long as it takes
	var r citywarden.Replay
	if err := c.call(ctx, "POST", "/deadletters/replay", map[string]string{"device": d.Device}, &r); err != nil {
		return err
	}
	if d.JSON {
		return toJSON(o.out, r)
	}
	fmt.Fprintf(o.out, "%s brought in again, %d still can't be used\n", counted(r.Replayed, "message"), r.Failing)
	if len(r.First) > 0 {
		return deadLetters(ctx, o, c, r.First)
	}
	return nil
}
