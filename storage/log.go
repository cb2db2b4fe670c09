package storage

import (
	"context"
)

// Log is one stream on disk: one partition, offsets from 1 upwards, in the order
// in which they are appended.
//
// Append fills the queue; the committer, a goroutine of Run, gives offsets and
// makes batches durable.
type Log struct {
	*core
	queue     *queue
	committer *committer
}

// Append queues the entries as one: they follow each other in the log, which has
// them in the order of the calls. While the queue is full it waits for space,
// until ctx ends. An error means that none of them was taken.
func (l *Log) Append(ctx context.Context, entries ...*Entry) error {
	return l.queue.put(ctx, entries)
}

// Close closes the files. Run must have returned, and no Read may follow.
func (l *Log) Close() error {
	l.queue.close(errClosed())
	return l.core.Close()
}

// mark gives an offset to nothing.
func (l *Log) mark(ctx context.Context) error {
	return l.queue.put(ctx, []*Entry{{mark: true, Done: func(Result) {}}})
}
