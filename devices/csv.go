package devices

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/simplifiedchinese"

	"github.com/citywarden/citywarden"
)

// ImportReport says what became of every line of an import.
type ImportReport struct {
	Created int          `json:"created"`
	Updated int          `json:"updated"`
	Failed  int          `json:"failed"`
	Lines   []ImportLine `json:"lines"`
}

// ImportLine is what became of one line.
type ImportLine struct {
	Line    int                 `json:"line"` // as an editor counts, from 1
	ID      citywarden.DeviceID `json:"id"`
	OK      bool                `json:"ok"`
	Error   string              `json:"error,omitempty"`
	Warning string              `json:"warning,omitempty"` // taken, but perhaps not what was meant
}

// Limits of an import.
const (
	MaxImportBytes = 64 << 20
	importBatch    = 1000 // devices per transaction
)

// columns that an export always has and an import may have; id and model it must.
var columns = []string{"id", "name", "model", "lat", "lon", "adjacent", "component", "disabled"}

// Import creates and updates devices from CSV. The first line names the
// columns: id and model, and as wanted name, lat, lon, crs (of both, as
// citywarden.ParseCRS reads it), token, x509 (a certificate in PEM or its SHA-256), psk (a
// pre-shared key) and psk_identity (the device's id when it is empty), adjacent (ids with spaces between), component, disabled and attr.NAME for
// attributes. For a device that exists, a column that is missing leaves what there
// is and an empty cell removes it; an empty token, x509 or psk leaves the old one.
//
// Good lines are stored even when others fail; the report has one line for each.
// What spreadsheets write is understood: a byte order mark, ';' or tabs instead
// of commas, GB 18030 instead of UTF-8. An error is returned when nothing could
// be read (CodeInvalid) or the store fails; the report then says how far it came.
func (r *Registry) Import(ctx context.Context, src io.Reader) (ImportReport, error) {
	report := ImportReport{Lines: []ImportLine{}}
	raw, err := io.ReadAll(io.LimitReader(src, MaxImportBytes+1))
	if err != nil {
		return report, fmt.Errorf("read import: %w", err)
	}
	if len(raw) > MaxImportBytes {
		return report, citywarden.Errorf(citywarden.CodeInvalid, "the file is larger than %d MB: split it", MaxImportBytes>>20)
	}
	raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	if !utf8.Valid(raw) {
		if raw, err = simplifiedchinese.GB18030.NewDecoder().Bytes(raw); err != nil || bytes.ContainsRune(raw, utf8.RuneError) {
			return report, citywarden.Errorf(citywarden.CodeInvalid, "the file is neither UTF-8 nor GB 18030")
		}
	}
	in := csv.NewReader(bytes.NewReader(raw))
	in.Comma = separator(raw)
	in.FieldsPerRecord = -1
	header, err := in.Read()
	if err != nil {
		return report, citywarden.Errorf(citywarden.CodeInvalid, "line 1: no column names: %w", err)
	}
	for i, name := range header {
		header[i] = strings.TrimSpace(name)
	}
	if err := checkHeader(header); err != nil {
		return report, err
	}
	imp := &importer{r: r, header: header, report: &report, ids: map[citywarden.DeviceID]int{}, tokens: map[string]citywarden.DeviceID{}, named: map[citywarden.DeviceID]int{}}
	for {
		cells, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		var bad *csv.ParseError
		if errors.As(err, &bad) {
			imp.fail(bad.StartLine, "", err)
			continue
		}
		if err != nil {
			return report, fmt.Errorf("read import: %w", err)
		}
		line, _ := in.FieldPos(0)
		imp.rows = append(imp.rows, row{line: line, cells: cells})
		if len(imp.rows) == importBatch {
			if err := imp.store(ctx); err != nil {
				return report, err
			}
		}
	}
	err = imp.store(ctx)
	slices.SortStableFunc(report.Lines, func(a, b ImportLine) int { return a.Line - b.Line })
	return report, err
}

// separator returns the one of comma, semicolon and tab that the first line has most of.
func separator(raw []byte) rune {
	first, _, _ := bytes.Cut(raw, []byte("\n"))
	best := ','
	for _, c := range []rune{';', '\t'} {
		if bytes.Count(first, []byte(string(c))) > bytes.Count(first, []byte(string(best))) {
			best = c
		}
	}
	return best
}

func checkHeader(header []string) error {
	known := append(slices.Clone(columns), "crs", "token", "x509", "psk", "psk_identity")
	for i, name := range header {
		attr, isAttr := strings.CutPrefix(name, "attr.")
		switch {
		case slices.Contains(header[:i], name):
			return citywarden.Errorf(citywarden.CodeInvalid, "line 1: column %q is there twice", name)
		case isAttr && attributeName.MatchString(attr), slices.Contains(known, name):
		case isAttr:
			return citywarden.Errorf(citywarden.CodeInvalid, "line 1: column %q: an attribute's name has letters, digits and '_'", name)
		default:
			return citywarden.Errorf(citywarden.CodeInvalid, "line 1: unknown column %q%s; attributes are written attr.NAME", name, suggest(name, known))
		}
	}
	for _, must := range []string{"id", "model"} {
		if !slices.Contains(header, must) {
			return citywarden.Errorf(citywarden.CodeInvalid, "line 1: there is no column %q", must)
		}
	}
	return nil
}

