package broker

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// station is a consumer on one node of a cluster: who works for it here. Whatever its
// members are granted in the log it reads from this node's own copy of the stream.
type station struct {
	subject
	shared *SharedConsumers

	// Guarded by shared.mu.
	copy    *consumer.Copy
	members map[uint64]*member // by number
	reign   *reign             // nil unless this node decides
	asked   bool               // to decide
	gone    bool
	ears    []ear      // by strand
	counts  dispatched // of this node's members

	hearsay
}

// ear is what a station has heard of a strand: how far the consumer has read, as far as that
// is known, and up to where there is something for it.
type ear struct {
	read, news uint64
	watch      *group // guarded by partition.mu
}

// granted is what a member may be delivered, and was not yet.
type granted struct {
	work []grantedPlace
	gaps []*tidewirev1.Gap
}

type grantedPlace struct {
	handed
	generation uint64
}

func (g *granted) clear() { *g = granted{} }

// maxGranted is how many places are looked up at a time.
const maxGranted = 256

func (s *station) look(f func(m *consumer.Machine)) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	f(s.copy.Machine)
}

func (s *station) place() (generation uint64, at protocol.Vector, lag uint64) {
	passed := make([]uint64, len(s.strands))
	for i := range s.strands {
		passed[i] = s.strands[i].delivered.Load()
	}
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	places := s.copy.Places()
	for i := range s.strands {
		if s.strands[i].source != consumer.Main {
			continue
		}
		e := &s.ears[i]
		read := max(e.read, ofStrand(&places, i).Offset)
		if read >= e.news {
			read = max(read, passed[i]) // it would have been told of anything there
		}
		head := s.strands[i].head()
		at = s.strands[i].log.PositionOf(read).With(at.Places)
		lag += head - min(head, read)
	}
	return s.copy.Generation(), at, lag
}

func (s *station) staff() (list []MemberInfo, counts dispatched) {
	s.shared.mu.Lock()
	counts = s.counts
	members := s.copy.Members()
	d, far := (*dispatcher)(nil), make(map[farKey]uint64)
	if s.reign != nil {
		d = s.reign.d
		for key, m := range s.reign.far {
			far[key] = m.id
		}
	}
	s.shared.mu.Unlock()
	if d != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		counts.died, counts.expired = d.stats.died, d.stats.expired
		counts.redriven = d.stats.redriven
	}
	for _, m := range members {
		info := MemberInfo{Session: m.Session, Client: m.Client, Subject: m.Subject, Window: int(m.Window)}
		if d != nil {
			info.InFlight = d.machine.HeldBy(far[farKey{m.Boot, m.Number}])
		}
		list = append(list, info)
	}
	return list, counts
}

func (s *station) join(m *member, done func(stored)) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	switch {
	case s.gone:
		go done(stored{err: errDeleted(s.name)})
		return
	case s.shared.ended != nil:
		go done(stored{err: s.shared.ended})
		return
	}
	m.signed = done
	s.members[m.id] = m
	s.shared.write(s.joinRecord(m))
	if s.shared.free[s].IsZero() {
		return
	}
	s.shared.claim(s)
}

// joinRecord announces a member. Who was one before, in another life of this node, does
// not take over from anybody.
func (s *station) joinRecord(m *member) *clusterv1.Record {
	r := &clusterv1.ConsumerJoin{Consumer: s.copy.Incarnation(), Member: m.id, Window: uint64(m.window), Again: m.signed == nil}
	if m.session != nil {
		session, client, subject := m.session.describe()
		r.Session, r.Client, r.Subject = valid(session), valid(client), valid(subject)
	}
	return &clusterv1.Record{Record: &clusterv1.Record_ConsumerJoin{ConsumerJoin: r}}
}

func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

func (s *station) goodbye(m *member) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	m.bye = true
}

func (s *station) leave(m *member, _ bool) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	if m.left {
		return
	}
	m.left = true
	m.granted.clear()
	delete(s.members, m.id)
	if !s.gone {
		s.shared.write(&clusterv1.Record{Record: &clusterv1.Record_ConsumerLeave{
			ConsumerLeave: &clusterv1.ConsumerLeave{Consumer: s.copy.Incarnation(), Member: m.id, Bye: m.bye},
		}})
	}
}

