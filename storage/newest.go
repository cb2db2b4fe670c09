package storage

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/tidewire/tidewire/protocol"
)

const (
	// scanRather is how many offsets at most are looked through one by one rather
	// than all topics of the log.
	scanRather = 1 << 10
	// walkAtOnce bounds the topics that are looked at under one lock or in one
	// transaction.
	walkAtOnce = 1 << 10
)

// Newest names the records in (after, through] that match the filter and are the
// newest of their topic: the n oldest of them, in order. covered is how far that
// goes: through, or the last offset named if there are more than n. Where the
// topic has a newer record behind through, which is for another call to name,
// the older one need not be named.
//
// One topic, and a short range, cost next to nothing. Otherwise every topic that
// the segments of the range have is looked at, a bounded number under each lock,
// and n offsets are held, whatever their number.
func (l *core) Newest(f protocol.Filter, after, through uint64, n int) (offsets []uint64, covered uint64, err error) {
	earliest, head := l.Bounds()
	through = min(through, head)
	after = max(after, earliest-1)
	switch {
	case after >= through:
		return nil, through, nil
	case f.Exact():
		newest, err := l.newestOf(f.String())
		if err == nil && after < newest && newest <= through {
			offsets = append(offsets, newest)
		}
		return offsets, through, err
	case through-after <= scanRather:
		return l.newestByScan(f, after, through, n)
	}
	w := newestWalk{log: l, filter: f, after: after, through: through, most: n}
	if sealed := w.memory(); sealed {
		if err := w.sealed(); errors.Is(err, errDamaged) {
			l.damaged(l.meta.path, err)
			return l.newestByScan(f, after, through, n) // the segments say it too
		} else if err != nil {
			return nil, 0, err
		}
	}
	offsets, covered = w.result()
	return offsets, covered, nil
}

// newestOf returns the offset of the newest record of a topic, 0 if there is
// none.
func (l *core) newestOf(topic string) (uint64, error) {
	if newest := l.newestInMemory(topic); newest > 0 {
		return newest, nil
	}
	newest, _, err := l.meta.lastOf(topic)
	if errors.Is(err, errDamaged) {
		l.damaged(l.meta.path, err) // the segments say it too
		return l.newestStored(topic)
	}
	return newest, err
}

// newestStored is newestOf from the segments themselves.
func (l *core) newestStored(topic string) (uint64, error) {
	f, err := protocol.ParseFilter(topic)
	if err != nil {
		return 0, err
	}
	_, through := l.Bounds()
	for through > 0 {
		c, err := l.ReadBack(Query{Filter: f, Through: through}, 1)
		lost, isLost := errors.AsType[*LostError](err)
		switch {
		case isLost:
			through = lost.After
		case errors.Is(err, ErrTrimmed):
			return 0, nil
		case err != nil:
			return 0, err
		case c.Count > 0:
			record, _, _ := protocol.NextFramed(c.Records)
			offset, _ := protocol.RecordPlace(record)
			return offset, nil
		default:
			through = c.After
		}
	}
	return 0, nil
}

// newestInMemory is newestOf among the segments whose index is in memory.
func (l *core) newestInMemory(topic string) uint64 {
	l.state.mu.RLock()
	defer l.state.mu.RUnlock()
	return l.state.newest(topic)
}

// newest looks into the indexes in memory, which are those of the newest
// segments. Callers hold mu.
func (s *state) newest(topic string) uint64 {
	for _, seg := range slices.Backward(s.segs) {
		if seg.index == nil {
			return 0
		}
		if p := seg.index.topics[topic]; p != nil {
			return p.last
		}
	}
	return 0
}

