package cases

import (
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
)

// ComponentStore keeps components.
type ComponentStore interface {
	Components(context.Context) ([]citywarden.Component, error)
	SaveComponents(context.Context, []citywarden.Component) error // all or none
	DeleteComponent(context.Context, citywarden.ComponentID) error
}

// MaxComponents is how many components are kept; all of them are in memory, in
// about 0.5 KB each (BenchmarkComponents measures it).
const MaxComponents = 500_000

// Components are the managed components of the county. They may be used by
// several goroutines.
type Components struct {
	store   ComponentStore
	classes *Classes
	grids   *Grids

	changing sync.Mutex // held from reading to replacing, the store included

	mu    sync.RWMutex
	byID  map[citywarden.ComponentID]*component
	order []*component // by id
	cells map[componentCell][]*component
}

// component is one in memory; it is replaced as a whole.
type component struct {
	citywarden.Component
	search string // code, name and address in lower case
}

// componentCell is some 200 m of the world, for looking around.
type componentCell struct{ row, col int32 }

const cellDegrees = 0.002

func componentCellOf(p citywarden.Point) componentCell {
	return componentCell{int32(math.Floor(p.Lat / cellDegrees)), int32(math.Floor(p.Lon / cellDegrees))}
}

// LoadComponents returns the components that are in s; classes says which there
// can be, and g in which unit grid each lies.
func LoadComponents(ctx context.Context, s ComponentStore, classes *Classes, g *Grids) (*Components, error) {
	c := &Components{store: s, classes: classes, grids: g, byID: map[citywarden.ComponentID]*component{}, cells: map[componentCell][]*component{}}
	all, err := s.Components(ctx)
	if err != nil {
		return nil, fmt.Errorf("load components: %w", err)
	}
	c.show(all)
	return c, nil
}

// show makes components that are stored, each once, visible.
func (c *Components) show(xs []citywarden.Component) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.order) // so many are in order
	for _, x := range xs {
		next := &component{x, strings.ToLower(string(x.ID) + "\n" + x.Name + "\n" + x.Address)}
		if before := c.byID[x.ID]; before != nil {
			c.leaveCell(before)
			i, _ := findComponent(c.order[:n], x.ID)
			c.order[i] = next
		} else {
			c.order = append(c.order, next)
		}
		c.byID[x.ID] = next
		at := componentCellOf(x.Location)
		c.cells[at] = append(c.cells[at], next)
	}
	if len(c.order) > n {
		slices.SortFunc(c.order, func(a, b *component) int { return cmp.Compare(a.ID, b.ID) })
	}
}

// leaveCell needs mu.
func (c *Components) leaveCell(x *component) {
	at := componentCellOf(x.Location)
	c.cells[at] = slices.DeleteFunc(c.cells[at], func(o *component) bool { return o == x })
	if len(c.cells[at]) == 0 {
		delete(c.cells, at)
	}
}

// findComponent returns where id is in order, or would be.
func findComponent(order []*component, id citywarden.ComponentID) (int, bool) {
	return slices.BinarySearchFunc(order, id, func(x *component, id citywarden.ComponentID) int { return cmp.Compare(x.ID, id) })
}

// Component returns the component of a code, or CodeNotFound.
func (c *Components) Component(id citywarden.ComponentID) (citywarden.Component, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if x := c.byID[id]; x != nil {
		return x.Component, nil
	}
	return citywarden.Component{}, citywarden.Errorf(citywarden.CodeNotFound, "no component %q", id)
}

// List returns a page of the components that match, in the order of their codes,
// and the cursor of the next page, "" after the last.
func (c *Components) List(f citywarden.ComponentFilter) (page []citywarden.Component, next string) {
	size := f.Size()
	page = make([]citywarden.Component, 0, min(size, 100))
	c.each(f, func(x *component) bool {
		if len(page) == size {
			next = string(page[size-1].ID)
			return false
		}
		page = append(page, x.Component)
		return true
	})
	return page, next
}

