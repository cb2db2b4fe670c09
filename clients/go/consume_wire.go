package tidewire

import (
	"context"
	"errors"
	"slices"
	"sync"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// joinLocked begins a membership in the running session, if it is due. Callers
// hold Client.mu.
func (c *Client) joinLocked(k *Consumer) {
	if c.session == nil {
		return // the next session does it
	}
	if f := k.ask(c.last + 1); f != nil {
		c.last++
		c.session.members[c.last] = k
		c.session.send(f)
	}
}

// kick makes the writer of the running session look for something to write.
func (c *Client) kick() {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s != nil {
		s.kick()
	}
}

// closeConsumers ends all consumers, each as its Close does.
func (c *Client) closeConsumers(ctx context.Context) error {
	c.mu.Lock()
	consumers := slices.Clone(c.consumers)
	c.mu.Unlock()
	closed := make([]error, len(consumers))
	var work sync.WaitGroup
	for i, k := range consumers {
		work.Go(func() { closed[i] = k.Close(ctx) })
	}
	work.Wait()
	return errors.Join(closed...)
}

// member returns the consumer that a session knows by a number.
func (c *Client) member(s *session, number uint32) *Consumer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != s {
		return nil
	}
	return s.members[number]
}

// nextSettle returns the next frame of settlements for the writer of a session.
func (c *Client) nextSettle(s *session) *protocol.Settle {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != s || c.state != StateOpen {
		return nil
	}
	for _, k := range c.consumers {
		if f := k.nextSettle(); f != nil {
			return f
		}
	}
	return nil
}

func (k *Consumer) nextSettle() *protocol.Settle {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.joined.phase != phaseOn {
		return nil
	}
	return k.settles.next(k.joined.number)
}

// ask gives the membership a number in the running session and returns what to
// send; nil if it is not to be asked for.
func (k *Consumer) ask(number uint32) *tidewirev1.Subscribe {
	k.mu.Lock()
	defer k.mu.Unlock()
	j := &k.joined
	if j.phase != phaseOut && j.phase != phaseResting {
		return nil
	}
	j.phase, j.number = phaseAsked, number
	o := &k.options
	return &tidewirev1.Subscribe{
		Sub: number, Filter: o.Filter, From: o.From, Stream: o.Stream,
		Consumer: k.name, Settings: o.Settings.wire(), Window: uint32(o.Window),
	}
}

// disconnected forgets the session's number. What was received stays: the broker
// takes what is said of it later.
func (k *Consumer) disconnected() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.joined.phase == phaseEnded {
		return
	}
	k.joined.phase, k.joined.number = phaseOut, 0
	k.settles.lost()
}

// confirmed takes Subscribed.
func (k *Consumer) confirmed(s *session, f *tidewirev1.Subscribed) {
	k.mu.Lock()
	j := &k.joined
	mine := f.Sub == j.number && j.phase == phaseAsked
	if mine {
		j.phase, j.generation = phaseOn, f.Generation
		k.keeper.tell(f.AckWaitMs)
		j.created = j.created || f.Created
		j.pause.reset()
		k.begun.close()
	}
	k.mu.Unlock()
	if mine {
		s.kick() // what was said while there was no connection
	}
}

// deliver takes messages into the queue.
func (k *Consumer) deliver(d *protocol.Deliver) {
	k.mu.Lock()
	defer k.kickUnlocked()
	if d.Sub != k.joined.number || k.joined.phase != phaseOn {
		return
	}
	k.joined.generation = max(k.joined.generation, d.Generation)
	for m, err := range d.Messages() {
		if err != nil {
			break // it comes again, and is a dead letter in the end
		}
		k.receive(m)
	}
	k.ready.ring()
}

// kickUnlocked unlocks mu, and has what is to be said written.
func (k *Consumer) kickUnlocked() {
	due := len(k.settles.queue) > 0
	k.mu.Unlock()
	if due {
		k.client.kick()
	}
}

