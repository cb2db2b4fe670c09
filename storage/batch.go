package storage

import (
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// batch is a commit in the making.
type batch struct {
	answers []Answer // of all its entries
	stored  []storedRecord
	block   blockBuilder
	time    uint64 // 0 while it is empty

	raw     []byte // the block, once it is launched
	used    int64  // bytes of the segment's file with it, at most
	started time.Time
	synced  time.Duration // that the sync took
}

// storedRecord is a record of a batch: the index wants to know.
type storedRecord struct {
	topic  string
	offset uint64
}

// begin makes an empty batch one that follows head.
func (b *batch) begin(term protocol.Term, head, time uint64) {
	b.time = time
	b.answers = make([]Answer, 0, max(cap(b.answers), 16)) // the last ones were given away
	b.block.begin(blockHeader{term: term, first: head + 1, time: time})
}

// reset empties the batch and keeps its memory.
func (b *batch) reset() {
	clear(b.stored)
	*b = batch{answers: b.answers[:0], stored: b.stored[:0], block: b.block}
	b.block.begin(blockHeader{})
}

func (b *batch) full(limit int) bool {
	return len(b.block.body) >= limit || len(b.answers) >= maxBatchEntries
}

// decide gives an entry its offset and its answer.
func (c *committer) decide(b *batch, e *Entry) {
	result, record := Result{}, e.Record
	if err := e.Order.admit(e.Resume); err != nil {
		b.answers = append(b.answers, Answer{e, Result{Err: err}})
		return
	}
	offset := c.head + 1
	if e.mark {
		b.block.add(nil)
		c.head = offset
		return
	}
	if e.Key == (DedupeKey{}) {
		result.Position = protocol.Position{Term: c.log.term(), Offset: offset}
	} else {
		var taken bool
		result, taken = c.identify(b, e, offset)
		if !taken {
			b.answers = append(b.answers, Answer{e, result})
			return
		}
		if result.Duplicate || result.Err != nil {
			record = nil
		}
	}
	b.answers = append(b.answers, Answer{e, result})
	b.block.add(record)
	if record != nil {
		b.stored = append(b.stored, storedRecord{e.Topic, offset})
	}
	c.head = offset
}

// identify judges an entry that has an id. taken says that it takes the offset,
// as repeats and conflicts do too: that way the window is counted in entries
// with an id, on every node and after every restart alike.
func (c *committer) identify(b *batch, e *Entry, offset uint64) (result Result, taken bool) {
	row := dedupeRow{key: e.Key, payload: e.Payload, first: offset, time: b.time}
	result.Position = protocol.Position{Term: c.log.term(), Offset: offset}
	switch first := c.dedupe.find(&e.Key); {
	case first != nil && first.payload == e.Payload:
		row.first = first.first
		result.Position, result.Duplicate = c.log.PositionOf(first.first), true
	case first != nil:
		row.first, row.payload = first.first, first.payload
		result = Result{Err: protocol.Errorf(protocol.CodeIDConflict, "the topic has a message with this id and another payload, at position %s: give the new message an id of its own", c.log.PositionOf(first.first))}
	case !e.FirstAttempt.IsZero() && c.dedupe.evicted >= uint64(max(e.FirstAttempt.UnixMicro(), 1)):
		return Result{Err: protocol.Errorf(protocol.CodeRepeatTooOld, "the message was first tried so long ago that the broker no longer knows whether it was stored: look for its id on the topic, and publish it under a new id if it is not there")}, false
	}
	c.dedupe.add(row)
	b.block.identify(&row.key, row.payload, row.first)
	return result, true
}
