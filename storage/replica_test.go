package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// testReplica is a replica that runs only while it is told so.
type testReplica struct {
	t     *testing.T
	dir   string
	opts  ReplicaOptions
	store *Store
	*Replica
}

const replicaTerm = protocol.Term(4711)

func openReplica(t *testing.T, dir string, opts ReplicaOptions) *testReplica {
	t.Helper()
	r, err := tryReplica(t, dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tryReplica(t *testing.T, dir string, opts ReplicaOptions) (*testReplica, error) {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Term == 0 {
		opts.Term = replicaTerm
	}
	s, err := Open(dir, Options{ReserveBytes: -1, Logger: opts.Logger})
	if err != nil {
		return nil, err
	}
	r, err := s.OpenReplica("main", opts)
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	tr := &testReplica{t: t, dir: dir, opts: opts, store: s, Replica: r}
	t.Cleanup(tr.close)
	return tr, nil
}

func (r *testReplica) close() {
	if r.store == nil {
		return
	}
	if err := errors.Join(r.Close(), r.store.Close()); err != nil {
		r.t.Error(err)
	}
	r.store = nil
}

func (r *testReplica) reopen() *testReplica {
	r.t.Helper()
	r.close()
	return openReplica(r.t, r.dir, r.opts)
}

// crash opens a copy of the directory as it is now.
func (r *testReplica) crash() *testReplica {
	r.t.Helper()
	dir := r.t.TempDir()
	copyDir(r.t, r.dir, dir)
	return openReplica(r.t, dir, r.opts)
}

// during runs the replica while fn runs.
func (r *testReplica) during(fn func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	}()
	fn()
}

// give applies items while the replica runs.
func (r *testReplica) give(note string, items ...Item) (c *Commit) {
	r.t.Helper()
	r.during(func() {
		var err error
		if c, err = r.Apply(r.t.Context(), items, []byte(note)); err != nil {
			r.t.Fatal(err)
		}
	})
	return c
}

// reader gives the replica the reading helpers of a log.
func (r *testReplica) reader() *testLog {
	return &testLog{t: r.t, Log: &Log{core: r.core}}
}

// item makes an item whose entry wants an answer.
func item(offset, time uint64, topic, id, payload string) Item {
	e := message(topic, id, payload)
	e.Done = func(Result) {}
	return Item{Offset: offset, Time: time, Entry: e}
}

// TestReplicaItems gives one of each kind.
func TestReplicaItems(t *testing.T) {
	clock := newClock()
	now := uint64(clock.at.UnixMicro())
	r := openReplica(t, t.TempDir(), ReplicaOptions{Partition: 2, LogOptions: LogOptions{Now: clock.now}})
	refused := item(6, now-50, "a", "7", "x")
	refused.Err = protocol.Errorf(protocol.CodeInvalidTopic, "no")
	foreign := item(9, now+1000, "b", "", "4")
	foreign.Entry.Done = nil
	c := r.give("first",
		item(1, now-100, "a", "1", "1"), item(2, now-300, "b", "1", "2"), // its time goes back
		item(4, now-90, "a", "1", "1"),  // a repeat, behind a hole
		item(5, now-80, "a", "1", "??"), // a conflict
		refused, foreign, Item{Offset: 12, Time: now})
	if c.Chunk.Partition != 2 || c.Chunk.Term != replicaTerm || c.Chunk.After != 0 || c.Chunk.Through != 12 || c.Chunk.Count != 3 || fmt.Sprint(c.Topics) != "[a b b]" {
		t.Errorf("commit %+v of %v", c.Chunk, c.Topics)
	}
	var answers []string
	for _, a := range c.Answers {
		answers = append(answers, fmt.Sprintf("%d %v %s", a.Result.Position.Offset, a.Result.Duplicate, codeOf(a.Result)))
	}
	if got := strings.Join(answers, ", "); got != "1 false , 2 false , 1 true , 0 false id_conflict, 0 false invalid_topic" {
		t.Errorf("answers %s", got)
	}
	state := r.AppendState(nil)
	for range 3 {
		var got []string
		for _, m := range r.reader().readAll(">", 0, 0) {
			got = append(got, fmt.Sprintf("%s=%s %+d", m.Position, m.Payload, m.Time.UnixMicro()-int64(now)))
		}
		if want := fmt.Sprintf("[%v=1 -100 %v=2 -300 %v=4 +1000]", r.PositionOf(1), r.PositionOf(2), r.PositionOf(9)); fmt.Sprint(got) != want {
			t.Errorf("stored %v, want %v", got, want)
		}
		if string(r.Note()) != "first" || !slices.Equal(state, r.AppendState(nil)) || r.Synced() != 12 {
			t.Errorf("note %q, synced %d", r.Note(), r.Synced())
		}
		for before, want := range map[int]uint64{200: 0, 100: 0, 99: 8, 0: 8, -1: 12} {
			at, err := r.Resolve(protocol.Start{Kind: protocol.StartTime, Time: clock.at.Add(-time.Duration(before) * time.Microsecond)}, mustFilter(t, ">"), 12)
			if err != nil || at.After != want {
				t.Errorf("%d us ago: after %d, want %d, %v", before, at.After, want, err)
			}
		}
		r = r.reopen()
	}
	if again := r.give("second", item(13, now, "a", "1", "1"), item(14, now, "a", "7", "x")); !again.Answers[0].Result.Duplicate || again.Answers[1].Result.Duplicate {
		t.Errorf("after a restart: %+v", again.Answers)
	}
	if string(r.Note()) != "second" {
		t.Errorf("note %q", r.Note())
	}
}

// TestReplicaTimes: starts by time look for a record, although time goes on without.
func TestReplicaTimes(t *testing.T) {
	r := openReplica(t, t.TempDir(), ReplicaOptions{LogOptions: LogOptions{RetentionAge: -1}})
	began := time.Now().Add(-time.Hour)
	at := func(n int) uint64 { return uint64(began.UnixMicro() + int64(n)) }
	r.give("", item(1, at(100), "a", "1", "x"), item(2, at(500), "a", "1", "x"), Item{Offset: 3, Time: at(600)})
	r.give("", item(4, at(300), "a", "2", "x"), item(5, at(200), "a", "3", "x"))
	for n, want := range map[int]uint64{50: 0, 100: 0, 101: 3, 200: 3, 300: 3, 301: 5, 550: 5} {
		got, err := r.Resolve(protocol.Start{Kind: protocol.StartTime, Time: began.Add(time.Duration(n) * time.Microsecond)}, mustFilter(t, ">"), 5)
		if err != nil || got.After != want {
			t.Errorf("at %d: after %d, want %d, %v", n, got.After, want, err)
		}
	}
}

// TestReplicaOrder refuses what cannot come next, as a whole.
func TestReplicaOrder(t *testing.T) {
	r := openReplica(t, t.TempDir(), ReplicaOptions{LogOptions: LogOptions{RetentionAge: -1}})
	r.give("", item(5, 1, "a", "", "1"))
	for name, items := range map[string][]Item{
		"again":    {item(5, 1, "a", "", "x")},
		"back":     {item(7, 1, "a", "", "x"), item(6, 1, "a", "", "x")},
		"too far":  {item(6, 1, "a", "", "x"), item(7+MaxHole+1, 1, "a", "", "x")},
		"too high": {item(6, 1, "a", "", "x"), item(protocol.MaxOffset+1, 1, "a", "", "x")},
	} {
		c, err := r.Apply(t.Context(), items, nil)
		hole, isHole := errors.AsType[*HoleError](err)
		if c != nil || err == nil || isHole != (name == "too far") {
			t.Errorf("%s: %v, %v", name, c, err)
		}
		if isHole && (hole.Head != 6 || hole.Next != 8+MaxHole) {
			t.Errorf("%v", hole)
		}
	}
	if _, err := r.Apply(t.Context(), nil, make([]byte, maxNote+1)); err == nil {
		t.Error("a note that is too large was taken")
	}
	c := r.give("", item(6+MaxHole, 1, "a", "", "2"))
	if c.Chunk.After != 5 || c.Chunk.Through != 6+MaxHole || c.Chunk.Count != 1 {
		t.Errorf("over a hole: %+v", c.Chunk)
	}
	if got := r.reader().readAll(">", 0, 0); len(got) != 2 {
		t.Errorf("%d records", len(got))
	}
}

// TestReplicaReset begins anew at any offset, also after a crash.
func TestReplicaReset(t *testing.T) {
	r := openReplica(t, t.TempDir(), ReplicaOptions{LogOptions: LogOptions{SegmentBytes: 1, PerTopic: 5}})
	for i := range uint64(40) {
		r.give("old", item(i+1, uint64(time.Now().UnixMicro()), fmt.Sprintf("t.%d", i%3), fmt.Sprint(i), strings.Repeat("x", 20_000)))
		r.reader().settle()
	}
	if len(r.state.segs) < 3 {
		t.Fatalf("%d segments", len(r.state.segs))
	}
	const first = 1_000_000
	if err := r.Reset(first); err != nil {
		t.Fatal(err)
	}
	for _, again := range []func(){func() {}, func() { r = r.crash() }, func() { r = r.reopen() }} {
		again()
		if earliest, head := r.Bounds(); earliest != first || head != first-1 || r.Synced() != first-1 || r.Note() != nil {
			t.Fatalf("bounds %d to %d, synced %d, note %q", earliest, head, r.Synced(), r.Note())
		}
		if _, err := r.Read(Query{Filter: mustFilter(t, ">"), After: 3}); !errors.Is(err, ErrTrimmed) {
			t.Errorf("below: %v", err)
		}
	}
	c := r.give("new", item(first+2, 1, "t.1", "1", "x"))
	if c.Chunk.After != first-1 || c.Answers[0].Result.Duplicate || len(r.reader().readAll("t.1", first-1, 0)) != 1 {
		t.Errorf("after a reset: %+v", c)
	}
	if err := r.Reset(1); err != nil { // the offsets have begun anew
		t.Fatal(err)
	}
	r.give("", item(1, 1, "t.1", "1", "x"))
	r = r.reopen()
	r.reader().settle()
	if got := r.reader().readAll(">", 0, 0); len(got) != 1 {
		t.Errorf("%d records", len(got))
	}
	report, err := func() (Report, error) { r.close(); return Check(t.Context(), r.dir, nil) }()
	if err != nil || len(report.Problems) > 0 || report.Segments > 2 {
		t.Errorf("check: %+v, %v", report, err)
	}
}

// TestReplicaIdentity holds a copy to its stream.
func TestReplicaIdentity(t *testing.T) {
	dir := t.TempDir()
	r := openReplica(t, dir, ReplicaOptions{Partition: 1})
	r.give("", item(1, 1, "a", "1", "x"))
	position := r.PositionOf(1)
	r.close()
	_, err := tryReplica(t, dir, ReplicaOptions{Partition: 1, Term: 4712})
	if other, ok := errors.AsType[*OtherTermError](err); !ok || other.Have != replicaTerm || other.Want != 4712 {
		t.Errorf("another term: %v", err)
	}
	if _, err := tryReplica(t, dir, ReplicaOptions{}); err == nil || !strings.Contains(err.Error(), "partition 1") {
		t.Errorf("another partition: %v", err)
	}
	if _, err := tryOpen(t, dir, LogOptions{}); err == nil || !strings.Contains(err.Error(), "is a copy") {
		t.Errorf("as a log: %v", err)
	}
	r = openReplica(t, dir, ReplicaOptions{Partition: 1, Term: 4712, Renew: true})
	if _, head := r.Bounds(); head != 0 {
		t.Errorf("renewed, and its head is %d", head)
	}
	at, err := r.Resolve(protocol.Start{Kind: protocol.StartPosition, Position: position}, mustFilter(t, ">"), 0)
	if err != nil || at.Gap == nil || at.Gap.Reason != GapOtherLog {
		t.Errorf("a position of the old term: %+v, %v", at, err)
	}
	position.Term = 4712
	at, err = r.Resolve(protocol.Start{Kind: protocol.StartPosition, Position: position}, mustFilter(t, ">"), 0)
	if err != nil || at.Gap != nil || !at.Ahead || at.After != 1 {
		t.Errorf("a position above the head: %+v, %v", at, err)
	}
	position.Partition = 0
	if _, err = r.Resolve(protocol.Start{Kind: protocol.StartPosition, Position: position}, mustFilter(t, ">"), 0); err == nil {
		t.Error("a position of another partition was taken")
	}
	r.give("", item(1, 1, "a", "1", "y"))
	r = r.reopen()
	if got := r.reader().readAll(">", 0, 0); len(got) != 1 || string(got[0].Payload) != "y" {
		t.Errorf("%v", got)
	}

	log := openTest(t, t.TempDir(), LogOptions{})
	log.close()
	if _, err := tryReplica(t, log.dir, ReplicaOptions{Renew: true}); err == nil || !strings.Contains(err.Error(), "no copy") {
		t.Errorf("a log as a copy: %v", err)
	}
}

// TestReplicaNoteOutlives: the note is there when retention has taken everything.
func TestReplicaNoteOutlives(t *testing.T) {
	clock := newClock()
	r := openReplica(t, t.TempDir(), ReplicaOptions{LogOptions: LogOptions{SegmentBytes: 1, RetentionAge: time.Hour, Now: clock.now}})
	r.give("the note", item(1, uint64(clock.at.UnixMicro()), "a", "1", "x"))
	clock.at = clock.at.Add(2 * time.Hour)
	r.during(func() {
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		if _, err := r.Purge(ctx); err != nil {
			t.Error(err)
		}
	})
	for range 2 {
		if earliest, head := r.Bounds(); earliest != 2 || head != 1 || string(r.Note()) != "the note" {
			t.Errorf("bounds %d to %d, note %q", earliest, head, r.Note())
		}
		r = r.reopen()
	}
}

// TestReplicaTimeGoesOn: a stretch in which nothing is stored has its own times, so
// that retention does not take it for one of long ago.
func TestReplicaTimeGoesOn(t *testing.T) {
	clock := newClock()
	now := uint64(clock.at.UnixMicro())
	r := openReplica(t, t.TempDir(), ReplicaOptions{LogOptions: LogOptions{RetentionAge: time.Hour, Now: clock.now}})
	for n, at := range []uint64{now - 2, now - 1} {
		r.give("", Item{Offset: uint64(n) + 1, Time: at})
	}
	if earliest, head := r.Bounds(); earliest != 1 || head != 2 {
		t.Errorf("bounds %d to %d", earliest, head)
	}
	if at := r.state.segs[0].info.lastTime; at != now-1 {
		t.Errorf("the last time of the segment is %d, want %d", at, now-1)
	}
}

// TestReplicaForgotten says from when on repeats can be told.
func TestReplicaForgotten(t *testing.T) {
	clock := newClock()
	r := openReplica(t, t.TempDir(), ReplicaOptions{LogOptions: LogOptions{DedupeWindow: 10, Now: clock.now, RetentionAge: -1}})
	began := uint64(clock.at.UnixMicro()) - 1000
	is := func(what string, want time.Time) {
		t.Helper()
		for range 2 {
			if got := r.Forgotten(); !got.Equal(want) {
				t.Errorf("%s: forgotten up to %v, want %v", what, got, want)
			}
			r = r.reopen()
		}
	}
	at := func(n uint64) time.Time { return time.UnixMicro(int64(began + n)) }
	is("nothing", time.Time{})
	for n := range uint64(10) {
		r.give("", item(n+1, began+n, "a", fmt.Sprint(n), ""))
	}
	is("full", time.Time{})
	r.give("", item(11, began+10, "a", "10", ""))
	is("one has left", at(0))
	if err := r.Reset(100); err != nil {
		t.Fatal(err)
	}
	is("in the middle of a stream", clock.at)
	r.give("", item(100, began+20, "a", "20", ""))
	r.give("", item(101, began+21, "a", "21", ""))
	is("in the middle of a stream, with two", at(20))
	for n := range uint64(9) {
		r.give("", item(102+n, began+22+n, "a", fmt.Sprint(22+n), ""))
	}
	is("a window behind", at(20))
}

// TestReplicaBackup makes a backup while not everything is synced: all that was
// applied before the call is in it.
func TestReplicaBackup(t *testing.T) {
	r := openReplica(t, t.TempDir(), ReplicaOptions{Partition: 7, LogOptions: LogOptions{SegmentBytes: 1}})
	now := uint64(time.Now().UnixMicro())
	for n := range uint64(30) {
		if _, err := r.Apply(t.Context(), []Item{item(n+1, now, "a", fmt.Sprint(n), strings.Repeat("x", 10_000))}, fmt.Append(nil, n+1)); err != nil {
			t.Fatal(err)
		}
	}
	state := r.AppendState(nil)
	var archive bytes.Buffer
	r.during(func() {
		if _, err := r.store.Backup(t.Context(), &archive, "test"); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := RestoreArchive(t.Context(), &archive, dir, nil); err != nil {
		t.Fatal(err)
	}
	report, err := Check(t.Context(), dir, nil)
	if err != nil || len(report.Problems) > 0 || report.Records != 30 {
		t.Fatalf("check: %+v, %v", report, err)
	}
	other := openReplica(t, dir, ReplicaOptions{Partition: 7, LogOptions: LogOptions{SegmentBytes: 1}})
	if got := other.reader().readAll(">", 0, 0); len(got) != 30 || other.Synced() != 30 || string(other.Note()) != "30" || !bytes.Equal(other.AppendState(nil), state) {
		t.Errorf("%d messages, synced %d, note %q", len(got), other.Synced(), other.Note())
	}
	if other.PositionOf(30) != r.PositionOf(30) {
		t.Errorf("position %v became %v", r.PositionOf(30), other.PositionOf(30))
	}
	other.give("", item(31, now, "a", "later", "x"))
}
