package main

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/citywarden/citywarden"
)

type sitesCmd struct {
	List   siteListCmd   `cmd:"" help:"List sites with their attributes."`
	Set    siteSetCmd    `cmd:"" help:"Add a site or change its attributes; they hold for its devices that have none of their own."`
	Delete siteDeleteCmd `cmd:"" help:"Delete a site; its devices fall back to the defaults of their models."`
}

type siteListCmd struct{ remote }

// Run lists the sites.
func (s *siteListCmd) Run(ctx context.Context, o output) error {
	return printList(ctx, o, &s.remote, "/sites", url.Values{}, []string{"ID", "NAME", "ATTRIBUTES"}, func(_ stamp, x citywarden.Site) []string {
		var attrs []string
		for _, k := range slices.Sorted(maps.Keys(x.Attributes)) {
			attrs = append(attrs, fmt.Sprintf("%s=%v", k, x.Attributes[k]))
		}
		return []string{string(x.ID), x.Name, strings.Join(attrs, " ")}
	})
}

type siteSetCmd struct {
	remote
	ID   string            `arg:"" help:"The site's id: what its devices have as attribute site."`
	Name string            `help:"Its name for people."`
	Attr map[string]string `help:"Attributes, like smoke_limit=0.1; K= takes one away." placeholder:"K=V"`
}

// Run changes what is said and keeps the rest.
func (s *siteSetCmd) Run(ctx context.Context, o output) error {
	c, err := s.client(ctx)
	if err != nil {
		return err
	}
	path := "/sites/" + url.PathEscape(s.ID)
	x := citywarden.Site{Attributes: map[string]any{}}
	if err := c.call(ctx, "GET", path, nil, &x); err != nil && citywarden.CodeOf(err) != citywarden.CodeNotFound {
		return err
	}
	if s.Name != "" {
		x.Name = s.Name
	}
	for k, v := range s.Attr {
		if v == "" {
			delete(x.Attributes, k)
		} else {
			x.Attributes[k] = attribute(v)
		}
	}
	if err := c.call(ctx, "PUT", path, map[string]any{"name": x.Name, "attributes": x.Attributes}, &x); err != nil {
		return err
	}
	if s.JSON {
		return toJSON(o.out, x)
	}
	fmt.Fprintf(o.out, "site %s saved\n", x.ID)
	return nil
}

type siteDeleteCmd struct {
	remote
	ID string `arg:"" help:"The site's id."`
}

// Run deletes a site.
func (s *siteDeleteCmd) Run(ctx context.Context, o output) error {
	c, err := s.client(ctx)
	if err != nil {
		return err
	}
	if err := c.call(ctx, "DELETE", "/sites/"+url.PathEscape(s.ID), nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(o.out, "site %s deleted\n", s.ID)
	return nil
}
