package consumer_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/protocol"
)

// model is a consumer as one would write it who had no care for speed: one
// slice, and a walk over all of it for every question.
type model struct {
	s          consumer.Settings
	name       string
	generation uint64
	paused     bool
	cursors    [2]protocol.Position
	entries    []consumer.Entry // by offset
	dead       []uint64
}

func (m *model) clone() *model {
	c := *m
	c.entries, c.dead = slices.Clone(m.entries), slices.Clone(m.dead)
	return &c
}

func (m *model) find(offset uint64) *consumer.Entry {
	for i := range m.entries {
		if m.entries[i].Offset == offset {
			return &m.entries[i]
		}
	}
	return nil
}

func (m *model) with(states ...consumer.State) (found []consumer.Entry) {
	for _, e := range m.entries {
		if slices.Contains(states, e.State) {
			found = append(found, e)
		}
	}
	return found
}

func (m *model) bytes() (n int64) {
	for _, e := range m.with(consumer.InFlight) {
		n += int64(e.Size)
	}
	return n
}

// rivals are the entries of the same key in one of the states.
func (m *model) rivals(key, but uint64, states ...consumer.State) (found []consumer.Entry) {
	for _, e := range m.with(states...) {
		if m.s.Ordered && key != 0 && e.Key == key && e.Offset != but {
			found = append(found, e)
		}
	}
	return found
}

func (m *model) full(size int) string {
	n := len(m.with(consumer.InFlight))
	switch {
	case m.paused:
		return "paused"
	case n >= m.s.MaxInFlight:
		return "max_in_flight"
	case n > 0 && m.bytes()+int64(size) > m.s.MaxInFlightBytes:
		return "max_in_flight_bytes"
	}
	return ""
}

func (m *model) blocked(size int) string {
	why := m.full(size)
	if why == "" && len(m.with(consumer.Waiting, consumer.Held, consumer.Dying)) >= m.s.MaxWaiting {
		return "max_waiting"
	}
	return why
}

func (m *model) take(msg consumer.Message, holder uint64, now int64) (int, bool) {
	if msg.At.Offset <= m.cursors[msg.Source].Offset {
		return 0, false
	}
	m.cursors[msg.Source] = msg.At
	if m.find(msg.At.Offset) != nil {
		return 0, false
	}
	e := consumer.Entry{Offset: msg.At.Offset, Source: msg.Source, Key: msg.Key, Size: msg.Size}
	if len(m.rivals(msg.Key, 0, consumer.InFlight, consumer.Waiting, consumer.Held)) > 0 {
		e.State, e.Due = consumer.Held, now
	} else {
		e.Attempts, e.Due, e.First, e.Holder = 1, now+m.s.AckWait.Microseconds(), now, holder
	}
	m.entries = append(m.entries, e)
	slices.SortFunc(m.entries, func(a, b consumer.Entry) int { return cmp.Compare(a.Offset, b.Offset) })
	return e.Attempts, e.State == consumer.InFlight
}

func (m *model) skip(src consumer.Source, at protocol.Position) {
	if at.Offset >= m.cursors[src].Offset {
		m.cursors[src] = at
	}
}

func earliest(entries []consumer.Entry) *consumer.Entry {
	var first *consumer.Entry
	for i, e := range entries {
		if first == nil || e.Due < first.Due {
			first = &entries[i]
		}
	}
	return first
}

func (m *model) retry(holder uint64, now int64) (consumer.Entry, bool) {
	first := earliest(m.with(consumer.Waiting))
	if first == nil || first.Due > now || m.full(first.Size) != "" {
		return consumer.Entry{}, false
	}
	e := m.find(first.Offset)
	e.State, e.Due, e.Holder = consumer.InFlight, now+m.s.AckWait.Microseconds(), holder
	if e.Attempts++; e.Attempts == 1 {
		e.First = now
	}
	return *e, true
}

func (m *model) ready(now int64) (n int) {
	first := earliest(m.with(consumer.Waiting))
	if first == nil || m.full(first.Size) != "" {
		return 0
	}
	for _, e := range m.with(consumer.Waiting) {
		if e.Due <= now {
			n++
		}
	}
	return min(n, m.s.MaxInFlight-len(m.with(consumer.InFlight)))
}

func (m *model) nextDue() (due int64, ok bool) {
	all := m.with(consumer.InFlight)
	if e := earliest(m.with(consumer.Waiting)); e != nil && m.full(e.Size) == "" {
		all = append(all, *e)
	}
	if e := earliest(all); e != nil {
		return e.Due, true
	}
	return 0, false
}

// pass gives free keys away.
func (m *model) pass() {
	for i := range m.entries {
		e := &m.entries[i]
		if e.State == consumer.Held && len(m.rivals(e.Key, e.Offset, consumer.InFlight, consumer.Waiting)) == 0 {
			e.State = consumer.Waiting
		}
	}
}

func (m *model) drop(gone func(consumer.Entry) bool) {
	m.entries = slices.DeleteFunc(m.entries, gone)
	m.pass()
}

func (m *model) done(offset uint64) {
	m.drop(func(e consumer.Entry) bool { return e.Offset == offset })
}

