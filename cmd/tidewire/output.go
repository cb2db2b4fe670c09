package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// described reads what the broker describes; what is a word for it with its
// article.
func described[T any](what string, raw json.RawMessage) (line T, err error) {
	if err = json.Unmarshal(raw, &line); err != nil {
		err = fmt.Errorf("the broker describes %s in a way that this version does not know: %w", what, err)
	}
	return line, err
}

// printJSON prints v in one line.
func printJSON(w io.Writer, v any) error {
	b, err := jsonLine(v)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

// printRaw prints what the broker describes as it came.
func printRaw(w io.Writer, objects []json.RawMessage) error {
	for _, o := range objects {
		if _, err := fmt.Fprintf(w, "%s\n", o); err != nil {
			return err
		}
	}
	return nil
}

func printTable(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		if _, err := fmt.Fprintln(t, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}
