package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidewire/tidewire/config"
	"github.com/tidewire/tidewire/storage"
)

const (
	defaultAdmin = "http://127.0.0.1:7071"

	// defaultRate leaves most of a disk and a processor to the clients.
	defaultRate = "64MiB"

	// backupSilence is how long a broker may send nothing: it first seals what was
	// published last.
	backupSilence = 2 * time.Minute
)

func newBackupCommand() *cobra.Command {
	var admin, rate string
	var asJSON bool
	c := &cobra.Command{
		Use:   "backup [--server URL] DIRECTORY|FILE.tar|-",
		Short: "Copy everything that a running broker has stored",
		Long: `Copy everything that a running broker has stored, as it is at one moment for each
stream: whatever was answered before the command began is in the backup. Clients
hardly notice. - writes a tar archive to the standard output.

The backup is verified on its way. One that was interrupted has no file MANIFEST,
and cannot be restored. docs/backup.md tells how to keep and try backups.`,
		Example: `  tidewire backup /backups/2026-11-21
  tidewire backup --server http://10.0.0.5:7071 /backups/tidewire.tar
  tidewire backup - | zstd | ssh vault 'cat > tidewire.tar.zst'`,
		Args: oneArgument("where the backup goes"),
		RunE: func(c *cobra.Command, args []string) error {
			most, err := config.ParseSize(rate)
			if err != nil {
				return fmt.Errorf("--rate: %w", err)
			}
			b := backupRun{errs: c.ErrOrStderr(), out: c.OutOrStdout(), admin: admin, to: args[0], rate: int64(most)}
			m, err := b.run(c.Context())
			if err != nil {
				return err
			}
			if b.to == "-" { // the standard output has the archive
				return reportBackup(b.errs, &m, "copied to the standard output", asJSON)
			}
			return reportBackup(b.out, &m, "copied to "+b.to, asJSON)
		},
	}
	c.Flags().StringVar(&admin, "server", defaultAdmin, "`URL` of the broker's admin listener")
	c.Flags().StringVar(&rate, "rate", defaultRate, "`size` to copy in a second at most, or unlimited")
	c.Flags().BoolVar(&asJSON, "json", false, "print the manifest of the backup as one JSON object")
	return c
}

// oneArgument refuses another number of arguments with a sentence.
func oneArgument(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 1 && args[0] != "" {
			return nil
		}
		return fmt.Errorf("%s takes one argument, %s, but %s given; `%s --help` shows examples", c.CommandPath(), what, were(len(args)), c.CommandPath())
	}
}

func were(n int) string {
	if n <= 1 {
		return "none was"
	}
	return fmt.Sprintf("%d were", n)
}

func reportBackup(w io.Writer, m *storage.Manifest, done string, asJSON bool) error {
	if asJSON {
		return printJSON(w, m)
	}
	_, err := fmt.Fprintf(w, "%s: %s, %s, %s, %.1f MiB, everything that was answered before %s\n", done,
		count(len(m.Streams), "stream"), count(m.Files(), "file"), count(int(m.Messages()), "message"), float64(m.Bytes())/(1<<20), m.Begun.Format(time.RFC3339))
	return err
}

// backupRun is one `tidewire backup`.
type backupRun struct {
	out, errs io.Writer
	admin, to string
	rate      int64 // bytes a second; 0 for no bound
}

func (b *backupRun) run(ctx context.Context) (storage.Manifest, error) {
	if f, ok := b.out.(*os.File); ok && b.to == "-" && newProgress(f).w != nil {
		return storage.Manifest{}, errors.New("the backup would go to the terminal: send it to a file or another program, or give a directory")
	}
	if err := b.refuseExisting(); err != nil {
		return storage.Manifest{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(backupSilence, func() {
		cancel(fmt.Errorf("the broker at %s has sent nothing for %v: look at its log", b.admin, backupSilence))
	})
	defer silence.Stop()
	body := &lazyBody{request: func() (*http.Response, error) { return b.request(ctx) }}
	defer body.close()
	progress := newProgress(b.errs)
	m, err := b.save(ctx, &steady{ctx: ctx, r: body, rate: b.rate}, func(p storage.BackupProgress) {
		silence.Reset(backupSilence)
		showCopy(progress, "copying", p)
	})
	progress.clear()
	if said := body.said(); err != nil && said != "" {
		return m, fmt.Errorf("the broker could not complete the backup: %s", said)
	}
	return m, b.explain(ctx, err)
}

// refuseExisting keeps what is there: the broker need not begin for that.
func (b *backupRun) refuseExisting() error {
	if b.to == "-" {
		return nil
	}
	info, err := os.Stat(b.to)
	switch {
	case err == nil && isArchive(b.to):
		return fmt.Errorf("%s exists: choose another name, nothing is overwritten", b.to)
	case err == nil && !info.IsDir():
		return fmt.Errorf("%s is a file: give a directory, or a name that ends in .tar", b.to)
	}
	return nil
}

func (b *backupRun) explain(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(cause, context.Canceled):
		return errors.New("interrupted; what was written of the backup has been removed")
	case cause != nil:
		return cause
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, storage.ErrBackupIncomplete):
		return fmt.Errorf("the connection to the broker at %s ended before the backup was complete: look at its log and begin again; what was written has been removed", b.admin)
	}
	return err
}

