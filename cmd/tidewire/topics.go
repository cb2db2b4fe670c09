package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tidewire/tidewire/protocol"
)

// topicsCommand is `tidewire topics`.
type topicsCommand struct {
	admin  adminFlags
	filter string
	stream string
	limit  int
}

// topicPage is the most that the admin listener lists at once.
const topicPage = 1000

func newTopicsCommand() *cobra.Command {
	var t topicsCommand
	c := &cobra.Command{
		Use:   "topics",
		Short: "List the topics that a running broker holds messages of",
		Long: `List the topics that the streams of a running broker hold messages of, with how
many, where the first and the last are, and how fast they came in the last
minute. A topic whose stream was changed is
listed for each stream that has some of it.`,
		Example: `  tidewire topics --filter 'room.>'
  tidewire topics --stream orders --limit 0 --json`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return t.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr()) },
	}
	f := c.Flags()
	f.StringVar(&t.filter, "filter", ">", "`filter` of topics; quote it")
	f.StringVar(&t.stream, "stream", "", "`name` of one stream")
	f.IntVar(&t.limit, "limit", topicPage, "list the first `N` topics; 0 for all")
	t.admin.add(c)
	return c
}

// topicLine is a topic as the admin listener describes it.
type topicLine struct {
	Topic    string  `json:"topic"`
	Stream   string  `json:"stream"`
	Messages uint64  `json:"messages"`
	First    string  `json:"first"`
	Last     string  `json:"last"`
	Rate     float64 `json:"rate"`
}

// topicAnswer is a page of topics.
type topicAnswer struct {
	Topics []json.RawMessage `json:"topics"`
	Next   string            `json:"next"`
}

func (t *topicsCommand) run(ctx context.Context, out, errs io.Writer) error {
	if _, err := protocol.ParseFilter(t.filter); err != nil {
		return fmt.Errorf("--filter: %w", plain(err))
	}
	if t.limit < 0 {
		return fmt.Errorf("--limit %d: give a number above 0, or 0 for all", t.limit)
	}
	rows := [][]string{{"TOPIC", "STREAM", "MESSAGES", "RATE", "FIRST", "LAST"}}
	after, left := "", t.limit
	for {
		page, n, err := t.page(ctx, after, left)
		if err != nil {
			return err
		}
		if t.admin.json {
			err = printRaw(out, page.Topics)
		} else {
			rows, err = appendTopics(rows, page.Topics)
		}
		if err != nil {
			return err
		}
		left -= n
		if after = page.Next; after == "" || t.limit > 0 && left <= 0 {
			break
		}
	}
	if !t.admin.json {
		if err := printTable(out, rows); err != nil {
			return err
		}
	}
	if after != "" {
		_, _ = fmt.Fprintf(errs, "tidewire: there may be more behind these; --limit 0 lists all\n")
	}
	return nil
}

// page asks for the next topics; n is how many it asked for.
func (t *topicsCommand) page(ctx context.Context, after string, left int) (page topicAnswer, n int, err error) {
	n = topicPage
	if t.limit > 0 {
		n = min(n, left)
	}
	q := url.Values{"filter": {t.filter}, "limit": {strconv.Itoa(n)}}
	if after != "" {
		q.Set("after", after)
	}
	if t.stream != "" {
		q.Set("stream", t.stream)
	}
	err = t.admin.call(ctx, "/v1/topics?"+q.Encode(), nil, &page)
	return page, n, err
}

func appendTopics(rows [][]string, topics []json.RawMessage) ([][]string, error) {
	for _, raw := range topics {
		l, err := described[topicLine]("a topic", raw)
		if err != nil {
			return nil, err
		}
		rows = append(rows, []string{l.Topic, l.Stream, strconv.FormatUint(l.Messages, 10), rateText(l.Rate), l.First, l.Last})
	}
	return rows, nil
}
