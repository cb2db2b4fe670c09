package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidewire/tidewire/protocol"
)

// consumerFlags are the settings of a consumer as flags. What is not given stays
// as it is, or becomes the broker's default.
type consumerFlags struct {
	from       string
	stream     string
	ackWait    time.Duration
	backoff    time.Duration
	backoffCap time.Duration
	maxDeliver uint32
	inFlight   uint32
	exclusive  bool
	unordered  bool
}

func (f *consumerFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.from, "from", "", "`where` a new consumer begins: earliest (default), new, last:N,\n-10m, an RFC 3339 time, or a position")
	flags.StringVar(&f.stream, "stream", "", "`name` of the stream to read, where the filter could match\ntopics of several")
	flags.DurationVar(&f.ackWait, "ack-wait", 0, "`time` to acknowledge a message in, before it is delivered\nagain (default 30s)")
	flags.DurationVar(&f.backoff, "backoff", 0, "the longest `time` before the second attempt; it doubles with\neach (default 1s)")
	flags.DurationVar(&f.backoffCap, "backoff-cap", 0, "the longest `time` before any attempt (default 1m)")
	flags.Uint32Var(&f.maxDeliver, "max-deliver", 0, "attempts before a message becomes a dead letter, as a `number`\n(default 10)")
	flags.Uint32Var(&f.inFlight, "max-in-flight", 0, "messages at work at a time, of all workers together, as a\n`number` (default 256)")
	flags.BoolVar(&f.exclusive, "exclusive", false, "one worker at a time: a new one takes over")
	flags.BoolVar(&f.unordered, "unordered", false, "messages of one key may be at work at the same time")
}

// check checks what the broker would refuse, where a flag can be named.
func (f *consumerFlags) check() error {
	if _, err := protocol.ParseStart(f.from); err != nil {
		return fmt.Errorf("--from: %w", plain(err))
	}
	for name, d := range map[string]time.Duration{"ack-wait": f.ackWait, "backoff": f.backoff, "backoff-cap": f.backoffCap} {
		if d < 0 || d%time.Millisecond != 0 {
			return fmt.Errorf("--%s %v: give whole milliseconds above 0", name, d)
		}
	}
	return nil
}

// consumerRequest is the body that creates a consumer or changes it.
type consumerRequest struct {
	Filter      string          `json:"filter,omitempty"`
	Stream      string          `json:"stream,omitempty"`
	From        string          `json:"from,omitempty"`
	Mode        string          `json:"mode,omitempty"`
	Ordered     *bool           `json:"ordered,omitempty"`
	AckWait     string          `json:"ack_wait,omitempty"`
	Backoff     *backoffRequest `json:"backoff,omitempty"`
	MaxDeliver  uint32          `json:"max_deliver,omitempty"`
	MaxInFlight uint32          `json:"max_in_flight,omitempty"`
}

type backoffRequest struct {
	Base string `json:"base,omitempty"`
	Cap  string `json:"cap,omitempty"`
}

func (f *consumerFlags) request(filter string) consumerRequest {
	r := consumerRequest{Filter: filter, Stream: f.stream, From: f.from, MaxDeliver: f.maxDeliver, MaxInFlight: f.inFlight}
	if f.exclusive {
		r.Mode = "exclusive"
	}
	if f.unordered {
		r.Ordered = new(false)
	}
	if f.ackWait > 0 {
		r.AckWait = f.ackWait.String()
	}
	b := backoffRequest{}
	if f.backoff > 0 {
		b.Base = f.backoff.String()
	}
	if f.backoffCap > 0 {
		b.Cap = f.backoffCap.String()
	}
	if b != (backoffRequest{}) {
		r.Backoff = &b
	}
	return r
}

func newConsumersCreateCommand() *cobra.Command {
	var admin adminFlags
	var f consumerFlags
	c := &cobra.Command{
		Use:   "create NAME FILTER",
		Short: "Create a consumer, or change its settings",
		Long: `Create a consumer of all topics that a filter matches. Where there is one of that
name and filter, the settings that are given are changed and the others stay. A
program that consumes creates its consumer itself; this is for those that ask over
HTTP, or to decide the settings beforehand.`,
		Example: `  tidewire consumers create billing 'orders.>'
  tidewire consumers create billing 'orders.>' --ack-wait 2m --max-deliver 5
  tidewire consumers create mail 'mail.*' --from new --unordered`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 2 || args[0] == "" {
				return fmt.Errorf("write a name and a filter: %s NAME FILTER", c.CommandPath())
			}
			if _, err := protocol.ParseFilter(args[1]); err != nil {
				return plain(err)
			}
			return f.check()
		},
		RunE: func(c *cobra.Command, args []string) error {
			var raw json.RawMessage
			if err := admin.request(c.Context(), "PUT "+consumerPath(args[0]), f.request(args[1]), &raw); err != nil {
				return err
			}
			l, err := parseConsumer(raw)
			if err != nil {
				return err
			}
			return admin.printConsumer(c, raw, l)
		},
	}
	admin.add(c)
	f.add(c)
	return c
}

