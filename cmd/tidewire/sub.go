package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	tidewire "github.com/tidewire/tidewire/clients/go"
	"github.com/tidewire/tidewire/protocol"
)

// subscriber is `tidewire sub`: what to subscribe to, and where to write.
type subscriber struct {
	client  clientFlags
	filters []string
	from    string
	count   int
	json    bool
	file    string

	out, errs io.Writer
}

func newSubCommand() *cobra.Command {
	var s subscriber
	c := &cobra.Command{
		Use:   "sub FILTER...",
		Short: "Subscribe, and print what arrives",
		Long: `Subscribe to one filter or several, and print the payload of each message on a
line. A filter is a topic, or a pattern in which * stands for one token and a
final > for one or more; quote it, or the shell takes it.

It goes on over lost connections and restarts of the broker. With
--position-file it also goes on over restarts of its own: the file keeps where
each filter is, and once it exists it wins over --from. Messages that can no
longer be had are told on standard error.

Messages of one filter come in the order of the log. One that several of the
filters match is printed for each.

Where a run is killed while it appends to a file (sub ... >> file), the last line
may be half there. The next run leaves it and begins on a new line; with
--position-file its message comes again, whole.

Ctrl-C and SIGTERM end it with status 0; with --count the status then is 1, since
messages are missing. A token that has expired ends it with status 1.`,
		Example: `  tidewire sub 'room.>'
  tidewire sub 'orders.*' audit --from -10m --json
  tidewire sub 'orders.>' --from earliest --position-file orders.pos >> orders.log
  tidewire sub room.42.chat --from last:1 --count 1`,
		Args: s.arguments,
		RunE: func(c *cobra.Command, _ []string) error {
			s.out, s.errs = c.OutOrStdout(), c.ErrOrStderr()
			return s.run(c.Context())
		},
	}
	f := c.Flags()
	f.StringVar(&s.from, "from", "new", "`where` to begin: new, earliest, last:N, -10m,\nan RFC 3339 time, or a position")
	f.IntVar(&s.count, "count", 0, "end after `N` messages (default: go on)")
	f.BoolVar(&s.json, "json", false, "print each message as a JSON object, and gaps as such on standard error")
	f.StringVar(&s.file, "position-file", "", "`file` to keep the position of each filter in")
	s.client.add(c)
	return c
}

// arguments takes the filters.
func (s *subscriber) arguments(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("the filter is missing; write for example: tidewire sub 'room.>'")
	}
	for i, filter := range args {
		if _, err := protocol.ParseFilter(filter); err != nil {
			return plain(err)
		}
		if slices.Contains(args[:i], filter) {
			return fmt.Errorf("the filter %q is given twice", filter)
		}
	}
	if _, err := protocol.ParseStart(s.from); err != nil {
		return fmt.Errorf("--from: %w", plain(err))
	}
	if s.count < 0 {
		return fmt.Errorf("--count %d: give a number above 0", s.count)
	}
	s.filters = args
	return nil
}

// plain leaves the code of a refusal to programs.
func plain(err error) error {
	if e, ok := errors.AsType[*tidewire.Error](err); ok {
		return errors.New(e.Message)
	}
	return err
}

func (s *subscriber) run(ctx context.Context) error {
	positions, err := openPositions(s.file, s.filters)
	if err != nil {
		return err
	}
	c, err := s.client.connect(ctx, s.errs)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := newPrinter(s, cancel)
	err = s.subscribe(ctx, c, p, positions)
	if err == nil {
		err = s.follow(ctx, p, positions)
	}
	closing, stop := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer stop()
	_ = c.Close(closing)
	return s.outcome(err, p)
}

// subscribe begins all subscriptions.
func (s *subscriber) subscribe(ctx context.Context, c *tidewire.Client, p *printer, positions *positions) error {
	for _, filter := range s.filters {
		from := positions.of(filter)
		if from == "" {
			from = s.from
		}
		sub, err := c.Subscribe(ctx, filter, tidewire.SubscribeOptions{From: from, OnGap: s.tellGap, OnRefused: s.tellRefused(filter)})
		if err != nil {
			return err
		}
		p.lines = append(p.lines, &line{sub: sub, before: sub.Position(), at: sub.Position()})
	}
	return nil
}

// follow prints what arrives until it is enough or something ends it.
func (s *subscriber) follow(ctx context.Context, p *printer, positions *positions) error {
	stop := p.start(positions)
	for _, l := range p.lines {
		p.work.Go(func() { p.print(ctx, l) })
	}
	<-ctx.Done()
	p.work.Wait()
	if err := stop(); err != nil {
		return err
	}
	return p.why()
}

// Why a printer ends that did all it should.
var (
	errEnough = errors.New("enough")
	errOutput = errors.New("nobody reads the output any more")
)

// outcome turns the reason of the end into that of the command.
func (s *subscriber) outcome(err error, p *printer) error {
	switch {
	case errors.Is(err, errEnough), errors.Is(err, errOutput):
		return nil
	case errors.Is(err, context.Canceled) && s.count == 0:
		return nil // the usual way to end it
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted after %d of %d messages", p.printed, s.count)
	}
	return plain(tokenError(err))
}

// tellRefused returns what tells on standard error, once for each reason, that a
// filter gets nothing for now.
func (s *subscriber) tellRefused(filter string) func(*tidewire.Error) {
	last := ""
	return func(err *tidewire.Error) {
		if err.Message != last {
			last = err.Message
			_, _ = fmt.Fprintf(s.errs, "tidewire: the broker cannot serve %s for now: %s; trying again\n", filter, err.Message)
		}
	}
}

// tellGap tells on standard error what cannot be had, so that standard output has
// messages only.
func (s *subscriber) tellGap(gap *tidewire.GapError) {
	if !s.json {
		_, _ = fmt.Fprintf(s.errs, "tidewire: %v\n", gap)
		return
	}
	type form struct {
		Filter   string `json:"filter"`
		Reason   string `json:"reason"`
		Term     string `json:"term,omitempty"`
		After    uint64 `json:"after"`
		Through  uint64 `json:"through"`
		Position string `json:"position"`
	}
	b, _ := jsonLine(map[string]form{"gap": form(*gap)}) // texts and numbers only
	_, _ = s.errs.Write(b)
}

// outputError says what is wrong with standard output. That nobody reads it any
// more is how `| head` ends a command.
func outputError(err error) error {
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return fmt.Errorf("cannot write to standard output: %w", err)
}
