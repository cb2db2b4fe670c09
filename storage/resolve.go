package storage

import (
	"errors"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// Resolve says where a start begins for a subscription with the filter. head is
// the applied offset, from which `new` and `last:N` count.
//
// A position is fine if the log knows its term and the offset lies in it. Beyond
// the end of the term the log was put back to an earlier state: exactly what was
// written after that is gone. An unknown term is another log's.
func (l *core) Resolve(s protocol.Start, f protocol.Filter, head uint64) (Resolved, error) {
	at, err := l.resolve(s, f, head)
	if s.Kind != protocol.StartPosition {
		at.Quiet = l.state.kept.hiddenUpTo(f)
	}
	return at, err
}

func (l *core) resolve(s protocol.Start, f protocol.Filter, head uint64) (Resolved, error) {
	earliest, last := l.Bounds()
	switch s.Kind {
	case protocol.StartEarliest:
		return Resolved{After: earliest - 1}, nil
	case protocol.StartLast:
		after, err := l.beforeLast(f, head, s.Last)
		return Resolved{After: after}, err
	case protocol.StartSince:
		after, err := l.beforeTime(l.opts.Now().Add(-s.Since), head)
		return Resolved{After: after}, err
	case protocol.StartTime:
		after, err := l.beforeTime(s.Time, head)
		return Resolved{After: after}, err
	case protocol.StartPosition:
		if err := checkPartition(s.Position, l.partition); err != nil {
			return Resolved{}, err
		}
		return resolvePosition(s.Position, l.terms, earliest, last)
	default:
		return Resolved{After: head}, nil
	}
}

func checkPartition(p protocol.Position, partition uint32) error {
	if p.Partition == partition {
		return nil
	}
	return protocol.Errorf(protocol.CodeInvalidPosition, "the position %s names partition %d, but what it is for has one partition, %d", p, p.Partition, partition)
}

// resolvePosition resolves a position in a log with those terms and bounds.
func resolvePosition(p protocol.Position, terms chain, earliest, head uint64) (Resolved, error) {
	gap := func(reason string, after, through, next uint64) (Resolved, error) {
		return Resolved{After: next, Gap: &Gap{Reason: reason, Term: p.Term, After: after, Through: through, Next: next}}, nil
	}
	first, last, known := terms.span(p.Term)
	last = min(last, head)
	switch {
	case !known || p.Offset < first:
		return gap(GapOtherLog, p.Offset, p.Offset, earliest-1)
	case p.Offset > last:
		return gap(GapRolledBack, last, p.Offset, last)
	case p.Offset+1 < earliest:
		return gap(GapRetention, p.Offset, earliest-1, earliest-1)
	}
	return Resolved{After: p.Offset}, nil
}

// beforeTime returns the offset before the first one whose time is not before t.
func (l *core) beforeTime(t time.Time, head uint64) (uint64, error) {
	micros := uint64(max(t.UnixMicro(), 0))
	st := &l.state
	st.mu.RLock()
	segs := st.segs
	i := sort.Search(len(segs), func(i int) bool { return segs[i].info.last == 0 || segs[i].info.lastTime >= micros })
	st.mu.RUnlock()
	for ; i < len(segs); i++ {
		st.mu.RLock()
		info := segs[i].info
		st.mu.RUnlock()
		if info.last == 0 {
			break
		}
		var low uint64
		var found bool
		err := l.walk(segs[i], info.last, func(c blockWalk) (err error) {
			if low, err = earlier(c, &info, micros); err == nil {
				low, found, err = within(c, low, micros)
			}
			return err
		})
		switch {
		case errors.Is(err, ErrTrimmed):
			return l.beforeTime(t, head)
		case err != nil:
			return 0, err
		case found:
			return min(low-1, head), nil
		}
	}
	return head, nil
}

// earlier returns the offset after the last block that is known to be before a
// time. Behind it may come blocks that cannot be read: whoever starts at a time
// must be told of them.
func earlier(c blockWalk, info *segmentInfo, micros uint64) (low uint64, err error) {
	low, high := info.first, info.last // the answer's block begins in [low, high]
	for low < high {
		b, ok, err := c.seek(low + (high-low)/2)
		switch {
		case err != nil:
			return 0, err
		case !ok:
			high = low + (high-low)/2
		case b.time >= micros:
			high = min(b.first, low+(high-low)/2)
		default:
			low = b.last() + 1
		}
	}
	return low, nil
}

// within returns the offset of the first record with that time, or a later one,
// from the block on that begins with an offset and whose time is not before. If
// its records have times of their own that may be some blocks on, or not in the
// segment at all: what is not stored moves the time of blocks too.
func within(c blockWalk, first, micros uint64) (offset uint64, found bool, err error) {
	b, ok, err := c.seek(first)
	if err != nil || !ok || !b.times || b.first != first {
		return first, true, err
	}
	for range blocksAtOnce { // then it begins a little earlier
		offset, found = b.reaches(micros)
		if found {
			return offset, true, nil
		}
		if b, ok, err = c.next(); err != nil || !ok {
			return 0, false, err
		}
	}
	return b.first, true, nil
}

// reaches returns the offset of the first record of a block with that time, or a
// later one. A damaged one may be it: whoever reads is told.
func (b *block) reaches(micros uint64) (offset uint64, found bool) {
	for slot := range b.count {
		if b.at(slot) == 0 {
			continue
		}
		if b.bad(slot) {
			return b.first + uint64(slot), true
		}
		record, _, _ := b.frame(slot)
		if offset, time := protocol.RecordPlace(record); time >= micros {
			return offset, true
		}
	}
	return 0, false
}

// beforeLast returns the offset before the n-th newest match up to head, or
// before everything if there are fewer.
func (l *core) beforeLast(f protocol.Filter, head uint64, n int) (uint64, error) {
	if l.state.kept != nil {
		return l.beforeLastKept(f, head, n)
	}
	l.state.mu.RLock()
	segs := l.state.segs
	l.state.mu.RUnlock()
	for i, seg := range slices.Backward(segs) {
		if seg.first > head {
			continue
		}
		offsets, err := l.newest(seg, f, head, n)
		switch {
		case errors.Is(err, ErrTrimmed):
			return segs[i+1].first - 1, nil // retention was faster
		case err != nil:
			return 0, err
		case len(offsets) >= n:
			return offsets[len(offsets)-n] - 1, nil
		}
		n -= len(offsets)
	}
	return segs[0].first - 1, nil
}

// newest returns the newest matches in a segment up to through, at least n of
// them if there are as many, in order.
func (l *core) newest(seg *segment, f protocol.Filter, through uint64, n int) ([]uint64, error) {
	l.state.mu.RLock()
	r := reader{log: l, collector: collector{filter: f}}
	p, known := r.planInMemory(seg)
	_, last := l.state.find(seg.first)
	if known && !p.scan && !p.all {
		post := seg.index.topics[f.String()]
		p.offsets = post.after(nil, 0, post.count)
	}
	l.state.mu.RUnlock()
	if !known {
		var err error
		p, err = l.planSealed(seg, f, 0, math.MaxInt)
		if errors.Is(err, errDamaged) {
			p, err = plan{scan: true}, nil
		}
		if err != nil {
			return nil, err
		}
	}
	if !p.scan {
		return p.offsets[:sort.Search(len(p.offsets), func(i int) bool { return p.offsets[i] > through })], nil
	}
	var blocks [][]uint64 // matches of each block, newest block first
	count := 0
	err := l.walk(seg, last, func(c blockWalk) error {
		blocks, count = nil, 0
		b, ok, err := c.end()
		for ; ok && count < n; b, ok, err = c.prev() {
			found := r.matches(&b, through)
			blocks = append(blocks, found)
			count += len(found)
		}
		return err
	})
	offsets := make([]uint64, 0, count)
	for _, block := range slices.Backward(blocks) {
		offsets = append(offsets, block...)
	}
	return offsets, err
}

// matches returns the offsets up to through of the records of a block that
// match. Damaged ones do not count.
func (c *collector) matches(b *block, through uint64) []uint64 {
	var offsets []uint64
	for slot := range b.count {
		offset := b.first + uint64(slot)
		if offset > through {
			break
		}
		record, framed, err := b.frame(slot)
		if err == nil && record != nil {
			err = b.verify(slot, framed)
		}
		if err == nil && record != nil && c.match(protocol.RecordTopic(record)) {
			offsets = append(offsets, offset)
		}
	}
	return offsets
}
