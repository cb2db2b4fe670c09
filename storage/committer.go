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
// The goroutine of Run alone uses it, except that the writer has the flying batch
// and its segment while there is one.
type committer struct {
	*tail
	queue  *queue // while run goes on
	next   *batch // being gathered
	flying *batch // being written, or nil
	spare  *batch // to be used again, or nil

	work    chan *batch        // to the writer
	sealDue bool               // the keeper has asked for the active segment to end
	write   func(*batch) error // writeBlock, except in tests of failures
}

func newCommitter(t *tail) *committer {
	c := &committer{tail: t}
	c.write = func(b *batch) error { return t.writeBlocks(b) }
	return c
}

// run commits what is queued until ctx ends and the queue is empty, or a sync
// fails. Whatever was taken from the queue has an answer then.
func (c *committer) run(ctx context.Context, q *queue, hand func(*Commit)) error {
	c.queue = q
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
	q := c.queue
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
		entries := c.queue.take(c.limit() - len(c.next.block.body))
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
		if err := c.rotate(context.Background()); err != nil {
			return true, c.fail(b, err, hand)
		}
	}
	if c.next = c.spare; c.next == nil {
		c.next = &batch{}
	}
	b.started, b.segment = time.Now(), c.active
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
	c.log.metrics.committed(time.Since(b.started), b)
	if !c.sealDue {
		c.gather()
		if _, err := c.launch(false, hand); err != nil {
			return err
		}
	}
	hand(c.publish(b, true))
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
			a.Entry.Order.Refused(err)
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
	for entries := c.queue.take(maxQueueBytes); len(entries) > 0; entries = c.queue.take(maxQueueBytes) {
		commit := &Commit{Chunk: c.nothing()}
		for _, e := range entries {
			commit.Answers = append(commit.Answers, Answer{e, Result{Err: err}})
		}
		hand(commit)
	}
}

// poke leaves a token in a channel that holds one.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
