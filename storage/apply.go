package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync"
	"time"
)

// applier is the writing end of a [Replica].
type applier struct {
	*tail
	runAhead int64

	mu   sync.Mutex // held by the one who adds to the log
	note []byte     // the newest
}

func newApplier(t *tail, runAhead int64) *applier {
	return &applier{tail: t, runAhead: runAhead, note: t.log.state.note}
}

const maxBlockSlots = 8192

func (a *applier) apply(ctx context.Context, items []Item, note []byte) (*Commit, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := checkItems(items, a.head, note); err != nil {
		return nil, err
	}
	var done *Commit
	now := uint64(max(a.log.opts.Now().UnixMicro(), 1))
	for len(items) > 0 {
		b := &batch{}
		b.begin(a.log.term(), a.head, a.time)
		items = a.fill(b, items, now)
		b.block.flags |= flagTimes
		b.block.time = b.time
		b.block.note = a.note
		if len(items) == 0 && note != nil {
			b.block.note = bytes.Clone(note)
		}
		b.raw = b.block.encode()
		if err := a.store(ctx, b); err != nil {
			a.dedupe.revert()
			a.head = a.log.state.head
			return done, err
		}
		a.dedupe.keep(b.block.rows)
		a.time, a.note = b.time, b.block.note
		done = done.add(a.publish(b, true))
		a.observe(b.time)
	}
	if done == nil {
		done = &Commit{Chunk: a.nothing()}
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
	at, before := max(it.Time, 1), b.time
	b.time = max(before, min(at, now))
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
	if record == nil {
		b.time = before // it is the maximum of what is stored: starts by time look for that
	} else {
		b.stored = append(b.stored, storedRecord{e.Topic, it.Offset})
	}
	if e != nil && e.Done != nil {
		b.answers = append(b.answers, Answer{e, result})
	}
}

// store makes a block durable. While the disk is full it waits.
func (a *applier) store(ctx context.Context, b *batch) error {
	b.started = time.Now()
	for {
		err := a.tryStore(ctx, b)
		if err == nil {
			a.used = b.used
			a.log.metrics.committed(b, time.Since(b.started))
			poke(a.tick)
			return nil
		}
		if !isFull(err) {
			return err
		}
		a.log.keeper.refused.Store(true)
		a.log.keeper.signal()
		pause := time.NewTimer(fullPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		}
	}
}

func (a *applier) tryStore(ctx context.Context, b *batch) error {
	if !a.fits(b) {
		if err := a.rotate(ctx); err != nil {
			return err
		}
	}
	b.segment = a.active
	return a.writeBlocks(b)
}

func (a *applier) run(ctx context.Context) error {
	keeping := make(chan struct{})
	go func() {
		defer close(keeping)
		a.log.keeper.run(ctx)
	}()
	for {
		select {
		case <-a.seal:
			a.endSegment(ctx)
			continue
		case <-keeping:
		}
		break
	}
	return a.log.keeper.err
}

// endSegment makes the next segment active, if the active one has anything.
func (a *applier) endSegment(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.used > 0 {
		_ = a.rotate(ctx) // the keeper will ask again
	}
}

func (a *applier) reset(first uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := a.log.keeper
	k.working.Lock()
	defer k.working.Unlock()
	return a.begin(first)
}

func (a *applier) unsynced() time.Time { return time.Time{} }

func (a *applier) forgotten() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dedupe.evicted == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(a.dedupe.evicted))
}

func (a *applier) appendState(b []byte) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	b = binary.BigEndian.AppendUint64(b, a.head)
	return a.dedupe.appendRows(b)
}