// each calls yield for the components that f selects behind f.After until it
// returns false.
func (c *Components) each(f citywarden.ComponentFilter, yield func(*component) bool) {
	search := strings.ToLower(f.Search)
	c.mu.RLock()
	defer c.mu.RUnlock()
	i := 0
	if f.After != "" {
		var found bool
		if i, found = findComponent(c.order, citywarden.ComponentID(f.After)); found {
			i++
		}
	}
	for _, x := range c.order[i:] {
		if !f.Area.Has(x.Grid) || f.Class != "" && x.Class != f.Class || f.Grid != "" && !strings.HasPrefix(string(x.Grid), string(f.Grid)) ||
			f.Department != "" && !x.BelongsTo(f.Department) || f.State != "" && x.State != f.State ||
			f.In != nil && !f.In.Contains(x.Location) || search != "" && !strings.Contains(x.search, search) {
			continue
		}
		if !yield(x) {
			return
		}
	}
}

// MaxNear is the farthest that Near looks, in metres.
const MaxNear = 5000

// Near returns the components within so many metres of p, at most MaxNear, that
// are not removed, the nearest first, at most limit. A class of components selects
// those of it and of what is the same in the other numbering; any other class all.
func (c *Components) Near(p citywarden.Point, class citywarden.ClassCode, area citywarden.AreaCode, within float64, limit int) []citywarden.Nearby {
	within = min(within, MaxNear)
	dLat := within / 111_000
	dLon := min(180, dLat/max(0.01, math.Cos(p.Lat*math.Pi/180)))
	lo, hi := componentCellOf(citywarden.Point{Lat: p.Lat - dLat, Lon: p.Lon - dLon}), componentCellOf(citywarden.Point{Lat: p.Lat + dLat, Lon: p.Lon + dLon})
	var classes []citywarden.ClassCode // nil for all
	if class.Kind() == "component" {
		classes = c.classes.alike(class)
	}
	type hit struct {
		*component
		away float64
	}
	var hits []hit
	c.mu.RLock()
	for row := lo.row; row <= hi.row; row++ {
		for col := lo.col; col <= hi.col; col++ {
			for _, x := range c.cells[componentCell{row, col}] {
				if x.State == citywarden.Removed || !area.Has(x.Grid) || classes != nil && !slices.Contains(classes, x.Class) {
					continue
				}
				if d := p.Distance(x.Location); d <= within {
					hits = append(hits, hit{x, d})
				}
			}
		}
	}
	c.mu.RUnlock()
	slices.SortFunc(hits, func(a, b hit) int { return cmp.Or(cmp.Compare(a.away, b.away), cmp.Compare(a.ID, b.ID)) })
	out := []citywarden.Nearby{}
	for _, h := range hits[:min(len(hits), limit)] {
		out = append(out, citywarden.Nearby{Component: h.Component, Distance: h.away})
	}
	return out
}

// Save adds x, or replaces the one of its code, and returns it as it is kept.
// CodeInvalid says what is wrong with it.
func (c *Components) Save(ctx context.Context, x citywarden.Component) (citywarden.Component, error) {
	xs := []citywarden.Component{x}
	err := c.SaveAll(ctx, xs)
	return xs[0], err
}

// SaveAll is Save for several, each of another code, which are completed in place;
// none is kept when something is wrong with one.
func (c *Components) SaveAll(ctx context.Context, xs []citywarden.Component) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	now := time.Now().UTC().Truncate(time.Millisecond)
	more := 0
	for i, x := range xs {
		x.Updated = now
		x, err := c.complete(x)
		there := false
		if err == nil {
			there, err = c.room(x.ID, more)
		}
		if err != nil {
			return fmt.Errorf("component %s: %w", x.ID, err)
		}
		if !there {
			more++
		}
		xs[i] = x
	}
	return c.keep(ctx, xs)
}

// room reports whether id is there already, when so many are to be added before
// it; CodeInvalid when it is not, and there are too many.
func (c *Components) room(id citywarden.ComponentID, more int) (there bool, err error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.byID[id] != nil {
		return true, nil
	}
	if len(c.byID)+more >= MaxComponents {
		return false, citywarden.Errorf(citywarden.CodeInvalid, "there are %d components, the most that are kept", MaxComponents)
	}
	return false, nil
}

