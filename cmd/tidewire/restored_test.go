package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/config"
)

// TestRestoredDirectory holds what docs/protocol.md says of gaps after a backup was
// put back: what a subscriber is told, and what it gets.
func TestRestoredDirectory(t *testing.T) {
	for _, c := range []struct {
		name    string
		running bool   // the copy is taken while the broker runs
		gap     string // what a position behind the copy is told
		gets    string // and what comes
	}{
		{"copy of a running broker", true, "offsets 3 to 4 are not in the log any more, which was put back to an earlier state (rolled_back)", "after\n"},
		{"copy of a stopped broker", false, "the log does not know the position, it is another one or was put back to a backup from before (other_log)", "one\ntwo\nafter\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			data, backup := filepath.Join(dir, "data"), filepath.Join(dir, "backup")
			at := func(c *config.Config) { c.Data, c.Streams.Main.SegmentBytes = data, 1<<20 }
			s := start(t, at)
			kept := s.publish(t, "a", "1", "one")
			s.publish(t, "a", "2", "two")
			if !c.running {
				if err := s.stop(); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.CopyFS(backup, os.DirFS(data)); err != nil {
				t.Fatal(err)
			}
			if !c.running {
				s = start(t, at)
			}
			s.publish(t, "a", "3", "three")
			lost := s.publish(t, "a", "4", "four")
			s.publish(t, "a", "5", "five, which nobody had read")
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			data = backup
			s = start(t, at)
			s.publish(t, "a", "6", "after")
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			out, errs, err := s.client(ctx, nil, "sub", "a", "--from", lost, "--count", strconv.Itoa(strings.Count(c.gets, "\n")))
			if err != nil || out != c.gets || !strings.Contains(errs, c.gap) {
				t.Errorf("behind the backup: %q, %q, %v", out, errs, err)
			}
			out, errs, err = s.client(ctx, nil, "sub", "a", "--from", kept, "--count", "2")
			if err != nil || out != "two\nafter\n" || errs != "" {
				t.Errorf("within the backup: %q, %q, %v", out, errs, err)
			}
		})
	}
}
