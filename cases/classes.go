package cases

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// ClassStore keeps the versions of the class table.
type ClassStore interface {
	// ClassTable returns the table of a version, the newest for 0; CodeNotFound.
	ClassTable(ctx context.Context, version int) (citywarden.ClassTable, error)
	ClassTables(context.Context) ([]citywarden.ClassTable, error) // the oldest first, without their classes
	AddClassTable(context.Context, citywarden.ClassTable) error
}

// Classes is the table of components and events (管理部件和事件) with what a
// case of each needs to be filed and closed, and how long handling may take, in
// the numberings of GB/T 30428.2-2013 and CJ/T 214-2007 side by side.
type Classes struct {
	standard string // the numbering that people here use
	by       map[citywarden.ClassCode]citywarden.Class

	store   ClassStore // nil: no versions are kept
	version int
}

// classColumns are those of a class table; code it must have.
var classColumns = []string{"code", "name_zh", "name_en", "filing_condition", "closing_condition", "limit", "department", "same_as"}

// classFile is the name of a class table in a file system.
const classFile = "classes.csv"

// LoadClasses returns the built-in table, with the rows of the classes.csv in each
// of fsys put over it; standard is the numbering that people here use, "" for
// GB/T 30428.2-2013. The columns are code ("event/0501", "event/0402@cjt214"),
// name_zh, name_en, filing_condition, closing_condition, limit (as ParseLimit reads
// it), department, and same_as, the code in the other numbering. Several rows of one
// code are its filing rules; they replace those of the tables before. A cell of a
// name or same_as that is empty leaves what there was. A class without conditions,
// limit and department has those of the one that it is the same as. A mistake is a
// CodeInvalid error that names the line.
//
// The built-in names are the standards'; codes from 76 up, limits and departments
// are those of real cities, meant to be replaced by one's own.
func LoadClasses(standard string, fsys ...fs.FS) (*Classes, error) {
	if standard == "" {
		standard = citywarden.GBT30428
	}
	if !slices.Contains(citywarden.Standards, standard) {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "no standard %q; there are %s", standard, strings.Join(citywarden.Standards, " and "))
	}
	c := &Classes{standard: standard, by: map[citywarden.ClassCode]citywarden.Class{}}
	for _, name := range []string{classFile, "classes-cjt214.csv"} {
		b, err := fs.ReadFile(data, "data/"+name)
		if err != nil {
			return nil, err
		}
		if err := c.read(name, b); err != nil {
			return nil, err
		}
	}
	for _, f := range fsys {
		b, err := fs.ReadFile(f, classFile)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", classFile, err)
		}
		if err := c.read(classFile, b); err != nil {
			return nil, err
		}
	}
	return c, c.join()
}

var classCode = regexp.MustCompile(`^(component|event)/[0-9]{4}(@cjt214)?$`)

// read puts the rows of one table over what there is.
func (c *Classes) read(name string, raw []byte) error {
	s, err := readSheet(raw, classColumns, []string{"code"})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fresh := map[citywarden.ClassCode]bool{}
	for _, row := range s.rows {
		if row.bad == nil {
			row.bad = c.row(row.cells, fresh)
		}
		if row.bad != nil {
			return citywarden.Errorf(citywarden.CodeInvalid, "%s:%d: %w", name, row.line, row.bad)
		}
	}
	return nil
}

func (c *Classes) row(cell map[string]string, fresh map[citywarden.ClassCode]bool) error {
	code := citywarden.ClassCode(cell["code"])
	if !classCode.MatchString(string(code)) {
		return fmt.Errorf("bad code %q; write component/0101 or event/0501, or event/0402@cjt214 of %s", code, citywarden.CJT214)
	}
	if _, err := ParseLimit(cell["limit"]); err != nil {
		return err
	}
	k := c.by[code]
	if !fresh[code] {
		k.Rules = nil
	}
	fresh[code] = true
	k.Code, k.Standard = code, code.Standard()
	if cell["name_zh"] != "" || cell["name_en"] != "" {
		k.Name = citywarden.Text{ZH: cell["name_zh"], EN: cell["name_en"]}
	}
	if k.Name == (citywarden.Text{}) {
		return fmt.Errorf("%s has no name", code)
	}
	for i, same := range strings.Fields(cell["same_as"]) {
		if i == 0 {
			k.Same = nil
		}
		o := citywarden.ClassCode(same)
		if !classCode.MatchString(same) || o.Standard() == k.Standard || o.Kind() != code.Kind() {
			return fmt.Errorf("%s can't be the same as %q; write a code of the other numbering", code, same)
		}
		k.Same = append(k.Same, o)
	}
	r := citywarden.FilingRule{
		Condition: cell["filing_condition"], Closing: cell["closing_condition"], Limit: cell["limit"], Department: cell["department"],
	}
	for _, before := range k.Rules {
		if before.Condition == r.Condition {
			return fmt.Errorf("%s is there twice with the same filing condition", code)
		}
	}
	r.ID = strconv.Itoa(len(k.Rules) + 1)
	k.Rules = append(k.Rules, r)
	c.by[code] = k
	return nil
}

