package broker

import (
	"context"
	"sync"
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

const (
	// controlTopic is the topic of all records of the control log.
	controlTopic = "$control"

	// lazyPause is how long deltas for which nobody waits may lie in memory: that
	// much of unconfirmed acknowledgements is lost by a crash.
	lazyPause = 20 * time.Millisecond

	// controlRecord bounds the deltas of one record.
	controlRecord = 256 << 10

	// controlHurry is how many bytes of deltas are written without delay.
	controlHurry = 64 << 10

	// controlRetry is the pause after a write that the disk had no room for.
	controlRetry = time.Second
)

// control is the log of what consumers have done: lists of deltas in the order in
// which they were decided, with checkpoints of all consumers in between. It is
// read from its beginning when the broker starts.
//
// One write is under way at a time, and what comes meanwhile goes with the next
// one, as in any group commit. Deltas for which nobody waits ride along.
type control struct {
	log   Log
	order storage.Order
	kick  chan struct{} // has a token when there is something to write
	rush  chan struct{} // has a token when somebody waits for it

	mu      sync.Mutex
	deltas  [][]byte // in the order of decision
	bytes   int
	waiting []func(stored)
	written int64     // bytes since the last checkpoint began
	began   time.Time // when it did
	broken  *protocol.Error
}

// stored tells those who wait for deltas that they are durable, or why not.
type stored struct {
	after uint64 // every record with these deltas lies above this offset
	err   *protocol.Error
}

func newControl(log Log) *control {
	return &control{log: log, kick: make(chan struct{}, 1), rush: make(chan struct{}, 1), began: time.Now()}
}

// put adds deltas. done, if not nil, is called once they and all before them are
// durable, and makes the write begin at once. It must not block, and the caller's
// locks are held while put runs, not while done does.
func (c *control) put(deltas []byte, done func(stored)) {
	if len(deltas) == 0 && done == nil {
		return
	}
	c.mu.Lock()
	if c.broken != nil {
		err := c.broken
		c.mu.Unlock()
		if done != nil {
			go done(stored{err: err}) // callers hold what done needs
		}
		return
	}
	if len(deltas) > 0 {
		c.deltas = append(c.deltas, deltas)
		c.bytes += len(deltas)
	}
	if done != nil {
		c.waiting = append(c.waiting, done)
	}
	hurry := done != nil || c.bytes > controlHurry
	c.mu.Unlock()
	poke(c.kick)
	if hurry {
		poke(c.rush)
	}
}

// wait returns when everything that was put is durable.
func (c *control) wait(ctx context.Context) *protocol.Error {
	answer := make(chan stored, 1)
	c.put(nil, func(s stored) { answer <- s })
	return await(ctx, answer)
}

// run writes what is put until ctx ends and everything is written.
func (c *control) run(ctx context.Context) {
	for {
		select {
		case <-c.kick:
			c.gather(ctx)
			c.write(ctx)
			continue
		case <-ctx.Done():
		}
		c.write(ctx)
		c.fail(protocol.Errorf(protocol.CodeGoingAway, "the broker is shutting down: what was not confirmed will be delivered again"))
		return
	}
}

// gather waits for more, unless somebody waits for what there is.
func (c *control) gather(ctx context.Context) {
	pause := time.NewTimer(lazyPause)
	defer pause.Stop()
	select {
	case <-c.rush:
	case <-pause.C:
	case <-ctx.Done():
	}
}

// write stores what has been put. While the disk is full it tries again until
// ctx ends: each delta builds on those before it, so none may be left out and none
// may overtake.
func (c *control) write(ctx context.Context) {
	c.mu.Lock()
	records, waiting := packed(c.deltas), c.waiting
	c.deltas, c.waiting, c.bytes = nil, nil, 0
	c.mu.Unlock()
	for {
		n, after, err := c.store(records)
		records = records[n:]
		for _, done := range waiting {
			done(stored{after, err})
		}
		waiting = nil
		if err == nil {
			return
		}
		if err.Code != protocol.CodeStorageFull && err.Code != protocol.CodeOverloaded {
			c.fail(err)
			return
		}
		select {
		case <-time.After(controlRetry):
		case <-ctx.Done():
			return
		}
	}
}

// store writes records in their order. It returns how many are durable, and an
// offset below theirs.
func (c *control) store(records [][]byte) (n int, after uint64, err *protocol.Error) {
	_, after = c.log.Bounds()
	if len(records) == 0 {
		return 0, after, nil
	}
	answers := make(chan *protocol.Error, len(records))
	entries := make([]*storage.Entry, len(records))
	for i, r := range records {
		m := protocol.Message{Topic: controlTopic, Payload: r}
		entries[i] = &storage.Entry{
			Topic: controlTopic, Record: protocol.AppendRecord(make([]byte, 0, len(r)+64), &m), Received: time.Now(),
			Order: &c.order, Resume: i == 0, // after one that was refused no other is taken
			Done: func(r storage.Result) { answers <- r.Err },
		}
	}
	if err := c.log.Append(context.Background(), entries...); err != nil {
		return 0, after, protocol.AsError(err)
	}
	size := 0
	for _, r := range records {
		if answer := <-answers; err == nil && answer == nil {
			n++
			size += len(r)
		} else if err == nil {
			err = answer
		}
	}
	c.mu.Lock()
	c.written += int64(size)
	c.mu.Unlock()
	return n, after, err
}

// packed puts deltas into as few records as may be.
func packed(deltas [][]byte) (records [][]byte) {
	for len(deltas) > 0 {
		n, size := 1, len(deltas[0])
		for n < len(deltas) && size+len(deltas[n]) <= controlRecord {
			size += len(deltas[n])
			n++
		}
		record := make([]byte, 0, size)
		for _, d := range deltas[:n] {
			record = append(record, d...)
		}
		records = append(records, record)
		deltas = deltas[n:]
	}
	return records
}

// fail answers everybody who waits, now and from now on.
func (c *control) fail(err *protocol.Error) {
	c.mu.Lock()
	waiting := c.waiting
	c.waiting, c.deltas, c.broken = nil, nil, err
	c.mu.Unlock()
	for _, done := range waiting {
		done(stored{err: err})
	}
}

// size returns the bytes that were written since the last checkpoint began, and
// when it did.
func (c *control) size() (int64, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.written, c.began
}

// applied is called for each commit of the control log.
func (c *control) applied(commit *storage.Commit) {
	for i := range commit.Answers {
		a := &commit.Answers[i]
		a.Entry.Done(a.Result)
	}
}

// replay hands the records of the control log to apply, oldest first.
func (c *control) replay(apply func(payload []byte) error) error {
	filter := mustFilter(controlTopic)
	earliest, head := c.log.Bounds()
	for cursor := earliest - 1; cursor < head; {
		chunk, err := c.log.Read(storage.Query{Filter: filter, After: cursor, MaxBytes: 1 << 20})
		if err != nil {
			return err
		}
		for m, err := range chunk.Messages() {
			if err != nil {
				return err
			}
			if err := apply(m.Payload); err != nil {
				return err
			}
		}
		cursor = chunk.Through
	}
	return nil
}
