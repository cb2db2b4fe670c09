package bridge

import (
	"context"
	"sync"
	"time"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// Bounds of what waits to be stored in one partition.
const (
	maxOutboxBytes = 32 << 20
	maxWriteBytes  = 880_000 // of one write; the producer takes 900,000
	outgoingCost   = 256     // bytes that an entry costs here beside its record

	// produceTime is how long one write is tried. What has waited so long for its
	// turn is not begun any more.
	produceTime = 10 * time.Second
	// answerTime is how long a publisher waits after that for its record to come
	// back, before it is told that the outcome is unknown.
	answerTime = 5 * time.Second
)

// outbox is what was published here to one partition and has no answer yet.
//
// One write is under way at a time; what comes meanwhile is the next. More of
// them would not be faster, and would pass one that failed: the order of a
// publisher could not be kept.
//
// An entry ends in one of these ways, and in no other:
//   - its record comes back: the answer is what apply says of it;
//   - a later record of this boot comes back first: then it is not stored, since
//     apply would refuse it as overtaken, on every node;
//   - it was surely not written: it is told so;
//   - none of that in time: outcome_unknown.
type outbox struct {
	route
	ready chan struct{} // has a token while there may be answers

	mu       sync.Mutex
	queue    []*outgoing // not written yet
	pending  []*outgoing // written, or being written; sequences increase
	bytes    int         // of both
	space    chan struct{}
	held     bool // nothing is written yet: Kafka may have another log than the copy
	flying   bool
	sequence uint64
	closed   *protocol.Error
	away     error            // why writing fails at the moment
	answers  []storage.Answer // for whoever runs the partition to hand out
}

// route is where an outbox writes to, and what it writes beside the messages.
type route struct {
	partition kafka.Partition
	boot      Boot
	sealer    *sealer
	produce   func(kafka.Write) error
	forgotten func() time.Time // see storage.Replica.Forgotten
	maxValue  int
}

// outgoing is one entry on its way, or a canary, which has no entry.
type outgoing struct {
	entry    *storage.Entry
	message  protocol.Message
	record   kafka.Record
	size     int // on its way
	sequence uint64
	begun    time.Time // when it was put in
	due      time.Time // of its answer, once it is written
}

// put adds entries as one, waiting for space until ctx ends.
func (o *outbox) put(ctx context.Context, entries []*storage.Entry) error {
	batch := make([]*outgoing, len(entries))
	size := 0
	for i, e := range entries {
		m, err := protocol.ParseRecord(e.Record)
		if err != nil {
			return err // the caller's fault, not the publisher's
		}
		rec := encode(&m)
		batch[i] = &outgoing{entry: e, message: m, record: rec, size: recordSize(&rec) + len(m.Publisher)}
		size += batch[i].size + outgoingCost
	}
	for {
		space, err := o.tryPut(batch, size)
		if err != nil {
			return err
		}
		if space == nil {
			return nil
		}
		select {
		case <-space:
		case <-ctx.Done():
			return o.errFull()
		}
	}
}

// recordSize is what a record takes on its way at most, as the producer reckons,
// with an origin that names no publisher.
func recordSize(r *kafka.Record) int {
	const perRecord, perHeader = 40, 10
	n := perRecord + len(r.Key) + len(r.Value) + perHeader + len(headerOrigin) + originFixed + sealBytes
	for _, h := range r.Headers {
		n += perHeader + len(h.Key) + len(h.Value)
	}
	return n
}

// errFull says why there is no space.
func (o *outbox) errFull() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away != nil {
		return errAway()
	}
	return protocol.Errorf(protocol.CodeOverloaded, "the log has %d MiB of messages waiting to be stored; publish again in a moment", maxOutboxBytes>>20)
}

func (o *outbox) tryPut(batch []*outgoing, size int) (<-chan struct{}, error) {
	o.mu.Lock()
	if o.closed != nil {
		defer o.mu.Unlock()
		return nil, o.closed
	}
	if o.bytes > 0 && o.bytes+size > maxOutboxBytes {
		defer o.mu.Unlock()
		return o.space, nil
	}
	now := time.Now()
	for _, out := range batch { // here, and not when it is written: nobody else waits meanwhile
		o.sequence++
		out.begun, out.sequence = now, o.sequence
		out.message.Time, out.record.Time = now, now
		sign(o.sealer, &out.record, &out.message, Origin{Boot: o.boot, Sequence: o.sequence})
	}
	o.queue = append(o.queue, batch...)
	o.bytes += size
	o.launchAndUnlock()
	return nil, nil
}

// sing writes a canary: a record that is nobody's message, by which it is seen
// that what is written comes back.
func (o *outbox) sing(partition int) {
	m := protocol.Message{Topic: canaryKey(partition)}
	rec := encode(&m)
	out := &outgoing{message: m, record: rec, size: recordSize(&rec)}
	_, _ = o.tryPut([]*outgoing{out}, out.size+outgoingCost) // where there is no room, enough else comes back
}

// launchAndUnlock begins the next write if none is under way. It gives mu away,
// since the producer may call back.
func (o *outbox) launchAndUnlock() {
	if o.flying || o.held {
		o.mu.Unlock()
		return
	}
	batch, records := o.gather(time.Now())
	if len(batch) == 0 {
		o.mu.Unlock()
		return
	}
	o.flying = true
	deadline := time.Now().Add(produceTime)
	o.mu.Unlock()
	err := o.produce(kafka.Write{
		Partition: o.partition, Records: records, Deadline: deadline,
		Done: func(p kafka.Produced) { o.landed(batch, p.Err) },
	})
	if err != nil {
		o.landed(batch, err)
	}
}

