package storage

import (
	"context"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// tail is the end of a log, where blocks are added. Whoever uses it decides which
// offset and which time a record has, and when a block can be read: the
// [committer] of a Log gives offsets itself and publishes what is synced; the
// applier of a Replica is given them, and publishes first. Judging repeats,
// storing blocks and going on to the next segment are the same for both.
//
// One writer uses it at a time.
type tail struct {
	log    *core
	dedupe *dedupe
	active *segment
	head   uint64 // last offset that was given, durable or not
	time   uint64 // of the last batch
	used   int64  // bytes of the active segment's file, 0 if it has no block
	warned uint64 // when the short memory of ids was last logged

	tick chan struct{}               // has a token after a commit
	seal chan struct{}               // the keeper asks for the active segment to end
	mark func(context.Context) error // gives an offset to nothing, for a term that has none
}

const shortWindow = 3600e6 // microseconds

func newTail(l *core) *tail {
	return &tail{
		log:    l,
		dedupe: newDedupe(l.opts.DedupeWindow),
		tick:   make(chan struct{}, 1),
		seal:   make(chan struct{}, 1),
	}
}

// publish makes a batch visible to readers and returns it as a commit. durable
// says that it is stored; if not it is in the window until it is.
func (t *tail) publish(b *batch, durable bool) *Commit {
	blk, err := openBlock(b.raw)
	if err != nil {
		panic(err) // it was encoded a moment ago
	}
	commit := &Commit{
		Chunk:   protocol.Chunk{Partition: t.log.partition, Term: blk.term, After: blk.first - 1, Through: blk.last(), Count: blk.records, Records: blk.body()},
		Topics:  make([]string, len(b.stored)),
		Answers: b.answers,
	}
	s := &t.log.state
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range b.stored {
		commit.Topics[i] = t.active.index.add(r.topic, r.offset)
	}
	if t.active.info.last == 0 || len(s.spares) == 0 && b.used > t.log.opts.SegmentBytes/2 {
		t.log.keeper.signal() // its timer begins, or a spare is due
	}
	t.active.info.add(&blk)
	t.active.info.size = uint64(b.used)
	t.log.state.kept.stored(b.stored)
	s.head = blk.last()
	if durable {
		s.synced, s.note = s.head, b.block.note
	} else {
		s.aheadRows += uint64(b.block.rows)
	}
	s.window.push(blk, s.synced)
	t.log.metrics.window.Set(float64(s.window.bytes))
	t.log.metrics.head.Set(float64(s.head))
	return commit
}

// nothing is the chunk of a commit that stored nothing.
func (t *tail) nothing() protocol.Chunk {
	head := t.log.state.head // changed by this goroutine alone
	return protocol.Chunk{Partition: t.log.partition, Term: t.log.terms.at(head), After: head, Through: head}
}

// observe shows how long ids are remembered, and says so when it is not long.
func (t *tail) observe(now uint64) {
	oldest := t.dedupe.oldest()
	t.log.metrics.dedupe(t.dedupe.len(), oldest, now)
	if t.dedupe.next < t.dedupe.limit || now-oldest >= shortWindow || now-t.warned < shortWindow {
		return
	}
	t.warned = now
	t.log.log.Warn("message ids are remembered for less than an hour: a later repeat is answered repeat_too_old; a larger dedupe window would help",
		"stream", t.log.name, "ids", t.dedupe.limit, "age", time.Duration(now-oldest)*time.Microsecond)
}

// identify judges an entry that has an id and remembers it, as repeats and
// conflicts are remembered too: that way the window is counted in entries with an
// id, on every node and after every restart alike.
func (t *tail) identify(b *batch, e *Entry, offset uint64) Result {
	row := dedupeRow{key: e.Key, payload: e.Payload, first: offset, time: b.time}
	result := Result{Position: t.log.PositionOf(offset)}
	if first := t.dedupe.find(&e.Key); first != nil {
		b.repeats++
		row.first = first.first
		result.Position, result.Duplicate = t.log.PositionOf(first.first), true
		if first.payload != e.Payload {
			row.payload = first.payload
			result = Result{Err: protocol.Errorf(protocol.CodeIDConflict, "the topic has a message with this id and another payload, at position %s: give the new message an id of its own", t.log.PositionOf(first.first))}
		}
	}
	t.dedupe.add(row)
	b.block.identify(&row.key, row.payload, row.first)
	return result
}

// tooOld refuses a repeat whose id may have been forgotten.
func (t *tail) tooOld(e *Entry) *protocol.Error {
	if e.FirstAttempt.IsZero() || t.dedupe.evicted < uint64(max(e.FirstAttempt.UnixMicro(), 1)) || t.dedupe.find(&e.Key) != nil {
		return nil
	}
	return protocol.Errorf(protocol.CodeRepeatTooOld, "the message was first tried so long ago that the broker no longer knows whether it was stored: look for its id on the topic, and publish it under a new id if it is not there")
}
