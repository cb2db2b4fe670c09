package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
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
		if status, ok := errors.AsType[statusError](err); ok {
			return int(status)
		}
		if !errors.Is(err, errSaid) {
			complain(errs, err)
		}
		return 1
	}
	return 0
}

// urgent is the key of what a second signal does instead of ending the process; a
// third one ends it.
type urgent struct{}

// onSecondSignal makes f what the second signal does.
func onSecondSignal(ctx context.Context, f func()) {
	if p, ok := ctx.Value(urgent{}).(*atomic.Pointer[func()]); ok {
		p.Store(&f)
	}
}

// untilSignal returns a context that the first signal ends; a second signal ends
// the process at once, unless the command wants something else. signal.NotifyContext
// alone would lose a second one that comes before its stop function has run.
func untilSignal(parent context.Context) (context.Context, context.CancelFunc) {
	var second atomic.Pointer[func()]
	ctx, cancel := context.WithCancel(context.WithValue(parent, urgent{}, &second))
	end := func() { os.Exit(1) }
	hurry := func() {
		if f := second.Load(); f != nil {
			(*f)()
			return
		}
		end()
	}
	signals, done := make(chan os.Signal, 3), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for _, act := range []func(){cancel, hurry, end} {
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
