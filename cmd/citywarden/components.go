package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strconv"

	"github.com/citywarden/citywarden"
)

type componentsCmd struct {
	Import componentImportCmd `cmd:"" help:"Add the components of a CSV or GeoJSON file, or change those that are there."`
	Export componentExportCmd `cmd:"" help:"Print components as CSV or GeoJSON."`
	List   componentListCmd   `cmd:"" help:"List components."`
	Near   componentNearCmd   `cmd:"" help:"List the components around a position, the nearest first."`
	Show   componentShowCmd   `cmd:"" help:"Show one component."`
}

type componentImportCmd struct {
	remote
	File  *os.File `arg:"" help:"CSV with the columns id, lat, lon and others, or GeoJSON with a Point per component; - reads the standard input."`
	CRS   string   `help:"Of positions that don't say their own: WGS84, CGCS2000 or GCJ-02. Left out: what the file says, else WGS84." name:"crs"`
	Check bool     `help:"Only say what is wrong."`
}

// Run reads the file and prints what is wrong with which line.
func (k *componentImportCmd) Run(ctx context.Context, o output) error {
	defer k.File.Close()
	c, err := k.client(ctx)
	if err != nil {
		return err
	}
	q := url.Values{"crs": {k.CRS}, "check": {strconv.FormatBool(k.Check)}}
	var r citywarden.TableReport
	if err := c.call(ctx, "POST", "/components/import?"+q.Encode(), k.File, &r); err != nil {
		return err
	}
	return printTable(o, k.JSON, k.File.Name(), "components", r)
}

// componentChoice says which components are meant.
type componentChoice struct {
	Class      string `help:"Only of that class, like component/0101."`
	Grid       string `help:"Only in that unit grid, or area, like 350623100."`
	Department string `help:"Only those that it is authority, owner or maintainer of."`
	State      string `help:"Only those: intact, damaged, lost, abandoned or removed."`
	Search     string `help:"Only with that in the code, name or address." short:"s"`
}

func (k *componentChoice) query() url.Values {
	q := url.Values{}
	for name, v := range map[string]string{"class": k.Class, "grid": k.Grid, "department": k.Department, "state": k.State, "q": k.Search} {
		if v != "" {
			q.Set(name, v)
		}
	}
	return q
}

type componentExportCmd struct {
	remote
	componentChoice
	Format string `help:"csv or geojson." default:"csv" enum:"csv,geojson"`
}

// Run prints components.
func (k *componentExportCmd) Run(ctx context.Context, o output) error {
	c, err := k.client(ctx)
	if err != nil {
		return err
	}
	q := k.query()
	q.Set("format", k.Format)
	return c.call(ctx, "GET", "/components/export?"+q.Encode(), nil, o.out)
}

type componentListCmd struct {
	remote
	componentChoice
}

// Run lists components.
func (k *componentListCmd) Run(ctx context.Context, o output) error {
	q := k.query()
	q.Set("limit", "1000")
	return printList(ctx, o, &k.remote, "/components", q, []string{"ID", "CLASS", "NAME", "STATE", "GRID", "OWNER", "MAINTAINER"}, func(_ stamp, x citywarden.Component) []string {
		return []string{string(x.ID), string(x.Class), x.Name, string(x.State), dash(string(x.Grid)), dash(x.Owner), dash(x.Maintainer)}
	})
}

type componentNearCmd struct {
	remote
	Lat    float64 `required:"" help:"Latitude, degrees."`
	Lon    float64 `required:"" help:"Longitude, degrees."`
	CRS    string  `help:"Of the position: WGS84, CGCS2000 or GCJ-02." name:"crs"`
	Class  string  `help:"Only of that class, like component/0101."`
	Within float64 `help:"Metres, at most 5000." default:"100"`
}

// Run lists what is nearby.
func (k *componentNearCmd) Run(ctx context.Context, o output) error {
	q := url.Values{"lat": {fmt.Sprint(k.Lat)}, "lon": {fmt.Sprint(k.Lon)}, "crs": {k.CRS}, "class": {k.Class}, "within": {fmt.Sprint(k.Within)}}
	return printList(ctx, o, &k.remote, "/components/nearby", q, []string{"AWAY", "ID", "CLASS", "NAME", "STATE", "MAINTAINER"}, func(_ stamp, x citywarden.Nearby) []string {
		return []string{fmt.Sprintf("%.0f m", x.Distance), string(x.ID), string(x.Class), x.Name, string(x.State), dash(x.Maintainer)}
	})
}

type componentShowCmd struct {
	remote
	ID string `arg:"" help:"The component's code."`
}

// Run shows one component.
func (k *componentShowCmd) Run(ctx context.Context, o output) error {
	c, err := k.client(ctx)
	if err != nil {
		return err
	}
	var x citywarden.Component
	if err := c.call(ctx, "GET", "/components/"+url.PathEscape(k.ID), nil, &x); err != nil {
		return err
	}
	if k.JSON {
		return toJSON(o.out, x)
	}
	table(o.out, [][]string{
		{"component", string(x.ID) + "  " + x.Name}, {"class", string(x.Class)}, {"state", string(x.State)}, {"grid", dash(string(x.Grid))},
		{"position", fmt.Sprintf("lat %.6f, lon %.6f", x.Location.Lat, x.Location.Lon)}, {"address", dash(x.Address)}, {"authority", dash(x.Authority)},
		{"owner", dash(x.Owner)}, {"maintainer", dash(x.Maintainer)}, {"initial date", dash(x.Initial)}, {"change date", dash(x.Changed)}, {"remark", dash(x.Remark)},
	})
	return nil
}
