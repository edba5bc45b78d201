package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// APIKeys keeps the apps that may report cases by Open311. Its methods are those
// of store.DB.
type APIKeys interface {
	AddAPIKey(ctx context.Context, k citywarden.APIKey) error
	APIKeys(ctx context.Context) ([]citywarden.APIKey, error)
	APIKey(ctx context.Context, id string) (citywarden.APIKey, error)
	DeleteAPIKey(ctx context.Context, name string) error
}

type newAPIKey struct {
	Name      string `json:"name" minLength:"1" maxLength:"64" pattern:"^[^\\x00-\\x1f/]+$" doc:"Of the app"`
	Contact   string `json:"contact,omitempty" maxLength:"200" doc:"Who answers for it"`
	PerMinute int    `json:"per_minute,omitempty" minimum:"1" maximum:"6000" doc:"How many requests it may report; 60 when left out"`
}

type issuedAPIKey struct {
	Key string            `json:"key" doc:"For api_key; it is not shown again"`
	App citywarden.APIKey `json:"app"`
}

const usualPerMinute = 60

func (s *server) apiKeyRoutes() {
	const tag = "users"
	handle(s, route{method: "GET", path: "/api/v1/api-keys", id: "list-api-keys", tag: tag, may: citywarden.MayWriteUsers,
		summary: "Apps that may report cases by Open311"}, func(ctx context.Context, _ *struct{}) (*listOutput[citywarden.APIKey], error) {
		ks, err := s.APIKeys.APIKeys(ctx)
		if err != nil {
			return nil, err
		}
		return listOf(ks, ""), nil
	})
	handle(s, route{method: "POST", path: "/api/v1/api-keys", id: "create-api-key", tag: tag, may: citywarden.MayWriteUsers, status: http.StatusCreated,
		summary: "Make a key for an app that reports cases by Open311; it is shown once"}, s.createAPIKey)
	handle(s, route{method: "DELETE", path: "/api/v1/api-keys/{name}", id: "delete-api-key", tag: tag, may: citywarden.MayWriteUsers, status: http.StatusNoContent,
		summary: "Revoke the key of an app"}, func(ctx context.Context, in *struct {
		Name string `path:"name" maxLength:"64"`
	}) (*struct{}, error) {
		return nil, s.APIKeys.DeleteAPIKey(ctx, in.Name)
	})
}

func (s *server) createAPIKey(ctx context.Context, in *struct{ Body newAPIKey }) (*created[issuedAPIKey], error) {
	name := strings.TrimSpace(in.Body.Name)
	if name == "" {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "name the app that the key is for")
	}
	key := newSecret(24)
	k := NewAPIKey(key, name, in.Body.Contact, in.Body.PerMinute)
	if err := s.APIKeys.AddAPIKey(ctx, k); err != nil {
		return nil, err
	}
	return &created[issuedAPIKey]{Location: "/api/v1/api-keys/" + name, Body: issuedAPIKey{Key: key, App: k}}, nil
}

// NewAPIKey returns what is kept of key, which the app called name may use
// perMinute times a minute; 0 means 60.
func NewAPIKey(key, name, contact string, perMinute int) citywarden.APIKey {
	if perMinute == 0 {
		perMinute = usualPerMinute
	}
	return citywarden.APIKey{ID: sessionID(key), Name: name, Contact: contact, PerMinute: perMinute, Created: time.Now().UTC().Truncate(time.Millisecond)}
}
