package main

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/citywarden/citywarden"
)

type deviceTellCmd struct {
	remote
	ID      string            `arg:"" help:"The device's id."`
	Method  string            `arg:"" help:"A command of its model."`
	Param   map[string]string `help:"Parameters, like opening=50." placeholder:"K=V"`
	Expires string            `help:"How long it is of use, like 90s, 10m or 2d; what the model says when left out."`
	Wait    time.Duration     `help:"Wait so long for the end of it; exits 1 when that does not come or it expires."`
}

// askEvery is how often it is asked how far a command is.
const askEvery = 200 * time.Millisecond

// Run sends the command and, with --wait, waits for what becomes of it.
func (d *deviceTellCmd) Run(ctx context.Context, o output) error {
	params := map[string]any{}
	for k, v := range d.Param {
		params[k] = attribute(v)
	}
	c, err := d.client(ctx)
	if err != nil {
		return err
	}
	path := "/devices/" + url.PathEscape(d.ID) + "/commands"
	var x citywarden.Command
	if err := c.call(ctx, "POST", path, map[string]any{"method": d.Method, "params": params, "expires": d.Expires}, &x); err != nil {
		return err
	}
	for late := time.Now().Add(d.Wait); d.Wait > 0 && x.Open() && time.Now().Before(late); {
		select {
		case <-time.After(askEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
		var page struct{ Items []citywarden.Command }
		if err := c.call(ctx, "GET", path+"?limit=100", nil, &page); err != nil {
			return err
		}
		for _, y := range page.Items {
			if y.ID == x.ID {
				x = y
			}
		}
	}
	if d.JSON {
		err = toJSON(o.out, x)
	} else {
		fmt.Fprintf(o.out, "command %d %s\n", x.ID, x.State)
		if len(x.Answer) > 0 {
			fmt.Fprintf(o.out, "%s\n", x.Answer)
		}
		if x.Reason != "" && d.Wait == 0 { // else the error says it
			fmt.Fprintf(o.out, "%s\n", x.Reason)
		}
	}
	switch {
	case err != nil || d.Wait == 0:
		return err
	case x.State == citywarden.CommandTimedOut:
		return fmt.Errorf("command %d expired", x.ID)
	case x.State == citywarden.CommandFailed:
		return fmt.Errorf("command %d can't be delivered: %s", x.ID, x.Reason)
	case x.Open():
		return fmt.Errorf("command %d is still %s; `citywarden devices commands %s` shows what becomes of it", x.ID, x.State, d.ID)
	}
	return nil
}

type deviceCommandsCmd struct {
	remote
	ID   string `arg:"" help:"The device's id."`
	Open bool   `help:"Only those of which something can still become."`
}

// Run lists commands, the newest first.
func (d *deviceCommandsCmd) Run(ctx context.Context, o output) error {
	q := url.Values{"limit": {"100"}}
	if d.Open {
		q.Set("open", "true")
	}
	return printList(ctx, o, &d.remote, "/devices/"+url.PathEscape(d.ID)+"/commands", q,
		[]string{"ID", "METHOD", "PARAMS", "STATE", "CREATED", "EXPIRES", "BY", "ANSWER"}, func(at stamp, c citywarden.Command) []string {
			return []string{fmt.Sprint(c.ID), c.Method, string(c.Params), string(c.State), at(c.Created), at(c.Expires), c.By, dash(cmp.Or(string(c.Answer), c.Reason))}
		})
}
