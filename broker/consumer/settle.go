package consumer

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

const (
	// MaxDelay is the longest time that an answer can ask for. More becomes that.
	MaxDelay = 12 * time.Hour

	// MaxReasonBytes is how much of a reason is kept: as much as a client may give.
	MaxReasonBytes = protocol.MaxReasonBytes
)

// Ack says that the message was handled. An ack that comes late, when the
// message waits for its next attempt, counts as well. The generation is the one
// of the delivery, 0 if the client does not say.
func (m *Machine) Ack(generation, offset uint64) Outcome {
	e, outcome := m.delivered(generation, offset)
	if outcome == Done {
		m.drop(e)
	}
	return outcome
}

// Nack says that the message could not be handled. It waits for the delay, or
// when there is none for what the backoff says; after its last attempt it is
// dying. A message that waits already waits anew; one that is held stays so.
func (m *Machine) Nack(generation, offset uint64, delay *time.Duration, at Moment) Outcome {
	e, outcome := m.delivered(generation, offset)
	if outcome != Done || e.State == Held {
		return outcome
	}
	due := at.Now
	if delay != nil {
		due += within(*delay)
	} else {
		due += m.settings.Backoff.wait(e.Attempts, at.Random)
	}
	m.fail(e, due, "given back by the consumer")
	return outcome
}

// Extend says that the message is being handled: it is in flight until `by`
// from now, for another ack wait if that is 0. It is too late for a message
// that is not in flight any more.
func (m *Machine) Extend(generation, offset uint64, by time.Duration, now int64) Outcome {
	e, outcome := m.delivered(generation, offset)
	if outcome != Done {
		return outcome
	}
	if e.State != InFlight {
		return Already
	}
	v := e.Entry
	v.Due = now + m.ackWait()
	if by > 0 {
		v.Due = now + within(by)
	}
	m.set(e, v)
	return Done
}

// Reject says that the message never will be handled: it is dying.
func (m *Machine) Reject(generation, offset uint64, reason string) Outcome {
	e, outcome := m.delivered(generation, offset)
	if outcome == Done {
		m.die(e, short(reason, "rejected by the consumer"))
	}
	return outcome
}

// UpTo lists what is in flight to the holder up to the place in its partition, in
// order, for answers that mean all of it. It is empty for another generation; a call for
// the offset itself says why.
func (m *Machine) UpTo(generation, offset, holder uint64) []uint64 {
	if m.fenced(generation) || m.pending.holders[holder] == 0 {
		return nil
	}
	its := func(e *entry) bool {
		return e.State == InFlight && e.Holder == holder && e.Offset <= offset && e.Offset>>placeBits == offset>>placeBits
	}
	var offsets []uint64
	looked := 0
	for e := range m.pending.all() { // mostly what is asked for, since it is the oldest
		if e.Offset > offset {
			return offsets
		}
		if looked++; looked > len(m.pending.flying) { // much is waiting before it
			break
		}
		if its(e) {
			offsets = append(offsets, e.Offset)
		}
	}
	if looked <= len(m.pending.flying) {
		return offsets
	}
	offsets = offsets[:0]
	for _, e := range m.inFlight(its) {
		offsets = append(offsets, e.Offset)
	}
	return offsets
}

// delivered returns the entry of an answer, and Done if the answer is possible.
func (m *Machine) delivered(generation, offset uint64) (*entry, Outcome) {
	e := m.pending.at[offset]
	switch {
	case m.fenced(generation):
		return nil, Fenced
	case e == nil && !m.cursors.covers(Main, offset): // whatever came back from the dead letters: a message that will come must not pass for done
		return nil, Unknown
	case e == nil || e.State == Dying:
		return nil, Already
	case e.Attempts == 0:
		return nil, Unknown
	}
	return e, Done
}

func (m *Machine) fenced(generation uint64) bool {
	return generation != 0 && generation != m.generation
}

// short bounds a reason that a client gave, and leaves out what is not text.
func short(reason, otherwise string) string {
	reason = strings.ToValidUTF8(reason[:min(len(reason), MaxReasonBytes)], "")
	if reason == "" {
		return otherwise
	}
	return reason
}

func sortByOffset(entries []*entry) {
	slices.SortFunc(entries, func(a, b *entry) int { return cmp.Compare(a.Offset, b.Offset) })
}
