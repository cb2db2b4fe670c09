package cluster

import (
	"slices"
	"strings"

	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

// Names of leases. Those of consumers and connectors are followed by their name.
const (
	LeaseCheckpoint = "checkpoint" // writes checkpoints
	LeaseBad        = "bad"        // copies records that no node takes
	LeaseConsumer   = "consumer/"
	LeaseConnector  = "connector/"
)

// Lease is the right of a node to do what only one node may do.
type Lease struct {
	Name       string
	Boot       uint64 // who holds it
	Generation uint64 // index of the claim
}

// Lease returns who holds the lease of that name, if anybody does.
func (s *State) Lease(name string) (Lease, bool) {
	l, held := s.leases[name]
	return l, held
}

// Leases returns the leases that are held and whose name begins so, by name.
func (s *State) Leases(prefix string) []Lease {
	var all []Lease
	for name, l := range s.leases {
		if strings.HasPrefix(name, prefix) {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b Lease) int { return compare(a.Name, b.Name) })
	return all
}

// claim gives the lease to the first who asks while it is free. Who asks for what
// it holds already keeps its generation.
func (s *State) claim(at At, c *clusterv1.Claim) {
	name := c.GetLease()
	if _, held := s.leases[name]; held || !validName(name) {
		return
	}
	l := Lease{Name: name, Boot: at.Boot, Generation: at.Index}
	s.leases[name] = l
	s.changed(at, Event{Kind: Claimed, Boot: l.Boot, Name: name, Generation: l.Generation})
}

// release frees the lease if the writer holds that very generation. So a lease is
// never claimed twice at one index: who releases has seen its claim.
func (s *State) release(at At, r *clusterv1.Release) {
	l, held := s.leases[r.GetLease()]
	if held && l.Boot == at.Boot && l.Generation == r.GetGeneration() && l.Generation < at.Index {
		s.free(at, l, Left)
	}
}

func (s *State) free(at At, l Lease, why Reason) {
	delete(s.leases, l.Name)
	if l.Name == LeaseCheckpoint {
		s.cycle = cycle{}
	}
	s.changed(at, Event{Kind: Released, Boot: l.Boot, Name: l.Name, Generation: l.Generation, Reason: why})
}
