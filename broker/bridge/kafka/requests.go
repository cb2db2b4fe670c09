package kafka

import (
	"context"
	"math"
	"time"
)

// produceBatch is a batch on its way, and what became of it.
type produceBatch struct {
	partition Partition
	data      []byte

	base   int64
	landed bool   // it may have been appended
	err    *Error // nil: it was appended at base
}

// produce sends batches to the broker that leads their partitions, at most one
// for each, and fills in what became of them.
func (c *Client) produce(ctx context.Context, broker int32, timeout time.Duration, batches []*produceBatch) {
	size := 0
	for _, b := range batches {
		size += len(b.data)
	}
	r, sent, err := c.do(ctx, call{
		api: apiProduce, broker: broker, wait: timeout, limit: 4 << 20, hurry: true,
		patience: time.Second + time.Duration(size>>20)*time.Second, // a slow network must carry it
		body:     func(w *wireWriter) { writeProduce(w, timeout, batches) },
	})
	for _, b := range batches {
		b.landed = sent
		b.err = failf(Unreachable, err, "it is not known whether %s took what was sent", b.partition)
		if !sent {
			b.err = failf(Unreachable, err, "nothing could be sent to %s", b.partition)
		}
	}
	if err == nil {
		readProduced(r, batches)
	}
}

func writeProduce(w *wireWriter, timeout time.Duration, batches []*produceBatch) {
	size := 64
	for _, b := range batches {
		size += len(b.data) + len(b.partition.Topic) + 32
	}
	grown := make([]byte, len(w.b), len(w.b)+size)
	copy(grown, w.b)
	w.b = grown
	w.null()    // no transaction
	w.int16(-1) // acks: all
	w.int32(int32(timeout.Milliseconds()))
	groups := groupBy(batches, func(b *produceBatch) string { return b.partition.Topic })
	w.count(len(groups))
	for _, group := range groups {
		w.string(group[0].partition.Topic)
		w.count(len(group))
		for _, b := range group {
			w.int32(b.partition.Number)
			w.bytes(b.data)
			w.end()
		}
		w.end()
	}
	w.end()
}

func readProduced(r *wireReader, batches []*produceBatch) {
	at := make(map[Partition]*produceBatch, len(batches))
	for _, b := range batches {
		at[b.partition] = b
		b.err = failf(Corrupt, nil, "the answer of Kafka does not say what became of %s", b.partition)
	}
	for range r.count() {
		topic := r.string()
		for range r.count() {
			p := Partition{Topic: topic, Number: r.int32()}
			code, base := r.int16(), r.int64()
			r.int64() // time of the append
			r.int64() // start of the log
			message := ""
			for range r.count() {
				r.int32()
				message = r.string()
				r.end()
			}
			if m := r.string(); m != "" && message == "" {
				message = m
			}
			r.end()
			if b := at[p]; b != nil && r.err == nil {
				b.base, b.landed, b.err = base, !surelyNotStored[code], answerError(code, message, p.String())
			}
		}
		r.end()
	}
}

// groupBy puts together what has the same key, in the order of first appearance.
func groupBy[T any, K comparable](list []T, key func(T) K) [][]T {
	var groups [][]T
	index := map[K]int{}
	for _, v := range list {
		k := key(v)
		i, ok := index[k]
		if !ok {
			i = len(groups)
			index[k] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], v)
	}
	return groups
}

// fetchPart is a partition in a fetch, and what came of it.
type fetchPart struct {
	partition Partition
	id        TopicID
	epoch     int32
	offset    int64
	maxBytes  int

	answered  bool
	code      int16
	watermark int64
	logStart  int64
	set       []byte // shares the memory of the answer
}

// fetchCall is what all partitions of a fetch have in common.
type fetchCall struct {
	broker   int32
	wait     time.Duration
	maxBytes int
	buf      []byte // for the answer
	waits    bool   // as that of a call
}

// answerSlack is what an answer may have beyond the bytes that were asked for:
// Kafka always gives the first batch whole.
const answerSlack = 64 << 20

// fetch asks one broker for what is in the partitions. It returns the memory of
// the answer, for the next one.
func (c *Client) fetch(ctx context.Context, q fetchCall, parts []*fetchPart) ([]byte, *Error) {
	r, _, err := c.do(ctx, call{
		api: apiFetch, broker: q.broker, wait: q.wait, limit: q.maxBytes + answerSlack, buf: q.buf, waits: q.waits, hurry: !q.waits,
		body: func(w *wireWriter) { writeFetch(w, q, parts) },
	})
	if err != nil {
		e := failf(Unreachable, err, "reading from broker %d of Kafka failed", q.broker)
		if kind := KindOf(err); kind != "" {
			e.Kind = kind
		}
		return nil, e
	}
	memory := r.b
	r.int32() // throttle
	code := r.int16()
	r.int32() // session
	if err := answerError(code, "", "a fetch"); err != nil {
		return memory, err
	}
	readFetched(r, parts)
	if r.err != nil {
		return memory, failf(Corrupt, r.err, "the answer of Kafka to a fetch cannot be read")
	}
	return memory, nil
}

func writeFetch(w *wireWriter, q fetchCall, parts []*fetchPart) {
	w.int32(-1) // a consumer
	w.int32(int32(q.wait.Milliseconds()))
	w.int32(1) // answer as soon as there is a byte
	w.int32(int32(min(q.maxBytes, math.MaxInt32)))
	w.no()      // what is not committed yet by a transaction, too
	w.int32(0)  // no session
	w.int32(-1) // and none is wanted
	groups := groupBy(parts, func(p *fetchPart) TopicID { return p.id })
	w.count(len(groups))
	for _, group := range groups {
		w.id(group[0].id)
		w.count(len(group))
		for _, p := range group {
			w.int32(p.partition.Number)
			w.int32(p.epoch)
			w.int64(p.offset)
			w.int32(-1) // epoch of the last record: not compared
			w.int64(-1) // log start of a follower
			w.int32(int32(min(p.maxBytes, math.MaxInt32)))
			w.end()
		}
		w.end()
	}
	w.count(0) // nothing is forgotten
	w.string("")
	w.end()
}

func readFetched(r *wireReader, parts []*fetchPart) {
	type place struct {
		id     TopicID
		number int32
	}
	at := make(map[place]*fetchPart, len(parts))
	for _, p := range parts {
		at[place{p.id, p.partition.Number}] = p
	}
	for range r.count() {
		id := r.id()
		for range r.count() {
			got := fetchPart{partition: Partition{Number: r.int32()}, code: r.int16(), watermark: r.int64()}
			r.int64() // end of what is settled by transactions
			got.logStart = r.int64()
			for range r.count() { // aborted transactions
				r.int64()
				r.int64()
				r.end()
			}
			r.int32() // preferred replica
			got.set = r.bytes()
			r.end()
			if p := at[place{id, got.partition.Number}]; p != nil && r.err == nil {
				p.answered, p.code, p.watermark, p.logStart, p.set = true, got.code, got.watermark, got.logStart, got.set
			}
		}
		r.end()
	}
}
