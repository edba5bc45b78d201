package citywarden

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// SiteID names a site: what its devices have as the attribute "site". 1 to 64
// printable characters, no slash.
type SiteID string

// Check returns a CodeInvalid error unless id has the form that SiteID states.
func (id SiteID) Check() error {
	if !plainName(string(id)) {
		return Errorf(CodeInvalid, "site id %q: use 1 to 64 printable characters without a slash", id)
	}
	return nil
}

// plainName reports whether s has 1 to 64 printable characters without a slash.
func plainName(s string) bool {
	bad := func(r rune) bool { return r == '/' || !unicode.IsPrint(r) }
	n := utf8.RuneCountInString(s)
	return n > 0 && n <= 64 && utf8.ValidString(s) && strings.TrimSpace(s) == s && !strings.ContainsFunc(s, bad)
}

// Site is a place with several devices: a building, a car park, a pumping
// station. Its attributes hold for each device there that has none of its own.
type Site struct {
	ID         SiteID         `json:"id"`
	Name       string         `json:"name"`
	Attributes map[string]any `json:"attributes"` // string, float64 or bool
	Updated    time.Time      `json:"updated"`
}

// SiteAttribute is the attribute of a device that names its site.
const SiteAttribute = "site"

// Site returns the site that d is at, "" for none.
func (d *Device) Site() SiteID {
	s, _ := d.Attributes[SiteAttribute].(string)
	return SiteID(s)
}

// Attribute returns what attr.name is for d, of model m, and from where: the
// "device", its "site" or the "model"; nil and "" when nobody says. A site's value
// of another kind than m declares does not count: it is meant for other models.
func (d *Device) Attribute(m *Model, name string) (value any, from string) {
	if v := d.Attributes[name]; v != nil {
		return v, "device"
	}
	decl, declared := m.Attribute(name)
	if v := d.SiteAttributes[name]; v != nil {
		if x, ok := ValueOf(v); ok && (!declared || x.Kind() == decl.Kind) {
			return v, "site"
		}
	}
	if declared && decl.Default != nil {
		return decl.Default, "model"
	}
	return nil, ""
}
