package main

import (
	"context"
	"fmt"
	"net/url"

	"github.com/citywarden/citywarden"
)

type noticesCmd struct {
	List   noticeListCmd   `cmd:"" help:"List notices, the newest first."`
	Resend noticeResendCmd `cmd:"" help:"Send a notice once more that was given up."`
}

type noticeListCmd struct {
	remote
	State string `help:"Only those that are pending, sent, dropped, dead or kept."`
	Case  string `help:"Only of that case."`
}

// Run lists notices.
func (k *noticeListCmd) Run(ctx context.Context, o output) error {
	q := url.Values{"limit": {"1000"}}
	for name, v := range map[string]string{"state": k.State, "case": k.Case} {
		if v != "" {
			q.Set(name, v)
		}
	}
	return printList(ctx, o, &k.remote, "/notices", q, []string{"KEY", "RECEIVER", "STATE", "AT", "TRIES", "TEXT", "ERROR"}, func(x citywarden.Notice) []string {
		return []string{x.Key, dash(x.Receiver), string(x.State), when(x.At), fmt.Sprint(x.Tries), x.Text.String(), dash(x.Error)}
	})
}

type noticeResendCmd struct {
	remote
	Key      string `arg:"" help:"The notice's key."`
	Receiver string `arg:"" help:"Who did not get it."`
}

// Run sends a dead notice again.
func (k *noticeResendCmd) Run(ctx context.Context, o output) error {
	c, err := k.client(ctx)
	if err != nil {
		return err
	}
	var x citywarden.Notice
	if err := c.call(ctx, "POST", "/notices/resend", map[string]string{"key": k.Key, "receiver": k.Receiver}, &x); err != nil {
		return err
	}
	if k.JSON {
		return toJSON(o.out, x)
	}
	fmt.Fprintf(o.out, "notice %s is sent to %s again at %s\n", x.Key, x.Receiver, when(x.Next))
	return nil
}
