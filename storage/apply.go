package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// applier is the writing end of a [Replica]. What is applied can be read at once:
// blocks go to the index and the window first, and then wait to be written. The
// naive way, to sync before anybody may read, would add the time of a sync to every
// message that came from elsewhere, where it is safe already.
//
// Who does what: the caller of Apply judges and publishes under mu; the writer, a
// goroutine of Run, stores what has gathered, many blocks with one sync; the keeper
// seals what is on disk. Nothing is ever taken back, so a disk that is full only
// makes the writer wait.
type applier struct {
	*tail
	write func(...*batch) error // writeBlocks, except in tests of failures
	ahead ahead

	mu      sync.Mutex // of whoever adds to the log; not held by the writer
	note    []byte     // the newest
	scratch blockBuilder

	forgotten atomic.Uint64 // see [Replica.Forgotten]; publishers ask while Apply waits

	writing sync.Mutex // held while blocks are written, and by a reset
}

func newApplier(t *tail, runAhead int64) *applier {
	t.mark = func(context.Context) error { return errBegunAnew } // it need never have one
	a := &applier{tail: t, write: t.writeBlocks, note: t.log.state.note, ahead: newAhead(runAhead, t.log.metrics.ahead)}
	a.remember()
	return a
}

var errBegunAnew = errors.New("the copy was begun anew meanwhile")

// maxBlockSlots bounds the offsets of a block: a hole costs memory too.
const maxBlockSlots = 8192

// apply publishes the items in blocks.
func (a *applier) apply(ctx context.Context, items []Item, note []byte) (*Commit, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := checkItems(items, a.head, note); err != nil {
		return nil, err
	}
	done := &Commit{Chunk: a.nothing()}
	now := uint64(max(a.log.opts.Now().UnixMicro(), 1))
	for first := true; len(items) > 0; first = false {
		b := &batch{block: a.scratch}
		b.begin(a.log.term(), a.head, a.time)
		items = a.fill(b, items, now)
		b.block.time, b.block.note = b.time, a.note
		b.block.flags |= flagTimes
		if len(items) == 0 && note != nil {
			b.block.note = bytes.Clone(note)
		}
		b.raw = b.block.encode()
		a.scratch = b.block.recycle()
		if err := a.place(ctx, b); err != nil {
			a.dedupe.revert()
			a.head = a.log.state.head
			if first {
				done = nil
			}
			return done, err
		}
		a.dedupe.keep(b.block.rows)
		a.time, a.note = b.time, b.block.note
		b.started = time.Now()
		c := a.publish(b, false)
		if first {
			done = c
		} else {
			done.add(c)
		}
		a.ahead.put(b)
		a.observe(b.time)
		a.remember()
	}
	return done, nil
}

// limit is how many bytes of records a block may have.
func (a *applier) limit() int { return int(min(maxBatchBytes, a.log.opts.SegmentBytes/4)) }

// fill moves items to a block until it is full, and returns the others. An offset
// that no item has becomes a slot too.
func (a *applier) fill(b *batch, items []Item, now uint64) (rest []Item) {
	for len(items) > 0 && b.block.count < maxBlockSlots && len(b.block.body) < a.limit() {
		if a.head++; a.head < items[0].Offset {
			b.block.add(nil, 0)
			continue
		}
		a.decide(b, &items[0], now)
		items = items[1:]
	}
	return items
}

// decide gives an item the next slot, and its answer.
func (a *applier) decide(b *batch, it *Item, now uint64) {
	b.entries++
	// It goes on with what is not stored, too: else retention would take offsets of
	// now for ones of long ago, and remove them.
	at := max(it.Time, 1)
	b.time = max(b.time, min(at, now))
	e, record := it.Entry, []byte(nil)
	result := Result{Err: it.Err}
	if e != nil && it.Err == nil {
		record, result.Position = e.Record, a.log.PositionOf(it.Offset)
		if e.Key != (DedupeKey{}) {
			result = a.identify(b, e, it.Offset)
			if result.Duplicate || result.Err != nil {
				record = nil
			}
		}
	}
	b.block.add(record, at)
	if record != nil {
		b.stored = append(b.stored, storedRecord{e.Topic, it.Offset})
	}
	if e != nil && e.Done != nil {
		b.answers = append(b.answers, Answer{e, result})
	}
}

// place waits until the block may be published, and sees to it that the active
// segment has room for it.
func (a *applier) place(ctx context.Context, b *batch) error {
	if err := a.ahead.wait(ctx); err != nil {
		return err
	}
	for !a.hasRoom(b) {
		err := a.rotate(ctx)
		if err == nil {
			break
		}
		if !isFull(err) {
			return err
		}
		if err := a.pause(ctx); err != nil {
			return err
		}
	}
	b.segment = a.active
	s := &a.log.state
	s.mu.RLock()
	b.used = int64(a.active.info.size) + blockCost(b)
	s.mu.RUnlock()
	return nil
}