// Delete deletes the component of a code, or returns CodeNotFound. What is gone
// from the street is rather kept, with the state Removed.
func (c *Components) Delete(ctx context.Context, id citywarden.ComponentID) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	if _, err := c.Component(id); err != nil {
		return err
	}
	if err := c.store.DeleteComponent(ctx, id); err != nil {
		return fmt.Errorf("delete component %s: %w", id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, _ := findComponent(c.order, id)
	c.leaveCell(c.order[i])
	c.order = slices.Delete(c.order, i, i+1)
	delete(c.byID, id)
	return nil
}

// keep stores components in transactions of a thousand, so that others can write
// between them, and shows them.
func (c *Components) keep(ctx context.Context, xs []citywarden.Component) error {
	stored := 0
	defer func() { c.show(xs[:stored]) }()
	for some := range slices.Chunk(xs, 1000) {
		if err := c.store.SaveComponents(ctx, some); err != nil {
			return fmt.Errorf("save components: %w", err)
		}
		stored += len(some)
	}
	return nil
}

// Regrid looks up the unit grid of every component again, after the grids have
// changed, and returns how many components lie in another one now.
func (c *Components) Regrid(ctx context.Context) (int, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	var moved []citywarden.Component
	c.each(citywarden.ComponentFilter{}, func(x *component) bool {
		if g := c.grids.At(x.Location); g != x.Grid {
			next := x.Component
			next.Grid = g
			moved = append(moved, next)
		}
		return true
	})
	return len(moved), c.keep(ctx, moved)
}

// complete returns x with what its code and position say; CodeInvalid says what is
// wrong with it.
func (c *Components) complete(x citywarden.Component) (citywarden.Component, error) {
	if err := x.Check(); err != nil {
		return x, err
	}
	x.State = cmp.Or(x.State, citywarden.Intact)
	class := x.ID.Class(c.classes.standard)
	if x.Class != "" && x.Class.Standard() != c.classes.standard {
		class = x.ID.Class(x.Class.Standard())
	}
	if x.Class != "" && x.Class != class {
		return x, citywarden.Errorf(citywarden.CodeInvalid, "its class is said to be %q, but its code means %s; correct one of them", x.Class, class)
	}
	k, ok := c.classes.Class(class)
	if !ok {
		return x, citywarden.Errorf(citywarden.CodeInvalid, "its code means %s, which is no class of %s; correct it, or add the class with cases.classes", class, class.Standard())
	}
	x.Class, x.Name = class, cmp.Or(x.Name, k.Name.In("zh"))
	x.Grid = c.grids.At(x.Location)
	return x, nil
}

// componentColumns are those of a table of components, in the order of an export,
// by our names; crs an import may have.
var componentColumns = []string{"id", "class", "name", "lat", "lon", "grid", "authority", "owner", "maintainer", "state", "initial_date", "change_date",
	"address", "data_source", "remark"}

// componentAliases are the columns by the names that surveys of the standard use.
var componentAliases = map[string]string{
	"objid": "id", "objname": "name", "pointy": "lat", "pointx": "lon", "bgid": "grid", "deptname1": "authority", "deptname2": "owner",
	"deptname3": "maintainer", "objstate": "state", "ordate": "initial_date", "chdate": "change_date", "locatedsc": "address", "datasource": "data_source",
	"note": "remark",
}

// Import adds and changes components from CSV with the columns id, lat, lon and,
// as wanted, class (when the code is of the numbering that is not used here),
// name, authority, owner, maintainer, state, initial_date, change_date, address,
// data_source, remark and crs, or by the names of the standard, or from GeoJSON
// whose features are Points with these as properties. grid is only compared. For a
// component that is there, what is missing stays and an empty cell removes it.
//
// Good lines are kept even when others fail. An error is returned when nothing
// could be read (CodeInvalid) or kept.
func (c *Components) Import(ctx context.Context, src io.Reader, o citywarden.ComponentImport) (citywarden.TableReport, error) {
	report := citywarden.TableReport{Lines: []citywarden.TableLine{}}
	rows, crs, err := componentRows(src, o.CRS)
	if err != nil {
		return report, err
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	seen := map[citywarden.ComponentID]int{}
	now := time.Now().UTC().Truncate(time.Millisecond)
	var save []citywarden.Component
	for _, row := range rows {
		id := citywarden.ComponentID(row.cells["id"])
		before, _ := c.Component(id) // a zero one when there is none
		x, err := before, row.bad
		if err == nil {
			x, err = c.read(before, row.cells, crs)
		}
		if first, twice := seen[id]; err == nil && twice {
			err = fmt.Errorf("%s is on line %d already", id, first)
		}
		there := false
		if err == nil {
			there, err = c.room(id, report.Added)
		}
		if err != nil {
			report.Fail(row.line, string(id), err)
			continue
		}
		seen[id] = row.line
		if text := c.doubts(x, row.cells["grid"]); text != "" {
			report.Warn(row.line, string(id), text)
		}
		switch {
		case !there:
			report.Added++
		case x == before:
			report.Same++
			continue
		default:
			report.Changed++
		}
		x.Updated = now
		save = append(save, x)
	}
	if o.Check {
		return report, nil
	}
	return report, c.keep(ctx, save)
}

// componentRows reads a table of components, and what its positions are in unless
// they say so themselves.
func componentRows(src io.Reader, said string) (rows []sheetRow, crs citywarden.CRS, err error) {
	known := append(slices.Concat(componentColumns, slices.Sorted(maps.Keys(componentAliases))), "crs")
	raw, geo, err := readAll(src)
	if err != nil {
		return nil, "", err
	}
	if geo {
		features, fileCRS, err := readFeatures(raw, known)
		if err != nil {
			return nil, "", err
		}
		said = cmp.Or(said, fileCRS)
		for _, f := range features {
			f.putPoint()
			rows = append(rows, f.row)
		}
	} else {
		s, err := readSheet(raw, known, nil)
		if err != nil {
			return nil, "", err
		}
		if !s.has("id") && !s.has("objid") {
			return nil, "", citywarden.Errorf(citywarden.CodeInvalid, `line 1: there is no column "id"`)
		}
		rows = s.rows
	}
	for _, row := range rows {
		for alias, name := range componentAliases {
			if text, ok := row.cells[alias]; ok && row.cells[name] == "" {
				row.cells[name] = text
			}
		}
	}
	crs, err = citywarden.ParseCRS(said)
	return rows, crs, err
}

// putPoint puts the coordinates of f into its cells lat and lon.
func (f *geoFeature) putPoint() {
	if f.kind == "" {
		return
	}
	var at []float64
	err := json.Unmarshal(f.geometry, &at)
	switch {
	case f.kind != "Point":
		f.row.bad = fmt.Errorf("its geometry is a %q; a component is a Point", f.kind)
	case err != nil:
		f.row.bad = fmt.Errorf("coordinates: %w", err)
	case len(at) < 2:
		f.row.bad = fmt.Errorf("a position needs longitude and latitude, got %v", at)
	default:
		f.row.cells["lon"], f.row.cells["lat"] = degrees(at[0]), degrees(at[1])
	}
}

func degrees(d float64) string { return strconv.FormatFloat(d, 'f', -1, 64) }

// read returns the component x with what the cells of a line say.
func (c *Components) read(x citywarden.Component, cells map[string]string, crs citywarden.CRS) (citywarden.Component, error) {
	isNew := x.ID == ""
	x.ID = citywarden.ComponentID(cells["id"])
	for name, to := range map[string]*string{
		"class": (*string)(&x.Class), "name": &x.Name, "authority": &x.Authority, "owner": &x.Owner, "maintainer": &x.Maintainer,
		"initial_date": &x.Initial, "change_date": &x.Changed, "address": &x.Address, "data_source": &x.Survey, "remark": &x.Remark,
	} {
		if text, ok := cells[name]; ok {
			*to = text
		}
	}
	if text, ok := cells["state"]; ok {
		var err error
		if x.State, err = citywarden.ParseComponentState(text); err != nil {
			return x, err
		}
	}
	lat, lon := cells["lat"], cells["lon"]
	switch {
	case lat != "" || lon != "":
		p, err := citywarden.ParsePoint(lat, lon)
		if err != nil {
			return x, err
		}
		if x.Location, err = citywarden.PointIn(cmp.Or(cells["crs"], string(crs)), p); err != nil {
			return x, err
		}
	case isNew:
		return x, citywarden.Errorf(citywarden.CodeInvalid, "it has no position; give lat and lon, or a Point")
	}
	return c.complete(x)
}

// doubts says what is strange about where x lies, "" for nothing; grid is that
// which the file says.
func (c *Components) doubts(x citywarden.Component, grid string) string {
	switch {
	case x.Grid == "" && len(c.grids.Under("")) > 0:
		return fmt.Sprintf("lat %.6f, lon %.6f lies in no unit grid; check the position and its crs", x.Location.Lat, x.Location.Lon)
	case grid != "" && x.Grid != "" && grid != string(x.Grid):
		return fmt.Sprintf("the file says unit grid %s, but its position lies in %s, which counts", grid, x.Grid)
	case x.Grid != "" && x.Grid.In(citywarden.LevelCounty) != x.ID.County():
		return fmt.Sprintf("its code is of county %s, its position lies in unit grid %s", x.ID.County(), x.Grid)
	}
	return ""
}

// Export writes the components that f selects, at most f.Limit of them, all for 0,
// as CSV that Import reads.
func (c *Components) Export(w io.Writer, f citywarden.ComponentFilter) error {
	out := csv.NewWriter(w)
	out.Write(componentColumns) // its errors are those of Flush
	all, _ := c.selected(f)
	for _, x := range all {
		cells := []string{string(x.ID), string(x.Class), x.Name, degrees(x.Location.Lat), degrees(x.Location.Lon), string(x.Grid), x.Authority, x.Owner,
			x.Maintainer, string(x.State), x.Initial, x.Changed, x.Address, x.Survey, x.Remark}
		for i := range cells {
			if componentColumns[i] != "lat" && componentColumns[i] != "lon" {
				cells[i] = citywarden.QuoteCell(cells[i])
			}
		}
		out.Write(cells)
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return fmt.Errorf("export components: %w", err)
	}
	return nil
}

// selected returns the components that f selects, at most f.Limit of them, all for
// 0; more says that there are others.
func (c *Components) selected(f citywarden.ComponentFilter) (out []*component, more bool) {
	c.each(f, func(x *component) bool {
		if more = f.Limit > 0 && len(out) == f.Limit; !more {
			out = append(out, x)
		}
		return !more
	})
	return out, more
}

type componentFeature struct {
	Type       string              `json:"type"`
	Properties componentProperties `json:"properties"`
	Geometry   struct {
		Type        string     `json:"type"`
		Coordinates [2]float64 `json:"coordinates"`
	} `json:"geometry"`
}

type componentProperties struct {
	Kind string `json:"kind"`
	citywarden.Component
	Location *struct{} `json:"location,omitempty"` // the geometry says it
}

// GeoJSON returns the components that f selects, at most f.Limit of them, all for
// 0, as a FeatureCollection of Points, what Import reads; the property kind is
// "component". The member truncated says that there are more.
func (c *Components) GeoJSON(f citywarden.ComponentFilter) (json.RawMessage, error) {
	all, more := c.selected(f)
	fc := struct {
		Type      string             `json:"type"`
		Truncated bool               `json:"truncated,omitempty"`
		Features  []componentFeature `json:"features"`
	}{"FeatureCollection", more, make([]componentFeature, len(all))}
	for i, x := range all {
		p := &fc.Features[i]
		p.Type, p.Properties = "Feature", componentProperties{Kind: "component", Component: x.Component}
		p.Geometry.Type, p.Geometry.Coordinates = "Point", [2]float64{x.Location.Lon, x.Location.Lat}
	}
	return json.Marshal(fc)
}
