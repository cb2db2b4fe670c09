package storage

import (
	"context"
	"errors"

	"go.etcd.io/bbolt"
)

// writeBlocks stores the blocks of batches, which follow each other in one
// segment, in one transaction. The writer's goroutine runs it.
func (t *tail) writeBlocks(batches ...*batch) error {
	if t.log.opts.Vital {
		return t.log.reserve.withReserve(func() error { return storeBlocks(batches) })
	}
	if err := t.log.reserve.hold(); err != nil {
		return err // while it is in use for harder times, nothing may grow
	}
	return storeBlocks(batches)
}

func storeBlocks(batches []*batch) error {
	last, size := batches[len(batches)-1], int64(pageSlack)
	for _, b := range batches {
		size += int64(len(b.raw))
	}
	seg := last.segment
	tx, err := seg.db.Begin(true)
	if err != nil {
		return err
	}
	last.used = tx.Size() + size
	err = seg.extend(last.used)
	for _, b := range batches {
		if err == nil {
			err = putBlock(tx, b.block.first, b.raw)
		}
	}
	if err == nil {
		err = stamp(tx, last.last())
	}
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	last.synced, err = seg.commit(tx)
	return err
}

// fits reports whether the active segment has room for the batch. One that is
// empty has room for any.
func (t *tail) fits(b *batch) bool {
	return t.used == 0 || t.used+int64(len(b.raw))+pageSlack <= t.log.opts.SegmentBytes
}

// putBlock stores a block in a transaction.
func putBlock(tx *bbolt.Tx, first uint64, raw []byte) error {
	blocks := tx.Bucket(bucketBlocks)
	blocks.FillPercent = 1 // keys only ever come at the end
	if len(raw) <= smallBlock {
		return blocks.Put(key(first), raw)
	}
	b, err := blocks.CreateBucket(key(first))
	if err != nil {
		return err
	}
	return b.Put(blockKey, raw)
}

// endSegment makes the next segment active if the keeper has asked for it and
// the active one has anything.
func (c *committer) endSegment() error {
	if !c.sealDue {
		return nil
	}
	c.sealDue = false
	if c.used == 0 {
		return nil
	}
	if err := c.rotate(context.Background()); !isFull(err) {
		return err
	}
	return nil // the keeper will ask again
}

// rotate makes the next segment active. While too many wait to be sealed it
// waits for the keeper, until ctx ends: their indexes are in memory.
func (t *tail) rotate(ctx context.Context) error {
	k := t.log.keeper
	for t.log.state.waiting() >= maxUnsealed {
		select {
		case <-k.progress:
			if k.full.Load() {
				return errDiskFull
			}
		case <-k.failed:
			return errKeeper
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		if next := t.log.state.rotate(); next != nil {
			t.active, t.used = next, 0
			k.signal()
			return nil
		}
		if err := k.prepare(); err != nil {
			return err
		}
	}
}
