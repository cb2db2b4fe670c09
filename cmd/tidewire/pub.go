package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tidewire "github.com/tidewire/tidewire/clients/go"
	"github.com/tidewire/tidewire/protocol"
)

// publisher is `tidewire pub`: what to publish, and where to read and write.
type publisher struct {
	client clientFlags
	topic  string
	data   *string // the argument; nil if there is none
	id     string
	key    string

	headers   []string // name=value
	lines     bool
	jsonLines bool
	json      bool

	in        io.Reader
	out, errs io.Writer
}

func newPubCommand() *cobra.Command {
	var p publisher
	c := &cobra.Command{
		Use:   "pub TOPIC [DATA|-]",
		Short: "Publish messages",
		Long: `Publish a message, and end when the broker has stored it. Without DATA, or with
"-", the message is what standard input holds.

With --lines each line of standard input is a message. With --json-lines each
line is a message in the JSON form that ` + "`sub --json`" + ` prints; it names its topic,
so TOPIC is left out. Both publish as fast as the broker answers, keep the order,
and end with status 0 only if every line was stored. When the connection is lost
they go on as soon as the broker is back; nothing is stored twice.

Ctrl-C and SIGTERM end it with status 1, and it says what was stored.`,
		Example: `  tidewire pub room.42.chat hello
  tidewire pub room.42.chat --id 7 --header lang=en - < letter.txt
  vmstat 1 | tidewire pub hosts.$(hostname).vmstat --lines
  tidewire sub 'orders.>' --from earliest --json --count 1000 > orders.ndjson
  tidewire pub --json-lines --server http://elsewhere:7070 < orders.ndjson`,
		Args: p.arguments,
		RunE: func(c *cobra.Command, _ []string) error {
			p.in, p.out, p.errs = c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr()
			return p.run(c.Context())
		},
	}
	f := c.Flags()
	f.StringVar(&p.id, "id", "", "`id` of the message: publishing the same id again stores nothing")
	f.StringVar(&p.key, "key", "", "ordering `key`")
	f.StringArrayVar(&p.headers, "header", nil, "`name=value` of a header (may be given again)")
	f.BoolVar(&p.lines, "lines", false, "publish each line of standard input")
	f.BoolVar(&p.jsonLines, "json-lines", false, "publish each line of standard input, in the JSON form of a message")
	f.BoolVar(&p.json, "json", false, "print the answers, one JSON object a line, in the order of the input")
	p.client.add(c)
	c.MarkFlagsMutuallyExclusive("lines", "json-lines")
	return c
}

// arguments takes TOPIC and DATA, as far as the flags allow them.
func (p *publisher) arguments(_ *cobra.Command, args []string) error {
	if p.jsonLines {
		switch {
		case len(args) > 0:
			return fmt.Errorf("with --json-lines each line names its topic: leave out %q", args[0])
		case p.id != "" || p.key != "" || len(p.headers) > 0:
			return errors.New("with --json-lines each line has its own id, key and headers: leave out --id, --key and --header")
		}
		return nil
	}
	switch {
	case len(args) == 0:
		return errors.New("the topic is missing; write for example: tidewire pub room.42.chat hello")
	case len(args) > 2:
		return fmt.Errorf("%d arguments were given, but there are only TOPIC and DATA; quote DATA if it has spaces", len(args))
	case p.lines && p.id != "":
		return errors.New("--id names one message, but --lines publishes many: leave out one of them")
	case p.lines && len(args) == 2 && args[1] != "-":
		return fmt.Errorf("--lines reads standard input: leave out %.40q", args[1])
	}
	p.topic = args[0]
	if len(args) == 2 && args[1] != "-" {
		p.data = &args[1]
	}
	if err := protocol.CheckTopic(p.topic); err != nil {
		return plain(err)
	}
	return nil
}

func (p *publisher) run(ctx context.Context) error {
	headers, err := parseHeaders(p.headers)
	if err != nil {
		return err
	}
	template := tidewire.Message{Topic: p.topic, ID: p.id, Key: p.key, Headers: headers}
	if p.lines || p.jsonLines {
		return p.publishLines(ctx, template)
	}
	if template.Payload, err = p.payload(); err != nil {
		return err
	}
	return p.publishOne(ctx, template)
}

// payload is the argument, or all of standard input.
func (p *publisher) payload() ([]byte, error) {
	if p.data != nil {
		return []byte(*p.data), nil
	}
	if isTerminal(p.in) {
		_, _ = fmt.Fprintln(p.errs, "tidewire: reading the message from the terminal; end it with Ctrl-D")
	}
	b, err := io.ReadAll(io.LimitReader(p.in, maxInput+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read standard input: %w", err)
	}
	if len(b) > maxInput {
		return nil, fmt.Errorf("standard input holds more than %d bytes, too much for one message; did you mean --lines?", maxInput)
	}
	return b, nil
}

// maxInput bounds what is read for one message. The broker's limit, which is
// lower unless it is configured otherwise, holds besides.
const maxInput = 64 << 20

func (p *publisher) publishOne(ctx context.Context, m tidewire.Message) error {
	c, err := p.client.connect(ctx, p.errs)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	r, err := c.Publish(ctx, m)
	if err != nil {
		return p.publishError(err)
	}
	if p.json {
		if _, err := p.out.Write(answerLine(m.Topic, r, nil)); err != nil {
			return outputError(err)
		}
	}
	return nil
}

// publishError makes a sentence of the outcome of a message.
func (p *publisher) publishError(err error) error {
	if e, ok := errors.AsType[*tidewire.UnknownOutcomeError](err); ok {
		switch {
		case errors.Is(err, context.Canceled):
			return fmt.Errorf("interrupted: whether the message was stored is not known; publish it again with --id %s to be sure", e.ID)
		case refusedToken(err):
			return fmt.Errorf("whether the message was stored is not known: %w; publish it again with --id %s to be sure", tokenError(err), e.ID)
		}
	}
	if refusedToken(err) {
		return tokenError(err)
	}
	if e, ok := errors.AsType[*tidewire.Error](err); ok {
		return errors.New(e.Message)
	}
	return err
}

// answer is what --json prints; HTTP answers in the same form.
type answer struct {
	ID        string         `json:"id"`
	Topic     string         `json:"topic"`
	Position  string         `json:"position,omitempty"`
	Duplicate bool           `json:"duplicate"`
	Stored    bool           `json:"stored"`
	Error     *refusedAnswer `json:"error,omitempty"`
}

type refusedAnswer struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func answerLine(topic string, r tidewire.Receipt, err error) []byte {
	a := answer{ID: r.ID, Topic: topic, Duplicate: r.Duplicate}
	switch e, ok := errors.AsType[*tidewire.Error](err); {
	case ok:
		a.Error = &refusedAnswer{Code: string(e.Code), Message: e.Message}
	case err != nil:
		a.Error = &refusedAnswer{Code: string(protocol.CodeUnknown), Message: err.Error()}
	default:
		a.Position, a.Stored = r.Position.String(), true
	}
	b, _ := jsonLine(a) // texts and booleans only
	return b
}

// parseHeaders reads name=value.
func parseHeaders(texts []string) ([]tidewire.Header, error) {
	var headers []tidewire.Header
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--header %q is not of the form name=value", text)
		}
		headers = append(headers, tidewire.Header{Name: name, Value: value})
	}
	return headers, nil
}

// isTerminal reports whether people are at the other end.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}

// closeTime is how long an interrupted command waits for the last answers.
const closeTime = 2 * time.Second
