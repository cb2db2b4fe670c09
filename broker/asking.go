package broker

import (
	"context"

	"github.com/tidewire/tidewire/broker/cluster"
	"github.com/tidewire/tidewire/broker/consumer"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
	"github.com/tidewire/tidewire/protocol"
)

// maxAsks bounds what waits to be decided, while the control log is away.
const maxAsks = 100_000

// asking is something that this node wants to be decided.
type asking struct {
	station *station
	record  *clusterv1.Record
	applied bool // by who decided then
	done    func(*clusterv1.ConsumerAnswer, *protocol.Error)
}

func (s *station) askRecord(a *clusterv1.ConsumerAsk) *clusterv1.Record {
	a.Consumer = s.copy.Incarnation()
	return &clusterv1.Record{Record: &clusterv1.Record_ConsumerAsk{ConsumerAsk: a}}
}

// begin asks for something. done is called once with what became of it, without locks.
func (s *station) begin(a *clusterv1.ConsumerAsk, done func(*clusterv1.ConsumerAnswer, *protocol.Error)) {
	sh := s.shared
	if a.Ask == 0 {
		a.Ask = s.broker.consumers.nextMember()
	}
	sh.mu.Lock()
	if s.gone || sh.ended != nil {
		err := sh.ended
		sh.mu.Unlock()
		if err == nil {
			err = errDeleted(s.name)
		}
		done(nil, err)
		return
	}
	if len(sh.asks) >= maxAsks {
		sh.mu.Unlock()
		done(nil, protocol.Errorf(protocol.CodeOverloaded, "too much about consumers waits for the control log: Kafka may be away; try again later"))
		return
	}
	q := &asking{station: s, record: s.askRecord(a), done: done}
	sh.asks[a.Ask] = q
	sh.write(q.record)
	sh.mu.Unlock()
}

// askAs asks for something under a number, and waits for the answer.
func (s *station) askAs(ctx context.Context, number uint64, a *clusterv1.ConsumerAsk) *protocol.Error {
	answer := make(chan stored, 1)
	a.Ask = number
	s.begin(a, func(got *clusterv1.ConsumerAnswer, err *protocol.Error) {
		if err == nil && got.GetCode() != "" {
			err = protocol.Errorf(protocol.Code(got.GetCode()), "%s", got.GetError())
		}
		answer <- stored{err: err}
	})
	err := await(ctx, answer)
	s.shared.mu.Lock()
	delete(s.shared.asks, number)
	s.shared.mu.Unlock()
	return err
}

func (s *station) ask(ctx context.Context, a *clusterv1.ConsumerAsk) *protocol.Error {
	return s.askAs(ctx, s.broker.consumers.nextMember(), a)
}

func (s *station) change(ctx context.Context, req *ConsumerRequest) *protocol.Error {
	return s.ask(ctx, &clusterv1.ConsumerAsk{What: &clusterv1.ConsumerAsk_Change{Change: &clusterv1.ConsumerChange{Settings: req.Settings}}})
}

func (s *station) pause(ctx context.Context, paused bool) *protocol.Error {
	return s.ask(ctx, &clusterv1.ConsumerAsk{What: &clusterv1.ConsumerAsk_Pause{Pause: &clusterv1.ConsumerPause{Paused: paused}}})
}

func (s *station) seek(ctx context.Context, to consumer.Places) *protocol.Error {
	return s.ask(ctx, &clusterv1.ConsumerAsk{What: &clusterv1.ConsumerAsk_Seek{Seek: &clusterv1.ConsumerSeek{Position: vector(&to).String()}}})
}

func (s *station) undead(ctx context.Context, offsets []uint64, redriven bool) *protocol.Error {
	return s.ask(ctx, &clusterv1.ConsumerAsk{What: &clusterv1.ConsumerAsk_Undead{Undead: &clusterv1.ConsumerUndead{Offsets: offsets, Redriven: redriven}}})
}

// remove ends the consumer on all nodes.
func (s *station) remove(ctx context.Context) *protocol.Error {
	sh := s.shared
	answer := make(chan stored, 1)
	sh.mu.Lock()
	if s.gone || sh.ended != nil {
		err := sh.ended
		sh.mu.Unlock()
		return err
	}
	number := s.broker.consumers.nextMember()
	q := &asking{
		station: s, applied: true, // it needs nobody's decision
		record: &clusterv1.Record{Record: &clusterv1.Record_ConsumerDelete{ConsumerDelete: &clusterv1.ConsumerDelete{Consumer: s.copy.Incarnation()}}},
		done: func(_ *clusterv1.ConsumerAnswer, err *protocol.Error) {
			if err != nil && err.Code == protocol.CodeUnknownConsumer {
				err = nil // that is what was asked for
			}
			answer <- stored{err: err}
		},
	}
	sh.asks[number] = q
	sh.write(q.record)
	sh.mu.Unlock()
	err := await(ctx, answer)
	sh.mu.Lock()
	delete(sh.asks, number)
	sh.mu.Unlock()
	return err
}

