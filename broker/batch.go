package broker

import (
	"context"
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// A Batch publishes the messages of one request one behind the other, without
// waiting for the answer to the one before. What is stored of it is stored in
// its order: after a refusal that invites a repeat everything behind it is
// refused with out_of_order. A message that is wrong in itself stops no other.
type Batch struct {
	broker *Broker
	who    *Identity
	age    time.Duration
	lanes  map[*partition]*lane // of the partitions that it has published to
	paused bool                 // it went over the rate: nothing behind that may pass
}

// NewBatch returns an empty batch. age is how long ago its first attempt was
// made, 0 if this is it.
func (b *Broker) NewBatch(who *Identity, age time.Duration) *Batch {
	return &Batch{broker: b, who: who, age: age, lanes: make(map[*partition]*lane, 1)}
}

// Publish hands a message to the log, waiting a bounded time while the log's
// queue is full. done gets its result, once, perhaps before Publish returns; it
// must not block. Publish is for one goroutine.
func (p *Batch) Publish(ctx context.Context, m *protocol.Message, done func(storage.Result)) {
	pt := p.broker.holds(m.Topic)
	to := p.lanes[pt]
	if to == nil {
		to = &lane{}
		p.lanes[pt] = to
	}
	e, err := p.entry(to, m)
	if err != nil {
		p.broker.metrics.refused(err)
	}
	if e == nil {
		done(storage.Result{Err: err})
		return
	}
	e.Order, e.Done = &to.order, done
	if p.age > 0 {
		e.FirstAttempt = time.Now().Add(-p.age)
	}
	if err := pt.append(ctx, e); err != nil {
		to.refusing = err.Retryable()
		done(storage.Result{Err: err})
	}
}

// entry makes a message ready for the log. There is none if the message was
// refused, or was ephemeral and has gone to its subscribers.
func (p *Batch) entry(to *lane, m *protocol.Message) (e *storage.Entry, err *protocol.Error) {
	if !m.Ephemeral {
		e, err = p.broker.entry(p.who, m, 0)
	}
	switch {
	case err != nil:
		return nil, err
	case to.refusing || p.paused:
		return nil, protocol.Errorf(protocol.CodeOutOfOrder, "an earlier message was refused")
	}
	if err := p.broker.mayPublishNow(p.who); err != nil {
		p.paused = true
		return nil, err
	}
	if m.Ephemeral {
		return nil, p.broker.publishEphemeral(p.who, m, 0)
	}
	return e, nil
}
