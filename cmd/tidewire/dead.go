package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"
)

// deadLine is a dead letter as the admin listener describes it.
type deadLine struct {
	ID       string `json:"id"`
	Topic    string `json:"topic"`
	Origin   string `json:"origin"`
	Attempts uint32 `json:"attempts"`
	Reason   string `json:"reason"`
	First    string `json:"first"`
	Last     string `json:"last"`
	Position string `json:"position"`

	Key           string            `json:"key"`
	ContentType   string            `json:"content_type"`
	Headers       map[string]string `json:"headers"`
	Payload       *string           `json:"payload"`
	PayloadBase64 []byte            `json:"payload_base64"`
}

// deadAnswer is a page of dead letters, the newest first.
type deadAnswer struct {
	Dead []json.RawMessage `json:"dead"`
	Next string            `json:"next"`
}

// deadPage is how many dead letters are asked for at once: their reasons are
// long.
const deadPage = 100

func newDeadCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "dead",
		Short: "List dead letters, deliver them again, or remove them",
		Long: `A message that a consumer could not handle, after all its attempts or because a
worker rejected it, becomes a dead letter: a copy in the stream ` + "`dead`" + `, kept for 30
days, with the reason. This shows the dead letters of a consumer of a running
broker, gives them back to it, or removes them. It asks the admin listener.`,
		Example: `  tidewire dead list billing
  tidewire dead show billing order-1017
  tidewire dead redrive billing order-1017 order-1018
  tidewire dead redrive billing --all
  tidewire dead purge billing --all --yes`,
	}, newDeadListCommand(), newDeadShowCommand(), newDeadRedriveCommand(), newDeadPurgeCommand())
}

func newDeadListCommand() *cobra.Command {
	var admin adminFlags
	var limit int
	c := &cobra.Command{
		Use:   "list NAME",
		Short: "List the dead letters of a consumer, the newest first",
		Example: `  tidewire dead list billing
  tidewire dead list billing --limit 0 --json`,
		Args: oneConsumer,
		RunE: func(c *cobra.Command, args []string) error {
			if limit < 0 {
				return fmt.Errorf("--limit %d: give a number above 0, or 0 for all", limit)
			}
			return admin.listDead(c, args[0], limit)
		},
	}
	admin.add(c)
	c.Flags().IntVar(&limit, "limit", deadPage, "list the `N` newest; 0 for all")
	return c
}

// listDead prints dead letters, page by page.
func (f *adminFlags) listDead(c *cobra.Command, name string, limit int) error {
	rows := [][]string{{"ID", "TOPIC", "ORIGIN", "ATTEMPTS", "LAST", "REASON"}}
	out, before, left := c.OutOrStdout(), "", limit
	for {
		n := deadPage
		if limit > 0 {
			n = min(n, left)
		}
		page, err := f.deadPage(c.Context(), name, before, n)
		if err != nil {
			return err
		}
		if f.json {
			err = printRaw(out, page.Dead)
		} else {
			rows, err = appendDead(rows, page.Dead)
		}
		if err != nil {
			return err
		}
		left -= len(page.Dead)
		before = page.Next
		if before == "" || limit > 0 && left <= 0 {
			break
		}
	}
	if !f.json {
		if err := printTable(out, rows); err != nil {
			return err
		}
	}
	if before != "" {
		_, _ = fmt.Fprintf(c.ErrOrStderr(), "tidewire: there are older ones behind these; --limit 0 lists all\n")
	}
	return nil
}

// deadPage asks for up to n dead letters that are older than a place.
func (f *adminFlags) deadPage(ctx context.Context, name, before string, n int) (page deadAnswer, err error) {
	q := url.Values{"limit": {strconv.Itoa(n)}}
	if before != "" {
		q.Set("before", before)
	}
	err = f.call(ctx, consumerPath(name, "dead")+"?"+q.Encode(), nil, &page)
	return page, err
}

func parseDead(raw json.RawMessage) (deadLine, error) {
	return described[deadLine]("a dead letter", raw)
}

func appendDead(rows [][]string, letters []json.RawMessage) ([][]string, error) {
	for _, raw := range letters {
		l, err := parseDead(raw)
		if err != nil {
			return nil, err
		}
		rows = append(rows, []string{l.ID, l.Topic, l.Origin, number(l.Attempts), cmp.Or(l.Last, "-"), oneLine(l.Reason)})
	}
	return rows, nil
}

