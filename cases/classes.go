package cases

import (
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"

	"github.com/citywarden/citywarden"
)

// Classes is the table of components and events (管理部件和事件) with what a
// case of each needs to be filed and closed, and how long handling may take.
type Classes struct {
	by map[citywarden.ClassCode]citywarden.Class
}

// Standard is the numbering of the built-in table. CJ/T 214-2007 numbers the
// same things differently, so a table always says which one it follows.
const Standard = "GB/T 30428.2-2013"

// LoadClasses returns the built-in table, with the rows of each classes.csv in
// fsys put over it. Its columns are code ("component/0101" or "event/0501"),
// name_zh, name_en, filing_condition, closing_condition, limit (as ParseLimit
// reads it) and department. A mistake is a CodeInvalid error that names the line.
//
// The built-in names are the standard's; its codes from 76 up, its limits and
// departments are those of real cities, meant to be replaced by one's own.
func LoadClasses(fsys ...fs.FS) (*Classes, error) {
	builtin, err := fs.Sub(data, "data")
	if err != nil {
		return nil, err
	}
	c := &Classes{by: map[citywarden.ClassCode]citywarden.Class{}}
	for _, f := range append([]fs.FS{builtin}, fsys...) {
		if err := c.read(f); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Classes) read(fsys fs.FS) error {
	code := regexp.MustCompile(`^(component|event)/[0-9]{4}$`)
	columns := []string{"code", "name_zh", "name_en", "filing_condition", "closing_condition", "limit", "department"}
	seen := map[string]bool{}
	return readCSV(fsys, "classes.csv", columns, func(row map[string]string) error {
		switch {
		case !code.MatchString(row["code"]):
			return fmt.Errorf("bad code %q; write component/0101 or event/0501", row["code"])
		case seen[row["code"]]:
			return fmt.Errorf("%s is there twice", row["code"])
		case row["name_zh"] == "" && row["name_en"] == "":
			return fmt.Errorf("%s has no name", row["code"])
		}
		seen[row["code"]] = true
		if _, err := ParseLimit(row["limit"]); err != nil {
			return err
		}
		k := citywarden.ClassCode(row["code"])
		c.by[k] = citywarden.Class{
			Code: k, Standard: Standard, Name: citywarden.Text{ZH: row["name_zh"], EN: row["name_en"]},
			Condition: row["filing_condition"], Closing: row["closing_condition"],
			Limit: row["limit"], Department: row["department"],
		}
		return nil
	})
}

// Class returns the row of code.
func (c *Classes) Class(code citywarden.ClassCode) (citywarden.Class, bool) {
	k, ok := c.by[code]
	return k, ok
}

// All returns all rows in the order of their codes.
func (c *Classes) All() []citywarden.Class {
	out := make([]citywarden.Class, 0, len(c.by))
	for _, k := range slices.Sorted(maps.Keys(c.by)) {
		out = append(out, c.by[k])
	}
	return out
}

// Check returns nil when there is a row of code, else what to write instead.
func (c *Classes) Check(code citywarden.ClassCode) error {
	if _, ok := c.by[code]; ok {
		return nil
	}
	return citywarden.Errorf(citywarden.CodeInvalid, "no class %q; GET /api/v1/classes lists them", code)
}