func newConsumersPauseCommand(pause bool) *cobra.Command {
	var admin adminFlags
	word, short, said := "resume", "Let a paused consumer deliver again", "goes on"
	if pause {
		word, short, said = "pause", "Deliver nothing more, until resume", "is paused; what is in flight can still be acknowledged"
	}
	c := &cobra.Command{
		Use:     word + " NAME",
		Short:   short,
		Example: "  tidewire consumers " + word + " billing",
		Args:    oneConsumer,
		RunE: func(c *cobra.Command, args []string) error {
			return admin.change(c, change{path: consumerPath(args[0], word), name: args[0], said: said})
		},
	}
	admin.add(c)
	return c
}

func newConsumersSeekCommand() *cobra.Command {
	var admin adminFlags
	var to string
	c := &cobra.Command{
		Use:   "seek NAME --to START",
		Short: "Go on from another place in the log",
		Long: `Put a consumer to another place in the log. What is in flight or waits for its
next attempt is forgotten; whoever is at work on it is told that its
acknowledgement comes too late. Dead letters stay.`,
		Example: `  tidewire consumers seek billing --to -1h
  tidewire consumers seek billing --to earliest`,
		Args: oneConsumer,
		RunE: func(c *cobra.Command, args []string) error {
			if to == "" {
				return errors.New("write where to go on, for example --to -1h")
			}
			if _, err := protocol.ParseStart(to); err != nil {
				return fmt.Errorf("--to: %w", plain(err))
			}
			return admin.change(c, change{
				path: consumerPath(args[0], "seek"), name: args[0], body: map[string]string{"to": to},
				said: "goes on from " + to,
			})
		},
	}
	admin.add(c)
	c.Flags().StringVar(&to, "to", "", "`where` to go on: earliest, new, last:N, -10m, an RFC 3339\ntime, or a position, which means after it")
	return c
}

func newConsumersDeleteCommand() *cobra.Command {
	var admin adminFlags
	var yes bool
	c := &cobra.Command{
		Use:   "delete NAME --yes",
		Short: "Forget a consumer and its progress",
		Long: `Forget a consumer: how far it is, and what is in flight or waits for its next
attempt. The messages stay in their stream. It cannot be undone; a consumer that is
created with the same name begins anew.`,
		Example: "  tidewire consumers delete billing --yes",
		Args:    oneConsumer,
		RunE: func(c *cobra.Command, args []string) error {
			_, l, err := admin.consumer(c.Context(), args[0])
			if err != nil {
				return err
			}
			if !yes {
				return fmt.Errorf("this would forget the consumer %s, with %d messages that are not done and %d dead letters, for ever; say --yes if you mean it", l.Name, l.InFlight+l.Waiting+l.Held, l.Dead)
			}
			if err := admin.request(c.Context(), "DELETE "+consumerPath(args[0]), nil, nil); err != nil {
				return err
			}
			if admin.json {
				return printJSON(c.OutOrStdout(), map[string]string{"name": args[0], "deleted": "yes"})
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "the consumer %s is deleted\n", args[0])
			return err
		},
	}
	admin.add(c)
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	return c
}

// change is a request that changes a consumer.
type change struct {
	path, name string
	body       any
	said       string // of the consumer, afterwards
}

// change makes a change and tells it.
func (f *adminFlags) change(c *cobra.Command, what change) error {
	var body any = struct{}{}
	if what.body != nil {
		body = what.body
	}
	if err := f.call(c.Context(), what.path, body, nil); err != nil {
		return err
	}
	if f.json {
		raw, _, err := f.consumer(c.Context(), what.name)
		if err != nil {
			return err
		}
		return printRaw(c.OutOrStdout(), []json.RawMessage{raw})
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), "the consumer %s %s\n", what.name, what.said)
	return err
}