// asked has what is asked for carried out, if this node decides where it stands in the log.
func (sh *SharedConsumers) asked(at cluster.At, a *clusterv1.ConsumerAsk) {
	c := sh.copies.Of(a.GetConsumer())
	if c == nil {
		return
	}
	generation := uint64(0)
	if a.GetSeek() != nil {
		generation = sh.copies.Draw(at.Index)
	}
	if own := sh.asks[a.GetAsk()]; own != nil && at.Boot == sh.boot {
		own.applied = true
	}
	if st := sh.stations[a.GetConsumer()]; st != nil && st.reign != nil {
		r := st.reign
		sh.later(func() { r.carryOut(at.Boot, a, generation) })
	}
}

// joined makes somebody on any node a member.
func (sh *SharedConsumers) joined(at cluster.At, j *clusterv1.ConsumerJoin) {
	c := sh.copies.Of(j.GetConsumer())
	if c == nil {
		return // whoever is here was told when it was deleted
	}
	who := consumer.Member{
		Boot: at.Boot, Number: j.GetMember(), Window: j.GetWindow(), Session: j.GetSession(), Client: j.GetClient(), Subject: j.GetSubject(),
	}
	overtaken, joined := sh.copies.Join(at.Index, c, who, j.GetAgain())
	st := sh.stations[c.Incarnation()]
	if st == nil {
		return
	}
	for _, m := range overtaken {
		sh.lose(st, m.Boot, m.Number)
	}
	if !joined {
		sh.lose(st, at.Boot, j.GetMember())
		return
	}
	if r := st.reign; r != nil {
		generation := uint64(0)
		if c.Settings().Exclusive {
			generation = c.Generation()
		}
		sh.later(func() { r.admit(who, generation) })
	}
	if m := st.members[j.GetMember()]; m != nil && at.Boot == sh.boot && m.signed != nil {
		done := m.signed
		m.signed = nil
		sh.later(func() { done(stored{}) })
	}
}

// lose ends a member of this node that another one has overtaken.
func (sh *SharedConsumers) lose(st *station, boot, number uint64) {
	m := st.members[number]
	if m == nil || boot != sh.boot {
		return
	}
	delete(st.members, number)
	m.left = true
	sh.later(func() { m.dismiss(errTakenOver()) })
}

// dismissed ends a membership for whoever decides.
func (sh *SharedConsumers) dismissed(c *consumer.Copy, boot, number uint64, bye bool) {
	if st := sh.stations[c.Incarnation()]; st != nil && st.reign != nil {
		r := st.reign
		sh.later(func() { r.dismiss(farKey{boot, number}, bye) })
	}
}

// decided takes in what was decided, if the writer may.
func (sh *SharedConsumers) decided(s *cluster.State, at cluster.At, r *clusterv1.ConsumerDecided) {
	c := sh.copies.Of(r.GetConsumer())
	if c == nil {
		return
	}
	l, held := s.Lease(cluster.LeaseConsumer + c.Name())
	if !held || l.Boot != at.Boot || l.Generation != r.GetLease() {
		return
	}
	ok := sh.copies.Decided(c, r.GetLease(), r.GetStep(), r.GetDeltas())
	st := sh.stations[c.Incarnation()]
	if st == nil {
		return
	}
	if own := st.reign; own != nil && own.lease == r.GetLease() {
		if !ok {
			sh.consumers.broker.options().Logger.Error("what was decided for a consumer does not fit: it is decided anew", "consumer", st.name)
			sh.depose(st)
			sh.write(&clusterv1.Record{Record: &clusterv1.Record_Release{Release: &clusterv1.Release{Lease: l.Name, Generation: l.Generation}}})
			return
		}
		for _, done := range own.landed(r.GetStep()) {
			sh.later(func() { done(stored{}) })
		}
	}
	if !ok {
		return
	}
	for i := range st.strands {
		st.ears[i].read = c.CursorIn(st.strands[i].source, st.strands[i].number)
	}
	st.ears[consumer.Main].read = max(st.ears[consumer.Main].read, r.GetReached())
	for _, g := range r.GetGrants() {
		st.receive(g)
	}
	for _, a := range r.GetAnswers() {
		if q := sh.asks[a.GetAsk()]; q != nil && sh.boots[a.GetBoot()] && q.station == st {
			delete(sh.asks, a.GetAsk())
			sh.later(func() { q.done(a, nil) })
		}
	}
}

// receive takes a grant for a member of this node.
func (s *station) receive(g *clusterv1.ConsumerGrant) {
	m := s.members[g.GetMember()]
	if m == nil || g.GetBoot() != s.shared.boot || g.Generation != 0 && g.GetGeneration() != s.copy.Generation() {
		return
	}
	redriven := false
	for i, place := range g.GetPlaces() {
		h := handed{offset: place, attempt: g.GetAttempts()[i]}
		if g.GetRedriven()[i] {
			h.source, redriven = consumer.Redrive, true
		}
		m.granted.work = append(m.granted.work, grantedPlace{h, g.GetGeneration()})
	}
	m.granted.gaps = append(m.granted.gaps, g.GetGaps()...)
	if redriven {
		s.shared.later(func() { s.follow(consumer.Redrive) })
	}
	if m.idle {
		m.idle = false
		s.shared.later(m.wake)
	}
}
