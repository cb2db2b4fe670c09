package broker

import (
	"context"
	"slices"
	"time"

	"github.com/tidewire/tidewire/broker/cluster"
	"github.com/tidewire/tidewire/broker/consumer"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
	"github.com/tidewire/tidewire/protocol"
)

const (
	// vacancy is how long a node without members leaves it to the others to decide for a
	// consumer.
	vacancy = 2 * time.Second

	// sharedLook is how often it is looked whether something is overdue.
	sharedLook = 250 * time.Millisecond
)

// creation is somebody who waits for a consumer to be there.
type creation struct {
	plan []byte
	done chan created
}

type created struct {
	own bool // it is the plan of who waits
	err *protocol.Error
}

func createRecord(name string, plan []byte) *clusterv1.Record {
	return &clusterv1.Record{Record: &clusterv1.Record_ConsumerCreate{
		ConsumerCreate: &clusterv1.ConsumerCreate{Name: name, Plan: plan},
	}}
}

// create implements keeper.
func (sh *SharedConsumers) create(ctx context.Context, name string, s consumer.Settings, at consumer.Places) (post, bool, *protocol.Error) {
	wait := &creation{plan: consumer.Plan(name, s, at, nowOf()), done: make(chan created, 1)}
	sh.mu.Lock()
	if c := sh.copies.Get(name); c != nil {
		sh.mu.Unlock()
		p, err := sh.consumers.find(name)
		return p, false, err
	}
	if sh.ended != nil {
		sh.mu.Unlock()
		return nil, false, sh.ended
	}
	sh.creating[name] = append(sh.creating[name], wait)
	sh.write(createRecord(name, wait.plan))
	sh.mu.Unlock()
	select {
	case c := <-wait.done:
		if c.err != nil {
			return nil, false, c.err
		}
		p, err := sh.consumers.find(name)
		return p, c.own, err
	case <-ctx.Done():
		return nil, false, protocol.Errorf(protocol.CodeUnknown, "the consumer was not created in time: ask again whether it is there")
	}
}

// created makes the consumer of a plan, of two of one name the first.
func (sh *SharedConsumers) created(s *cluster.State, at cluster.At, r *clusterv1.ConsumerCreate) {
	c, is := sh.copies.Create(at.Index, r.GetPlan())
	own := at.Boot == sh.boot
	if is {
		if st := sh.open(c); st != nil {
			if l, held := s.Lease(cluster.LeaseConsumer + st.name); held {
				sh.reigns(st, l) // it was deleted, and the lease not given up yet
			} else if sh.free[st] = time.Now(); own {
				sh.claim(st)
			}
		}
	}
	for i, w := range sh.creating[r.GetName()] {
		w.done <- created{own: is && own && i == 0}
	}
	delete(sh.creating, r.GetName())
}

func (sh *SharedConsumers) claim(st *station) {
	if sh.boot != 0 && !st.asked {
		st.asked = true
		sh.write(&clusterv1.Record{Record: &clusterv1.Record_Claim{Claim: &clusterv1.Claim{Lease: cluster.LeaseConsumer + st.name}}})
	}
}

// vacant notes that nobody decides for a consumer, and claims it if that is most of use
// here: there are members. Else one node does so that all agree on, and if it does
// not, every one.
func (sh *SharedConsumers) vacant(s *cluster.State, c *consumer.Copy) {
	st := sh.stations[c.Incarnation()]
	if st == nil {
		return
	}
	sh.depose(st)
	st.asked = false
	sh.free[st] = time.Now()
	if len(st.members) > 0 || !manned(s, c) && first(s) == sh.boot {
		sh.claim(st)
	}
}

// manned reports whether some node that is there has members.
func manned(s *cluster.State, c *consumer.Copy) bool {
	return slices.ContainsFunc(c.Members(), func(m consumer.Member) bool {
		_, there := s.Node(m.Boot)
		return there
	})
}

// first is the node that has been there longest, 0 if none is.
func first(s *cluster.State) uint64 {
	if nodes := s.Nodes(); len(nodes) > 0 {
		return nodes[0].Boot
	}
	return 0
}

