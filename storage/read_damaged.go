package storage

import "errors"

// damagedStep goes on within a segment of which only part can be read: up to the
// next damage, which it leaves in r.lost. It never fails for damage.
//
// Whoever reads by the index is told only of damage where the index says that
// there is something for it. Whoever reads everything is told of all: what a
// damaged record is about cannot be believed.
func (r *reader) damagedStep(seg *segment, v *salvage, p plan, last uint64) error {
	c, err := v.open(seg)
	if err != nil {
		return err
	}
	defer c.close()
	for r.cur < last && !r.full() && r.lost == 0 {
		want := r.cur + 1
		if !p.scan {
			for len(p.offsets) > 0 && p.offsets[0] <= r.cur {
				p.offsets = p.offsets[1:]
			}
			if len(p.offsets) == 0 && !p.all {
				return nil
			}
			if len(p.offsets) == 0 || p.offsets[0] > last {
				r.cur = last
				return nil
			}
			want = p.offsets[0]
		}
		b, ok := r.salvaged(c, want)
		if !ok {
			r.cur, r.lost = want-1, min(c.hole(want), last)
			return nil
		}
		r.take(&b, want, p.scan)
	}
	r.lost = min(r.lost, last)
	return nil
}

// salvaged returns the block that has the offset, from memory or from the file.
func (r *reader) salvaged(c *salvageCursor, offset uint64) (block, bool) {
	s := &r.log.state
	s.mu.RLock()
	b, recent := s.window.at(offset)
	s.mu.RUnlock()
	if recent {
		return b, true
	}
	i, has := c.find(offset)
	if !has {
		return block{}, false
	}
	return c.read(c.places[i])
}

// take takes the record at the offset, or all from it on, from a block. At one
// that is damaged it ends.
func (r *reader) take(b *block, offset uint64, all bool) {
	var err error
	if all {
		err = r.block(b, true)
	} else {
		r.cur = offset - 1
		r.budget -= len(b.raw)
		err = r.pick(b, int(offset-b.first), true)
	}
	if err != nil {
		r.lost = b.badThrough(int(r.cur + 1 - b.first))
	}
}

// badThrough returns the last offset of the run of damaged records that begins
// with a slot.
func (b *block) badThrough(slot int) uint64 {
	for slot+1 < b.count && b.bad(slot+1) {
		slot++
	}
	return b.first + uint64(slot)
}

// bad reports whether a slot has a record, and that is damaged.
func (b *block) bad(slot int) bool {
	record, framed, err := b.frame(slot)
	return err != nil || record != nil && b.verify(slot, framed) != nil
}

// planDamaged makes the plan for a damaged segment: by its index, if at least
// that can be read.
func (l *core) planDamaged(seg *segment, r *reader) (plan, error) {
	p, err := l.planSealed(seg, r.filter, r.cur, picksAtOnce)
	if errors.Is(err, errDamaged) {
		return plan{scan: true}, nil
	}
	return p, err
}
