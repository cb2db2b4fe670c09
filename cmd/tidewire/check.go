package main

import (
	"cmp"
	"context"
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
	Deep     bool     `json:"deep"`
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
	var how checkRun
	var asJSON bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Verify what is stored, while the broker is stopped",
		Long: `Verify a data directory, while its broker is stopped, or a backup. It changes
nothing, and so works on a read-only disk too. Every problem is listed, and the
status is 1 if there is any.

Without --deep it takes seconds: all files are there, hang together and are from
one moment, and everything in the newest ones is whole. With --deep it reads all
that is stored: each message and each id against its checksum, the indexes
against the messages, and each file of a backup against its SHA-256.`,
		Example: `  tidewire check --data /var/lib/tidewire
  tidewire check --deep --backup /backups/2026-11-21`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if how.backup != "" && c.Flags().Changed("data") {
				return errors.New("--data and --backup were given: check one after the other")
			}
			settings, err := from.load()
			if err != nil {
				return err
			}
			how.data = settings.Data
			report, err := how.check(c)
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
	c.Flags().StringVar(&how.backup, "backup", "", "check a backup instead, a `directory` or a .tar file")
	c.Flags().BoolVar(&how.deep, "deep", false, "read everything")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

// checkRun is one `tidewire check`.
type checkRun struct {
	data   string
	backup string // instead of data, if not empty
	deep   bool
}

// check verifies what it should, and tells people who wait how far it is.
func (r *checkRun) check(c *cobra.Command) (*checkReport, error) {
	progress := newProgress(c.ErrOrStderr())
	found, err := r.run(c.Context(), progress)
	progress.clear()
	switch {
	case c.Context().Err() != nil:
		return nil, errors.New("the check was interrupted before its end; nothing was changed")
	case err != nil:
		return nil, err
	}
	report := &checkReport{
		Data: cmp.Or(r.backup, r.data), OK: len(found.Problems) == 0, Deep: r.deep,
		Streams: found.Streams, Segments: found.Segments, Blocks: found.Blocks, Messages: found.Records, Bytes: found.Bytes,
		Undone:   found.Undone,
		Problems: []string{},
	}
	for _, p := range found.Problems {
		report.Problems = append(report.Problems, sentence(p))
	}
	return report, nil
}

func (r *checkRun) run(ctx context.Context, p *progress) (storage.Report, error) {
	if r.backup != "" {
		return storage.CheckBackup(ctx, r.backup, r.deep, func(at storage.BackupProgress) { showCopy(p, "checking", at) })
	}
	show := func(at storage.Progress) {
		p.show(fmt.Sprintf("checking %s: segment %d of %d", at.Stream, at.Segment, at.Of))
	}
	if r.deep {
		return storage.Check(ctx, r.data, show)
	}
	return storage.CheckQuick(ctx, r.data, show)
}

func (r *checkReport) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
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
