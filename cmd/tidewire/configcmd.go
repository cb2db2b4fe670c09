package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newConfigCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "config",
		Short: "Check or print the configuration",
		Long: `Settings come from a YAML file (--config), then from variables such as
TIDEWIRE_LISTEN or TIDEWIRE_STREAMS_MAIN_RETENTION_AGE, then from flags of
` + "`tidewire serve`" + `; the last one wins.`,
	}, newConfigCheckCommand(), newConfigPrintCommand())
}

func newConfigCheckCommand() *cobra.Command {
	var from configFlags
	c := &cobra.Command{
		Use:     "check",
		Short:   "Say OK, or what to change",
		Example: "  tidewire config check --config tidewire.yaml",
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if _, err := from.load(); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "OK")
			return err
		},
	}
	from.addFile(c)
	return c
}

func newConfigPrintCommand() *cobra.Command {
	var from configFlags
	c := &cobra.Command{
		Use:   "print",
		Short: "Print every setting that is in effect, secrets as (set)",
		Example: `  tidewire config print
  TIDEWIRE_LISTEN=127.0.0.1:8080 tidewire config print --config tidewire.yaml`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			settings, err := from.load()
			if err != nil {
				return err
			}
			text, err := settings.YAML()
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(text)
			return err
		},
	}
	from.addFile(c)
	return c
}
