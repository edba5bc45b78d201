package citywarden

import (
	"strings"
	"time"
)

// The numberings of components and events. The older one numbers the same things
// differently; its codes end in "@cjt214".
const (
	GBT30428 = "GB/T 30428.2-2013"
	CJT214   = "CJ/T 214-2007"

	cjt214 = "@cjt214"
)

// Standards are both numberings, the one of codes without an ending first.
var Standards = []string{GBT30428, CJT214}

// classGroups are the main classes (大类) of both numberings.
var classGroups = map[string]Text{
	"component/01": {ZH: "公用设施", EN: "public facilities"},
	"component/02": {ZH: "道路交通设施", EN: "roads and traffic"},
	"component/03": {ZH: "市容环境设施", EN: "sanitation facilities"},
	"component/04": {ZH: "园林绿化设施", EN: "parks and greenery"},
	"component/05": {ZH: "其他部件", EN: "other facilities"},
	"event/01":     {ZH: "市容环境", EN: "cleanliness and environment"},
	"event/02":     {ZH: "宣传广告", EN: "advertisements"},
	"event/03":     {ZH: "施工管理", EN: "building sites"},
	"event/04":     {ZH: "街面秩序", EN: "order in the streets"},
	"event/05":     {ZH: "突发事件", EN: "emergencies"},
	"event/06":     {ZH: "其他事件", EN: "other events"},

	"component/01@cjt214": {ZH: "公用设施", EN: "public facilities"},
	"component/02@cjt214": {ZH: "道路交通设施", EN: "roads and traffic"},
	"component/03@cjt214": {ZH: "市容环境设施", EN: "sanitation facilities"},
	"component/04@cjt214": {ZH: "园林绿化设施", EN: "parks and greenery"},
	"component/05@cjt214": {ZH: "房屋土地", EN: "houses and land"},
	"component/06@cjt214": {ZH: "其他设施", EN: "other facilities"},
	"component/21@cjt214": {ZH: "扩展部件", EN: "further components"},
	"event/01@cjt214":     {ZH: "市容环境", EN: "cleanliness and environment"},
	"event/02@cjt214":     {ZH: "宣传广告", EN: "advertisements"},
	"event/03@cjt214":     {ZH: "施工管理", EN: "building sites"},
	"event/04@cjt214":     {ZH: "突发事件", EN: "emergencies"},
	"event/05@cjt214":     {ZH: "街面秩序", EN: "order in the streets"},
	"event/21@cjt214":     {ZH: "扩展事件", EN: "further events"},
}

// Standard returns the numbering that c belongs to.
func (c ClassCode) Standard() string {
	if strings.HasSuffix(string(c), cjt214) {
		return CJT214
	}
	return GBT30428
}

// Digits returns main and sub class of c, "0101" for component/0101.
func (c ClassCode) Digits() string {
	_, digits, _ := strings.Cut(strings.TrimSuffix(string(c), cjt214), "/")
	return digits
}

// Kind returns "component" or "event".
func (c ClassCode) Kind() string {
	kind, _, _ := strings.Cut(string(c), "/")
	return kind
}

// Group returns the main class of c, as "component/01", and its name.
func (c ClassCode) Group() (code string, name Text) {
	digits := c.Digits()
	code = c.Kind() + "/" + digits[:min(2, len(digits))]
	if c.Standard() == CJT214 {
		code += cjt214
	}
	if name, ok := classGroups[code]; ok {
		return code, name
	}
	return code, Text{ZH: code, EN: code}
}

// Class is one row of the table of components and events (GB/T 30428.2 and .8).
type Class struct {
	Code     ClassCode    `json:"code"`
	Standard string       `json:"standard"` // GBT30428 or CJT214
	Name     Text         `json:"name"`
	Same     []ClassCode  `json:"same_as,omitempty"`      // what it is in the other numbering
	Rules    []FilingRule `json:"rules" nullable:"false"` // at least one; a case has the first unless somebody says another

	Condition  string `json:"filing_condition,omitempty"` // these are of the first of Rules
	Closing    string `json:"closing_condition,omitempty"`
	Limit      string `json:"limit"`
	Department string `json:"department"`
}

// FilingRule says when a case of a class is filed and closed, and how long the
// handling may take.
type FilingRule struct {
	ID         string `json:"id"` // 1, 2, 3 … of each class
	Condition  string `json:"filing_condition,omitempty"`
	Closing    string `json:"closing_condition,omitempty"`
	Limit      string `json:"limit"` // "2紧急工作时", "4小时", "1天"
	Department string `json:"department"`
}

// Rule returns the filing rule of that id.
func (c *Class) Rule(id string) (FilingRule, bool) {
	for _, r := range c.Rules {
		if r.ID == id {
			return r, true
		}
	}
	return FilingRule{}, false
}

// ClassTable is the table of classes as it was from a time on.
type ClassTable struct {
	Version int       `json:"version"` // 1, 2, 3 …
	From    time.Time `json:"valid_from"`
	Classes []Class   `json:"classes,omitempty"` // of both numberings, by code; left out in lists
}
