package storage

import (
	"errors"
	"slices"
	"sort"

	"go.etcd.io/bbolt"

	"github.com/tidewire/tidewire/protocol"
)

// ReadBack returns the newest records in (After, Through] that match, at most n
// of them, in the order of the log. It is [Log.Read] from the other end: the
// chunk ends at Through, and its After says how far back it came, which may be
// far without a match. It ends at about MaxBytes, where a term begins, and at
// the end of the scan budget. At After or before everything the chunk is empty
// and its After is its Through. It returns [ErrTrimmed] if retention has removed
// the offset Through, and a [LostError] if the last that may matter is damaged.
//
// It costs what it returns, however much the topic holds: a topic that is rare
// in a segment is reached through the segment's index, from its end, and sealed
// segments above the newest record of a topic are passed over at once.
func (l *core) ReadBack(q Query, n int) (protocol.Chunk, error) {
	earliest, head := l.Bounds()
	through := head
	if q.Through > 0 {
		through = min(head, q.Through)
	}
	if through <= q.After {
		return protocol.Chunk{Partition: l.partition, Term: l.terms.at(through), After: through, Through: through}, nil
	}
	if through < earliest {
		return protocol.Chunk{}, ErrTrimmed
	}
	r := backReader{
		log: l, cur: through, n: n, max: q.MaxBytes, budget: scanBudget,
		floor:   max(q.After, earliest-1, l.terms.begin(through)),
		matcher: collector{filter: q.Filter, kept: l.state.kept},
	}
	if r.max <= 0 {
		r.max = defaultReadBytes
	}
	for r.cur > r.floor && !r.full() {
		err := r.step()
		switch {
		case (errors.Is(err, ErrTrimmed) || errors.Is(err, errDamaged)) && r.cur < through:
			return r.chunk(through), nil // the next one will say so
		case errors.Is(err, errDamaged):
			q.MaxBytes = r.max
			return l.readBackDamaged(q, r.floor, through, n)
		case err != nil:
			return protocol.Chunk{}, err
		}
	}
	return r.chunk(through), nil
}

// backReader is one ReadBack under way.
type backReader struct {
	log     *core
	matcher collector // for match, forget and what is hidden, the newest first
	cur     uint64    // everything above has been looked at
	floor   uint64    // nothing up to here is wanted
	n       int       // records wanted
	max     int       // bytes wanted
	budget  int       // bytes that may still be looked through

	out   []byte // records with their frames, the newest first
	sizes []int  // of each of them
}

func (r *backReader) full() bool { return r.enough() || r.budget <= 0 }

func (r *backReader) enough() bool {
	return len(r.out) >= r.max || len(r.sizes) >= r.n || len(r.matcher.hidden) >= hiddenAtOnce
}

// chunk returns what was collected, the oldest first.
func (r *backReader) chunk(through uint64) protocol.Chunk {
	b, end := make([]byte, 0, len(r.out)), len(r.out)
	for _, size := range slices.Backward(r.sizes) {
		b = append(b, r.out[end-size:end]...)
		end -= size
	}
	slices.Reverse(r.matcher.hidden)
	return protocol.Chunk{
		Partition: r.log.partition, Term: r.log.terms.at(through), After: r.cur, Through: through,
		Count: len(r.sizes), Records: b, Hidden: r.matcher.hidden,
	}
}

// step goes on within one segment.
func (r *backReader) step() error {
	s := &r.log.state
	s.mu.RLock()
	seg, _ := s.find(r.cur)
	if seg == nil {
		s.mu.RUnlock()
		return ErrTrimmed
	}
	first := seg.first // of the active segment it is guarded by mu
	p, known := r.planInMemory(seg)
	blocks := s.window.until(r.cur, blocksAtOnce)
	s.mu.RUnlock()

	if !known {
		if r.skipSealed() {
			return nil
		}
		var err error
		if p, err = r.planSealed(seg); err != nil {
			return err
		}
	}
	switch {
	case p.newest > 0 && p.newest < r.cur: // nothing to scan up there
		r.cur = max(p.newest, r.floor)
		return nil
	case p.scan && len(blocks) > 0:
		return r.scanBlocks(blocks, first)
	case p.scan:
		return r.log.handles.view(seg, r.scan)
	default:
		return r.pick(seg, p, first)
	}
}

// planInMemory makes the plan for a segment whose index is in memory. Caller
// holds the log's mu.
func (r *backReader) planInMemory(seg *segment) (p plan, known bool) {
	switch {
	case r.matcher.filter.All():
		return plan{scan: true}, true
	case seg.index == nil:
		return plan{}, false
	case !r.matcher.filter.Exact():
		return plan{scan: true}, true
	}
	post := seg.index.topics[r.matcher.filter.String()]
	if post == nil {
		return plan{all: true}, true
	}
	return post.planBack(r.cur, seg.index.records, r.picks()), true
}

