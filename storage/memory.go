package storage

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/protocol"
)

// MemoryOptions says how much a [MemoryLog] holds. Zero values mean the
// defaults.
type MemoryOptions struct {
	Bytes        int64         // of records and what it takes to keep them; 64 MiB
	Messages     int           // 0 for no bound
	Age          time.Duration // 7 days; negative for no bound
	PerTopic     int           // only the newest so many of each topic are given; 0 for no bound
	DedupeWindow int           // ids that are remembered; 1,000,000
	Registerer   prometheus.Registerer
	Now          func() time.Time // time.Now
}

// A MemoryLog is one stream in memory. It behaves as a [Log] does, but for what
// a disk is for: it begins empty at every boot, as another log than before, so
// that whoever comes back with a position is told of a gap.
//
// It is bounded by bytes, count and age; the oldest messages go first, and a
// reader that they are taken from is told, as by retention.
//
// Run alone changes it; readers look under mu, a bounded part at a time.
type MemoryLog struct {
	opts    MemoryOptions
	terms   chain // one term, for ever
	queue   *queue
	dedupe  *dedupe
	metrics *metrics
	kept    *kept // nil without retention by count

	mu       sync.RWMutex
	records  []memoryRecord // in the order of offsets, which repeats leave holes in
	earliest uint64         // what is before is gone
	head     uint64
	bytes    int64 // of records
	time     uint64
}

type memoryRecord struct {
	offset uint64
	time   uint64
	record []byte
}

// memoryOverhead is about what a record takes beside its bytes.
const memoryOverhead = 64

func (r *memoryRecord) cost() int64 { return int64(len(r.record)) + memoryOverhead }

// NewMemoryLog returns an empty log.
func NewMemoryLog(stream string, o MemoryOptions) *MemoryLog {
	setDefault(&o.Bytes, 64<<20)
	setDefault(&o.Age, 7*24*time.Hour)
	setDefault(&o.DedupeWindow, 1_000_000)
	if o.Now == nil {
		o.Now = time.Now
	}
	l := &MemoryLog{
		opts: o, terms: chain(nil).next(protocol.NewTerm(), 0), queue: newQueue(), dedupe: newDedupe(o.DedupeWindow),
		metrics: newMetrics(o.Registerer, stream), kept: newKept(o.PerTopic), earliest: 1,
	}
	// Ids from before the boot are forgotten: their repeats are refused as too old,
	// since what became of the first cannot be told.
	l.dedupe.evicted = l.now()
	l.observe()
	return l
}

func (l *MemoryLog) now() uint64 { return uint64(max(l.opts.Now().UnixMicro(), 1)) }

// Append queues the entries as one; see [Log.Append].
func (l *MemoryLog) Append(ctx context.Context, entries ...*Entry) error {
	return l.queue.put(ctx, entries)
}

// Run takes what is appended until ctx ends, and drops what is too old; see
// [Log.Run]. It never fails.
func (l *MemoryLog) Run(ctx context.Context, apply func(*Commit)) error {
	aging := time.NewTimer(l.nextAging())
	defer aging.Stop()
	for ctx.Err() == nil {
		select {
		case <-l.queue.ready:
			l.commitQueued(apply)
		case <-aging.C:
			l.mu.Lock()
			l.drop()
			l.mu.Unlock()
		case <-ctx.Done():
		}
		aging.Reset(l.nextAging())
	}
	l.queue.close(errClosed())
	for l.commitQueued(apply) {
		continue
	}
	return nil
}

// nextAging returns how long no message becomes too old.
func (l *MemoryLog) nextAging() time.Duration {
	const never = 24 * time.Hour
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.opts.Age < 0 || len(l.records) == 0 {
		return never
	}
	due := time.UnixMicro(int64(l.records[0].time)).Add(l.opts.Age)
	return min(max(due.Sub(l.opts.Now()), 0)+time.Millisecond, never)
}

// commitQueued takes one batch, and reports whether there was any.
func (l *MemoryLog) commitQueued(apply func(*Commit)) bool {
	entries := l.queue.take(maxBatchBytes)
	if len(entries) == 0 {
		return false
	}
	apply(l.commit(entries))
	return true
}

