package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"sync"
	"time"

	"github.com/spf13/cobra"

	tidewire "github.com/tidewire/tidewire/clients/go"
	"github.com/tidewire/tidewire/protocol"
)

// worker is `tidewire work`: what to consume, and what to run for each message.
type worker struct {
	client      clientFlags
	settings    consumerFlags
	consumer    string
	filter      string
	command     []string
	concurrency int
	count       int
	quiet       bool

	out, errs io.Writer
	tally
}

// tally is what became of messages.
type tally struct {
	mu       sync.Mutex
	running  int
	done     int
	failed   int // attempts
	rejected int
	changed  chan struct{} // closed and made anew when one has ended
	enough   context.CancelFunc
}

func newWorkCommand() *cobra.Command {
	var w worker
	c := &cobra.Command{
		Use:   "work FILTER --consumer NAME -- COMMAND [ARGUMENT...]",
		Short: "Run a command for each message, until it succeeds",
		Long: `Run a command for each message of a consumer, with the payload on its standard
input. The broker keeps the progress under the name of the consumer: several
workers with one name share the messages, and a worker that comes back goes on.

Exit status 0 acknowledges the message. 65 rejects it: it becomes a dead letter at
once, with the last line of the command's standard error as reason. Everything
else, a signal too, is a failure, and the message comes again, to any worker, after
a pause; after --max-deliver attempts it becomes a dead letter. While the command
runs, its message is not delivered again. It may be after a crash, so let the
command do no harm when it does a message twice.

The command finds in its environment:
  TIDEWIRE_MSG_ID, _TOPIC, _KEY, _POSITION   of the message
  TIDEWIRE_MSG_ATTEMPT                       1 the first time
  TIDEWIRE_MSG_HEADER_NAME                   each header; in NAME, what is no letter
                                             or digit is _

Ctrl-C and SIGTERM: no new work, commands that run go on to their end. A second
time kills them, and their messages come again.`,
		Example: `  tidewire work 'orders.>' --consumer billing -- ./charge
  tidewire work 'mail.*' --consumer mail --concurrency 8 -- sendmail -t
  tidewire work 'orders.>' --consumer audit --from new --count 100 -- tee -a audit.log`,
		DisableFlagsInUseLine: true,

		Args: w.arguments,
		RunE: func(c *cobra.Command, _ []string) error {
			w.out, w.errs = shared(c.OutOrStdout()), &locked{w: c.ErrOrStderr()}
			return w.run(c.Context())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&w.consumer, "consumer", "", "`name` of the consumer")
	f.IntVar(&w.concurrency, "concurrency", 1, "commands that run at a time, as a `number`")
	f.IntVar(&w.count, "count", 0, "end after `N` acknowledged messages (default: go on)")
	f.BoolVar(&w.quiet, "quiet", false, "no summary at the end")
	w.settings.add(c)
	w.client.add(c)
	return c
}

// arguments takes FILTER and COMMAND.
func (w *worker) arguments(c *cobra.Command, args []string) error {
	dash := c.ArgsLenAtDash()
	switch {
	case dash < 0 || dash == len(args):
		return errors.New("the command is missing; write it behind --, for example: tidewire work 'orders.>' --consumer billing -- ./charge")
	case dash != 1:
		return fmt.Errorf("write one filter before --, not %d; quote it, or the shell takes it", dash)
	case w.consumer == "":
		return errors.New("the name of the consumer is missing; write for example --consumer billing")
	case w.concurrency < 1:
		return fmt.Errorf("--concurrency %d: give a number above 0", w.concurrency)
	case w.count < 0:
		return fmt.Errorf("--count %d: give a number above 0", w.count)
	}
	w.filter, w.command = args[0], args[1:]
	if _, err := protocol.ParseFilter(w.filter); err != nil {
		return plain(err)
	}
	if _, err := exec.LookPath(w.command[0]); err != nil {
		return fmt.Errorf("cannot run %s: %s", w.command[0], commandProblem(err))
	}
	return w.settings.check()
}

// commandProblem says why a command cannot be found.
func commandProblem(err error) string {
	if e, ok := errors.AsType[*exec.Error](err); ok {
		return reason(e.Err)
	}
	return reason(err)
}

func (w *worker) run(ctx context.Context) error {
	c, err := w.client.connect(ctx, w.errs)
	if err != nil {
		return err
	}
	working, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	onSecondSignal(ctx, func() {
		_, _ = fmt.Fprintln(w.errs, "tidewire: killing what runs")
		kill()
	})
	ctx, w.enough = context.WithCancel(ctx)
	defer w.enough()
	stop := context.AfterFunc(ctx, w.tellDrain)
	defer stop()
	w.changed = make(chan struct{})
	err = c.Consume(ctx, w.consumer, func(ctx context.Context, d *tidewire.Delivery) error {
		return w.handle(ctx, working, d)
	}, w.options())
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	_ = c.Close(closing)
	w.summary()
	return w.outcome(err)
}

// forever is for commands: only a second signal ends them.
const forever = 10 * 365 * 24 * time.Hour

func (w *worker) options() tidewire.ConsumeOptions {
	s := &w.settings
	last := ""
	return tidewire.ConsumeOptions{
		Filter: w.filter, Stream: s.stream, From: s.from,
		Settings: tidewire.ConsumerSettings{
			AckWait: s.ackWait, Backoff: s.backoff, BackoffCap: s.backoffCap, MaxDeliver: int(s.maxDeliver),
			MaxInFlight: int(s.inFlight), Exclusive: s.exclusive, Unordered: s.unordered,
		},
		Concurrency: w.concurrency, Grace: forever,
		Logger: slog.New(slog.NewTextHandler(w.errs, nil)),
		OnUnsettled: func(d *tidewire.Delivery, err *tidewire.Error) {
			_, _ = fmt.Fprintf(w.errs, "tidewire: %s: %s\n", title(d), err.Message)
		},
		OnGap: func(gap *tidewire.GapError) {
			_, _ = fmt.Fprintf(w.errs, "tidewire: %v\n", gap)
		},
		OnRefused: func(err *tidewire.Error) {
			if err.Message != last {
				last = err.Message
				_, _ = fmt.Fprintf(w.errs, "tidewire: the broker cannot serve %s for now: %s; trying again\n", w.consumer, err.Message)
			}
		},
	}
}

// handle runs the command for one message. working ends when it is to be killed.
func (w *worker) handle(ctx, working context.Context, d *tidewire.Delivery) error {
	if !w.begin(ctx) {
		return tidewire.RetryAfter(0) // for another worker
	}
	ctx, kill := context.WithCancel(ctx)
	defer kill()
	defer context.AfterFunc(working, kill)()
	err := w.runCommand(ctx, d)
	w.end(d, err)
	return err
}

// begin waits until a message may be begun: with --count no more are than are
// wanted.
func (w *worker) begin(ctx context.Context) bool {
	for {
		w.mu.Lock()
		if w.count == 0 || w.done+w.running < w.count {
			w.running++
			w.mu.Unlock()
			return true
		}
		enough, changed := w.done >= w.count, w.changed
		w.mu.Unlock()
		if enough {
			return false
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// end counts what became of a message, and tells of a failure.
func (w *worker) end(d *tidewire.Delivery, err error) {
	rejected, isRejected := errors.AsType[*tidewire.RejectError](err)
	switch {
	case isRejected:
		_, _ = fmt.Fprintf(w.errs, "tidewire: %s is rejected: %s\n", title(d), rejected.Reason)
	case err != nil:
		_, _ = fmt.Fprintf(w.errs, "tidewire: %s, attempt %d: %v\n", title(d), d.Attempt, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running--
	switch {
	case isRejected:
		w.rejected++
	case err != nil:
		w.failed++
	default:
		w.done++
	}
	if w.count > 0 && w.done >= w.count {
		w.enough()
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// title names a message in a line for people.
func title(d *tidewire.Delivery) string { return fmt.Sprintf("%s %s", d.Topic, d.ID) }

// tellDrain tells people what is waited for.
func (w *worker) tellDrain() {
	w.mu.Lock()
	n, enough := w.running, w.count > 0 && w.done >= w.count
	w.mu.Unlock()
	if n > 0 && !enough {
		_, _ = fmt.Fprintf(w.errs, "tidewire: waiting for %d that still run; Ctrl-C or SIGTERM again kills them\n", n)
	}
}

func (w *worker) summary() {
	if w.quiet {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, _ = fmt.Fprintf(w.errs, "tidewire: %d done, %d failed attempts, %d rejected\n", w.done, w.failed, w.rejected)
}

// outcome turns the reason of the end into that of the command.
func (w *worker) outcome(err error) error {
	if errors.Is(err, context.Canceled) { // before the first message
		err = nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case errors.Is(err, &tidewire.Error{Code: tidewire.CodeTakenOver}):
		return fmt.Errorf("another worker has taken over the exclusive consumer %s", w.consumer)
	case err == nil && w.done < w.count:
		return fmt.Errorf("interrupted after %d of %d messages", w.done, w.count)
	}
	return plain(tokenError(err))
}
