package storage

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tidewire/tidewire/protocol"
)

// smallDisk mounts a real disk of a size for a test.
func smallDisk(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); errors.Is(err, syscall.EPERM) {
		t.Skip("mounting a small disk needs root")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestSmallDisk fills a real, small disk. Publishes are refused, what was
// answered stays, and the log goes on by itself as soon as somebody frees space
// or retention does.
func TestSmallDisk(t *testing.T) {
	disk := smallDisk(t, "6m")
	ballast := filepath.Join(disk, "ballast")
	write(t, ballast, strings.Repeat("x", 1<<20))

	clock := newClock()
	logger := slog.New(slog.DiscardHandler)
	store, err := Open(filepath.Join(disk, "data"), Options{ReserveBytes: 512 << 10, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	log, err := store.OpenLog("main", LogOptions{SegmentBytes: 1, RetentionAge: time.Hour, Now: clock.now, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	l := &testLog{t: t, dir: filepath.Join(disk, "data"), store: store, Log: log}
	defer l.close()
	stored := 0
	fill := func() {
		t.Helper()
		for range 2000 {
			switch r := l.publish(message("a", "", strings.Repeat("y", 20_000)))[0]; {
			case r.Err == nil:
				stored++
			case r.Err.Code == protocol.CodeStorageFull:
				return
			default:
				t.Fatal(r.Err)
			}
		}
		t.Fatal("the disk is never full")
	}
	goesOn := func(why string) {
		t.Helper()
		for range 100 { // the keeper may need a round or two
			if r := l.publish(message("a", "", strings.Repeat("z", 20_000)))[0]; r.Err == nil {
				stored++
				return
			}
			if err := l.keeper.work(t.Context()); err != nil && !isFull(err) {
				t.Fatal(err)
			}
		}
		t.Fatalf("refused still after %s", why)
	}
	fill()
	if got := len(l.readAll(">", 0, 0)); got != stored {
		t.Fatalf("%d messages of %d", got, stored)
	}
	if err := l.keeper.work(t.Context()); !isFull(err) {
		t.Errorf("publishes are refused, and the keeper has no complaint: %v", err)
	}
	remove(t, ballast)
	goesOn("space was freed")
	fill()
	if got := len(l.readAll(">", 0, 0)); got != stored {
		t.Fatalf("%d messages of %d", got, stored)
	}
	clock.at = clock.at.Add(2 * time.Hour)
	goesOn("retention has freed space")
	if earliest, _ := l.Bounds(); earliest == 1 {
		t.Error("retention removed nothing")
	}
	if _, err := os.Stat(filepath.Join(disk, "data", reserveFile)); err != nil {
		t.Errorf("no reserve again: %v", err)
	}
	_, head := l.Bounds()
	l.close()
	l = openTest(t, filepath.Join(disk, "data"), LogOptions{SegmentBytes: 1})
	if l.head != head {
		t.Errorf("head %d after a restart, %d before", l.head, head)
	}
	l.close()
}

// TestVitalOnSmallDisk: a vital log goes on from the reserve while others are
// refused.
func TestVitalOnSmallDisk(t *testing.T) {
	disk := smallDisk(t, "6m")
	logger := slog.New(slog.DiscardHandler)
	dir := filepath.Join(disk, "data")
	store, err := Open(dir, Options{ReserveBytes: 512 << 10, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	open := func(name string, vital bool) *testLog {
		log, err := store.OpenLog(name, LogOptions{SegmentBytes: 1, Logger: logger, Vital: vital})
		if err != nil {
			t.Fatal(err)
		}
		return &testLog{t: t, dir: dir, store: store, Log: log}
	}
	plain, vital := open("main", false), open("control", true)
	refused := false
	for range 2000 {
		if r := plain.publish(message("a", "", strings.Repeat("y", 20_000)))[0]; r.Err != nil {
			refused = true
			break
		}
	}
	if !refused {
		t.Fatal("the disk is never full")
	}
	for i := range 5 {
		if r := vital.publish(message("b", "", strings.Repeat("z", 1000)))[0]; r.Err != nil {
			t.Fatalf("the vital log is refused, too, at its message %d: %v", i, r.Err)
		}
	}
	if r := plain.publish(message("a", "", "more"))[0]; r.Err == nil {
		t.Error("the plain log takes from the reserve")
	}
	for _, l := range []*testLog{plain, vital} {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

// TestReplicaOnSmallDisk fills a real, small disk. A copy waits, says so, gives
// what it has, and has lost nothing when there is room again.
func TestReplicaOnSmallDisk(t *testing.T) {
	disk := smallDisk(t, "6m")
	ballast := filepath.Join(disk, "ballast")
	write(t, ballast, strings.Repeat("x", 2<<20))
	logger := slog.New(slog.DiscardHandler)
	store, err := Open(filepath.Join(disk, "data"), Options{ReserveBytes: 512 << 10, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	replica, err := store.OpenReplica("main", ReplicaOptions{Term: replicaTerm, RunAhead: 1 << 20, LogOptions: LogOptions{SegmentBytes: 1, RetentionAge: -1, Logger: logger}})
	if err != nil {
		t.Fatal(err)
	}
	r := &testReplica{t: t, dir: filepath.Join(disk, "data"), opts: ReplicaOptions{LogOptions: LogOptions{SegmentBytes: 1, RetentionAge: -1}}, store: store, Replica: replica}
	t.Cleanup(func() { r.close() })
	const items = 200 // of 20 kB: too many while the ballast is there
	until := func(what string, ok func() bool) {
		t.Helper()
		look := time.NewTicker(time.Millisecond)
		defer look.Stop()
		for !ok() {
			select {
			case <-look.C:
			case <-t.Context().Done():
				t.Fatal("never " + what)
			}
		}
	}
	r.during(func() {
		applied := make(chan error, 1)
		go func() {
			var err error
			for n := range uint64(items) {
				_, applyErr := r.Apply(t.Context(), stamped(n+1, 1, 20_000), nil)
				err = errors.Join(err, applyErr)
			}
			applied <- err
		}()
		until("full", func() bool { return r.Ready() != nil && !r.Unsynced().IsZero() })
		if _, head := r.Bounds(); len(r.reader().readAll(">", 0, 0)) < int(head) || head == items {
			t.Errorf("not everything up to %d can be read while the disk is full", head)
		}
		remove(t, ballast)
		if err := <-applied; err != nil {
			t.Error(err)
		}
		until("synced", func() bool { return r.Synced() == items && r.Ready() == nil })
	})
	r = r.reopen()
	if got := len(r.reader().readAll(">", 0, 0)); got != items {
		t.Errorf("%d records after a restart, %d were applied", got, items)
	}
	r.close()
}
