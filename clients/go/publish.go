package tidewire

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"math"
	"slices"

	"github.com/tidewire/tidewire/protocol"
)

// A Receipt is the broker's word that a message is stored: synced to disk, or
// committed by the cluster. Of an ephemeral message it is the word that it was
// passed on to whoever was live.
type Receipt struct {
	ID        string   // of the message, also if the client made it
	Position  Position // of the message; of the first one if this is a duplicate; zero if it is ephemeral
	Duplicate bool     // the id was stored before on that topic; nothing was stored now
}

// Pending is a published message whose answer is under way.
type Pending struct {
	id, topic string
	done      chan struct{}
	receipt   Receipt // this and err are written before done is closed
	err       error
	resolved  bool // guarded by Client.mu
}

// ID returns the id of the message, also if the client made it.
func (p *Pending) ID() string { return p.id }

// Done is closed when the message is answered or given up.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Wait returns the outcome once there is one. When ctx ends first it returns an
// UnknownOutcomeError; the message stays in the outbox, and Wait may be called
// again.
func (p *Pending) Wait(ctx context.Context) (Receipt, error) {
	select {
	case <-p.done:
		return p.receipt, p.err
	default:
	}
	select {
	case <-p.done:
		return p.receipt, p.err
	case <-ctx.Done():
		return Receipt{}, &UnknownOutcomeError{Topic: p.topic, ID: p.id, Err: reason(ctx)}
	}
}

// resolve sets the outcome; the first one counts.
func (p *Pending) resolve(r Receipt, err error) {
	if p.resolved {
		return
	}
	p.resolved = true
	p.receipt, p.err = r, err
	close(p.done)
}

// Publish publishes a message and waits until it is stored. A message without an
// ID gets a random one. It is repeated with the same ID over lost connections
// and retryable refusals until it is answered or ctx ends.
//
// When ctx ends before the message was sent, the error is that of ctx and nothing
// is stored. When it ends later, the error is an [*UnknownOutcomeError], which
// unwraps to that of ctx: the message may or may not be stored, and is not
// repeated any more. A refusal is an [*Error].
//
// Messages are stored in the order in which Publish and PublishAsync were called.
// An ephemeral one may overtake those that are being stored, and if the
// connection is lost before its answer it may come twice.
func (c *Client) Publish(ctx context.Context, m Message) (Receipt, error) {
	out, err := c.enqueue(ctx, m)
	if err != nil {
		return Receipt{}, err
	}
	select {
	case <-out.done:
	case <-ctx.Done():
		c.withdraw(out, reason(ctx))
	}
	return out.receipt, out.err
}

// PublishAsync publishes a message and returns at once, unless the outbox is
// full: then it waits for room until ctx ends, and the error of ctx means that
// the message was not published. Later ctx has no effect. See [Client.Publish]
// for everything else. The payload is copied.
func (c *Client) PublishAsync(ctx context.Context, m Message) (*Pending, error) {
	out, err := c.enqueue(ctx, m)
	if err != nil {
		return nil, err
	}
	return &out.Pending, nil
}

// enqueue puts a message into the outbox, waiting for room.
func (c *Client) enqueue(ctx context.Context, m Message) (*outgoing, error) {
	out, err := newOutgoing(m)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, notSent(ctx)
	}
	c.mu.Lock()
	if err := c.refusing(); err != nil {
		c.mu.Unlock()
		return nil, err
	}
	w, s := c.outbox.add(out), c.session
	c.mu.Unlock()
	if w == nil {
		if s != nil {
			s.kick()
		}
		return out, nil
	}
	return c.awaitRoom(ctx, w)
}

// awaitRoom waits until a message has its place in the outbox. Whoever makes room
// puts it there, so that nobody overtakes it.
func (c *Client) awaitRoom(ctx context.Context, w *waiter) (*outgoing, error) {
	select {
	case <-w.taken:
		return w.message, nil
	case <-w.message.done: // the client has ended, or it is answered already
		select {
		case <-w.taken:
			return w.message, nil
		default:
			return nil, w.message.err
		}
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.outbox.waiting, w)
	if i < 0 { // taken at the last moment
		return w.message, nil
	}
	c.outbox.waiting = slices.Delete(c.outbox.waiting, i, i+1)
	return nil, notSent(ctx)
}

