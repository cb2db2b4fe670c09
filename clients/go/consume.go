package tidewire

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

// A Consumer is this client's membership in a consumer of the broker: a named
// subscription of which the broker keeps the progress. Each message goes to one
// of its members, and comes again, to any of them, until it is settled. It is made
// by [Client.Consumer], and ended by Close, with its client, or by the broker.
// [Client.Consume] is the form with a handler.
//
// It lives on over lost connections. What was received before stays valid: the
// broker goes by the generation that each delivery carries.
type Consumer struct {
	client  *Client
	name    string
	options ConsumeOptions
	bells
	handled  bool           // Consume has made it
	handlers sync.WaitGroup // of Consume

	mu       sync.Mutex
	joined   joined
	queue    []*Delivery
	live     map[Position]*Delivery // of each message that is worked on, or whose answer is due
	settles  settleBox
	keeper   keeper
	owed     int   // of live, see Delivery.forgotten
	draining bool  // nothing more is handed out
	err      error // why it has ended
}

// bells are what others wait for.
type bells struct {
	begun latch         // closed when the broker has confirmed it for the first time, or it has ended
	ready bell          // Next has something to do
	ended chan struct{} // closed after err was set
}

// joined is where a consumer is with the broker.
type joined struct {
	phase      phase
	number     uint32 // in the running session, 0 for none
	generation uint64
	created    bool
	pause      backoff
}

// Consumer joins a consumer of the broker, creating it if it is not there, and
// waits until the broker has confirmed it; ctx bounds only that wait. Refusals are
// [*Error] values.
func (c *Client) Consumer(ctx context.Context, name string, o ConsumeOptions) (*Consumer, error) {
	if o.Window == 0 {
		o.Window = defaultWindow
	}
	k := newConsumer(c, name, o)
	if err := k.join(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

func newConsumer(c *Client, name string, o ConsumeOptions) *Consumer {
	return &Consumer{
		client: c, name: name, options: o, keeper: newKeeper(), live: make(map[Position]*Delivery),
		bells: bells{begun: make(latch), ready: make(bell, 1), ended: make(chan struct{})},
	}
}

// join begins the membership and waits until it is confirmed.
func (k *Consumer) join(ctx context.Context) error {
	if err := k.options.check(k.name); err != nil {
		return err
	}
	c := k.client
	c.mu.Lock()
	if err := c.refusing(); err != nil {
		c.mu.Unlock()
		return err
	}
	c.consumers = append(c.consumers, k)
	c.joinLocked(k)
	c.mu.Unlock()
	select {
	case <-k.begun:
		return k.Err()
	case <-ctx.Done():
		k.leave(ErrClosed)
		return fmt.Errorf("the consumer %s was not confirmed: %w", k.name, reason(ctx))
	}
}

// Name returns the name of the consumer.
func (k *Consumer) Name() string { return k.name }

// Generation returns the generation of the consumer as this client knows it. It
// grows when the consumer is taken over or moved.
func (k *Consumer) Generation() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.joined.generation
}

// Created reports whether it was this client that has created the consumer.
func (k *Consumer) Created() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.joined.created
}

// Err returns why the consumer has ended: ErrClosed, a refusal, with
// CodeTakenOver if another member has taken over, or what ended the client; nil
// while it lives.
func (k *Consumer) Err() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// Next returns the next message, waiting for one. It must be settled by a method
// of the delivery, or it is delivered again when the ack wait has passed. The
// error is that of ctx, or what ended the consumer: ErrClosed after Close. Next
// may be called from many goroutines.
func (k *Consumer) Next(ctx context.Context) (*Delivery, error) {
	for {
		if ctx.Err() != nil {
			return nil, reason(ctx)
		}
		d, err := k.take()
		if d != nil || err != nil {
			return d, err
		}
		select {
		case <-k.ready:
		case <-ctx.Done():
		}
	}
}

// take returns what Next returns, if there is something.
func (k *Consumer) take() (*Delivery, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.err != nil:
		k.ready.ring() // the others
		return nil, k.err
	case k.draining:
		k.ready.ring()
		return nil, ErrClosed
	case len(k.queue) == 0:
		return nil, nil
	}
	d := k.queue[0]
	k.queue[0] = nil
	k.queue = k.queue[1:]
	d.taken = true
	if !k.handled {
		k.keeper.forget(d)
		delete(k.live, d.Position) // should the program forget it, it is to come again
	}
	if len(k.queue) > 0 {
		k.ready.ring()
	}
	return d, nil
}

// Deliveries returns a loop over what Next returns. It ends with the error that
// Next has, but for ErrClosed, with which it ends in silence.
func (k *Consumer) Deliveries(ctx context.Context) iter.Seq2[*Delivery, error] {
	return func(yield func(*Delivery, error) bool) {
		for {
			d, err := k.Next(ctx)
			if errors.Is(err, ErrClosed) {
				return
			}
			if !yield(d, err) || err != nil {
				return
			}
		}
	}
}

// Close ends the membership: Next gives nothing more. Close waits until handlers of
// Consume have returned, and until the broker has confirmed on disk all that was
// said of deliveries before, or ctx ends. What is not settled then, taken or not,
// goes to other members, or to who comes next.
func (k *Consumer) Close(ctx context.Context) error {
	k.shut()
	err := k.awaitHandlers(ctx)
	if err == nil {
		err = k.awaitAnswers(ctx)
	}
	k.leave(ErrClosed)
	return err
}

// shut hands out nothing more.
func (k *Consumer) shut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.draining = true
	k.ready.ring()
}

// awaitHandlers waits until no handler runs.
func (k *Consumer) awaitHandlers(ctx context.Context) error {
	idle := make(chan struct{})
	go func() { k.handlers.Wait(); close(idle) }()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("handlers of the consumer %s still run: %w", k.name, reason(ctx))
	}
}

// awaitAnswers waits until all that was said of deliveries is answered.
func (k *Consumer) awaitAnswers(ctx context.Context) error {
	k.mu.Lock()
	if k.err != nil {
		k.mu.Unlock()
		return nil // everything has its outcome
	}
	emptied := k.settles.begin()
	k.mu.Unlock()
	k.client.kick()
	select {
	case <-emptied:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the broker has not confirmed all acknowledgements to the consumer %s: %w", k.name, reason(ctx))
	}
}

// leave ends the membership, and tells the broker.
func (k *Consumer) leave(err error) {
	c := k.client
	c.mu.Lock()
	c.consumers = slices.DeleteFunc(c.consumers, func(other *Consumer) bool { return other == k })
	running := c.session
	k.mu.Lock()
	number := k.joined.number
	k.mu.Unlock()
	if running != nil && number != 0 {
		delete(running.members, number)
		running.send(&tidewirev1.Unsubscribe{Sub: number})
	}
	c.mu.Unlock()
	k.end(err)
}

// end ends the consumer; the first reason counts.
func (k *Consumer) end(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.endLocked(err)
}

func (k *Consumer) endLocked(err error) {
	if k.err != nil {
		return
	}
	k.err = err
	k.joined.phase, k.joined.number = phaseEnded, 0
	k.queue = nil
	clear(k.live)
	k.keeper.stop()
	k.settles.giveUp(err)
	close(k.ended)
	k.begun.close()
	k.ready.ring()
}
