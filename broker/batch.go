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
	broker   *Broker
	who      *Identity
	age      time.Duration
	order    storage.Order
	refusing bool // the log did not take a message: none may pass it
}

// NewBatch returns an empty batch. age is how long ago its first attempt was
// made, 0 if this is it.
func (b *Broker) NewBatch(who *Identity, age time.Duration) *Batch {
	return &Batch{broker: b, who: who, age: age}
}

// Publish hands a message to the log, waiting a bounded time while the log's
// queue is full. done gets its result, once, perhaps before Publish returns; it
// must not block. Publish is for one goroutine.
func (p *Batch) Publish(ctx context.Context, m *protocol.Message, done func(storage.Result)) {
	e, err := p.broker.entry(p.who, m)
	switch {
	case err != nil:
	case p.refusing:
		err = protocol.Errorf(protocol.CodeOutOfOrder, "an earlier message was refused")
	default:
		err = p.broker.mayPublishNow(p.who)
		p.refusing = err != nil
	}
	if err != nil {
		p.broker.metrics.refused(err)
		done(storage.Result{Err: err})
		return
	}
	e.Order, e.Done = &p.order, done
	if p.age > 0 {
		e.FirstAttempt = time.Now().Add(-p.age)
	}
	if err := p.broker.append(ctx, e); err != nil {
		p.refusing = err.Retryable()
		done(storage.Result{Err: err})
	}
}
