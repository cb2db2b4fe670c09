//go:build unix

package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/tidewire/tidewire/broker/server"
	"github.com/tidewire/tidewire/cmd/tidewire/hostfeed"
	"github.com/tidewire/tidewire/cmd/tidewire/supervisor"
	"github.com/tidewire/tidewire/config"
)

// supervised makes p a broker that its supervisor has started, and returns the
// context that ends when that asks it to end.
func supervised(ctx context.Context, p *Program, starts int) (context.Context, error) {
	ctx, link, err := supervisor.Attach(ctx, starts)
	if err != nil {
		return nil, err
	}
	p.Process = &server.Process{Supervisor: link.Supervisor(), Starts: link.Starts(), Started: link.Started(), Kill: link.Kill}
	p.Started = func(public, admin net.Addr) {
		link.Report(supervisor.Report{Listen: public.String(), Admin: admin.String()})
	}
	p.Watch = func(ctx context.Context, audience func(string) int) {
		link.Count(ctx, func() int { return audience(hostfeed.Topic) })
	}
	return ctx, nil
}

// supervise runs the broker in a process of its own until it ends, and publishes
// how the machine is doing.
func supervise(ctx context.Context, settings *config.Config, out, errs io.Writer) error {
	logger, _ := newLogger(settings.Log, errs)
	ctx, hangups, stop := onHangup(ctx)
	defer stop()
	feed := &demoFeed{pace: hostfeed.NewPace(), logger: logger, done: make(chan struct{})}
	s := &supervisor.Supervisor{
		Args: os.Args[1:], Out: out, Err: errs, Logger: logger, Hangups: hangups,
		Report: func(r supervisor.Report) { feed.hear(ctx, r) },
		Pinned: func(r supervisor.Report) []string { return pinned(settings, r) },
	}
	onSecondSignal(ctx, s.Ask)
	err := s.Run(ctx)
	stop()
	feed.wait()
	if e, ok := errors.AsType[*supervisor.ExitError](err); ok {
		return statusError(e.Status)
	}
	return err
}

// pinned keeps the ports that the system has chosen: clients come back to them.
func pinned(settings *config.Config, r supervisor.Report) []string {
	var args []string
	if strings.HasSuffix(settings.Listen, ":0") {
		args = append(args, "--listen="+r.Listen)
	}
	if strings.HasSuffix(settings.Admin, ":0") {
		args = append(args, "--admin="+r.Admin)
	}
	return args
}

// demoFeed runs the feed from the first report of a broker on. Only the
// goroutine that reads reports uses it.
type demoFeed struct {
	pace    *hostfeed.Pace
	logger  *slog.Logger
	running bool
	done    chan struct{}
}

func (f *demoFeed) hear(ctx context.Context, r supervisor.Report) {
	if r.Audience != nil {
		f.pace.SetAudience(*r.Audience)
	}
	if r.Listen == "" || f.running {
		return
	}
	f.running = true
	go func() {
		defer close(f.done)
		if err := hostfeed.Run(ctx, "http://"+r.Listen, f.pace); ctx.Err() == nil {
			f.logger.Warn("the demo gets no more figures of this machine", "error", err)
		}
	}()
}

// wait waits for the feed, whose context has ended, but not for long.
func (f *demoFeed) wait() {
	if f.running {
		select {
		case <-f.done:
		case <-time.After(time.Second):
		}
	}
}
