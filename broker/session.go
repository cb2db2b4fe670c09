package broker

import (
	"slices"
	"sync"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// SessionOptions say whose session it is and how it is written to.
type SessionOptions struct {
	Name     string // for logs and listings
	Identity *Identity
	Codec    protocol.Codec
	// Wake is called when Take has something to return after it returned
	// nothing. It must not block, and it is never called twice without a Take
	// that returned nothing in between, so that it can start a writer.
	Wake func()
}

// A Session is one connected client. All methods may be called from many
// goroutines, but Take, Publish and Subscribe each from one at a time.
//
// What waits for the client is bounded: deliveries by the soft limit, beyond
// which subscriptions read the log at the client's own pace, and everything by
// the hard limit, beyond which the session is ended.
type Session struct {
	broker *Broker
	name   string
	codec  protocol.Codec
	wake   func()

	mu       sync.Mutex
	client   string // what the client calls itself
	identity *Identity
	subs     map[uint32]*subscription
	behind   []*part // those that are not live, next to be served first
	out      outbox
	pub      publishing
	replay   replay
	inLine   bool            // a worker will read, or reads, the log for it
	pumping  bool            // Wake was called, and Take has not returned nothing since
	end      *protocol.Error // why it has ended
}

// NewSession returns a session. [Session.Close] frees it.
func (b *Broker) NewSession(o SessionOptions) *Session {
	s := &Session{broker: b, name: o.Name, codec: o.Codec, wake: o.Wake, identity: o.Identity}
	s.pub.room.L = &s.mu
	b.metrics.sessions.Inc()
	return s
}

// Identity returns who the session is.
func (s *Session) Identity() *Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.identity
}

// SetClient notes what the client calls itself, for listings.
func (s *Session) SetClient(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client = name
}

// describe returns how listings show the session.
func (s *Session) describe() (name, client, subject string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.name, s.client, s.identity.Subject
}

// SetIdentity puts a refreshed token in force. Subscriptions that it does not
// allow any more end with an error.
func (s *Session) SetIdentity(id *Identity) {
	s.mu.Lock()
	s.identity = id
	var lost []*subscription
	for _, sub := range s.subs {
		if err := sub.allowed(id); err != nil {
			s.out.push(s.codec.AppendServer(nil, protocol.ErrorFrame(0, sub.number, err)))
			s.drop(sub)
			lost = append(lost, sub)
		}
	}
	s.checkHard()
	s.unlockAndWake()
	for _, sub := range lost {
		s.broker.leave(sub)
	}
}

// Send queues a frame of the edge's own.
func (s *Session) Send(frames ...any) {
	s.mu.Lock()
	for _, f := range frames {
		if s.end == nil {
			s.out.push(s.codec.AppendServer(nil, f))
		}
	}
	s.checkHard()
	s.unlockAndWake()
}

// End ends the session for a reason: nothing is delivered any more, what is
// queued can still be taken, and then Take reports the reason.
func (s *Session) End(reason *protocol.Error) {
	s.mu.Lock()
	s.endLocked(reason)
	s.unlockAndWake()
}

// endLocked ends the session; the first reason counts.
func (s *Session) endLocked(reason *protocol.Error) {
	if s.end != nil {
		return
	}
	s.out.push(s.codec.AppendServer(nil, protocol.ErrorFrame(0, 0, reason)))
	s.end = reason
	s.broker.metrics.limits.Refused(reason)
	s.behind = nil
	s.pub.room.Broadcast()
}

// checkHard ends a session for which too much waits.
func (s *Session) checkHard() {
	if s.out.size()+len(s.pub.results)*resultCost > s.broker.options().HardOutbound {
		s.out.clear()
		s.pub.results = nil
		s.endLocked(protocol.Exceeded(protocol.LimitOutboundHard, "more than %d bytes wait for this connection: read what arrives before sending more", s.broker.options().HardOutbound))
	}
}

