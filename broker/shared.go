package broker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tidewire/tidewire/broker/cluster"
	"github.com/tidewire/tidewire/broker/consumer"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
	"github.com/tidewire/tidewire/protocol"
)

// Cluster is this node of a cluster as consumers need it; [cluster.Node] is one.
type Cluster interface {
	Boot() uint64
	Live() bool
	Write(records ...*clusterv1.Record) error
}

// SharedConsumers are the consumers of a cluster on one of its nodes: a part of what the
// control log says ([cluster.Part]), and what this node does about it.
//
//   - A [consumer.Copies] is what the log says, alike on all nodes.
//   - A [station] is one consumer on this node: its members here, and what they
//     were granted.
//   - A [reign] is the time in which this node decides for a consumer, with a dispatcher
//     whose members are those of all nodes, its own among them. What it decides
//     has happened once the record is applied that tells it: messages are delivered and
//     acknowledgements confirmed by that, also on the node that decides. So a node that was
//     frozen, or cut off, has no effect by what it thinks.
//
// Everything is guarded by mu, which comes after the mutex of a dispatcher. What is
// to be done with others' locks is done by the goroutine that applies, after it gave mu away, and
// before the next record.
type SharedConsumers struct {
	consumers *consumers
	node      Cluster
	kick      chan struct{} // has a token when a reign has something to write
	rush      chan struct{} // has a token when somebody waits for it

	mu       sync.Mutex
	copies   consumer.Copies
	stations map[uint64]*station // by incarnation
	lives
	petitions
	free   map[*station]time.Time // nobody decides for these since then
	dirty  []*reign               // have something to write
	unsent []*clusterv1.Record    // what the node had no room for
	live   bool
	ended  *protocol.Error
	after  []func() // to be done once mu is free
}

// lives are the boots of this node.
type lives struct {
	boot  uint64          // 0 while this node is not there: then nothing is written
	boots map[uint64]bool // all that it was, since answers to them still come
}

// petitions are what somebody on this node waits for.
type petitions struct {
	asks     map[uint64]*asking
	creating map[string][]*creation
}

// ShareConsumers makes the broker's consumers those of a cluster. It must be called before
// Run, in place of OpenConsumers. What it returns is to be given to the node of the
// cluster, and that to it.
func (b *Broker) ShareConsumers() *SharedConsumers {
	sh := &SharedConsumers{
		consumers: b.consumers, kick: make(chan struct{}, 1), rush: make(chan struct{}, 1),
		stations: make(map[uint64]*station), lives: lives{boots: make(map[uint64]bool)},
		petitions: petitions{make(map[uint64]*asking), make(map[string][]*creation)}, free: make(map[*station]time.Time),
	}
	b.consumers.keeper = sh
	return sh
}

// Use says which node it is. It must be called before the node or the broker runs.
func (sh *SharedConsumers) Use(node Cluster) { sh.node = node }

// Name implements [cluster.Part].
func (sh *SharedConsumers) Name() string { return "consumers" }

// AppendState implements [cluster.Part].
func (sh *SharedConsumers) AppendState(b []byte) []byte {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.copies.AppendState(b)
}

// LoadState implements [cluster.Part].
func (sh *SharedConsumers) LoadState(b []byte) error {
	defer sh.settleAfter()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, s := range sh.stations {
		sh.close(s)
	}
	if err := sh.copies.LoadState(b); err != nil {
		return err
	}
	for c := range sh.copies.All() {
		sh.open(c)
	}
	return nil
}

// settleAfter does what is to be done without mu.
func (sh *SharedConsumers) settleAfter() {
	sh.mu.Lock()
	after := sh.after
	sh.after = nil
	sh.mu.Unlock()
	for _, f := range after {
		f()
	}
}

func (sh *SharedConsumers) later(f func()) { sh.after = append(sh.after, f) }

// Apply implements [cluster.Part].
func (sh *SharedConsumers) Apply(s *cluster.State, at cluster.At, rec *clusterv1.Record) {
	sh.mu.Lock()
	switch r := rec.GetRecord().(type) {
	case *clusterv1.Record_ConsumerCreate:
		sh.created(s, at, r.ConsumerCreate)
	case *clusterv1.Record_ConsumerDelete:
		sh.deleted(s, r.ConsumerDelete.GetConsumer())
	case *clusterv1.Record_ConsumerJoin:
		sh.joined(at, r.ConsumerJoin)
	case *clusterv1.Record_ConsumerLeave:
		if c := sh.copies.Of(r.ConsumerLeave.GetConsumer()); c != nil && c.Leave(at.Boot, r.ConsumerLeave.GetMember()) {
			sh.dismissed(c, at.Boot, r.ConsumerLeave.GetMember(), r.ConsumerLeave.GetBye())
		}
	case *clusterv1.Record_ConsumerDecided:
		sh.decided(s, at, r.ConsumerDecided)
	case *clusterv1.Record_ConsumerAsk:
		sh.asked(at, r.ConsumerAsk)
	}
	sh.mu.Unlock()
	sh.settleAfter()
}

