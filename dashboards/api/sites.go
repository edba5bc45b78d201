package api

import (
	"context"
	"net/http"
	"slices"

	"github.com/citywarden/citywarden"
)

// Sites are the places whose attributes hold for their devices.
type Sites interface {
	Sites() []citywarden.Site
	Site(citywarden.SiteID) (citywarden.Site, error)
	SaveSite(context.Context, citywarden.Site) (citywarden.Site, error)
	DeleteSite(context.Context, citywarden.SiteID) error
}

// SitePath holds the path parameter of one site.
type SitePath struct {
	ID citywarden.SiteID `path:"id" maxLength:"64"`
}

func (p SitePath) state(_ context.Context, s *server) (any, error) { return s.Sites.Site(p.ID) }

type siteBody struct {
	ID         citywarden.SiteID `json:"id,omitempty" readOnly:"true"`
	Name       string            `json:"name,omitempty" maxLength:"200"`
	Attributes map[string]any    `json:"attributes" doc:"Texts, numbers and bools, as the models declare them"`
}

func (s *server) siteRoutes() {
	const tag = "sites"
	handle(s, route{method: "GET", path: "/api/v1/sites", id: "list-sites", tag: tag, may: citywarden.MayRead,
		summary: "All sites"}, func(ctx context.Context, _ *struct{}) (*listOutput[citywarden.Site], error) {
		sees, err := s.seesSites(callerOf(ctx))
		if err != nil {
			return nil, err
		}
		return listOf(slices.DeleteFunc(s.Sites.Sites(), func(x citywarden.Site) bool { return !sees(x.ID) }), ""), nil
	})
	handle(s, route{method: "GET", path: "/api/v1/sites/{id}", id: "get-site", tag: tag, may: citywarden.MayRead,
		summary: "One site"}, func(ctx context.Context, in *SitePath) (*output[citywarden.Site], error) {
		x, err := s.Sites.Site(in.ID)
		if err != nil {
			return nil, err
		}
		sees, err := s.seesSites(callerOf(ctx))
		if err == nil && !sees(x.ID) {
			err = citywarden.Errorf(citywarden.CodeNotFound, "no site %q", x.ID)
		}
		if err != nil {
			return nil, err
		}
		return outputOf(x), nil
	})
	handle(s, route{method: "PUT", path: "/api/v1/sites/{id}", id: "put-site", tag: tag, may: citywarden.MayWriteSites,
		summary: "Add a site, or replace its name and attributes; they hold for its devices at once"}, s.putSite)
	handle(s, route{method: "DELETE", path: "/api/v1/sites/{id}", id: "delete-site", tag: tag, may: citywarden.MayWriteSites, status: http.StatusNoContent,
		summary: "Delete a site; its devices fall back to the defaults of their models"}, func(ctx context.Context, in *SitePath) (*struct{}, error) {
		return nil, s.Sites.DeleteSite(ctx, in.ID)
	})
}

func (s *server) putSite(ctx context.Context, in *struct {
	SitePath
	Body siteBody
}) (*output[citywarden.Site], error) {
	x, err := s.Sites.SaveSite(ctx, citywarden.Site{ID: in.ID, Name: in.Body.Name, Attributes: in.Body.Attributes})
	if err != nil {
		return nil, err
	}
	return outputOf(x), nil
}
