package main

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"os"

	"github.com/citywarden/citywarden"
)

type usersCmd struct {
	List   userListCmd   `cmd:"" help:"List the users."`
	Add    userAddCmd    `cmd:"" help:"Add a user; the password comes from CITYWARDEN_NEW_PASSWORD."`
	Set    userSetCmd    `cmd:"" help:"Change title, role, department or area of a user."`
	Delete userDeleteCmd `cmd:"" help:"Delete a user; sign-ins and tokens end."`

	Disable userDisableCmd `cmd:"" help:"Keep a user from signing in; sign-ins and tokens end at once."`
	Enable  userEnableCmd  `cmd:"" help:"Let a user who was disabled sign in again."`
}

type userListCmd struct{ remote }

// Run lists the users.
func (u *userListCmd) Run(ctx context.Context, o output) error {
	return printList(ctx, o, &u.remote, "/users", url.Values{}, []string{"NAME", "ROLE", "DEPARTMENT", "AREA", "SINCE", "DISABLED", "TITLE"}, func(at stamp, x citywarden.User) []string {
		return []string{x.Name, string(x.Role), dash(x.Department), dash(string(x.Area)), at(x.Created), yes(x.Disabled), dash(x.Title)}
	})
}

type userAddCmd struct {
	remote
	Name       string `arg:"" help:"1 to 32 small letters, digits, '.', '_' or '-'."`
	Role       string `required:"" help:"One of admin, supervisor, acceptor, shift_leader, dispatcher, department, officer, engineer, vendor, viewer, service, citizen."`
	Title      string `help:"How people call them."`
	Department string `help:"Of the role department."`
	Area       string `help:"Code of the county, town or village that they are confined to, like 350623100."`
}

// Run adds a user.
func (u *userAddCmd) Run(ctx context.Context, o output) error {
	c, err := u.client(ctx)
	if err != nil {
		return err
	}
	body := map[string]any{
		"name": u.Name, "role": u.Role, "title": u.Title, "department": u.Department, "area": u.Area, "password": os.Getenv("CITYWARDEN_NEW_PASSWORD"),
	}
	return saved(ctx, c, o, u.JSON, "POST", "/users", body)
}

type userSetCmd struct {
	remote
	Name       string  `arg:"" help:"The user's name."`
	Role       *string `help:"The new role."`
	Title      *string `help:"How people call them."`
	Department *string `help:"Of the role department."`
	Area       *string `help:"Code of the county, town or village that they are confined to; '' for nothing."`
}

// Run changes what is said and keeps the rest.
func (u *userSetCmd) Run(ctx context.Context, o output) error {
	said := map[string]any{}
	for key, s := range map[string]*string{"role": u.Role, "title": u.Title, "department": u.Department, "area": u.Area} {
		if s != nil {
			said[key] = *s
		}
	}
	return change(ctx, o, &u.remote, u.Name, said)
}

// change changes of a user what is said and keeps the rest.
func change(ctx context.Context, o output, r *remote, name string, said map[string]any) error {
	c, err := r.client(ctx)
	if err != nil {
		return err
	}
	path := "/users/" + url.PathEscape(name)
	var x citywarden.User
	if err := c.call(ctx, "GET", path, nil, &x); err != nil {
		return err
	}
	body := map[string]any{"role": x.Role, "title": x.Title, "department": x.Department, "area": x.Area}
	maps.Copy(body, said)
	return saved(ctx, c, o, r.JSON, "PUT", path, body)
}

type userDisableCmd struct {
	remote
	Name string `arg:"" help:"The user's name."`
}

// Run disables a user.
func (u *userDisableCmd) Run(ctx context.Context, o output) error {
	return change(ctx, o, &u.remote, u.Name, map[string]any{"disabled": true})
}

type userEnableCmd struct {
	remote
	Name string `arg:"" help:"The user's name."`
}

// Run enables a user.
func (u *userEnableCmd) Run(ctx context.Context, o output) error {
	return change(ctx, o, &u.remote, u.Name, map[string]any{"disabled": false})
}

// saved sends a user and prints what became of it.
func saved(ctx context.Context, c *client, o output, asJSON bool, method, path string, body map[string]any) error {
	var x citywarden.User
	if err := c.call(ctx, method, path, body, &x); err != nil {
		return err
	}
	if asJSON {
		return toJSON(o.out, x)
	}
	fmt.Fprintf(o.out, "user %s is %s", x.Name, x.Role)
	if x.Department != "" {
		fmt.Fprintf(o.out, " of %s", x.Department)
	}
	if x.Area != "" {
		fmt.Fprintf(o.out, " and sees %s only", x.Area)
	}
	if x.Disabled {
		fmt.Fprint(o.out, "; disabled")
	}
	fmt.Fprintln(o.out)
	return nil
}

type userDeleteCmd struct {
	remote
	Name string `arg:"" help:"The user's name."`
}

// Run deletes a user.
func (u *userDeleteCmd) Run(ctx context.Context, o output) error {
	c, err := u.client(ctx)
	if err != nil {
		return err
	}
	if err := c.call(ctx, "DELETE", "/users/"+url.PathEscape(u.Name), nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(o.out, "user %s deleted\n", u.Name)
	return nil
}
