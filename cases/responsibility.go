package cases

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
)

// ResponsibilityStore keeps responsibility grids.
type ResponsibilityStore interface {
	ResponsibilityGrids(context.Context) ([]citywarden.ResponsibilityGrid, error)
	// ChangeResponsibilityGrids saves and deletes, all or none.
	ChangeResponsibilityGrids(ctx context.Context, save []citywarden.ResponsibilityGrid, remove []citywarden.ResponsibilityGridID) error
}

// Responsibility says who looks after which unit grids. It may be used by several
// goroutines.
type Responsibility struct {
	store   ResponsibilityStore
	grids   *Grids
	officer func(ctx context.Context, name string, grids ...citywarden.GridCode) error

	changing sync.Mutex // held from reading all to replacing it, the store included

	mu  sync.RWMutex
	all map[citywarden.ResponsibilityGridID]citywarden.ResponsibilityGrid
	of  map[citywarden.GridCode]citywarden.ResponsibilityGridID // by what stands in Grids
}

// LoadResponsibility returns the responsibility grids that are in s. officer
// returns CodeInvalid unless name is a grid officer who may see the grids.
func LoadResponsibility(ctx context.Context, s ResponsibilityStore, g *Grids, officer func(ctx context.Context, name string, grids ...citywarden.GridCode) error) (*Responsibility, error) {
	r := &Responsibility{store: s, grids: g, officer: officer}
	all, err := s.ResponsibilityGrids(ctx)
	if err != nil {
		return nil, fmt.Errorf("load responsibility grids: %w", err)
	}
	next := map[citywarden.ResponsibilityGridID]citywarden.ResponsibilityGrid{}
	for _, x := range all {
		next[x.ID] = x
	}
	r.set(next)
	return r, nil
}

func (r *Responsibility) set(all map[citywarden.ResponsibilityGridID]citywarden.ResponsibilityGrid) {
	of := map[citywarden.GridCode]citywarden.ResponsibilityGridID{}
	for id, x := range all {
		for _, code := range x.Grids {
			of[code] = id
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all, r.of = all, of
}

// All returns the responsibility grids in the order of their ids.
func (r *Responsibility) All() []citywarden.ResponsibilityGrid {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]citywarden.ResponsibilityGrid, 0, len(r.all))
	for _, id := range slices.Sorted(maps.Keys(r.all)) {
		out = append(out, r.all[id])
	}
	return out
}

// Get returns the responsibility grid of an id, or CodeNotFound.
func (r *Responsibility) Get(id citywarden.ResponsibilityGridID) (citywarden.ResponsibilityGrid, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	x, ok := r.all[id]
	if !ok {
		return x, citywarden.Errorf(citywarden.CodeNotFound, "no responsibility grid %q", id)
	}
	return x, nil
}

// Officer returns who looks after a unit grid, "" when nobody does. Of several
// responsibility grids the one that names it most exactly counts.
func (r *Responsibility) Officer(code citywarden.GridCode) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for n := len(code); n > 0; n-- {
		if id, ok := r.of[code[:n]]; ok {
			return r.all[id].Officer
		}
	}
	return ""
}

// Save adds x, or replaces the one of its id, and returns it as it is kept.
// CodeInvalid says what is wrong with it.
func (r *Responsibility) Save(ctx context.Context, x citywarden.ResponsibilityGrid) (citywarden.ResponsibilityGrid, error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	next := r.copy()
	x.Updated = time.Now().UTC().Truncate(time.Millisecond)
	x, err := r.check(ctx, next, x)
	if err != nil {
		return x, fmt.Errorf("responsibility grid %s: %w", x.ID, err)
	}
	next[x.ID] = x
	return x, r.keep(ctx, next, []citywarden.ResponsibilityGrid{x}, nil)
}

// Delete deletes the responsibility grid of an id, or returns CodeNotFound.
func (r *Responsibility) Delete(ctx context.Context, id citywarden.ResponsibilityGridID) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	next := r.copy()
	if _, ok := next[id]; !ok {
		return citywarden.Errorf(citywarden.CodeNotFound, "no responsibility grid %q", id)
	}
	delete(next, id)
	return r.keep(ctx, next, nil, []citywarden.ResponsibilityGridID{id})
}

func (r *Responsibility) copy() map[citywarden.ResponsibilityGridID]citywarden.ResponsibilityGrid {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return maps.Clone(r.all)
}

// keep stores the change that makes all, then shows it.
func (r *Responsibility) keep(ctx context.Context, all map[citywarden.ResponsibilityGridID]citywarden.ResponsibilityGrid,
	save []citywarden.ResponsibilityGrid, remove []citywarden.ResponsibilityGridID) error {
	if len(save)+len(remove) == 0 {
		return nil
	}
	if err := r.store.ChangeResponsibilityGrids(ctx, save, remove); err != nil {
		return fmt.Errorf("save responsibility grids: %w", err)
	}
	r.set(all)
	return nil
}

// check returns x with its codes in order. CodeInvalid says what is wrong with
// it beside the others in all.
func (r *Responsibility) check(ctx context.Context, all map[citywarden.ResponsibilityGridID]citywarden.ResponsibilityGrid, x citywarden.ResponsibilityGrid) (citywarden.ResponsibilityGrid, error) {
	if err := x.ID.Check(); err != nil {
		return x, err
	}
	if x.Officer != "" {
		if err := r.officer(ctx, x.Officer, x.Grids...); err != nil {
			return x, err
		}
	}
	x.Grids = slices.Clone(x.Grids)
	slices.Sort(x.Grids)
	x.Grids = slices.Compact(x.Grids)
	if len(x.Grids) == 0 {
		return x, citywarden.Errorf(citywarden.CodeInvalid, "it has no unit grids; name their codes, or that of an area like 350623100001")
	}
	for _, code := range x.Grids {
		if code == "" || len(r.grids.Under(string(code))) == 0 {
			return x, citywarden.Errorf(citywarden.CodeInvalid, "no unit grid has the code %q or begins with it; import the unit grids first", code)
		}
		for _, o := range all {
			if o.ID != x.ID && slices.Contains(o.Grids, code) {
				return x, citywarden.Errorf(citywarden.CodeInvalid, "%s is in the responsibility grid %s already; take it out there first", code, o.ID)
			}
		}
	}
	return x, nil
}