// Close frees the session: its subscriptions end, waiting publishes return.
// Messages that were published and not yet answered may still be stored.
func (s *Session) Close() {
	s.mu.Lock()
	subs := s.subs
	s.subs, s.behind = nil, nil
	s.out.clear()
	for _, sub := range subs {
		s.forget(sub)
	}
	if s.end == nil {
		s.end = protocol.Errorf(protocol.CodeGoingAway, "the session is closed")
	}
	s.pub.room.Broadcast()
	s.mu.Unlock()
	for _, sub := range subs {
		s.broker.leave(sub)
	}
	s.broker.metrics.sessions.Dec()
}

// Subscribe begins a subscription and queues its answer.
func (s *Session) Subscribe(req *tidewirev1.Subscribe) {
	err := s.checkNumber(req.Sub)
	if err == nil {
		err = s.broker.takeSubscription()
	}
	var sub *subscription
	var frames []any
	switch {
	case err != nil:
	case req.Consumer != "":
		if err = s.consume(req); err == nil {
			return
		}
		s.broker.giveSubscriptions()
	default:
		if sub, frames, err = s.subscribe(req); err != nil {
			s.broker.giveSubscriptions()
		}
	}
	if err != nil {
		s.broker.metrics.limits.Refused(err)
		s.Send((&protocol.RequestError{Request: "subscribe", Sub: req.Sub, Err: err}).Frame())
		return
	}
	s.mu.Lock()
	if s.end == nil {
		s.register(sub)
		for _, p := range sub.parts {
			s.fallBack(p)
		}
		for _, f := range frames {
			s.out.push(s.codec.AppendServer(nil, f))
		}
	} else {
		s.broker.giveSubscriptions()
	}
	s.checkHard()
	s.unlockAndWake()
}

// register makes a subscription, which is behind, one of the session's. Callers
// hold mu.
func (s *Session) register(sub *subscription) {
	if s.subs == nil {
		s.subs = make(map[uint32]*subscription, 1)
	}
	s.subs[sub.number] = sub
	s.broker.metrics.behind.Inc()
}

func (s *Session) checkNumber(number uint32) *protocol.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.end != nil:
		return s.end
	case number == 0:
		return protocol.Errorf(protocol.CodeBadRequest, "`sub` is missing: give the subscription a number above 0")
	case s.subs[number] != nil:
		return protocol.Errorf(protocol.CodeSubscriptionInUse, "the session already has a subscription %d, choose another number", number)
	case len(s.subs) >= s.broker.options().MaxSubs:
		return protocol.Exceeded(protocol.LimitSubscriptions, "the session has %d subscriptions, at most %d are allowed", len(s.subs), s.broker.options().MaxSubs)
	}
	return nil
}

// Unsubscribe ends a subscription and queues the answer; nothing of the
// subscription comes after it.
func (s *Session) Unsubscribe(number uint32) {
	s.mu.Lock()
	sub := s.subs[number]
	if sub == nil {
		s.mu.Unlock()
		err := protocol.Errorf(protocol.CodeUnknownSubscription, "the session has no subscription %d", number)
		s.Send((&protocol.RequestError{Request: "unsubscribe", Sub: number, Err: err}).Frame())
		return
	}
	s.drop(sub)
	s.out.push(s.codec.AppendServer(nil, &tidewirev1.Unsubscribed{Sub: number}))
	s.checkHard()
	s.unlockAndWake()
	if sub.post != nil {
		sub.post.goodbye(sub.worker)
	}
	s.broker.leave(sub)
}

// drop closes a subscription. The caller makes it leave its group afterwards.
func (s *Session) drop(sub *subscription) {
	s.forget(sub)
	delete(s.subs, sub.number)
	s.behind = slices.DeleteFunc(s.behind, func(p *part) bool { return p.subscription == sub })
}

// unlockAndWake unlocks mu, and wakes the pump if there is something for it.
func (s *Session) unlockAndWake() {
	wake := !s.pumping && s.pending()
	if wake {
		s.pumping = true
	}
	s.mu.Unlock()
	if wake {
		s.wake()
	}
}

// pending reports whether Take would have something to do.
func (s *Session) pending() bool {
	return len(s.pub.results) > 0 || s.out.bytes > 0 || s.reads() || s.end != nil
}
