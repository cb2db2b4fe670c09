package consumer

import (
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"slices"
)

// Copies are all consumers as the log of a cluster tells them: the same on all nodes that have
// read as far. Like a [Registry], whose machines they hold, they decide nothing about
// messages, but they say who may: what [Copies.Decided] refuses has never happened.
//
// Numbers of incarnations and generations are drawn where records are applied, so
// that all nodes draw the same.
type Copies struct {
	registry Registry
	by       map[uint64]*Copy // by incarnation
}

// Copy is one consumer in a cluster.
type Copy struct {
	*Machine // changed by Copies only

	members []Member
	lease   uint64 // generation of the lease under which step counts
	step    uint64 // how many decisions under it there were
}

// Member is somebody who works for a consumer, on the node of that boot.
type Member struct {
	Boot, Number             uint64
	Window                   uint64
	Session, Client, Subject string // for listings
}

// Members returns who works for the consumer, in the order in which they came.
func (c *Copy) Members() []Member { return slices.Clone(c.members) }

// Get returns the consumer of that name, nil if there is none.
func (c *Copies) Get(name string) *Copy {
	if m := c.registry.Get(name); m != nil {
		return c.by[m.incarnation]
	}
	return nil
}

// Of returns the consumer of that incarnation, nil if there is none.
func (c *Copies) Of(incarnation uint64) *Copy { return c.by[incarnation] }

// Len is how many consumers there are.
func (c *Copies) Len() int { return len(c.by) }

// All goes through the consumers in the order of their names.
func (c *Copies) All() iter.Seq[*Copy] {
	return func(yield func(*Copy) bool) {
		for m := range c.registry.All() {
			if !yield(c.by[m.incarnation]) {
				return
			}
		}
	}
}

// Draw returns a number that no incarnation and no generation had before: the index, or
// the next one if that was drawn.
func (c *Copies) Draw(index uint64) uint64 {
	c.registry.last = max(c.registry.last+1, index)
	return c.registry.last
}

// Plan returns what a consumer is to be like, for [Copies.Create].
func Plan(name string, s Settings, at Places, now int64) []byte {
	m := Machine{name: name, created: now, settings: s, cursors: reachOf(at)}
	return m.appendHead([]byte{version})
}

// Create makes the consumer of a plan. It returns false if one of the name is
// there, or if the plan cannot be read.
func (c *Copies) Create(index uint64, plan []byte) (*Copy, bool) {
	r := reader{b: plan}
	var m Machine
	if v := r.byte(); v != version {
		return nil, false
	}
	if m.replayHead(&r); r.wrong || len(r.b) > 0 || c.registry.Get(m.name) != nil {
		return nil, false
	}
	m.incarnation = c.Draw(index)
	m.generation = m.incarnation
	m.pending.order(m.settings.Ordered)
	return c.put(&m), true
}

func (c *Copies) put(m *Machine) *Copy {
	c.registry.put(m)
	if c.by == nil {
		c.by = make(map[uint64]*Copy)
	}
	is := &Copy{Machine: m}
	c.by[m.incarnation] = is
	return is
}

// Delete removes the consumer and returns what it was, nil if there is none.
func (c *Copies) Delete(incarnation uint64) *Copy {
	is := c.by[incarnation]
	if is != nil {
		c.registry.drop(is.Machine)
		delete(c.by, incarnation)
	}
	return is
}

// Join makes somebody work for the consumer. Of an exclusive one it is the only member
// then, in a new generation, and the others are returned; one that was there before, on
// an earlier boot of its node, is refused if there is another.
func (c *Copies) Join(index uint64, is *Copy, m Member, again bool) (overtaken []Member, joined bool) {
	if is.find(m.Boot, m.Number) >= 0 {
		return nil, false
	}
	if is.settings.Exclusive {
		if again && len(is.members) > 0 {
			return nil, false
		}
		overtaken, is.members = is.members, nil
		is.generation = c.Draw(index)
	}
	is.members = append(is.members, m)
	return overtaken, true
}

func (c *Copy) find(boot, number uint64) int {
	return slices.IndexFunc(c.members, func(m Member) bool { return m.Boot == boot && m.Number == number })
}

