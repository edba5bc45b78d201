package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/citywarden/citywarden"
)

type gridsCmd struct {
	Import gridImportCmd `cmd:"" help:"Check unit grids as GeoJSON and take them, all or none."`
	Areas  gridAreasCmd  `cmd:"" help:"List the counties, towns or villages that the unit grids make up."`

	Assign   gridAssignCmd   `cmd:"" help:"Read responsibility grids from CSV or GeoJSON: which officer looks after which unit grids."`
	Officers gridOfficersCmd `cmd:"" help:"List responsibility grids with their officers."`
}

type gridImportCmd struct {
	remote
	File    *os.File `arg:"" help:"GeoJSON with a Polygon per grid; - reads the standard input."`
	CRS     string   `help:"Its coordinates: WGS84, CGCS2000 or GCJ-02. Left out: what the file says, else WGS84." name:"crs"`
	Check   bool     `help:"Only say what is wrong."`
	Force   bool     `help:"Take them in spite of gaps."`
	Replace bool     `help:"The file has all grids of its communities: those that it lacks end."`
}

// Run imports the file and prints what is wrong with it.
func (g *gridImportCmd) Run(ctx context.Context, o output) error {
	defer g.File.Close()
	c, err := g.client(ctx)
	if err != nil {
		return err
	}
	q := url.Values{}
	if g.CRS != "" {
		q.Set("crs", g.CRS)
	}
	for k, yes := range map[string]bool{"check": g.Check, "force": g.Force, "replace": g.Replace} {
		if yes {
			q.Set(k, "true")
		}
	}
	var r citywarden.GridReport
	if err := c.call(ctx, "POST", "/grids/import?"+q.Encode(), g.File, &r); err != nil {
		return err
	}
	if g.JSON {
		if err := toJSON(o.out, r); err != nil {
			return err
		}
	} else {
		for _, p := range r.Errors {
			fmt.Fprintf(o.err, "%s: error: %s: %s\n", g.File.Name(), p.Kind, p.Text)
		}
		for _, p := range r.Warnings {
			fmt.Fprintf(o.err, "%s: warning: %s: %s\n", g.File.Name(), p.Kind, p.Text)
		}
		fmt.Fprintf(o.out, "%s in %s: %d new, %d changed, %d the same, %d ended\n", counted(r.Grids, "grid"), r.CRS, r.Added, r.Changed, r.Same, r.Ended)
	}
	if n := len(r.Errors); n > 0 {
		return fmt.Errorf("nothing was taken: %s", counted(n, "error"))
	}
	return nil
}

type gridAreasCmd struct {
	remote
	Level string `help:"county, town or village." default:"village" enum:"county,town,village"`
	Under string `help:"Only in the area of that code, like 350623100."`
}

// Run lists the areas.
func (g *gridAreasCmd) Run(ctx context.Context, o output) error {
	return printList(ctx, o, &g.remote, "/areas", url.Values{"level": {g.Level}, "under": {g.Under}}, []string{"CODE", "NAME", "GRIDS", "AREA M2"}, func(_ stamp, a citywarden.Area) []string {
		return []string{a.Code, dash(a.Name), fmt.Sprint(a.Grids), fmt.Sprintf("%.0f", a.Area)}
	})
}

type gridAssignCmd struct {
	remote
	File    *os.File `arg:"" help:"CSV with the columns id, officer, grids and name, or GeoJSON; - reads the standard input."`
	Replace bool     `help:"Responsibility grids that the file lacks go, when nothing is wrong with it."`
}

// Run reads the file and prints what is wrong with which line.
func (g *gridAssignCmd) Run(ctx context.Context, o output) error {
	defer g.File.Close()
	c, err := g.client(ctx)
	if err != nil {
		return err
	}
	var r citywarden.TableReport
	if err := c.call(ctx, "POST", fmt.Sprintf("/responsibility-grids/import?replace=%t", g.Replace), g.File, &r); err != nil {
		return err
	}
	return printTable(o, g.JSON, g.File.Name(), "responsibility grids", r)
}

// printTable prints what became of a table that was imported from file.
func printTable(o output, asJSON bool, file, what string, r citywarden.TableReport) error {
	if asJSON {
		if err := toJSON(o.out, r); err != nil {
			return err
		}
	} else {
		for _, l := range r.Lines {
			if l.Error != "" {
				fmt.Fprintf(o.err, "%s:%d: error: %s\n", file, l.Line, l.Error)
			} else {
				fmt.Fprintf(o.err, "%s:%d: warning: %s\n", file, l.Line, l.Warning)
			}
		}
		fmt.Fprintf(o.out, "%s: %d new, %d changed, %d the same, %d removed, %d failed\n", what, r.Added, r.Changed, r.Same, r.Removed, r.Failed)
	}
	if r.Failed > 0 {
		return fmt.Errorf("%d lines were not taken", r.Failed)
	}
	return nil
}

type gridOfficersCmd struct{ remote }

// Run lists the responsibility grids.
func (g *gridOfficersCmd) Run(ctx context.Context, o output) error {
	return printList(ctx, o, &g.remote, "/responsibility-grids", url.Values{}, []string{"ID", "NAME", "OFFICER", "GRIDS"}, func(_ stamp, x citywarden.ResponsibilityGrid) []string {
		codes := make([]string, len(x.Grids))
		for i, code := range x.Grids {
			codes[i] = string(code)
		}
		return []string{string(x.ID), dash(x.Name), dash(x.Officer), strings.Join(codes, " ")}
	})
}
