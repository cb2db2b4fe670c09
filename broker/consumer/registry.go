package consumer

import (
	"encoding/binary"
	"iter"
	"slices"
	"strings"

	"github.com/tidewire/tidewire/protocol"
)

// A Registry is all consumers. The zero value has none.
type Registry struct {
	order    []*Machine // by name
	byNumber map[uint64]*Machine
	last     uint64 // the last number that was given to an incarnation or a generation
	deltas   []byte
	parts    map[uint64]*parts // of pages whose last part has not come yet
}

// NextGeneration returns a number that no incarnation and no generation had
// before, also none of a consumer that was deleted.
func (g *Registry) NextGeneration() uint64 {
	g.last++
	return g.last
}

// Get returns the consumer of that name, nil if there is none.
func (g *Registry) Get(name string) *Machine {
	if at, found := g.search(name); found {
		return g.order[at]
	}
	return nil
}

// Len is how many consumers there are.
func (g *Registry) Len() int { return len(g.order) }

// All goes through the consumers in the order of their names. None may be
// created or deleted meanwhile.
func (g *Registry) All() iter.Seq[*Machine] { return slices.Values(g.order) }

func (g *Registry) search(name string) (int, bool) {
	return slices.BinarySearchFunc(g.order, name, func(m *Machine, name string) int { return strings.Compare(m.name, name) })
}

// Places are where a consumer reads on: after these positions of its sources.
type Places struct {
	Main, Redrive protocol.Position
	More          []protocol.Position // of Main, in its other partitions, in their order
}

// Create makes a consumer of settings that [Settings.Check] has let pass. The
// error has the code consumer_exists.
func (g *Registry) Create(name string, s Settings, at Places, now int64) (*Machine, error) {
	if g.Get(name) != nil {
		return nil, protocol.Errorf(protocol.CodeConsumerExists, "there is a consumer %q already: use it as it is, or take another name", name)
	}
	number := g.NextGeneration()
	m := &Machine{name: name, incarnation: number, generation: number, created: now, settings: s}
	m.cursors = reachOf(at)
	m.pending.order(s.Ordered)
	g.put(m)
	g.deltas = appendGroup(g.deltas, kindCreate, number, m.appendHead(nil))
	return m, nil
}

// Delete removes the consumer and reports whether there was one. Its machine
// must not be used any more.
func (g *Registry) Delete(name string) bool {
	m := g.Get(name)
	if m == nil {
		return false
	}
	g.drop(m)
	g.deltas = appendGroup(g.deltas, kindDelete, m.incarnation, binary.AppendUvarint(nil, g.last))
	return true
}

// Deltas returns what was created and deleted since the last call, for the log,
// and forgets it. It is nil if nothing was.
func (g *Registry) Deltas() []byte {
	b := g.deltas
	g.deltas = nil
	return b
}

func (g *Registry) put(m *Machine) {
	at, found := g.search(m.name)
	if found {
		g.drop(g.order[at])
	}
	g.order = slices.Insert(g.order, at, m)
	if g.byNumber == nil {
		g.byNumber = make(map[uint64]*Machine)
	}
	g.byNumber[m.incarnation] = m
}

func (g *Registry) drop(m *Machine) {
	delete(g.byNumber, m.incarnation)
	at, _ := g.search(m.name)
	g.order = slices.Delete(g.order, at, at+1)
}