// lazyBody is the answer to a request that is sent when it is first read: by then
// there is a place for it.
type lazyBody struct {
	request func() (*http.Response, error)
	answer  *http.Response
}

func (l *lazyBody) Read(p []byte) (n int, err error) {
	if l.answer == nil {
		if l.answer, err = l.request(); err != nil {
			return 0, err
		}
	}
	return l.answer.Body.Read(p)
}

// said is the broker's reason why the backup is not complete, if it came so far.
func (l *lazyBody) said() string {
	if l.answer == nil {
		return ""
	}
	return l.answer.Trailer.Get("Tidewire-Error")
}

func (l *lazyBody) close() {
	if l.answer != nil {
		_ = l.answer.Body.Close()
	}
}

// request asks the broker for a backup.
func (b *backupRun) request(ctx context.Context) (*http.Response, error) {
	base, err := url.Parse(b.admin)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || strings.Trim(base.Path, "/") != "" || base.RawQuery != "" {
		return nil, fmt.Errorf("%q is not the URL of an admin listener: write it like %s", b.admin, defaultAdmin)
	}
	base.Path = "/v1/backup"
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base.String(), nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(r)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		if context.Cause(ctx) != nil {
			return nil, b.explain(ctx, err)
		}
		return nil, fmt.Errorf("cannot reach a broker at %s (%s): is it running, and is that its admin address? see --server", b.admin, reason(err))
	}
	kind, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if answer.StatusCode == http.StatusOK && kind == "application/x-tar" {
		return answer, nil
	}
	defer func() { _ = answer.Body.Close() }()
	var problem struct{ Code, Detail string }
	_ = json.NewDecoder(io.LimitReader(answer.Body, 64<<10)).Decode(&problem)
	if kind != "application/problem+json" || problem.Code == "not_found" || problem.Code == "method_not_allowed" {
		return nil, fmt.Errorf("what answers at %s is not the admin listener of a broker that can make backups (status %d): give its address with --server, by default it is %s", b.admin, answer.StatusCode, defaultAdmin)
	}
	return nil, fmt.Errorf("the broker at %s makes no backup now: %s", b.admin, problem.Detail)
}

// save puts the backup where it belongs; a part of one is removed.
func (b *backupRun) save(ctx context.Context, body io.Reader, show func(storage.BackupProgress)) (storage.Manifest, error) {
	switch {
	case b.to == "-":
		return storage.VerifyBackup(ctx, io.TeeReader(body, &sink{b.out}), show)
	case !isArchive(b.to):
		return storage.SaveBackup(ctx, body, b.to, show)
	}
	return storage.SaveArchive(ctx, body, b.to, show)
}

func isArchive(name string) bool { return strings.HasSuffix(name, ".tar") }

// sink is the standard output as a writer whose failures are sentences.
type sink struct{ w io.Writer }

func (s *sink) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	if err != nil {
		err = fmt.Errorf("the standard output cannot take the backup (%s): what was written of it is not complete", reason(err))
	}
	return n, err
}

// showCopy tells people who wait how far a copy is.
func showCopy(p *progress, what string, at storage.BackupProgress) {
	if p.w == nil {
		return
	}
	line := what + " " + at.File
	if at.Bytes > 0 {
		line += fmt.Sprintf(": %.1f MiB", float64(at.Bytes)/(1<<20))
	}
	if at.Of > 0 {
		line += fmt.Sprintf(" of about %.1f MiB (%d%%)", float64(at.Of)/(1<<20), min(100*at.Bytes/at.Of, 100))
	}
	p.show(line)
}
