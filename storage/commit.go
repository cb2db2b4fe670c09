package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// committer turns batches of entries into commits. One goroutine uses it, the
// one of Run.
//
// The naive way answers each publish after a sync of its own; here one sync
// answers all that came in during the last one. Dedupe rows and offsets are
// given before the sync, so that the next entry of the batch sees them, and are
// taken back if the commit fails.
type committer struct {
	log    *Log
	dedupe *dedupe
	active *segment
	time   uint64 // of the last commit
	warned uint64 // when the short memory of ids was last logged
	tick   chan struct{}
	seal   chan struct{}                // the keeper asks for the active segment to end
	write  func(*segment, *batch) error // writeBlock, except in tests of failures
}

const shortWindow = 3600e6 // microseconds

// batch is a commit in the making.
type batch struct {
	answers []Answer
	entries []*Entry // of the records, in order
	records [][]byte // for each offset, nil for a repeat
	rows    []digestRow
	head    uint64 // before
	time    uint64
	block   []byte
	used    int64 // bytes of the segment's file then, at most
}

func newCommitter(l *Log) *committer {
	c := &committer{
		log:    l,
		dedupe: newDedupe(l.opts.DedupeWindow),
		tick:   make(chan struct{}, 1),
		seal:   make(chan struct{}, 1),
	}
	c.write = c.writeBlock
	return c
}

// run commits batches until ctx ends and the queue is empty, or a sync fails.
func (c *committer) run(ctx context.Context, hand func(*Commit)) error {
	q, k := c.log.queue, c.log.keeper
	limit := int(min(maxBatchBytes, c.log.opts.SegmentBytes/4))
	for stopping := false; ; {
		if ctx.Err() != nil && !stopping {
			stopping = true
			q.close(errClosed())
		}
		if entries := q.take(limit); len(entries) > 0 {
			if err := c.commit(entries, hand); err != nil {
				return err
			}
			continue
		}
		if stopping {
			return nil
		}
		select {
		case <-q.ready:
		case <-c.seal:
			if c.active.info.last == 0 {
				continue // it has ended already
			}
			if err := c.rotate(); err != nil && !isFull(err) {
				return err
			}
		case <-k.failed:
			return errKeeper
		case <-ctx.Done():
		}
	}
}

// commit stores one batch and hands over its answers. An error is fatal: what
// the disk holds is no longer known.
func (c *committer) commit(entries []*Entry, hand func(*Commit)) error {
	b := c.decide(entries)
	if len(b.records) > 0 {
		b.block = encodeBlock(blockHeader{c.log.term(), b.head + 1, b.time}, b.records, b.rows)
		start := time.Now()
		err := c.store(b)
		switch {
		case isFull(err):
			c.dedupe.revert()
			c.log.metrics.full.Add(float64(len(entries)))
			hand(c.refusal(entries, protocol.Errorf(protocol.CodeStorageFull, "the broker's disk is full: free some space or lower the retention, then publish again")))
			return nil
		case err != nil:
			hand(c.refusal(entries, errUnknown()))
			return fmt.Errorf("commit to log %s: %w", c.log.name, err)
		}
		c.log.metrics.committed(b, time.Since(start))
	}
	c.dedupe.keep()
	c.observe(b.time)
	hand(c.publish(b))
	poke(c.tick)
	return nil
}

// observe shows how long ids are remembered, and says so when it is not long.
func (c *committer) observe(now uint64) {
	oldest := c.dedupe.oldest()
	c.log.metrics.dedupe(c.dedupe.len(), oldest, now)
	if c.dedupe.next < c.dedupe.limit || now-oldest >= shortWindow || now-c.warned < shortWindow {
		return
	}
	c.warned = now
	c.log.log.Warn("message ids are remembered for less than an hour: a later repeat is answered repeat_too_old; a larger dedupe window would help",
		"stream", c.log.name, "ids", c.dedupe.limit, "age", time.Duration(now-oldest)*time.Microsecond)
}

// poke leaves a token in a channel that holds one.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func errUnknown() *protocol.Error {
	return protocol.Errorf(protocol.CodeUnknown, "the broker could not sync its disk and stops; whether the message was stored is unknown, publish again with the same id")
}

// refusal answers all entries with an error.
func (c *committer) refusal(entries []*Entry, err *protocol.Error) *Commit {
	head := c.log.state.head // written by this goroutine alone
	commit := &Commit{Chunk: protocol.Chunk{Term: c.log.terms.at(head), After: head, Through: head}}
	for _, e := range entries {
		e.Order.refused(err)
		commit.Answers = append(commit.Answers, Answer{e, Result{Err: err}})
	}
	return commit
}

