package storage

import (
	"errors"

	"go.etcd.io/bbolt"
)

// writeBlock stores a block. The writer's goroutine runs it.
func (c *committer) writeBlock(b *batch) error {
	if c.log.opts.Vital {
		return c.log.reserve.withReserve(func() error { return c.storeBlock(b) })
	}
	if err := c.log.reserve.hold(); err != nil {
		return err // while it is in use for harder times, nothing may grow
	}
	return c.storeBlock(b)
}

// storeBlock stores a block in one transaction.
func (c *committer) storeBlock(b *batch) error {
	tx, err := c.active.db.Begin(true)
	if err != nil {
		return err
	}
	b.used = tx.Size() + int64(len(b.raw)) + pageSlack
	err = c.active.extend(b.used)
	if err == nil {
		err = putBlock(tx, b.block.first, b.raw)
	}
	if err == nil {
		err = stamp(tx, b.block.first+uint64(b.block.count)-1)
	}
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	b.synced, err = c.active.commit(tx)
	return err
}

// fits reports whether the active segment has room for the batch. One that is
// empty has room for any.
func (c *committer) fits(b *batch) bool {
	return c.used == 0 || c.used+int64(len(b.raw))+pageSlack <= c.log.opts.SegmentBytes
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
	if err := c.rotate(); !isFull(err) {
		return err
	}
	return nil // the keeper will ask again
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
			c.active, c.used = next, 0
			k.signal()
			return nil
		}
		if err := k.prepare(); err != nil {
			return err
		}
	}
}
