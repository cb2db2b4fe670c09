package storage

import (
	"errors"

	"go.etcd.io/bbolt"

	"github.com/tidewire/tidewire/protocol"
)

const (
	defaultReadBytes = 64 << 10
	scanBudget       = 4 << 20 // bytes that one Read looks through at most
	picksAtOnce      = 256
	blocksAtOnce     = 64
	hiddenAtOnce     = 4096 // records that retention by count hides; a block may add some
)

// Read returns the records in (After, Through] that match, oldest first, until
// about MaxBytes, the end of a term, or the end of a scan budget: Through of the
// chunk says how far it came, and it may come far without a match. At the head
// the chunk is empty and its Through is After. It returns [ErrTrimmed] if
// retention has removed the first offset asked for, and a [LostError] if the
// first that may matter is damaged.
//
// Filters that match few records of a segment are read through its index, others
// by reading everything; recent blocks come from memory. No read transaction
// outlives the call.
func (l *core) Read(q Query) (protocol.Chunk, error) {
	earliest, head := l.Bounds()
	if q.After >= head {
		return protocol.Chunk{Partition: l.partition, Term: l.terms.at(q.After), After: q.After, Through: q.After}, nil
	}
	if q.After+1 < earliest {
		return protocol.Chunk{}, ErrTrimmed
	}
	r := reader{log: l, collector: collector{
		filter: q.Filter,
		cur:    q.After,
		kept:   l.state.kept,
		limit:  min(head, l.terms.end(q.After+1)),
		max:    q.MaxBytes,
		budget: scanBudget,
	}}
	if q.Through > 0 {
		r.limit = max(min(r.limit, q.Through), q.After)
	}
	if r.max <= 0 {
		r.max = defaultReadBytes
	}
	r.picked, r.only = q.Picked, q.Offsets
	for r.cur < r.limit && !r.full() && r.lost == 0 {
		if r.picked && !r.approach() {
			break
		}
		if err := r.step(); errors.Is(err, ErrTrimmed) && r.cur > q.After {
			break // the next Read will say so
		} else if err != nil {
			return protocol.Chunk{}, err
		}
	}
	if r.lost > 0 && r.cur == q.After { // else the next Read will say so
		return protocol.Chunk{}, &LostError{After: q.After, Through: r.lost}
	}
	if q.Picked {
		r.hidden = nil // a newer one comes in the next round
	}
	return protocol.Chunk{
		Partition: l.partition, Term: l.terms.at(min(q.After+1, r.limit)), After: q.After, Through: r.cur,
		Count: r.count, Records: r.out, Hidden: r.hidden,
	}, nil
}

// reader is one Read under way.
type reader struct {
	log    *core
	picked bool     // only these are wanted:
	only   []uint64 // offsets above cur
	collector
	lost uint64 // what lies between cur and this offset is damaged; 0 if nothing is
}

// plan is how the matches of a filter in a segment are reached: by their
// offsets, or by reading everything.
type plan struct {
	scan bool
	// offsets above the reader's place, all up to the end of the segment or
	// else picksAtOnce of them.
	offsets []uint64
	all     bool
	newest  uint64 // the last match in the segment, if that is known
}

// step goes on within one segment. Where that is damaged it finds out what can be
// read, and the next step goes on with it.
func (r *reader) step() error {
	s := &r.log.state
	s.mu.RLock()
	seg, last := s.find(r.cur + 1)
	if seg == nil {
		s.mu.RUnlock()
		return ErrTrimmed
	}
	synced := s.synced // the file may lack what is above
	p, known := plan{offsets: r.only, all: true}, true
	if !r.picked {
		p, known = r.planInMemory(seg)
	}
	s.mu.RUnlock()

	end := last
	last = min(last, r.limit)
	salvage := r.log.damages.salvaged(seg, r.cur+1)
	var err error
	if !known {
		if r.skipSealed() {
			return nil
		}
		if salvage != nil {
			p, err = r.log.planDamaged(seg, r)
		} else {
			p, err = r.log.planSealed(seg, r.filter, r.cur, picksAtOnce)
		}
	}
	var blocks []block
	if p.scan {
		s.mu.RLock()
		blocks, synced = s.window.from(r.cur+1, blocksAtOnce), s.synced
		s.mu.RUnlock()
	}
	switch {
	case err != nil:
	case len(blocks) > 0:
		err = r.scanBlocks(blocks, last)
	case salvage != nil:
		err = r.damagedStep(seg, salvage, p, min(last, salvage.through))
	case p.scan:
		err = r.log.handles.view(seg, func(tx *bbolt.Tx) error { return r.scan(tx, min(last, synced)) })
	default:
		err = r.pickOffsets(seg, p, last)
	}
	if errors.Is(err, errDamaged) && salvage == nil {
		return r.log.survey(seg, min(end, synced), err)
	}
	return err
}

