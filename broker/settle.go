package broker

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// Settle does with messages of a consumer what its member says: acknowledge, give
// back, extend, reject. The answer comes when everything is durable if that was
// asked for, and at once if something was refused.
func (s *Session) Settle(f *protocol.Settle) {
	s.mu.Lock()
	sub := s.subs[f.Sub]
	s.mu.Unlock()
	if sub == nil || sub.post == nil {
		err := protocol.Errorf(protocol.CodeUnknownSubscription, "the session has no subscription %d of a consumer", f.Sub)
		if sub != nil {
			err = protocol.Errorf(protocol.CodeBadRequest, "subscription %d has no consumer, so there is nothing to acknowledge: subscribe with `consumer`", f.Sub)
		}
		s.Send((&protocol.RequestError{Request: f.Kind.String(), Ref: f.Ref, Sub: f.Sub, Err: err}).Frame())
		return
	}
	sub.post.settle(f, sub.worker, func(answer *tidewirev1.Acked, at stored) {
		if at.err != nil {
			answer.Error = protocol.ErrorFrame(f.Ref, f.Sub, at.err)
		}
		s.Send(answer)
	})
}

// Settle does the same for a request over HTTP, and returns when it is durable.
func (b *Broker) Settle(ctx context.Context, who *Identity, name string, frames []*protocol.Settle) (settled int, refused []*tidewirev1.RefusedRange, err *protocol.Error) {
	p, err := b.consumers.find(name)
	if err == nil {
		err = who.MayConsume(p.about().filter)
	}
	if err != nil {
		return 0, nil, err
	}
	type answered struct {
		*tidewirev1.Acked
		stored
	}
	answers := make(chan answered, len(frames))
	for _, f := range frames {
		f.Confirm = true
		p.settle(f, nil, func(a *tidewirev1.Acked, at stored) { answers <- answered{a, at} })
	}
	for range frames {
		select {
		case a := <-answers:
			settled += int(a.Settled)
			refused = append(refused, a.Refused...)
			if a.err != nil {
				err = a.err
			}
		case <-ctx.Done():
			return settled, refused, protocol.Errorf(protocol.CodeUnknown, "what was said was not stored in time: say it again")
		}
	}
	return settled, refused, err
}

// settle does what a frame of a member says.
func (d *dispatcher) settle(f *protocol.Settle, m *member, done func(*tidewirev1.Acked, stored)) {
	answer := &tidewirev1.Acked{Ref: f.Ref, Sub: f.Sub, Term: f.Term.String()}
	holder := uint64(0)
	if m != nil {
		holder = m.id
	}
	if f.Confirm {
		d.settleFrame(f, holder, answer, func(at stored) { done(answer, at) })
		return
	}
	d.settleFrame(f, holder, answer, nil)
	if len(answer.Refused) > 0 {
		done(answer, stored{})
	}
}

// settleFrame does what a frame says, and adds to the answer what came of it. That is
// there before done, if not nil, is called: once everything is durable.
func (d *dispatcher) settleFrame(f *protocol.Settle, holder uint64, answer *tidewirev1.Acked, done func(stored)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := consumer.Moment{Now: nowOf(), Random: rand.Int64N}
	d.machine.Advance(at)
	var spans, placed []protocol.OffsetRange // those of more than one offset, also as places
	var last map[uint32]uint64               // place of each partition, for UpTo
	settled := uint32(0)
	for _, r := range f.Ranges {
		from, through := consumer.PlaceIn(r.Partition, r.From), consumer.PlaceIn(r.Partition, r.Through)
		if d.stream.position(from).Term != f.Term || d.stream.position(through).Term != f.Term {
			refuse(answer, r, protocol.CodeNeverDelivered)
			continue
		}
		if f.UpTo {
			if last == nil {
				last = make(map[uint32]uint64, 1)
			}
			last[r.Partition] = max(last[r.Partition], through)
		}
		if r.Through > r.From {
			spans = append(spans, r)
			placed = append(placed, protocol.OffsetRange{From: from, Through: through})
			continue
		}
		switch outcome := d.settleOne(f, from, at); {
		case outcome == consumer.Done:
			settled++
		case outcome != consumer.Already || !f.UpTo: // who acks up to a place may have acked the place
			refuse(answer, r, outcome.Code())
		}
	}
	n, fenced := d.settleAll(f, d.within(merged(placed)), at)
	settled += n
	if fenced {
		for _, r := range spans {
			refuse(answer, r, protocol.CodeFenced)
		}
	}
	if f.UpTo {
		for _, partition := range slices.Sorted(maps.Keys(last)) {
			n, _ := d.settleAll(f, d.machine.UpTo(f.Generation, last[partition], holder), at)
			settled += n
		}
	}
	answer.Settled += settled
	d.stats.count(f.Kind, settled)
	d.conclude(done)
}

