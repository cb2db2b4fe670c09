package tidewire

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// A Subscription yields the messages of all topics that its filter selects. It is
// made by [Client.Subscribe], and ended by Close or with its client. It lives on
// over lost connections.
//
// At most one loop at a time may read it. While nobody does, or while the loop's
// body is slow, what comes is held in a bounded queue, and the broker gets no new
// credit: it reads the log for the subscription when the loop has caught up. So a
// slow loop costs no more memory than the queue, loses nothing before retention,
// and delays neither other subscriptions nor publishing. The naive way, not to
// read from the connection meanwhile, would delay all of them, and leave the
// broker's pings without an answer.
//
// Should the queue fill up nevertheless, with very small messages or without
// credit, the subscription is taken back, and begun again from its place in the
// log.
type Subscription struct {
	client  *Client
	filter  string
	options SubscribeOptions
	looping atomic.Bool
	begun   latch // closed when the broker has confirmed it for the first time, or it has ended
	ready   bell  // the loop has something to do

	mu     sync.Mutex
	cursor cursor
	queue  queue
	flow   flow
	kept   place  // see Position
	others vector // where the loop is in the other partitions than that of its message
	told   bool   // OnCaughtUp was called, or will be
	err    error  // why it has ended

	dropped bool // it has ended, and what is in the queue is not wanted
}

// Subscribe begins a subscription and waits until the broker has confirmed it;
// ctx bounds only that wait. Without a connection it waits for one. Refusals are
// [*Error] values.
func (c *Client) Subscribe(ctx context.Context, filter string, o SubscribeOptions) (*Subscription, error) {
	s, err := newSubscription(c, filter, o)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	if err := c.refusing(); err != nil {
		c.mu.Unlock()
		return nil, err
	}
	c.subs = append(c.subs, s)
	c.askLocked(s)
	c.mu.Unlock()
	select {
	case <-s.begun:
		if err := s.Err(); err != nil {
			return nil, err
		}
		return s, nil
	case <-ctx.Done():
		s.Close()
		return nil, fmt.Errorf("the subscription to %q was not confirmed: %w", filter, reason(ctx))
	}
}

func newSubscription(c *Client, filter string, o SubscribeOptions) (*Subscription, error) {
	if _, err := protocol.ParseFilter(filter); err != nil {
		return nil, err
	}
	start, err := protocol.ParseStart(o.From)
	if err != nil {
		return nil, err
	}
	if o.QueueBytes <= 0 {
		o.QueueBytes = defaultQueueBytes
	}
	credit, err := newFlow(&o)
	if err != nil {
		return nil, err
	}
	s := &Subscription{
		client: c, filter: filter, options: o, flow: credit,
		begun: make(latch), ready: make(bell, 1),
		queue: queue{limit: o.QueueBytes},
	}
	s.cursor.from = o.From
	if start.Kind == protocol.StartPosition {
		s.cursor.place, s.kept = place{text: o.From}, place{text: o.From}
	}
	return s, nil
}

// Filter returns the filter.
func (s *Subscription) Filter() string { return s.filter }

// Err returns why the subscription has ended: ErrClosed, also after its own Close,
// a refusal, or what ended the client; nil while it lives.
func (s *Subscription) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == errQuiet { //nolint:errorlint // never wrapped
		return ErrClosed
	}
	return s.err
}

// Position returns what to keep in order to go on later, as
// SubscribeOptions.From: all before it was handled. It moves behind a message
// when the loop asks for the next one, so the last message of a loop that is left
// counts as not handled; take its PositionAfter where it was.
func (s *Subscription) Position() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.String()
}

// PositionAfter returns what Position will be when m, the message that the loop got
// last, was handled. In a stream of several partitions that lists all that the
// filter reads, and the position of m itself does not do.
func (s *Subscription) PositionAfter(m *Message) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case m.Position.IsZero(): // it is ephemeral, and moves nothing
		return s.kept.String()
	case len(s.others) == 0:
		return m.Position.String()
	}
	return s.others.with(m.Position).String()
}

