package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/dashboards/api"
	"github.com/citywarden/citywarden/devices"
	"github.com/citywarden/citywarden/ingest"
	"github.com/citywarden/citywarden/ingest/trace"
)

// alarmed is the registry as people see it: each device with its worst alarm.
type alarmed struct {
	*devices.Registry
	desk *cases.Desk
}

func (a alarmed) mark(v *citywarden.DeviceView) {
	if s := a.desk.Worst(v.ID); s != 0 {
		v.Alarm = s.String()
	}
}

// Get returns the device with its worst alarm.
func (a alarmed) Get(id citywarden.DeviceID) (citywarden.DeviceView, error) {
	v, err := a.Registry.Get(id)
	if err == nil {
		a.mark(&v)
	}
	return v, err
}

// List returns devices, each with its worst alarm.
func (a alarmed) List(f citywarden.DeviceFilter) ([]citywarden.DeviceView, string, error) {
	vs, next, err := a.Registry.List(f)
	for i := range vs {
		a.mark(&vs[i])
	}
	return vs, next, err
}

// downlinks is what devices get.
type downlinks struct {
	*devices.Registry
	*devices.Commands
	pipeline *ingest.Pipeline
	log      interface{ Last() citywarden.Position }
}

func (b *building) downlinks() downlinks {
	return downlinks{b.devices, b.commands, b.ingest, b.journal}
}

// fresh is how long an answer waits for what its device has just reported.
const fresh = 2 * time.Second

// Attributes are those of the registry once it has taken what was acknowledged
// before; when it is too far behind, those that it has.
func (d downlinks) Attributes(ctx context.Context, id citywarden.DeviceID, client, shared []string) (citywarden.DeviceAttributes, error) {
	wait, cancel := context.WithTimeout(ctx, fresh)
	defer cancel()
	_ = d.pipeline.Wait(wait, d.Registry.Name(), d.log.Last())
	return d.Registry.Attributes(id, client, shared)
}

// deviceFiles gives the registry's import report the API's form.
type deviceFiles struct{ *devices.Registry }

// Import reads devices from CSV.
func (d deviceFiles) Import(ctx context.Context, r io.Reader) (api.ImportReport, error) {
	rep, err := d.Registry.Import(ctx, r)
	out := api.ImportReport{Created: rep.Created, Updated: rep.Updated, Failed: rep.Failed, Lines: make([]api.ImportLine, len(rep.Lines))}
	for i, l := range rep.Lines {
		out.Lines[i] = api.ImportLine{Line: l.Line, ID: l.ID, OK: l.OK, Error: l.Error, Warning: l.Warning}
	}
	return out, err
}

// books is the ledger, with what compares it and the way back into the log.
type books struct {
	*ingest.Ledger
	pipeline *ingest.Pipeline
	auditor  *ingest.Auditor
	auditing sync.Mutex
}

// Audit compares log, ledger and time series; one at a time, as it reads all of them.
func (b *books) Audit(ctx context.Context, from time.Time) (citywarden.Audit, error) {
	if !b.auditing.TryLock() {
		return citywarden.Audit{}, citywarden.Errorf(citywarden.CodeConflict, "an audit is running; ask again when it has ended")
	}
	defer b.auditing.Unlock()
	return b.auditor.Audit(ctx, from)
}

// Replay brings in dead letters again.
func (b *books) Replay(ctx context.Context, device citywarden.DeviceID) (citywarden.Replay, error) {
	return b.pipeline.Replay(ctx, b.Ledger, device)
}

// tracedDesk is the desk that tells of the records which changed alarms.
type tracedDesk struct {
	*cases.Desk
	trace *trace.Tracer
}

// Apply stores transitions, with the cases that they open or join.
func (d tracedDesk) Apply(ctx context.Context, upTo citywarden.Position, ts []citywarden.Transition) error {
	begin := time.Now()
	err := d.Desk.Apply(ctx, upTo, ts)
	end := time.Now()
	for i := range ts {
		if t := &ts[i]; d.trace.Follows(t.Position) {
			d.trace.Span(t.Position, "desk", begin, end, err, slog.String("alarm", string(t.Alarm.ID)), slog.String("transition", string(t.Kind)))
		}
	}
	return err
}

// countyGrids are the unit grids; when they change, so does where devices and
// components lie.
type countyGrids struct {
	*cases.Grids
	devices    *devices.Registry
	components *cases.Components
}

// Import takes grids and looks up the grid of every device and component again.
func (g countyGrids) Import(ctx context.Context, r io.Reader, o citywarden.GridImport) (citywarden.GridReport, error) {
	report, err := g.Grids.Import(ctx, r, o)
	if err != nil || !report.Taken {
		return report, err
	}
	if _, err := g.components.Regrid(ctx); err != nil {
		return report, err
	}
	_, err = g.devices.Regrid(ctx)
	return report, err
}

// layers are the layers of the map: the unit grids, and the GeoJSON files of a
// folder.
type layers struct {
	dir   string
	grids *cases.Grids
}

// drawn is the order of drawing of the layers that the demo has; others come
// after them.
var drawn = []string{"dmas", "grids", "buildings", "streets", "pipes"}

const gridLayer = "grids"

// Names returns the layers that are there, in the order of drawing.
func (l *layers) Names() []string {
	files, _ := fs.Glob(os.DirFS(l.dir), "*.geojson") // the pattern is right
	var out []string
	for _, f := range files {
		out = append(out, strings.TrimSuffix(f, ".geojson"))
	}
	if len(l.grids.All()) > 0 && !slices.Contains(out, gridLayer) {
		out = append(out, gridLayer)
	}
	rank := func(name string) int {
		if i := slices.Index(drawn, name); i >= 0 {
			return i
		}
		return len(drawn)
	}
	slices.SortStableFunc(out, func(a, b string) int { return rank(a) - rank(b) })
	return out
}

// Layer returns what of a layer touches an area as GeoJSON; CodeNotFound when there
// is none of that name.
func (l *layers) Layer(_ context.Context, name string, area citywarden.AreaCode) (json.RawMessage, error) {
	if name == gridLayer {
		return l.grids.GeoJSON(string(area))
	}
	if !slices.Contains(l.Names(), name) { // also keeps the name inside the folder
		return nil, citywarden.Errorf(citywarden.CodeNotFound, "no map layer %q; there are %s", name, strings.Join(l.Names(), ", "))
	}
	b, err := os.ReadFile(filepath.Join(l.dir, name+".geojson"))
	if err != nil {
		return nil, fmt.Errorf("map layer %s: %w", name, err)
	}
	if b, err = l.grids.Touching(b, area); err != nil {
		return nil, fmt.Errorf("map layer %s: %w", name, err)
	}
	return b, nil
}

// Bounds returns the corners of the unit grids in an area; ok is false without any.
func (l *layers) Bounds(area citywarden.AreaCode) (southWest, northEast citywarden.Point, ok bool) {
	southWest = citywarden.Point{Lat: math.Inf(1), Lon: math.Inf(1)}
	northEast = citywarden.Point{Lat: math.Inf(-1), Lon: math.Inf(-1)}
	for _, g := range l.grids.Under(string(area)) {
		for _, p := range g.Ring {
			southWest = citywarden.Point{Lat: min(southWest.Lat, p.Lat), Lon: min(southWest.Lon, p.Lon)}
			northEast = citywarden.Point{Lat: max(northEast.Lat, p.Lat), Lon: max(northEast.Lon, p.Lon)}
			ok = true
		}
	}
	return southWest, northEast, ok
}
