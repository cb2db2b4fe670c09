package storage

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// stamped makes n items with a payload of a size, from an offset on.
func stamped(from uint64, n, size int) (items []Item) {
	for i := range n {
		items = append(items, item(from+uint64(i), uint64(time.Now().UnixMicro()), "a", "", strings.Repeat("x", size)))
	}
	return items
}

// TestReplicaFailedSync ends the replica: what was read may be lost here.
func TestReplicaFailedSync(t *testing.T) {
	r := openReplica(t, t.TempDir(), ReplicaOptions{})
	r.give("kept", stamped(1, 3, 10)...)
	synced := make(chan struct{})
	r.applier.write = func(...*batch) error {
		<-synced
		return syscall.EIO
	}
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context()) }()
	if _, err := r.Apply(t.Context(), stamped(4, 2, 10), []byte("lost")); err != nil {
		t.Fatal(err)
	}
	if _, head := r.Bounds(); head != 5 || len(r.reader().readAll(">", 0, 0)) != 5 {
		t.Errorf("head %d", head)
	}
	close(synced)
	if err := <-done; !errors.Is(err, syscall.EIO) {
		t.Errorf("Run returned %v", err)
	}
	if _, err := r.Apply(t.Context(), stamped(6, 1, 10), nil); !errors.Is(err, syscall.EIO) {
		t.Errorf("Apply after the end: %v", err)
	}
	again := r.crash()
	if _, head := again.Bounds(); head != 3 || string(again.Note()) != "kept" {
		t.Errorf("opened again at %d, note %q", head, again.Note())
	}
}

