package kafka

import "time"

// States of a queue. It is ready if it stands in the list of a lane.
const (
	queueIdle = iota
	queueReady
	queueUnderway
	queueSearching // for its leader, after a pause
)

// A queue holds what one partition is to get. Its fields belong to the mutex of
// the producer.
type queue struct {
	partition Partition
	state     int
	waiting   []*item
	batch     *batch    // under way, or to be sent again before what waits
	most      int       // of writes in a batch while one is searched that Kafka refuses; 0: any number
	pause     pauser    // of consecutive failures
	failure   *Error    // the last one, nil after a success
	gen       uint64    // of the metadata that named its leader
	epoch     int32     // of that leader
	hold      time.Time // not to be sent to the same leader again before
}

// An item is a write in a queue.
type item struct {
	write    Write
	size     int
	answered bool
}

// A batch is a number of writes that are sent as one.
type batch struct {
	items  []*item
	size   int
	data   []byte // encoded; nil until it is sent
	landed bool   // an attempt may have been stored
}

// answer marks the item and returns the call that tells its owner.
func (it *item) answer(calls []func(), r Produced) []func() {
	if it.answered {
		return calls
	}
	it.answered = true
	done := it.write.Done
	return append(calls, func() { done(r) })
}

// giveUp answers the items that match: Unknown if they are in a batch that is
// under way or may have been stored, else NotSent.
func (q *queue) giveUp(calls []func(), match func(*item) bool, cause *Error) []func() {
	if q.batch != nil {
		for _, it := range q.batch.items {
			if match(it) {
				calls = it.answer(calls, Produced{Err: failf(Unknown, cause, "it is not known whether %s has stored this", q.partition)})
			}
		}
	}
	for _, it := range q.waiting {
		if match(it) {
			calls = it.answer(calls, Produced{Err: failf(NotSent, cause, "%s has not stored this", q.partition)})
		}
	}
	return calls
}

// dropAnswered forgets what waits for nobody any more, and returns its size. A
// batch goes as a whole, and only if it is not under way.
func (q *queue) dropAnswered() int {
	dropped := 0
	kept := q.waiting[:0]
	for _, it := range q.waiting {
		if it.answered {
			dropped += it.size
		} else {
			kept = append(kept, it)
		}
	}
	clear(q.waiting[len(kept):])
	q.waiting = kept
	if q.batch != nil && q.state != queueUnderway && q.batch.open() == 0 {
		dropped += q.batch.size
		q.batch = nil
	}
	return dropped
}

// open counts the items that somebody waits for.
func (b *batch) open() int {
	n := 0
	for _, it := range b.items {
		if !it.answered {
			n++
		}
	}
	return n
}

// earliest returns the first deadline of what is not answered.
func (q *queue) earliest() (first time.Time, ok bool) {
	look := func(items []*item) {
		for _, it := range items {
			if !it.answered && (!ok || it.write.Deadline.Before(first)) {
				first, ok = it.write.Deadline, true
			}
		}
	}
	if q.batch != nil {
		look(q.batch.items)
	}
	look(q.waiting)
	return first, ok
}

// take makes a batch of what waits, unless one is there already.
func (q *queue) take(limit int) *batch {
	if q.batch != nil {
		return q.batch
	}
	b := &batch{size: 0}
	for len(b.items) < len(q.waiting) && (q.most == 0 || len(b.items) < q.most) {
		it := q.waiting[len(b.items)]
		if len(b.items) > 0 && batchHeader+b.size+it.size > limit {
			break
		}
		b.size += it.size
		b.items = append(b.items, it)
	}
	if len(b.items) == 0 {
		return nil
	}
	clear(q.waiting[:len(b.items)])
	q.waiting = q.waiting[len(b.items):]
	q.batch = b
	return b
}

// takeApart puts a batch that surely was not stored back in front of what
// waits, without what nobody waits for any more, whose size it returns.
func (q *queue) takeApart() int {
	dropped := 0
	back := make([]*item, 0, len(q.batch.items)+len(q.waiting))
	for _, it := range q.batch.items {
		if it.answered {
			dropped += it.size
		} else {
			back = append(back, it)
		}
	}
	q.waiting = append(back, q.waiting...)
	q.batch = nil
	return dropped
}

// encode returns the bytes of the batch, which never change.
func (b *batch) encode() []byte {
	if b.data != nil {
		return b.data
	}
	w := newBatchWriter(b.size)
	for _, it := range b.items {
		for i := range it.write.Records {
			w.add(&it.write.Records[i])
		}
	}
	b.data = w.finish()
	return b.data
}

// stored answers the items with their offsets.
func (b *batch) stored(calls []func(), base int64) []func() {
	for _, it := range b.items {
		calls = it.answer(calls, Produced{Base: base})
		base += int64(len(it.write.Records))
	}
	return calls
}
