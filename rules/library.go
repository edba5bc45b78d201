package rules

import (
	"embed"
	"io/fs"
	"slices"
	"strings"

	"github.com/citywarden/citywarden"
)

//go:embed library
var library embed.FS

// Library returns the rule files that come with the platform, in a folder each
// for fire, pipe, parking, building and device. They are written for the
// built-in device models.
func Library() fs.FS {
	sub, err := fs.Sub(library, "library")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}

// AttributeUse is an attribute that a rule looks at.
type AttributeUse struct {
	Name    string `json:"name"`
	Needed  bool   `json:"needed,omitempty"`  // a condition reads it, and it has no default: a device without it raises nothing
	Default string `json:"default,omitempty"` // with its unit, or "by model"; "" when there is none
}

// Attributes returns the attributes that the rule looks at, by name: in its
// conditions, and to group, to inhibit and to name the case.
func (s *Set) Attributes(id citywarden.RuleID) []AttributeUse {
	r := s.byID[id]
	if r == nil {
		return nil
	}
	if r.of != nil {
		r = r.of
	}
	out := map[string]AttributeUse{}
	for _, name := range r.names() {
		out[name] = AttributeUse{Name: name}
	}
	known := map[string]bool{}
	for _, m := range r.Models {
		p := s.plans[m]
		for _, a := range p.binding(r).attributes() {
			decl := p.model.Attributes[a.index]
			use := AttributeUse{Name: decl.Name, Needed: !a.optional && decl.Default == nil}
			value := decl.Default
			if value == nil {
				value = a.fallback
			}
			if v, ok := citywarden.ValueOf(value); ok {
				use.Default = strings.TrimSpace(v.String() + " " + decl.Unit)
			}
			if known[use.Name] && out[use.Name].Default != use.Default {
				use.Default = "by model"
			}
			use.Needed = use.Needed || out[use.Name].Needed
			out[use.Name], known[use.Name] = use, true
		}
	}
	list := make([]AttributeUse, 0, len(out))
	for _, use := range out {
		list = append(list, use)
	}
	slices.SortFunc(list, func(a, b AttributeUse) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// names returns the attributes that r looks at outside of conditions.
func (r *rule) names() []string {
	var out []string
	if r.groupBy != "" {
		out = append(out, r.groupBy)
	}
	for _, in := range r.inhibitors {
		out = append(out, in.equal...)
	}
	if r.storm != nil {
		out = append(out, r.storm.by)
	}
	if r.order != nil {
		for _, p := range slices.Concat(r.order.key.parts, r.order.parent.parts) {
			name, is := strings.CutPrefix(p.name, "attr.")
			if is || name != "" && name == r.groupBy {
				out = append(out, name)
			}
		}
	}
	return out
}

// attributes returns those that the conditions of b read.
func (b *binding) attributes() []attrUse {
	var out []attrUse
	if b.about != nil {
		out = append(out, b.about.attrs...)
	}
	for _, c := range b.prog.all() {
		out = append(out, c.uses.attrs...)
		for _, m := range c.members {
			if mc := m.conds[b.plan.index]; mc != nil {
				out = append(out, mc.uses.attrs...)
			}
		}
	}
	return out
}
