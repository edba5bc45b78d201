package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"

	"github.com/citywarden/citywarden"
)

type appsCmd struct {
	List   appListCmd   `cmd:"" help:"List the apps that have a key."`
	Add    appAddCmd    `cmd:"" help:"Make a key for an app; it is printed this once."`
	Revoke appRevokeCmd `cmd:"" help:"Revoke the key of an app."`
}

type appListCmd struct{ remote }

// Run lists the apps.
func (k *appListCmd) Run(ctx context.Context, o output) error {
	return printList(ctx, o, &k.remote, "/api-keys", url.Values{}, []string{"NAME", "PER MINUTE", "SINCE", "CONTACT"}, func(at stamp, x citywarden.APIKey) []string {
		return []string{x.Name, strconv.Itoa(x.PerMinute), at(x.Created), dash(x.Contact)}
	})
}

type appAddCmd struct {
	remote
	Name      string `arg:"" help:"The app's name."`
	Contact   string `help:"Who answers for it."`
	PerMinute int    `help:"How many cases it may report in a minute." default:"60"`
}

// Run makes a key.
func (k *appAddCmd) Run(ctx context.Context, o output) error {
	c, err := k.client(ctx)
	if err != nil {
		return err
	}
	var made struct {
		Key string            `json:"key"`
		App citywarden.APIKey `json:"app"`
	}
	if err := c.call(ctx, "POST", "/api-keys", map[string]any{"name": k.Name, "contact": k.Contact, "per_minute": k.PerMinute}, &made); err != nil {
		return err
	}
	if k.JSON {
		return toJSON(o.out, made)
	}
	fmt.Fprintf(o.out, "app %s may report %s a minute\nkey %s\n", made.App.Name, counted(made.App.PerMinute, "case"), made.Key)
	return nil
}

type appRevokeCmd struct {
	remote
	Name string `arg:"" help:"The app's name."`
}

// Run revokes a key.
func (k *appRevokeCmd) Run(ctx context.Context, o output) error {
	c, err := k.client(ctx)
	if err != nil {
		return err
	}
	if err := c.call(ctx, "DELETE", "/api-keys/"+url.PathEscape(k.Name), nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(o.out, "the key of %s is revoked\n", k.Name)
	return nil
}
