package connect

import (
	"context"
	"time"

	"github.com/tidewire/tidewire/broker/bridge"
	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// window is what is carried at a time of one partition of a topic.
type window struct {
	*reading
	partition kafka.Partition
	todo      []load
	bad       []bridge.Refused
	bytes     int
}

// load is a message and the record that it was made of.
type load struct {
	message protocol.Message
	record  *kafka.Record
}

// add makes the message of a record.
func (w *window) add(rec *kafka.Record, transactional bool) {
	w.bytes += len(rec.Value)
	m, why := w.message(w.partition.Number, rec, transactional)
	if why != "" {
		w.spoil(rec, why)
		return
	}
	w.todo = append(w.todo, load{m, rec})
}

func (w *window) spoil(rec *kafka.Record, why Reason) {
	w.bad = append(w.bad, bridge.Refused{Reason: bridge.Reason(why), Partition: w.partition, Record: *rec})
}

func (w *window) full() bool {
	return len(w.todo)+len(w.bad) >= windowRecords || w.bytes >= windowBytes
}

// flush publishes all of it, and repeats what the broker does not take now for as
// long as that lasts. Everything before next is carried then. It is false if ctx
// has ended before.
func (w *window) flush(ctx context.Context, next uint64) bool {
	pause, since := firstPause, time.Now()
	for len(w.todo) > 0 {
		again, refusal, ok := w.publish(ctx)
		if !ok {
			return false
		}
		if len(again) < len(w.todo) {
			pause, since = firstPause, time.Now() // it goes on
		}
		if w.todo = again; len(again) == 0 {
			break
		}
		if time.Since(since) > lastPause {
			since = time.Now()
			w.opts.Logger.Warn("a connector waits: the broker does not take its messages", "connector", w.opts.Name, "partition", w.partition, "error", refusal)
		}
		if !wait(ctx, max(pause, refusal.RetryAfter)) {
			return false
		}
		pause = min(2*pause, lastPause)
	}
	if len(w.bad) > 0 && !w.bin.put(ctx, w.bad) {
		return false
	}
	w.todo, w.bad, w.bytes = nil, nil, 0
	w.keeper.come(uint32(w.partition.Number), next)
	return true
}

// publish publishes what is to be done, and returns what has to be repeated, in
// its order, and why the first of it has.
func (w *window) publish(ctx context.Context) (again []load, refusal *protocol.Error, ok bool) {
	type answer struct {
		at     int
		result storage.Result
	}
	to, answers := w.opts.Publish(), make(chan answer, len(w.todo))
	for i := range w.todo {
		m := w.todo[i].message // it is told its publisher
		to.Publish(ctx, &m, func(r storage.Result) { answers <- answer{i, r} })
	}
	results := make([]*protocol.Error, len(w.todo))
	for range w.todo {
		select {
		case a := <-answers:
			results[a.at] = a.result.Err
		case <-ctx.Done():
			return nil, nil, false
		}
	}
	for i, err := range results {
		if err == nil {
			w.opts.metrics.carried.Inc()
			continue
		}
		if why := reasonOf(err); why != "" {
			w.spoil(w.todo[i].record, why)
			continue
		}
		if refusal == nil {
			refusal = err
		}
		again = append(again, w.todo[i])
	}
	return again, refusal, true
}
