package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker; see scripts/build.
var version string

func main() {
	cobra.EnableCommandSorting = false // help lists commands as root.go does; cobra knows this only for all
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run runs one command and returns the exit status.
func run(args []string, in io.Reader, out, errs io.Writer) int {
	ctx, stop := untilSignal(context.Background())
	defer stop()
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	if err := root.ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errSaid) {
			complain(errs, err)
		}
		return 1
	}
	return 0
}

// untilSignal returns a context that the first signal ends; a second signal ends
// the process at once. signal.NotifyContext alone would lose a second one that
// comes before its stop function has run.
func untilSignal(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	signals, done := make(chan os.Signal, 2), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for _, act := range []func(){cancel, func() { os.Exit(1) }} {
			select {
			case <-signals:
				act()
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel()
	}
}
