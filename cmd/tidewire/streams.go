package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// streamLine is a stream as the admin listener describes it.
type streamLine struct {
	Name     string     `json:"name"`
	Filters  []string   `json:"filters"`
	Storage  string     `json:"storage"`
	Messages uint64     `json:"messages"`
	Bytes    uint64     `json:"bytes"`
	Segments int        `json:"segments"`
	Rate     float64    `json:"rate"`
	PerTopic int        `json:"max_messages_per_topic"`
	First    string     `json:"first"`
	Last     string     `json:"last"`
	Oldest   *time.Time `json:"oldest"`
	Newest   *time.Time `json:"newest"`
}

func newStreamsCommand() *cobra.Command {
	var admin adminFlags
	c := group(&cobra.Command{
		Use:   "streams",
		Short: "List, describe and purge the streams of a running broker",
		Long: `Show what the streams of a running broker hold, or purge one. It asks the admin
listener.`,
		Example: `  tidewire streams
  tidewire streams info orders --json
  tidewire streams purge orders --yes`,
	}, newStreamsListCommand(), newStreamsInfoCommand(), newStreamsPurgeCommand())
	admin.add(c)
	others := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return others(c, args) // which there is not
		}
		return admin.list(c.Context(), c.OutOrStdout())
	}
	return c
}

func newStreamsListCommand() *cobra.Command {
	var admin adminFlags
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the streams",
		Example: "  tidewire streams list --server http://127.0.0.1:7071",
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			return admin.list(c.Context(), c.OutOrStdout())
		},
	}
	admin.add(c)
	return c
}

// list prints all streams.
func (f *adminFlags) list(ctx context.Context, out io.Writer) error {
	lines, raw, err := f.streams(ctx)
	if err != nil {
		return err
	}
	if f.json {
		return printRaw(out, raw)
	}
	rows := [][]string{{"NAME", "STORAGE", "MESSAGES", "SIZE", "RATE", "PER TOPIC", "OLDEST", "FILTERS"}}
	for _, s := range lines {
		rows = append(rows, []string{s.Name, s.Storage, fmt.Sprint(s.Messages), sizeText(s.Bytes), rateText(s.Rate), boundText(s.PerTopic), timeText(s.Oldest), strings.Join(s.Filters, " ")})
	}
	return printTable(out, rows)
}

// streams returns the streams, parsed and as they came.
func (f *adminFlags) streams(ctx context.Context) (lines []streamLine, raw []json.RawMessage, err error) {
	var answer struct {
		Streams []json.RawMessage `json:"streams"`
	}
	if err := f.call(ctx, "/v1/streams", nil, &answer); err != nil {
		return nil, nil, err
	}
	for _, r := range answer.Streams {
		s, err := described[streamLine]("a stream", r)
		if err != nil {
			return nil, nil, err
		}
		lines = append(lines, s)
	}
	return lines, answer.Streams, nil
}

// one finds a stream by its name.
func (f *adminFlags) one(ctx context.Context, name string) (streamLine, json.RawMessage, error) {
	lines, raw, err := f.streams(ctx)
	var known []string
	for i, s := range lines {
		if s.Name == name {
			return s, raw[i], err
		}
		known = append(known, s.Name)
	}
	if err == nil {
		err = fmt.Errorf("there is no stream %q, this broker has %s", name, strings.Join(known, ", "))
	}
	return streamLine{}, nil, err
}

// oneStream takes the name of a stream as the only argument.
func oneStream(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("write the name of one stream: %s NAME; `tidewire streams list` shows them", c.CommandPath())
	}
	return nil
}

func newStreamsInfoCommand() *cobra.Command {
	var admin adminFlags
	c := &cobra.Command{
		Use:     "info NAME",
		Short:   "Describe one stream",
		Example: "  tidewire streams info main",
		Args:    oneStream,
		RunE: func(c *cobra.Command, args []string) error {
			s, raw, err := admin.one(c.Context(), args[0])
			if err != nil {
				return err
			}
			if admin.json {
				return printRaw(c.OutOrStdout(), []json.RawMessage{raw})
			}
			rows := [][]string{
				{"name", s.Name},
				{"filters", strings.Join(s.Filters, " ")},
				{"storage", s.Storage},
				{"messages", fmt.Sprint(s.Messages)},
				{"size", sizeText(s.Bytes)},
				{"segments", fmt.Sprint(s.Segments)},
				{"rate", rateText(s.Rate)},
				{"per topic", boundText(s.PerTopic)},
				{"oldest", timeText(s.Oldest) + " " + s.First},
				{"newest", timeText(s.Newest)},
				{"head", s.Last},
			}
			return printTable(c.OutOrStdout(), rows)
		},
	}
	admin.add(c)
	return c
}

func newStreamsPurgeCommand() *cobra.Command {
	var admin adminFlags
	var yes bool
	c := &cobra.Command{
		Use:   "purge NAME --yes",
		Short: "Remove every message of a stream",
		Long: `Remove every message that a stream holds. It cannot be undone. Subscribers that
had not read them are told by a gap with the reason retention; message ids stay
known, so that repeats are not stored again.`,
		Example: "  tidewire streams purge prices --yes",
		Args:    oneStream,
		RunE: func(c *cobra.Command, args []string) error {
			s, _, err := admin.one(c.Context(), args[0])
			if err != nil {
				return err
			}
			if !yes {
				return fmt.Errorf("this would remove all %d messages of the stream %s, for ever; say --yes if you mean it", s.Messages, s.Name)
			}
			var answer struct {
				Stream  string `json:"stream"`
				Through string `json:"through"`
			}
			if err := admin.call(c.Context(), "/v1/streams/"+url.PathEscape(s.Name)+"/purge", map[string]string{"confirm": s.Name}, &answer); err != nil {
				return err
			}
			if admin.json {
				return printJSON(c.OutOrStdout(), answer)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "the stream %s is purged up to %s\n", answer.Stream, answer.Through)
			return err
		},
	}
	admin.add(c)
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	return c
}

func sizeText(n uint64) string {
	const step = 1024
	if n < step {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/step, "KiB"
	for _, u := range []string{"MiB", "GiB", "TiB"} {
		if f < step {
			break
		}
		f, unit = f/step, u
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

func rateText(perSecond float64) string { return fmt.Sprintf("%.1f/s", perSecond) }

// boundText shows how many messages there may be; 0 is no bound.
func boundText(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func timeText(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
