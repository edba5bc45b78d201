package main

import (
	"context"
	"fmt"
	"net/url"

	"github.com/citywarden/citywarden"
)

type provisioningCmd struct {
	List provisioningListCmd `cmd:"" help:"List the models whose devices may get a credential by themselves."`
	Set  provisioningSetCmd  `cmd:"" help:"Make a key and secret for a model; the secret is printed this once."`
	End  provisioningEndCmd  `cmd:"" help:"Take key and secret of a model away."`
}

type provisioningListCmd struct{ remote }

// Run lists the models.
func (p *provisioningListCmd) Run(ctx context.Context, o output) error {
	return printList(ctx, o, &p.remote, "/provisioning", url.Values{}, []string{"MODEL", "KEY", "DEVICES", "SINCE"}, func(at stamp, x citywarden.Provisioning) []string {
		return []string{string(x.Model), x.Key, who(x.CreateNew), at(x.Since)}
	})
}

func who(createNew bool) string {
	if createNew {
		return "new"
	}
	return "registered"
}

type provisioningSetCmd struct {
	remote
	Model     string `arg:"" help:"The model."`
	CreateNew bool   `help:"Register devices that are not registered yet."`
}

// Run makes key and secret.
func (p *provisioningSetCmd) Run(ctx context.Context, o output) error {
	c, err := p.client(ctx)
	if err != nil {
		return err
	}
	var made struct {
		citywarden.Provisioning
		Secret string `json:"secret"`
	}
	if err := c.call(ctx, "PUT", "/provisioning/"+url.PathEscape(p.Model), map[string]bool{"create_new": p.CreateNew}, &made); err != nil {
		return err
	}
	if p.JSON {
		return toJSON(o.out, made)
	}
	fmt.Fprintf(o.out, "%s devices of model %s may get a credential\nprovisionDeviceKey %s\nprovisionDeviceSecret %s\n", who(made.CreateNew), made.Model, made.Key, made.Secret)
	return nil
}

type provisioningEndCmd struct {
	remote
	Model string `arg:"" help:"The model."`
}

// Run takes key and secret away.
func (p *provisioningEndCmd) Run(ctx context.Context, o output) error {
	c, err := p.client(ctx)
	if err != nil {
		return err
	}
	if err := c.call(ctx, "DELETE", "/provisioning/"+url.PathEscape(p.Model), nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(o.out, "devices of model %s can't provision themselves any more\n", p.Model)
	return nil
}
