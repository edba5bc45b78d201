package main

import (
	"context"
	"fmt"
	"net/url"

	"github.com/citywarden/citywarden"
)

type noticesCmd struct {
	List      noticeListCmd   `cmd:"" help:"List notices, the newest first."`
	Resend    noticeResendCmd `cmd:"" help:"Send a notice once more that was given up, or all that a receiver did not get."`
	Receivers receiverListCmd `cmd:"" help:"List who can be told of cases."`
	Test      noticeTestCmd   `cmd:"" help:"Send a test to a receiver and say what its channel answers."`
}

type receiverListCmd struct{ remote }

// Run lists the receivers.
func (k *receiverListCmd) Run(ctx context.Context, o output) error {
	return printList(ctx, o, &k.remote, "/receivers", nil, []string{"NAME", "CHANNEL", "GETS", "QUIET"}, func(_ stamp, x citywarden.Receiver) []string {
		gets := "escalations, its department's cases"
		if x.All {
			gets = "all"
		}
		return []string{x.Name, x.Channel, gets, dash(x.Quiet)}
	})
}

type noticeTestCmd struct {
	remote
	Receiver string `arg:"" help:"As in the configuration."`
}

// Run sends a test.
func (k *noticeTestCmd) Run(ctx context.Context, o output) error {
	c, err := k.client(ctx)
	if err != nil {
		return err
	}
	if err := c.call(ctx, "POST", "/notices/test", map[string]string{"receiver": k.Receiver}, nil); err != nil {
		return err
	}
	fmt.Fprintf(o.out, "%s took the test\n", k.Receiver)
	return nil
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
	return printList(ctx, o, &k.remote, "/notices", q, []string{"KEY", "RECEIVER", "STATE", "AT", "TRIES", "TEXT", "ERROR"}, func(at stamp, x citywarden.Notice) []string {
		return []string{x.Key, dash(x.Receiver), string(x.State), at(x.At), fmt.Sprint(x.Tries), x.Text.String(), dash(x.Error)}
	})
}

type noticeResendCmd struct {
	remote
	Key      string `arg:"" optional:"" help:"The notice's key."`
	Receiver string `arg:"" optional:"" help:"Who did not get it."`
	AllTo    string `help:"Instead of one notice: all that this receiver did not get." placeholder:"RECEIVER"`
}

// Run sends dead notices again.
func (k *noticeResendCmd) Run(ctx context.Context, o output) error {
	if (k.AllTo == "") != (k.Key != "" && k.Receiver != "") || k.AllTo != "" && k.Key != "" {
		return &usageError{"say KEY and RECEIVER of a notice, or --all-to=RECEIVER"}
	}
	c, err := k.client(ctx)
	if err != nil {
		return err
	}
	dead := []citywarden.Notice{{Key: k.Key, Receiver: k.Receiver}}
	if k.AllTo != "" {
		dead = nil
		err := list(ctx, c, "/notices", url.Values{"limit": {"1000"}, "state": {"dead"}}, func(n citywarden.Notice) error {
			if n.Receiver == k.AllTo {
				dead = append(dead, n)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	sent := []citywarden.Notice{}
	for _, n := range dead {
		var x citywarden.Notice
		if err := c.call(ctx, "POST", "/notices/resend", map[string]string{"key": n.Key, "receiver": n.Receiver}, &x); err != nil {
			return err
		}
		sent = append(sent, x)
	}
	switch {
	case k.JSON && k.AllTo != "":
		return toJSON(o.out, sent)
	case k.JSON:
		return toJSON(o.out, sent[0])
	case len(sent) == 0:
		fmt.Fprintf(o.out, "no notice to %s was given up\n", k.AllTo)
	}
	at, err := c.stamp(ctx)
	if err != nil {
		return err
	}
	for _, x := range sent {
		if x.State == citywarden.NoticeDropped {
			fmt.Fprintf(o.out, "notice %s is not sent to %s: %s\n", x.Key, x.Receiver, x.Error)
			continue
		}
		fmt.Fprintf(o.out, "notice %s is sent to %s again at %s\n", x.Key, x.Receiver, at(x.Next))
	}
	return nil
}