// receive puts a message into the queue, unless this client has it already: after a
// lost connection or a restart the broker may deliver again what is being worked on
// here, or what was acked a moment ago.
func (k *Consumer) receive(m Message) {
	if had := k.live[m.Position]; had != nil && had.Generation == m.Generation {
		switch {
		case had.settled && had.nacked:
		case had.owed != nil:
			had.pay()
			return
		case had.settled, k.handled && had.taken:
			had.more = had.settled
			return // what is said of it, or will be, holds
		case !had.taken:
			had.Attempt = m.Attempt
			return
		}
	}
	d := &Delivery{Message: m, consumer: k, epoch: k.settles.epoch}
	k.live[m.Position] = d
	k.keep(d)
	k.queue = append(k.queue, d)
}

// gap takes the news that messages are gone. The broker tells it once, to some
// member.
func (k *Consumer) gap(f *tidewirev1.Gap) {
	gap := &GapError{
		Filter: k.options.Filter, Reason: f.Reason, Term: f.Term,
		After: f.After, Through: f.Through, Position: f.Position, Missed: f.Missed,
	}
	if k.options.OnGap != nil {
		k.options.OnGap(gap)
		return
	}
	k.log().Warn("messages of a consumer are gone", "consumer", k.name, "reason", f.Reason, "after", f.After, "through", f.Through)
}

// acked takes the answer to a settlement.
func (k *Consumer) acked(s *session, f *tidewirev1.Acked) {
	if f.Error != nil {
		k.refusedSettle(s, f.Ref, protocol.FrameError(f.Error))
		return
	}
	k.mu.Lock()
	var told []untaken
	if f.Sub == k.joined.number {
		told = k.settles.answered(f)
	}
	k.kickUnlocked()
	k.tell(told)
}

// refusedSettle takes the refusal of a whole settlement.
func (k *Consumer) refusedSettle(s *session, ref uint32, err *Error) {
	k.mu.Lock()
	pause, told := k.settles.refusedWhole(ref, err)
	k.mu.Unlock()
	k.tell(told)
	if pause > 0 {
		k.client.after(pause, s, func() {
			k.mu.Lock()
			k.settles.hold = false
			k.mu.Unlock()
		})
	}
}

// tell tells the program what the broker did not take.
func (k *Consumer) tell(refusals []untaken) {
	for _, r := range refusals {
		k.mu.Lock()
		lost := r.delivery.lost
		k.queue = slices.DeleteFunc(k.queue, func(d *Delivery) bool { return d == r.delivery })
		k.keeper.forget(r.delivery)
		if !r.delivery.taken {
			r.delivery.answered()
		}
		k.mu.Unlock()
		if lost != nil {
			lost(r.err)
		}
		if k.options.OnUnsettled != nil {
			k.options.OnUnsettled(r.delivery, r.err)
		} else {
			k.log().Warn("the broker did not take what was said of a message", "consumer", k.name, "topic", r.delivery.Topic, "id", r.delivery.ID, "said", r.kind.String(), "code", string(r.err.Code))
		}
	}
}

// refused takes an error of the broker about the membership.
func (k *Consumer) refused(s *session, number uint32, err *Error) {
	k.mu.Lock()
	j := &k.joined
	if number != j.number {
		k.mu.Unlock()
		return
	}
	again := err.Retryable()
	if again {
		j.phase, j.number = phaseResting, 0
		k.settles.lost()
	} else {
		k.endLocked(err)
	}
	pause := max(j.pause.next(), err.RetryAfter)
	k.mu.Unlock()
	c := k.client
	c.mu.Lock()
	if c.session == s {
		delete(s.members, number)
	}
	if again {
		c.after(pause, s, func() { c.joinLocked(k) })
	} else {
		c.consumers = slices.DeleteFunc(c.consumers, func(other *Consumer) bool { return other == k })
	}
	c.mu.Unlock()
	if again && k.options.OnRefused != nil {
		k.options.OnRefused(err)
	}
}