// Messages returns a loop over the messages:
//
//	for m, err := range sub.Messages(ctx) {
//		if gap, ok := errors.AsType[*tidewire.GapError](err); ok {
//			log.Print(gap) // and go on
//			continue
//		}
//		if err != nil {
//			return err // the loop ends here
//		}
//		...
//	}
//
// A message comes with a nil error, an error with a nil message. A [*GapError]
// does not end the loop, every other error does: that of ctx, or what ended the
// subscription. After [Subscription.Close] the loop ends without one. A loop that
// was left can be taken up by another.
func (s *Subscription) Messages(ctx context.Context) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		if !s.looping.CompareAndSwap(false, true) {
			yield(nil, errBusy)
			return
		}
		defer s.looping.Store(false)
		for {
			e, err := s.next(ctx)
			if err == errQuiet { //nolint:errorlint // never wrapped
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if !s.pass(ctx, e, yield) {
				return
			}
		}
	}
}

// Handle calls handle with one message after the other until ctx ends, handle
// returns an error, or the subscription ends, and returns that error; nil after
// [Subscription.Close]. The position moves when handle has returned nil. Without
// OnGap a gap is such an error too.
func (s *Subscription) Handle(ctx context.Context, handle func(context.Context, *Message) error) error {
	for m, err := range s.Messages(ctx) {
		if err != nil {
			return err
		}
		if err := handle(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// next returns the next event, waiting for one.
func (s *Subscription) next(ctx context.Context) (event, error) {
	for {
		if ctx.Err() != nil {
			return event{}, reason(ctx)
		}
		s.mu.Lock()
		e, ok := s.queue.pop()
		again := ok && s.cursor.phase == phaseStopped && s.queue.low()
		err := s.err
		s.mu.Unlock()
		if again {
			s.client.ask(s)
		}
		if ok {
			return e, nil
		}
		if err != nil {
			return event{}, err
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
		}
	}
}

// pass hands an event to the loop's body, and notes that it was handled. It
// reports whether the loop goes on.
func (s *Subscription) pass(ctx context.Context, e event, yield func(*Message, error) bool) bool {
	switch {
	case e.chunk != nil:
		return s.passChunk(ctx, e, yield)
	case e.gap != nil && s.options.OnGap != nil:
		s.options.OnGap(e.gap)
	case e.gap != nil && !yield(nil, e.gap):
		return false
	case e.caughtUp && s.options.OnCaughtUp != nil:
		s.options.OnCaughtUp()
	}
	s.keep(e.end)
	return true
}

// passed gives the broker back what an event that was handled has cost.
func (s *Subscription) passed(e *event) {
	s.mu.Lock()
	due := s.flow.handled(e.cost)
	s.mu.Unlock()
	if due {
		s.client.giveBack(s)
	}
}

// passChunk hands out the messages of a chunk. What remains when the loop is left
// goes back into the queue.
func (s *Subscription) passChunk(ctx context.Context, e event, yield func(*Message, error) bool) bool {
	skip := e.seen
	if !e.chunk.Ephemeral() {
		s.mu.Lock()
		s.others = e.others
		s.mu.Unlock()
	}
	for m, err := range e.chunk.Messages() {
		if err != nil {
			s.end(fmt.Errorf("a message of the broker cannot be read: %w", err))
			return true
		}
		if e.chunk.Ephemeral() { // of several in a frame those that were handed out are counted
			if skip--; skip >= 0 {
				continue
			}
		} else if m.Position.Offset <= e.above {
			continue
		}
		if ctx.Err() != nil {
			s.putBack(e)
			return true // next tells why
		}
		e.above = m.Position.Offset
		e.seen++
		if !yield(&m, nil) {
			s.putBack(e)
			return false
		}
		if !s.keep(e.others.with(m.Position)) {
			return true
		}
	}
	s.keep(e.end)
	s.passed(&e)
	return true
}

func (s *Subscription) putBack(e event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue.putBack(e)
}

// keep moves the position. It reports whether the loop is to go on.
func (s *Subscription) keep(p place) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.isZero() {
		s.kept = p
	}
	return !s.dropped
}

// Close ends the subscription. What was received and not yet handled is dropped:
// the position stays before it.
func (s *Subscription) Close() {
	c := s.client
	c.mu.Lock()
	c.subs = slices.DeleteFunc(c.subs, func(other *Subscription) bool { return other == s })
	running := c.session
	s.mu.Lock()
	number := s.cursor.number
	s.mu.Unlock()
	if running != nil && number != 0 {
		delete(running.subs, number)
		running.send(&tidewirev1.Unsubscribe{Sub: number})
	}
	c.mu.Unlock()
	s.end(errQuiet)
}

// errQuiet ends a loop without an error: the program closed the subscription.
var errQuiet = errors.New("the subscription is closed")
