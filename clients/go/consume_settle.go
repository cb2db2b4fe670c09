package tidewire

import (
	"cmp"
	"slices"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// A settlement is what the program said of one delivery, until the broker has it.
type settlement struct {
	delivery *Delivery
	kind     protocol.SettleKind
	delay    *time.Duration // of nack and extend
	reason   string         // of reject
	again    bool           // it may have reached the broker already
	confirm  bool           // somebody waits for the answer
	done     chan struct{}  // closed when it is answered or given up, after err was set
	err      error
}

// sameFrame reports whether both can go in one frame.
func (s *settlement) sameFrame(t *settlement) bool {
	a, b := s.delivery, t.delivery
	return s.kind == t.kind && s.reason == t.reason &&
		a.Generation == b.Generation && a.Position.Term == b.Position.Term &&
		(s.delay == nil) == (t.delay == nil) && (s.delay == nil || *s.delay == *t.delay)
}

// A batch is a frame that was sent.
type batch struct {
	ref     uint32
	kind    protocol.SettleKind
	confirm bool
	items   []*settlement
}

// settleBox keeps what the program said of deliveries until the broker has it.
// Consumer.mu guards it.
//
// The broker answers a frame that asks for it when it is on disk, and every frame
// of which it refuses something. Frames are settled in the order in which they
// come, so one answer stands for all frames before it. Asking with every frame
// would make the broker's disk work for each single message; so it is asked with
// frames that somebody waits for, those that are rare, and now and then.
// What is not answered yet is sent again over the next connection: an ack and a
// reject say what holds for ever, and twice is once. A nack is not: by then it
// would be about another attempt.
type settleBox struct {
	queue   []*settlement // to be sent
	sent    []*batch      // not answered, in the order of their refs
	ref     uint32        // last one used
	asked   time.Time     // when an answer was asked for last
	doubt   int           // settlements sent since then
	hold    bool          // nothing is sent for now
	flush   bool          // answers are wanted for everything
	pause   backoff
	emptied latch // closed when flush has come to its end
	epoch   int   // connections that were lost
}

const (
	askEvery = time.Second
	maxDoubt = 256
)

// next returns what to send next; nil for nothing.
func (b *settleBox) next(sub uint32) *protocol.Settle {
	if b.hold || len(b.queue) == 0 {
		return nil
	}
	first := b.queue[0]
	out := &batch{kind: first.kind, confirm: b.flush || first.kind == protocol.SettleNack || first.kind == protocol.SettleReject}
	b.queue = slices.DeleteFunc(b.queue, func(s *settlement) bool {
		if len(out.items) == protocol.MaxSettleRanges || !s.sameFrame(first) {
			return false
		}
		out.items = append(out.items, s)
		out.confirm = out.confirm || s.confirm
		return true
	})
	b.doubt += len(out.items)
	if now := time.Now(); out.confirm || b.doubt >= maxDoubt || now.Sub(b.asked) >= askEvery {
		out.confirm, b.asked, b.doubt = true, now, 0
	}
	b.ref++
	out.ref = b.ref
	b.sent = append(b.sent, out)
	return &protocol.Settle{
		Kind: first.kind, Ref: out.ref, Sub: sub, Generation: first.delivery.Generation,
		Term: first.delivery.Position.Term, Ranges: ranges(out.items, b.epoch),
		Confirm: out.confirm, Delay: first.delay, Reason: first.reason,
	}
}

// ranges returns the places of settlements, neighbours in one. What somebody waits
// for stands alone, and what was delivered over an earlier connection: of several
// the broker does not tell that it does not know one.
func ranges(items []*settlement, epoch int) []protocol.OffsetRange {
	slices.SortFunc(items, func(a, b *settlement) int {
		p, q := a.delivery.Position, b.delivery.Position
		return cmp.Or(cmp.Compare(p.Partition, q.Partition), cmp.Compare(p.Offset, q.Offset))
	})
	var all []protocol.OffsetRange
	alone := true // the last one
	for _, s := range items {
		p, n := s.delivery.Position, len(all)
		single := s.confirm || s.delivery.epoch != epoch
		if !alone && !single && all[n-1].Partition == p.Partition && p.Offset <= all[n-1].Through+1 {
			all[n-1].Through = p.Offset
			continue
		}
		all = append(all, protocol.OffsetRange{Partition: p.Partition, From: p.Offset, Through: p.Offset})
		alone = single
	}
	return all
}

// untaken is what the broker did not take, for whoever is to be told.
type untaken struct {
	*settlement
	err *Error
}

// answered takes an answer. It returns what was refused and nobody waits for.
func (b *settleBox) answered(f *tidewirev1.Acked) []untaken {
	i := slices.IndexFunc(b.sent, func(s *batch) bool { return s.ref == f.Ref })
	if i < 0 {
		return nil
	}
	sent := b.sent[i]
	var told []untaken
	sent.items = slices.DeleteFunc(sent.items, func(s *settlement) bool {
		code, refused := refusedCode(f, s.delivery)
		if refused {
			told = append(told, s.refuse(code)...)
		}
		return refused
	})
	if !sent.confirm {
		return told // of the others it is not known yet whether they are on disk
	}
	b.sent = slices.DeleteFunc(b.sent, func(s *batch) bool {
		done := s.ref == f.Ref || (s.ref < f.Ref && !s.confirm)
		if done {
			for _, item := range s.items {
				item.resolve(nil)
			}
		}
		return done
	})
	b.pause.reset()
	b.checkEmpty()
	return told
}

// refusedCode returns why the broker did not settle a delivery.
func refusedCode(f *tidewirev1.Acked, d *Delivery) (Code, bool) {
	p := d.Position
	for _, r := range f.Refused {
		if r.Partition == p.Partition && r.From <= p.Offset && p.Offset <= max(r.From, r.Through) {
			return Code(r.Code), true
		}
	}
	return "", false
}

// refuse resolves a settlement that the broker did not take.
func (s *settlement) refuse(code Code) []untaken {
	if code == protocol.CodeNotPending && s.again {
		if !s.delivery.forgotten(s) { // it was settled by this client, as far as the broker can tell
			s.resolve(nil)
		}
		return nil
	}
	if code == protocol.CodeNotPending && s.kind == protocol.SettleExtend && s.delivery.settled {
		s.resolve(nil)
		return nil
	}
	if code == protocol.CodeNeverDelivered && s.kind == protocol.SettleExtend {
		s.resolve(nil) // the broker will deliver it again; see Delivery.forgotten
		return nil
	}
	if code == protocol.CodeNeverDelivered && s.delivery.forgotten(s) {
		return nil
	}
	err := protocol.Errorf(code, "the broker did not take the %s of message %s: %s", s.kind, s.delivery.Position, meaning(code))
	s.resolve(err)
	if s.confirm {
		return nil
	}
	return []untaken{{s, err}}
}

// meaning says what a code means for a delivery.
func meaning(code Code) string {
	switch code {
	case protocol.CodeFenced:
		return "it was delivered before the consumer was taken over or moved, and may be with another member by now"
	case protocol.CodeNotPending:
		return "it was settled before"
	case protocol.CodeNeverDelivered:
		return "the consumer does not know that it was delivered"
	}
	return code.Info().Meaning
}

// resolve gives whoever waits the outcome; the first one counts.
func (s *settlement) resolve(err error) {
	select {
	case <-s.done:
	default:
		s.err = err
		close(s.done)
		if s.kind != protocol.SettleExtend {
			s.delivery.answered()
		}
	}
}

// refusedWhole takes the refusal of a whole frame. It returns how long to hold
// everything back, if the frame is to be sent again.
func (b *settleBox) refusedWhole(ref uint32, err *Error) (pause time.Duration, told []untaken) {
	i := slices.IndexFunc(b.sent, func(s *batch) bool { return s.ref == ref })
	if i < 0 {
		return 0, nil
	}
	refused := b.sent[i]
	b.sent = slices.Delete(b.sent, i, i+1)
	if err.Retryable() || err.Code == protocol.CodeUnknownSubscription {
		b.queue = append(slices.Clone(refused.items), b.queue...)
		b.hold, b.asked = true, time.Time{}
		return max(b.pause.next(), err.RetryAfter), nil
	}
	for _, s := range refused.items {
		s.resolve(err)
		if !s.confirm {
			told = append(told, untaken{s, err})
		}
	}
	b.checkEmpty()
	return 0, told
}

// lost prepares for another connection: what holds for ever is sent again.
func (b *settleBox) lost() {
	var again []*settlement
	for _, sent := range b.sent {
		for _, s := range sent.items {
			if s.kind == protocol.SettleAck || s.kind == protocol.SettleReject {
				s.again = true
				again = append(again, s)
			} else {
				s.resolve(nil)
			}
		}
	}
	b.queue = append(again, b.queue...)
	b.sent, b.hold, b.doubt, b.asked = nil, false, 0, time.Time{}
	b.epoch++
	b.checkEmpty()
}

// begin asks for the answer of everything. The channel is closed when all of it
// has come.
func (b *settleBox) begin() <-chan struct{} {
	if b.emptied == nil {
		b.flush = true
		b.emptied = make(latch)
		if n := len(b.sent); n > 0 && len(b.queue) == 0 && !b.sent[n-1].confirm {
			for _, s := range b.sent[n-1].items {
				s.again = true
			}
			b.queue, b.sent = b.sent[n-1].items, b.sent[:n-1]
		}
		b.checkEmpty()
	}
	return b.emptied
}

// checkEmpty tells whoever waits for everything to be answered.
func (b *settleBox) checkEmpty() {
	if b.flush && len(b.queue) == 0 && len(b.sent) == 0 {
		b.emptied.close()
	}
}

// giveUp resolves everything when the consumer has ended.
func (b *settleBox) giveUp(err error) {
	for _, sent := range b.sent {
		b.queue = append(b.queue, sent.items...)
	}
	for _, s := range b.queue {
		s.resolve(err)
	}
	b.queue, b.sent = nil, nil
	b.checkEmpty()
}
