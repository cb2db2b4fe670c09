package cluster

import (
	"slices"

	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

// Bounds of the state. They are part of the rules: nodes that differ in
// them come to differ in their states.
const (
	// keptGone is how many boots that are gone are known as such. A repeat of
	// Kafka's producers comes within seconds, and a node does not start a thousand times in
	// that time.
	keptGone = 1000

	// patience is how many heartbeats of another node must stand behind the last
	// one of a node before it can be expired.
	patience = 3

	// maxName bounds names of nodes, leases and streams, in bytes.
	maxName = 512
)

// At is where a record stands and who wrote it.
type At struct {
	Index uint64
	Boot  uint64
}

// A Part is state beside that of nodes and leases, which follows the same log and
// travels in the same checkpoints. Apply and Changed are called in the order of the log, on one goroutine,
// with locks held: they may read s, and write to the log by [Node.Write], but must
// not call other methods of a [Node]. What they change must be a function of the calls alone.
type Part interface {
	// Name says which part of a checkpoint is its own.
	Name() string
	// Apply is told each record that counts and that the State itself does not know.
	Apply(s *State, at At, rec *clusterv1.Record)
	// Changed is told each change of the State, in between.
	Changed(s *State, at At, e Event)
	// AppendState appends all of it in one form: the same state is the same bytes.
	AppendState(b []byte) []byte
	// LoadState replaces all of it. No bytes is the state before the first record.
	LoadState(b []byte) error
}

// EventKind is what has changed.
type EventKind uint8

// The kinds of events.
const (
	Joined          EventKind = iota + 1 // Boot is there as node Name
	Gone                                 // Boot, node Name, is not; what it still writes does not count
	Claimed                              // Boot holds lease Name with Generation
	Released                             // Boot does not hold lease Name of Generation any more
	Defined                              // stream Name has a new term
	CheckpointBegan                      // Boot writes a checkpoint of the state at this index
	CheckpointEnded                      // a start may begin with the checkpoint of Generation
)

// Reason is why a boot is gone, or a lease is released.
type Reason uint8

// The reasons.
const (
	Left     Reason = iota + 1 // the node said so itself
	Expired                    // it was silent for too long
	Replaced                   // another boot came with its name
	Refused                    // its hello came too late: the name is another boot's. It never was there
)

// Event is a change of the [State], in the order of the log.
type Event struct {
	Kind       EventKind
	Boot       uint64
	Name       string
	Generation uint64
	Reason     Reason
}

// State is what the control log up to an index says. See the package's
// documentation for the rules. It is not for several goroutines at a time.
type State struct {
	index      uint64
	nodes      map[uint64]*member
	names      map[string]uint64 // boots by name
	gone       []uint64          // the newest last
	isGone     map[uint64]bool
	leases     map[string]Lease
	streams    map[string][]Term
	cycle      cycle
	checkpoint uint64 // where the last whole one begins
	parts      []Part // by name

	events []Event // of the envelope that is being applied
}

// NewState returns the state before the first record.
func NewState(parts ...Part) *State {
	s := &State{parts: slices.Clone(parts)}
	slices.SortFunc(s.parts, func(a, b Part) int { return compare(a.Name(), b.Name()) })
	s.clear()
	return s
}

func (s *State) clear() {
	s.index, s.cycle, s.checkpoint, s.gone = 0, cycle{}, 0, nil
	s.nodes, s.names, s.isGone = make(map[uint64]*member), make(map[string]uint64), make(map[uint64]bool)
	s.leases, s.streams = make(map[string]Lease), make(map[string][]Term)
}

// Index is the index of the last envelope that was applied.
func (s *State) Index() uint64 { return s.index }

// Apply makes what the envelope of that index says part of the state, and returns what
// changed. The slice is valid until the next call. Indexes go up, and may leave some out.
func (s *State) Apply(index uint64, e *clusterv1.Envelope) []Event {
	s.index = index
	s.events = s.events[:0]
	at := At{Index: index, Boot: e.GetBoot()}
	if at.Boot == 0 {
		for _, rec := range e.GetRecords() {
			if d := rec.GetDefine(); d != nil {
				s.define(at, d)
			}
		}
		return s.events
	}
	if !s.accept(at, e) {
		return s.events
	}
	for _, rec := range e.GetRecords() {
		if s.nodes[at.Boot] == nil {
			break // it said goodbye, or its hello was refused
		}
		s.record(at, rec)
	}
	return s.events
}

// accept judges whether the envelope counts, and welcomes a new boot.
func (s *State) accept(at At, e *clusterv1.Envelope) bool {
	m := s.nodes[at.Boot]
	if m == nil {
		recs := e.GetRecords()
		if s.isGone[at.Boot] || len(recs) == 0 || recs[0].GetHello() == nil {
			return false
		}
		if m = s.hello(at, recs[0].GetHello()); m == nil {
			return false
		}
	}
	if e.GetSequence() <= m.sequence {
		return false
	}
	m.sequence = e.GetSequence()
	return true
}

func (s *State) record(at At, rec *clusterv1.Record) {
	switch r := rec.GetRecord().(type) {
	case *clusterv1.Record_Hello: // the first of its boot was applied by accept
	case *clusterv1.Record_Heartbeat:
		s.heartbeat(at, r.Heartbeat)
	case *clusterv1.Record_Expire:
		s.expire(at, r.Expire)
	case *clusterv1.Record_Goodbye:
		s.remove(at, at.Boot, Left)
	case *clusterv1.Record_Claim:
		s.claim(at, r.Claim)
	case *clusterv1.Record_Release:
		s.release(at, r.Release)
	case *clusterv1.Record_Define:
		s.define(at, r.Define)
	case *clusterv1.Record_CheckpointBegin:
		s.beginCycle(at)
	case *clusterv1.Record_CheckpointPage:
		s.page(at, r.CheckpointPage)
	case *clusterv1.Record_CheckpointEnd:
		s.endCycle(at, r.CheckpointEnd)
	default: // one of a later version is nothing to the parts either
		for _, p := range s.parts {
			p.Apply(s, at, rec)
		}
	}
}

// changed tells the parts, and notes the event for the caller of Apply.
func (s *State) changed(at At, e Event) {
	s.events = append(s.events, e)
	for _, p := range s.parts {
		p.Changed(s, at, e)
	}
}