// claimed begins the time of another node, or of this one.
func (sh *SharedConsumers) claimed(s *cluster.State, at cluster.At, e cluster.Event) {
	name, is := consumerOf(e.Name)
	if !is {
		return
	}
	c := sh.copies.Get(name)
	if c == nil {
		if e.Boot == sh.boot { // it was deleted meanwhile
			sh.write(&clusterv1.Record{Record: &clusterv1.Record_Release{
				Release: &clusterv1.Release{Lease: e.Name, Generation: e.Generation},
			}})
		}
		return
	}
	sh.copies.Claimed(at.Index, c, e.Generation)
	st := sh.stations[c.Incarnation()]
	if st == nil {
		return
	}
	st.asked = false
	delete(sh.free, st)
	l, _ := s.Lease(e.Name)
	sh.reigns(st, l)
	for _, a := range sh.asks {
		if a.station == st && a.applied { // who decided until now did not get there
			a.applied = false
			sh.write(a.record)
		}
	}
}

// reigns makes this node decide for a consumer, if the lease is its own.
func (sh *SharedConsumers) reigns(st *station, l cluster.Lease) {
	if l.Boot != sh.boot || sh.ended != nil {
		return
	}
	r := &reign{
		shared: sh, station: st, lease: l.Generation, far: make(map[farKey]*member),
		sources: st.copy.Members(),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	machine, err := st.copy.Clone()
	if err != nil {
		sh.consumers.broker.options().Logger.Error("a consumer cannot be decided for", "consumer", st.name, "error", err)
		return
	}
	st.reign = r
	sh.later(func() { r.begin(machine) })
}

// depose ends the time in which this node decides.
func (sh *SharedConsumers) depose(st *station) {
	r := st.reign
	if r == nil {
		return
	}
	st.reign = nil
	r.over = true
	dones := r.open()
	sh.later(func() { r.end(dones) })
}

// run implements keeper.
func (sh *SharedConsumers) run(ctx context.Context) error {
	tick := time.NewTicker(sharedLook)
	defer tick.Stop()
	for {
		select {
		case <-sh.kick:
			pause := time.NewTimer(lazyPause)
			select {
			case <-sh.rush:
			case <-pause.C:
			case <-ctx.Done():
			}
			pause.Stop()
			sh.flush()
		case <-tick.C:
			sh.look()
		case <-ctx.Done():
			sh.flush()
			sh.end()
			return nil
		}
	}
}

// end answers everybody who waits, now and from now on.
func (sh *SharedConsumers) end() {
	err := protocol.Errorf(protocol.CodeGoingAway, "the broker is shutting down: what was not confirmed will be delivered again")
	sh.mu.Lock()
	sh.ended = err
	for _, all := range sh.creating {
		for _, w := range all {
			w.done <- created{err: err}
		}
	}
	clear(sh.creating)
	for _, a := range sh.asks {
		sh.later(func() { a.done(nil, err) })
	}
	clear(sh.asks)
	for _, st := range sh.stations {
		sh.depose(st)
		for _, m := range st.members {
			if done := m.signed; done != nil {
				m.signed = nil
				sh.later(func() { done(stored{err: err}) })
			}
		}
	}
	sh.mu.Unlock()
	sh.settleAfter()
}

// flush writes what the reigns have decided.
func (sh *SharedConsumers) flush() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, r := range sh.dirty {
		r.dirty = false
		if !r.over {
			sh.write(r.records()...)
		}
	}
	sh.dirty = sh.dirty[:0]
}

// look does what is overdue.
func (sh *SharedConsumers) look() {
	sh.mu.Lock()
	if unsent := sh.unsent; len(unsent) > 0 {
		sh.unsent = nil
		sh.write(unsent...)
	}
	for st, since := range sh.free {
		if time.Since(since) >= vacancy {
			sh.claim(st)
		}
	}
	live := sh.node.Live()
	again := live && !sh.live
	sh.live = live
	var rested []listener
	for _, st := range sh.stations {
		if again {
			rested = append(rested, st)
		}
		if r := st.reign; again && r != nil && r.d != nil {
			rested = append(rested, r.d)
		}
	}
	sh.mu.Unlock()
	for _, l := range rested {
		l.lookAfter()
	}
}

// Live tells that the node may act, or must pause; see [cluster.Options]. It is found
// out a moment later otherwise.
func (sh *SharedConsumers) Live(bool) { sh.look() }
