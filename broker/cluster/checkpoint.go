package cluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

// stateFormat is the version of what AppendState writes.
const stateFormat = 1

// cycle is a checkpoint that is being written.
type cycle struct {
	begin uint64
	boot  uint64
	pages uint64 // how many came
}

// Checkpoint returns where the last whole checkpoint begins, 0 if there is none.
func (s *State) Checkpoint() uint64 { return s.checkpoint }

// mayCheckpoint reports whether the writer holds the lease for it.
func (s *State) mayCheckpoint(at At) bool { return s.leases[LeaseCheckpoint].Boot == at.Boot }

func (s *State) beginCycle(at At) {
	if !s.mayCheckpoint(at) {
		return
	}
	s.cycle = cycle{begin: at.Index, boot: at.Boot}
	s.changed(at, Event{Kind: CheckpointBegan, Boot: at.Boot})
}

// page counts the pages of the cycle. What they hold is nothing new to who is
// here already.
func (s *State) page(at At, p *clusterv1.CheckpointPage) {
	if s.ofCycle(at, p.GetBegin(), p.GetNumber()) {
		s.cycle.pages++
	}
}

func (s *State) endCycle(at At, e *clusterv1.CheckpointEnd) {
	if !s.ofCycle(at, e.GetBegin(), e.GetPages()) {
		return
	}
	s.checkpoint, s.cycle = s.cycle.begin, cycle{}
	s.changed(at, Event{Kind: CheckpointEnded, Boot: at.Boot, Generation: s.checkpoint})
}

func (s *State) ofCycle(at At, begin, pages uint64) bool {
	return s.cycle.begin != 0 && s.cycle.boot == at.Boot && s.cycle.begin == begin && s.cycle.pages == pages
}

// AppendState appends all of the state and of its parts in one form: two states are
// the same if these bytes are.
func (s *State) AppendState(b []byte) []byte {
	all := &clusterv1.State{
		Format: stateFormat, Index: s.index, Gone: s.gone, Checkpoint: s.checkpoint,
		Cycle: &clusterv1.Cycle{Begin: s.cycle.begin, Boot: s.cycle.boot, Pages: s.cycle.pages},
	}
	for _, boot := range slices.Sorted(maps.Keys(s.nodes)) {
		m := s.nodes[boot]
		all.Nodes = append(all.Nodes, &clusterv1.NodeState{
			Boot: boot, Name: m.name, Hello: m.hello, Sequence: m.sequence, Beats: m.beats[:], Last: m.last,
		})
	}
	for _, l := range s.Leases("") {
		all.Leases = append(all.Leases, &clusterv1.LeaseState{Name: l.Name, Boot: l.Boot, Generation: l.Generation})
	}
	for _, name := range s.Streams() {
		stream := &clusterv1.DefinedStream{Name: name}
		for _, t := range s.streams[name] {
			stream.Terms = append(stream.Terms, &clusterv1.DefinedTerm{Index: t.Index, Definition: t.Definition})
		}
		all.Streams = append(all.Streams, stream)
	}
	for _, p := range s.parts {
		all.Parts = append(all.Parts, &clusterv1.PartState{Name: p.Name(), State: p.AppendState(nil)})
	}
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, all)
	if err != nil {
		panic(fmt.Sprintf("cluster: encode the state: %v", err)) // all texts in it were decoded from such bytes
	}
	return b
}

var errLater = errors.New("the checkpoint in the control topic was written by a later version of the broker: start that version, or a later one")

// LoadState makes the state what AppendState has written. A state without parts leaves
// out those of others: tools need none.
func (s *State) LoadState(b []byte) error {
	var all clusterv1.State
	if err := proto.Unmarshal(b, &all); err != nil {
		return fmt.Errorf("decode a checkpoint: %w", err)
	}
	if all.GetFormat() > stateFormat {
		return errLater
	}
	s.clear()
	s.index, s.checkpoint = all.GetIndex(), all.GetCheckpoint()
	s.cycle = cycle{begin: all.GetCycle().GetBegin(), boot: all.GetCycle().GetBoot(), pages: all.GetCycle().GetPages()}
	for _, boot := range all.GetGone() {
		s.bury(boot)
	}
	for _, n := range all.GetNodes() {
		m := &member{name: n.GetName(), hello: n.GetHello(), sequence: n.GetSequence(), last: n.GetLast()}
		copy(m.beats[:], n.GetBeats())
		s.nodes[n.GetBoot()], s.names[m.name] = m, n.GetBoot()
	}
	for _, l := range all.GetLeases() {
		s.leases[l.GetName()] = Lease{Name: l.GetName(), Boot: l.GetBoot(), Generation: l.GetGeneration()}
	}
	for _, d := range all.GetStreams() {
		for _, t := range d.GetTerms() {
			s.streams[d.GetName()] = append(s.streams[d.GetName()], Term{Index: t.GetIndex(), Definition: t.GetDefinition()})
		}
	}
	return s.loadParts(all.GetParts())
}

func (s *State) loadParts(parts []*clusterv1.PartState) error {
	if len(s.parts) == 0 {
		return nil
	}
	states := make(map[string][]byte, len(parts))
	for _, p := range parts {
		states[p.GetName()] = p.GetState()
	}
	for _, p := range s.parts {
		if err := p.LoadState(states[p.Name()]); err != nil {
			return fmt.Errorf("load the %s of a checkpoint: %w", p.Name(), err)
		}
		delete(states, p.Name())
	}
	if len(states) > 0 {
		return errLater
	}
	return nil
}