// TestReplicaRunAhead: Apply runs ahead as far as it may, waits, goes on when there
// is space, and gives up when it is told to; since when the oldest waits can be
// asked.
func TestReplicaRunAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := openReplica(t, t.TempDir(), ReplicaOptions{RunAhead: 100_000})
		began := time.Now()
		apply := func(ctx context.Context, from uint64) (*Commit, error) {
			return r.Apply(ctx, stamped(from, 1, 60_000), nil)
		}
		for _, from := range []uint64{1, 2} {
			if _, err := apply(t.Context(), from); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // moves the clock of the bubble
		}
		if !r.Unsynced().Equal(began) {
			t.Errorf("the oldest waits since %v, not %v", r.Unsynced(), began)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if c, err := apply(ctx, 3); !errors.Is(err, context.DeadlineExceeded) || c != nil {
			t.Errorf("beyond the bound: %v, %v", c, err)
		}
		if _, head := r.Bounds(); head != 2 || r.Synced() != 0 {
			t.Errorf("head %d, synced %d", head, r.Synced())
		}
		applied := make(chan error, 1)
		go func() {
			_, err := apply(t.Context(), 3) // the same again
			applied <- err
		}()
		synctest.Wait()
		if len(applied) > 0 {
			t.Errorf("Apply did not wait: %v", <-applied)
		}
		running, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(running) }()
		synctest.Wait()
		if err := <-applied; err != nil || r.Synced() != 3 || !r.Unsynced().IsZero() {
			t.Errorf("%v, synced %d, the oldest waits since %v", err, r.Synced(), r.Unsynced())
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestReplicaPart: what was applied of a call that gives up is in its commit, and
// the rest can be given again.
func TestReplicaPart(t *testing.T) {
	r := openReplica(t, t.TempDir(), ReplicaOptions{RunAhead: 1, LogOptions: LogOptions{SegmentBytes: 1}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	items := stamped(1, 10, 60_000) // several blocks
	for i := range items {
		items[i].Entry.Key = KeyOf("a", string(rune('a'+i)))
	}
	c, err := r.Apply(ctx, items, []byte("all"))
	if !errors.Is(err, context.Canceled) || c == nil || c.Chunk.Through == 0 || c.Chunk.Through > 9 {
		t.Fatalf("%+v, %v", c, err)
	}
	through := c.Chunk.Through
	r.during(func() {
		for r.Synced() < through { // no waiting for time: the writer is at it
			if _, err := r.applier.writeSome(); err != nil {
				t.Error(err)
			}
		}
	})
	if r.Note() != nil {
		t.Errorf("note %q", r.Note())
	}
	r.during(func() {
		if c, err = r.Apply(t.Context(), items[through:], []byte("all")); err != nil {
			t.Fatal(err)
		}
	})
	for _, a := range c.Answers {
		if a.Result.Duplicate || a.Result.Err != nil {
			t.Errorf("given again: %+v", a.Result)
		}
	}
	if got := r.reader().readAll(">", 0, 0); len(got) != 10 || string(r.Note()) != "all" {
		t.Errorf("%d records, note %q", len(got), r.Note())
	}
}

// TestReplicaFull: the writer tries again while the disk is full. Nothing is lost,
// and everything can be read meanwhile.
func TestReplicaFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := openReplica(t, t.TempDir(), ReplicaOptions{})
		write, tries := r.applier.write, 0
		r.applier.write = func(batches ...*batch) error {
			if tries++; tries <= 5 {
				return &fs.PathError{Op: "write", Err: syscall.ENOSPC}
			}
			return write(batches...)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		if _, err := r.Apply(t.Context(), stamped(1, 5, 100), []byte("note")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := r.reader().readAll(">", 0, 0); len(got) != 5 || r.Synced() != 0 {
			t.Errorf("%d records, synced %d", len(got), r.Synced())
		}
		time.Sleep(10 * fullPause) // moves the clock of the bubble
		synctest.Wait()
		if r.Synced() != 5 || tries != 6 {
			t.Errorf("synced %d after %d attempts", r.Synced(), tries)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		r = r.reopen()
		if got := r.reader().readAll(">", 0, 0); len(got) != 5 || string(r.Note()) != "note" {
			t.Errorf("%d records, note %q", len(got), r.Note())
		}
	})
}

// TestReplicaFullAtTheEnd: a full disk does not keep Run from ending.
func TestReplicaFullAtTheEnd(t *testing.T) {
	r := openReplica(t, t.TempDir(), ReplicaOptions{})
	r.applier.write = func(...*batch) error { return &fs.PathError{Op: "write", Err: syscall.ENOSPC} }
	if _, err := r.Apply(t.Context(), stamped(1, 5, 100), nil); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := r.Run(ctx); err != nil {
		t.Error(err)
	}
	if r = r.reopen(); r.Synced() != 0 {
		t.Errorf("synced %d", r.Synced())
	}
}

// TestReplicaUnderReaders reads while items are applied, synced, sealed and removed:
// readers get everything in order or are told that it is gone.
func TestReplicaUnderReaders(t *testing.T) {
	r := openReplica(t, t.TempDir(), ReplicaOptions{LogOptions: LogOptions{SegmentBytes: 1, RetentionBytes: 1 << 20, WindowBytes: 1}})
	var readers sync.WaitGroup
	var turns []chan struct{}
	for i, filter := range []string{">", "t.3", "t.*", "t.1.>"} {
		turn := make(chan struct{}, 1)
		turns = append(turns, turn)
		readers.Go(func() {
			after := uint64(0)
			for range turn {
				after = r.reader().readOn(filter, after)
				if i > 0 {
					after = 0
				}
			}
		})
	}
	r.during(func() {
		payload := strings.Repeat("x", 2000)
		for n := range uint64(300) {
			var items []Item
			for i := range uint64(7) {
				offset := n*8 + i + 1
				items = append(items, item(offset, uint64(time.Now().UnixMicro()), []string{"t.3", "t.4", "t.1.a"}[offset%3], "", payload))
			}
			c, err := r.Apply(t.Context(), items, nil)
			if err != nil {
				t.Fatal(err)
			}
			for read := uint64(0); n%20 == 0 && read < c.Chunk.Through; { // what was applied is there
				chunk, err := r.Read(Query{Filter: mustFilter(t, ">"), After: max(read, c.Chunk.After)})
				if err != nil || chunk.Through <= read {
					t.Fatalf("read after %d: %+v, %v", read, chunk, err)
				}
				read = chunk.Through
			}
			poke(turns[n%uint64(len(turns))])
		}
	})
	for _, turn := range turns {
		close(turn)
	}
	readers.Wait()
	if earliest, head := r.Bounds(); earliest == 1 || r.Synced() != head {
		t.Errorf("bounds %d to %d, synced %d", earliest, head, r.Synced())
	}
}
