package connect

import (
	"context"
	"slices"
	"time"

	"github.com/tidewire/tidewire/broker/bridge"
	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
)

// Headers of what goes out, besides those that a stream's topic has.
const (
	headerTopic    = "tidewire-topic"
	headerPosition = "tidewire-position"
)

// writeDeadline is for how long Kafka is asked to store a record before the
// connector looks what is the matter.
const writeDeadline = 30 * time.Second

// cargo is a record on its way to a partition.
type cargo struct {
	to     kafka.Partition
	record kafka.Record
	offset uint64
}

// write writes the messages of a chunk and returns when all are stored.
func (w *writing) write(ctx context.Context, chunk *protocol.Chunk) error {
	todo, bad, err := w.records(chunk)
	pause := firstPause
	for err == nil && len(todo) > 0 {
		var results []error
		if results, err = w.produce(ctx, todo); err != nil {
			break
		}
		again, failure := w.rest(todo, results, &bad)
		if len(again) < len(todo) {
			pause = firstPause
		}
		if todo = again; len(again) > 0 {
			err = w.pause(ctx, pause, failure)
			pause = min(2*pause, lastPause)
		}
	}
	if err == nil && len(bad) > 0 && !w.bin.put(ctx, bad) {
		err = ctx.Err()
	}
	return err
}

// pause waits before what has failed is tried again.
func (w *writing) pause(ctx context.Context, d time.Duration, failure error) error {
	w.opts.Logger.Warn("a connector cannot write and tries again", "connector", w.opts.Name, "topic", w.opts.Topic, "error", failure)
	if kafka.KindOf(failure) == kafka.NoTopic {
		return errAnew
	}
	if !wait(ctx, d) {
		return ctx.Err()
	}
	return nil
}

// records makes the records of a chunk.
func (w *writing) records(chunk *protocol.Chunk) (todo []cargo, bad []bridge.Refused, err error) {
	todo = make([]cargo, 0, chunk.Count)
	now := time.Now()
	for m, err := range chunk.Messages() {
		if err != nil {
			return nil, nil, err
		}
		if !m.ExpiresAt.IsZero() && !m.ExpiresAt.After(now) {
			w.opts.metrics.expired.Inc()
			continue
		}
		c, why := w.record(&m)
		if why != "" {
			bad = append(bad, w.refused(&c, why))
			continue
		}
		todo = append(todo, c)
	}
	return todo, bad, nil
}

// record makes the record of a message, or says why there is none.
func (w *writing) record(m *protocol.Message) (c cargo, why Reason) {
	c = cargo{record: bridge.RecordOf(m), offset: m.Position.Offset}
	f := &fields{topic: m.Topic, key: m.Key, id: m.ID, payload: m.Payload, header: func(name string) (string, bool) {
		at := slices.IndexFunc(m.Headers, func(h protocol.Header) bool { return h.Name == name })
		if at < 0 {
			return "", false
		}
		return m.Headers[at].Value, true
	}}
	if f.key == "" {
		f.key = m.Topic // messages without an ordering key are in order by topic
	}
	key, why := w.opts.Key.fill(f)
	if why != "" {
		return c, why
	}
	c.to, c.record.Key = w.partitionOf(key), []byte(key)
	add := func(name, value string) {
		c.record.Headers = append(c.record.Headers, kafka.Header{Key: name, Value: []byte(value)})
	}
	add(headerTopic, m.Topic)
	add(headerPosition, m.Position.String())
	for _, h := range w.opts.Headers {
		if value, why := h.Value.fill(f); why == "" {
			add(h.Name, value)
		}
	}
	return c, ""
}

// refused is what is said of a message that cannot be carried. It names the record
// that the message is in the topic of its stream.
func (w *writing) refused(c *cargo, why Reason) bridge.Refused {
	r := bridge.Refused{Reason: bridge.Reason(why), Partition: kafka.Partition{Topic: w.opts.StreamTopic, Number: int32(w.number)}, Record: c.record}
	r.Record.Offset = int64(c.offset) - 1
	return r
}

// produce writes records and returns what became of each.
func (w *writing) produce(ctx context.Context, todo []cargo) ([]error, error) {
	type answer struct {
		at  int
		err error
	}
	answers, results := make(chan answer, len(todo)), make([]error, len(todo))
	deadline := time.Now().Add(writeDeadline)
	for i := range todo {
		err := w.producer.Produce(kafka.Write{
			Partition: todo[i].to, Records: []kafka.Record{todo[i].record}, Deadline: deadline,
			Done: func(p kafka.Produced) { answers <- answer{i, p.Err} },
		})
		if err != nil {
			answers <- answer{i, err}
		}
	}
	for range todo {
		select {
		case a := <-answers:
			results[a.at] = a.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return results, nil
}

// rest returns what has to be written again, and why. Of a partition that is
// everything from the first failure on, so that the last that is seen of each key
// is in order.
func (w *writing) rest(todo []cargo, results []error, bad *[]bridge.Refused) (again []cargo, failure error) {
	broken := make(map[int32]bool)
	for i := range todo {
		c, err := &todo[i], results[i]
		kind := kafka.KindOf(err)
		switch {
		case err != nil && (kind == kafka.TooLarge || kind == kafka.Invalid):
			why := TooLarge
			if kind == kafka.Invalid {
				why = Rejected
			}
			*bad = append(*bad, w.refused(c, why))
		case err == nil && !broken[c.to.Number]:
			w.opts.metrics.carried.Inc()
		default:
			if err != nil && failure == nil {
				failure = err
			}
			broken[c.to.Number] = true
			again = append(again, *c)
		}
	}
	return again, failure
}
