package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/citywarden/citywarden"
)

type firmwareCmd struct {
	List   firmwareListCmd   `cmd:"" help:"List the firmware that devices can load, and who is to have it."`
	Add    firmwareAddCmd    `cmd:"" help:"Add a firmware."`
	Assign firmwareAssignCmd `cmd:"" help:"Say which firmware a device, those of a site or those of a model are to have."`
	Delete firmwareDeleteCmd `cmd:"" help:"Delete a firmware."`
}

type firmwareListCmd struct{ remote }

// Run lists the firmware.
func (f *firmwareListCmd) Run(ctx context.Context, o output) error {
	return printList(ctx, o, &f.remote, "/firmware", url.Values{}, []string{"TITLE", "VERSION", "MODEL", "BYTES", "SHA-256", "ADDED", "BY", "FOR"}, func(at stamp, x citywarden.Firmware) []string {
		var to []string
		for _, t := range x.Targets {
			to = append(to, fmt.Sprintf("%s %s", t.Scope, t.Name))
		}
		return []string{x.Title, x.Version, string(x.Model), fmt.Sprint(x.Size), x.Checksum[:12], at(x.Created), x.By, dash(strings.Join(to, ", "))}
	})
}

type firmwareAddCmd struct {
	remote
	File    string `arg:"" help:"The file that devices load." type:"existingfile"`
	Title   string `help:"Its title." required:""`
	Version string `help:"Its version." required:""`
	Model   string `help:"The model that it is for." required:""`
}

// Run adds a firmware.
func (f *firmwareAddCmd) Run(ctx context.Context, o output) error {
	b, err := os.ReadFile(f.File)
	if err != nil {
		return err
	}
	c, err := f.client(ctx)
	if err != nil {
		return err
	}
	var x citywarden.Firmware
	fields := url.Values{"title": {f.Title}, "version": {f.Version}, "model": {f.Model}}
	if err := c.call(ctx, "POST", "/firmware", form{fields: fields, name: filepath.Base(f.File), file: b}, &x); err != nil {
		return err
	}
	if f.JSON {
		return toJSON(o.out, x)
	}
	_, err = fmt.Fprintf(o.out, "firmware %s, %d bytes, SHA-256 %s\n", &x, x.Size, x.Checksum)
	return err
}

type firmwareAssignCmd struct {
	remote
	Title   string `arg:"" optional:"" help:"Title of the firmware; left out, there is none any more."`
	Version string `arg:"" optional:"" help:"Its version."`
	Device  string `help:"The device." xor:"to" required:""`
	Site    string `help:"All devices of the site that are of the model." xor:"to" required:""`
	Model   string `help:"All devices of the model." xor:"to" required:""`
}

// Run assigns a firmware.
func (f *firmwareAssignCmd) Run(ctx context.Context, o output) error {
	if f.Title != "" && f.Version == "" {
		return &usageError{fmt.Sprintf("say the version of %s too; citywarden firmware list prints what there is", f.Title)}
	}
	t := citywarden.FirmwareTarget{Scope: citywarden.FirmwareDevice, Name: f.Device}
	switch {
	case f.Site != "":
		t = citywarden.FirmwareTarget{Scope: citywarden.FirmwareSite, Name: f.Site}
	case f.Model != "":
		t = citywarden.FirmwareTarget{Scope: citywarden.FirmwareModel, Name: f.Model}
	}
	c, err := f.client(ctx)
	if err != nil {
		return err
	}
	return c.call(ctx, "POST", "/firmware/assign", map[string]any{"scope": t.Scope, "name": t.Name, "title": f.Title, "version": f.Version}, nil)
}

type firmwareDeleteCmd struct {
	remote
	Title   string `arg:"" help:"Title of the firmware."`
	Version string `arg:"" help:"Its version."`
}

// Run deletes a firmware.
func (f *firmwareDeleteCmd) Run(ctx context.Context, o output) error {
	c, err := f.client(ctx)
	if err != nil {
		return err
	}
	return c.call(ctx, "DELETE", "/firmware/"+url.PathEscape(f.Title)+"/"+url.PathEscape(f.Version), nil, nil)
}
