package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// foundLine is a message and what the consumers made of it, as the admin listener
// describes it.
type foundLine struct {
	Message struct {
		ID       string     `json:"id"`
		Topic    string     `json:"topic"`
		Position string     `json:"position"`
		Time     *time.Time `json:"time"`
	} `json:"message"`
	Stream    string      `json:"stream"`
	Consumers []fateOfOne `json:"consumers"`
}

// fateOfOne is what became of a message with one consumer.
type fateOfOne struct {
	Name     string     `json:"name"`
	State    string     `json:"state"`
	Attempts uint32     `json:"attempts"`
	Due      *time.Time `json:"due"`
	Reason   string     `json:"reason"`
}

func newMessageCommand() *cobra.Command {
	var admin adminFlags
	var topic string
	c := &cobra.Command{
		Use:   "message ID",
		Short: "Find a message, and what became of it with each consumer",
		Long: `Find a message of a running broker by its id, and show what became of it with each
consumer whose filter it matches: done, in_flight, waiting for its next attempt,
held behind another of its key, dying, dead, not_yet delivered, or expired, so that
it is not delivered any more. Of a message that was passed over because it had
expired the consumer keeps no more than that it is done. It asks the admin listener.`,
		Example: `  tidewire message order-1017
  tidewire message 7 --topic orders.eu --json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return fmt.Errorf("write the id of one message: %s ID", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			path := "/v1/messages/" + url.PathEscape(args[0])
			if topic != "" {
				path += "?" + url.Values{"topic": {topic}}.Encode()
			}
			var answer struct {
				Messages []json.RawMessage `json:"messages"`
			}
			if err := admin.call(c.Context(), path, nil, &answer); err != nil {
				return err
			}
			if len(answer.Messages) == 0 {
				return fmt.Errorf("the broker has no message %q%s; it may be older than what is kept", args[0], onTopic(topic))
			}
			if admin.json {
				return printRaw(c.OutOrStdout(), answer.Messages)
			}
			return printFound(c, answer.Messages)
		},
	}
	admin.add(c)
	c.Flags().StringVar(&topic, "topic", "", "`topic` of the message, where several have the id")
	return c
}

func onTopic(topic string) string {
	if topic == "" {
		return ""
	}
	return " on the topic " + topic
}

// printFound describes messages, one below the other.
func printFound(c *cobra.Command, messages []json.RawMessage) error {
	out := c.OutOrStdout()
	for i, raw := range messages {
		l, err := described[foundLine]("a message", raw)
		if err != nil {
			return err
		}
		if i > 0 {
			if _, err := fmt.Fprintln(out); err != nil {
				return err
			}
		}
		m := &l.Message
		rows := [][]string{{"id", m.ID}, {"topic", m.Topic}, {"stream", l.Stream}, {"position", m.Position}, {"stored", timeText(m.Time)}}
		if err := printTable(out, rows); err != nil {
			return err
		}
		if len(l.Consumers) == 0 {
			continue
		}
		rows = [][]string{{"CONSUMER", "STATE", "ATTEMPTS", "UNTIL", "REASON"}}
		for _, f := range l.Consumers {
			rows = append(rows, []string{f.Name, f.State, number(f.Attempts), timeText(f.Due), cmp.Or(oneLine(f.Reason), "-")})
		}
		if err := printTable(out, rows); err != nil {
			return err
		}
	}
	return nil
}

// oneLine makes a line of a text of others, for a table.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
