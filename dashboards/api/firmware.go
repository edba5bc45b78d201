package api

import (
	"context"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/citywarden/citywarden"
)

// Firmware is the packages that devices can load.
type Firmware interface {
	List() []citywarden.Firmware
	Add(ctx context.Context, f citywarden.Firmware, file []byte) (citywarden.Firmware, error)
	Delete(ctx context.Context, title, version string) error
	Assign(ctx context.Context, t citywarden.FirmwareTarget, title, version string) error
}

// FirmwarePath names one firmware.
type FirmwarePath struct {
	Title   string `path:"title" maxLength:"64"`
	Version string `path:"version" maxLength:"64"`
}

type firmwareForm struct {
	Title   string               `form:"title" required:"true"`
	Version string               `form:"version" required:"true"`
	Model   citywarden.ModelName `form:"model" required:"true"`
	File    huma.FormFile        `form:"file" required:"true" doc:"At most 16 MiB"`
}

type firmwareTargetBody struct {
	citywarden.FirmwareTarget
	Title   string `json:"title,omitempty" maxLength:"64" doc:"Left out, with version: the target has none any more"`
	Version string `json:"version,omitempty" maxLength:"64"`
}

func (s *server) firmwareRoutes() {
	const tag = "devices"
	handle(s, route{method: "GET", path: "/api/v1/firmware", id: "list-firmware", tag: tag, may: citywarden.MayWriteDevices, // who has no area: the targets are anywhere
		summary: "Firmware that devices can load, and who is to have it"}, func(context.Context, *struct{}) (*listOutput[citywarden.Firmware], error) {
		return listOf(s.Firmware.List(), ""), nil
	})
	handle(s, route{method: "POST", path: "/api/v1/firmware", id: "create-firmware", tag: tag, may: citywarden.MayWriteDevices,
		status: http.StatusCreated, maxBody: citywarden.MaxFirmware + formRoom,
		summary: "Add a firmware; nobody loads it before it is assigned"}, s.createFirmware)
	handle(s, route{method: "DELETE", path: "/api/v1/firmware/{title}/{version}", id: "delete-firmware", tag: tag, may: citywarden.MayWriteDevices,
		status: http.StatusNoContent, summary: "Delete a firmware; who was to have it is told"}, func(ctx context.Context, in *FirmwarePath) (*struct{}, error) {
		return nil, s.Firmware.Delete(ctx, in.Title, in.Version)
	})
	handle(s, route{method: "POST", path: "/api/v1/firmware/assign", id: "assign-firmware", tag: tag, may: citywarden.MayWriteDevices,
		status: http.StatusNoContent, summary: "Say which firmware a device, those of a site or those of a model are to have; they are told at once"}, s.assignFirmware)
}

func (s *server) createFirmware(ctx context.Context, in *struct {
	RawBody huma.MultipartFormFiles[firmwareForm]
}) (*created[citywarden.Firmware], error) {
	form := in.RawBody.Data()
	file, err := io.ReadAll(io.LimitReader(form.File, citywarden.MaxFirmware+1))
	if err != nil {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "read the firmware: %w", err)
	}
	f, err := s.Firmware.Add(ctx, citywarden.Firmware{Title: form.Title, Version: form.Version, Model: form.Model, By: callerOf(ctx).Name}, file)
	if err != nil {
		return nil, err
	}
	return &created[citywarden.Firmware]{Location: "/api/v1/firmware", Body: f}, nil
}

func (s *server) assignFirmware(ctx context.Context, in *struct{ Body firmwareTargetBody }) (*struct{}, error) {
	return nil, s.Firmware.Assign(ctx, in.Body.FirmwareTarget, in.Body.Title, in.Body.Version)
}
