package tidewire

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// State is where a client is with its connection.
type State uint8

// The states. A client begins idle, goes from connecting to open or waiting and
// back, and ends closed.
const (
	StateIdle       State = iota // not begun
	StateConnecting              // an attempt is under way
	StateOpen                    // the broker has welcomed it
	StateWaiting                 // until the next attempt
	StateClosed                  // for good
)

// String returns the state in one word.
func (s State) String() string {
	return [...]string{"idle", "connecting", "open", "waiting", "closed"}[s]
}

// A Client publishes and subscribes over one connection at a time. It is made by
// [Connect] and ended by [Client.Close], or by a broker that says that coming
// back is of no use.
//
// One goroutine, run, owns the state: it alone changes it and makes sessions.
// Everything else reports to the running session or is ignored. mu is never
// held across a write or a call out; Subscription.mu and session.mu may be taken
// under it.
type Client struct {
	options Options
	targets []target
	failure error // of the last attempt; to be read once ended is closed
	life

	mu      sync.Mutex
	state   State
	session *session // the running one, connecting or open; else nil
	outbox  outbox
	tokens  tokens
	welcome Greeting
	readers
	closing bool          // Close was called
	drained chan struct{} // closed when the outbox is empty, once closing
	err     error         // why it has ended
}

// readers are who gets messages.
type readers struct {
	subs      []*Subscription
	consumers []*Consumer
	last      uint32 // number of the newest of both in a session; none is used twice
}

// life is the beginning and the end of a client.
type life struct {
	ctx    context.Context // of run; ends when the client is to stop
	stop   context.CancelFunc
	work   sync.WaitGroup // every goroutine of the client
	opened chan struct{}  // closed when the first session is open
	ended  chan struct{}  // closed after Client.err was set
	web    *http.Client   // for history
}

// Connect makes a client and waits until a broker has welcomed it. It tries
// again, with growing pauses, until ctx ends; the error then is an
// [*UnreachableError]. A refusal that trying again cannot change is returned at
// once: a [*HandshakeError] or a [*CloseError]. That of a token is one, unless
// Options.Token then gives another token.
func Connect(ctx context.Context, o Options) (*Client, error) {
	o = o.withDefaults()
	targets, err := parseTargets(o.URLs)
	if err != nil {
		return nil, err
	}
	c := &Client{
		options: o, targets: targets, outbox: newOutbox(&o),
		life: life{opened: make(chan struct{}), ended: make(chan struct{}), web: newWeb(&o)},
	}
	c.ctx, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(c.ctx, c.web.CloseIdleConnections)
	c.work.Go(c.run)
	select {
	case <-c.opened:
		return c, nil
	case <-c.ended:
		return nil, c.err
	case <-ctx.Done():
		c.stop()
		<-c.ended
		return nil, &UnreachableError{URLs: o.URLs, Last: c.failure, Err: reason(ctx)}
	}
}

// State returns where the client is with its connection.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// A Greeting is what a broker says when it welcomes a client.
type Greeting struct {
	Server  string        // its name and version
	Session string        // name of the session in its logs
	Subject string        // who the token says that the client is; empty if anonymous
	Clock   time.Duration // how far its clock is ahead of the one here, less the way of the answer
}

// Greeting returns what the broker said when the client was connected last.
func (c *Client) Greeting() Greeting {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.welcome
}

// Ended is closed when the client has ended, by Close or by a final refusal of
// the broker; Err then says why.
func (c *Client) Ended() <-chan struct{} { return c.ended }

// Err returns why the client has ended: ErrClosed, or a [*CloseError] or
// [*HandshakeError] that says what must be changed; nil while it lives.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the client: it ends all consumers, each as its own Close does, takes
// no new messages, waits until those published before are answered, ends all
// subscriptions and disconnects. When ctx ends
// first, what is unanswered is given up and the error says how much. Close may
// be called several times, but not from OnState, nor from a handler of Consume.
func (c *Client) Close(ctx context.Context) error {
	closed := c.closeConsumers(ctx)
	c.mu.Lock()
	c.closing = true
	if c.drained == nil && c.outbox.count > 0 {
		c.drained = make(chan struct{})
	}
	drained := c.drained
	refused := c.outbox.waiting
	c.outbox.waiting = nil
	for _, w := range refused {
		w.message.resolve(Receipt{}, ErrClosed)
	}
	c.mu.Unlock()
	err := errors.Join(closed, c.drain(ctx, drained))
	c.stop()
	idle := make(chan struct{})
	go func() { c.work.Wait(); close(idle) }()
	select {
	case <-idle:
	case <-ctx.Done():
		<-c.ended
	}
	return err
}

