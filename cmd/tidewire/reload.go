package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/tidewire/tidewire/config"
)

// Reload is how a program learns that its configuration is to be read again, and
// how it does that. The zero value never does.
type Reload struct {
	Asked <-chan os.Signal
	Load  func() (*config.Config, error) // reads all sources as the start did
	Level *slog.LevelVar                 // of the logger; may be nil
}

// untilEnd reloads whenever that is asked for, until ctx ends.
func (r *running) untilEnd(ctx context.Context) {
	for {
		select {
		case <-r.program.Reload.Asked:
			r.reload(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// reload reads the configuration again and puts into effect what a running
// broker can change. A mistake in it changes nothing.
func (r *running) reload(ctx context.Context) {
	log := r.program.Logger
	failed := func(err error) {
		log.Error("the configuration was not reloaded, everything stays as it is", "error", err)
	}
	merged, changed, kept, err := r.wanted()
	if err != nil {
		failed(err)
		return
	}
	o := r.options
	o.config = merged
	wanted := merged.Limits.Connections
	if b, err := budgetFiles(openFiles(), wanted, logsOnDisk(merged)); err == nil {
		o.files.connections = b.connections
	}
	if err := r.server.Reload(o.access(), o.limits()); err != nil {
		failed(err)
		return
	}
	r.broker.SetLimits(o.broker())
	if level := r.program.Reload.Level; level != nil {
		setLevel(level, merged.Log)
	}
	r.options = o
	if err := configured(merged.Consumers).put(ctx, r.broker, log); err != nil {
		log.Error("a consumer is not yet as it is configured; reload again", "error", err) // it was checked: only the disk is in the way
	}
	what := "nothing"
	if len(changed) > 0 {
		what = strings.Join(changed, ", ")
	}
	log.Info("the configuration was reloaded", "changed", what)
	if len(kept) > 0 {
		log.Warn("these settings change only when the broker is started again", "kept", strings.Join(kept, ", "))
	}
	if o.files.connections < wanted {
		log.Warn(connectionsLowered, "setting", wanted, "connections", o.files.connections)
	}
}

// wanted reads the configuration again. What it returns can be put into effect, as
// far as is known before.
func (r *running) wanted() (merged *config.Config, changed, kept []string, err error) {
	next, err := r.program.Reload.Load()
	if err != nil {
		return nil, nil, nil, err
	}
	merged, changed, kept, err = r.options.config.Reload(next)
	if err != nil {
		return nil, nil, nil, err
	}
	return merged, changed, kept, configured(merged.Consumers).check(r.broker)
}

// onHangup returns the signals that ask for a reload. If there was a terminal
// and it has gone, SIGHUP means that: then the context that is returned ends.
func onHangup(parent context.Context) (ctx context.Context, asked <-chan os.Signal, stop func()) {
	ctx, end := context.WithCancel(parent)
	hangups, reloads := make(chan os.Signal, 1), make(chan os.Signal, 1)
	terminal := hasTerminal()
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for {
			select {
			case s := <-hangups:
				if terminal && !hasTerminal() {
					end()
					return
				}
				select {
				case reloads <- s:
				default: // one is on its way
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, reloads, func() {
		signal.Stop(hangups)
		end()
	}
}

// hasTerminal reports whether the process has a controlling terminal.
func hasTerminal() bool {
	f, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	_ = f.Close()
	return true
}
