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
	entries int // what was given: publishes, or items of a replica
	repeats int
	time    uint64 // 0 while it is empty

	raw     []byte // the block, once it is launched
	segment *segment
	used    int64 // bytes of the segment's file with it, at most
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

// last returns the last offset of the batch.
func (b *batch) last() uint64 { return b.block.first + uint64(b.block.count) - 1 }

// decide gives an entry its offset and its answer.
func (c *committer) decide(b *batch, e *Entry) {
	b.entries++
	if err := e.Order.Admit(e.Resume); err != nil {
		b.answers = append(b.answers, Answer{e, Result{Err: err}})
		return
	}
	offset := c.head + 1
	if e.mark {
		b.block.add(nil, b.time)
		c.head = offset
		return
	}
	result, record := Result{Position: c.log.PositionOf(offset)}, e.Record
	if e.Key != (DedupeKey{}) {
		if err := c.tooOld(e); err != nil {
			b.answers = append(b.answers, Answer{e, Result{Err: err}})
			return
		}
		if result = c.identify(b, e, offset); result.Duplicate || result.Err != nil {
			record = nil
		}
	}
	b.answers = append(b.answers, Answer{e, result})
	b.block.add(record, b.time)
	if record != nil {
		b.stored = append(b.stored, storedRecord{e.Topic, offset})
	}
	c.head = offset
}