// drain waits until the outbox is empty. drained is nil if it is.
func (c *Client) drain(ctx context.Context, drained <-chan struct{}) error {
	if drained == nil {
		return nil
	}
	select {
	case <-drained:
		return nil
	case <-c.ended:
		return nil // whoever waits for an answer has its error
	case <-ctx.Done():
	}
	c.mu.Lock()
	n := c.outbox.count
	c.mu.Unlock()
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d published messages were not answered: %w", n, reason(ctx))
}

// enter changes the state and tells OnState.
func (c *Client) enter(state State, err error) {
	c.mu.Lock()
	c.state = state
	c.mu.Unlock()
	if c.options.OnState != nil {
		c.options.OnState(state, err)
	}
}

// attach makes a session the running one and queues its first frame, which
// restores all subscriptions.
func (c *Client) attach(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = s
	connect := &tidewirev1.Connect{Client: c.options.Name}
	for _, sub := range c.subs {
		if f := sub.ask(c.last + 1); f != nil {
			c.last++
			s.subs[c.last] = sub
			connect.Subscriptions = append(connect.Subscriptions, f)
		}
	}
	for _, k := range c.consumers {
		if f := k.ask(c.last + 1); f != nil {
			c.last++
			s.members[c.last] = k
			connect.Subscriptions = append(connect.Subscriptions, f)
		}
	}
	s.send(connect)
}

// detach forgets the running session.
func (c *Client) detach() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = nil
	c.outbox.lost()
	for _, sub := range c.subs {
		sub.disconnected()
	}
	for _, k := range c.consumers {
		k.disconnected()
	}
	c.checkDrained()
}

// welcomed opens a session.
func (c *Client) welcomed(s *session, f *tidewirev1.Welcome) {
	const silence = 35 * time.Second // the broker's own defaults
	d := time.Duration(f.PingIntervalMs+f.PingTimeoutMs) * time.Millisecond
	if d <= 0 {
		d = silence
	}
	s.socket.silence.Store(int64(d))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != s || !s.welcome.IsZero() {
		return
	}
	s.welcome = time.Now()
	s.limits = limitsOf(f.Limits)
	c.tokens.invalid = false
	c.welcome = Greeting{Server: f.Server, Session: f.Session, Subject: f.Subject}
	if f.Time != 0 {
		c.welcome.Clock = protocol.Time(f.Time).Sub(s.welcome.Round(0)) // wall clocks both
	}
	s.renew(f)
	close(s.opened)
}

// limitsOf reads what the broker allows; what it does not say is unlimited.
func limitsOf(f *tidewirev1.Limits) limits {
	const margin = 64 // tag, length, ref and age of a Publish frame
	or := func(v uint32, otherwise int) int {
		if v == 0 {
			return otherwise
		}
		return int(v)
	}
	return limits{
		inFlight: or(f.GetInFlight(), 256),
		messages: or(f.GetPublishMessages(), 1000),
		payload:  or(f.GetPayloadBytes(), math.MaxInt),
		frame:    or(f.GetFrameBytes(), 1<<20) - margin,
	}
}

// sentAway notes that the broker wants the session to end. Nothing is published
// on it any more; when all is answered, or the broker closes, it ends.
func (c *Client) sentAway(s *session, f *tidewirev1.GoAway) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != s || s.away != nil {
		return
	}
	s.away = &farewell{GoAway: f, at: time.Now()}
	if len(c.outbox.flight) == 0 {
		s.leave()
	} else {
		c.after(maxFarewell, s, s.leave)
	}
}

// maxFarewell is how long a session that was sent away waits for its answers.
const maxFarewell = 5 * time.Second

// after calls f, under mu, unless the session has ended by then. Callers hold mu.
func (c *Client) after(d time.Duration, s *session, f func()) {
	time.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.session == s {
			f()
			s.kick()
		}
	})
}

// subscription returns the subscription that a session knows by a number.
func (c *Client) subscription(s *session, number uint32) *Subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != s {
		return nil
	}
	return s.subs[number]
}
