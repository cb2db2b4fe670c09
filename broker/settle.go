package broker

import (
	"context"
	"math/rand/v2"
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
	if sub == nil || sub.dispatcher == nil {
		err := protocol.Errorf(protocol.CodeUnknownSubscription, "the session has no subscription %d of a consumer", f.Sub)
		if sub != nil {
			err = protocol.Errorf(protocol.CodeBadRequest, "subscription %d has no consumer, so there is nothing to acknowledge: subscribe with `consumer`", f.Sub)
		}
		s.Send((&protocol.RequestError{Request: f.Kind.String(), Ref: f.Ref, Sub: f.Sub, Err: err}).Frame())
		return
	}
	answer := &tidewirev1.Acked{Ref: f.Ref, Sub: f.Sub, Term: f.Term.String()}
	done := func(at stored) {
		if at.err != nil {
			answer.Error = protocol.ErrorFrame(f.Ref, f.Sub, at.err)
		}
		s.Send(answer)
	}
	if !f.Confirm {
		done = nil
	}
	settled, refused := sub.dispatcher.settle(f, sub.worker.id, done, func(settled uint32, refused []*tidewirev1.RefusedRange) {
		answer.Settled, answer.Refused = settled, refused
	})
	if !f.Confirm && len(refused) > 0 {
		answer.Settled, answer.Refused = settled, refused
		s.Send(answer)
	}
}

// Settle does the same for a request over HTTP, and returns when it is durable.
func (b *Broker) Settle(ctx context.Context, who *Identity, name string, frames []*protocol.Settle) (settled int, refused []*tidewirev1.RefusedRange, err *protocol.Error) {
	d, err := b.consumers.find(name)
	if err == nil {
		err = who.MayConsume(d.sources[0].filter)
	}
	if err != nil {
		return 0, nil, err
	}
	for _, f := range frames {
		n, r := d.settle(f, 0, nil, nil)
		settled += int(n)
		refused = append(refused, r...)
	}
	return settled, refused, b.consumers.control.wait(ctx)
}

// settle does what a frame says. result is called before done can be, with what is
// returned too.
func (d *dispatcher) settle(f *protocol.Settle, holder uint64, done func(stored), result func(uint32, []*tidewirev1.RefusedRange)) (settled uint32, refused []*tidewirev1.RefusedRange) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := consumer.Moment{Now: nowOf(), Random: rand.Int64N}
	d.machine.Advance(at)
	for _, r := range f.Ranges {
		if r.Partition != 0 || d.stream.log.PositionOf(r.From).Term != f.Term || d.stream.log.PositionOf(r.Through).Term != f.Term {
			refused = refuse(refused, r, protocol.CodeNeverDelivered)
			continue
		}
		n, code := d.settleRange(f, r, holder, at)
		settled += n
		if code != "" {
			refused = refuse(refused, r, code)
		}
	}
	if result != nil {
		result(settled, refused)
	}
	d.stats.count(f.Kind, settled)
	d.conclude(done)
	return settled, refused
}

func refuse(list []*tidewirev1.RefusedRange, r protocol.OffsetRange, code protocol.Code) []*tidewirev1.RefusedRange {
	return append(list, &tidewirev1.RefusedRange{Partition: r.Partition, From: r.From, Through: r.Through, Code: string(code)})
}

// settleRange settles what a range names: of one offset it is an error if there is
// nothing to settle, of a longer one it is not, for there may be messages of other
// topics in between.
func (d *dispatcher) settleRange(f *protocol.Settle, r protocol.OffsetRange, holder uint64, at consumer.Moment) (settled uint32, code protocol.Code) {
	offsets := []uint64{r.From}
	switch {
	case f.UpTo:
		offsets = d.machine.UpTo(f.Generation, r.Through, holder)
	case r.Through > r.From:
		offsets = d.within(r)
	}
	for _, o := range offsets {
		switch outcome := d.settleOne(f, o, at); outcome {
		case consumer.Done:
			settled++
		case consumer.Fenced:
			return settled, outcome.Code()
		default:
			code = outcome.Code()
		}
	}
	if r.Through > r.From || f.UpTo {
		code = ""
	}
	return settled, code
}

// within returns the offsets of a range that are not settled.
func (d *dispatcher) within(r protocol.OffsetRange) (offsets []uint64) {
	if r.Through-r.From < uint64(d.machine.Pending()) {
		for o := r.From; o <= r.Through; o++ {
			if _, ok := d.machine.Entry(o); ok {
				offsets = append(offsets, o)
			}
		}
		return offsets
	}
	for e := range d.machine.Entries() {
		if e.Offset >= r.From && e.Offset <= r.Through {
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
