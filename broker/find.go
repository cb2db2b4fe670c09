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
	filter, streams := everything, b.streams
	if topic != "" {
		f, perr := protocol.ParseFilter(topic)
		if perr != nil {
			return nil, protocol.AsError(perr)
		}
		filter, streams = f, []*stream{b.owner(topic)}
	}
	if at, perr := protocol.ParsePosition(id); perr == nil {
		return b.findPosition(at, filter, streams), nil
	}
	for _, st := range streams {
		if st == b.consumers.dead && topic == "" {
			continue // a dead letter is told of its message
		}
		if found, err = st.search(ctx, found, id, filter); err != nil {
			return nil, err
		}
	}
	for i := range found {
		b.judge(&found[i])
	}
	return found, nil
}

// findPosition finds the message at a position.
func (b *Broker) findPosition(at protocol.Position, filter protocol.Filter, streams []*stream) (found []FoundMessage) {
	for _, st := range streams {
		if st.log.PositionOf(at.Offset) != at {
			continue
		}
		got := make(map[uint64]loaded)
		st.pick(filter, []uint64{at.Offset}, got)
		if r, ok := got[at.Offset]; ok {
			f := FoundMessage{Message: r.message(), Stream: st.name}
			b.judge(&f)
			found = append(found, f)
		}
	}
	return found
}

// search appends the messages of a stream that have the id.
func (st *stream) search(ctx context.Context, found []FoundMessage, id string, filter protocol.Filter) ([]FoundMessage, *protocol.Error) {
	for cursor := st.head(); cursor > 0 && len(found) < findMost; {
		if ctx.Err() != nil {
			return nil, protocol.Errorf(protocol.CodeOverloaded, "looking for the message took too long: give its topic, too")
		}
		c, err := st.log.ReadBack(storage.Query{Filter: filter, Through: cursor, MaxBytes: findBytes}, 1<<20)
		if gap := st.gapOf(0, err); gap != nil {
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
				found = append(found, FoundMessage{Message: m, Stream: st.name})
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
	for _, d := range b.consumers.all() {
		if d.stream.name == f.Stream && d.sources[consumer.Main].filter.Match(f.Message.Topic) {
			f.Consumers = append(f.Consumers, d.judge(&f.Message))
		}
	}
}

func (d *dispatcher) judge(m *protocol.Message) MessageState {
	s, open := d.judgeOpen(m)
	if open {
		return s
	}
	s.State = stateDone
	if dead := d.letterFrom(m.Position.String()); dead != nil { // which may mean to read them all
		s.State, s.Attempts, s.Reason = stateDead, dead.Attempts, dead.Reason
	}
	return s
}

// judgeOpen says what a message is to a consumer that has not done with it.
func (d *dispatcher) judgeOpen(m *protocol.Message) (s MessageState, open bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Consumer = d.name
	e, pending := d.machine.Entry(m.Position.Offset)
	switch {
	case pending:
		p := d.pending(e)
		s.State, s.Attempts, s.Due, s.Reason = p.State, p.Attempts, p.Due, p.Reason
	case m.Position.Offset > d.machine.Cursor(consumer.Main):
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
func (d *dispatcher) letterFrom(origin string) *DeadLetter {
	offsets := d.deadOffsets()
	for end := len(offsets); end > 0; {
		begin := max(end-maxDeadPage, 0)
		letters := d.letters(offsets[begin:end])
		for i := len(letters) - 1; i >= 0; i-- {
			if letters[i].Origin == origin {
				return &letters[i]
			}
		}
		end = begin
	}
	return nil
}
