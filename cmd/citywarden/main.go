// Command citywarden is the whole platform in one binary: the server, and the
// tools of those who run it, connect devices to it and write rules for it.
//
//	citywarden serve --demo
//	citywarden rules check rules/
//	citywarden cases list
//
// Exit codes: 0 good, 1 failed, 2 used wrongly.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/citywarden/citywarden"
)

// version is set by the linker, see Makefile.
var version = "dev"

type commands struct {
	Serve        serveCmd        `cmd:"" help:"Run the platform."`
	Devices      devicesCmd      `cmd:"" help:"Add, list, import and export devices of a running platform."`
	Models       modelsCmd       `cmd:"" help:"Check device models of your own."`
	Certify      certifyCmd      `cmd:"" help:"Look at one device that connects: what of it is right, and what to change."`
	Firmware     firmwareCmd     `cmd:"" help:"Add firmware and say which devices are to load it."`
	Uplinks      uplinksCmd      `cmd:"" help:"List the connections to brokers elsewhere."`
	Provisioning provisioningCmd `cmd:"" help:"Let devices of a model get a credential by themselves."`
	Sites        sitesCmd        `cmd:"" help:"List and change sites, whose attributes hold for their devices."`
	Grids        gridsCmd        `cmd:"" help:"Import unit grids and list the areas that they make up."`
	Components   componentsCmd   `cmd:"" help:"Import, list and export the managed components of the city: manhole covers, hydrants, street lamps."`
	Alarms       alarmsCmd       `cmd:"" help:"List, explain and acknowledge alarms of a running platform."`
	Cases        casesCmd        `cmd:"" help:"List and work the cases of a running platform."`
	Evaluation   evaluationCmd   `cmd:"" help:"Print what the work on cases was worth, by area, department or post (GB/T 30428.4)."`
	Classes      classesCmd      `cmd:"" help:"List classes of components and events with their filing rules."`
	Ledger       ledgerCmd       `cmd:"" help:"Print what became of the readings, and what never came, by hour and device."`
	Deadletters  deadlettersCmd  `cmd:"" help:"List messages that could not be used, and bring them in again."`
	Notices      noticesCmd      `cmd:"" help:"List what was told of cases, and send again what was given up."`
	Apps         appsCmd         `cmd:"" help:"List the apps that may report cases by Open311, make and revoke their keys."`
	Series       seriesCmd       `cmd:"" help:"Export readings of a running platform, and import those of the past."`
	Rules        rulesCmd        `cmd:"" help:"Check, test and backtest alarm rules."`
	Users        usersCmd        `cmd:"" help:"Add, list, change and delete users of a running platform."`
	Audit        auditCmd        `cmd:"" help:"Compare the durable log, the ledger and the time series of a running platform; exits 1 with the differences."`
	AuditLog     auditLogCmd     `cmd:"" help:"List who changed what, when, from where, and how it was before and after."`
	Backup       backupCmd       `cmd:"" help:"Back up a running platform into one file."`
	Restore      restoreCmd      `cmd:"" help:"Make a data folder of a backup."`
	Simulate     simulateCmd     `cmd:"" help:"Run virtual devices against a platform."`
	Version      versionCmd      `cmd:"" help:"Print the version."`
}

// output is where commands print; warnings go to err.
type output struct{ out, err io.Writer }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], output{os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, o output) (code int) {
	var c commands
	exited := -1
	p, err := kong.New(&c,
		kong.Name("citywarden"),
		kong.Description("An IoT sensing platform for a county or city: devices in, alarms and cases out."),
		kong.UsageOnError(),
		kong.Vars{"moment": momentHelp, "past": pastHelp},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Writers(o.out, o.err),
		kong.Exit(func(code int) { exited = code }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(o),
	)
	if err != nil {
		fmt.Fprintln(o.err, "citywarden:", err)
		return 1
	}
	k, err := p.Parse(args)
	if exited >= 0 { // --help has printed what was asked for
		return exited
	}
	if err != nil {
		fmt.Fprintf(o.err, "citywarden: %v\nRun `%s --help` to see what can be said.\n", err, meant(err))
		return 2
	}
	if err := k.Run(); err != nil {
		fmt.Fprintln(o.err, "citywarden:", err)
		if errors.As(err, new(*usageError)) || citywarden.CodeOf(err) == citywarden.CodeInvalid && k.Command() == "serve" {
			return 2
		}
		return 1
	}
	return 0
}

// meant returns the command that a line which can't be parsed is about, as far as
// it was understood.
func meant(err error) string {
	name := "citywarden"
	if p := (*kong.ParseError)(nil); errors.As(err, &p) && p.Context != nil {
		for _, x := range p.Context.Path {
			if x.Command != nil {
				name = x.Command.FullPath()
			}
		}
	}
	return name
}

// usageError is a mistake in the command line itself.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(o output) error {
	_, err := fmt.Fprintln(o.out, "citywarden", version)
	return err
}