// join says of each class what it is the same as, in both directions, and gives
// those that say nothing of their own the rules of that one.
func (c *Classes) join() error {
	for _, code := range slices.Sorted(maps.Keys(c.by)) {
		for _, same := range c.by[code].Same {
			o, ok := c.by[same]
			if !ok {
				return citywarden.Errorf(citywarden.CodeInvalid, "%s: %s is the same as %s, which there is not", classFile, code, same)
			}
			if !slices.Contains(o.Same, code) {
				o.Same = append(slices.Clone(o.Same), code)
				c.by[same] = o
			}
		}
	}
	for code, k := range c.by {
		if empty := k.Rules[0] == (citywarden.FilingRule{ID: "1"}); empty && len(k.Same) > 0 {
			k.Rules = c.by[k.Same[0]].Rules
		}
		first := k.Rules[0]
		k.Condition, k.Closing, k.Limit, k.Department = first.Condition, first.Closing, first.Limit, first.Department
		c.by[code] = k
	}
	return nil
}

// Keep has s keep the table: a table that differs from the newest there becomes
// the next version, from now on.
func (c *Classes) Keep(ctx context.Context, s ClassStore) error {
	c.store = s
	newest, err := s.ClassTable(ctx, 0)
	if err != nil && citywarden.CodeOf(err) != citywarden.CodeNotFound {
		return err
	}
	c.version = newest.Version
	all := c.Of("")
	if err == nil && reflect.DeepEqual(newest.Classes, all) {
		return nil
	}
	c.version++
	return s.AddClassTable(ctx, citywarden.ClassTable{Version: c.version, From: time.Now().UTC().Truncate(time.Millisecond), Classes: all})
}

// Table returns the table as it was in a version; CodeNotFound.
func (c *Classes) Table(ctx context.Context, version int) (citywarden.ClassTable, error) {
	return c.store.ClassTable(ctx, version)
}

// Tables returns the versions that there were, without their classes.
func (c *Classes) Tables(ctx context.Context) ([]citywarden.ClassTable, error) {
	return c.store.ClassTables(ctx)
}

// Class returns the row of code.
func (c *Classes) Class(code citywarden.ClassCode) (citywarden.Class, bool) {
	k, ok := c.by[code]
	return k, ok
}

// All returns the rows of the numbering that people here use, in the order of
// their codes.
func (c *Classes) All() []citywarden.Class { return c.Of(c.standard) }

// Of returns the rows of a numbering, of both for "", in the order of their codes.
func (c *Classes) Of(standard string) []citywarden.Class {
	out := make([]citywarden.Class, 0, len(c.by))
	for _, k := range slices.Sorted(maps.Keys(c.by)) {
		if standard == "" || k.Standard() == standard {
			out = append(out, c.by[k])
		}
	}
	return out
}

// alike returns code and those that mean the same in the other numbering.
func (c *Classes) alike(code citywarden.ClassCode) []citywarden.ClassCode {
	return append([]citywarden.ClassCode{code}, c.by[code].Same...)
}

// Check returns nil when there is a row of code, else what to write instead.
func (c *Classes) Check(code citywarden.ClassCode) error {
	if _, ok := c.by[code]; ok {
		return nil
	}
	return citywarden.Errorf(citywarden.CodeInvalid, "no class %q; citywarden classes and GET /api/v1/classes list them", code)
}

// put gives the case what the table says of class k by its filing rule of that
// id, the first for "". CodeInvalid when it has none of that id.
func (c *Classes) put(k citywarden.Class, rule string, to *citywarden.Case) error {
	if rule == "" {
		rule = k.Rules[0].ID
	}
	r, ok := k.Rule(rule)
	if !ok {
		return citywarden.Errorf(citywarden.CodeInvalid, "class %s has no filing rule %q; it has 1 to %d", k.Code, rule, len(k.Rules))
	}
	to.ClassName, to.Condition, to.Closing, to.Limit = k.Name, r.Condition, r.Closing, r.Limit
	to.FilingRule, to.ClassVersion = r.ID, c.version
	return nil
}

// department returns who handles the case unless somebody says otherwise, "" when
// the table doesn't say.
func (c *Classes) department(x *citywarden.Case) string {
	k := c.by[x.Class]
	r, ok := k.Rule(x.FilingRule)
	if !ok {
		return k.Department
	}
	return r.Department
}
