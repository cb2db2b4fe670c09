package consumer

import (
	"slices"

	"github.com/tidewire/tidewire/protocol"
)

// Bury makes an entry dying whatever it was, for one whose message is about to
// go from the log.
func (m *Machine) Bury(offset uint64, reason string) {
	if e := m.pending.at[offset]; e != nil && e.State != Dying {
		m.die(e, short(reason, "its message is about to go"))
	}
}

// Buried tells that the dead letter of a message is stored, at deadOffset of
// the stream of dead letters; 0 if it is not known where.
func (m *Machine) Buried(offset, deadOffset uint64) {
	if deadOffset != 0 && m.addDead(deadOffset) {
		m.deltas.dead(deadOffset)
	}
	m.done(offset)
}

// Lost tells that the message is gone from the log.
func (m *Machine) Lost(offset uint64) { m.done(offset) }

// Expired tells that the message has expired before a delivery: it is done. A
// dying one was tried as often as may be before that, and is buried.
func (m *Machine) Expired(offset uint64) {
	if e := m.pending.at[offset]; e != nil && e.State != Dying {
		m.drop(e)
	}
}

func (m *Machine) done(offset uint64) {
	if e := m.pending.at[offset]; e != nil {
		m.drop(e)
	}
}

// Undead tells that dead letters were redriven or purged.
func (m *Machine) Undead(offsets ...uint64) {
	for _, offset := range offsets {
		if m.removeDead(offset) {
			m.deltas.undead(offset)
		}
	}
}

// UndeadThrough tells that the stream of dead letters does not hold anything at
// or below the offset any more.
func (m *Machine) UndeadThrough(offset uint64) {
	if len(m.dead) > 0 && m.dead[0] <= offset {
		m.removeDeadThrough(offset)
		m.deltas.undeadThrough(offset)
	}
}

func (m *Machine) addDead(offset uint64) bool {
	at, found := slices.BinarySearch(m.dead, offset)
	if !found {
		m.dead = slices.Insert(m.dead, at, offset)
	}
	return !found
}

func (m *Machine) removeDead(offset uint64) bool {
	at, found := slices.BinarySearch(m.dead, offset)
	if found {
		m.dead = slices.Delete(m.dead, at, at+1)
	}
	return found
}

func (m *Machine) removeDeadThrough(offset uint64) {
	at, found := slices.BinarySearch(m.dead, offset)
	if found {
		at++
	}
	m.dead = slices.Delete(m.dead, 0, at)
	if len(m.dead) == 0 {
		m.dead = nil
	}
}

// TakeOver begins a generation, a number of [Registry.NextGeneration]: answers
// of the one before are fenced, and what was in flight is ready at once, or dying
// if that was its last attempt.
func (m *Machine) TakeOver(generation uint64, now int64) {
	m.generation = generation
	m.deltas.generation(generation)
	for _, e := range m.inFlight(func(*entry) bool { return true }) {
		m.fail(e, now, "its member was overtaken")
	}
}

// Seek begins a generation at other places. What was pending is forgotten.
func (m *Machine) Seek(generation uint64, to Places) {
	m.generation = generation
	m.deltas.generation(generation)
	m.pending.clear()
	m.deltas.clear()
	m.place(to)
}

// Rewind puts the cursors where the log ends that is left after a part of it
// was lost, and forgets the entries above.
func (m *Machine) Rewind(to Places) {
	m.place(to)
	for e := range m.pending.all() {
		if !m.cursors.covers(e.Source, e.Offset) {
			m.drop(e)
		}
	}
}

func (m *Machine) place(to Places) {
	place := func(src Source, to protocol.Position) {
		if at := m.cursors.in(src, to.Partition); at != nil && *at != to {
			*at = to
			m.deltas.cursor(src, to)
		}
	}
	place(Main, to.Main)
	place(Redrive, to.Redrive)
	for _, p := range to.More {
		place(Main, p)
	}
}

// SetPaused stops deliveries, or lets them go on. Answers count meanwhile, and
// ack waits end.
func (m *Machine) SetPaused(paused bool) {
	if m.paused != paused {
		m.paused = paused
		m.deltas.paused(paused)
	}
}

// SetSettings gives the machine settings that [Settings.ChangeTo] has let pass.
// They hold from now on: an ack wait that has begun ends as it would have. With
// a lower MaxDeliver, what waits and has had as many attempts dies. When Ordered
// is switched on, what is in flight stays so.
func (m *Machine) SetSettings(next Settings) {
	was := m.settings
	if was == next {
		return
	}
	m.settings = next
	m.deltas.settings(next)
	m.pending.order(next.Ordered)
	for e := range m.pending.all() {
		if next.MaxDeliver < was.MaxDeliver && (e.State == Waiting || e.State == Held) && e.Attempts >= next.MaxDeliver {
			m.die(e, e.Reason)
		}
	}
	if was.Ordered != next.Ordered {
		m.reorder()
	}
}

// reorder gives the entries the states that the setting Ordered asks for. Of
// those that wait for one key the first keeps it, if none is in flight.
func (m *Machine) reorder() {
	var all []*entry
	for e := range m.pending.all() {
		all = append(all, e)
	}
	for _, e := range slices.Backward(all) {
		v := e.Entry
		switch {
		case e.State == Held && !m.settings.Ordered:
			v.State = Waiting
		case e.State == Waiting && e.chain != nil && e.chain.busy > 1:
			v.State = Held
		default:
			continue
		}
		m.set(e, v)
	}
}
