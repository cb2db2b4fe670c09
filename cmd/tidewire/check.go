package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tidewire/tidewire/storage"
)

// checkReport is what `tidewire check --json` prints.
type checkReport struct {
	Data     string   `json:"data"`
	OK       bool     `json:"ok"`
	Streams  int      `json:"streams"`
	Segments int      `json:"segments"`
	Blocks   int      `json:"blocks"`
	Messages int      `json:"messages"`
	Bytes    int64    `json:"bytes"`
	Undone   int      `json:"undone"`
	Problems []string `json:"problems"`
}

func newCheckCommand() *cobra.Command {
	var from configFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Verify what is stored, while the broker is stopped",
		Long: `Read everything in the data directory and verify it against its checksums. It
changes nothing, and so works on a read-only disk too. The broker must be
stopped. Every problem is listed, and the status is 1 if there is any.`,
		Example: "  tidewire check --data /var/lib/tidewire",
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			settings, err := from.load()
			if err != nil {
				return err
			}
			report, err := check(c, settings.Data)
			if err != nil {
				return err
			}
			if err := report.print(c.OutOrStdout(), asJSON); err != nil {
				return err
			}
			if !report.OK {
				return errSaid
			}
			return nil
		},
	}
	from.addFile(c)
	from.addData(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

// check verifies a data directory, and tells people who wait how far it is.
func check(c *cobra.Command, dir string) (*checkReport, error) {
	progress := newProgress(c.ErrOrStderr())
	found, err := storage.Check(c.Context(), dir, func(p storage.Progress) {
		progress.show(fmt.Sprintf("checking %s: segment %d of %d", p.Stream, p.Segment, p.Of))
	})
	progress.clear()
	switch {
	case c.Context().Err() != nil:
		return nil, errors.New("the check was interrupted before its end; nothing was changed")
	case err != nil:
		return nil, err
	}
	report := &checkReport{
		Data: dir, OK: len(found.Problems) == 0,
		Streams: found.Streams, Segments: found.Segments, Blocks: found.Blocks, Messages: found.Records, Bytes: found.Bytes,
		Undone:   found.Undone,
		Problems: []string{},
	}
	for _, p := range found.Problems {
		report.Problems = append(report.Problems, sentence(p))
	}
	return report, nil
}

func (r *checkReport) print(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return e.Encode(r)
	}
	_, err := fmt.Fprintf(w, "%s: %s, %s, %s, %.1f MiB\n", r.Data,
		count(r.Streams, "stream"), count(r.Segments, "segment"), count(r.Messages, "message"), float64(r.Bytes)/(1<<20))
	if err == nil && r.Undone > 0 {
		_, err = fmt.Fprintf(w, "%s did not finish before the power went; nothing in it had been answered, and the next start undoes it\n", count(r.Undone, "commit"))
	}
	for _, p := range r.Problems {
		if err == nil {
			_, err = fmt.Fprintf(w, "problem: %s\n", p)
		}
	}
	if err == nil && r.OK {
		_, err = fmt.Fprintln(w, "OK")
	}
	return err
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// progress is one line on a terminal that is written over again and again; on
// anything else it is nothing.
type progress struct {
	w     io.Writer // nil if there is no terminal
	shown int       // characters that are there now
}

func newProgress(w io.Writer) *progress {
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull {
			return &progress{w: w}
		}
	}
	return &progress{}
}

func (p *progress) show(line string) {
	if p.w != nil {
		_, _ = fmt.Fprintf(p.w, "\r%-*s", p.shown, line)
		p.shown = len(line)
	}
}

func (p *progress) clear() {
	if p.w != nil && p.shown > 0 {
		_, _ = fmt.Fprintf(p.w, "\r%*s\r", p.shown, "")
		p.shown = 0
	}
}
