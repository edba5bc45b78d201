package api

import (
	"context"
	"net/http"
	"time"

	"github.com/citywarden/citywarden"
)

// Commands tells devices what to do.
type Commands interface {
	Tell(ctx context.Context, id citywarden.DeviceID, method string, params map[string]any, expires time.Duration, by string) (citywarden.Command, error)
	List(ctx context.Context, f citywarden.CommandFilter) ([]citywarden.Command, string, error)
}

func (s *server) commandRoutes() {
	const tag = "devices"
	handle(s, route{method: "POST", path: "/api/v1/devices/{id}/commands", id: "send-command", tag: tag, may: citywarden.MayTellDevices, status: http.StatusCreated,
		summary: "Tell a device to do something that its model declares, now or when it is there"}, s.sendCommand)
	handle(s, route{method: "GET", path: "/api/v1/devices/{id}/commands", id: "list-commands", tag: tag, may: citywarden.MayRead,
		summary: "What a device was told to do, and how far that is; the newest first"}, s.listCommands)
}

type commandBody struct {
	Method  string         `json:"method" maxLength:"64" doc:"A command of the device's model"`
	Params  map[string]any `json:"params,omitempty" doc:"As the model declares them"`
	Expires string         `json:"expires,omitempty" doc:"How long it is of use, like 90s, 10m or 2d; what the model says when left out"`
}

func (s *server) sendCommand(ctx context.Context, in *struct {
	DevicePath
	Body commandBody
}) (*output[citywarden.Command], error) {
	if _, _, err := s.seenDevice(ctx, in.ID); err != nil {
		return nil, err
	}
	var expires citywarden.Duration
	if in.Body.Expires != "" {
		var err error
		if expires, err = citywarden.ParseDuration(in.Body.Expires); err != nil {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "expires: %w", err)
		}
	}
	c, err := s.Commands.Tell(ctx, in.ID, in.Body.Method, in.Body.Params, expires.Std(), requestOf(ctx).user.Name)
	if err != nil {
		return nil, err
	}
	return outputOf(c), nil
}

func (s *server) listCommands(ctx context.Context, in *struct {
	DevicePath
	Paging
	Open bool `query:"open" doc:"Only those of which something can still become"`
}) (*listOutput[citywarden.Command], error) {
	if _, _, err := s.seenDevice(ctx, in.ID); err != nil {
		return nil, err
	}
	cs, next, err := s.Commands.List(ctx, citywarden.CommandFilter{Device: in.ID, Open: in.Open, Page: in.page()})
	if err != nil {
		return nil, err
	}
	return listOf(cs, next), nil
}
