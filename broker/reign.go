package broker

import (
	"context"
	"slices"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// reign is the time in which this node decides for a consumer. It is the journal of its
// dispatcher, whose members are all far away: what they take is granted to them
// in the log, by the record that tells that it was taken.
type reign struct {
	shared  *SharedConsumers
	station *station
	lease   uint64 // its generation
	ctx     context.Context
	cancel  context.CancelFunc

	sources []consumer.Member          // who is there when it begins
	d       *dispatcher                // set by begin
	staged  []*clusterv1.ConsumerGrant // guarded by the dispatcher's mu: they go with the next deltas

	// Guarded by shared.mu.
	over bool
	far  map[farKey]*member
	writing
}

// writing is what goes to the log.
type writing struct {
	dirty   bool // there is something
	items   []item
	flights []flight
	step    uint64
	reached uint64 // how far it has read
	told    uint64 // what was written of that
}

// farKey names a member of any node.
type farKey struct{ boot, number uint64 }

// item is what belongs into one record.
type item struct {
	deltas  []byte
	grants  []*clusterv1.ConsumerGrant
	answers []*clusterv1.ConsumerAnswer
	done    func(stored)
}

// flight is a record that was written and not applied, and who waits for it.
type flight struct {
	step  uint64
	dones []func(stored)
}

// errDeposed answers who waits for what has no effect any more.
func errDeposed() *protocol.Error {
	return protocol.Errorf(protocol.CodeFenced, "another node of the cluster decides for the consumer now: what was not confirmed will be delivered again")
}

// begin starts to decide, from the state at the claim.
func (r *reign) begin(machine *consumer.Machine) {
	b, st := r.shared.consumers.broker, r.station
	d, err := newDispatcher(b, st.stream, machine)
	if err != nil {
		b.options().Logger.Error("a consumer's filter cannot be read", "consumer", st.name, "error", err)
		return
	}
	d.journal, d.rests = r, func() bool { return !r.shared.node.Live() }
	r.shared.mu.Lock()
	if r.over {
		r.shared.mu.Unlock()
		return
	}
	r.d = d
	r.shared.mu.Unlock()
	if err := d.comeBack(); err != nil {
		b.options().Logger.Error("look where a consumer is", "consumer", st.name, "error", err)
	}
	for _, m := range r.sources {
		r.admit(m, 0)
	}
	d.follow(consumer.Main)
	if machine.DeadCount() > 0 {
		d.follow(consumer.Redrive)
	}
	d.lookAfter()
}

// end stops to decide.
func (r *reign) end(dones []func(stored)) {
	r.cancel()
	if d := r.d; d != nil {
		d.mu.Lock()
		d.gone = true
		d.members = nil
		d.conclude(nil)
		d.mu.Unlock()
		d.unfollow()
	}
	for _, done := range dones {
		done(stored{err: errDeposed()})
	}
}

// admit makes somebody on any node a member. Of an exclusive consumer it is the only one, in
// that generation.
func (r *reign) admit(who consumer.Member, generation uint64) {
	if r.d == nil {
		return
	}
	m := r.newFar(who.Boot, who.Number, int(who.Window))
	r.shared.mu.Lock()
	r.far[farKey{who.Boot, who.Number}] = m
	r.shared.mu.Unlock()
	if generation == 0 {
		r.d.mu.Lock()
		r.d.members = append(r.d.members, m)
		r.d.mu.Unlock()
	} else {
		r.d.admit(m, func() uint64 { return generation }, nil)
	}
	go r.serve(m)
}

// newFar returns a member that is told in the log what it is granted.
func (r *reign) newFar(boot, number uint64, window int) *member {
	m := &member{id: r.shared.consumers.nextMember(), window: window}
	m.wake = func() { go r.serve(m) }
	m.grant = func(work []handed, generation uint64) {
		r.staged = append(r.staged, grantOf(boot, number, generation, work))
	}
	m.tell = func(gaps []*tidewirev1.Gap) {
		r.add(item{grants: []*clusterv1.ConsumerGrant{{Boot: boot, Member: number, Gaps: gaps}}})
	}
	return m
}

func grantOf(boot, number, generation uint64, work []handed) *clusterv1.ConsumerGrant {
	g := &clusterv1.ConsumerGrant{Boot: boot, Member: number, Generation: generation}
	for i := range work {
		g.Places = append(g.Places, work[i].offset)
		g.Attempts = append(g.Attempts, work[i].attempt)
		g.Redriven = append(g.Redriven, work[i].source == consumer.Redrive)
	}
	return g
}

// serve grants a member what there is for it.
func (r *reign) serve(m *member) {
	for {
		work, _, again := r.d.take(m, m.window)
		if gaps := r.d.takeGaps(m); len(gaps) > 0 {
			m.tell(gaps)
		}
		if len(work) == 0 && !again {
			return
		}
	}
}

// dismiss ends a membership.
func (r *reign) dismiss(key farKey, bye bool) {
	r.shared.mu.Lock()
	m := r.far[key]
	delete(r.far, key)
	r.shared.mu.Unlock()
	if m != nil && r.d != nil {
		if bye {
			r.d.goodbye(m)
		}
		r.d.leave(m, true)
	}
}

// put implements journal. The dispatcher's mu is held.
func (r *reign) put(deltas []byte, done func(stored)) {
	grants := r.staged
	r.staged = nil
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	switch {
	case r.over:
		if done != nil {
			go done(stored{err: errDeposed()})
		}
		return
	case r.d != nil && len(r.d.strands) == 2: // of several partitions the cursors must do
		r.reached = r.d.sources[consumer.Main].reached()
	}
	switch nothing := len(deltas) == 0 && len(grants) == 0; {
	case nothing && done == nil && !r.unheard():
	case nothing && done != nil && len(r.items) == 0 && len(r.flights) == 0:
		go done(stored{}) // callers hold what done needs
	case nothing && done != nil && len(r.items) == 0:
		last := &r.flights[len(r.flights)-1]
		last.dones = append(last.dones, done)
	default:
		r.addLocked(item{deltas: deltas, grants: grants, done: done})
	}
}

// unheard reports whether the others take the consumer for behind, and it is not.
func (r *reign) unheard() bool {
	ear := &r.station.ears[consumer.Main]
	return ear.read < ear.news && r.reached >= ear.news && r.told < r.reached
}

// add has something written that changes nothing.
func (r *reign) add(i item) {
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	if !r.over {
		r.addLocked(i)
	}
}

func (r *reign) addLocked(i item) {
	r.items = append(r.items, i)
	if !r.dirty {
		r.dirty = true
		r.shared.dirty = append(r.shared.dirty, r)
	}
	poke(r.shared.kick)
	if i.done != nil || len(i.grants)+len(i.answers) > 0 {
		poke(r.shared.rush)
	}
}

// records returns what is to be written. Callers hold shared.mu.
func (r *reign) records() (records []*clusterv1.Record) {
	items := r.items
	r.items, r.told = nil, r.reached
	for len(items) > 0 {
		r.step++
		rec := &clusterv1.ConsumerDecided{Consumer: r.station.copy.Incarnation(), Lease: r.lease, Step: r.step, Reached: r.reached}
		f := flight{step: r.step}
		n := 0
		for ; n < len(items) && (n == 0 || len(rec.Deltas)+len(items[n].deltas) <= controlRecord); n++ {
			i := &items[n]
			rec.Deltas = append(rec.Deltas, i.deltas...)
			rec.Grants = append(rec.Grants, i.grants...)
			rec.Answers = append(rec.Answers, i.answers...)
			if i.done != nil {
				f.dones = append(f.dones, i.done)
			}
		}
		items = items[n:]
		r.flights = append(r.flights, f)
		records = append(records, &clusterv1.Record{Record: &clusterv1.Record_ConsumerDecided{ConsumerDecided: rec}})
	}
	return records
}

// landed returns who waited for what is applied now. Callers hold shared.mu.
func (r *reign) landed(step uint64) (dones []func(stored)) {
	for len(r.flights) > 0 && r.flights[0].step <= step {
		dones = append(dones, r.flights[0].dones...)
		r.flights = r.flights[1:]
	}
	return dones
}

// open returns everybody who waits. Callers hold shared.mu.
func (r *reign) open() (dones []func(stored)) {
	dones = r.landed(r.step)
	for _, i := range r.items {
		if i.done != nil {
			dones = append(dones, i.done)
		}
	}
	r.items = nil
	return dones
}

// carryOut does what somebody on any node asks for. generation is a new number.
func (r *reign) carryOut(boot uint64, a *clusterv1.ConsumerAsk, generation uint64) {
	d := r.d
	if d == nil {
		return
	}
	answer := &clusterv1.ConsumerAnswer{Boot: boot, Ask: a.GetAsk()}
	switch what := a.GetWhat().(type) {
	case *clusterv1.ConsumerAsk_Settle:
		f := frameOf(what.Settle)
		var acked tidewirev1.Acked
		d.settleFrame(f, r.holder(boot, what.Settle.GetMember()), &acked, nil)
		answer.Settled, answer.Refused = uint64(acked.Settled), acked.Refused
	case *clusterv1.ConsumerAsk_Fetch:
		go r.fetch(answer, int(what.Fetch.GetMost()), time.Duration(what.Fetch.GetWaitUs())*time.Microsecond)
		return
	case *clusterv1.ConsumerAsk_Pause:
		d.setPaused(what.Pause.GetPaused())
	case *clusterv1.ConsumerAsk_Change:
		if err := d.change(r.ctx, &ConsumerRequest{Settings: what.Change.GetSettings()}); err != nil {
			answer.Code, answer.Error = string(err.Code), err.Message
		}
	case *clusterv1.ConsumerAsk_Seek:
		to, ok := d.placesAt(what.Seek.GetPosition())
		if !ok {
			return
		}
		go func() { // reading may have to end before
			d.seekAs(generation, to)
			r.answer(answer)
		}()
		return
	case *clusterv1.ConsumerAsk_Undead:
		if what.Undead.GetRedriven() {
			d.follow(consumer.Redrive)
		}
		d.forgetDead(what.Undead.GetOffsets(), what.Undead.GetRedriven())
		d.lookAfter()
	case *clusterv1.ConsumerAsk_Missed:
		holder := r.holder(boot, what.Missed.GetMember())
		go d.missed(holder, what.Missed.GetGeneration(), what.Missed.GetPlaces())
		return
	default: // of a later version
		answer.Code, answer.Error = string(protocol.CodeUnsupported), "the node that decides for the consumer is of an earlier version: bring all nodes to one version"
	}
	r.answer(answer)
}

func (r *reign) answer(a *clusterv1.ConsumerAnswer) {
	if a.GetAsk() != 0 {
		r.add(item{answers: []*clusterv1.ConsumerAnswer{a}})
	}
}

// holder returns the number under which the dispatcher knows a member, 0 if it is none.
func (r *reign) holder(boot, number uint64) uint64 {
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	if m := r.far[farKey{boot, number}]; m != nil {
		return m.id
	}
	return 0
}

// fetch grants what there is to a member of a moment, and answers.
func (r *reign) fetch(answer *clusterv1.ConsumerAnswer, most int, wait time.Duration) {
	m := r.newFar(answer.GetBoot(), answer.GetAsk(), most)
	if _, _, gaps := r.d.serve(r.ctx, m, most, wait); len(gaps) > 0 {
		m.tell(gaps)
	}
	if r.ctx.Err() == nil {
		r.answer(answer)
	}
}

// missed does with messages what their member's node could not deliver.
func (d *dispatcher) missed(holder, generation uint64, offsets []uint64) {
	var asked [2][]uint64
	d.mu.Lock()
	for _, o := range offsets {
		e, pending := d.machine.Entry(o)
		if pending && holder != 0 && e.State == consumer.InFlight && e.Holder == holder && d.machine.Generation() == generation {
			asked[e.Source] = append(asked[e.Source], o)
		}
	}
	d.mu.Unlock()
	found := make(map[uint64]loaded)
	var lost, expired, back []uint64
	now := nowMicros()
	for src := range asked {
		d.pick(consumer.Source(src), slices.Clone(asked[src]), found)
		for _, o := range asked[src] {
			switch r, ok := found[o]; {
			case !ok:
				lost = append(lost, o)
			case r.expired(now):
				expired = append(expired, o)
			default:
				back = append(back, o)
			}
		}
	}
	d.lose(lost)
	d.expire(expired)
	d.mu.Lock()
	defer d.mu.Unlock()
	at := consumer.Moment{Now: nowOf()}
	for _, o := range back {
		d.machine.Nack(generation, o, nil, at)
	}
	d.conclude(nil)
}
