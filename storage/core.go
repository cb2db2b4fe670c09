package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// core is what a [Log] and a [Replica] share: the files of one stream, what is
// known of them, how they are read and how they are looked after. What differs is
// who decides offsets and times, and when a batch can be read: that is the
// business of whoever uses the tail.
//
// Who does what: one writer (a committer or an applier) uses the tail; the
// keeper, a goroutine of Run, prepares, seals and trims segments and alone writes
// to meta.db; readers take what state shows them and then work without a lock.
type core struct {
	name      string
	dir       string
	opts      LogOptions
	partition uint32
	log       *slog.Logger
	terms     chain // fixed while the log is open
	meta      *meta
	reserve   *reserve
	handles   handles
	plans     planCache
	tail      *tail
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
// never changed in place; head is the last offset that can be read, and index
// and window have everything up to it; what is above synced is in the window, and
// may be missing in the files.
type state struct {
	mu        sync.RWMutex
	segs      []*segment
	spares    []*segment // prepared to be active next
	window    window
	head      uint64
	synced    uint64 // the last offset that is durable: head, or what a replica has of it
	aheadRows uint64 // digest rows above synced
	note      []byte // of a replica: the newest that is durable
	closed    bool   // the files are, or soon will be

	kept *kept // nil without retention by count; it has its own lock
}

// term returns the term of this boot.
func (l *core) term() protocol.Term { return l.terms[len(l.terms)-1].term }

// Bounds returns the earliest offset that is stored, or the next one to be given
// if nothing is, and the last one that was given, or 0.
func (l *core) Bounds() (earliest, head uint64) {
	l.state.mu.RLock()
	defer l.state.mu.RUnlock()
	return l.state.segs[0].first, l.state.head
}

// BeforeTrim has fn called, on a goroutine of Run, before the messages up to an
// offset are removed: it can still read them, and may take some seconds. It must
// be set before Run.
func (l *core) BeforeTrim(fn func(through uint64)) { l.keeper.beforeTrim = fn }

// Ready returns nil, or why the log cannot do all its work at the moment: it has
// no room, or a file is damaged.
func (l *core) Ready() error {
	if err := l.keeper.trouble.Load(); err != nil {
		return fmt.Errorf("the stream %s: %w", l.name, *err)
	}
	return nil
}

// PositionOf returns the position of an offset: it has the term in which the
// offset was written. Offset 0 belongs to the first term of the log.
func (l *core) PositionOf(offset uint64) protocol.Position {
	return protocol.Position{Term: l.terms.at(offset), Partition: l.partition, Offset: offset}
}

// Close closes the files. Run must have returned, and no Read may follow.
func (l *core) Close() error {
	l.state.mu.Lock()
	l.state.closed = true
	l.state.mu.Unlock()
	l.metrics.unregister()
	if l.damages.unobserve != nil {
		l.damages.unobserve()
	}
	var errs []error
	for _, s := range slices.Concat(l.state.segs, l.state.spares, l.keeper.leftover) { // Run may have ended in mid-trim
		errs = append(errs, s.close())
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
	if len(s.spares) == 0 {
		return nil
	}
	next := s.spares[0]
	next.first, next.index = s.head+1, newTopicIndex()
	s.segs = append(slices.Clip(s.segs), next)
	s.spares = s.spares[1:]
	return next
}

// lastOrdinal returns the last ordinal that was given to a segment.
func (s *state) lastOrdinal() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if n := len(s.spares); n > 0 {
		return s.spares[n-1].ordinal
	}
	return s.active().ordinal
}

// waiting returns how many full segments have their index in memory.
func (s *state) waiting() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i, seg := range s.segs {
		if seg.index != nil {
			return len(s.segs) - 1 - i
		}
	}
	return 0
}

// unsealed returns the full segments that can be sealed now, oldest first: those
// with everything on disk.
func (s *state) unsealed() []*segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	from, to := 0, 0
	for i, seg := range s.segs[:len(s.segs)-1] {
		if seg.index == nil {
			from = i + 1
		}
		if seg.info.last <= s.synced {
			to = i + 1
		}
	}
	return s.segs[from:max(from, to)]
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
