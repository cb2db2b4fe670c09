package storage

import (
	"context"
	"sync"

	"github.com/tidewire/tidewire/protocol"
)

// Bounds of the queue and of one batch. A batch is what one transaction syncs:
// large enough that a slow disk is not the limit, small enough that it is
// answered soon.
const (
	maxQueueBytes   = 32 << 20
	maxBatchBytes   = 4 << 20
	maxBatchEntries = 8192
	entryOverhead   = 128 // bytes that an entry costs beside its record
)

// queue holds entries between Append and the committer. There is no timer: it
// gathers while a transaction is being synced, so batches grow with the load.
type queue struct {
	ready chan struct{} // has a token while there may be entries

	mu      sync.Mutex
	entries []*Entry
	bytes   int
	space   chan struct{} // closed, and replaced, when entries are taken
	closed  *protocol.Error
}

func newQueue() *queue {
	return &queue{ready: make(chan struct{}, 1), space: make(chan struct{})}
}

// put adds the entries as one, waiting for space until ctx ends.
func (q *queue) put(ctx context.Context, entries []*Entry) error {
	size := 0
	for _, e := range entries {
		size += len(e.Record) + entryOverhead
	}
	for {
		space, err := q.tryPut(entries, size)
		if err != nil {
			return err
		}
		if space == nil {
			return nil
		}
		select {
		case <-space:
		case <-ctx.Done():
			return protocol.Errorf(protocol.CodeOverloaded, "the log has %d MiB of messages waiting to be stored; publish again in a moment", maxQueueBytes>>20)
		}
	}
}

// tryPut adds the entries, or returns what is closed when there may be space.
func (q *queue) tryPut(entries []*Entry, size int) (<-chan struct{}, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed != nil {
		return nil, q.closed
	}
	if q.bytes > 0 && q.bytes+size > maxQueueBytes {
		return q.space, nil
	}
	q.entries = append(q.entries, entries...)
	q.bytes += size
	poke(q.ready)
	return nil, nil
}

// take removes and returns the next batch: entries of at most the given bytes,
// at least one if there is any.
func (q *queue) take(maxBytes int) []*Entry {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size, cost := 0, 0, 0
	for n < len(q.entries) && n < maxBatchEntries {
		size += len(q.entries[n].Record)
		if n > 0 && size > maxBytes {
			break
		}
		cost += len(q.entries[n].Record) + entryOverhead
		n++
	}
	batch := q.entries[:n:n]
	if q.entries = q.entries[n:]; len(q.entries) > 0 {
		poke(q.ready)
	} else {
		q.entries = nil
	}
	if n > 0 {
		q.bytes -= cost
		close(q.space)
		q.space = make(chan struct{})
	}
	return batch
}

// close refuses further entries with err.
func (q *queue) close(err *protocol.Error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed == nil {
		q.closed = err
	}
	close(q.space)
	q.space = make(chan struct{})
}
