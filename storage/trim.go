package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"go.etcd.io/bbolt"
)

// activeShare bounds what age means for the active segment: it ends when its
// first message has an eighth of the retention age, so that messages are kept
// for at most 9/8 of it however few there are.
const activeShare = 8

// activeTooOld reports whether the active segment should end so that it can go,
// for its age or for a purge.
func (k *keeper) activeTooOld() bool {
	age := k.log.opts.RetentionAge
	s := &k.log.state
	s.mu.RLock()
	defer s.mu.RUnlock()
	info := &s.active().info
	if info.last != 0 && k.purges(s.active()) {
		return true
	}
	return age >= 0 && info.last != 0 && k.age(info.firstTime) >= age/activeShare
}

func (k *keeper) age(micros uint64) time.Duration {
	return k.log.opts.Now().Sub(time.UnixMicro(int64(micros)))
}

// trim removes sealed segments, oldest first, that are too old or for which
// there is no place. The order makes a crash harmless at any moment: digest rows
// that dedupe still needs are carried to meta.db, meta.db says that the segment
// is gone, readers no longer see it, what meta.db knew of its topics goes, and
// only then the file.
func (k *keeper) trim(ctx context.Context) error {
	for {
		s, next := k.expired()
		if s == nil {
			return nil
		}
		if k.beforeTrim != nil {
			k.beforeTrim(next - 1)
		}
		evicted, err := k.carry(ctx, s)
		if err != nil {
			return err
		}
		k.log.state.mu.RLock()
		note := k.log.state.note
		k.log.state.mu.RUnlock()
		err = k.log.meta.update(func(tx *bbolt.Tx) error {
			info := tx.Bucket(bucketInfo)
			return errors.Join(
				raise(info, keyEvicted, evicted),
				info.Put(keyTrimmed, key(s.ordinal)),
				info.Put(keyEarliest, key(next)),
				putNote(info, note),
				tx.Bucket(bucketSegments).Delete(key(s.ordinal)))
		})
		if err != nil {
			return err
		}
		st := &k.log.state
		st.mu.Lock()
		st.segs = st.segs[1:]
		st.mu.Unlock()
		k.leftover = append(k.leftover, s)
		k.log.metrics.trimmed.Add(float64(s.info.records))
		if err := k.cleanUp(ctx); err != nil {
			return err
		}
	}
}

// expired returns the oldest segment if it should go and is sealed, and the first
// offset after it.
func (k *keeper) expired() (s *segment, next uint64) {
	st := &k.log.state
	st.mu.RLock()
	defer st.mu.RUnlock()
	oldest := st.segs[0]
	if oldest.index != nil {
		return nil, 0
	}
	next = st.segs[1].first
	if k.purges(oldest) {
		k.pin.Load().holds(oldest, true) // a backup under way is given up
		return oldest, next
	}
	var total int64
	for _, s := range st.segs {
		total += int64(s.info.size)
	}
	if !k.beyond(oldest, total, 0) {
		return nil, 0
	}
	if k.pin.Load().holds(oldest, k.full.Load() || k.beyond(oldest, total, 1)) {
		return nil, 0
	}
	return oldest, next
}

// beyond reports whether the oldest segment is too old, or all of them are too
// large. With grace 1 that is judged as while a backup is copied.
func (k *keeper) beyond(oldest *segment, total, grace int64) bool {
	o := &k.log.opts
	if age := o.RetentionAge + time.Duration(grace)*o.RetentionAge/pinShareAge; o.RetentionAge >= 0 && k.age(oldest.info.lastTime) >= age {
		return true
	}
	return o.RetentionBytes >= 0 && total > o.RetentionBytes+grace*o.RetentionBytes/pinShareBytes
}

// cleanUp forgets the topics whose newest record was in a trimmed segment and
// removes the file.
func (k *keeper) cleanUp(ctx context.Context) error {
	for len(k.leftover) > 0 {
		s := k.leftover[0]
		err := k.dropLast(ctx, s)
		if errors.Is(err, errDamaged) { // its own index does not tell its topics
			err = k.sweepLast(ctx, s.info.last)
		}
		if err != nil {
			return err
		}
		k.log.handles.forget(s)
		if err := s.remove(); err != nil {
			return err
		}
		k.log.damages.forget(s)
		k.leftover = k.leftover[1:]
	}
	return nil
}

func (k *keeper) dropLast(ctx context.Context, s *segment) error {
	const slice = 256
	for from := []byte(nil); ; {
		var topics [][]byte
		err := k.log.handles.view(s, func(tx *bbolt.Tx) error {
			return eachTopic(tx.Bucket(bucketIndex), from, func(topic, _ []byte) (bool, error) {
				topics = append(topics, bytes.Clone(topic))
				return len(topics) < slice, nil
			})
		})
		if err != nil || len(topics) == 0 {
			return err
		}
		k.log.state.kept.forget(topics, s.info.last)
		if err := k.log.meta.dropLast(topics, s.info.last); err != nil {
			return err
		}
		if err := k.pace(ctx); err != nil {
			return err
		}
		from = append(topics[len(topics)-1], 0)
	}
}

