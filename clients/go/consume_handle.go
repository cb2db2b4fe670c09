package tidewire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
)

// A RejectError makes a handler's message a dead letter at once.
type RejectError struct {
	Reason string // for whoever looks at the dead letter
}

// Error says the reason.
func (e *RejectError) Error() string { return "rejected: " + e.Reason }

// Reject returns an error with which a handler says that no attempt will ever
// succeed: the message becomes a dead letter, with this reason.
func Reject(reason string) error { return &RejectError{Reason: reason} }

// A RetryError delivers a handler's message again after a pause of choice.
type RetryError struct {
	After time.Duration
}

// Error says the pause.
func (e *RetryError) Error() string { return fmt.Sprintf("try again after %v", e.After) }

// RetryAfter returns an error with which a handler says when the message is to
// come again, instead of the consumer's backoff.
func RetryAfter(pause time.Duration) error { return &RetryError{After: pause} }

// flushTime is how long Consume waits for the last answers of the broker.
const flushTime = 5 * time.Second

// errGrace ends the ctx of handlers when Consume gives up waiting for them.
var errGrace = errors.New("the consumer ends, and its time of grace has passed")

// Consume calls handle with each message of a consumer, creating the consumer if
// it is not there, until ctx ends, the client is closed, or the broker ends it.
// What handle returns settles the message: nil acks it, [Reject] makes it a dead
// letter, [RetryAfter] and every other error deliver it again. Both may be wrapped.
// A panic counts as an error, and is logged.
//
// A message may come more than once: make handling it twice harmless. While handle
// runs, the message is kept from being delivered again. The ctx of handle ends when
// the message is lost to another member, or when the client or the consumer has
// ended.
//
// When ctx ends, nothing more is begun; handlers that run go on to their end, for at
// most Options.Grace, and Consume returns nil when the broker has confirmed what
// they made of their messages. A handler that takes no notice of its ctx is waited
// for. Every other end is an error: ErrClosed, or an [*Error], with CodeTakenOver
// if another member has taken over.
func (c *Client) Consume(ctx context.Context, name string, handle func(context.Context, *Delivery) error, o ConsumeOptions) error {
	o.Concurrency = cmp.Or(o.Concurrency, 1)
	o.Window = cmp.Or(o.Window, o.Concurrency)
	k := newConsumer(c, name, o)
	k.handled = true
	if err := k.join(ctx); err != nil {
		return err
	}
	working, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	for range o.Concurrency {
		k.handlers.Go(func() { k.serve(working, handle) })
	}
	select {
	case <-ctx.Done():
	case <-k.ended:
		stop(k.Err())
		k.handlers.Wait()
		return k.Err()
	}
	return k.drain(ctx, stop)
}

// drain ends a consumer whose handlers may still run.
func (k *Consumer) drain(ctx context.Context, stop context.CancelCauseFunc) error {
	ctx = context.WithoutCancel(ctx)
	k.shut()
	grace, cancel := context.WithTimeout(ctx, cmp.Or(k.options.Grace, defaultGrace))
	defer cancel()
	if k.awaitHandlers(grace) != nil {
		stop(errGrace)
		k.handlers.Wait()
	}
	if err := k.Err(); err != nil {
		return err
	}
	flush, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	return k.Close(flush)
}

// serve handles one message after the other.
func (k *Consumer) serve(ctx context.Context, handle func(context.Context, *Delivery) error) {
	for {
		d, err := k.Next(ctx)
		if err != nil {
			return
		}
		k.settle(d, k.handle(ctx, d, handle))
	}
}

// handle calls the handler with one message.
func (k *Consumer) handle(ctx context.Context, d *Delivery, handle func(context.Context, *Delivery) error) (err error) {
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	k.mu.Lock()
	d.lost = lost
	k.mu.Unlock()
	defer func() {
		if p := recover(); p != nil {
			k.log().Error("a handler panicked", "consumer", k.name, "topic", d.Topic, "id", d.ID, "position", d.Position, "attempt", d.Attempt, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("the handler panicked: %v", p)
		}
	}()
	return handle(ctx, d)
}

// settle does what a handler has chosen; it may have settled the message itself.
func (k *Consumer) settle(d *Delivery, err error) {
	if rejected, ok := errors.AsType[*RejectError](err); ok {
		_ = d.Reject(rejected.Reason)
	} else if retry, ok := errors.AsType[*RetryError](err); ok {
		_ = d.RetryAfter(retry.After)
	} else if err != nil {
		_ = d.Nack()
	} else {
		_ = d.Ack()
	}
}

func (k *Consumer) log() *slog.Logger {
	if k.options.Logger != nil {
		return k.options.Logger
	}
	return slog.Default()
}
