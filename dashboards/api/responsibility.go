package api

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"

	"github.com/citywarden/citywarden"
)

// Responsibility says who looks after which unit grids.
type Responsibility interface {
	All() []citywarden.ResponsibilityGrid
	Get(citywarden.ResponsibilityGridID) (citywarden.ResponsibilityGrid, error)
	Save(context.Context, citywarden.ResponsibilityGrid) (citywarden.ResponsibilityGrid, error)
	Delete(context.Context, citywarden.ResponsibilityGridID) error
	Import(ctx context.Context, r io.Reader, replace bool) (citywarden.TableReport, error)
}

// ResponsibilityPath holds the path parameter of one responsibility grid.
type ResponsibilityPath struct {
	ID citywarden.ResponsibilityGridID `path:"id" maxLength:"64"`
}

func (p ResponsibilityPath) state(_ context.Context, s *server) (any, error) {
	return s.Responsibility.Get(p.ID)
}

type responsibilityBody struct {
	ID      citywarden.ResponsibilityGridID `json:"id,omitempty" readOnly:"true"`
	Name    string                          `json:"name,omitempty" maxLength:"200"`
	Officer string                          `json:"officer,omitempty" maxLength:"64" doc:"User name of a grid officer; left out: nobody"`
	Grids   []citywarden.GridCode           `json:"grids" nullable:"false" doc:"Codes of unit grids, or of areas with all unit grids in them"`
}

func (s *server) responsibilityRoutes() {
	const tag = "map"
	handle(s, route{method: "GET", path: "/api/v1/responsibility-grids", id: "list-responsibility-grids", tag: tag, may: citywarden.MayRead,
		summary: "Responsibility grids: which officer looks after which unit grids"}, func(ctx context.Context, _ *struct{}) (*listOutput[citywarden.ResponsibilityGrid], error) {
		var out []citywarden.ResponsibilityGrid
		for _, g := range s.Responsibility.All() {
			if g = partOf(g, callerOf(ctx)); len(g.Grids) > 0 {
				out = append(out, g)
			}
		}
		return listOf(out, ""), nil
	})
	handle(s, route{method: "GET", path: "/api/v1/responsibility-grids/{id}", id: "get-responsibility-grid", tag: tag, may: citywarden.MayRead,
		summary: "One responsibility grid"}, func(ctx context.Context, in *ResponsibilityPath) (*output[citywarden.ResponsibilityGrid], error) {
		g, err := s.Responsibility.Get(in.ID)
		if err == nil {
			if g = partOf(g, callerOf(ctx)); len(g.Grids) == 0 {
				err = citywarden.Errorf(citywarden.CodeNotFound, "no responsibility grid %q", in.ID)
			}
		}
		if err != nil {
			return nil, err
		}
		return outputOf(g), nil
	})
	handle(s, route{method: "PUT", path: "/api/v1/responsibility-grids/{id}", id: "put-responsibility-grid", tag: tag, may: citywarden.MayWriteGrids,
		summary: "Add a responsibility grid, or replace its name, officer and unit grids"}, func(ctx context.Context, in *struct {
		ResponsibilityPath
		Body responsibilityBody
	}) (*output[citywarden.ResponsibilityGrid], error) {
		b := in.Body
		g, err := s.Responsibility.Save(ctx, citywarden.ResponsibilityGrid{ID: in.ID, Name: b.Name, Officer: b.Officer, Grids: b.Grids})
		if err != nil {
			return nil, err
		}
		return outputOf(g), nil
	})
	handle(s, route{method: "DELETE", path: "/api/v1/responsibility-grids/{id}", id: "delete-responsibility-grid", tag: tag, may: citywarden.MayWriteGrids, status: http.StatusNoContent,
		summary: "Delete a responsibility grid; its unit grids stay"}, func(ctx context.Context, in *ResponsibilityPath) (*struct{}, error) {
		return nil, s.Responsibility.Delete(ctx, in.ID)
	})
	handle(s, route{method: "POST", path: "/api/v1/responsibility-grids/import", id: "import-responsibility-grids", tag: tag, may: citywarden.MayWriteGrids, maxBody: 64 << 20,
		summary: "Add and change responsibility grids from CSV or GeoJSON; the answer says what is wrong with which line"}, func(ctx context.Context, in *struct {
		Replace bool   `query:"replace" doc:"Those that the file lacks go, when nothing is wrong with it"`
		RawBody []byte `contentType:"text/csv"`
	}) (*output[citywarden.TableReport], error) {
		r, err := s.Responsibility.Import(ctx, bytes.NewReader(in.RawBody), in.Replace)
		if err != nil {
			return nil, err
		}
		return outputOf(r), nil
	})
}

// partOf returns g with the unit grids that u sees.
func partOf(g citywarden.ResponsibilityGrid, u citywarden.User) citywarden.ResponsibilityGrid {
	var seen []citywarden.GridCode
	for _, code := range g.Grids {
		switch {
		case u.Area.Has(code):
			seen = append(seen, code)
		case u.Area.Meets(citywarden.AreaCode(code)): // u sees a part of it
			seen = append(seen, citywarden.GridCode(u.Area))
		}
	}
	g.Grids = seen
	return g
}

// keepsOfficer returns CodeConflict when a responsibility grid names the user, who
// then has to stay an officer who sees its unit grids. u is what becomes of the
// user, nil when it is deleted.
func (s *server) keepsOfficer(name string, u *citywarden.User) error {
	for _, g := range s.Responsibility.All() {
		stays := u != nil && u.Role == citywarden.RoleOfficer && !u.Disabled && !slices.ContainsFunc(g.Grids, func(code citywarden.GridCode) bool { return !u.Area.Has(code) })
		if g.Officer == name && !stays {
			return citywarden.Errorf(citywarden.CodeConflict, "%s looks after the responsibility grid %s; give it another officer first", name, g.ID)
		}
	}
	return nil
}
