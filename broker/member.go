package broker

import (
	"context"
	"slices"

	"github.com/tidewire/tidewire/broker/consumer"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// member is somebody who takes messages of a consumer: a session's subscription
// or, for a moment, a fetch over HTTP. The dispatcher's mu guards it.
type member struct {
	id     uint64 // unique in the broker; what it holds is marked with it
	window int    // messages that it wants in flight at most
	idle   bool   // take has returned nothing: it is to be woken
	left   bool
	bye    bool // it has unsubscribed, and does not come back
	brief  bool // it is a fetch over HTTP
	far
	wake func() // must not block; called with mu held

	session *Session      // nil for a fetch
	sub     *subscription // nil for a fetch
}

// far is what a member in a cluster has more than others.
type far struct {
	// Of one for which a dispatcher decides: what tells it what it has taken, with the dispatcher's mu
	// held, and of gaps.
	grant func(work []handed, generation uint64)
	tell  func(gaps []*tidewirev1.Gap)

	// Of one of this node, guarded by SharedConsumers.mu: what to call when it is a member, nil once it
	// was; and what it was granted.
	signed  func(stored)
	granted granted
}

// join adds a member. An exclusive consumer has one: the newcomer takes over,
// with a generation of its own, and is served once that is durable.
func (d *dispatcher) join(m *member, done func(stored)) {
	d.admit(m, d.broker.consumers.nextGeneration, done)
}

// admit adds a member; generation gives the number of a new generation.
func (d *dispatcher) admit(m *member, generation func() uint64, done func(stored)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	exclusive := d.machine.Settings().Exclusive
	if exclusive && !m.brief {
		for _, old := range d.members {
			old.left = true
			if old.session != nil {
				old.session.overtaken(old.sub)
			}
		}
		d.members = nil
		d.machine.TakeOver(generation(), nowOf())
	}
	d.members = append(d.members, m)
	d.conclude(done)
}

// goodbye notes that a member unsubscribes: nobody comes back to answer for what it
// has in flight, be it still on its way to it.
func (d *dispatcher) goodbye(m *member) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m.bye = true
}

// leave takes a member out. What it had in flight goes to the others at once; if
// there are none, and its connection was lost, it stays in flight, for the member
// may come back.
func (d *dispatcher) leave(m *member, release bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if m.left {
		return
	}
	m.left = true
	if i := slices.Index(d.members, m); i >= 0 {
		d.members = slices.Delete(d.members, i, i+1)
	}
	d.next = 0
	if release {
		d.machine.Release(m.id, nowOf(), len(d.members) > 0 || m.bye)
	}
	d.conclude(nil)
}

// takeGaps returns what is to be told to some member.
func (d *dispatcher) takeGaps(*member) []*tidewirev1.Gap {
	d.mu.Lock()
	defer d.mu.Unlock()
	gaps := d.gaps
	d.gaps = nil
	return gaps
}

// consuming is what a subscription with a name has more than others. mu of the
// session guards the two flags.
type consuming struct {
	post    post // nil for a plain subscription
	worker  *member
	serving bool // take is under way
	poked   bool // it was woken meanwhile
}

// poke has the session look for work for one of its subscriptions.
func (s *Session) poke(sub *subscription) {
	s.mu.Lock()
	switch {
	case sub.closed || s.end != nil:
	case sub.serving:
		sub.poked = true
	case sub.parts[0].stance == live:
		s.setStance(sub.parts[0], behind)
		s.behind = append(s.behind, sub.parts[0])
	}
	s.unlockAndWake()
}

// serveWork takes work for a subscription with a name. It gives mu away
// meanwhile.
func (s *Session) serveWork(sub *subscription) {
	sub.serving, sub.poked = true, false
	s.mu.Unlock()
	gaps := sub.post.takeGaps(sub.worker)
	work, generation, again := sub.post.take(sub.worker, sub.worker.window)
	frames := deliveries(work, generation)
	tails := make([][]byte, len(frames))
	for i := range frames {
		tails[i] = s.codec.AppendDeliverTail(make([]byte, 0, len(frames[i].Records)+tailOverhead), &frames[i])
	}
	s.mu.Lock()
	sub.serving = false
	if sub.closed || s.end != nil {
		return // whoever closed it gives back what it took
	}
	for _, gap := range gaps {
		gap.Sub = sub.number
		s.out.push(s.codec.AppendServer(nil, gap))
	}
	for i, tail := range tails {
		s.queue(sub.parts[0], frames[i].Count, tail)
	}
	if len(work) > 0 || len(gaps) > 0 || sub.poked || again {
		s.behind = append(s.behind, sub.parts[0])
		return
	}
	s.setStance(sub.parts[0], live)
}

// deliveries puts work into as few chunks as may be: one has records of one term and
// one partition.
func deliveries(work []handed, generation uint64) (chunks []protocol.Chunk) {
	for len(work) > 0 {
		n := 0
		for n < len(work) && work[n].term == work[0].term && work[n].partition == work[0].partition {
			n++
		}
		c := protocol.Chunk{Partition: work[0].partition, Term: work[0].term, Count: n, Generation: generation, Attempts: make([]uint32, n)}
		for i := range work[:n] {
			c.Attempts[i] = work[i].attempt
		}
		c.Records = recordsOf(work[:n])
		chunks = append(chunks, c)
		work = work[n:]
	}
	return chunks
}

