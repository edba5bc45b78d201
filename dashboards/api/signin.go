package api

import (
	"context"
	"net/http"
	"time"

	"github.com/citywarden/citywarden"
)

type login struct {
	User     string `json:"user" maxLength:"64"`
	Password string `json:"password" maxLength:"1024"`
}

type loginInput struct{ Body login }

func (in *loginInput) claim() string { return in.Body.User }

type loginOutput struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
	Body      signedIn
}

type signedIn struct {
	Token   string          `json:"token" doc:"For Authorization: Bearer"`
	Expires time.Time       `json:"expires"`
	User    citywarden.User `json:"user"`
}

type cookieOutput struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
}

type changedPassword struct {
	Old string `json:"old" maxLength:"1024" doc:"The password until now"`
	New string `json:"new" maxLength:"1024" doc:"The new one, at least 8 characters"`
}

type passwordInput struct{ Body changedPassword }

func (s *server) signInRoutes() {
	handle(s, route{method: "POST", path: "/api/v1/login", id: "login", tag: "session", public: true, secret: true,
		summary: "Sign in: returns a token and sets the session cookie"}, s.login)
	handle(s, route{method: "POST", path: "/api/v1/logout", id: "logout", tag: "session", status: http.StatusNoContent,
		summary: "End the session"}, s.logout)
	handle(s, route{method: "GET", path: "/api/v1/me", id: "get-me", tag: "session",
		summary: "Who is signed in"}, func(ctx context.Context, _ *struct{}) (*output[citywarden.User], error) {
		return outputOf(callerOf(ctx)), nil
	})
	handle(s, route{method: "POST", path: "/api/v1/me/password", id: "change-password", tag: "session", secret: true, status: http.StatusNoContent,
		summary: "Change one's own password; one's other sign-ins end"}, s.changePassword)
}

func (s *server) login(ctx context.Context, in *loginInput) (*loginOutput, error) {
	token, session, user, err := s.Accounts.SignIn(ctx, in.Body.User, in.Body.Password, requestOf(ctx).address)
	if err != nil {
		return nil, err
	}
	return &loginOutput{
		SetCookie: sessionCookie(ctx, token, session.Expires),
		Body:      signedIn{Token: token, Expires: session.Expires, User: user},
	}, nil
}

func (s *server) logout(ctx context.Context, _ *struct{}) (*cookieOutput, error) {
	if err := s.Accounts.SignOut(ctx, requestOf(ctx).session); err != nil {
		return nil, err
	}
	return &cookieOutput{SetCookie: sessionCookie(ctx, "", time.Unix(1, 0))}, nil
}

// sessionCookie returns the cookie that holds the session: no script can read
// it, and no browser sends it with a request that another site began.
func sessionCookie(ctx context.Context, token string, expires time.Time) http.Cookie {
	return http.Cookie{
		Name: cookieName, Value: token, Path: "/", Expires: expires.UTC(),
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: requestOf(ctx).secure,
	}
}

func (s *server) changePassword(ctx context.Context, in *passwordInput) (*struct{}, error) {
	req := requestOf(ctx)
	return nil, s.Accounts.ChangePassword(ctx, req.user.Name, in.Body.Old, in.Body.New, req.session.ID, req.address)
}
