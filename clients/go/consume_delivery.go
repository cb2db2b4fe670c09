package tidewire

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tidewire/tidewire/protocol"
)

// A Delivery is a message of a consumer, to be settled once: by Ack, AckSync,
// Nack, RetryAfter or Reject. Its Attempt counts the deliveries of the message,
// from 1 on; its Generation is that of the consumer. Both are for programs that
// fence their own effects.
//
// The methods do not wait, unless they have a ctx. What they say is sent at once,
// together with what others said at the same time; it is not on disk at the broker
// when they return, so if the broker crashes then, the message may come again.
// What is said while there is no connection is sent over the next one.
type Delivery struct {
	Message
	consumer *Consumer

	// Guarded by Consumer.mu.
	taken   bool // Next has given it
	settled bool
	nacked  bool // that is how
	epoch   int  // of settleBox, when it came
	more    bool // it came again after it was settled
	owed    *settlement
	lost    context.CancelCauseFunc
}

// ErrSettled is the error of settling a delivery for the second time.
var ErrSettled = errors.New("the delivery is settled already")

// Ack says that the message is done. The error is ErrSettled, or why the consumer
// has ended.
func (d *Delivery) Ack() error {
	return d.settle(&settlement{kind: protocol.SettleAck})
}

// AckSync is Ack that returns when the broker has it on disk, or has refused it,
// with an [*Error] then: CodeFenced if the consumer was taken over or moved after
// the delivery, CodeNotPending if the message was settled before, CodeNeverDelivered
// if the consumer was deleted meanwhile and made anew. If ctx ends first, the ack
// stays on its way.
func (d *Delivery) AckSync(ctx context.Context) error {
	s := &settlement{kind: protocol.SettleAck, confirm: true}
	if err := d.settle(s); err != nil {
		return err
	}
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return fmt.Errorf("whether the acknowledgement of %s is stored is not known: %w", d.Position, reason(ctx))
	}
}

// Nack says that the attempt failed: the message comes again after the backoff of
// the consumer, or becomes a dead letter if it was the last attempt.
func (d *Delivery) Nack() error {
	return d.settle(&settlement{kind: protocol.SettleNack})
}

// RetryAfter is Nack with a pause of choice, at least; 0 means at once.
func (d *Delivery) RetryAfter(pause time.Duration) error {
	return d.settle(&settlement{kind: protocol.SettleNack, delay: &pause})
}

// Reject says that no attempt will ever succeed: the message becomes a dead letter,
// with this reason.
func (d *Delivery) Reject(reason string) error {
	return d.settle(&settlement{kind: protocol.SettleReject, reason: cleanReason(reason)})
}

// Extend says that the message is still being worked on, and begins its time anew:
// by so much, or by the ack wait if it is 0.
func (d *Delivery) Extend(by time.Duration) error {
	k := d.consumer
	k.mu.Lock()
	err := d.open()
	if err == nil {
		d.extendLocked(by)
	}
	k.mu.Unlock()
	k.client.kick()
	return err
}

// open returns why nothing can be said of the delivery any more.
func (d *Delivery) open() error {
	if d.settled {
		return ErrSettled
	}
	return d.consumer.err
}

func (d *Delivery) settle(s *settlement) error {
	k := d.consumer
	k.mu.Lock()
	err := d.open()
	if err == nil {
		d.settleLocked(s)
	}
	k.mu.Unlock()
	k.client.kick()
	return err
}

// settleLocked queues what settles the delivery.
func (d *Delivery) settleLocked(s *settlement) {
	d.settled, d.nacked = true, s.kind == protocol.SettleNack
	k := d.consumer
	k.keeper.forget(d)
	if k.live[d.Position] == nil {
		k.live[d.Position] = d
	}
	d.queue(s)
}

func (d *Delivery) extendLocked(by time.Duration) {
	s := &settlement{kind: protocol.SettleExtend}
	if by > 0 {
		s.delay = &by
	}
	d.queue(s)
}

func (d *Delivery) queue(s *settlement) {
	s.delivery, s.done = d, make(chan struct{})
	k := d.consumer
	k.settles.queue = append(k.settles.queue, s)
}

// maxOwed bounds what a consumer remembers of broker crashes.
const maxOwed = 10_000

// forgotten takes that the broker may not know that it delivered what is settled
// here. If it crashed before it had written that down, it delivers it again: to
// this client, as a rule. Then it is not to be handled for a second time, but
// settled again. forgotten reports whether it will be.
func (d *Delivery) forgotten(s *settlement) bool {
	k := d.consumer
	if k == nil || s.confirm || (s.kind != protocol.SettleAck && s.kind != protocol.SettleReject) || k.live[d.Position] != d {
		return false
	}
	if k.owed >= maxOwed {
		maps.DeleteFunc(k.live, func(_ Position, d *Delivery) bool { return d.owed != nil })
		k.owed = 0
	}
	k.owed++
	name := Message{Topic: d.Topic, ID: d.ID, Position: d.Position, Generation: d.Generation}
	s.delivery = &Delivery{Message: name, consumer: k, taken: true, settled: true, owed: s} // not its payload
	k.live[d.Position] = s.delivery
	if d.more {
		s.delivery.pay()
	}
	return true
}

// pay settles again what the broker has delivered again.
func (d *Delivery) pay() {
	s, k := d.owed, d.consumer
	d.owed, d.more = nil, false
	d.epoch = k.settles.epoch
	k.owed--
	k.settles.queue = append(k.settles.queue, s)
}

// answered forgets a delivery that the broker has answered the settlement of.
func (d *Delivery) answered() {
	if k := d.consumer; k != nil && k.live[d.Position] == d {
		delete(k.live, d.Position)
	}
}

// cleanReason makes a reason that the broker takes: bounded, and without control
// characters.
func cleanReason(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) <= protocol.MaxReasonBytes {
		return text
	}
	end := protocol.MaxReasonBytes
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}