// commit stores a batch and returns it as a commit.
func (l *MemoryLog) commit(entries []*Entry) *Commit {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.time = max(l.time, l.now())
	c := &Commit{Chunk: protocol.Chunk{Term: l.terms.at(l.head), After: l.head}, Answers: make([]Answer, 0, len(entries))}
	for _, e := range entries {
		c.Answers = append(c.Answers, Answer{e, l.store(c, e)})
	}
	c.Chunk.Through = l.head
	l.noteKept(c)
	l.dedupe.keep(len(l.dedupe.undo))
	l.metrics.messages.Add(float64(c.Chunk.Count))
	l.metrics.bytes.Add(float64(len(c.Chunk.Records)))
	l.metrics.dedupe(l.dedupe.len(), l.dedupe.oldest(), l.time)
	l.drop()
	return c
}

// store gives an entry its offset and its answer.
func (l *MemoryLog) store(c *Commit, e *Entry) Result {
	if err := e.Order.Admit(e.Resume); err != nil {
		return Result{Err: err}
	}
	offset := l.head + 1
	result, taken := Result{Position: l.PositionOf(offset)}, true
	if e.Key != (DedupeKey{}) {
		result, taken = l.identify(e, offset)
	}
	if taken {
		l.head = offset // of repeats too, as on disk
	}
	if !taken || result.Duplicate || result.Err != nil {
		l.metrics.repeats.Inc()
		return result
	}
	protocol.PlaceRecord(e.Record, offset, l.time)
	r := memoryRecord{offset, l.time, e.Record}
	l.records = append(l.records, r)
	l.bytes += r.cost()
	c.Topics = append(c.Topics, e.Topic)
	c.Chunk.Records = protocol.AppendFramed(c.Chunk.Records, e.Record)
	c.Chunk.Count++
	return result
}

// identify judges an entry that has an id; see committer.identify.
func (l *MemoryLog) identify(e *Entry, offset uint64) (result Result, taken bool) {
	row := dedupeRow{key: e.Key, payload: e.Payload, first: offset, time: l.time}
	result.Position = l.PositionOf(offset)
	switch first := l.dedupe.find(&e.Key); {
	case first != nil && first.payload == e.Payload:
		row.first = first.first
		result.Position, result.Duplicate = l.PositionOf(first.first), true
	case first != nil:
		row.first, row.payload = first.first, first.payload
		result = Result{Err: protocol.Errorf(protocol.CodeIDConflict, "the topic has a message with this id and another payload, at position %s: give the new message an id of its own", l.PositionOf(first.first))}
	case !e.FirstAttempt.IsZero() && l.dedupe.evicted >= uint64(max(e.FirstAttempt.UnixMicro(), 1)):
		return Result{Err: protocol.Errorf(protocol.CodeRepeatTooOld, "the message was first tried so long ago that the broker no longer knows whether it had it: its stream is kept in memory, which forgets when the broker starts anew; publish it under a new id if it is still wanted")}, false
	}
	l.dedupe.add(row)
	return result, true
}

// drop takes the oldest messages away while there are too many, or too old ones.
// Callers hold mu.
func (l *MemoryLog) drop() {
	gone := 0
	tooOld := uint64(0)
	if l.opts.Age >= 0 {
		tooOld = uint64(max(l.opts.Now().Add(-l.opts.Age).UnixMicro(), 0))
	}
	for gone < len(l.records) {
		r := &l.records[gone]
		tooMany := l.opts.Messages > 0 && len(l.records)-gone > l.opts.Messages
		if !tooMany && l.bytes <= l.opts.Bytes && r.time > tooOld {
			break
		}
		l.forget(r)
		gone++
	}
	l.records = l.records[gone:]
	l.metrics.trimmed.Add(float64(gone))
	l.observe()
}

// observe shows what is held. Callers hold mu.
func (l *MemoryLog) observe() {
	oldest := uint64(0)
	if len(l.records) > 0 {
		oldest = l.records[0].time
	}
	l.metrics.window.Set(float64(l.bytes))
	l.metrics.edge(l.earliest, l.head, oldest)
}

// forget frees a record, the oldest one.
func (l *MemoryLog) forget(r *memoryRecord) {
	l.kept.forget([][]byte{protocol.RecordTopic(r.record)}, r.offset)
	l.bytes -= r.cost()
	l.earliest = r.offset + 1
	*r = memoryRecord{}
}

// Bounds returns the earliest offset that is held, or the next one to be given
// if nothing is, and the last one that was given, or 0.
func (l *MemoryLog) Bounds() (earliest, head uint64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.earliest, l.head
}

