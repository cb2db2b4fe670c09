package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

func codeOf(r Result) protocol.Code {
	if r.Err == nil {
		return ""
	}
	return r.Err.Code
}

// TestDiskFull refuses while there is no space and goes on when there is,
// without a trace of what was refused.
func TestDiskFull(t *testing.T) {
	l := openTest(t, t.TempDir(), LogOptions{})
	l.publish(message("a", "1", "x"))
	write := l.committer.write
	full := &fs.PathError{Op: "write", Path: "segment", Err: syscall.ENOSPC}
	l.committer.write = func(*batch) error { return full }
	var order Order
	e := message("a", "2", "x")
	e.Order = &order
	for i, r := range l.publish(e, message("a", "1", "x"), message("b", "", "x")) {
		if codeOf(r) != protocol.CodeStorageFull {
			t.Errorf("entry %d: %+v", i, r)
		}
	}
	l.committer.write = write
	behind := message("a", "3", "x")
	behind.Order = &order
	again := message("a", "2", "x")
	again.Order, again.Resume = &order, true
	results := l.publish(behind, again, message("a", "1", "x"))
	if codeOf(results[0]) != protocol.CodeOutOfOrder {
		t.Errorf("behind the refused one: %+v", results[0])
	}
	if r := results[1]; r.Err != nil || r.Duplicate || r.Position.Offset != 2 {
		t.Errorf("the refused one again: %+v", r)
	}
	if r := results[2]; r.Err != nil || !r.Duplicate || r.Position.Offset != 1 {
		t.Errorf("a repeat: %+v", r)
	}
	if got := l.crash().readAll(">", 0, 0); len(got) != 2 {
		t.Errorf("%d records stored", len(got))
	}
}

// TestFailedSync ends the log: what was pending is answered, Run returns.
func TestFailedSync(t *testing.T) {
	l := openTest(t, t.TempDir(), LogOptions{})
	l.publish(message("a", "", "x"))
	synced := make(chan struct{})
	l.committer.write = func(*batch) error {
		<-synced
		return syscall.EIO
	}
	var codes []protocol.Code
	answered := make(chan struct{}, 3)
	entry := func() *Entry {
		e := message("a", "", "y")
		e.Done = func(r Result) {
			codes = append(codes, codeOf(r))
			answered <- struct{}{}
		}
		return e
	}
	err := l.during(func() {
		for range 3 {
			if err := l.Append(t.Context(), entry()); err != nil {
				t.Error(err)
			}
		}
		close(synced)
		for range 3 {
			<-answered
		}
	})
	if !errors.Is(err, syscall.EIO) {
		t.Errorf("Run returned %v", err)
	}
	if fmt.Sprint(codes) != "[outcome_unknown outcome_unknown outcome_unknown]" {
		t.Errorf("answers %v", codes)
	}
	if err := l.Append(t.Context(), entry()); err == nil {
		t.Error("Append after the end was taken")
	}
}

// TestQueueFull makes Append wait for space, and no longer than it may.
func TestQueueFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		large := &Entry{Record: make([]byte, maxQueueBytes/2)}
		if err := q.put(t.Context(), []*Entry{large}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var refused, accepted error
		go func() { refused = q.put(ctx, []*Entry{large}) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if protocol.AsError(refused).Code != protocol.CodeOverloaded {
			t.Errorf("put into a full queue: %v", refused)
		}
		early := true
		go func() {
			accepted = q.put(t.Context(), []*Entry{large})
			if early {
				t.Error("put did not wait for space")
			}
		}()
		synctest.Wait()
		early = false
		if n := len(q.take(1)); n != 1 {
			t.Errorf("took %d", n)
		}
		synctest.Wait()
		if accepted != nil || len(q.take(1)) != 1 || len(q.take(1)) != 0 {
			t.Errorf("put after space came: %v", accepted)
		}
		q.close(errClosed())
		if err := q.put(t.Context(), nil); protocol.AsError(err).Code != protocol.CodeGoingAway {
			t.Errorf("put after close: %v", err)
		}
	})
}

// TestRetentionWhenIdle removes what is too old although nothing happens.
func TestRetentionWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const age = 1000
		l := openTest(t, t.TempDir(), LogOptions{RetentionAge: age * time.Second})
		err := l.during(func() {
			e := message("a", "1", "x")
			e.Done = func(Result) {}
			if err := l.Append(t.Context(), e); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			time.Sleep((age - 1) * time.Second) // moves the clock of the bubble
			if earliest, head := l.Bounds(); earliest != 1 || head != 1 {
				t.Errorf("bounds %d to %d before the time", earliest, head)
			}
			time.Sleep((age/activeShare + 2) * time.Second)
			if earliest, head := l.Bounds(); earliest != 2 || head != 1 {
				t.Errorf("bounds %d to %d after the time", earliest, head)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		l = l.reopen()
		if earliest, head := l.Bounds(); earliest != 2 || head != 1 {
			t.Errorf("bounds %d to %d after a restart", earliest, head)
		}
		r := l.publish(message("a", "1", "x"), message("a", "2", "x"))
		if !r[0].Duplicate || r[0].Position.Offset != 1 {
			t.Errorf("an id that outlived its message: %+v", r[0])
		}
		if r[1].Position.Offset != 3 {
			t.Errorf("the next message: %+v", r[1])
		}
		if _, err := l.Read(Query{Filter: mustFilter(t, ">")}); !errors.Is(err, ErrTrimmed) {
			t.Errorf("read from the start: %v", err)
		}
	})
}

