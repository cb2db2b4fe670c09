package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// consumerLine is a consumer as the admin listener describes it.
type consumerLine struct {
	Name     string     `json:"name"`
	Stream   string     `json:"stream"`
	Filter   string     `json:"filter"`
	Mode     string     `json:"mode"`
	Created  *time.Time `json:"created"`
	Position string     `json:"position"`
	Lag      uint64     `json:"lag"`
	NextDue  *time.Time `json:"next_due"`
	Blocked  string     `json:"blocked"`
	Paused   bool       `json:"paused"`
	Oldest   *pending   `json:"oldest"`
	Members  []member   `json:"members"`
	pendings
	consumerSettings
}

// pendings are how many messages of a consumer are where.
type pendings struct {
	InFlight uint64 `json:"in_flight"`
	Waiting  uint64 `json:"waiting"`
	Held     uint64 `json:"held"`
	Dead     uint64 `json:"dead"`
}

// consumerSettings are what can be set.
type consumerSettings struct {
	Ordered          bool        `json:"ordered"`
	AckWait          string      `json:"ack_wait"`
	Backoff          backoffLine `json:"backoff"`
	MaxDeliver       uint32      `json:"max_deliver"`
	MaxInFlight      uint32      `json:"max_in_flight"`
	MaxInFlightBytes uint64      `json:"max_in_flight_bytes"`
	MaxWaiting       uint32      `json:"max_waiting"`
}

type backoffLine struct {
	Base   string  `json:"base"`
	Factor float64 `json:"factor"`
	Cap    string  `json:"cap"`
	Jitter bool    `json:"jitter"`
}

func (b backoffLine) String() string {
	if b.Jitter {
		return fmt.Sprintf("up to %s, times %v each time, at most %s", b.Base, b.Factor, b.Cap)
	}
	return fmt.Sprintf("%s, times %v each time, at most %s", b.Base, b.Factor, b.Cap)
}

// pending is the oldest message that is not done.
type pending struct {
	Position string     `json:"position"`
	Attempts uint32     `json:"attempts"`
	State    string     `json:"state"`
	Due      *time.Time `json:"due"`
}

type member struct {
	Session  string `json:"session"`
	Client   string `json:"client"`
	Subject  string `json:"subject"`
	Window   uint32 `json:"window"`
	InFlight uint64 `json:"in_flight"`
}

func newConsumersCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "consumers",
		Short: "List, describe and change the consumers of a running broker",
		Long: `Show how far the consumers of a running broker are, create one, pause and resume
it, put it to another place in the log, or delete it. It asks the admin listener.
What could not be handled is shown by ` + "`tidewire dead`" + `.`,
		Example: `  tidewire consumers list
  tidewire consumers show billing --json
  tidewire consumers create billing 'orders.>' --ack-wait 1m --max-deliver 5
  tidewire consumers pause billing
  tidewire consumers seek billing --to -1h
  tidewire consumers delete billing --yes`,
	}, newConsumersListCommand(), newConsumersShowCommand(), newConsumersCreateCommand(),
		newConsumersPauseCommand(true), newConsumersPauseCommand(false), newConsumersSeekCommand(), newConsumersDeleteCommand())
}

// oneConsumer takes the name of a consumer as the only argument.
func oneConsumer(c *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return fmt.Errorf("write the name of one consumer: %s NAME; `tidewire consumers list` shows them", c.CommandPath())
	}
	return nil
}

// consumerPath is where the admin listener has a consumer, or a part of it.
func consumerPath(name string, parts ...string) string {
	all := []string{"/v1/consumers", url.PathEscape(name)}
	for _, p := range parts {
		all = append(all, url.PathEscape(p))
	}
	return strings.Join(all, "/")
}