func refuse(answer *tidewirev1.Acked, r protocol.OffsetRange, code protocol.Code) {
	answer.Refused = append(answer.Refused, &tidewirev1.RefusedRange{Partition: r.Partition, From: r.From, Through: r.Through, Code: string(code)})
}

// settleAll settles messages of which nobody says that there must be any: between
// those of a range there are some of other topics, and some that are done.
func (d *dispatcher) settleAll(f *protocol.Settle, offsets []uint64, at consumer.Moment) (settled uint32, fenced bool) {
	for _, o := range offsets {
		switch d.settleOne(f, o, at) {
		case consumer.Done:
			settled++
		case consumer.Fenced:
			return settled, true
		default:
		}
	}
	return settled, false
}

// merged puts ranges in order, overlapping ones together: however many there are,
// each message is looked at once.
func merged(ranges []protocol.OffsetRange) []protocol.OffsetRange {
	slices.SortFunc(ranges, func(a, b protocol.OffsetRange) int { return cmp.Compare(a.From, b.From) })
	out := make([]protocol.OffsetRange, 0, len(ranges))
	for _, r := range ranges {
		if n := len(out); n > 0 && r.From <= out[n-1].Through+1 {
			out[n-1].Through = max(out[n-1].Through, r.Through)
			continue
		}
		out = append(out, r)
	}
	return out
}

// within returns the offsets in ranges, which are merged, that are not settled.
func (d *dispatcher) within(ranges []protocol.OffsetRange) (offsets []uint64) {
	width, pending := uint64(0), uint64(d.machine.Pending())
	for i := 0; i < len(ranges) && width <= pending; i++ {
		width += ranges[i].Through - ranges[i].From + 1
	}
	if width <= pending {
		for _, r := range ranges {
			for o := r.From; o <= r.Through; o++ {
				if _, ok := d.machine.Entry(o); ok {
					offsets = append(offsets, o)
				}
			}
		}
		return offsets
	}
	for e := range d.machine.Entries() {
		i, found := slices.BinarySearchFunc(ranges, e.Offset, func(r protocol.OffsetRange, o uint64) int { return cmp.Compare(r.From, o) })
		if found || i > 0 && e.Offset <= ranges[i-1].Through {
			offsets = append(offsets, e.Offset)
		}
	}
	return offsets
}

func (d *dispatcher) settleOne(f *protocol.Settle, offset uint64, at consumer.Moment) consumer.Outcome {
	switch f.Kind {
	case protocol.SettleNack:
		return d.machine.Nack(f.Generation, offset, f.Delay, at)
	case protocol.SettleExtend:
		var by time.Duration
		if f.Delay != nil {
			by = *f.Delay
		}
		return d.machine.Extend(f.Generation, offset, by, at.Now)
	case protocol.SettleReject:
		return d.machine.Reject(f.Generation, offset, f.Reason)
	}
	return d.machine.Ack(f.Generation, offset)
}
