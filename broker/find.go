package broker

import (
	"context"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// FoundMessage is where a message is, and what has become of it.
type FoundMessage struct {
	Message   protocol.Message
	Stream    string
	Consumers []MessageState // of each consumer that the message is for
}

// MessageState is what one consumer has made of a message.
type MessageState struct {
	Consumer string
	State    string // one of the constants below, or that of a pending entry
	Attempts int
	Due      time.Time
	Reason   string
}

// What a message is to a consumer, beside the states of pending ones.
const (
	stateDone   = "done"
	stateNotYet = "not_yet"
	stateDead   = "dead"

	// stateExpired is a message that is not done, and is not delivered any more.
	// Of one that is done nobody remembers how: it may have expired, too.
	stateExpired = "expired"
)

const (
	// findMost bounds the messages with one id that are shown: an id is unique in
	// its topic only.
	findMost = 100
	// findBytes is how much is looked through at a time.
	findBytes = 1 << 20
)

// FindMessage looks for the messages with an id, from the newest down: on one
// topic if that is given, else in all streams, which takes a while where much is
// stored. A message without an id of its own is found by its position.
func (b *Broker) FindMessage(ctx context.Context, id, topic string) (found []FoundMessage, err *protocol.Error) {
	filter, in := everything, b.partitions()
	if topic != "" {
		f, perr := protocol.ParseFilter(topic)
		if perr != nil {
			return nil, protocol.AsError(perr)
		}
		filter, in = f, []*partition{b.holds(topic)}
	}
	if at, perr := protocol.ParsePosition(id); perr == nil {
		return b.findPosition(at, filter, in), nil
	}
	for _, pt := range in {
		if pt.stream == b.consumers.dead && topic == "" {
			continue // a dead letter is told of its message
		}
		if found, err = pt.search(ctx, found, id, filter); err != nil {
			return nil, err
		}
	}
	for i := range found {
		b.judge(&found[i])
	}
	return found, nil
}

// findPosition finds the message at a position.
func (b *Broker) findPosition(at protocol.Position, filter protocol.Filter, in []*partition) (found []FoundMessage) {
	for _, pt := range in {
		if pt.log.PositionOf(at.Offset) != at {
			continue
		}
		got := make(map[uint64]loaded)
		pt.pick(filter, []uint64{at.Offset}, got)
		if r, ok := got[consumer.PlaceOf(at)]; ok {
			f := FoundMessage{Message: r.message(), Stream: pt.name}
			b.judge(&f)
			found = append(found, f)
		}
	}
	return found
}

// search appends the messages of a partition that have the id.
func (pt *partition) search(ctx context.Context, found []FoundMessage, id string, filter protocol.Filter) ([]FoundMessage, *protocol.Error) {
	for cursor := pt.head(); cursor > 0 && len(found) < findMost; {
		if ctx.Err() != nil {
			return nil, protocol.Errorf(protocol.CodeOverloaded, "looking for the message took too long: give its topic, too")
		}
		c, err := pt.log.ReadBack(storage.Query{Filter: filter, Through: cursor, MaxBytes: findBytes}, 1<<20)
		if gap := pt.gapOf(0, err); gap != nil {
			if gap.Reason == storage.GapRetention {
				break
			}
			cursor = gap.After
			continue
		}
		if err != nil {
			return nil, protocol.AsError(err)
		}
		for m, err := range c.Messages() {
			if err == nil && m.ID == id {
				found = append(found, FoundMessage{Message: m, Stream: pt.name})
			}
		}
		if c.After >= cursor {
			break
		}
		cursor = c.After
	}
	return found, nil
}

// judge says what has become of a message with each consumer that it is for.
func (b *Broker) judge(f *FoundMessage) {
	for _, p := range b.consumers.all() {
		if about := p.about(); about.stream.name == f.Stream && about.filter.Match(f.Message.Topic) {
			f.Consumers = append(f.Consumers, judge(p, &f.Message))
		}
	}
}

func judge(p post, m *protocol.Message) (s MessageState) {
	open := false
	p.look(func(machine *consumer.Machine) { s, open = p.about().judge(machine, m) })
	if open {
		return s
	}
	s.State = stateDone
	if dead := letterFrom(p, m.Position.String()); dead != nil { // which may mean to read them all
		s.State, s.Attempts, s.Reason = stateDead, dead.Attempts, dead.Reason
	}
	return s
}

// judge says what a message is to a consumer, and whether it has not done with it.
func (about *subject) judge(machine *consumer.Machine, m *protocol.Message) (s MessageState, open bool) {
	s.Consumer = about.name
	e, pending := machine.Entry(consumer.PlaceOf(m.Position))
	switch {
	case pending:
		p := about.pending(e)
		s.State, s.Attempts, s.Due, s.Reason = p.State, p.Attempts, p.Due, p.Reason
	case m.Position.Offset > machine.CursorIn(consumer.Main, m.Position.Partition):
		s.State = stateNotYet
	default:
		return s, false
	}
	delivers := !pending || e.State == consumer.Waiting || e.State == consumer.Held
	if delivers && expiredBy(protocol.Micros(m.ExpiresAt), nowMicros()) {
		s.State, s.Due = stateExpired, time.Time{}
	}
	return s, true
}

// letterFrom returns the dead letter of the message at a position, or nil.
func letterFrom(p post, origin string) *DeadLetter {
	offsets := deadOffsets(p)
	for end := len(offsets); end > 0; {
		begin := max(end-maxDeadPage, 0)
		letters := p.about().letters(offsets[begin:end])
		for i := len(letters) - 1; i >= 0; i-- {
			if letters[i].Origin == origin {
				return &letters[i]
			}
		}
		end = begin
	}
	return nil
}