// decide gives each entry its offset and its answer.
func (c *committer) decide(entries []*Entry) *batch {
	head := c.log.state.head
	c.time = max(c.time, uint64(max(c.log.opts.Now().UnixMicro(), 1)))
	b := &batch{
		answers: make([]Answer, 0, len(entries)),
		entries: make([]*Entry, 0, len(entries)),
		records: make([][]byte, 0, len(entries)),
		head:    head,
		time:    c.time,
	}
	for _, e := range entries {
		if err := e.Order.admit(e.Resume); err != nil {
			b.answers = append(b.answers, Answer{e, Result{Err: err}})
			continue
		}
		offset := head + uint64(len(b.records)) + 1
		result, record := Result{Position: protocol.Position{Term: c.log.term(), Offset: offset}}, e.Record
		if e.Key != (DedupeKey{}) {
			var taken bool
			if result, taken = c.identify(b, e, offset); !taken {
				b.answers = append(b.answers, Answer{e, result})
				continue
			}
			if result.Duplicate || result.Err != nil {
				record = nil
			}
		}
		b.records = append(b.records, record)
		if record != nil {
			b.entries = append(b.entries, e)
		}
		b.answers = append(b.answers, Answer{e, result})
	}
	return b
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
	b.rows = append(b.rows, digestRow{key: row.key, payload: row.payload, first: row.first, slot: uint32(len(b.records))})
	return result, true
}

// publish makes a stored batch visible to readers and returns it as a commit.
func (c *committer) publish(b *batch) *Commit {
	commit := &Commit{Answers: b.answers, Topics: make([]string, len(b.entries))}
	s := &c.log.state
	if len(b.records) == 0 {
		commit.Chunk = protocol.Chunk{Term: c.log.terms.at(s.head), After: s.head, Through: s.head}
		return commit
	}
	blk, err := openBlock(b.block)
	if err != nil {
		panic(err) // it was encoded a moment ago
	}
	commit.Chunk = protocol.Chunk{Term: blk.term, After: b.head, Through: blk.last(), Count: blk.records, Records: blk.body()}
	s.mu.Lock()
	defer s.mu.Unlock()
	seg, i := c.active, 0
	for slot, r := range b.records {
		if r != nil {
			commit.Topics[i] = seg.index.add(b.entries[i].Topic, blk.first+uint64(slot))
			i++
		}
	}
	if seg.info.last == 0 || s.spare == nil && b.used > c.log.opts.SegmentBytes/2 {
		c.log.keeper.signal() // its timer begins, or a spare is due
	}
	seg.info.add(&blk)
	seg.info.size = uint64(b.used)
	s.window.push(blk)
	s.head = blk.last()
	return commit
}

var errSegmentFull = errors.New("segment full")

// store writes the block to the active segment, or to the next one if it is
// full.
func (c *committer) store(b *batch) error {
	err := c.write(c.active, b)
	for errors.Is(err, errSegmentFull) {
		if err = c.rotate(); err == nil {
			err = c.write(c.active, b)
		}
	}
	return err
}

// writeBlock stores the block in one transaction.
func (c *committer) writeBlock(s *segment, b *batch) error {
	tx, err := s.db.Begin(true)
	if err != nil {
		return err
	}
	b.used = tx.Size() + int64(len(b.block)) + pageSlack
	err = c.room(s, b.used)
	if err == nil {
		err = putBlock(tx, b.head+1, b.block)
	}
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// room makes sure that the segment has disk space up to size, so that the
// transaction cannot run out of it half-way.
func (c *committer) room(s *segment, size int64) error {
	limit := c.log.opts.SegmentBytes
	if size > limit && s.info.last != 0 {
		return errSegmentFull
	}
	if size <= s.size {
		return nil
	}
	if err := c.log.reserve.hold(); err != nil {
		return err
	}
	return s.extend(max(size, min(s.size+allocationStep(limit), limit)))
}

// rotate makes the next segment active. While too many wait to be sealed it
// waits for the keeper: their indexes are in memory.
func (c *committer) rotate() error {
	k := c.log.keeper
	for len(c.log.state.unsealed()) >= maxUnsealed {
		select {
		case <-k.progress:
			if k.full.Load() {
				return errDiskFull
			}
		case <-k.failed:
			return errKeeper
		}
	}
	for {
		if next := c.log.state.rotate(); next != nil {
			c.active = next
			break
		}
		if err := k.prepare(); err != nil {
			return err
		}
	}
	k.signal()
	return nil
}
