package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tidewire/tidewire/config"
)

// What became of a check. Skipped means that there was nothing to look at, and
// the message says why.
const (
	statusOK      = "ok"
	statusWarn    = "warn"
	statusFail    = "fail"
	statusSkipped = "skip"
)

// A finding is the outcome of one check.
type finding struct {
	Name    string `json:"name"`
	Status  string `json:"status"`
	Message string `json:"message"`          // what is so
	Advice  string `json:"advice,omitempty"` // what to do about it
}

func fine(format string, args ...any) finding {
	return finding{Status: statusOK, Message: fmt.Sprintf(format, args...)}
}

func skipped(format string, args ...any) finding {
	return finding{Status: statusSkipped, Message: fmt.Sprintf(format, args...)}
}

func warning(advice, format string, args ...any) finding {
	return finding{Status: statusWarn, Message: fmt.Sprintf(format, args...), Advice: advice}
}

func failing(advice, format string, args ...any) finding {
	return finding{Status: statusFail, Message: fmt.Sprintf(format, args...), Advice: advice}
}

// A doctor looks at a broker and at what it stands on. Each of its checks makes
// one finding, always in the same order; none changes anything that stays.
type doctor struct {
	settings *config.Config
	server   string // base URLs
	admin    string
	token    string
	asked    bool // the server was named: then it must be there

	inUse   bool // a broker has the data directory
	answers bool // the server has answered
}

// doctorReport is what `tidewire doctor --json` prints.
type doctorReport struct {
	OK      bool      `json:"ok"`
	Version string    `json:"version"`
	Data    string    `json:"data"`
	Server  string    `json:"server"`
	Admin   string    `json:"admin"`
	Checks  []finding `json:"checks"`
}

func newDoctorCommand() *cobra.Command {
	var from configFlags
	var d doctor
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong with a broker and its machine, and say what to do",
		Long: `Look at the machine, the data directory and the running broker, and print one
line for each check: ok, warn, fail or skip (nothing to look at), with what to do.
It needs no broker, changes nothing and takes a few seconds. The status is 1 if a
check fails; warnings leave it 0.

The settings are those of the broker: give the same --config, and run it on its
machine as its user. docs/doctor.md explains each check.`,
		Example: `  tidewire doctor
  tidewire doctor --config /etc/tidewire.yaml --json
  tidewire doctor --server https://broker.example.com --admin http://10.0.0.5:7071`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if d.settings, err = from.load(); err != nil {
				return err
			}
			d.defaults()
			report := d.examine(c.Context())
			if c.Context().Err() != nil {
				return errors.New("interrupted before all was looked at")
			}
			if err := report.print(c.OutOrStdout(), asJSON); err != nil {
				return outputError(err)
			}
			if !report.OK {
				return errSaid
			}
			return nil
		},
	}
	from.addFile(c)
	from.addData(c)
	f := c.Flags()
	f.StringVar(&d.server, "server", "", "`URL` of the broker\n(default: TIDEWIRE_SERVER, else where the configuration listens)")
	f.StringVar(&d.admin, "admin", "", "`URL` of its admin listener (default: as configured,\nif the broker is on this machine)")
	f.StringVar(&d.token, "token", "", "`token` to show to the broker (default: TIDEWIRE_TOKEN)")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

// defaults fills in what was not given.
func (d *doctor) defaults() {
	d.server = cmp.Or(d.server, os.Getenv("TIDEWIRE_SERVER"))
	d.token = cmp.Or(d.token, os.Getenv("TIDEWIRE_TOKEN"))
	d.asked = d.server != ""
	d.server = cmp.Or(d.server, localURL(d.settings.Listen))
	if d.admin == "" && d.near() {
		d.admin = localURL(d.settings.Admin)
	}
}

// near reports whether the server is on this machine: then the configuration here
// is likely to be its own.
func (d *doctor) near() bool {
	u, err := baseURL(d.server)
	return !d.asked || (err == nil && config.Loopback(hostPort(u)))
}

// examine makes all checks.
func (d *doctor) examine(ctx context.Context) *doctorReport {
	r := &doctorReport{
		OK: true, Version: programVersion(),
		Data: d.settings.Data, Server: d.server, Admin: d.admin,
	}
	clock := startClock()
	for _, check := range []struct {
		name string
		make func(context.Context) finding
	}{
		{"open_files", d.openFiles},
		{"disk_space", d.diskSpace},
		{"disk_sync", d.diskSync},
		{"data", d.data},
		{"listener", d.listener},
		{"readiness", d.readiness},
		{"exposure", d.exposure},
	} {
		f := check.make(ctx)
		f.Name = check.name
		r.Checks = append(r.Checks, f)
	}
	r.Checks = append(r.Checks, d.session(ctx, clock)...)
	for _, f := range r.Checks {
		r.OK = r.OK && f.Status != statusFail
	}
	return r
}

func (r *doctorReport) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	for _, f := range r.Checks {
		advice := ""
		if f.Advice != "" {
			advice = ": " + f.Advice
		}
		if _, err := fmt.Fprintf(w, "%-4s  %-10s  %s%s\n", f.Status, f.Name, f.Message, advice); err != nil {
			return err
		}
	}
	return nil
}