// Changed implements [cluster.Part].
func (sh *SharedConsumers) Changed(s *cluster.State, at cluster.At, e cluster.Event) {
	sh.mu.Lock()
	switch e.Kind {
	case cluster.Joined:
		if e.Boot == sh.node.Boot() {
			sh.arrived(s, e.Boot)
		}
	case cluster.Gone:
		if e.Boot == sh.boot {
			sh.boot, sh.unsent = 0, nil
		}
		for c := range sh.copies.All() {
			for _, m := range c.Gone(e.Boot) {
				sh.dismissed(c, e.Boot, m.Number, false)
			}
		}
	case cluster.Claimed:
		sh.claimed(s, at, e)
	case cluster.Released:
		if name, is := consumerOf(e.Name); is {
			if c := sh.copies.Get(name); c != nil {
				sh.vacant(s, c)
			}
		}
	default:
	}
	sh.mu.Unlock()
	sh.settleAfter()
}

func consumerOf(lease string) (name string, is bool) {
	n := len(cluster.LeaseConsumer)
	if len(lease) > n && lease[:n] == cluster.LeaseConsumer {
		return lease[n:], true
	}
	return "", false
}

// write puts records into the log. While the node is not there nothing is to be written: what
// still matters is told when it has come back.
func (sh *SharedConsumers) write(records ...*clusterv1.Record) {
	if sh.boot == 0 || sh.ended != nil {
		return
	}
	if len(sh.unsent) == 0 {
		err := sh.node.Write(records...)
		if err == nil || errors.Is(err, cluster.ErrAway) {
			return
		}
		if errors.Is(err, cluster.ErrAway) { // it has said goodbye
			return
		}
		if !errors.Is(err, cluster.ErrFull) {
			sh.consumers.broker.options().Logger.Error("a record about consumers cannot be written", "error", err)
			return
		}
	}
	sh.unsent = append(sh.unsent, records...)
}

// arrived tells the others what they must know of this node, which is there as a new boot.
func (sh *SharedConsumers) arrived(s *cluster.State, boot uint64) {
	sh.boot, sh.unsent = boot, nil
	sh.boots[boot] = true
	for name, all := range sh.creating {
		sh.write(createRecord(name, all[0].plan))
	}
	for c := range sh.copies.All() {
		st := sh.stations[c.Incarnation()]
		if st == nil {
			continue
		}
		st.asked = false
		for _, m := range st.members {
			if m.granted.clear(); !m.brief {
				sh.write(st.joinRecord(m))
			}
		}
		if _, held := s.Lease(cluster.LeaseConsumer + st.name); !held {
			sh.vacant(s, c)
		}
	}
	for _, a := range sh.asks {
		a.applied = false
		sh.write(a.record)
	}
}

// open makes a consumer one that this node can work for.
func (sh *SharedConsumers) open(c *consumer.Copy) *station {
	logger := sh.consumers.broker.options().Logger
	stream, perr := sh.consumers.broker.named(c.Settings().Stream)
	if perr != nil {
		logger.Warn("a consumer's stream is not configured on this node: others work for it", "consumer", c.Name(), "stream", c.Settings().Stream)
		return nil
	}
	about, err := newSubject(sh.consumers.broker, stream, c.Machine)
	if err != nil {
		logger.Error("a consumer cannot be worked for", "consumer", c.Name(), "error", err)
		return nil
	}
	st := &station{subject: about, shared: sh, copy: c, members: make(map[uint64]*member), ears: make([]ear, len(about.strands))}
	st.news = make([]news, len(about.strands))
	for i, l := range st.strands {
		st.ears[i].read = c.CursorIn(l.source, l.number)
	}
	sh.stations[c.Incarnation()] = st
	sh.consumers.mu.Lock()
	sh.consumers.by[st.name] = st
	sh.consumers.mu.Unlock()
	sh.later(func() { st.follow(consumer.Main) })
	return st
}

// close ends a station, whose consumer is gone.
func (sh *SharedConsumers) close(st *station) {
	delete(sh.stations, st.copy.Incarnation())
	delete(sh.free, st)
	sh.consumers.mu.Lock()
	if sh.consumers.by[st.name] == post(st) {
		delete(sh.consumers.by, st.name)
	}
	sh.consumers.mu.Unlock()
	st.gone = true
	sh.depose(st)
	for _, m := range st.members {
		m.left = true
		sh.later(func() { m.dismiss(errDeleted(st.name)) })
	}
	for number, a := range sh.asks {
		if a.station == st {
			delete(sh.asks, number)
			sh.later(func() { a.done(nil, errDeleted(st.name)) })
		}
	}
	sh.later(st.unfollow)
}

// deleted ends a consumer on all nodes.
func (sh *SharedConsumers) deleted(s *cluster.State, number uint64) {
	c := sh.copies.Delete(number)
	if c == nil {
		return
	}
	if st := sh.stations[number]; st != nil {
		sh.close(st)
	}
	lease, held := s.Lease(cluster.LeaseConsumer + c.Name())
	if held && lease.Boot == sh.boot {
		sh.write(&clusterv1.Record{Record: &clusterv1.Record_Release{
			Release: &clusterv1.Release{Lease: lease.Name, Generation: lease.Generation},
		}})
	}
}

// wait implements keeper: whoever changes something here has waited for it.
func (sh *SharedConsumers) wait(context.Context) *protocol.Error { return nil }

// blind implements keeper. A node that is not there has not read all that the log says: a
// consumer that it does not know may be at work on the others.
func (sh *SharedConsumers) blind() *protocol.Error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.boot != 0 {
		return nil
	}
	err := protocol.Errorf(protocol.CodeLogUnavailable, "this broker has not read yet which consumers the cluster has: try again in a moment, or on another one")
	err.RetryAfter = blindRetry
	return err
}

// blindRetry is when to ask a node again that has just begun.
const blindRetry = time.Second