// planInMemory makes the plan for a segment whose index is in memory. Caller
// holds the log's mu.
func (r *reader) planInMemory(seg *segment) (p plan, known bool) {
	switch {
	case r.filter.All():
		return plan{scan: true}, true
	case seg.index == nil:
		return plan{}, false
	case !r.filter.Exact():
		return plan{scan: true}, true
	}
	post := seg.index.topics[r.filter.String()]
	switch {
	case post == nil:
		return plan{all: true}, true
	case post.last > r.cur && post.dense(seg.index.records):
		return plan{scan: true}, true
	}
	p.offsets = post.after(nil, r.cur, picksAtOnce)
	p.all = len(p.offsets) < picksAtOnce
	return p, true
}

// skipSealed passes over all sealed segments if the filter is a topic that they
// have nothing more of.
func (r *reader) skipSealed() bool {
	if !r.filter.Exact() {
		return false
	}
	s := &r.log.state
	s.mu.RLock()
	end := r.cur
	for _, seg := range s.segs {
		if seg.index != nil {
			end = seg.first - 1
			break
		}
	}
	s.mu.RUnlock()
	newest, known, err := r.log.meta.lastOf(r.filter.String())
	if errors.Is(err, errDamaged) {
		r.log.damaged(r.log.meta.path, err) // the segments say it too
	}
	if err != nil || !known || newest > r.cur || end <= r.cur {
		return false
	}
	r.cur = min(end, r.limit)
	return true
}

// scan collects from the blocks of a segment up to last.
func (r *reader) scan(tx *bbolt.Tx, last uint64) error {
	defer r.forget()
	c := newBlockCursor(tx)
	b, ok, err := c.seek(r.cur + 1)
	for ; ok && r.cur < last && !r.full(); b, ok, err = c.next() {
		if b.first > r.cur+1 {
			return missing(r.cur + 1)
		}
		if err := r.block(&b, true); err != nil {
			return err
		}
	}
	if err == nil && !ok && r.cur < last && !r.full() {
		return missing(r.cur + 1)
	}
	return err
}

func (r *reader) scanBlocks(blocks []block, last uint64) error {
	for i := range blocks {
		if r.cur >= last || r.full() {
			break
		}
		if err := r.block(&blocks[i], false); err != nil {
			return err
		}
	}
	return nil
}

// pickOffsets collects the records at the offsets of the plan.
func (r *reader) pickOffsets(seg *segment, p plan, last uint64) error {
	offsets := p.offsets
	for i, o := range offsets {
		if o > last {
			offsets, p.all = offsets[:i], true
			break
		}
	}
	for len(offsets) > 0 && !r.full() {
		s := &r.log.state
		s.mu.RLock()
		b, recent := s.window.at(offsets[0])
		synced := s.synced
		s.mu.RUnlock()
		var err error
		if recent {
			offsets, err = r.pickFrom(&b, offsets, false)
		} else {
			err = r.log.handles.view(seg, func(tx *bbolt.Tx) error {
				offsets, err = r.pickStored(tx, offsets, synced)
				return err
			})
		}
		if err != nil {
			return err
		}
	}
	if len(offsets) == 0 && p.all {
		r.cur = max(r.cur, last)
	}
	return nil
}

// pickStored collects from the blocks of a segment, up to an offset: what is
// above is in memory.
func (r *reader) pickStored(tx *bbolt.Tx, offsets []uint64, synced uint64) (rest []uint64, err error) {
	defer r.forget()
	c := newBlockCursor(tx)
	for len(offsets) > 0 && offsets[0] <= synced && !r.full() {
		b, ok, err := c.seek(offsets[0])
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, missing(offsets[0])
		}
		if offsets, err = r.pickFrom(&b, offsets, true); err != nil {
			return nil, err
		}
	}
	return offsets, nil
}

// pickFrom collects those of the offsets that lie in the block.
func (r *reader) pickFrom(b *block, offsets []uint64, verify bool) (rest []uint64, err error) {
	for len(offsets) > 0 && offsets[0] <= b.last() && !r.full() {
		if err := r.pick(b, int(offsets[0]-b.first), verify); err != nil {
			return nil, err
		}
		offsets = offsets[1:]
		r.expect(len(offsets))
	}
	return offsets, nil
}
