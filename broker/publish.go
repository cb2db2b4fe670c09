package broker

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// check says whether a message may be published: may its publisher, is it within
// the limits. It notes who the publisher is.
func (b *Broker) check(who *Identity, m *protocol.Message) *protocol.Error {
	if err := m.Check(b.options().MaxPayload); err != nil {
		return err
	}
	if err := who.MayPublish(m.Topic); err != nil {
		return err
	}
	m.Publisher = who.Subject
	return nil
}

// recordSize is about what the record of a message takes.
func recordSize(m *protocol.Message) int { return len(m.Payload) + len(m.Topic) + len(m.ID) + 64 }

// entry checks a message and makes it ready for the log. origin stands for the
// session that publishes it, 0 for none. The costly work, encoding and hashing,
// is done here, on the publisher's goroutine.
func (b *Broker) entry(who *Identity, m *protocol.Message, origin uint64) (*storage.Entry, *protocol.Error) {
	if err := b.check(who, m); err != nil {
		return nil, err
	}
	m.Origin = origin
	e := &storage.Entry{Topic: m.Topic, Record: protocol.AppendRecord(make([]byte, 0, recordSize(m)), m), Received: time.Now()}
	if m.ID != "" {
		e.Key = storage.KeyOf(m.Topic, m.ID)
		e.Payload = storage.PayloadHash(m.Payload)
	}
	return e, nil
}

// Publish publishes one message and waits for its answer. age is how long ago
// the first attempt was made, 0 if this is it. When ctx ends first the error has
// the code outcome_unknown. An ephemeral message has no position in its answer.
func (b *Broker) Publish(ctx context.Context, who *Identity, m *protocol.Message, age time.Duration) (storage.Result, error) {
	err := b.mayPublishNow(who)
	if err == nil && m.Ephemeral {
		if err = b.publishEphemeral(who, m, 0); err == nil {
			return storage.Result{}, nil
		}
	}
	var e *storage.Entry
	if err == nil {
		e, err = b.entry(who, m, 0)
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
	if err := b.holds(m.Topic).append(ctx, e); err != nil {
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
func (pt *partition) append(ctx context.Context, entries ...*storage.Entry) *protocol.Error {
	ctx, cancel := context.WithTimeout(ctx, pt.broker.options().AppendTimeout)
	defer cancel()
	if err := pt.log.Append(ctx, entries...); err != nil {
		e := protocol.AsError(err)
		if e.Code == protocol.CodeOverloaded {
			pt.broker.metrics.limits.Met(protocol.LimitQueue)
		}
		pt.broker.metrics.refused(e)
		return e
	}
	return nil
}

// publishing is what a session knows of its published messages. It is guarded by
// Session.mu, but for the orders, which belong to the logs.
type publishing struct {
	lanes    map[*partition]*lane     // of the partitions that it has published to
	results  []protocol.PublishResult // become a Published frame when there is room to write
	inFlight int                      // messages that wait for their answer
	room     sync.Cond                // inFlight has become smaller, or the session has ended
	refusing bool                     // messages went over the rate: none may pass before a resume
	rate     *rate.Limiter            // of a session without a subject; nil before it is needed
	origin   uint64                   // stands for the session in what it publishes, see Session.mark; 0 for none
}

// lane is what a session publishes to one partition. Order holds within it: a
// refusal by one stream's log says nothing about another's.
type lane struct {
	order    storage.Order
	refusing bool // the edge refused a message: none may pass before a resume
	resume   bool // a resume has come that the log has not seen
}

// resultCost is about what an answer takes while it waits to be written.
const resultCost = 256

// Publish publishes the messages of a frame; the answers are queued for the
// client. It waits while too many messages wait for their answer, so that a
// client which does not wait is slowed down by its own connection.
func (s *Session) Publish(ctx context.Context, p *protocol.Publish) {
	who, origin := s.Identity(), s.origin()
	if s.overRate(who, p) {
		return
	}
	var cargo []load
	var answers []protocol.PublishResult // of what is refused and what is ephemeral
	for i := range p.Messages {
		ref, m := p.Ref+uint32(i), &p.Messages[i]
		var e *storage.Entry
		var err *protocol.Error
		if m.Ephemeral {
			err = s.broker.publishEphemeral(who, m, origin)
		} else {
			e, err = s.broker.entry(who, m, origin)
		}
		if err != nil {
			s.broker.metrics.refused(err)
		}
		if e == nil {
			answers = append(answers, protocol.PublishResult{Ref: ref, Err: err})
			continue
		}
		if p.RepeatAge > 0 {
			e.FirstAttempt = time.Now().Add(-p.RepeatAge)
		}
		e.Done = func(r storage.Result) {
			s.answer(protocol.PublishResult{Ref: ref, Position: r.Position, Duplicate: r.Duplicate, Err: r.Err})
		}
		cargo = stow(cargo, s.broker.holds(m.Topic), e, len(p.Messages))
	}
	if !s.admit(p.Resume, len(p.Messages)-len(answers), answers) {
		return
	}
	for _, l := range cargo {
		s.ship(ctx, l)
	}
}

// load is the part of a frame that goes to one partition, in its order.
type load struct {
	partition *partition
	entries   []*storage.Entry
}

// stow adds an entry to the load of its partition. Frames go to few of them.
func stow(cargo []load, pt *partition, e *storage.Entry, most int) []load {
	for i := range cargo {
		if cargo[i].partition == pt {
			cargo[i].entries = append(cargo[i].entries, e)
			return cargo
		}
	}
	return append(cargo, load{pt, append(make([]*storage.Entry, 0, most), e)})
}

// ship gives a load to its log, or refuses it.
func (s *Session) ship(ctx context.Context, l load) {
	lane, refusing, resume := s.takeLane(l.partition)
	for _, e := range l.entries {
		e.Order = &lane.order
	}
	l.entries[0].Resume = resume
	if refusing {
		s.refuse(lane, l.entries, protocol.Errorf(protocol.CodeOutOfOrder, "an earlier message of this connection was refused: repeat from that one on, with `resume`"))
	} else if err := l.partition.append(ctx, l.entries...); err != nil {
		s.refuse(lane, l.entries, err)
	}
}

// admit queues the answers that are known already and waits until n more messages
// may be in flight. It reports whether the session goes on.
func (s *Session) admit(resume bool, n int, answers []protocol.PublishResult) bool {
	s.mu.Lock()
	if resume {
		s.pub.refusing = false
		for _, l := range s.pub.lanes {
			l.refusing, l.resume = false, true
		}
	}
	s.pub.results = append(s.pub.results, answers...)
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

// takeLane returns the lane to a partition, whether messages are refused there
// until a resume, and whether one has come that the log has not seen.
func (s *Session) takeLane(pt *partition) (l *lane, refusing, resume bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l = s.pub.lanes[pt]; l == nil {
		if s.pub.lanes == nil {
			s.pub.lanes = make(map[*partition]*lane, 1)
		}
		l = &lane{}
		s.pub.lanes[pt] = l
	}
	resume = l.resume
	l.resume = false
	return l, l.refusing || s.pub.refusing, resume
}

// refuse answers all entries of a load with an error. If that is retryable,
// later messages to the partition may not pass them.
func (s *Session) refuse(l *lane, entries []*storage.Entry, err *protocol.Error) {
	s.mu.Lock()
	l.refusing = l.refusing || err.Retryable()
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
