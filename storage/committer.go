package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// committer turns queued entries into commits.
//
// The naive way syncs for each publish; here one sync serves all that came in
// during the last one. While a batch is being written by a goroutine that does
// nothing else, the committer already judges and encodes the entries of the next,
// so that little lies between two syncs. Offsets and dedupe rows are therefore
// given before the sync, and all of them are taken back if it fails.
//
// The goroutine of Run alone uses it, except that the writer has active and the
// flying batch while there is one.
type committer struct {
	log    *Log
	dedupe *dedupe
	active *segment
	next   *batch // being gathered
	flying *batch // being written, or nil
	spare  *batch // to be used again, or nil
	head   uint64 // last offset that was given, durable or not
	time   uint64 // of the last batch
	used   int64  // bytes of the active segment's file, 0 if it has no block
	warned uint64 // when the short memory of ids was last logged

	work    chan *batch        // to the writer
	tick    chan struct{}      // has a token after a commit
	seal    chan struct{}      // the keeper asks for the active segment to end
	sealDue bool               // it has asked
	write   func(*batch) error // writeBlock, except in tests of failures
}

const shortWindow = 3600e6 // microseconds

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

// run commits what is queued until ctx ends and the queue is empty, or a sync
// fails. Whatever was taken from the queue has an answer then.
func (c *committer) run(ctx context.Context, hand func(*Commit)) error {
	work, written := make(chan *batch), make(chan error)
	c.work = work
	defer close(work)
	go func() {
		for b := range work {
			written <- c.write(b)
		}
	}()
	c.next, c.head = &batch{}, c.log.state.head
	err := c.loop(ctx, written, hand)
	if err != nil && c.flying != nil {
		// It may be stored or not: that is what unknown means.
		err = errors.Join(err, <-written)
		c.refuse(c.flying, errUnknown(), hand)
	}
	if err != nil && len(c.next.answers) > 0 {
		c.refuse(c.next, errUnknown(), hand)
	}
	if err == nil {
		err = c.active.confirm()
	}
	return err
}

func (c *committer) loop(ctx context.Context, written <-chan error, hand func(*Commit)) error {
	q := c.log.queue
	ended := ctx.Done()
	for stopping := false; ; {
		if ctx.Err() != nil && !stopping {
			q.close(errClosed())
			stopping, ended = true, nil
		}
		more := c.gather()
		if c.flying == nil {
			if err := c.endSegment(); err != nil {
				return err
			}
			launched, err := c.launch(true, hand)
			switch {
			case err != nil:
				return err
			case launched:
				continue
			case stopping && !more:
				return nil
			}
		}
		ready := q.ready
		if c.next.full(c.limit()) {
			ready = nil // whoever takes the batch looks again
		}
		select {
		case <-ready:
		case err := <-written:
			if err := c.settle(err, hand); err != nil {
				return err
			}
		case <-c.seal:
			c.sealDue = true
		case <-c.log.keeper.failed:
			return errKeeper
		case <-ended:
		}
	}
}

// limit is how many bytes of records a batch may have.
func (c *committer) limit() int { return int(min(maxBatchBytes, c.log.opts.SegmentBytes/4)) }

// gather moves entries from the queue to the next batch. It returns whether the
// queue may have more.
func (c *committer) gather() bool {
	for !c.next.full(c.limit()) {
		entries := c.log.queue.take(c.limit() - len(c.next.block.body))
		if len(entries) == 0 {
			return false
		}
		if c.next.time == 0 {
			c.time = max(c.time, uint64(max(c.log.opts.Now().UnixMicro(), 1)))
			c.next.begin(c.log.term(), c.head, c.time)
		}
		for _, e := range entries {
			c.decide(c.next, e)
		}
	}
	return true
}

// launch hands the next batch to the writer. It returns false if there is none,
// or if it must wait for the one before to be published: that is so if it needs
// another segment, or has nothing to write and is done at once.
func (c *committer) launch(published bool, hand func(*Commit)) (launched bool, err error) {
	b := c.next
	if len(b.answers) == 0 && b.block.count == 0 {
		return false, nil
	}
	if b.block.count == 0 {
		if published {
			hand(&Commit{Chunk: c.nothing(), Answers: b.answers})
			b.reset()
		}
		return published, nil
	}
	b.raw = b.block.encode()
	if !c.fits(b) {
		if !published {
			return false, nil
		}
		if err := c.rotate(); err != nil {
			return true, c.fail(b, err, hand)
		}
	}
	if c.next = c.spare; c.next == nil {
		c.next = &batch{}
	}
	b.started = time.Now()
	c.spare, c.flying = nil, b
	c.work <- b
	return true, nil
}