// dismiss ends a member that does not know yet that it is none. It must be called
// without mu.
func (m *member) dismiss(err *protocol.Error) {
	switch {
	case m.signed != nil:
		m.signed(stored{err: err})
	case m.session != nil:
		m.session.endWork(m.sub, err)
	default:
		m.wake()
	}
}

// take returns what was granted, as far as this node has read its stream. When it
// returns nothing the member will be woken. A node that the others may take for dead delivers
// nothing: what it was granted may be with somebody else by now.
func (s *station) take(m *member, n int) (work []handed, generation uint64, again bool) {
	for {
		heads := s.stream.heads()
		s.shared.mu.Lock()
		generation = s.copy.Generation()
		if m.left || !s.shared.node.Live() {
			m.idle = true
			s.shared.mu.Unlock()
			return nil, generation, false
		}
		work = m.granted.ready(heads, min(n, maxGranted), s.stands)
		m.idle = len(work) == 0
		waits := len(m.granted.work) > 0
		s.shared.mu.Unlock()
		if len(work) > 0 {
			break
		}
		if !waits || slices.Equal(s.stream.heads(), heads) { // else apply may have been there in between
			return nil, generation, false
		}
	}
	want := len(work)
	work = s.load(m, work, generation)
	return work, generation, len(work) < want
}

// stands reports whether what was granted is still in flight by that grant: a member
// that takes slowly must not get what another one has acknowledged meanwhile. Callers
// hold the lock.
func (s *station) stands(p *grantedPlace) bool {
	e, pending := s.copy.Entry(p.offset)
	return pending && p.generation == s.copy.Generation() && e.State == consumer.InFlight && e.Attempts == int(p.attempt)
}

// ready takes what may be delivered now: what stands, and is applied here.
func (g *granted) ready(heads []uint64, n int, stands func(*grantedPlace) bool) (work []handed) {
	g.work = slices.DeleteFunc(g.work, func(p grantedPlace) bool {
		partition, offset := consumer.SplitPlace(p.offset)
		switch {
		case int64(partition) >= int64(len(heads)) || !stands(&p):
			return true
		case offset > heads[partition] || len(work) == n:
			return false
		}
		work = append(work, p.handed)
		return true
	})
	return work
}

// load reads what was granted. What cannot be delivered goes back.
func (s *station) load(m *member, work []handed, generation uint64) []handed {
	var offsets [2][]uint64
	for _, h := range work {
		offsets[h.source] = append(offsets[h.source], h.offset)
	}
	found := make(map[uint64]loaded, len(work))
	for src := range offsets {
		s.pick(consumer.Source(src), offsets[src], found)
	}
	kept := work[:0]
	var missed []uint64
	var again uint64
	now := nowMicros()
	for _, h := range work {
		r, ok := found[h.offset]
		if !ok || r.expired(now) {
			missed = append(missed, h.offset)
			continue
		}
		h.loaded = r
		kept = append(kept, h)
		if h.attempt > 1 {
			again++
		}
	}
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	s.counts.delivered += uint64(len(kept))
	s.counts.redelivered += again
	if len(missed) > 0 {
		s.shared.write(s.askRecord(&clusterv1.ConsumerAsk{What: &clusterv1.ConsumerAsk_Missed{
			Missed: &clusterv1.ConsumerMissed{Member: m.id, Generation: generation, Places: missed},
		}}))
	}
	return kept
}

func (s *station) takeGaps(m *member) []*tidewirev1.Gap {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	gaps := m.granted.gaps
	m.granted.gaps = nil
	return gaps
}

