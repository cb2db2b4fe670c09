package disk_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// TestCheckReadOnly checks a store on a file system that refuses every write, as
// the mounted snapshot of a disk does.
func TestCheckReadOnly(t *testing.T) {
	if reason := mountable(); reason != "" {
		t.Skip(reason)
	}
	dir := t.TempDir()
	fill(t, dir)
	bind := func(flags uintptr) {
		if err := syscall.Mount(dir, dir, "", syscall.MS_BIND|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	bind(0)
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	bind(syscall.MS_REMOUNT | syscall.MS_RDONLY)
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err == nil {
		t.Fatal("it can be written")
	}
	report, err := storage.Check(t.Context(), dir, nil)
	if err != nil || len(report.Problems) > 0 || report.Records != 3 {
		t.Errorf("%d messages, %v, %v", report.Records, err, report.Problems)
	}
}

// fill makes a store with three messages.
func fill(t *testing.T, dir string) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	s, err := storage.Open(dir, storage.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.OpenLog("main", storage.LogOptions{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stored := 0
	for range 3 {
		m := protocol.Message{Topic: "a", Payload: []byte("x")}
		e := &storage.Entry{Topic: "a", Record: protocol.AppendRecord(nil, &m), Done: func(r storage.Result) {
			if stored++; r.Err != nil || stored == 3 {
				cancel()
			}
		}}
		if err := l.Append(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	err = l.Run(ctx, func(c *storage.Commit) {
		for _, a := range c.Answers {
			a.Entry.Done(a.Result)
		}
	})
	if err != nil || stored != 3 || l.Close() != nil || s.Close() != nil {
		t.Fatalf("%d stored: %v", stored, err)
	}
}
