package main

import (
	"github.com/spf13/cobra"
)

func newServeCommand() *cobra.Command {
	var from configFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run a broker",
		Long: `Run a broker. Without any configuration it keeps its data in ./tidewire-data and
serves everybody on this machine, and nobody else.

SIGTERM or Ctrl-C ends it: clients are sent elsewhere, what was published is
stored and answered. A second one ends it at once, which loses nothing either.

SIGHUP makes it read its configuration again. Limits, keys, tokens, origins,
timeouts, consumers and the log level change; what needs a restart is named in
the log, and a configuration with a mistake changes nothing.`,
		Example: `  tidewire serve --dev
  tidewire serve --config /etc/tidewire.yaml --data /var/lib/tidewire`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			settings, err := from.load()
			if err != nil {
				return err
			}
			logger, level := newLogger(settings.Log, c.ErrOrStderr())
			ctx, signals, stop := onHangup(c.Context())
			defer stop()
			p := &Program{
				Config:  settings,
				Version: programVersion(),
				Out:     c.OutOrStdout(),
				Logger:  logger,
				Reload:  Reload{Asked: signals, Load: from.load, Level: level},
			}
			return p.Run(ctx)
		},
	}
	from.addFile(c)
	from.addData(c)
	from.addListeners(c)
	return c
}
