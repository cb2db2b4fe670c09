package broker

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// dead returns the partition that has the consumer's dead letters.
func (s *subject) dead() *partition { return s.broker.consumers.dead.of(deadTopicOf(s.name)) }

// DeadStream is the name of the stream that holds dead letters.
const DeadStream = "dead"

// deadFilter selects the topics of all dead letters.
var deadFilter = mustFilter("$dead.>")

// A dead letter is the message with its own payload, type, key and headers, and
// with headers of the broker that begin so.
const deadPrefix = "tidewire-dead-"

const (
	deadTopic    = deadPrefix + "topic"
	deadID       = deadPrefix + "id"
	deadPosition = deadPrefix + "position"
	deadAttempts = deadPrefix + "attempts"
	deadReason   = deadPrefix + "reason"
	deadFirst    = deadPrefix + "first"
	deadLast     = deadPrefix + "last"
)

func deadTopicOf(name string) string  { return "$dead." + name }
func redriveTopic(name string) string { return redrivePrefix + name }

const redrivePrefix = "$redrive."

// buryAtOnce is how many messages become dead letters at a time.
const buryAtOnce = 64

// buryPause is how long a consumer waits after dead letters could not be stored.
const buryPause = time.Second

// buryAll makes dead letters of all dying messages. A message counts as dead once
// its letter is durable. If the broker dies in between the letter is written
// again, under the same id.
func (d *dispatcher) buryAll() {
	for {
		d.mu.Lock()
		batch := d.dying()
		if len(batch) == 0 || d.gone {
			d.burial.busy = false
			d.conclude(nil)
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
		var err *protocol.Error
		if d.rests != nil { // the others must know first that these are dying: else one might still be acknowledged
			err = d.lasting(context.Background())
		}
		if err == nil {
			err = d.buryBatch(batch)
		}
		if err != nil {
			d.mu.Lock()
			d.burial.busy, d.burial.due = false, nowOf()+buryPause.Microseconds()
			d.conclude(nil)
			d.mu.Unlock()
			d.broker.options().Logger.Warn("dead letters could not be stored: it is tried again", "consumer", d.name, "error", err)
			return
		}
	}
}

// dying returns messages to be buried. Callers hold mu.
func (d *dispatcher) dying() (batch []consumer.Entry) {
	d.machine.EachDying(func(e consumer.Entry) bool {
		batch = append(batch, e)
		return len(batch) < buryAtOnce
	})
	return batch
}

// buryBatch stores the dead letters of some messages and waits for all of them.
func (d *dispatcher) buryBatch(batch []consumer.Entry) *protocol.Error {
	var offsets [2][]uint64
	for _, e := range batch {
		offsets[e.Source] = append(offsets[e.Source], e.Offset)
	}
	found := make(map[uint64]loaded)
	for src := range offsets {
		d.pick(consumer.Source(src), offsets[src], found)
	}
	var entries []*storage.Entry
	var buried, lost []uint64
	answers := make(chan storage.Result, len(batch))
	for _, e := range batch {
		r, ok := found[e.Offset]
		if !ok {
			lost = append(lost, e.Offset)
			continue
		}
		entry := d.letter(e, r)
		entry.Done = func(r storage.Result) { answers <- r }
		entries = append(entries, entry)
		buried = append(buried, e.Offset)
	}
	if len(lost) > 0 {
		d.lose(lost)
	}
	if len(entries) == 0 {
		return nil
	}
	if err := d.dead().append(context.Background(), entries...); err != nil {
		return err
	}
	var failed *protocol.Error
	for _, offset := range buried { // answers come in the order of the log
		r := <-answers
		if r.Err != nil && r.Err.Code != protocol.CodeIDConflict {
			failed = r.Err
			continue
		}
		d.mu.Lock()
		d.machine.Buried(offset, r.Position.Offset)
		d.stats.died++
		d.mu.Unlock()
	}
	d.mu.Lock()
	d.conclude(nil)
	d.mu.Unlock()
	return failed
}

// letter makes the dead letter of a message.
func (d *dispatcher) letter(e consumer.Entry, r loaded) *storage.Entry {
	m := r.message()
	at := d.stream.position(e.Offset)
	at.Term = r.term
	origin := origin{topic: m.Topic, id: m.ID, position: at.String(), first: rfc3339(e.First)}
	if e.Source == consumer.Redrive {
		origin.read(&m) // it was dead before: where it comes from has not changed
	}
	m.Headers = withoutDead(m.Headers)
	m.Headers = append(
		m.Headers,
		protocol.Header{Name: deadTopic, Value: origin.topic},
		protocol.Header{Name: deadID, Value: origin.id},
		protocol.Header{Name: deadPosition, Value: origin.position},
		protocol.Header{Name: deadAttempts, Value: strconv.Itoa(e.Attempts)},
		protocol.Header{Name: deadReason, Value: e.Reason},
		protocol.Header{Name: deadFirst, Value: origin.first},
		protocol.Header{Name: deadLast, Value: rfc3339(nowOf())},
	)
	m.Topic, m.ID = deadTopicOf(d.name), "d/"+strconv.FormatUint(d.machine.Incarnation(), 10)+"/"+at.String()
	m.ExpiresAt, m.Origin = time.Time{}, 0
	return entryOf(&m)
}

// entryOf makes a message of the broker's own ready for a log.
func entryOf(m *protocol.Message) *storage.Entry {
	return &storage.Entry{
		Topic: m.Topic, Record: protocol.AppendRecord(make([]byte, 0, recordSize(m)), m),
		Key: storage.KeyOf(m.Topic, m.ID), Payload: storage.PayloadHash(m.Payload), Received: time.Now(),
	}
}

// origin is where a dead letter comes from.
type origin struct{ topic, id, position, first string }

// read takes the origin from the headers of a dead letter.
func (o *origin) read(m *protocol.Message) {
	for _, h := range m.Headers {
		switch h.Name {
		case deadTopic:
			o.topic = h.Value
		case deadID:
			o.id = h.Value
		case deadPosition:
			o.position = h.Value
		case deadFirst:
			o.first = h.Value
		}
	}
}

// withoutDead returns the headers that are the message's own.
func withoutDead(headers []protocol.Header) []protocol.Header {
	var own []protocol.Header
	for _, h := range headers {
		if !strings.HasPrefix(h.Name, deadPrefix) {
			own = append(own, h)
		}
	}
	return own
}

// shown returns the record of a delivery as its member is to see it, framed: one
// that was redriven has its first topic and id again.
func (h *handed) shown() []byte {
	if h.source != consumer.Redrive {
		return h.framed
	}
	m := h.message()
	var o origin
	o.read(&m)
	m.Topic, m.ID, m.Headers = o.topic, o.id, withoutDead(m.Headers)
	return protocol.AppendFramed(nil, protocol.AppendRecord(make([]byte, 0, len(h.framed)), &m))
}

func rfc3339(micros int64) string { return time.UnixMicro(micros).UTC().Format(time.RFC3339Nano) }