// gather takes the next write from the queue. Callers hold mu.
func (o *outbox) gather(now time.Time) (batch []*outgoing, records []kafka.Record) {
	size, forgotten := 0, o.forgotten()
	for len(o.queue) > 0 {
		out := o.queue[0]
		if size += out.size; size > maxWriteBytes && len(batch) > 0 {
			break
		}
		o.queue = o.queue[1:]
		if err := o.admit(out, forgotten); err != nil {
			o.refuse(out, err)
			continue
		}
		out.due = now.Add(produceTime + answerTime)
		batch, records = append(batch, out), append(records, out.record)
	}
	if len(o.queue) == 0 {
		o.queue = nil
	}
	o.pending = append(o.pending, batch...)
	return batch, records
}

// admit returns why an entry must not be written, or nil. Callers hold mu.
func (o *outbox) admit(out *outgoing, forgotten time.Time) *protocol.Error {
	e := out.entry
	if e == nil {
		return nil
	}
	err := e.Order.Admit(e.Resume)
	switch {
	case err != nil:
		return err
	case len(out.record.Value) > o.maxValue:
		return protocol.Exceeded(protocol.LimitPayload, "the payload has %d bytes, at most %d are allowed in this stream", len(out.record.Value), o.maxValue)
	case e.Key != (storage.DedupeKey{}) && !e.FirstAttempt.IsZero() && !forgotten.IsZero() && !forgotten.Before(e.FirstAttempt):
		return protocol.Errorf(protocol.CodeRepeatTooOld, "the message was first tried so long ago that the broker no longer knows whether it was stored: look for its id on the topic, and publish it under a new id if it is not there")
	}
	return nil
}

// landed ends a write. What may be stored keeps waiting.
func (o *outbox) landed(batch []*outgoing, err error) {
	o.mu.Lock()
	o.flying = false
	kind := kafka.KindOf(err)
	if kind != kafka.TooLarge && kind != kafka.Full {
		o.away = err
	}
	switch {
	case err == nil:
	case kind == kafka.Unknown:
		for _, out := range batch {
			out.orderBroken(errLost())
		}
	default:
		o.notWritten(batch, refusalOf(err))
	}
	o.launchAndUnlock()
}

// notWritten ends a write that is surely not stored. Callers hold mu.
func (o *outbox) notWritten(batch []*outgoing, err *protocol.Error) {
	first, last := batch[0].sequence, batch[len(batch)-1].sequence
	pending := o.pending
	o.pending = nil
	for _, out := range pending {
		if out.sequence < first || out.sequence > last {
			o.pending = append(o.pending, out)
		} else {
			o.refuse(out, err)
		}
	}
}

// orderBroken notes that later entries of the publisher must not pass this one.
func (out *outgoing) orderBroken(err *protocol.Error) {
	if out.entry != nil {
		out.entry.Order.Refused(err)
	}
}

// refuse ends an entry that is no longer queued or pending. Callers hold mu.
func (o *outbox) refuse(out *outgoing, err *protocol.Error) {
	o.release(out)
	if out.entry == nil {
		return
	}
	out.orderBroken(err)
	o.answers = append(o.answers, storage.Answer{Entry: out.entry, Result: storage.Result{Err: err}})
	poke(o.ready)
}

func (o *outbox) release(out *outgoing) {
	o.bytes -= out.size + outgoingCost
	close(o.space)
	o.space = make(chan struct{})
}

// came takes the entry whose record has come back, nil if nobody waits for it.
// Those before it are not stored, and never will be.
func (o *outbox) came(sequence uint64) *storage.Entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.away = nil
	for len(o.pending) > 0 {
		out := o.pending[0]
		if out.sequence > sequence {
			return nil
		}
		o.pending = o.pending[1:]
		if out.sequence == sequence {
			o.release(out)
			return out.entry
		}
		o.refuse(out, errOvertaken())
	}
	o.pending = nil
	return nil
}

// expire ends what has waited too long, and returns whether anything is left.
func (o *outbox) expire(now time.Time) (busy bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.queue) > 0 && now.Sub(o.queue[0].begun) >= produceTime {
		out := o.queue[0]
		o.queue = o.queue[1:]
		o.refuse(out, errAway())
	}
	for len(o.pending) > 0 && !now.Before(o.pending[0].due) {
		out := o.pending[0]
		o.pending = o.pending[1:]
		o.refuse(out, errLost())
	}
	return len(o.queue) > 0 || len(o.pending) > 0
}

// begin lets writing begin.
func (o *outbox) begin() {
	o.mu.Lock()
	o.held = false
	o.launchAndUnlock()
}

// halt refuses what is not written yet, and what comes from now on.
func (o *outbox) halt(err *protocol.Error) {
	o.close(err)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, out := range o.queue {
		o.refuse(out, err)
	}
	o.queue = nil
}

// close refuses what comes from now on.
func (o *outbox) close(err *protocol.Error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed == nil {
		o.closed = err
	}
	close(o.space)
	o.space = make(chan struct{})
}

// end ends everything that has no answer yet.
func (o *outbox) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, out := range o.queue {
		o.refuse(out, errClosed())
	}
	for _, out := range o.pending {
		o.refuse(out, errLost())
	}
	o.queue, o.pending = nil, nil
}

// takeAnswers returns the answers that are to be handed out.
func (o *outbox) takeAnswers() []storage.Answer {
	o.mu.Lock()
	defer o.mu.Unlock()
	answers := o.answers
	o.answers = nil
	return answers
}

// lost reports whether a write has failed whose outcome is unknown.
func (o *outbox) lost() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.flying && len(o.queue) == 0 && len(o.pending) > 0 && o.away != nil
}

// trouble returns why writing fails at the moment, or nil.
func (o *outbox) trouble() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.away
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
