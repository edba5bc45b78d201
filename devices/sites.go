package devices

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// SiteStore keeps the sites; store.DB is one.
type SiteStore interface {
	LoadSites(context.Context) ([]citywarden.Site, error)
	SaveSite(context.Context, citywarden.Site) error
	DeleteSite(context.Context, citywarden.SiteID) error
}

// Sites returns all sites in the order of their ids.
func (r *Registry) Sites() []citywarden.Site {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]citywarden.Site, 0, len(r.sites))
	for _, id := range slices.Sorted(maps.Keys(r.sites)) {
		out = append(out, copySite(r.sites[id]))
	}
	return out
}

// Site returns a site, or CodeNotFound.
func (r *Registry) Site(id citywarden.SiteID) (citywarden.Site, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s, ok := r.sites[id]
	if !ok {
		return citywarden.Site{}, citywarden.Errorf(citywarden.CodeNotFound, "no site %q", id)
	}
	return copySite(s), nil
}

func copySite(s citywarden.Site) citywarden.Site {
	s.Attributes = maps.Clone(s.Attributes)
	return s
}

// SaveSite adds a site or replaces it, and returns it as stored; its devices have
// its attributes from then on. CodeInvalid for a bad id, and for an attribute
// that no model has or that every model which has it declares as another kind.
func (r *Registry) SaveSite(ctx context.Context, s citywarden.Site) (citywarden.Site, error) {
	if err := s.ID.Check(); err != nil {
		return citywarden.Site{}, err
	}
	if s.Name = strings.TrimSpace(s.Name); s.Name == "" {
		s.Name = string(s.ID)
	}
	if err := citywarden.CheckText("name", s.Name, 200); err != nil {
		return citywarden.Site{}, err
	}
	if len(s.Attributes) > maxAttributes {
		return citywarden.Site{}, citywarden.Errorf(citywarden.CodeInvalid, "site %s has %d attributes; at most %d are kept", s.ID, len(s.Attributes), maxAttributes)
	}
	attrs := make(map[string]any, len(s.Attributes))
	for _, name := range sortedKeys(s.Attributes) {
		x, err := r.models.siteAttribute(name, s.Attributes[name])
		if err != nil {
			return citywarden.Site{}, err
		}
		attrs[name] = x
	}
	s.Attributes, s.Updated = attrs, time.Now().UTC().Truncate(time.Millisecond)
	r.changeMu.Lock()
	defer r.changeMu.Unlock()
	if err := r.store.SaveSite(ctx, s); err != nil {
		return citywarden.Site{}, fmt.Errorf("save site %s: %w", s.ID, err)
	}
	r.mu.Lock()
	r.sites[s.ID] = s
	r.mu.Unlock()
	r.resite(s.ID, attrs)
	return copySite(s), nil
}

// DeleteSite removes a site, or returns CodeNotFound. Its devices stay and fall
// back to the defaults of their models.
func (r *Registry) DeleteSite(ctx context.Context, id citywarden.SiteID) error {
	r.changeMu.Lock()
	defer r.changeMu.Unlock()
	if _, err := r.Site(id); err != nil {
		return err
	}
	if err := r.store.DeleteSite(ctx, id); err != nil {
		return fmt.Errorf("delete site %s: %w", id, err)
	}
	r.mu.Lock()
	delete(r.sites, id)
	r.mu.Unlock()
	r.resite(id, nil)
	return nil
}

// resite gives the devices at a site its attributes. It needs changeMu.
func (r *Registry) resite(id citywarden.SiteID, attrs map[string]any) {
	var cs []change
	r.Each(func(d *citywarden.Device, m *citywarden.Model) {
		if d.Site() == id {
			moved := *d
			moved.SiteAttributes = attrs
			cs = append(cs, change{device: &moved, model: m})
		}
	})
	r.show(cs)
}

// siteAttribute returns the value x of an attribute as it is stored, if it is
// one that some model declares, and of that kind.
func (m *Models) siteAttribute(name string, x any) (any, error) {
	if name == citywarden.SiteAttribute {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "attribute site names the site of a device; a site can't have it")
	}
	declared := map[string]bool{}
	var wrong error
	for _, n := range m.names {
		model := m.byName[citywarden.ModelName(n)]
		for _, a := range model.Attributes {
			declared[a.Name] = true
		}
		if _, ok := model.Attribute(name); !ok {
			continue
		}
		v, err := checkAttribute(model, name, x)
		if err == nil {
			return v, nil
		}
		wrong = err
	}
	if wrong != nil {
		return nil, wrong
	}
	return nil, citywarden.Errorf(citywarden.CodeInvalid, "no model has an attribute %q%s", name, suggest(name, sortedKeys(declared)))
}
