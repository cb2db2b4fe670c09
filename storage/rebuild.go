package storage

import (
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/tidewire/tidewire/protocol"
)

// rebuild reads all blocks of a segment that is not sealed, verifies them, and
// makes its index.
func (s *segment) rebuild(terms chain) error {
	s.index = newTopicIndex()
	return view(s.db, s.path, func(tx *bbolt.Tx) error {
		s.info.size = uint64(tx.Size())
		k, _ := tx.Bucket(bucketIndex).Cursor().First()
		s.begun = k != nil || tx.Bucket(bucketInfo).Get(keySealed) != nil
		c := newBlockCursor(tx)
		b, ok, err := c.start()
		for ; ok; b, ok, err = c.next() {
			if s.info.last != 0 && b.first != s.info.last+1 {
				return fmt.Errorf("%w: the offsets after %d are missing", errDamaged, s.info.last)
			}
			if terms.at(b.first) != b.term || terms.at(b.last()) != b.term {
				return fmt.Errorf("%w: the block at offset %d is of a term that %s does not have there", errDamaged, b.first, metaFile)
			}
			if err := b.verifyAll(s.index.addRecord); err != nil {
				return err
			}
			s.info.add(&b)
		}
		if err == nil {
			err = checkStamp(tx, s.info.last)
		}
		return err
	})
}

// addRecord notes a record as add does.
func (x *topicIndex) addRecord(offset uint64, record []byte) error {
	topic := protocol.RecordTopic(record)
	if topic == nil {
		return fmt.Errorf("%w: the record at offset %d has no topic", errDamaged, offset)
	}
	if p := x.topics[string(topic)]; p != nil {
		x.records++
		p.add(offset)
		return nil
	}
	x.add(string(topic), offset)
	return nil
}

// loadDedupe reads the newest digest rows back, oldest first: from meta.db those
// whose segment is gone, then from the segments. Rows that are older than the
// window and are not read leave behind only the time of the newest of them.
func (o *opening) loadDedupe() error {
	l, d := o.log, o.log.tail.dedupe
	d.evicted, d.blind = o.meta.evicted, o.meta.began > 1
	segs, rows := l.state.segs, uint64(0)
	from := len(segs)
	for from > 0 && rows < d.limit {
		from--
		rows += segs[from].info.rows
	}
	for i := from - 1; i >= 0; i-- {
		if segs[i].info.rows > 0 {
			_, evicted, err := l.neededRows(segs[i], 0)
			if err != nil {
				return err
			}
			d.evicted = max(d.evicted, evicted, l.lostRows(segs[i]))
			break
		}
	}
	if err := o.loadCarried(rows < d.limit); err != nil {
		return err
	}
	for _, s := range segs[from:] {
		if s.info.rows == 0 {
			continue
		}
		if s.index == nil {
			prefetch(s.path, int64(s.info.size))
		}
		_, err := l.eachDigests(s, s.info.first, func(b *block, rows []byte) bool {
			d.load(b.time, rows)
			return true
		})
		if err != nil {
			return err
		}
		d.evicted = max(d.evicted, l.lostRows(s))
	}
	return nil
}

// loadCarried reads the digest rows that meta.db has of removed segments, or, if
// they are not needed, only how new they are.
func (o *opening) loadCarried(needed bool) error {
	d := o.log.tail.dedupe
	return view(o.log.meta.db, o.log.meta.path, func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketDigests).Cursor()
		if !needed {
			if k, v := c.Last(); k != nil && number(k) < o.meta.earliest {
				d.evicted = max(d.evicted, o.log.carriedTime(v))
			}
			return nil
		}
		lost := false // since the last sound one
		for k, v := c.First(); k != nil && number(k) < o.meta.earliest; k, v = c.Next() {
			time, rows, ok := decodeCarried(v)
			if !ok {
				o.log.damaged(o.log.meta.path, fmt.Errorf("%w: the checksum of the digest rows at offset %d does not match", errDamaged, number(k)))
				lost = true
				continue
			}
			if lost {
				d.evicted, lost = max(d.evicted, time), false
			}
			d.load(time, rows)
		}
		if lost {
			d.evicted = max(d.evicted, o.log.carriedBefore())
		}
		return nil
	})
}

// load adds stored digest rows, for good.
func (d *dedupe) load(time uint64, rows []byte) {
	for ; len(rows) >= rowBytes; rows = rows[rowBytes:] {
		r := parseRow(rows)
		d.add(dedupeRow{key: r.key, payload: r.payload, first: r.first, time: time})
	}
	d.keep(len(d.undo))
}