func (s *station) settle(f *protocol.Settle, m *member, done func(*tidewirev1.Acked, stored)) {
	number := uint64(0)
	if m != nil {
		number = m.id
	}
	acked := &tidewirev1.Acked{Ref: f.Ref, Sub: f.Sub, Term: f.Term.String()}
	s.begin(&clusterv1.ConsumerAsk{What: &clusterv1.ConsumerAsk_Settle{Settle: settleRecord(f, number)}}, func(a *clusterv1.ConsumerAnswer, err *protocol.Error) {
		acked.Settled, acked.Refused = uint32(a.GetSettled()), a.GetRefused()
		s.count(f.Kind, acked.Settled)
		if f.Confirm || len(acked.Refused) > 0 || err != nil {
			done(acked, stored{err: err})
		}
	})
}

func (s *station) count(kind protocol.SettleKind, n uint32) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	s.counts.count(kind, n)
}

// settleRecord is what goes to whoever decides.
func settleRecord(f *protocol.Settle, member uint64) *clusterv1.ConsumerSettle {
	r := &clusterv1.ConsumerSettle{
		Kind: uint32(f.Kind), Member: member, Generation: f.Generation, Term: uint64(f.Term), UpTo: f.UpTo, Confirm: f.Confirm, Reason: valid(f.Reason),
	}
	for _, o := range f.Ranges {
		r.Ranges = append(r.Ranges, &clusterv1.ConsumerRange{Partition: o.Partition, From: o.From, Through: o.Through})
	}
	if f.Delay != nil {
		us := f.Delay.Microseconds()
		r.DelayUs = &us
	}
	return r
}

func frameOf(r *clusterv1.ConsumerSettle) *protocol.Settle {
	f := &protocol.Settle{
		Kind: protocol.SettleKind(r.GetKind()), Generation: r.GetGeneration(), Term: protocol.Term(r.GetTerm()), UpTo: r.GetUpTo(), Confirm: r.GetConfirm(), Reason: r.GetReason(),
	}
	for _, o := range r.GetRanges() {
		f.Ranges = append(f.Ranges, protocol.OffsetRange{Partition: o.GetPartition(), From: o.GetFrom(), Through: o.GetThrough()})
	}
	if r.DelayUs != nil {
		d := time.Duration(r.GetDelayUs()) * time.Microsecond
		f.Delay = &d
	}
	return f
}

// fetch has whoever decides grant something to a member that is one for this moment.
func (s *station) fetch(ctx context.Context, most int, wait time.Duration) (r FetchResult, _ *protocol.Error) {
	ready := make(chan struct{}, 1)
	m := &member{id: s.broker.consumers.nextMember(), window: most, brief: true, wake: func() { poke(ready) }}
	s.shared.mu.Lock()
	s.members[m.id] = m
	s.shared.mu.Unlock()
	defer func() {
		s.shared.mu.Lock()
		defer s.shared.mu.Unlock()
		m.left = true
		delete(s.members, m.id)
	}()
	what := &clusterv1.ConsumerAsk_Fetch{Fetch: &clusterv1.ConsumerFetch{Most: uint64(most), WaitUs: wait.Microseconds()}}
	if err := s.askAs(ctx, m.id, &clusterv1.ConsumerAsk{What: what}); err != nil {
		return r, err
	}
	for {
		work, generation, again := s.take(m, most)
		r.Generation = generation
		r.Chunks = append(r.Chunks, deliveries(work, generation)...)
		r.Gaps = append(r.Gaps, s.takeGaps(m)...)
		if len(work) > 0 || again {
			continue
		}
		s.shared.mu.Lock()
		rest := len(m.granted.work)
		s.shared.mu.Unlock()
		if rest == 0 {
			return r, nil
		}
		select { // this node has not read so far
		case <-ready:
		case <-ctx.Done():
			return r, nil
		}
	}
}

func (s *station) beforeTrim(ctx context.Context, pt *partition, through uint64) {
	s.shared.mu.Lock()
	r := s.reign
	s.shared.mu.Unlock()
	if r != nil && r.d != nil {
		r.d.beforeTrim(ctx, pt, through)
		_ = r.d.lasting(ctx)
	}
}

// redriving does nothing: whoever decides follows what is given back when it is told.
func (s *station) redriving() {}