func newDeadShowCommand() *cobra.Command {
	var admin adminFlags
	c := &cobra.Command{
		Use:     "show NAME ID...",
		Short:   "Show dead letters with their content",
		Example: "  tidewire dead show billing order-1017",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return fmt.Errorf("write the name of one consumer and the ids: %s NAME ID...; `tidewire dead list NAME` shows them", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			for i, id := range args[1:] {
				var raw json.RawMessage
				if err := admin.call(c.Context(), consumerPath(args[0], "dead", id), nil, &raw); err != nil {
					return err
				}
				err := admin.showDead(c.OutOrStdout(), raw, i > 0)
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	admin.add(c)
	return c
}

// showDead prints a dead letter and its payload.
func (f *adminFlags) showDead(out io.Writer, raw json.RawMessage, another bool) error {
	if f.json {
		return printRaw(out, []json.RawMessage{raw})
	}
	l, err := parseDead(raw)
	if err != nil {
		return err
	}
	rows := [][]string{
		{"id", l.ID},
		{"topic", l.Topic},
		{"origin", l.Origin},
		{"attempts", number(l.Attempts)},
		{"reason", oneLine(l.Reason)},
		{"first", cmp.Or(l.First, "-")},
		{"last", cmp.Or(l.Last, "-")},
		{"position", cmp.Or(l.Position, "-")},
	}
	if l.Key != "" {
		rows = append(rows, []string{"key", l.Key})
	}
	if l.ContentType != "" {
		rows = append(rows, []string{"content type", l.ContentType})
	}
	for _, name := range sortedKeys(l.Headers) {
		rows = append(rows, []string{"header " + name, l.Headers[name]})
	}
	if another {
		if _, err := fmt.Fprintln(out); err != nil {
			return err
		}
	}
	if err := printTable(out, rows); err != nil {
		return err
	}
	payload := fmt.Sprintf("%d bytes that are no text; --json has them", len(l.PayloadBase64))
	if l.Payload != nil {
		payload = *l.Payload
	}
	_, err = fmt.Fprintf(out, "\n%s\n", payload)
	return err
}

// deadSelection is the body that selects dead letters.
type deadSelection struct {
	IDs     []string `json:"ids,omitempty"`
	All     bool     `json:"all,omitempty"`
	Publish bool     `json:"publish,omitempty"`
}

// arguments takes the name and the ids.
func (s *deadSelection) arguments(c *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return fmt.Errorf("write the name of one consumer, and ids or --all: %s NAME ID...; `tidewire consumers list` shows the names", c.CommandPath())
	case len(args) == 1 && !s.All:
		return errors.New("write the ids of the dead letters, or --all")
	case len(args) > 1 && s.All:
		return fmt.Errorf("--all means every one: leave out it or %q", args[1])
	}
	s.IDs = args[1:]
	return nil
}

func newDeadRedriveCommand() *cobra.Command {
	var admin adminFlags
	var s deadSelection
	c := &cobra.Command{
		Use:   "redrive NAME ID... | NAME --all",
		Short: "Give dead letters back to their consumer",
		Long: `Give dead letters back to their consumer, with their first topic and id; their
attempts are counted anew. Nobody else gets them again. With --publish they are
published to their first topic instead, for everybody.`,
		Example: `  tidewire dead redrive billing order-1017
  tidewire dead redrive billing --all`,
		Args: s.arguments,
		RunE: func(c *cobra.Command, args []string) error {
			said := "given back to " + args[0]
			if s.Publish {
				said = "published again"
			}
			return admin.changeDead(c, consumerPath(args[0], "dead", "redrive"), s, said)
		},
	}
	admin.add(c)
	c.Flags().BoolVar(&s.All, "all", false, "all dead letters of the consumer")
	c.Flags().BoolVar(&s.Publish, "publish", false, "publish them to their first topic, for everybody")
	return c
}

func newDeadPurgeCommand() *cobra.Command {
	var admin adminFlags
	var s deadSelection
	var yes bool
	c := &cobra.Command{
		Use:   "purge NAME ID... --yes | NAME --all --yes",
		Short: "Remove dead letters",
		Long:  `Take dead letters off the list of their consumer. It cannot be undone.`,
		Example: `  tidewire dead purge billing order-1017 --yes
  tidewire dead purge billing --all --yes`,
		Args: s.arguments,
		RunE: func(c *cobra.Command, args []string) error {
			if !yes {
				what := letters(uint64(len(s.IDs)))
				if s.All {
					_, l, err := admin.consumer(c.Context(), args[0])
					if err != nil {
						return err
					}
					what = letters(l.Dead)
				}
				return fmt.Errorf("this would remove %s of the consumer %s, for ever; say --yes if you mean it", what, args[0])
			}
			return admin.changeDead(c, consumerPath(args[0], "dead", "purge"), s, "removed")
		},
	}
	admin.add(c)
	c.Flags().BoolVar(&s.All, "all", false, "all dead letters of the consumer")
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	return c
}

// deadCount is how many dead letters were changed.
type deadCount struct {
	Count uint64 `json:"count"`
}

// changeDead posts a selection and tells how many it was.
func (f *adminFlags) changeDead(c *cobra.Command, path string, s deadSelection, said string) error {
	var answer deadCount
	if err := f.call(c.Context(), path, s, &answer); err != nil {
		return err
	}
	if f.json {
		return printJSON(c.OutOrStdout(), answer)
	}
	verb := "are"
	if answer.Count == 1 {
		verb = "is"
	}
	_, err := fmt.Fprintln(c.OutOrStdout(), letters(answer.Count), verb, said)
	return err
}

func letters(n uint64) string {
	if n == 1 {
		return "1 dead letter"
	}
	return fmt.Sprintf("%d dead letters", n)
}
