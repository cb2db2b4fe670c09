package consumer

import (
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// A Message is what a consumer can take: where it stands, a hash of its ordering
// key (0 for none) and its size in bytes.
type Message struct {
	Source Source
	At     protocol.Position
	Key    uint64
	Size   int
}

// A Moment is what a decision needs from outside: the time, and Random, which
// draws a number in [0, n). Without it nothing is drawn and waits are longest.
type Moment struct {
	Now    int64
	Random func(n int64) int64
}

// Take takes the message that comes next in its source. It is sent to the
// holder as its first attempt, unless its key is taken: then it is held. The
// caller has asked [Machine.Blocked]. What is not above the cursor changes
// nothing.
func (m *Machine) Take(msg Message, holder uint64, now int64) (attempt int, sent bool) {
	src, at, place := msg.Source, msg.At, PlaceOf(msg.At)
	cursor := m.cursors.in(src, at.Partition)
	if cursor == nil || at.Offset <= cursor.Offset {
		return 0, false
	}
	if m.pending.at[place] != nil { // a message has one source; it is not taken twice
		m.Skip(src, at)
		return 0, false
	}
	v := Entry{Offset: place, Source: src, Key: msg.Key, Size: msg.Size, State: Held, Due: now}
	if m.pending.chains[v.Key] == nil {
		v.State, v.Attempts, v.Due, v.First, v.Holder = InFlight, 1, now+m.ackWait(), now, holder
	}
	m.term(src, *cursor, at)
	*cursor = at
	m.pending.add(v)
	m.deltas.took(v)
	return v.Attempts, v.State == InFlight
}

// Skip moves the cursor of the source: nothing up to there is for this
// consumer.
func (m *Machine) Skip(src Source, through protocol.Position) {
	is := m.cursors.in(src, through.Partition)
	if is == nil || through.Offset < is.Offset || through == *is {
		return
	}
	m.term(src, *is, through)
	*is = through
	m.deltas.movedTo(src, PlaceOf(through))
}

// term writes down a cursor whose next place is of another term.
func (m *Machine) term(src Source, is, at protocol.Position) {
	if is.Term != at.Term || is.Partition != at.Partition {
		m.deltas.cursor(src, at)
	}
}

// Retry gives the entry that has been ready longest to the holder as its next
// attempt, if there is one that is due, and room in flight for it. Retries go
// before new messages, and also when MaxWaiting stops those.
func (m *Machine) Retry(holder uint64, now int64) (Entry, bool) {
	e := m.pending.waiting.top()
	if e == nil || e.Due > now || m.full(e.Size) != "" {
		return Entry{}, false
	}
	v := e.Entry
	v.State, v.Attempts, v.Due, v.Holder = InFlight, v.Attempts+1, now+m.ackWait(), holder
	if v.Attempts == 1 {
		v.First = now
	}
	m.set(e, v)
	return v, true
}

// Advance ends the ack waits that have passed: each such message has failed as
// with [Machine.Nack]. It may be called at any time.
func (m *Machine) Advance(at Moment) {
	var reason string
	for e := m.pending.flying.top(); e != nil && e.Due <= at.Now; e = m.pending.flying.top() {
		if reason == "" {
			reason = "no answer within " + m.settings.AckWait.String()
		}
		m.fail(e, at.Now+m.settings.Backoff.wait(e.Attempts, at.Random), reason)
	}
}

// Release tells that a member has left. When others are there, what was in
// flight to it is ready at once, or dying if that was its last attempt: else a
// message that kills its members would do so for ever. With nobody else it stays
// in flight until its ack wait ends, since the member may come back and answer.
func (m *Machine) Release(holder uint64, now int64, othersThere bool) {
	if holder == 0 || m.pending.holders[holder] == 0 {
		return
	}
	for _, e := range m.inFlight(func(e *entry) bool { return e.Holder == holder }) {
		if othersThere {
			m.fail(e, now, "its member left")
		} else {
			m.pending.hold(holder, -1)
			e.Holder = 0
		}
	}
}

// inFlight returns what is in flight and meets the condition, in order.
func (m *Machine) inFlight(which func(*entry) bool) []*entry {
	var found []*entry
	for _, e := range m.pending.flying {
		if which(e) {
			found = append(found, e)
		}
	}
	sortByOffset(found)
	return found
}

// fail ends an attempt: the entry waits until due, or is held if others of its
// key came in between, or dies if that was its last attempt.
func (m *Machine) fail(e *entry, due int64, reason string) {
	v := e.Entry
	v.State, v.Due, v.Reason, v.Holder = Waiting, due, reason, 0
	others := e.chain != nil && e.chain.busy > 1
	switch {
	case v.Attempts >= m.settings.MaxDeliver:
		m.die(e, reason)
		return
	case others:
		v.State = Held
	}
	m.set(e, v)
}

// die makes the entry dying, which frees its key.
func (m *Machine) die(e *entry, reason string) {
	v, c := e.Entry, e.chain
	v.State, v.Due, v.Reason, v.Holder = Dying, 0, reason, 0
	m.set(e, v)
	m.pass(c)
}

// drop forgets the entry: it is done.
func (m *Machine) drop(e *entry) {
	offset, c := e.Offset, e.chain
	m.pending.remove(e)
	m.deltas.gone(offset)
	m.pass(c)
}

// pass gives a key that nobody has to the first entry that is held for it.
func (m *Machine) pass(c *chain) {
	if c == nil || c.busy > 0 {
		return
	}
	if e := c.first(); e != nil {
		v := e.Entry
		v.State = Waiting
		m.set(e, v)
	}
}

// set gives an entry another state and writes that down.
func (m *Machine) set(e *entry, v Entry) {
	was := e.Reason
	m.pending.change(e, v)
	m.deltas.now(v, v.Reason != was)
}

func (m *Machine) ackWait() int64 { return m.settings.AckWait.Microseconds() }

// within bounds a time that a client asked for, in microseconds.
func within(d time.Duration) int64 { return min(max(d, 0), MaxDelay).Microseconds() }