// planSealed makes the plan for a sealed segment.
func (r *backReader) planSealed(seg *segment) (plan, error) {
	f := r.matcher.filter
	if f.Exact() {
		return r.log.planTopic(seg, f.String(), func(post *postings, records int) plan {
			return post.planBack(r.cur, records, r.picks())
		})
	}
	p, err := r.log.plans.get(r.log, seg, f)
	if err != nil || p.scan {
		return p, err
	}
	some := p.offsets[:sort.Search(len(p.offsets), func(i int) bool { return p.offsets[i] > r.cur })]
	from := max(0, len(some)-r.picks())
	some = slices.Clone(some[from:]) // the plan is shared
	slices.Reverse(some)
	return plan{offsets: some, all: from == 0}, nil
}

// picks is how many offsets a plan need have.
func (r *backReader) picks() int { return min(picksAtOnce, r.n-len(r.sizes)) }

// planBack says how the records up to an offset are reached: by at most n
// offsets, the newest first.
func (p *postings) planBack(through uint64, records, n int) plan {
	if p.count > 0 && p.first <= through && p.dense(records) {
		return plan{scan: true, newest: p.last}
	}
	offsets := p.until(through, n)
	return plan{offsets: offsets, all: len(offsets) < n}
}

// skipSealed passes over all sealed segments that are newer than the newest
// record of the topic, if the filter is one.
func (r *backReader) skipSealed() bool {
	if !r.matcher.filter.Exact() {
		return false
	}
	newest, known, err := r.log.meta.lastOf(r.matcher.filter.String())
	if errors.Is(err, errDamaged) {
		r.log.damaged(r.log.meta.path, err) // the segments say it too
	}
	if err != nil || !known || newest >= r.cur {
		return false
	}
	r.cur = max(newest, r.floor)
	return true
}

// scan collects from the blocks of a segment.
func (r *backReader) scan(tx *bbolt.Tx) error {
	defer r.matcher.forget()
	c := newBlockCursor(tx)
	b, ok, err := c.seek(r.cur)
	if err == nil && !ok {
		return missing(r.cur)
	}
	for ; ok && r.cur > r.floor && !r.full(); b, ok, err = c.prev() {
		if b.last() < r.cur {
			return missing(r.cur)
		}
		if err := r.block(&b, true); err != nil {
			return err
		}
	}
	return err
}

// scanBlocks collects from blocks in memory, the newest last, that do not lie
// before first.
func (r *backReader) scanBlocks(blocks []block, first uint64) error {
	for _, b := range slices.Backward(blocks) {
		if b.first < first || r.cur <= r.floor || r.full() {
			break
		}
		if err := r.block(&b, false); err != nil {
			return err
		}
	}
	return nil
}

// block takes what matches from a block, from cur down.
func (r *backReader) block(b *block, verify bool) error {
	r.budget -= len(b.raw)
	for r.cur >= b.first && r.cur > r.floor && !r.enough() {
		if err := r.take(b, verify); err != nil {
			return err
		}
	}
	return nil
}

// take moves cur before the slot that it stands on, and collects the slot's
// record if there is one and it matches. Blocks in memory need not be verified.
func (r *backReader) take(b *block, verify bool) error {
	slot := int(r.cur - b.first)
	record, framed, err := b.frame(slot)
	if err != nil {
		return err
	}
	if record != nil && verify { // before the topic is believed
		if err := b.verify(slot, framed); err != nil {
			return err
		}
	}
	offset := r.cur
	r.cur--
	if record != nil && r.matcher.given(protocol.RecordTopic(record), offset) {
		r.out = append(r.out, framed...)
		r.sizes = append(r.sizes, len(framed))
	}
	return nil
}

// pick collects the records at the offsets of the plan.
func (r *backReader) pick(seg *segment, p plan, first uint64) error {
	offsets := p.offsets
	if i := slices.IndexFunc(offsets, func(o uint64) bool { return o <= r.floor }); i >= 0 {
		offsets, p.all = offsets[:i], true
	}
	for len(offsets) > 0 && !r.full() {
		s := &r.log.state
		s.mu.RLock()
		blocks := s.window.until(offsets[0], 1)
		s.mu.RUnlock()
		var err error
		if len(blocks) > 0 {
			offsets, err = r.pickFrom(&blocks[0], offsets, false)
		} else {
			err = r.log.handles.view(seg, func(tx *bbolt.Tx) error {
				offsets, err = r.pickStored(tx, offsets)
				return err
			})
		}
		if err != nil {
			return err
		}
	}
	if len(offsets) == 0 && p.all {
		r.cur = max(first-1, r.floor)
	}
	return nil
}

// pickStored collects from the blocks of a segment.
func (r *backReader) pickStored(tx *bbolt.Tx, offsets []uint64) (rest []uint64, err error) {
	defer r.matcher.forget()
	c := newBlockCursor(tx)
	for len(offsets) > 0 && !r.full() {
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
func (r *backReader) pickFrom(b *block, offsets []uint64, verify bool) (rest []uint64, err error) {
	for len(offsets) > 0 && offsets[0] >= b.first && !r.full() {
		r.cur = offsets[0]
		if err := r.take(b, verify); err != nil {
			return nil, err
		}
		offsets = offsets[1:]
	}
	return offsets, nil
}