type row struct {
	line  int
	cells []string
}

// importer collects rows and stores them in batches.
type importer struct {
	r      *Registry
	header []string
	report *ImportReport
	ids    map[citywarden.DeviceID]int    // the line that each id was on
	tokens map[string]citywarden.DeviceID // hashes and identities of this import
	named  map[citywarden.DeviceID]int    // how many of rows have it as a new neighbour
	rows   []row
}

func (p *importer) fail(line int, id citywarden.DeviceID, err error) {
	p.report.Failed++
	p.report.Lines = append(p.report.Lines, ImportLine{Line: line, ID: id, Error: err.Error()})
}

func (p *importer) store(ctx context.Context) error {
	p.r.changeMu.Lock()
	defer p.r.changeMu.Unlock()
	var (
		cs    []change
		lines []ImportLine
	)
	for _, row := range p.rows {
		c, warning, err := p.change(row)
		id := citywarden.DeviceID("")
		if c.device != nil {
			id = c.device.ID
		}
		if err != nil {
			p.fail(row.line, id, err)
			continue
		}
		cs = append(cs, c)
		lines = append(lines, ImportLine{Line: row.line, ID: id, OK: true, Warning: warning})
	}
	p.rows = p.rows[:0]
	clear(p.named)
	if err := p.r.save(ctx, cs); err != nil {
		for _, l := range lines {
			p.fail(l.Line, l.ID, err)
		}
		return err
	}
	for _, c := range cs {
		if c.isNew {
			p.report.Created++
		} else {
			p.report.Updated++
		}
	}
	p.report.Lines = append(p.report.Lines, lines...)
	return nil
}

// change makes a change of one row; of a row with a mistake it returns at least
// the id. It needs changeMu.
func (p *importer) change(row row) (c change, warning string, err error) {
	cell := make(map[string]string, len(p.header))
	for i, name := range p.header {
		if i < len(row.cells) {
			cell[name] = citywarden.UnquoteCell(strings.TrimSpace(row.cells[i]))
		}
	}
	d := citywarden.Device{ID: citywarden.DeviceID(cell["id"])}
	c.device = &citywarden.Device{ID: d.ID}
	if len(row.cells) != len(p.header) {
		return c, "", fmt.Errorf("%d cells for %d columns", len(row.cells), len(p.header))
	}
	if first, twice := p.ids[d.ID]; twice {
		return c, "", fmt.Errorf("device %s is on line %d already", d.ID, first)
	}
	old, _, err := p.r.Device(d.ID)
	if err == nil {
		d = *old
		attrs := make(map[string]any, len(old.Attributes))
		for k, v := range old.Attributes {
			attrs[k] = v
		}
		d.Attributes = attrs
	} else {
		d.Attributes = map[string]any{}
	}
	d.Model = citywarden.ModelName(cell["model"])
	model, ok := p.r.models.Model(d.Model)
	if !ok {
		return c, "", fmt.Errorf("unknown model %q%s", d.Model, suggest(string(d.Model), p.r.models.names))
	}
	for _, name := range p.header {
		text := cell[name]
		switch name {
		case "id", "model", "lat", "lon", "crs":
		case "name":
			d.Name = text
		case "adjacent":
			d.Adjacent = nil
			for _, id := range strings.Fields(text) {
				d.Adjacent = append(d.Adjacent, citywarden.DeviceID(id))
			}
		case "component":
			d.Component = citywarden.ComponentID(text)
		case "disabled":
			if d.Disabled, err = parseBool(text); err != nil {
				return c, "", fmt.Errorf("disabled: %w", err)
			}
		case "token", "x509", "psk":
			if text == "" {
				continue
			}
			s, err := p.secretOf(name, text, cell)
			if err == nil {
				err = p.secret(&c, d.ID, s)
			}
			if err != nil {
				return c, "", err
			}
		case "psk_identity":
			if text != "" && cell["psk"] == "" {
				return c, "", errors.New("psk_identity: there is no key in psk that goes with it")
			}
		default:
			warn, err := setAttribute(&d, model, strings.TrimPrefix(name, "attr."), text)
			if err != nil {
				return c, "", err
			}
			if warning == "" {
				warning = warn
			}
		}
	}
	if err := setLocation(&d, cell); err != nil {
		return c, "", err
	}
	secrets := c.secrets
	if c, err = p.r.prepare(d, old); err == nil {
		err = p.r.crowded(c.device, old, p.named)
	}
	if err != nil {
		c.device = &citywarden.Device{ID: d.ID}
		return c, "", err
	}
	for _, n := range c.device.Adjacent {
		if old == nil || !slices.Contains(old.Adjacent, n) {
			p.named[n]++
		}
	}
	p.ids[d.ID] = row.line
	if c.secrets = secrets; secrets != nil {
		p.tokens[string(secrets[0].Hash)] = d.ID
		if id := secrets[0].Identity; id != "" {
			p.tokens["identity "+id] = d.ID
		}
	}
	return c, warning, nil
}