// settle ends the flying batch: err says how the writer fared. The next one is
// launched before this one is published, so that the disk does not wait.
func (c *committer) settle(err error, hand func(*Commit)) error {
	b := c.flying
	c.flying = nil
	if err != nil {
		return c.fail(b, err, hand)
	}
	c.dedupe.keep(b.block.rows)
	c.used = b.used
	c.log.metrics.committed(b, time.Since(b.started))
	if !c.sealDue {
		c.gather()
		if _, err := c.launch(false, hand); err != nil {
			return err
		}
	}
	hand(c.publish(b))
	c.observe(b.time)
	b.reset()
	c.spare = b
	poke(c.tick)
	return nil
}

// fail ends a batch that could not be written. An error of fail is fatal: what
// the disk holds is no longer known.
func (c *committer) fail(b *batch, err error, hand func(*Commit)) error {
	if isFull(err) {
		c.log.keeper.refused.Store(true)
		c.log.keeper.signal() // it releases the reserve, and says that the log is not ready
		c.refuse(b, protocol.Errorf(protocol.CodeStorageFull, "the broker has no room: its disk is full, or it may open no more files; free some space, lower the retention or raise the limit of open files, then publish again"), hand)
		return nil
	}
	c.refuse(b, errUnknown(), hand)
	return fmt.Errorf("commit to log %s: %w", c.log.name, err)
}

func errUnknown() *protocol.Error {
	return protocol.Errorf(protocol.CodeUnknown, "the broker could not sync its disk and stops; whether the message was stored is unknown, publish again with the same id")
}

// refuse answers a batch that could not be written with err, and the next one
// too: its entries come behind, and may be repeats of what was not stored.
func (c *committer) refuse(b *batch, err *protocol.Error, hand func(*Commit)) {
	c.dedupe.revert()
	c.head = c.log.state.head
	commit := &Commit{Chunk: c.nothing()}
	failed := []*batch{b}
	if b != c.next {
		failed = append(failed, c.next)
	}
	for _, b := range failed {
		for _, a := range b.answers {
			a.Entry.Order.refused(err)
			commit.Answers = append(commit.Answers, Answer{a.Entry, Result{Err: err}})
		}
		b.reset()
	}
	if err.Code == protocol.CodeStorageFull {
		c.log.metrics.full.Add(float64(len(commit.Answers)))
	}
	hand(commit)
}

// refuseQueued answers everything that is queued with err.
func (c *committer) refuseQueued(err *protocol.Error, hand func(*Commit)) {
	for entries := c.log.queue.take(maxQueueBytes); len(entries) > 0; entries = c.log.queue.take(maxQueueBytes) {
		commit := &Commit{Chunk: c.nothing()}
		for _, e := range entries {
			commit.Answers = append(commit.Answers, Answer{e, Result{Err: err}})
		}
		hand(commit)
	}
}

// nothing is the chunk of a commit that stored nothing.
func (c *committer) nothing() protocol.Chunk {
	head := c.log.state.head // changed by this goroutine alone
	return protocol.Chunk{Term: c.log.terms.at(head), After: head, Through: head}
}

// publish makes a stored batch visible to readers and returns it as a commit.
func (c *committer) publish(b *batch) *Commit {
	blk, err := openBlock(b.raw)
	if err != nil {
		panic(err) // it was encoded a moment ago
	}
	commit := &Commit{
		Chunk:   protocol.Chunk{Term: blk.term, After: blk.first - 1, Through: blk.last(), Count: blk.records, Records: blk.body()},
		Topics:  make([]string, len(b.stored)),
		Answers: b.answers,
	}
	s := &c.log.state
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range b.stored {
		commit.Topics[i] = c.active.index.add(r.topic, r.offset)
	}
	if c.active.info.last == 0 || s.spare == nil && b.used > c.log.opts.SegmentBytes/2 {
		c.log.keeper.signal() // its timer begins, or a spare is due
	}
	c.active.info.add(&blk)
	c.active.info.size = uint64(b.used)
	c.log.state.kept.stored(b.stored)
	s.window.push(blk)
	s.head = blk.last()
	c.log.metrics.window.Set(float64(s.window.bytes))
	c.log.metrics.head.Set(float64(s.head))
	return commit
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
