package broker

import (
	"sync"

	"github.com/tidewire/tidewire/protocol"
)

// maxChunkBytes bounds the records of one Deliver frame. One record alone may
// be larger.
const maxChunkBytes = 64 << 10

// tailOverhead is about what a Deliver frame has beside its records.
const tailOverhead = 64

// chunk is a part of a commit on its way to live subscribers. It is encoded when the
// first of them takes it, once for each codec that somebody reads: a chunk that
// all its subscribers are too slow for costs nothing.
type chunk struct {
	protocol.Chunk

	// The records are parts of the commit's memory; Records is empty. An
	// ephemeral one has Records and no parts.
	parts   [][]byte
	size    int    // bytes of parts
	expires uint64 // when the first of its records expires; 0 for never

	mu    sync.Mutex
	tails []tail
}

// tail is the part of a Deliver frame that all subscriptions share.
type tail struct {
	codec protocol.Codec
	bytes []byte
}

// cost is about what its Deliver frame takes while it waits.
func (c *chunk) cost() int { return costOf(c.size + tailOverhead) }

// ready returns the shared part of the chunk's Deliver frame if it has been
// encoded, or nil.
func (c *chunk) ready(codec protocol.Codec) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.find(codec)
}

// tail returns the shared part of the chunk's Deliver frame.
func (c *chunk) tail(codec protocol.Codec) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.find(codec); b != nil {
		return b
	}
	whole := c.Chunk
	whole.Records = c.records()
	b := codec.AppendDeliverTail(make([]byte, 0, len(whole.Records)+tailOverhead), &whole)
	c.tails = append(c.tails, tail{codec, b})
	return b
}

// records returns the records in one piece.
func (c *chunk) records() []byte {
	if len(c.parts) == 0 {
		return c.Records
	}
	b := make([]byte, 0, c.size)
	for _, p := range c.parts {
		b = append(b, p...)
	}
	return b
}

func (c *chunk) find(codec protocol.Codec) []byte {
	for _, t := range c.tails {
		if t.codec == codec {
			return t.bytes
		}
	}
	return nil
}