// recordsOf puts the records of work one behind the other. Those that were read
// together mostly lie so already, and need no copy.
func recordsOf(work []handed) []byte {
	first, size := work[0].framed, 0
	for i := range work {
		h := &work[i]
		if h.source == consumer.Redrive || size >= cap(first) || &h.framed[0] != &first[:size+1][size] {
			return copyOf(work)
		}
		size += len(h.framed)
	}
	return first[:size:size]
}

func copyOf(work []handed) []byte {
	size := 0
	for i := range work {
		size += len(work[i].framed)
	}
	records := make([]byte, 0, size)
	for i := range work {
		records = append(records, work[i].shown()...)
	}
	return records
}

// overtaken ends a subscription whose exclusive consumer has another member now.
func (s *Session) overtaken(sub *subscription) { s.endWork(sub, errTakenOver()) }

func errTakenOver() *protocol.Error {
	return protocol.Errorf(protocol.CodeTakenOver, "another member has taken over the exclusive consumer: acknowledgements of this one count no more")
}

// endWork ends a subscription with a name for a reason. The dispatcher has
// forgotten its member already.
func (s *Session) endWork(sub *subscription, err *protocol.Error) {
	s.mu.Lock()
	if !sub.closed && s.end == nil {
		s.out.push(s.codec.AppendServer(nil, protocol.ErrorFrame(0, sub.number, err)))
		s.drop(sub)
		s.checkHard()
	}
	s.unlockAndWake()
}

// consume begins a subscription with a name, and queues its answer.
func (s *Session) consume(req *tidewirev1.Subscribe) *protocol.Error {
	if err := plainWishes(req); err != nil {
		return err
	}
	who := s.Identity()
	p, created, err := s.broker.consumers.open(context.Background(), who, req.Consumer, &ConsumerRequest{
		Filter: req.Filter, Stream: req.Stream, From: req.From, Settings: req.Settings,
	})
	if err != nil {
		return err
	}
	about := p.about()
	sub := newSubscription(s, req.Sub, about.filter, []*partition{about.strands[consumer.Main].partition})
	m := &member{id: s.broker.consumers.nextMember(), window: windowOf(settingsNow(p), req.Window), session: s, sub: sub}
	m.wake = func() { s.poke(sub) }
	sub.consuming = consuming{post: p, worker: m}
	sub.parts[0].caughtUp = true // there is no such moment for a consumer

	s.mu.Lock()
	if s.end != nil {
		s.mu.Unlock()
		return s.end
	}
	s.register(sub)
	s.mu.Unlock()

	p.join(m, func(at stored) { s.joined(sub, created, at.err) })
	return nil
}

// joined answers a subscription with a name, once what it has changed is durable,
// and begins to serve it.
func (s *Session) joined(sub *subscription, created bool, err *protocol.Error) {
	if err != nil {
		sub.post.leave(sub.worker, true)
		s.endWork(sub, err)
		return
	}
	generation, at, lag := sub.post.place()
	ackWait := uint64(settingsNow(sub.post).AckWait.Milliseconds())
	s.mu.Lock()
	if !sub.closed && s.end == nil {
		s.out.push(s.codec.AppendServer(nil, &tidewirev1.Subscribed{
			Sub: sub.number, Position: at.String(), Cursors: cursorsOf(at),
			Behind: lag, Generation: generation, Created: created, AckWaitMs: ackWait,
		}))
		s.behind = append(s.behind, sub.parts[0])
		s.checkHard()
	}
	s.unlockAndWake()
}

func cursorsOf(at protocol.Vector) (cursors []*tidewirev1.Cursor) {
	for _, p := range at.Places {
		cursors = append(cursors, &tidewirev1.Cursor{Partition: p.Partition, Offset: p.Offset})
	}
	return cursors
}

// place returns where a consumer is: its generation, its cursors, and how many
// offsets lie above them.
func (d *dispatcher) place() (generation uint64, at protocol.Vector, lag uint64) {
	passed := make([]uint64, len(d.sources)) // it has been told of everything up to here
	for i := range d.sources {
		passed[i] = d.sources[i].delivered.Load()
	}
	d.lookAfter()
	heads := headsOf(d.strands)
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.sources {
		s := &d.sources[i]
		if s.source != consumer.Main {
			continue
		}
		if !s.behind() && len(s.ahead) == 0 {
			s.read = max(s.read, passed[i])
		}
		read, head := s.reached(), ofStrand(&heads, i).Offset
		at = s.log.PositionOf(read).With(at.Places)
		lag += head - min(head, read)
	}
	return d.machine.Generation(), at, lag
}

// reached returns the offset up to which nothing matching is left to be taken.
func (s *source) reached() uint64 {
	if len(s.ahead) > 0 {
		record, _, _ := protocol.NextFramed(s.ahead[0])
		offset, _ := protocol.RecordPlace(record)
		return offset - 1
	}
	return s.read
}

// windowOf returns how many messages a member may have in flight.
func windowOf(s consumer.Settings, wanted uint32) int {
	if wanted == 0 {
		return s.MaxInFlight
	}
	return min(int(wanted), s.MaxInFlight)
}

// plainWishes refuses what makes no sense for a consumer.
func plainWishes(req *tidewirev1.Subscribe) *protocol.Error {
	for name, given := range map[string]bool{
		"credit": req.Credit != nil, "slow": req.Slow != "", "conflate_ms": req.ConflateMs != 0, "echo": req.Echo != nil,
	} {
		if given {
			return protocol.Errorf(protocol.CodeBadRequest, "`%s` is for subscriptions without `consumer`, whose members get what they have room for: leave it out, or give `window`", name)
		}
	}
	return nil
}
