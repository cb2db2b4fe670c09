package kafka

import (
	"context"
	"time"
)

// States of a reader.
const (
	readerSearching = iota // for the leader
	readerPlaced           // with the poll of its leader
	readerResting          // after an error that only somebody else can settle
	readerRemoved
)

// A reader is one partition of a fetcher. All fields but the first three belong
// to the mutex of the fetcher.
type reader struct {
	fetcher *Fetcher
	source  Source
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{} // closed when the sink is called no more
	wake    chan struct{} // holds one token if the queue may have grown

	state  int
	poll   *poll // if placed
	leader place
	offset int64  // to be asked for next
	round  uint64 // grows with Seek: what an older one brought is dropped
	queue  []chunk
	queued int // bytes of the queue, and of the chunk in the sink
	told   news
	pause  pauser
}

// place is where a reader reads.
type place struct {
	id    TopicID
	epoch int32
	gen   uint64    // of the metadata that said so
	hold  time.Time // not to be asked again before, if it is the same
}

// news is what a sink was told last, besides batches.
type news struct {
	watermark, start int64
	epoch            int32
	failed           Kind // "" after a success
}

// A chunk is what one fetch brought for one partition.
type chunk struct {
	batches []rawBatch
	from    int64
	size    int
	fetched Fetched
}

func newReader(f *Fetcher, s Source) *reader {
	r := &reader{
		fetcher: f, source: s, offset: s.Offset,
		done: make(chan struct{}), wake: make(chan struct{}, 1),
		told: news{watermark: -1, start: -1, epoch: -1},
	}
	r.leader.id = s.ID
	r.ctx, r.cancel = context.WithCancel(f.ctx)
	return r
}

// push queues a chunk; the mutex of the fetcher is held.
func (r *reader) push(c chunk) {
	r.queue = append(r.queue, c)
	r.queued += c.size
	r.fetcher.used += c.size
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// forget empties the queue and returns its size. What is in the sink stays.
func (r *reader) forget() int {
	size := 0
	for _, c := range r.queue {
		size += c.size
	}
	r.queue = nil
	r.queued -= size
	return size
}

// fail tells an error, once for each kind until the next success.
func (r *reader) fail(err error) {
	kind := KindOf(err)
	if r.told.failed == kind {
		return
	}
	r.told.failed = kind
	r.push(chunk{fetched: Fetched{Err: err, HighWatermark: r.told.watermark, LogStart: r.told.start, Epoch: r.told.epoch}})
}

// quietFailures are not told: leaders come and go.
const quietFailures = 3

// lose says how long to wait before trying again. That a topic has changed is
// not told here: a broker that has not heard of a new topic answers the same,
// and metadata will tell.
func (r *reader) lose(err error) time.Duration {
	pause := r.pause.next()
	if r.pause.n > quietFailures && KindOf(err) != TopicChanged {
		r.fail(err)
	}
	return pause
}

// deliver decodes what was fetched, and hands it to the sink.
func (r *reader) deliver() {
	defer close(r.done)
	for {
		c, round, ok := r.pop()
		if !ok {
			select {
			case <-r.wake:
				continue
			case <-r.ctx.Done():
				return
			}
		}
		for _, raw := range c.batches {
			c.fetched.Batches = append(c.fetched.Batches, raw.decode(c.from))
		}
		if !r.current(round) {
			r.release(c)
			continue
		}
		err := r.source.Sink(r.ctx, c.fetched)
		r.release(c)
		if err != nil {
			r.fetcher.mu.Lock()
			r.fetcher.removeLocked(r)
			r.fetcher.mu.Unlock()
			return
		}
	}
}

func (r *reader) pop() (chunk, uint64, bool) {
	r.fetcher.mu.Lock()
	defer r.fetcher.mu.Unlock()
	if len(r.queue) == 0 || r.state == readerRemoved {
		return chunk{}, 0, false
	}
	c := r.queue[0]
	r.queue[0] = chunk{}
	r.queue = r.queue[1:]
	return c, r.round, true
}

// current reports whether nobody has asked for another offset meanwhile.
func (r *reader) current(round uint64) bool {
	r.fetcher.mu.Lock()
	defer r.fetcher.mu.Unlock()
	return r.round == round
}

// release gives back the memory of a chunk, and wakes the poll if it waited for
// that. Others that found no room have something in their own queues, and wake
// it themselves.
func (r *reader) release(c chunk) {
	f := r.fetcher
	f.mu.Lock()
	defer f.mu.Unlock()
	r.queued -= c.size
	f.used -= c.size
	if r.poll != nil && r.queued <= f.opts.PartitionBytes/2 {
		r.poll.nudge()
	}
}
