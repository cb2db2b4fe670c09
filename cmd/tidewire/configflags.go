package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/tidewire/tidewire/config"
)

// configFlags are the flags that choose a configuration and override it.
type configFlags struct {
	flags               interface{ Changed(string) bool }
	file                string
	data, listen, admin string
	dev                 bool
	listeners           bool // --listen, --admin and --dev are ours
}

// addFile adds --config alone.
func (f *configFlags) addFile(c *cobra.Command) {
	f.flags = c.Flags()
	c.Flags().StringVar(&f.file, "config", "", "YAML `file` with settings (or TIDEWIRE_CONFIG)")
}

// addData adds --data.
func (f *configFlags) addData(c *cobra.Command) {
	c.Flags().StringVar(&f.data, "data", config.Default().Data, "`directory` of all that is stored")
}

// addListeners adds --listen, --admin and --dev.
func (f *configFlags) addListeners(c *cobra.Command) {
	f.listeners = true
	def := config.Default()
	c.Flags().StringVar(&f.listen, "listen", def.Listen, "`address` for clients")
	c.Flags().StringVar(&f.admin, "admin", def.Admin, "`address` for metrics and operators")
	c.Flags().BoolVar(&f.dev, "dev", false, "for development: a demo at /, local pages, a new start after a death")
}

// load returns the settings in effect. Flags count where they were given.
func (f *configFlags) load() (*config.Config, error) {
	return config.Load(config.Source{File: f.file, Environment: os.Environ(), Flags: f.apply})
}

func (f *configFlags) apply(c *config.Config) {
	for _, s := range []struct {
		name string
		from string
		to   *string
	}{{"data", f.data, &c.Data}, {"listen", f.listen, &c.Listen}, {"admin", f.admin, &c.Admin}} {
		if (f.listeners || s.name == "data") && f.flags.Changed(s.name) {
			*s.to = s.from
		}
	}
	if f.flags.Changed("dev") {
		c.Dev = f.dev
	}
}
