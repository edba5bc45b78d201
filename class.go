package citywarden

import "strings"

// classGroups are the main classes (大类) of GB/T 30428.2-2013.
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
}

// Group returns the main class of c, as "component/01", and its name.
func (c ClassCode) Group() (code string, name Text) {
	kind, digits, _ := strings.Cut(string(c), "/")
	code = kind + "/" + digits[:min(2, len(digits))]
	if name, ok := classGroups[code]; ok {
		return code, name
	}
	return code, Text{ZH: code, EN: code}
}
