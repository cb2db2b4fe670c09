package broker

import (
	"context"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// Log is one stream's log as the broker needs it. [storage.Log] implements it
// on bbolt; the suite in storage says how every Log behaves.
type Log interface {
	// Append queues entries. The order of calls is the order in the log. It
	// waits while too much is queued, until ctx ends.
	Append(ctx context.Context, entries ...*storage.Entry) error
	// Run commits what is queued and hands it to apply, in order, from one
	// goroutine. It returns nil after ctx has ended and everything queued is
	// applied, or the error after which nothing can be promised any more.
	Run(ctx context.Context, apply func(*storage.Commit)) error
	// Read returns what matches above an offset, or [storage.ErrTrimmed], or a
	// [storage.LostError].
	Read(q storage.Query) (protocol.Chunk, error)
	// ReadBack returns the newest that match up to an offset, at most n, or
	// [storage.ErrTrimmed].
	ReadBack(q storage.Query, n int) (protocol.Chunk, error)
	// Resolve says where a start begins, counted from the given head.
	Resolve(s protocol.Start, f protocol.Filter, head uint64) (storage.Resolved, error)
	// Bounds returns the oldest stored offset and the last one given.
	Bounds() (earliest, head uint64)
	// PositionOf returns the position of an offset.
	PositionOf(offset uint64) protocol.Position
}