// responsibilityColumns are what an import may have; id and officer it must.
var responsibilityColumns = []string{"id", "name", "officer", "grids"}

// Import adds and changes responsibility grids from CSV with the columns id,
// officer, grids (codes with spaces between) and name, or from GeoJSON whose
// features have these as properties. A feature without grids has the unit grids
// whose middle lies in its Polygon or MultiPolygon, with coordinates as the file
// says, else WGS 84. With replace those that are not in the file go.
//
// Good lines are kept even when others fail, but nothing goes then. An error is
// returned when nothing could be read (CodeInvalid) or kept.
func (r *Responsibility) Import(ctx context.Context, src io.Reader, replace bool) (citywarden.TableReport, error) {
	report := citywarden.TableReport{Lines: []citywarden.TableLine{}}
	raw, geo, err := readAll(src)
	if err != nil {
		return report, err
	}
	var rows []sheetRow
	if geo {
		rows, err = r.features(raw)
	} else {
		var s sheet
		s, err = readSheet(raw, responsibilityColumns, []string{"id", "officer", "grids"})
		rows = s.rows
	}
	if err != nil {
		return report, err
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	next := r.copy()
	var save []citywarden.ResponsibilityGrid
	seen := map[citywarden.ResponsibilityGridID]bool{}
	now := time.Now().UTC().Truncate(time.Millisecond)
	for _, row := range rows {
		x := citywarden.ResponsibilityGrid{
			ID: citywarden.ResponsibilityGridID(row.cells["id"]), Name: row.cells["name"], Officer: row.cells["officer"], Updated: now,
		}
		for _, code := range strings.Fields(row.cells["grids"]) {
			x.Grids = append(x.Grids, citywarden.GridCode(code))
		}
		err := row.bad
		switch {
		case err != nil:
		case seen[x.ID]:
			err = fmt.Errorf("%s is there twice", x.ID)
		default:
			if x, err = r.check(ctx, next, x); err != nil && citywarden.CodeOf(err) != citywarden.CodeInvalid {
				return report, err
			}
		}
		if err != nil {
			report.Fail(row.line, string(x.ID), err)
			continue
		}
		seen[x.ID] = true
		before, there := next[x.ID]
		switch {
		case !there:
			report.Added++
		case before.Name == x.Name && before.Officer == x.Officer && slices.Equal(before.Grids, x.Grids):
			report.Same++
			continue
		default:
			report.Changed++
		}
		next[x.ID] = x
		save = append(save, x)
	}
	var remove []citywarden.ResponsibilityGridID
	for id := range next {
		if replace && report.Failed == 0 && !seen[id] {
			remove = append(remove, id)
		}
	}
	for _, id := range remove {
		delete(next, id)
	}
	report.Removed = len(remove)
	return report, r.keep(ctx, next, save, remove)
}

// features reads responsibility grids from GeoJSON.
func (r *Responsibility) features(raw []byte) ([]sheetRow, error) {
	features, said, err := readFeatures(raw, responsibilityColumns)
	if err != nil {
		return nil, err
	}
	crs, err := citywarden.ParseCRS(said)
	if err != nil {
		return nil, err
	}
	all := r.grids.All()
	var rows []sheetRow
	for _, f := range features {
		row := f.row
		if row.cells["grids"] == "" {
			var inside []string
			inside, row.bad = f.unitGrids(crs, all)
			row.cells["grids"] = strings.Join(inside, " ")
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// unitGrids returns the codes of those grids whose middle lies in the geometry of f.
func (f *geoFeature) unitGrids(crs citywarden.CRS, all []citywarden.UnitGrid) ([]string, error) {
	var polygons [][][][]float64
	var err error
	switch f.kind {
	case "Polygon":
		polygons = make([][][][]float64, 1)
		err = json.Unmarshal(f.geometry, &polygons[0])
	case "MultiPolygon":
		err = json.Unmarshal(f.geometry, &polygons)
	default:
		return nil, fmt.Errorf("it has neither the property grids nor a Polygon or MultiPolygon, but %q", f.kind)
	}
	if err != nil {
		return nil, fmt.Errorf("coordinates: %w", err)
	}
	// Even-odd over all rings: what lies in a hole lies in two of them.
	var rings []citywarden.UnitGrid
	for _, polygon := range polygons {
		for _, ring := range polygon {
			var u citywarden.UnitGrid
			for _, c := range ring {
				if len(c) < 2 {
					return nil, fmt.Errorf("a position needs longitude and latitude, got %v", c)
				}
				u.Ring = append(u.Ring, crs.ToWGS84(citywarden.Point{Lon: c[0], Lat: c[1]}))
			}
			u.Ring = openRing(u.Ring)
			rings = append(rings, u)
		}
	}
	var out []string
	for i := range all {
		middle, in := innerPoint(all[i].Ring), false
		for j := range rings {
			in = in != rings[j].Contains(middle)
		}
		if in {
			out = append(out, string(all[i].Code))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the middle of no unit grid lies in it")
	}
	return out, nil
}
