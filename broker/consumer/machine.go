package consumer

import (
	"iter"
	"slices"

	"github.com/tidewire/tidewire/protocol"
)

// A Machine is the state of one consumer. [Registry.Create] makes it, and the
// caller sees to it that one call is there at a time.
//
// What each decision does stands with its method. In all of them: a message of
// a key (of settings that are Ordered) is in flight or waiting only while no
// other of that key is, the others are held and get the key by offset; a dying
// message has no key.
type Machine struct {
	name        string
	incarnation uint64
	created     int64
	generation  uint64
	paused      bool
	paged       bool // since the last beginning of a checkpoint; see Registry.Apply
	settings    Settings
	cursors     reach
	pending     pending
	dead        []uint64 // sorted
	deltas      deltas
}

// Name is the consumer's name.
func (m *Machine) Name() string { return m.name }

// Incarnation is the number of its creation. No other consumer ever has it,
// also none of the same name.
func (m *Machine) Incarnation() uint64 { return m.incarnation }

// Created is when it was created.
func (m *Machine) Created() int64 { return m.created }

// Generation is the number of the last creation, seek or take-over.
func (m *Machine) Generation() uint64 { return m.generation }

// Settings are what it was created with, or given last.
func (m *Machine) Settings() Settings { return m.settings }

// Paused reports whether nothing is delivered.
func (m *Machine) Paused() bool { return m.paused }

// Position is the place up to which it has read the source: of several partitions
// in the first.
func (m *Machine) Position(src Source) protocol.Position { return m.cursors.first[src] }

// Cursor is the offset of [Machine.Position].
func (m *Machine) Cursor(src Source) uint64 { return m.cursors.first[src].Offset }

// CursorIn is the offset up to which it has read the source in a partition; 0 if
// it does not read that.
func (m *Machine) CursorIn(src Source, partition uint32) uint64 {
	if at := m.cursors.in(src, partition); at != nil {
		return at.Offset
	}
	return 0
}

// Places are all that it has read.
func (m *Machine) Places() Places {
	return Places{Main: m.cursors.first[Main], Redrive: m.cursors.first[Redrive], More: slices.Clone(m.cursors.more)}
}

// InFlight is how many messages are in flight, and their bytes.
func (m *Machine) InFlight() (n int, bytes int64) { return len(m.pending.flying), m.pending.bytes }

// Waiting is how many entries wait for another attempt.
func (m *Machine) Waiting() int { return len(m.pending.waiting) }

// Held is how many entries wait for their key.
func (m *Machine) Held() int { return m.pending.held }

// Dying is how many entries are to be stored as dead letters.
func (m *Machine) Dying() int { return m.pending.doomed }

// Pending is how many entries there are.
func (m *Machine) Pending() int { return len(m.pending.at) }

// HeldBy is how many messages are in flight to the member.
func (m *Machine) HeldBy(holder uint64) int { return m.pending.holders[holder] }

// DeadCount is how many dead letters of this consumer are neither redriven nor
// purged.
func (m *Machine) DeadCount() int { return len(m.dead) }

// Dead is a copy of their offsets in the stream of dead letters, in order.
func (m *Machine) Dead() []uint64 { return append([]uint64(nil), m.dead...) }

// Entry is what is pending at the place.
func (m *Machine) Entry(place uint64) (Entry, bool) {
	if e := m.pending.at[place]; e != nil {
		return e.Entry, true
	}
	return Entry{}, false
}

// Oldest is the entry of the lowest place.
func (m *Machine) Oldest() (Entry, bool) {
	for e := range m.pending.all() {
		return e.Entry, true
	}
	return Entry{}, false
}

// Entries goes through all entries in the order of their places. The machine
// must not be changed meanwhile.
func (m *Machine) Entries() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for e := range m.pending.all() {
			if !yield(e.Entry) {
				return
			}
		}
	}
}

// Below returns the entries at or below the place in its partition, in order.
func (m *Machine) Below(through uint64) []Entry {
	var found []Entry
	for e := range m.pending.all() {
		if e.Offset > through {
			break
		}
		if e.Offset>>placeBits == through>>placeBits {
			found = append(found, e.Entry)
		}
	}
	return found
}

// EachDying goes through the dying entries in the order in which they became
// so, or by offset after a replay from a page, until the function returns false. The function may finish the entry that
// it was given, with [Machine.Buried] or [Machine.Lost], and no other.
func (m *Machine) EachDying(f func(Entry) bool) {
	for e := m.pending.dying.head; e != nil; {
		next := e.other.next
		if !f(e.Entry) {
			return
		}
		e = next
	}
}

// Why nothing new may be taken; see [Machine.Blocked].
const (
	BlockedPaused        = "paused"
	BlockedInFlight      = "max_in_flight"
	BlockedInFlightBytes = "max_in_flight_bytes"
	BlockedWaiting       = "max_waiting"
)

// Blocked says why a new message of that size may not be taken, "" if it may.
func (m *Machine) Blocked(size int) string {
	if why := m.full(size); why != "" {
		return why
	}
	if len(m.pending.waiting)+m.pending.held+m.pending.doomed >= m.settings.MaxWaiting {
		return BlockedWaiting
	}
	return ""
}

// full says why no message of that size may be delivered, new or not.
func (m *Machine) full(size int) string {
	flying := len(m.pending.flying)
	switch {
	case m.paused:
		return BlockedPaused
	case flying >= m.settings.MaxInFlight:
		return BlockedInFlight
	case flying > 0 && m.pending.bytes+int64(size) > m.settings.MaxInFlightBytes:
		return BlockedInFlightBytes
	}
	return ""
}

// NextDue is the earliest moment at which [Machine.Advance] has something to
// do, or [Machine.Retry] if a member would take it. It may be past. While the
// machine is paused or too much is in flight, no retry counts.
func (m *Machine) NextDue() (int64, bool) {
	flying, waiting := m.pending.flying.top(), m.pending.waiting.top()
	if waiting != nil && m.full(waiting.Size) != "" {
		waiting = nil
	}
	switch {
	case flying == nil && waiting == nil:
		return 0, false
	case flying == nil || waiting != nil && waiting.Due < flying.Due:
		return waiting.Due, true
	default:
		return flying.Due, true
	}
}

// Timer is when the machine is to be looked at again although nothing happens: the
// end of an ack wait, or of a wait for the next delivery. Deliveries that are due
// already do not count, for a member takes them as soon as there is one with room.
// 0 if there is nothing to wait for.
func (m *Machine) Timer(now int64) int64 {
	var at int64
	if e := m.pending.flying.top(); e != nil {
		at = e.Due
	}
	if e := m.pending.waiting.top(); e != nil && e.Due > now && (at == 0 || e.Due < at) && m.full(e.Size) == "" {
		at = e.Due
	}
	return at
}

// Ready is how many retries [Machine.Retry] would give now, or a few more if
// bytes in flight come to their bound before.
func (m *Machine) Ready(now int64) int {
	first := m.pending.waiting.top()
	if first == nil || m.full(first.Size) != "" {
		return 0
	}
	return m.pending.waiting.count(now, m.settings.MaxInFlight-len(m.pending.flying))
}
