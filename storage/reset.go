package storage

import "slices"

// begin drops everything that is stored: the log goes on with the offset first.
// A crash at any moment leaves either all or nothing of it: meta.db says which
// segments count, and the files of the others are removed behind it. The caller
// holds all who write.
func (t *tail) begin(first uint64) error {
	l, s := t.log, &t.log.state
	last := s.lastOrdinal()
	seg := l.newSegment(last + 1)
	size := l.opts.SegmentBytes
	err := l.reserve.withReserve(func() error { return seg.create(2*size, size) })
	if err != nil {
		return err
	}
	err = l.reserve.withReserve(func() error { return l.meta.reset(l.terms, last, first) })
	if err != nil {
		_ = seg.close()
		return err // its file stays, empty, until one with its ordinal takes its place
	}
	s.mu.Lock()
	old := slices.Concat(l.keeper.leftover, s.segs, s.spares)
	seg.first, seg.index = first, newTopicIndex()
	s.segs, s.spares = []*segment{seg}, nil
	s.window = window{limit: s.window.limit}
	s.head, s.synced, s.aheadRows, s.note = first-1, first-1, 0, nil
	s.kept.clear()
	s.mu.Unlock()
	t.dedupe = newDedupe(l.opts.DedupeWindow)
	t.dedupe.blind = first > 1
	t.active, t.used, t.head, t.time = seg, 0, first-1, 0
	l.keeper.leftover = nil
	l.keeper.signal()
	for _, s := range old {
		l.handles.forget(s)
		l.damages.forget(s)
		if s.remove() != nil {
			l.keeper.leftover = append(l.keeper.leftover, l.newSegment(s.ordinal)) // it tries again
		}
	}
	return nil
}