// newestByScan reads a short range.
func (l *core) newestByScan(f protocol.Filter, after, through uint64, n int) ([]uint64, uint64, error) {
	newest := make(map[string]uint64)
	for cur := after; cur < through; {
		c, err := l.Read(Query{Filter: f, After: cur, Through: through})
		if errors.Is(err, ErrTrimmed) {
			earliest, _ := l.Bounds()
			cur = max(cur+1, earliest-1)
			continue
		}
		if lost, ok := errors.AsType[*LostError](err); ok {
			cur = lost.Through // reading will tell it
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		for record := range c.Framed() {
			offset, _ := protocol.RecordPlace(record)
			newest[string(protocol.RecordTopic(record))] = offset
		}
		cur = c.Through
	}
	w := newestWalk{through: through, most: n}
	for _, offset := range newest {
		w.add(offset)
	}
	offsets, covered := w.result()
	return offsets, covered, nil
}

// newestWalk looks at all topics: first at those of the indexes in memory, then
// at those of the sealed segments. A segment that is sealed in between is in
// meta.db by then, so no topic is passed over.
type newestWalk struct {
	log            *core
	filter         protocol.Filter
	after, through uint64
	most           int
	offsets        []uint64 // up to twice as many as wanted
	cut            bool     // there were more
}

// add takes an offset. Now and then what is too much is dropped.
func (w *newestWalk) add(offset uint64) {
	w.offsets = append(w.offsets, offset)
	if len(w.offsets) >= 2*w.most+walkAtOnce {
		w.drop()
	}
}

func (w *newestWalk) drop() {
	slices.Sort(w.offsets)
	w.offsets = slices.Compact(w.offsets)
	if len(w.offsets) > w.most {
		w.cut = true
		w.offsets = w.offsets[:w.most]
	}
}

func (w *newestWalk) result() (offsets []uint64, covered uint64) {
	w.drop()
	if w.cut {
		return w.offsets, w.offsets[len(w.offsets)-1]
	}
	return slices.Clone(w.offsets), w.through
}

// memory looks at the topics of the indexes in memory, and reports whether the
// range has sealed segments too.
func (w *newestWalk) memory() (sealed bool) {
	s := &w.log.state
	s.mu.RLock()
	segs := s.segs
	s.mu.RUnlock()
	for _, seg := range slices.Backward(segs) {
		for from, more := 0, true; more; from += walkAtOnce {
			s.mu.RLock()
			more = w.slice(seg, from)
			sealed = sealed || seg.index == nil
			s.mu.RUnlock()
		}
		if sealed || seg.first <= w.after+1 { // what comes now is older
			break
		}
	}
	return sealed
}

// slice looks at some topics of an index, and reports whether there are more.
// The caller holds mu.
func (w *newestWalk) slice(seg *segment, from int) (more bool) {
	if seg.index == nil || from >= len(seg.index.order) {
		return false
	}
	rest := seg.index.order[from:]
	for _, p := range rest[:min(walkAtOnce, len(rest))] {
		if w.wants(p.last) && w.filter.Match(p.topic) && w.log.state.newest(p.topic) == p.last {
			w.add(p.last)
		}
	}
	return len(rest) > walkAtOnce
}

func (w *newestWalk) wants(offset uint64) bool { return w.after < offset && offset <= w.through }

// sealed looks at the topics of the sealed segments that memory has nothing of.
func (w *newestWalk) sealed() error {
	text := w.filter.String()
	prefix := []byte(text[:strings.IndexAny(text, "*>")])
	from := prefix
	for from != nil {
		var found []topicLast
		var err error
		if found, from, err = w.log.meta.lasts(prefix, from); err != nil {
			return err
		}
		w.log.state.mu.RLock()
		for _, t := range found {
			if w.wants(t.offset) && w.filter.Match(t.topic) && w.log.state.newest(t.topic) == 0 {
				w.add(t.offset)
			}
		}
		w.log.state.mu.RUnlock()
	}
	return nil
}

// topicLast is a topic and the offset of its newest record in the sealed
// segments.
type topicLast struct {
	topic  string
	offset uint64
}

// lasts returns some topics that begin with the prefix, from the key on, and the
// key with which to go on; nil at the end.
func (m *meta) lasts(prefix, from []byte) (found []topicLast, next []byte, err error) {
	err = view(m.db, m.path, func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketLast).Cursor()
		k, v := c.Seek(from)
		for ; k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
			if len(found) == walkAtOnce {
				next = bytes.Clone(k)
				return nil
			}
			offset, ok := decodeLast(k, v)
			if !ok {
				return errLast
			}
			found = append(found, topicLast{string(k), offset})
		}
		return nil
	})
	return found, next, err
}

// approach passes over the offsets up to the next one that was picked. It
// reports whether there is one.
func (r *reader) approach() bool {
	for len(r.only) > 0 && r.only[0] <= r.cur {
		r.only = r.only[1:]
	}
	if len(r.only) == 0 || r.only[0] > r.limit {
		r.cur = r.limit
		return false
	}
	r.cur = r.only[0] - 1
	return true
}
