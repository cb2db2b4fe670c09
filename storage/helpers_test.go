package storage

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage/boltfile"
)

// What tests need to know of bbolt's pages.
const (
	pageBytes     = boltfile.PageBytes
	pageHeadBytes = 16
	elementBytes  = 16
	pageBranch    = 0x01
)

// testLog is a log whose committer and keeper run only while it is told so.
// Without them its directory stands still and can be copied: that is what a
// crash at this moment would leave.
type testLog struct {
	t     *testing.T
	dir   string
	opts  LogOptions
	store *Store
	*Log
	head uint64 // as commits told
}

func openTest(t *testing.T, dir string, opts LogOptions) *testLog {
	t.Helper()
	l, err := tryOpen(t, dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func tryOpen(t *testing.T, dir string, opts LogOptions) (*testLog, error) {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := Open(dir, Options{ReserveBytes: -1, Logger: opts.Logger})
	if err != nil {
		return nil, err
	}
	l, err := s.OpenLog("main", opts)
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	tl := &testLog{t: t, dir: dir, opts: opts, store: s, Log: l}
	_, tl.head = l.Bounds()
	t.Cleanup(tl.close)
	return tl, nil
}

func (l *testLog) close() {
	if l.store == nil {
		return
	}
	if err := l.Close(); err != nil {
		l.t.Error(err)
	}
	if err := l.store.Close(); err != nil {
		l.t.Error(err)
	}
	l.store = nil
}

// reopen closes the log and opens it again.
func (l *testLog) reopen() *testLog {
	l.t.Helper()
	l.close()
	return openTest(l.t, l.dir, l.opts)
}

// crash opens a copy of the directory as it is now; the log itself goes on.
func (l *testLog) crash() *testLog {
	l.t.Helper()
	dir := l.t.TempDir()
	copyDir(l.t, l.dir, dir)
	return openTest(l.t, dir, l.opts)
}

// during runs the log while fn runs, checks what every commit promises, and
// returns what Run returned.
func (l *testLog) during(fn func()) error {
	l.t.Helper()
	l.queue = newQueue()
	ctx, cancel := context.WithCancel(l.t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx, l.apply) }()
	fn()
	cancel()
	return <-done
}

func (l *testLog) apply(c *Commit) {
	if c.Chunk.After != l.head || c.Chunk.Through < c.Chunk.After || c.Chunk.Count != len(c.Topics) {
		l.t.Errorf("commit (%d, %d] with %d records and %d topics after head %d", c.Chunk.After, c.Chunk.Through, c.Chunk.Count, len(c.Topics), l.head)
	}
	l.head = c.Chunk.Through
	i := 0
	for m, err := range c.Chunk.Messages() {
		if err != nil || m.Topic != c.Topics[i] || m.Position != l.PositionOf(m.Position.Offset) {
			l.t.Errorf("record %d of a commit: %v, topic %q, position %v", i, err, m.Topic, m.Position)
		}
		i++
	}
	for _, a := range c.Answers {
		a.Entry.Done(a.Result)
	}
}

// publish appends the entries as one and returns their results.
func (l *testLog) publish(entries ...*Entry) []Result {
	l.t.Helper()
	results := make([]Result, 0, len(entries))
	for i, e := range entries {
		e.Done = func(r Result) {
			if len(results) != i {
				l.t.Errorf("answer %d came as number %d", i, len(results))
			}
			results = append(results, r)
		}
	}
	err := l.during(func() {
		if err := l.Append(l.t.Context(), entries...); err != nil {
			l.t.Fatal(err)
		}
	})
	if err != nil {
		l.t.Fatal(err)
	}
	if len(results) != len(entries) {
		l.t.Fatalf("%d answers to %d entries", len(results), len(entries))
	}
	return results
}

// settle lets the keeper do all that is due.
func (l *testLog) settle() {
	l.t.Helper()
	if err := l.keeper.work(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

// readAll reads everything that matches after an offset, in chunks.
func (l *testLog) readAll(filter string, after uint64, maxBytes int) []protocol.Message {
	l.t.Helper()
	all, _ := l.readBoth(filter, after, maxBytes)
	return all
}

// readBoth is readAll that returns the offsets of what is hidden too.
func (l *testLog) readBoth(filter string, after uint64, maxBytes int) (all []protocol.Message, hidden []uint64) {
	l.t.Helper()
	_, head := l.Bounds()
	for after < head {
		c, err := l.Read(Query{Filter: mustFilter(l.t, filter), After: after, MaxBytes: maxBytes})
		if err != nil {
			l.t.Fatalf("read %s after %d: %v", filter, after, err)
		}
		if c.After != after || c.Through <= after {
			l.t.Fatalf("read %s after %d: chunk (%d, %d]", filter, after, c.After, c.Through)
		}
		n := 0
		for m, err := range c.Messages() {
			if err != nil {
				l.t.Fatal(err)
			}
			if m.Position.Offset <= after || m.Position.Offset > c.Through || m.Position != l.PositionOf(m.Position.Offset) {
				l.t.Fatalf("read %s after %d: record at %v in chunk (%d, %d]", filter, after, m.Position, c.After, c.Through)
			}
			all = append(all, m)
			n++
		}
		if n != c.Count {
			l.t.Fatalf("chunk counts %d records and has %d", c.Count, n)
		}
		l.checkHidden(&c)
		hidden = append(hidden, c.Hidden...)
		after = c.Through
	}
	return all, hidden
}

// readBothBack reads everything that matches in (After, Through], from the end,
// n at once, and returns it, and the offsets of what is hidden, in the order of the
// log.
func (l *testLog) readBothBack(q Query, n int) (all []protocol.Message, hidden []uint64) {
	l.t.Helper()
	earliest, _ := l.Bounds()
	for q.Through > max(q.After, earliest-1) {
		c, err := l.ReadBack(q, n)
		if err != nil {
			l.t.Fatalf("read back from %d: %v", q.Through, err)
		}
		if c.Through != q.Through || c.After >= c.Through || c.After < q.After || c.Count > n {
			l.t.Fatalf("read back from %d: chunk (%d, %d] with %d records", q.Through, c.After, c.Through, c.Count)
		}
		var page []protocol.Message
		for m, err := range c.Messages() {
			if err != nil || m.Position.Offset <= c.After || m.Position.Offset > c.Through || m.Position != l.PositionOf(m.Position.Offset) {
				l.t.Fatalf("record at %v in chunk (%d, %d]: %v", m.Position, c.After, c.Through, err)
			}
			page = append(page, m)
		}
		if len(page) != c.Count {
			l.t.Fatalf("chunk counts %d records and has %d", c.Count, len(page))
		}
		l.checkHidden(&c)
		hidden = append(slices.Clone(c.Hidden), hidden...)
		all = append(page, all...)
		q.Through = c.After
	}
	return all, hidden
}

// checkHidden checks that what a chunk says to be hidden lies in it, in order.
func (l *testLog) checkHidden(c *protocol.Chunk) {
	l.t.Helper()
	before := c.After
	for _, offset := range c.Hidden {
		if offset <= before || offset > c.Through {
			l.t.Fatalf("chunk (%d, %d] hides %v", c.After, c.Through, c.Hidden)
		}
		before = offset
	}
}

func mustFilter(t testing.TB, s string) protocol.Filter {
	t.Helper()
	f, err := protocol.ParseFilter(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// message makes an entry; id may be empty.
func message(topic, id, payload string) *Entry {
	m := protocol.Message{Topic: topic, ID: id, Payload: []byte(payload)}
	e := &Entry{Topic: topic, Record: protocol.AppendRecord(nil, &m), Payload: PayloadHash(m.Payload)}
	if id != "" {
		e.Key = KeyOf(topic, id)
	}
	return e
}

func copyDir(t testing.TB, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o750)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o640)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// clock is a time that only the test moves.
type clock struct{ at time.Time }

func newClock() *clock { return &clock{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) now() time.Time { return c.at }