func newConsumersListCommand() *cobra.Command {
	var admin adminFlags
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the consumers",
		Example: "  tidewire consumers list --server http://127.0.0.1:7071",
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			var answer struct {
				Consumers []json.RawMessage `json:"consumers"`
			}
			if err := admin.call(c.Context(), "/v1/consumers", nil, &answer); err != nil {
				return err
			}
			if admin.json {
				return printRaw(c.OutOrStdout(), answer.Consumers)
			}
			rows := [][]string{{"NAME", "STREAM", "FILTER", "MEMBERS", "LAG", "IN FLIGHT", "WAITING", "DEAD", "TAKES NEW"}}
			for _, raw := range answer.Consumers {
				l, err := parseConsumer(raw)
				if err != nil {
					return err
				}
				rows = append(rows, []string{
					l.Name, l.Stream, l.Filter, strconv.Itoa(len(l.Members)), number(l.Lag), number(l.InFlight),
					number(l.Waiting + l.Held), number(l.Dead), l.takesNew(),
				})
			}
			return printTable(c.OutOrStdout(), rows)
		},
	}
	admin.add(c)
	return c
}

func parseConsumer(raw json.RawMessage) (consumerLine, error) {
	return described[consumerLine]("a consumer", raw)
}

func number[N uint64 | uint32](n N) string { return strconv.FormatUint(uint64(n), 10) }

// takesNew says whether new messages are delivered, or why not.
func (l *consumerLine) takesNew() string {
	if l.Blocked == "" {
		return "yes"
	}
	return "no: " + l.Blocked
}

func newConsumersShowCommand() *cobra.Command {
	var admin adminFlags
	c := &cobra.Command{
		Use:     "show NAME",
		Short:   "Describe one consumer",
		Example: "  tidewire consumers show billing",
		Args:    oneConsumer,
		RunE: func(c *cobra.Command, args []string) error {
			raw, l, err := admin.consumer(c.Context(), args[0])
			if err != nil {
				return err
			}
			return admin.printConsumer(c, raw, l)
		},
	}
	admin.add(c)
	return c
}

// consumer asks for one consumer.
func (f *adminFlags) consumer(ctx context.Context, name string) (json.RawMessage, consumerLine, error) {
	var raw json.RawMessage
	if err := f.call(ctx, consumerPath(name), nil, &raw); err != nil {
		return nil, consumerLine{}, err
	}
	l, err := parseConsumer(raw)
	return raw, l, err
}

// printConsumer describes a consumer.
func (f *adminFlags) printConsumer(c *cobra.Command, raw json.RawMessage, l consumerLine) error {
	if f.json {
		return printRaw(c.OutOrStdout(), []json.RawMessage{raw})
	}
	order := "one message of a key at a time"
	if !l.Ordered {
		order = "any"
	}
	rows := [][]string{
		{"name", l.Name},
		{"stream", l.Stream},
		{"filter", l.Filter},
		{"mode", l.Mode},
		{"order", order},
		{"created", timeText(l.Created)},
		{"position", cmp.Or(l.Position, "-")},
		{"lag", "at most " + number(l.Lag)},
		{"takes new", l.takesNew()},
		{"in flight", fmt.Sprintf("%d of %d, %s", l.InFlight, l.MaxInFlight, sizeText(l.MaxInFlightBytes)+" at most")},
		{"waiting", fmt.Sprintf("%d for their next attempt, %d behind others of their key, of %d", l.Waiting, l.Held, l.MaxWaiting)},
		{"next attempt", timeText(l.NextDue)},
		{"dead", number(l.Dead)},
		{"oldest", l.Oldest.String()},
		{"ack wait", l.AckWait},
		{"backoff", l.Backoff.String()},
		{"max deliver", number(l.MaxDeliver)},
	}
	for _, m := range l.Members {
		rows = append(rows, []string{"member", m.String()})
	}
	return printTable(c.OutOrStdout(), rows)
}

func (p *pending) String() string {
	if p == nil {
		return "-"
	}
	text := fmt.Sprintf("%s %s, attempt %d", p.Position, p.State, p.Attempts)
	if p.Due != nil {
		text += ", until " + timeText(p.Due)
	}
	return text
}

func (m member) String() string {
	words := []string{m.Session}
	if m.Client != "" {
		words = append(words, m.Client)
	}
	if m.Subject != "" {
		words = append(words, "as "+m.Subject)
	}
	return strings.Join(words, " ") + fmt.Sprintf(", %d in flight, window %d", m.InFlight, m.Window)
}
