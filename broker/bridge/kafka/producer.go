package kafka

import (
	"context"
	"sync"
	"time"
)

// ProducerOptions bound a [Producer]; what is zero has the value named here.
type ProducerOptions struct {
	MaxBytes     int           // of all that waits or is under way; 64 MiB
	BatchBytes   int           // of a batch, one for each partition and request; 900,000, below Kafka's default for max.message.bytes
	RequestBytes int           // of all batches in one request; 8 MiB
	Timeout      time.Duration // for the followers to have what the leader was sent, after which it is sent again; 2.5 s
}

func (o *ProducerOptions) defaults() {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 64 << 20
	}
	if o.BatchBytes <= 0 {
		o.BatchBytes = 900_000
	}
	if o.RequestBytes <= 0 {
		o.RequestBytes = 8 << 20
	}
	if o.Timeout <= 0 {
		o.Timeout = 2500 * time.Millisecond
	}
}

// A Write is one or more records for one partition that are stored together or
// not at all.
type Write struct {
	Partition Partition
	Records   []Record  // must not be changed until Done
	Deadline  time.Time // nothing is tried after it

	// Done is called once, from a goroutine of the producer: the writes of a
	// partition in order, except those that missed their deadline. It must not
	// block.
	Done func(Produced)
}

// Produced is how a write ended: the offset of its first record, or an error
// of the kind NotSent, Unknown, TooLarge, Invalid or Denied. NotSent and
// Unknown have the last failure as cause.
type Produced struct {
	Base int64
	Err  error
}

// A Producer appends writes to partitions, acknowledged by all replicas that
// are in sync.
//
// A goroutine for each leader, its lane, has one request under way, with one
// batch for each of its partitions that has something; what arrives meanwhile
// is the next. So batches grow with the load and with nothing else: there is
// no timer to wait for.
//
// Invariants, for each partition:
//   - its queue is in one place: in a lane's list, in the request that the lane
//     has under way, or with a goroutine that looks for its leader;
//   - a batch that may have landed is sent again byte by byte, before anything
//     behind it, until it is stored or nobody waits for it any more. It may
//     then be in the log twice, and the later one even behind its successors:
//     who reads the log settles that;
//   - a batch that surely has not landed is taken apart again, so that a write
//     whose deadline passes in the meantime is surely not stored.
type Producer struct {
	client *Client
	opts   ProducerOptions
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	bytes  int // of all items in queues
	queues map[Partition]*queue
	lanes  map[int32]*lane
	sweep  *time.Timer // for deadlines; nil if nothing is queued
	at     time.Time   // when sweep fires
}

// NewProducer returns a producer, which is at work until it or the client is
// closed.
func (c *Client) NewProducer(o ProducerOptions) *Producer {
	o.defaults()
	p := &Producer{client: c, opts: o, queues: map[Partition]*queue{}, lanes: map[int32]*lane{}}
	p.ctx, p.cancel = context.WithCancel(c.ctx)
	context.AfterFunc(p.ctx, p.shut)
	return p
}

// Produce queues a write. An error, of the kind Full, TooLarge, Invalid or
// Closed, means that it was not queued, is not stored, and Done is not called.
func (p *Producer) Produce(w Write) error {
	it := &item{write: w, size: 0}
	for i := range w.Records {
		it.size += recordSize(&w.Records[i])
	}
	if len(w.Records) == 0 || w.Done == nil {
		return failf(Invalid, nil, "a write needs records and Done")
	}
	if it.size > p.opts.BatchBytes-batchHeader {
		return failf(TooLarge, nil, "%d bytes at once are too much for %s; at most %d are allowed", it.size, w.Partition, p.opts.BatchBytes-batchHeader)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return failf(Closed, nil, "the Kafka producer is closed")
	}
	if p.bytes+it.size > p.opts.MaxBytes {
		return failf(Full, nil, "%d bytes wait for Kafka already", p.bytes)
	}
	p.bytes += it.size
	q := p.queues[w.Partition]
	if q == nil {
		q = &queue{partition: w.Partition}
		p.queues[w.Partition] = q
	}
	q.waiting = append(q.waiting, it)
	p.watchDeadlineLocked(w.Deadline)
	if q.state == queueIdle {
		p.placeLocked(q)
	}
	return nil
}

// Queued returns how many bytes wait or are under way.
func (p *Producer) Queued() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes
}

// Close ends every write that has not ended: with NotSent, or with Unknown if
// it was under way. It returns when no goroutine is left. It must not be called
// from Done.
func (p *Producer) Close() {
	p.cancel()
	p.shut()
	p.wg.Wait()
}

// shut answers everything; what comes later is refused.
func (p *Producer) shut() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.closed = true
	var calls []func()
	cause := failf(Closed, nil, "the Kafka producer was closed")
	for _, q := range p.queues {
		calls = q.giveUp(calls, func(*item) bool { return true }, cause)
		q.waiting = nil
	}
	p.bytes = 0
	if p.sweep != nil {
		p.sweep.Stop()
	}
	p.mu.Unlock()
	run(calls)
}

func run(calls []func()) {
	for _, call := range calls {
		call()
	}
}

// sweepPause is the least time between two looks for deadlines that passed.
const sweepPause = 50 * time.Millisecond

func (p *Producer) watchDeadlineLocked(t time.Time) {
	if p.sweep == nil {
		p.at = t
		p.sweep = time.AfterFunc(max(time.Until(t), sweepPause), p.expire)
		return
	}
	if t.Before(p.at) {
		p.at = t
		p.sweep.Reset(max(time.Until(t), sweepPause))
	}
}

// expire answers the writes whose deadline has passed.
func (p *Producer) expire() {
	now := time.Now()
	late := func(it *item) bool { return !now.Before(it.write.Deadline) }
	var calls []func()
	p.mu.Lock()
	p.sweep = nil
	for _, q := range p.queues {
		cause := q.failure
		if cause == nil {
			cause = failf(Unreachable, nil, "Kafka did not answer in time for %s", q.partition)
		}
		calls = q.giveUp(calls, late, cause)
		p.bytes -= q.dropAnswered()
		if t, ok := q.earliest(); ok && !p.closed {
			p.watchDeadlineLocked(t)
		}
	}
	p.mu.Unlock()
	run(calls)
}
