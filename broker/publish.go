package broker

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// entry checks a message and makes it ready for the log: may its publisher, is
// it within the limits. The costly work, encoding and hashing, is done here, on
// the publisher's goroutine.
func (b *Broker) entry(who *Identity, m *protocol.Message) (*storage.Entry, *protocol.Error) {
	if err := m.Check(b.options().MaxPayload); err != nil {
		return nil, err
	}
	if m.Ephemeral || !m.ExpiresAt.IsZero() {
		return nil, protocol.Errorf(protocol.CodeUnsupported, "this version stores every message until retention: leave out `ephemeral` and `expires_at`")
	}
	if err := who.MayPublish(m.Topic); err != nil {
		return nil, err
	}
	m.Publisher = who.Subject
	size := len(m.Payload) + len(m.Topic) + len(m.ID) + 64
	e := &storage.Entry{Topic: m.Topic, Record: protocol.AppendRecord(make([]byte, 0, size), m)}
	if m.ID != "" {
		e.Key = storage.KeyOf(m.Topic, m.ID)
		e.Payload = storage.PayloadHash(m.Payload)
	}
	return e, nil
}

// Publish publishes one message and waits for its answer. age is how long ago
// the first attempt was made, 0 if this is it. When ctx ends first the error has
// the code outcome_unknown.
func (b *Broker) Publish(ctx context.Context, who *Identity, m *protocol.Message, age time.Duration) (storage.Result, error) {
	err := b.mayPublishNow(who)
	var e *storage.Entry
	if err == nil {
		e, err = b.entry(who, m)
	}
	if err != nil {
		b.metrics.refused(err)
		return storage.Result{}, err
	}
	if age > 0 {
		e.FirstAttempt = time.Now().Add(-age)
	}
	answer := make(chan storage.Result, 1)
	e.Done = func(r storage.Result) { answer <- r }
	if err := b.append(ctx, e); err != nil {
		return storage.Result{}, err
	}
	select {
	case r := <-answer:
		if r.Err != nil {
			return storage.Result{}, r.Err
		}
		return r, nil
	case <-ctx.Done():
		return storage.Result{}, protocol.Errorf(protocol.CodeUnknown, "the message was not answered in time: repeat it with the same id")
	}
}

// append queues entries, waiting a bounded time for room.
func (b *Broker) append(ctx context.Context, entries ...*storage.Entry) *protocol.Error {
	ctx, cancel := context.WithTimeout(ctx, b.options().AppendTimeout)
	defer cancel()
	if err := b.log.Append(ctx, entries...); err != nil {
		e := protocol.AsError(err)
		if e.Code == protocol.CodeOverloaded {
			b.metrics.limits.Met(protocol.LimitQueue)
		}
		b.metrics.refused(e)
		return e
	}
	return nil
}

// publishing is what a session knows of its published messages. All but order,
// which belongs to the log, is guarded by Session.mu.
type publishing struct {
	order    storage.Order
	results  []protocol.PublishResult // become a Published frame when there is room to write
	inFlight int                      // messages that wait for their answer
	room     sync.Cond                // inFlight has become smaller, or the session has ended
	refusing bool                     // the edge refused a message: none may pass before a resume
	resume   bool                     // a resume has come that the log has not seen
	rate     *rate.Limiter            // of a session without a subject; nil before it is needed
}

// resultCost is about what an answer takes while it waits to be written.
const resultCost = 256

// Publish publishes the messages of a frame; the answers are queued for the
// client. It waits while too many messages wait for their answer, so that a
// client which does not wait is slowed down by its own connection.
func (s *Session) Publish(ctx context.Context, p *protocol.Publish) {
	who := s.Identity()
	if s.overRate(who, p) {
		return
	}
	entries := make([]*storage.Entry, 0, len(p.Messages))
	var refused []protocol.PublishResult
	for i := range p.Messages {
		ref := p.Ref + uint32(i)
		e, err := s.broker.entry(who, &p.Messages[i])
		if err != nil {
			s.broker.metrics.refused(err)
			refused = append(refused, protocol.PublishResult{Ref: ref, Err: err})
			continue
		}
		e.Order = &s.pub.order
		if p.RepeatAge > 0 {
			e.FirstAttempt = time.Now().Add(-p.RepeatAge)
		}
		e.Done = func(r storage.Result) {
			s.answer(protocol.PublishResult{Ref: ref, Position: r.Position, Duplicate: r.Duplicate, Err: r.Err})
		}
		entries = append(entries, e)
	}
	if !s.admit(p.Resume, len(entries), refused) || len(entries) == 0 {
		return
	}
	refusing, resume := s.takeOrder()
	entries[0].Resume = resume
	if refusing {
		s.refuse(entries, protocol.Errorf(protocol.CodeOutOfOrder, "an earlier message of this connection was refused: repeat from that one on, with `resume`"))
	} else if err := s.broker.append(ctx, entries...); err != nil {
		s.refuse(entries, err)
	}
}

// admit queues the answers of refused messages and waits until n more messages
// may be in flight. It reports whether the session goes on.
func (s *Session) admit(resume bool, n int, refused []protocol.PublishResult) bool {
	s.mu.Lock()
	if resume {
		s.pub.refusing, s.pub.resume = false, true
	}
	s.pub.results = append(s.pub.results, refused...)
	s.checkHard()
	s.unlockAndWake()
	s.mu.Lock()
	defer s.mu.Unlock()
	if most := s.broker.options().MaxInFlight; s.end == nil && s.pub.inFlight > 0 && s.pub.inFlight+n > most {
		s.broker.metrics.limits.Met(protocol.LimitInFlight)
	}
	for s.end == nil && s.pub.inFlight > 0 && s.pub.inFlight+n > s.broker.options().MaxInFlight {
		s.pub.room.Wait()
	}
	s.pub.inFlight += n
	return s.end == nil
}

// takeOrder returns whether messages are refused until a resume, and whether
// one has come that the log has not seen.
func (s *Session) takeOrder() (refusing, resume bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resume = s.pub.resume
	s.pub.resume = false
	return s.pub.refusing, resume
}

// refuse answers all entries of a frame with an error. If that is retryable,
// later messages may not pass them.
func (s *Session) refuse(entries []*storage.Entry, err *protocol.Error) {
	s.mu.Lock()
	s.pub.refusing = s.pub.refusing || err.Retryable()
	s.mu.Unlock()
	for _, e := range entries {
		e.Done(storage.Result{Err: err})
	}
}

// answer queues the answer of one message.
func (s *Session) answer(r protocol.PublishResult) {
	s.mu.Lock()
	s.pub.inFlight--
	if s.end == nil {
		s.pub.results = append(s.pub.results, r)
	}
	s.pub.room.Signal()
	s.checkHard()
	s.unlockAndWake()
}
