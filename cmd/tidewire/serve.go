package main

import (
	"github.com/spf13/cobra"

	"github.com/tidewire/tidewire/cmd/tidewire/supervisor"
)

func newServeCommand() *cobra.Command {
	var from configFlags
	var starts int
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run a broker",
		Long: `Run a broker. Without any configuration it keeps its data in ./tidewire-data and
serves everybody on this machine, and nobody else.

SIGTERM or Ctrl-C ends it: clients are sent elsewhere, what was published is
stored and answered. A second one ends it at once, which loses nothing either.

SIGHUP makes it read its configuration again. Limits, keys, tokens, origins,
timeouts, consumers and the log level change; what needs a restart is named in
the log, and a configuration with a mistake changes nothing.

With --dev it is started again when it dies, and shows a demo that kills it; the
process that does so publishes how this machine is doing to demo.host.`,
		Example: `  tidewire serve --dev
  tidewire serve --config /etc/tidewire.yaml --data /var/lib/tidewire`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			settings, err := from.load()
			if err != nil {
				return err
			}
			if settings.Dev && starts == 0 && supervisor.Supported {
				return supervise(c.Context(), settings, c.OutOrStdout(), c.ErrOrStderr())
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
			if starts > 0 {
				if ctx, err = supervised(ctx, p, starts); err != nil {
					return err
				}
			}
			return p.Run(ctx)
		},
	}
	from.addFile(c)
	from.addData(c)
	from.addListeners(c)
	c.Flags().IntVar(&starts, "supervised", 0, "set by the supervisor of --dev: how often it has started a broker")
	_ = c.Flags().MarkHidden("supervised") // it exists
	return c
}