// Leave ends that, and reports whether it was so.
func (c *Copy) Leave(boot, number uint64) bool {
	at := c.find(boot, number)
	if at >= 0 {
		c.members = slices.Delete(c.members, at, at+1)
	}
	return at >= 0
}

// Gone removes the members of a boot, and returns them.
func (c *Copy) Gone(boot uint64) (gone []Member) {
	c.members = slices.DeleteFunc(c.members, func(m Member) bool {
		if m.Boot == boot {
			gone = append(gone, m)
		}
		return m.Boot == boot
	})
	return gone
}

// Claimed begins a generation: another node decides from now on, under a lease of that
// generation.
func (c *Copies) Claimed(index uint64, is *Copy, lease uint64) {
	is.lease, is.step = lease, 0
	is.generation = c.Draw(index)
}

// Step is how many decisions there were under the lease.
func (c *Copy) Step() uint64 { return c.step }

// Decided replays what was decided under a lease that is in force, as its decision of that
// number. One that does not follow the one before is refused, for deltas build on each
// other. So is every further one then, and the state stays as it is.
func (c *Copies) Decided(is *Copy, lease, step uint64, deltas []byte) bool {
	if is.lease != lease {
		is.lease, is.step = lease, 0 // the consumer was created after the claim
	}
	if step != is.step+1 {
		return false
	}
	if err := c.registry.Apply(deltas); err != nil {
		is.step = refused // as on all nodes
		return false
	}
	is.step = step
	return true
}

// refused is a step that none follows.
const refused = 1<<64 - 1

// Clone returns a machine with the same state, which is changed on its own.
func (m *Machine) Clone() (*Machine, error) {
	clone := &Machine{incarnation: m.incarnation}
	if err := clone.replayState(&reader{b: m.AppendState(nil)}); err != nil {
		return nil, fmt.Errorf("copy the consumer %s: %w", m.name, err)
	}
	return clone, nil
}

// AppendState appends all of it, in one form.
func (c *Copies) AppendState(b []byte) []byte {
	b = append(b, version)
	b = binary.AppendUvarint(b, c.registry.last)
	b = binary.AppendUvarint(b, uint64(len(c.by)))
	for _, number := range slices.Sorted(maps.Keys(c.by)) {
		is := c.by[number]
		b = binary.AppendUvarint(b, number)
		b = binary.AppendUvarint(b, is.lease)
		b = binary.AppendUvarint(b, is.step)
		b = binary.AppendUvarint(b, uint64(len(is.members)))
		for _, m := range is.members {
			for _, n := range []uint64{m.Boot, m.Number, m.Window} {
				b = binary.AppendUvarint(b, n)
			}
			b = appendString(appendString(appendString(b, m.Session), m.Client), m.Subject)
		}
		state := is.AppendState(nil)
		b = binary.AppendUvarint(b, uint64(len(state)))
		b = append(b, state...)
	}
	return b
}

// LoadState makes it what AppendState has written; of no bytes, nothing.
func (c *Copies) LoadState(b []byte) error {
	*c = Copies{}
	if len(b) == 0 {
		return nil
	}
	r := reader{b: b}
	if r.byte() != version {
		return errLater
	}
	c.registry.last = r.upTo(maxNumber)
	for n := r.number(); n > 0 && !r.wrong; n-- {
		if err := c.loadCopy(&r); err != nil {
			return err
		}
	}
	if r.wrong || len(r.b) > 0 {
		return errBroken
	}
	return nil
}

func (c *Copies) loadCopy(r *reader) error {
	m := &Machine{incarnation: r.upTo(maxNumber)}
	is := Copy{lease: r.number(), step: r.number()}
	for n := r.number(); n > 0 && !r.wrong; n-- {
		is.members = append(is.members, Member{
			Boot: r.number(), Number: r.number(), Window: r.number(),
			Session: string(r.bytes()), Client: string(r.bytes()), Subject: string(r.bytes()),
		})
	}
	if err := m.replayState(&reader{b: r.bytes()}); err != nil {
		return err
	}
	put := c.put(m)
	put.lease, put.step, put.members = is.lease, is.step, is.members
	return nil
}