// carry copies the digest rows of a segment that are still within the window to
// meta.db. It returns the time of the newest row that was not, 0 if there is
// none.
func (k *keeper) carry(ctx context.Context, s *segment) (evicted uint64, err error) {
	if s.info.rows == 0 {
		return 0, nil
	}
	newer, limit := k.storedRows()-s.info.rows, uint64(k.log.opts.DedupeWindow)
	from, evicted, err := k.log.neededRows(s, limit-min(newer, limit))
	if err != nil {
		return 0, err
	}
	for from <= s.info.last {
		firsts, values, next, err := k.rowsFrom(s, from)
		if err != nil {
			return 0, err
		}
		from = next
		if len(firsts) == 0 {
			continue
		}
		err = k.log.meta.update(func(tx *bbolt.Tx) error {
			d := tx.Bucket(bucketDigests)
			d.FillPercent = 1
			for i, first := range firsts {
				if err := d.Put(key(first), values[i]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		if err := k.pace(ctx); err != nil {
			return 0, err
		}
	}
	return max(evicted, k.log.lostRows(s)), nil
}

// rowsFrom encodes the digest rows of some blocks of a segment, from the one that
// has an offset on. next is where to go on. Damaged rows are left out.
func (k *keeper) rowsFrom(s *segment, from uint64) (firsts []uint64, values [][]byte, next uint64, err error) {
	size := 0
	next, err = k.log.eachDigests(s, from, func(b *block, rows []byte) bool {
		v := encodeCarried(b.time, rows)
		firsts, values = append(firsts, b.first), append(values, v)
		size += len(v)
		return size < sealBytes
	})
	return firsts, values, next, err
}

// storedRows returns the number of digest rows in the segments. What is not synced
// does not count: a crash takes it away, and then older rows are needed.
func (k *keeper) storedRows() uint64 {
	st := &k.log.state
	st.mu.RLock()
	defer st.mu.RUnlock()
	var n uint64
	for _, s := range st.segs {
		n += s.info.rows
	}
	return n - st.aheadRows
}

// neededRows returns the first offset of the blocks that hold the newest n digest
// rows of the segment, and the time of the newest row before them, 0 if there is
// none.
func (l *core) neededRows(s *segment, n uint64) (first, evicted uint64, err error) {
	err = l.walk(s, s.info.last, func(c blockWalk) error {
		first, evicted = s.info.last+1, 0
		b, ok, err := c.end()
		for rows, after := uint64(0), s.info.last+1; ok; b, ok, err = c.prev() {
			if b.last()+1 != after && !c.damaged() {
				return missing(after - 1)
			}
			after = b.first
			if rows >= n && b.rows > 0 {
				evicted = b.time
				return nil
			}
			if rows < n {
				first = b.first
			}
			rows += uint64(b.rows)
		}
		return err
	})
	return first, evicted, err
}

var errNothing = errors.New("nothing to do")

// prune drops carried digest rows that have left the window.
func (k *keeper) prune(ctx context.Context) error {
	const slice = 64
	for more := true; more; {
		more = false
		err := k.log.meta.update(func(tx *bbolt.Tx) error {
			d := tx.Bucket(bucketDigests)
			old, newest := k.leaving(d, slice)
			if len(old) == 0 {
				return errNothing
			}
			more = len(old) == slice
			for _, first := range old {
				if err := d.Delete(first); err != nil {
					return err
				}
			}
			return raise(tx.Bucket(bucketInfo), keyEvicted, newest)
		})
		if errors.Is(err, errNothing) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := k.pace(ctx); err != nil {
			return err
		}
	}
	return nil
}

// leaving returns up to n keys of carried rows that have left the window, and the
// time of the newest of them.
func (k *keeper) leaving(d *bbolt.Bucket, n int) (old [][]byte, newest uint64) {
	rows, limit := k.storedRows(), uint64(k.log.opts.DedupeWindow)
	earliest, _ := k.log.Bounds()
	c := d.Cursor()
	for first, v := c.Last(); first != nil && len(old) < n; first, v = c.Prev() {
		if number(first) >= earliest {
			continue // a carry was cut short, its segment is still there
		}
		if rows >= limit {
			old = append(old, append([]byte(nil), first...))
			newest = max(newest, k.log.carriedTime(v))
		}
		rows += carriedRows(v)
	}
	return old, newest
}

// Carried digest rows are stored behind their time and before a checksum of both.

func encodeCarried(time uint64, rows []byte) []byte {
	v := append(key(time), rows...)
	return binary.BigEndian.AppendUint32(v, crc32.Checksum(v, castagnoli))
}

func decodeCarried(v []byte) (time uint64, rows []byte, ok bool) {
	end := len(v) - crcBytes
	if end < 8 || (end-8)%rowBytes != 0 || binary.BigEndian.Uint32(v[end:]) != crc32.Checksum(v[:end], castagnoli) {
		return 0, nil, false
	}
	return number(v[:8]), v[8:end], true
}

func carriedRows(v []byte) uint64 { return uint64(max(len(v)-8-crcBytes, 0) / rowBytes) }

// raise sets a number in a bucket unless it is larger already.
func raise(b *bbolt.Bucket, k []byte, n uint64) error {
	if number(b.Get(k)) >= n {
		return nil
	}
	return b.Put(k, key(n))
}