func notSent(ctx context.Context) error {
	return fmt.Errorf("the message was not sent: %w", reason(ctx))
}

// withdraw gives up a message that nobody waits for any more.
func (c *Client) withdraw(m *outgoing, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case m.settled:
	case m.ref != 0:
		m.abandoned = true
		m.resolve(Receipt{}, m.unknown(cause))
	case !m.first.IsZero():
		c.outbox.settle(m, Receipt{}, m.unknown(cause))
	default:
		c.outbox.settle(m, Receipt{}, fmt.Errorf("the message was not sent: %w", cause))
	}
	c.checkDrained()
}

func (m *outgoing) unknown(cause error) error {
	return &UnknownOutcomeError{Topic: m.topic, ID: m.id, Err: cause}
}

// newOutgoing checks a message and makes it the outbox's own.
func newOutgoing(m Message) (*outgoing, error) {
	if m.ID == "" {
		m.ID = newID()
	}
	m.Headers = slices.Clone(m.Headers) // Check sorts them
	if err := m.Check(math.MaxInt); err != nil {
		return nil, err
	}
	m.Payload = bytes.Clone(m.Payload)
	out := &outgoing{message: m, size: wireSize(&m)}
	out.id, out.topic, out.done = m.ID, m.Topic, make(chan struct{})
	return out, nil
}

// newID returns 128 random bits as text that is safe in URLs.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// wireSize is an upper bound of what a message takes in a frame.
func wireSize(m *Message) int {
	const field = 6 // tag and length
	size := len(m.Topic) + len(m.ID) + len(m.Payload) + len(m.ContentType) + len(m.Key) + 12*field
	for _, h := range m.Headers {
		size += len(h.Name) + len(h.Value) + 3*field
	}
	return size
}

// nextPublish returns the next frame of messages for the writer of a session.
func (c *Client) nextPublish(s *session) *protocol.Publish {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != s || c.state != StateOpen || s.away != nil {
		return nil
	}
	p := c.outbox.batch(&s.limits)
	c.checkDrained() // a message that is too large is settled there
	return p
}

// published takes answers.
func (c *Client) published(s *session, results []protocol.PublishResult) {
	c.answered(s, func(o *outbox) {
		for i := range results {
			o.answer(&results[i])
		}
	})
}

// refusedPublish takes the refusal of a whole frame.
func (c *Client) refusedPublish(s *session, frame uint32, err *Error) {
	c.answered(s, func(o *outbox) { o.answerFrame(frame, err) })
}

func (c *Client) answered(s *session, apply func(*outbox)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != s {
		return
	}
	apply(&c.outbox)
	if pause, ok := c.outbox.hold(); ok {
		c.after(pause, s, c.outbox.again)
	}
	if s.away != nil && len(c.outbox.flight) == 0 {
		s.leave()
	}
	c.checkDrained()
	s.kick()
}

// refusing returns why nothing can be published any more. Callers hold mu.
func (c *Client) refusing() error {
	if c.closing {
		return ErrClosed
	}
	return c.err
}

// checkDrained tells Close that everything is answered. Callers hold mu.
func (c *Client) checkDrained() {
	if c.closing && c.outbox.count == 0 && c.drained != nil {
		close(c.drained)
		c.drained = nil
	}
}

// giveUp settles everything in the outbox when the client ends. Callers hold mu.
func (o *outbox) giveUp(err error) {
	waiting := o.waiting
	o.waiting = nil
	for _, w := range waiting {
		w.message.resolve(Receipt{}, err)
	}
	for _, m := range slices.Clone(o.row) {
		switch {
		case m == nil || m.settled:
		case m.ref != 0 || !m.first.IsZero():
			o.settle(m, Receipt{}, m.unknown(err))
		default:
			o.settle(m, Receipt{}, fmt.Errorf("the message was not sent: %w", err))
		}
	}
}