// blockCost is about what a block adds to a file: whole pages.
func blockCost(b *batch) int64 { return int64(len(b.raw)) + 2*4096 }

// hasRoom reports whether the active segment has room for a block. How large its
// file will be is estimated, until it is written.
func (a *applier) hasRoom(b *batch) bool {
	s := &a.log.state
	s.mu.RLock()
	defer s.mu.RUnlock()
	info := &a.active.info
	return info.last == 0 || int64(info.size)+blockCost(b)+pageSlack <= a.log.opts.SegmentBytes
}

// pause waits a moment for a full disk to have room, and has the keeper say that
// it is full and make room.
func (a *applier) pause(ctx context.Context) error {
	a.log.keeper.refused.Store(true)
	a.log.keeper.signal()
	pause := time.NewTimer(fullPause)
	defer pause.Stop()
	select {
	case <-pause.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// run writes what is published, and looks after the segments, until ctx ends.
func (a *applier) run(ctx context.Context) error {
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	var workers sync.WaitGroup
	workers.Go(func() { a.log.keeper.run(keeping) })
	workers.Go(func() {
		for {
			select {
			case <-a.seal:
				a.endSegment(keeping)
			case <-keeping.Done():
				return
			}
		}
	})
	last, err := a.writeAll(ctx)
	stop()
	workers.Wait()
	if err == nil && a.log.keeper.err == nil && last != nil {
		err = a.confirm(last)
	}
	if err = errors.Join(err, a.log.keeper.err); err != nil {
		a.ahead.fail(err)
	}
	return err
}

// confirm ends the segment that was written last as a log's is at the end of Run.
func (a *applier) confirm(last *segment) error {
	s := &a.log.state
	s.mu.RLock()
	sealed := last.index == nil
	s.mu.RUnlock()
	last.mu.Lock()
	closed := last.db == nil || last.removed
	last.mu.Unlock()
	if sealed || closed {
		return nil
	}
	return last.confirm()
}

// writeAll writes until ctx ends and nothing waits. It returns the segment that it
// wrote to last.
func (a *applier) writeAll(ctx context.Context) (last *segment, err error) {
	ended := ctx.Done()
	for {
		seg, err := a.writeSome()
		switch {
		case seg != nil && err == nil:
			last = seg
			continue
		case isFull(err):
			if a.pause(ctx) != nil {
				return last, nil // it can be had again from where it came from
			}
			continue
		case err != nil:
			return last, fmt.Errorf("store what was copied to log %s: %w", a.log.name, err)
		case ctx.Err() != nil:
			return last, nil
		}
		select {
		case <-a.ahead.ready:
		case <-ended:
		case <-a.log.keeper.failed:
			return last, errKeeper
		}
	}
}

// writeSome stores what waits, as far as it belongs to one segment, with one sync.
// It returns that segment, nil if nothing waits.
func (a *applier) writeSome() (*segment, error) {
	a.writing.Lock()
	defer a.writing.Unlock()
	batches := a.ahead.oldest()
	if len(batches) == 0 {
		return nil, nil
	}
	began := time.Now()
	if err := a.write(batches...); err != nil {
		return batches[0].segment, err
	}
	a.log.metrics.committed(time.Since(began), batches...)
	a.ahead.drop(len(batches))
	a.synced(batches)
	poke(a.tick)
	return batches[0].segment, nil
}

// synced tells readers and the keeper what is on disk now.
func (a *applier) synced(batches []*batch) {
	last := batches[len(batches)-1]
	s := &a.log.state
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced, s.note = last.last(), last.block.note
	for _, b := range batches {
		s.aheadRows -= uint64(b.block.rows)
	}
	last.segment.info.size = uint64(last.used + a.ahead.cost(last.segment))
	s.window.trim(s.synced)
	if last.segment != s.active() {
		a.log.keeper.signal() // perhaps it can be sealed
	}
}

// endSegment makes the next segment active, if the active one has anything.
func (a *applier) endSegment(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.log.state.mu.RLock()
	empty := a.active.info.last == 0
	a.log.state.mu.RUnlock()
	if !empty {
		_ = a.rotate(ctx) // the keeper will ask again
	}
}

// reset drops everything, also what waits to be written.
func (a *applier) reset(first uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := a.log.keeper
	k.working.Lock()
	defer k.working.Unlock()
	a.writing.Lock()
	defer a.writing.Unlock()
	if err := a.begin(first); err != nil {
		return err
	}
	a.ahead.drop(len(a.ahead.all()))
	a.note = nil
	a.remember()
	return nil
}

// remember notes up to when ids may have been forgotten.
func (a *applier) remember() {
	end := a.time
	if end == 0 {
		end = uint64(max(a.log.opts.Now().UnixMicro(), 1)) // nothing is known yet
	}
	a.forgotten.Store(a.dedupe.forgotten(end))
}

func (a *applier) appendState(b []byte) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	b = binary.BigEndian.AppendUint64(b, a.head)
	for row := range a.dedupe.rows() {
		b = append(b, row.key[:]...)
	}
	return b
}
