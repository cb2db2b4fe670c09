package storage

import (
	"bytes"
	"context"

	"go.etcd.io/bbolt"
)

// Digest rows that damage has taken leave behind the time of the newest of them,
// as those do that have left the window: a repeat that says it was first tried
// before then, and whose id is not known, is answered repeat_too_old and never
// stored a second time.

// eachDigests calls fn with the blocks of a segment that have digest rows, from
// the offset on, until it returns false. next is where to go on. Rows that are
// damaged are left out, and lostRows tells of them.
func (l *core) eachDigests(s *segment, from uint64, fn func(b *block, rows []byte) bool) (next uint64, err error) {
	err = l.walk(s, s.info.last, func(c blockWalk) error {
		b, ok, err := c.seek(from)
		for ; ok; b, ok, err = c.next() {
			if b.first > from && !c.damaged() {
				return missing(from)
			}
			rows, err := b.digests()
			if err != nil && !c.damaged() {
				return err
			}
			from = b.last() + 1
			if err != nil {
				l.damages.lose(s, b.time)
			} else if len(rows) > 0 && !fn(&b, rows) {
				return nil
			}
		}
		if err == nil && from <= s.info.last && !c.damaged() {
			err = missing(from)
		}
		if err == nil {
			from = s.info.last + 1
		}
		return err
	})
	return from, err
}

// lostRows returns the time of the newest digest row that damage may have taken
// from a segment, 0 if it took none.
func (l *core) lostRows(s *segment) uint64 {
	d := &l.damages
	d.mu.RLock()
	defer d.mu.RUnlock()
	if v := d.segments[s]; v != nil {
		return v.lost
	}
	return 0
}

// lose notes that digest rows up to a time are lost too.
func (d *damages) lose(s *segment, time uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v := d.segments[s]; v != nil {
		v.lost = max(v.lost, time)
	}
}

// carriedTime returns the time of carried digest rows, or one at or after it if
// they are damaged.
func (l *core) carriedTime(v []byte) uint64 {
	if time, _, ok := decodeCarried(v); ok {
		return time
	}
	return l.carriedBefore()
}

// carriedBefore returns a time at or after that of all carried digest rows.
func (l *core) carriedBefore() uint64 {
	l.state.mu.RLock()
	defer l.state.mu.RUnlock()
	if s := l.state.segs; len(s) > 0 && s[0].info.last != 0 {
		return s[0].info.firstTime
	}
	return uint64(max(l.opts.Now().UnixMicro(), 0))
}

// sweepLast forgets all topics that have nothing after the offset, whatever
// segment they were in.
func (k *keeper) sweepLast(ctx context.Context, through uint64) error {
	for from, more := []byte(nil), true; more; {
		old, next, err := k.log.meta.topicsUpTo(from, through)
		if err == nil && len(old) > 0 {
			k.log.state.kept.forget(old, through)
			err = k.log.meta.dropLast(old, through)
		}
		if err == nil {
			err = k.pace(ctx)
		}
		if err != nil {
			return err
		}
		from, more = next, next != nil
	}
	return nil
}

// topicsUpTo returns some topics, from the given one on, that have nothing after
// the offset. next is where to go on, nil at the end.
func (m *meta) topicsUpTo(from []byte, through uint64) (old [][]byte, next []byte, err error) {
	const slice, look = 256, 8192
	err = view(m.db, m.path, func(tx *bbolt.Tx) error {
		c, looked := tx.Bucket(bucketLast).Cursor(), 0
		for topic, v := c.Seek(from); topic != nil; topic, v = c.Next() {
			if looked++; looked > look || len(old) == slice {
				next = bytes.Clone(topic)
				return nil
			}
			if len(v) >= 8 && number(v[:8]) <= through {
				old = append(old, bytes.Clone(topic))
			}
		}
		return nil
	})
	return old, next, err
}
