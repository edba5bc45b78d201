package api

import (
	"context"
	"net/http"

	"github.com/citywarden/citywarden"
)

// Provisioner says which models' devices may provision themselves.
type Provisioner interface {
	Provisioning() []citywarden.Provisioning
	SetProvisioning(ctx context.Context, model citywarden.ModelName, createNew bool) (citywarden.Provisioning, string, error)
	EndProvisioning(ctx context.Context, model citywarden.ModelName) error
}

// ModelPath holds the path parameter of one model.
type ModelPath struct {
	Model citywarden.ModelName `path:"model" maxLength:"64"`
}

type provisioningSecret struct {
	citywarden.Provisioning
	Secret string `json:"secret" doc:"provisionDeviceSecret; it is not shown again"`
}

func (s *server) provisioningRoutes() {
	const tag = "devices"
	handle(s, route{method: "GET", path: "/api/v1/provisioning", id: "list-provisioning", tag: tag, may: citywarden.MayWriteDevices,
		summary: "The models whose devices may get a credential by themselves, without the secrets"}, func(context.Context, *struct{}) (*listOutput[citywarden.Provisioning], error) {
		return listOf(s.Provisioner.Provisioning(), ""), nil
	})
	handle(s, route{method: "PUT", path: "/api/v1/provisioning/{model}", id: "set-provisioning", tag: tag, may: citywarden.MayWriteDevices,
		summary: "Make a key and secret with which devices of a model get a credential by themselves, in place of those before"}, s.setProvisioning)
	handle(s, route{method: "DELETE", path: "/api/v1/provisioning/{model}", id: "end-provisioning", tag: tag, may: citywarden.MayWriteDevices, status: http.StatusNoContent,
		summary: "Take key and secret of a model away; the devices that have a credential keep it"}, func(ctx context.Context, in *ModelPath) (*struct{}, error) {
		return nil, s.Provisioner.EndProvisioning(ctx, in.Model)
	})
}

func (s *server) setProvisioning(ctx context.Context, in *struct {
	ModelPath
	Body struct {
		CreateNew bool `json:"create_new,omitempty" doc:"Register devices that are not; when left out only those that are registered and have no credential get one"`
	}
}) (*output[provisioningSecret], error) {
	x, secret, err := s.Provisioner.SetProvisioning(ctx, in.Model, in.Body.CreateNew)
	if err != nil {
		return nil, err
	}
	return outputOf(provisioningSecret{x, secret}), nil
}
