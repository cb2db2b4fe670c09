package consumer

import "iter"

// The small sizes that a machine with nothing pending may keep.
const (
	keepSpare = 4
	keepMap   = 8
	keepHeap  = 16

	keepDeltas = 256 // bytes
)

// pending is the entries of one machine, each found by its offset, by what is
// due next, and by its key. It obeys and decides nothing; what it is told is
// the same whether the machine decides or a log is replayed.
type pending struct {
	at      map[uint64]*entry
	peak    int // entries at once since at was made: maps do not shrink
	of      lanes
	flying  dues
	waiting dues
	held    int
	dying   list
	doomed  int // length of dying
	bytes   int64
	holders map[uint64]int
	ordered bool
	chains  map[uint64]*chain
	spare   *entry // linked by own.next
	spares  int
}

// fits reports whether v is new and above all others of its source in its partition.
func (p *pending) fits(v Entry) bool {
	last := p.of.of(&v).tail
	return p.at[v.Offset] == nil && (last == nil || last.Offset < v.Offset)
}

// add takes a copy of v, which fits.
func (p *pending) add(v Entry) {
	e := p.spare
	if e != nil {
		p.spare, e.own.next = e.own.next, nil
		p.spares--
	} else {
		e = new(entry)
	}
	e.Entry = v
	if p.at == nil {
		p.at = make(map[uint64]*entry)
	}
	p.at[v.Offset] = e
	p.peak = max(p.peak, len(p.at))
	p.of.of(&v).push(e, ownLinks)
	if v.State != Dying {
		p.join(e)
	}
	p.enter(e)
}

// remove forgets e.
func (p *pending) remove(e *entry) {
	p.leave(e)
	p.part(e)
	p.of.of(&e.Entry).remove(e, ownLinks)
	delete(p.at, e.Offset)
	*e = entry{}
	if p.spares < maxSpares {
		e.own.next, p.spare = p.spare, e
		p.spares++
	}
	if len(p.at) == 0 {
		p.shrink()
	}
}

// maxSpares is how many entries are kept for use again, while something is
// pending.
const maxSpares = 4096

// shrink gives back what a machine with nothing pending does not need.
func (p *pending) shrink() {
	for p.spares > keepSpare {
		p.spare = p.spare.own.next
		p.spares--
	}
	if len(p.of) > int(sources) {
		p.of = nil
	}
	if p.peak > keepMap {
		p.at, p.chains, p.holders, p.peak = nil, nil, nil, 0
	}
	if cap(p.flying) > keepHeap {
		p.flying = nil
	}
	if cap(p.waiting) > keepHeap {
		p.waiting = nil
	}
}

// change gives e another state. A dying entry stays so.
func (p *pending) change(e *entry, v Entry) {
	p.leave(e)
	if v.State == Dying {
		p.part(e)
	}
	e.State, e.Attempts, e.Due, e.First, e.Reason, e.Holder = v.State, v.Attempts, v.Due, v.First, v.Reason, v.Holder
	p.enter(e)
}

// enter counts e as what its state says, leave takes that back.
func (p *pending) enter(e *entry) {
	switch e.State {
	case InFlight:
		p.flying.push(e)
		p.bytes += int64(e.Size)
		p.hold(e.Holder, 1)
	case Waiting:
		p.waiting.push(e)
	case Held:
		p.held++
	default:
		p.dying.push(e, otherLinks)
		p.doomed++
	}
	if e.chain != nil && e.State <= Waiting {
		e.chain.busy++
	}
}

func (p *pending) leave(e *entry) {
	switch e.State {
	case InFlight:
		p.flying.remove(e)
		p.bytes -= int64(e.Size)
		p.hold(e.Holder, -1)
	case Waiting:
		p.waiting.remove(e)
	case Held:
		p.held--
	default:
		p.dying.remove(e, otherLinks)
		p.doomed--
	}
	if e.chain != nil && e.State <= Waiting {
		e.chain.busy--
	}
}

// hold counts one more or one fewer in flight to a member.
func (p *pending) hold(holder uint64, n int) {
	if holder == 0 {
		return
	}
	if p.holders == nil {
		p.holders = make(map[uint64]int)
	}
	if p.holders[holder] += n; p.holders[holder] == 0 {
		delete(p.holders, holder)
	}
}

// join puts e into the chain of its key, part takes it out.
func (p *pending) join(e *entry) {
	if !p.ordered || e.Key == 0 {
		return
	}
	c := p.chains[e.Key]
	if c == nil {
		if p.chains == nil {
			p.chains = make(map[uint64]*chain)
		}
		c = new(chain)
		p.chains[e.Key] = c
	}
	e.chain = c
	c.of[e.Source].push(e, otherLinks)
}

func (p *pending) part(e *entry) {
	c := e.chain
	if c == nil {
		return
	}
	e.chain = nil
	c.of[e.Source].remove(e, otherLinks)
	if c.first() == nil {
		delete(p.chains, e.Key)
	}
}

// order makes the chains, or drops them. States stay as they are.
func (p *pending) order(ordered bool) {
	if p.ordered == ordered {
		return
	}
	p.ordered = ordered
	p.chains = nil
	for e := range p.all() {
		if e.State == Dying {
			continue
		}
		e.chain, e.other = nil, links{}
		if p.join(e); e.chain != nil && e.State <= Waiting {
			e.chain.busy++
		}
	}
}

// clear forgets everything.
func (p *pending) clear() { *p = pending{ordered: p.ordered} }

// all goes through the entries in the order of their places. The one that was
// given may be removed or changed meanwhile, no other.
func (p *pending) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for rest := p.of; len(rest) > 0; {
			var next [sources]*entry
			next, rest = rest.heads()
			for e := lower(next[Main], next[Redrive]); e != nil; e = lower(next[Main], next[Redrive]) {
				next[e.Source] = e.own.next
				if !yield(e) {
					return
				}
			}
		}
	}
}
