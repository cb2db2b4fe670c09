package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// Log is one stream on disk: one partition, offsets from 1 upwards.
//
// Who does what: Append fills the queue; the committer (the goroutine of Run)
// alone writes to the active segment and uses the dedupe; the keeper, a
// goroutine of Run too, prepares, seals and trims segments and alone writes to
// meta.db; readers take what state shows them and then work without a lock.
type Log struct {
	name      string
	dir       string
	opts      LogOptions
	log       *slog.Logger
	terms     chain // fixed while the log is open
	meta      *meta
	reserve   *reserve
	queue     *queue
	handles   handles
	plans     planCache
	committer *committer
	keeper    *keeper
	metrics   *metrics
	damages   damages
	state     state
}

// state is what readers see of a log. Each change is one step under mu, and no
// disk is touched while it is held.
//
// Invariants: segs has no holes, neither in ordinals nor in offsets; the last
// one is active, those before it are sealed or have an index in memory; segs is
// never changed in place; head is the last offset that is durable, and index
// and window have everything up to it.
type state struct {
	mu     sync.RWMutex
	segs   []*segment
	spare  *segment // prepared to be active next, or nil
	window window
	head   uint64
	closed bool // the files are, or soon will be

	kept *kept // nil without retention by count; it has its own lock
}

// term returns the term of this boot.
func (l *Log) term() protocol.Term { return l.terms[len(l.terms)-1].term }

// Append queues the entries as one: they follow each other in the log, which has
// them in the order of the calls. While the queue is full it waits for space,
// until ctx ends. An error means that none of them was taken.
func (l *Log) Append(ctx context.Context, entries ...*Entry) error {
	return l.queue.put(ctx, entries)
}

// Bounds returns the earliest offset that is stored, or the next one to be given
// if nothing is, and the last one that was given, or 0.
func (l *Log) Bounds() (earliest, head uint64) {
	l.state.mu.RLock()
	defer l.state.mu.RUnlock()
	return l.state.segs[0].first, l.state.head
}

// BeforeTrim has fn called, on a goroutine of Run, before the messages up to an
// offset are removed: it can still read them, and may take some seconds. It must
// be set before Run.
func (l *Log) BeforeTrim(fn func(through uint64)) { l.keeper.beforeTrim = fn }

// Ready returns nil, or why the log cannot do all its work at the moment: it has
// no room, or a file is damaged.
func (l *Log) Ready() error {
	if err := l.keeper.trouble.Load(); err != nil {
		return fmt.Errorf("the stream %s: %w", l.name, *err)
	}
	return nil
}

// PositionOf returns the position of an offset: it has the term in which the
// offset was written. Offset 0 belongs to the first term of the log.
func (l *Log) PositionOf(offset uint64) protocol.Position {
	return protocol.Position{Term: l.terms.at(offset), Offset: offset}
}

// Close closes the files. Run must have returned, and no Read may follow.
func (l *Log) Close() error {
	l.state.mu.Lock()
	l.state.closed = true
	l.state.mu.Unlock()
	l.queue.close(errClosed())
	l.metrics.unregister()
	if l.damages.unobserve != nil {
		l.damages.unobserve()
	}
	var errs []error
	for _, s := range slices.Concat(l.state.segs, l.keeper.leftover) { // Run may have ended in mid-trim
		errs = append(errs, s.close())
	}
	if l.state.spare != nil {
		errs = append(errs, l.state.spare.close())
	}
	return errors.Join(append(errs, l.meta.db.Close())...)
}

func errClosed() *protocol.Error {
	return protocol.Errorf(protocol.CodeGoingAway, "the broker is shutting down; publish again with the same id")
}

// active returns the segment that is written to. Caller holds mu; the committer
// keeps it by itself.
func (s *state) active() *segment { return s.segs[len(s.segs)-1] }

// find returns the segment that holds the offset and the last offset that it
// may hold; nil if the log begins later. Caller holds mu.
func (s *state) find(offset uint64) (seg *segment, last uint64) {
	i := sort.Search(len(s.segs), func(i int) bool { return s.segs[i].first > offset }) - 1
	if i < 0 {
		return nil, 0
	}
	if i+1 < len(s.segs) {
		return s.segs[i], s.segs[i+1].first - 1
	}
	return s.segs[i], s.head
}

// rotate makes the spare the active segment and returns it, or nil if there is
// none.
func (s *state) rotate() *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.spare
	if next == nil {
		return nil
	}
	next.first, next.index = s.head+1, newTopicIndex()
	s.segs = append(slices.Clip(s.segs), next)
	s.spare = nil
	return next
}

// lastOrdinal returns the last ordinal that was given to a segment.
func (s *state) lastOrdinal() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.spare != nil {
		return s.spare.ordinal
	}
	return s.active().ordinal
}

// unsealed returns the full segments that wait to be sealed, oldest first.
func (s *state) unsealed() []*segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i, seg := range s.segs {
		if seg.index != nil {
			return s.segs[i : len(s.segs)-1]
		}
	}
	return nil
}

func (o LogOptions) withDefaults() LogOptions {
	setDefault(&o.DedupeWindow, 1_000_000)
	setDefault(&o.SegmentBytes, 128<<20)
	setDefault(&o.RetentionAge, 7*24*time.Hour)
	setDefault(&o.RetentionBytes, 10<<30)
	setDefault(&o.WindowBytes, 64<<20)
	if o.RetentionBytes > 0 {
		o.SegmentBytes = min(o.SegmentBytes, o.RetentionBytes/4)
	}
	o.SegmentBytes = max(o.SegmentBytes, minSegment)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

func setDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}
