package storage

import (
	"errors"

	"go.etcd.io/bbolt"
)

var errSegmentFull = errors.New("segment full")

// store writes the block to the active segment, or to the next one if it is
// full. The writer's goroutine runs it.
func (c *committer) store(b *batch) error {
	err := c.write(b)
	for errors.Is(err, errSegmentFull) {
		if err = c.rotate(); err == nil {
			err = c.write(b)
		}
	}
	return err
}

// writeBlock stores the block in one transaction.
func (c *committer) writeBlock(b *batch) error {
	tx, err := c.active.db.Begin(true)
	if err != nil {
		return err
	}
	b.used = tx.Size() + int64(len(b.raw)) + pageSlack
	err = c.room(b.used)
	if err == nil {
		err = putBlock(tx, b.block.first, b.raw)
	}
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
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

// room makes sure that the active segment may grow to size. While the disk is so
// full that the reserve is in use, it may not.
func (c *committer) room(size int64) error {
	if size > c.log.opts.SegmentBytes && c.active.info.last != 0 {
		return errSegmentFull
	}
	if err := c.log.reserve.hold(); err != nil {
		return err
	}
	return c.active.extend(size)
}

// endSegment makes the next segment active if the keeper has asked for it and
// the active one has anything.
func (c *committer) endSegment() error {
	if !c.sealDue {
		return nil
	}
	c.sealDue = false
	if c.active.info.last == 0 {
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
			c.active = next
			k.signal()
			return nil
		}
		if err := k.prepare(); err != nil {
			return err
		}
	}
}
