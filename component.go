package citywarden

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ComponentID is the 16-digit identity code of a managed component (部件):
// 6-digit county (GB/T 2260), 2 main class, 2 sub class, 6 running number
// (GB/T 30428.2).
type ComponentID string

var componentID = regexp.MustCompile(`^[0-9]{16}$`)

// Check returns a CodeInvalid error unless id has 16 digits.
func (id ComponentID) Check() error {
	if !componentID.MatchString(string(id)) {
		return Errorf(CodeInvalid, "component code %q: use 16 digits, county 6 + main class 2 + sub class 2 + running number 6", id)
	}
	return nil
}

// County returns the county's part of id, which was checked.
func (id ComponentID) County() string { return string(id[:6]) }

// Class returns the class that id, which was checked, names in a numbering.
func (id ComponentID) Class(standard string) ClassCode {
	code := ClassCode("component/" + id[6:10])
	if standard == CJT214 {
		code += cjt214
	}
	return code
}

// Component is a managed component of the city: a manhole cover, a hydrant, a
// street lamp (GB/T 30428.2).
type Component struct {
	ID         ComponentID    `json:"id"`
	Class      ClassCode      `json:"class"` // what the digits of ID mean
	Name       string         `json:"name"`
	Location   Point          `json:"location"`
	Grid       GridCode       `json:"grid,omitempty"`       // the unit grid that Location lies in; set by the platform
	Authority  string         `json:"authority,omitempty"`  // 主管部门
	Owner      string         `json:"owner,omitempty"`      // 权属单位
	Maintainer string         `json:"maintainer,omitempty"` // 养护单位
	State      ComponentState `json:"state"`
	Initial    string         `json:"initial_date,omitempty"` // 初始日期, 2025-01-31
	Changed    string         `json:"change_date,omitempty"`  // 变更日期
	Address    string         `json:"address,omitempty"`      // in words
	Survey     string         `json:"data_source,omitempty"`  // how its data came to be known: 实测
	Remark     string         `json:"remark,omitempty"`
	Updated    time.Time      `json:"updated,omitzero"`
}

// ComponentState is how a component is.
type ComponentState string

// The states.
const (
	Intact    ComponentState = "intact"    // 完好
	Damaged   ComponentState = "damaged"   // 破损
	Lost      ComponentState = "lost"      // 丢失
	Abandoned ComponentState = "abandoned" // 废弃
	Removed   ComponentState = "removed"   // 移除
)

// ComponentStates are all states, with their names.
var ComponentStates = []struct {
	State ComponentState
	Name  Text
}{
	{Intact, Text{ZH: "完好", EN: "intact"}},
	{Damaged, Text{ZH: "破损", EN: "damaged"}},
	{Lost, Text{ZH: "丢失", EN: "lost"}},
	{Abandoned, Text{ZH: "废弃", EN: "abandoned"}},
	{Removed, Text{ZH: "移除", EN: "removed"}},
}

// ParseComponentState reads the name of a state in either language; nothing is
// Intact.
func ParseComponentState(s string) (ComponentState, error) {
	if s == "" {
		return Intact, nil
	}
	var names []string
	for _, x := range ComponentStates {
		if s == x.Name.ZH || strings.EqualFold(s, x.Name.EN) {
			return x.State, nil
		}
		names = append(names, fmt.Sprintf("%s (%s)", x.Name.EN, x.Name.ZH))
	}
	return "", Errorf(CodeInvalid, "state %q: write %s", s, strings.Join(names, ", "))
}

// BelongsTo reports whether a department is authority, owner or maintainer of c.
func (c *Component) BelongsTo(department string) bool {
	return slices.Contains([]string{c.Authority, c.Owner, c.Maintainer}, department)
}

// Check returns a CodeInvalid error that says which text or date of c is wrong.
func (c *Component) Check() error {
	if err := c.ID.Check(); err != nil {
		return err
	}
	if err := c.Location.Check(); err != nil {
		return err
	}
	for _, x := range []struct {
		name, text string
		most       int
	}{
		{"name", c.Name, 200}, {"authority", c.Authority, 100}, {"owner", c.Owner, 100}, {"maintainer", c.Maintainer, 100},
		{"address", c.Address, 300}, {"data_source", c.Survey, 100}, {"remark", c.Remark, 1000},
	} {
		if err := CheckText(x.name, x.text, x.most); err != nil {
			return err
		}
	}
	for _, x := range [][2]string{{"initial_date", c.Initial}, {"change_date", c.Changed}} {
		if _, err := time.Parse(time.DateOnly, x[1]); x[1] != "" && err != nil {
			return Errorf(CodeInvalid, "%s %q: write it like 2025-01-31", x[0], x[1])
		}
	}
	_, err := ParseComponentState(string(c.State))
	return err
}

// ComponentFilter selects components; zero fields select all.
type ComponentFilter struct {
	Class      ClassCode
	Area       AreaCode
	Grid       GridCode // or the code of an area with all unit grids in it
	Department string   // that is authority, owner or maintainer
	State      ComponentState
	Search     string // part of the code, name or address, any case
	In         *Box
	Page
}

// Nearby is a component with how far it is away.
type Nearby struct {
	Component
	Distance float64 `json:"distance_m"`
}

// ComponentImport says how a file of components is taken.
type ComponentImport struct {
	CRS   string // of positions that don't say their own, as ParseCRS reads it; "": what the file says, else WGS 84
	Check bool   // look, and take nothing
}