func (m *model) die(offset uint64, reason string) {
	e := m.find(offset)
	e.State, e.Due, e.Reason, e.Holder = consumer.Dying, 0, reason, 0
	m.pass()
}

func (m *model) fail(offset uint64, due int64, reason string) {
	e := m.find(offset)
	if e.Attempts >= m.s.MaxDeliver {
		m.die(offset, reason)
		return
	}
	e.State, e.Due, e.Reason, e.Holder = consumer.Waiting, due, reason, 0
	if len(m.rivals(e.Key, offset, consumer.InFlight, consumer.Waiting)) > 0 {
		e.State = consumer.Held
	}
}

func (m *model) backoff(attempts int, random func(int64) int64) int64 {
	d := float64(m.s.Backoff.Base)
	for range attempts - 1 {
		d = min(d*m.s.Backoff.Factor, math.MaxInt64/2)
	}
	longest := min(time.Duration(d), m.s.Backoff.Cap).Microseconds()
	if m.s.Backoff.Jitter && longest > 0 {
		return random(longest + 1)
	}
	return longest
}

func (m *model) advance(at consumer.Moment) {
	for {
		e := earliest(m.with(consumer.InFlight))
		if e == nil || e.Due > at.Now {
			return
		}
		m.fail(e.Offset, at.Now+m.backoff(e.Attempts, at.Random), fmt.Sprintf("no answer within %v", m.s.AckWait))
	}
}

func (m *model) answer(generation, offset uint64) (*consumer.Entry, consumer.Outcome) {
	e := m.find(offset)
	switch {
	case generation != 0 && generation != m.generation:
		return nil, consumer.Fenced
	case e != nil && e.State == consumer.Dying:
		return nil, consumer.Already
	case e != nil && e.Attempts == 0:
		return nil, consumer.Unknown
	case e != nil:
		return e, consumer.Done
	case offset <= m.cursors[0].Offset:
		return nil, consumer.Already
	}
	return nil, consumer.Unknown
}

func (m *model) ack(generation, offset uint64) consumer.Outcome {
	_, outcome := m.answer(generation, offset)
	if outcome == consumer.Done {
		m.done(offset)
	}
	return outcome
}

func (m *model) nack(generation, offset uint64, delay *time.Duration, at consumer.Moment) consumer.Outcome {
	e, outcome := m.answer(generation, offset)
	if outcome != consumer.Done || e.State == consumer.Held {
		return outcome
	}
	due := at.Now
	if delay != nil {
		due += delay.Microseconds()
	} else {
		due += m.backoff(e.Attempts, at.Random)
	}
	m.fail(offset, due, "given back by the consumer")
	return outcome
}

func (m *model) extend(generation, offset uint64, by time.Duration, now int64) consumer.Outcome {
	e, outcome := m.answer(generation, offset)
	if outcome != consumer.Done {
		return outcome
	}
	if e.State != consumer.InFlight {
		return consumer.Already
	}
	if by == 0 {
		by = m.s.AckWait
	}
	e.Due = now + by.Microseconds()
	return outcome
}

func (m *model) reject(generation, offset uint64, reason string) consumer.Outcome {
	_, outcome := m.answer(generation, offset)
	if outcome == consumer.Done {
		m.die(offset, reason)
	}
	return outcome
}

func (m *model) upTo(generation, offset, holder uint64) (found []uint64) {
	for _, e := range m.with(consumer.InFlight) {
		if e.Holder == holder && e.Offset <= offset && (generation == 0 || generation == m.generation) {
			found = append(found, e.Offset)
		}
	}
	return found
}

func (m *model) release(holder uint64, now int64, others bool) {
	for _, e := range m.with(consumer.InFlight) {
		switch {
		case e.Holder != holder:
		case others:
			m.fail(e.Offset, now, "its member left")
		default:
			m.find(e.Offset).Holder = 0
		}
	}
}

func (m *model) takeOver(generation uint64, now int64) {
	m.generation = generation
	for _, e := range m.with(consumer.InFlight) {
		m.fail(e.Offset, now, "its member was overtaken")
	}
}

func (m *model) seek(generation uint64, to consumer.Places) {
	m.generation, m.entries = generation, nil
	m.cursors = [2]protocol.Position{to.Main, to.Redrive}
}

func (m *model) rewind(to consumer.Places) {
	m.cursors = [2]protocol.Position{to.Main, to.Redrive}
	m.drop(func(e consumer.Entry) bool { return e.Offset > m.cursors[e.Source].Offset })
}

func (m *model) setSettings(s consumer.Settings) {
	was := m.s
	m.s = s
	if s.MaxDeliver < was.MaxDeliver {
		for _, e := range m.with(consumer.Waiting, consumer.Held) {
			if e.Attempts >= s.MaxDeliver {
				m.die(e.Offset, e.Reason)
			}
		}
	}
	for _, e := range slices.Backward(m.with(consumer.Waiting)) {
		if len(m.rivals(e.Key, e.Offset, consumer.InFlight, consumer.Waiting)) > 0 {
			m.find(e.Offset).State = consumer.Held
		}
	}
	m.pass()
}