// TestRollback puts a copy back, as a restored backup or a machine's snapshot
// would, and resumes everybody: all messages, or exactly the gap.
func TestRollback(t *testing.T) {
	first := openTest(t, t.TempDir(), LogOptions{})
	first.publish(message("a", "", "1"), message("a", "", "2"))
	old := t.TempDir()
	copyDir(t, first.dir, old)
	first.publish(message("a", "", "3"), message("a", "", "4"))
	lost := first.PositionOf(4)
	first = first.reopen()
	first.publish(message("a", "", "5"))
	lostTerm := first.PositionOf(5)
	kept, start := first.PositionOf(2), first.PositionOf(0)

	l := openTest(t, old, LogOptions{})
	l.publish(message("a", "", "6"), message("a", "", "7"), message("a", "", "8"), message("a", "", "9")) // past the old head
	resolve := func(p protocol.Position) Resolved {
		t.Helper()
		_, head := l.Bounds()
		r, err := l.Resolve(protocol.Start{Kind: protocol.StartPosition, Position: p}, mustFilter(t, ">"), head)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := resolve(lost); r.Gap == nil || *r.Gap != (Gap{GapRolledBack, lost.Term, 2, 4, 2}) || r.After != 2 {
		t.Errorf("a lost offset of a known term: %+v %+v", r, r.Gap)
	}
	if r := resolve(lostTerm); r.Gap == nil || *r.Gap != (Gap{GapOtherLog, lostTerm.Term, 5, 5, 0}) || r.After != 0 {
		t.Errorf("a lost term: %+v %+v", r, r.Gap)
	}
	for _, p := range []protocol.Position{kept, start, l.PositionOf(6)} {
		if r := resolve(p); r.Gap != nil || r.After != p.Offset {
			t.Errorf("%v: %+v %+v", p, r, r.Gap)
		}
	}
	future := l.PositionOf(6)
	future.Offset = 1000
	if r := resolve(future); r.Gap == nil || *r.Gap != (Gap{GapRolledBack, future.Term, 6, 1000, 6}) {
		t.Errorf("the future: %+v %+v", r, r.Gap)
	}
	var payloads []string
	for _, m := range l.readAll(">", 0, 0) {
		payloads = append(payloads, string(m.Payload))
	}
	if got := strings.Join(payloads, ""); got != "126789" {
		t.Errorf("stored %s", got)
	}
}

// TestRetentionUnderReaders reads while segments are sealed and removed: readers
// get what they ask for or are told that it is gone.
func TestRetentionUnderReaders(t *testing.T) {
	l := openTest(t, t.TempDir(), LogOptions{SegmentBytes: 1, RetentionBytes: 1 << 20, WindowBytes: 1})
	payload := strings.Repeat("x", 2000)
	var readers sync.WaitGroup
	var turns []chan struct{}
	for i, filter := range []string{">", "t.3", "t.*", "t.1.>"} {
		turn := make(chan struct{}, 1)
		turns = append(turns, turn)
		readers.Go(func() {
			after := uint64(0)
			for range turn {
				after = l.readOn(filter, after)
				if i > 0 {
					after = 0
				}
			}
		})
	}
	err := l.during(func() {
		for n := range 2000 {
			e := message(fmt.Sprintf("t.%d", n%100), "", payload)
			done := make(chan struct{})
			e.Done = func(Result) { close(done) }
			if err := l.Append(t.Context(), e); err != nil {
				t.Error(err)
			}
			if n%20 == 0 {
				<-done
				poke(turns[n/20%len(turns)])
			}
		}
	})
	for _, turn := range turns {
		close(turn)
	}
	readers.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if earliest, _ := l.Bounds(); earliest == 1 {
		t.Error("nothing was removed")
	}
}

// readOn reads from an offset, or from the earliest if that is gone, to the
// head.
func (l *testLog) readOn(filter string, after uint64) uint64 {
	for {
		c, err := l.Read(Query{Filter: mustFilter(l.t, filter), After: after, MaxBytes: 8000})
		switch {
		case errors.Is(err, ErrTrimmed):
			earliest, _ := l.Bounds()
			after = earliest - 1
		case err != nil:
			l.t.Errorf("%s after %d: %v", filter, after, err)
			return after
		case c.Through == after:
			return after
		default:
			after = c.Through
		}
	}
}
