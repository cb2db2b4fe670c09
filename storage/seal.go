package storage

import (
	"context"
	"errors"
	"maps"
	"slices"

	"go.etcd.io/bbolt"
)

// A full segment is sealed in steps, each durable, each small:
//
//  1. its topic index is written into it, topic by topic in order;
//  2. with the last slice it is marked as indexed;
//  3. the last offset of each of its topics goes to meta.db;
//  4. meta.db lists it as sealed;
//  5. the handle that writes is closed, and the file cut to what it uses.
//
// A crash in between leaves a segment that meta.db does not list: at the next
// boot its index is rebuilt in memory and sealing goes on where it was. Each
// step may be done twice.

// sealAll seals the segments that are full, and asks the writer to end the
// active one if it has become too old.
func (k *keeper) sealAll(ctx context.Context) error {
	for _, s := range k.log.state.unsealed() {
		if err := k.seal(ctx, s); err != nil {
			return err
		}
		k.log.metrics.sealed.Inc()
		poke(k.progress)
	}
	if k.activeTooOld() {
		poke(k.log.tail.seal)
	}
	return nil
}

func (k *keeper) seal(ctx context.Context, s *segment) error {
	info := s.info // it is full: nobody changes it any more
	err := k.writeIndex(ctx, s)
	if err == nil {
		err = k.log.handles.view(s, func(tx *bbolt.Tx) error {
			info.size = uint64(tx.Size())
			return nil
		})
	}
	if errors.Is(err, errDamaged) { // then it stays without, and is read as damaged segments are
		k.log.damaged(s.path, err)
		err = nil
	}
	if err == nil {
		err = k.mergeLast(ctx, s)
	}
	if err != nil {
		return err
	}
	err = k.log.meta.update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketSegments).Put(key(s.ordinal), info.encode())
	})
	if err != nil {
		return err
	}
	k.log.state.mu.Lock()
	s.info, s.index = info, nil
	k.log.state.mu.Unlock()
	return s.retire(int64(info.size))
}

// writeIndex does steps 1 and 2.
func (k *keeper) writeIndex(ctx context.Context, s *segment) error {
	topics, done, err := k.unwritten(s)
	for err == nil && !done {
		if err = k.pace(ctx); err == nil {
			topics, err = writeIndexSlice(s, topics)
			done = len(topics) == 0
		}
	}
	return err
}

// unwritten returns the topics that the index in the file lacks, in order.
func (k *keeper) unwritten(s *segment) (topics []string, done bool, err error) {
	topics = slices.Sorted(maps.Keys(s.index.topics))
	err = k.log.handles.view(s, func(tx *bbolt.Tx) error {
		done = tx.Bucket(bucketInfo).Get(keySealed) != nil
		key, value := tx.Bucket(bucketIndex).Cursor().Last()
		if done || key == nil {
			return nil
		}
		leaf, err := openLeaf(key, value)
		if err != nil {
			return err
		}
		from, _ := slices.BinarySearch(topics, string(leaf.next))
		topics = topics[from:]
		return nil
	})
	return topics, done, err
}

// writeIndexSlice writes the postings of the first few topics and returns the
// others; with the last of them it marks the segment as indexed.
func writeIndexSlice(s *segment, topics []string) (rest []string, err error) {
	s.db.NoSync = false // nothing verifies an index whose pages were lost
	err = guard(s.path, func() (err error) {
		tx, err := s.db.Begin(true)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // does nothing after Commit
		rest, err = putIndexSlice(s, tx, topics)
		return err
	})
	return rest, err
}

func putIndexSlice(s *segment, tx *bbolt.Tx, topics []string) (rest []string, err error) {
	index := tx.Bucket(bucketIndex)
	index.FillPercent = 1 // keys come in order
	size := 0
	for size == 0 || len(topics) > 0 && size < sealBytes {
		key := []byte{0}
		if last, _ := index.Cursor().Last(); last != nil {
			key = leafKey(topics[0])
		}
		value, n := s.index.appendLeaf(key, topics)
		if err := index.Put(key, value); err != nil {
			return nil, err
		}
		size += len(key) + len(value)
		topics = topics[n:]
	}
	if len(topics) == 0 {
		if err := tx.Bucket(bucketInfo).Put(keySealed, s.info.encode()); err != nil {
			return nil, err
		}
	}
	if err := stamp(tx, s.info.last); err != nil {
		return nil, err
	}
	if err := s.extend(tx.Size() + int64(2*size) + pageSlack); err != nil {
		return nil, err
	}
	return topics, tx.Commit()
}

// mergeLast does step 3.
func (k *keeper) mergeLast(ctx context.Context, s *segment) error {
	const slice = 256 // each topic may be on a page of its own
	topics := slices.Sorted(maps.Keys(s.index.topics))
	for part := range slices.Chunk(topics, slice) {
		if err := k.pace(ctx); err != nil {
			return err
		}
		err := k.log.meta.update(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketLast)
			for _, t := range part {
				if err := b.Put([]byte(t), encodeLast([]byte(t), s.index.topics[t].last)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
