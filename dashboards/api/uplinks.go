package api

import (
	"context"

	"github.com/citywarden/citywarden"
)

func (s *server) uplinkRoutes() {
	handle(s, route{method: "GET", path: "/api/v1/uplinks", id: "list-uplinks", tag: "platform", may: citywarden.MayWriteDevices,
		summary: "The connections to brokers elsewhere: since when, what came, what waits, and why one is not there"},
		func(context.Context, *struct{}) (*listOutput[citywarden.Link], error) {
			all := []citywarden.Link{}
			if s.Links != nil {
				all = s.Links()
			}
			return listOf(all, ""), nil
		})
}
