package cluster

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

// member is a boot that is there.
type member struct {
	name     string
	hello    uint64           // index of its hello
	sequence uint64           // of its last envelope
	beats    [patience]uint64 // indexes of its last heartbeats, the newest last; its hello counts as one
	last     *clusterv1.Heartbeat
}

func (m *member) beat(index uint64) {
	if index > m.beats[patience-1] { // several in one envelope say nothing about time
		copy(m.beats[:], m.beats[1:])
		m.beats[patience-1] = index
	}
}

// NodeInfo is a node that is there.
type NodeInfo struct {
	Boot    uint64
	Name    string
	Version uint32 // the newest rules that it can follow
	Joined  uint64 // index of its hello
	Seen    uint64 // index of its last heartbeat
	Heads   []*clusterv1.StreamHeads
}

// Nodes returns the nodes that are there, in the order in which they came.
func (s *State) Nodes() []NodeInfo {
	all := make([]NodeInfo, 0, len(s.nodes))
	for boot, m := range s.nodes {
		all = append(all, m.info(boot))
	}
	slices.SortFunc(all, func(a, b NodeInfo) int { return cmp.Compare(a.Joined, b.Joined) })
	return all
}

// Node returns the node of a boot, if it is there.
func (s *State) Node(boot uint64) (NodeInfo, bool) {
	m := s.nodes[boot]
	if m == nil {
		return NodeInfo{}, false
	}
	return m.info(boot), true
}

func (m *member) info(boot uint64) NodeInfo {
	return NodeInfo{
		Boot: boot, Name: m.name, Version: m.last.GetVersion(), Joined: m.hello,
		Seen: m.beats[patience-1], Heads: m.last.GetStreams(),
	}
}

// Version is the newest version of the rules that all nodes can follow, 0 if no
// node is there.
func (s *State) Version() uint32 {
	if len(s.nodes) == 0 {
		return 0
	}
	lowest := uint32(math.MaxUint32)
	for _, m := range s.nodes {
		lowest = min(lowest, m.last.GetVersion())
	}
	return lowest
}

// hello takes in a boot. It returns nil if the boot is refused, and never will be
// there.
func (s *State) hello(at At, h *clusterv1.Hello) *member {
	if !validName(h.GetName()) {
		return nil
	}
	if before, taken := s.names[h.GetName()]; taken {
		if h.GetRead() < s.nodes[before].hello {
			s.bury(at.Boot)
			s.changed(at, Event{Kind: Gone, Boot: at.Boot, Name: h.GetName(), Reason: Refused})
			return nil
		}
		s.remove(at, before, Replaced)
	}
	m := &member{name: h.GetName(), hello: at.Index, last: &clusterv1.Heartbeat{Version: h.GetVersion()}}
	m.beat(at.Index)
	s.nodes[at.Boot], s.names[m.name] = m, at.Boot
	s.changed(at, Event{Kind: Joined, Boot: at.Boot, Name: m.name})
	return m
}

func (s *State) heartbeat(at At, h *clusterv1.Heartbeat) {
	m := s.nodes[at.Boot]
	m.beat(at.Index)
	m.last = h
}

// expire removes a boot that has been silent while the writer was not: the
// writer's last three heartbeats stand behind its last one.
func (s *State) expire(at At, e *clusterv1.Expire) {
	m := s.nodes[e.GetBoot()]
	if m == nil || m.beats[patience-1] != e.GetSeen() || s.nodes[at.Boot].beats[0] <= e.GetSeen() {
		return
	}
	s.remove(at, e.GetBoot(), Expired)
}

// silent returns the boots that an expiry written by boot would find silent, with
// the index of their last heartbeats. Its own heartbeats count from behind calm on.
func (s *State) silent(boot, calm uint64) []*clusterv1.Expire {
	me := s.nodes[boot]
	if me == nil || me.beats[0] <= calm {
		return nil
	}
	var all []*clusterv1.Expire
	for _, other := range slices.Sorted(maps.Keys(s.nodes)) {
		if seen := s.nodes[other].beats[patience-1]; seen < me.beats[0] {
			all = append(all, &clusterv1.Expire{Boot: other, Seen: seen})
		}
	}
	return all
}

// remove takes a boot away, with all that it holds.
func (s *State) remove(at At, boot uint64, why Reason) {
	m := s.nodes[boot]
	delete(s.nodes, boot)
	delete(s.names, m.name)
	s.bury(boot)
	if s.cycle.boot == boot {
		s.cycle = cycle{}
	}
	for _, l := range s.Leases("") {
		if l.Boot == boot {
			s.free(at, l, why)
		}
	}
	s.changed(at, Event{Kind: Gone, Boot: boot, Name: m.name, Reason: why})
}

// bury remembers that nothing of the boot counts any more.
func (s *State) bury(boot uint64) {
	s.gone = append(s.gone, boot)
	s.isGone[boot] = true
	if len(s.gone) > keptGone {
		delete(s.isGone, s.gone[0])
		s.gone = slices.Delete(s.gone, 0, 1)
	}
}

func validName(name string) bool { return name != "" && len(name) <= maxName && utf8.ValidString(name) }

func compare(a, b string) int { return strings.Compare(a, b) }