// secretOf reads the cell of a column that has a secret.
func (p *importer) secretOf(column, text string, cell map[string]string) (s citywarden.Secret, err error) {
	switch column {
	case "x509":
		return certificateSecret(text)
	case "psk":
		identity := cell["psk_identity"]
		if identity == "" {
			identity = cell["id"]
		}
		_, s, err = p.r.pskSecret(identity, text)
		return s, err
	}
	return agreedToken(text)
}

// secret makes s the new secret of a device, unless it has it already: then one that
// it replaced stays good as long as was said.
func (p *importer) secret(c *change, id citywarden.DeviceID, s citywarden.Secret) error {
	owner := p.r.owner(s)
	if owner == "" {
		owner = p.tokens[string(s.Hash)]
	}
	if owner == "" && s.Identity != "" {
		owner = p.tokens["identity "+s.Identity]
	}
	switch old := p.r.secretsOf(id); {
	case owner != "" && owner != id:
		return fmt.Errorf("the %s belongs to device %s", s.Kind, owner)
	case c.secrets != nil:
		return errors.New("a device has one credential: give one of token, x509 and psk")
	case len(old) > 0 && bytes.Equal(old[0].Hash, s.Hash):
		return nil
	}
	c.secrets = []citywarden.Secret{s}
	return nil
}

// setAttribute reads text as the kind that the model declares; an attribute
// that it does not declare is kept as text, with a warning.
func setAttribute(d *citywarden.Device, m *citywarden.Model, name, text string) (warning string, err error) {
	if text == "" {
		delete(d.Attributes, name)
		return "", nil
	}
	decl, known := m.Attribute(name)
	if !known {
		d.Attributes[name] = text
		if citywarden.IsIdentity(name) {
			return "", nil
		}
		names := make([]string, len(m.Attributes))
		for i, a := range m.Attributes {
			names[i] = a.Name
		}
		return fmt.Sprintf("model %s declares no attribute %q%s (kept as text)", m.Name, name, suggest(name, names)), nil
	}
	switch decl.Kind {
	case citywarden.KindNumber:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return "", fmt.Errorf("attribute %s: %q is not a number", name, text)
		}
		d.Attributes[name] = f
	case citywarden.KindBool:
		b, err := parseBool(text)
		if err != nil {
			return "", fmt.Errorf("attribute %s: %w", name, err)
		}
		d.Attributes[name] = b
	default:
		d.Attributes[name] = text
	}
	return "", nil
}

func setLocation(d *citywarden.Device, cell map[string]string) error {
	lat, hasLat := cell["lat"]
	lon, hasLon := cell["lon"]
	switch {
	case !hasLat && !hasLon:
		return nil
	case lat == "" && lon == "":
		d.Location = nil
		return nil
	}
	p, err := citywarden.ParsePoint(lat, lon)
	if err != nil {
		return err
	}
	p, err = citywarden.PointIn(cell["crs"], p)
	d.Location = &p
	return err
}

func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "yes", "1", "是":
		return true, nil
	case "false", "no", "0", "", "否":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", s)
}

// Export writes the devices of an area as CSV that Import reads, without tokens: nobody
// can read them again. There is one attr. column for each attribute that any
// device has.
func (r *Registry) Export(_ context.Context, dst io.Writer, area citywarden.AreaCode) error {
	var all []*citywarden.Device
	names := map[string]bool{}
	r.Each(func(d *citywarden.Device, _ *citywarden.Model) {
		if !area.Has(d.Grid) {
			return
		}
		all = append(all, d)
		for name := range d.Attributes {
			names[name] = true
		}
	})
	attrs := sortedKeys(names)
	header := slices.Clone(columns)
	for _, name := range attrs {
		header = append(header, "attr."+name)
	}
	out := csv.NewWriter(dst)
	out.Write(header) // its errors are those of Flush
	for _, d := range all {
		var lat, lon string
		if d.Location != nil {
			lat, lon = strconv.FormatFloat(d.Location.Lat, 'f', -1, 64), strconv.FormatFloat(d.Location.Lon, 'f', -1, 64)
		}
		ids := make([]string, len(d.Adjacent))
		for i, id := range d.Adjacent {
			ids[i] = string(id)
		}
		cells := []string{string(d.ID), citywarden.QuoteCell(d.Name), string(d.Model), lat, lon, strings.Join(ids, " "), string(d.Component), strconv.FormatBool(d.Disabled)}
		for _, name := range attrs {
			var text string
			if v, ok := citywarden.ValueOf(d.Attributes[name]); ok {
				text = v.String()
				if v.Kind() == citywarden.KindText {
					text = citywarden.QuoteCell(text)
				}
			}
			cells = append(cells, text)
		}
		out.Write(cells)
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return fmt.Errorf("export devices: %w", err)
	}
	return nil
}