// PositionOf returns the position of an offset.
func (l *MemoryLog) PositionOf(offset uint64) protocol.Position {
	return protocol.Position{Term: l.terms.at(offset), Offset: offset}
}

// Close takes the log's metrics away.
func (l *MemoryLog) Close() error {
	l.metrics.unregister()
	return nil
}

// Read returns the records in (After, Through] that match; see [Log.Read].
func (l *MemoryLog) Read(q Query) (protocol.Chunk, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	c := protocol.Chunk{Term: l.terms.at(q.After), After: q.After, Through: q.After}
	if q.After >= l.head {
		return c, nil
	}
	if q.After+1 < l.earliest {
		return protocol.Chunk{}, ErrTrimmed
	}
	if c.Through = l.head; q.Through > 0 {
		c.Through = max(min(l.head, q.Through), q.After)
	}
	most, budget := int64(q.MaxBytes), int64(scanBudget)
	if most <= 0 {
		most = defaultReadBytes
	}
	match, only := collector{filter: q.Filter, kept: l.kept}, q.Offsets
	for i := l.find(q.After + 1); i < len(l.records) && l.records[i].offset <= c.Through; i++ {
		r := &l.records[i]
		if q.Picked {
			at, found := slices.BinarySearch(only, r.offset)
			if only = only[at:]; !found {
				continue
			}
		}
		full := c.Count > 0 && int64(len(c.Records)+len(r.record)) > most || len(match.hidden) >= hiddenAtOnce
		if full || budget < 0 {
			c.Through = r.offset - 1
			break
		}
		budget -= r.cost()
		if match.given(protocol.RecordTopic(r.record), r.offset) {
			c.Records = protocol.AppendFramed(c.Records, r.record)
			c.Count++
		}
	}
	if !q.Picked { // else a newer one comes in the next round
		c.Hidden = match.hidden
	}
	return c, nil
}

// find returns the index of the first record at or above the offset. Callers
// hold mu.
func (l *MemoryLog) find(offset uint64) int {
	i, _ := slices.BinarySearchFunc(l.records, offset, func(r memoryRecord, o uint64) int {
		switch {
		case r.offset < o:
			return -1
		case r.offset > o:
			return 1
		}
		return 0
	})
	return i
}

// Resolve says where a start begins; see [Log.Resolve].
func (l *MemoryLog) Resolve(s protocol.Start, f protocol.Filter, head uint64) (Resolved, error) {
	at, err := l.resolve(s, f, head)
	if s.Kind != protocol.StartPosition {
		at.Quiet = l.kept.hiddenUpTo(f)
	}
	return at, err
}

func (l *MemoryLog) resolve(s protocol.Start, f protocol.Filter, head uint64) (Resolved, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	switch s.Kind {
	case protocol.StartEarliest:
		return Resolved{After: l.earliest - 1}, nil
	case protocol.StartLast:
		return Resolved{After: l.beforeLast(f, head, s.Last)}, nil
	case protocol.StartSince:
		return Resolved{After: l.beforeTime(l.opts.Now().Add(-s.Since), head)}, nil
	case protocol.StartTime:
		return Resolved{After: l.beforeTime(s.Time, head)}, nil
	case protocol.StartPosition:
		if err := checkPartition(s.Position, 0); err != nil {
			return Resolved{}, err
		}
		return resolvePosition(s.Position, l.terms, l.earliest, l.head)
	default:
		return Resolved{After: head}, nil
	}
}

// beforeLast returns the offset before the n-th newest match up to head, or
// before everything if there are fewer. Callers hold mu.
func (l *MemoryLog) beforeLast(f protocol.Filter, head uint64, n int) uint64 {
	match := collector{filter: f}
	for _, r := range slices.Backward(l.records[:l.find(head+1)]) {
		if topic := protocol.RecordTopic(r.record); !match.match(topic) || l.kept.hides(topic, r.offset) {
			continue
		}
		if n--; n == 0 {
			return r.offset - 1
		}
	}
	return l.earliest - 1
}

// beforeTime returns the offset before the first one whose time is not before t.
// Callers hold mu.
func (l *MemoryLog) beforeTime(t time.Time, head uint64) uint64 {
	micros := uint64(max(t.UnixMicro(), 0))
	i, _ := slices.BinarySearchFunc(l.records, micros, func(r memoryRecord, m uint64) int {
		if r.time < m {
			return -1
		}
		return 1
	})
	if i == len(l.records) {
		return head
	}
	return min(l.records[i].offset-1, head)
}
