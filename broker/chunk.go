package broker

import (
	"sync"

	"github.com/tidewire/tidewire/protocol"
)

// maxChunkBytes bounds the records of one Deliver frame. One record alone may
// be larger.
const maxChunkBytes = 64 << 10

// chunk is a part of the log on its way to subscribers, encoded once for each
// codec that somebody reads.
type chunk struct {
	protocol.Chunk

	mu    sync.Mutex
	tails []tail
}

// tail is the part of a Deliver frame that all subscriptions share.
type tail struct {
	codec protocol.Codec
	bytes []byte
}

// tail returns the shared part of the chunk's Deliver frame.
func (c *chunk) tail(codec protocol.Codec) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.tails {
		if t.codec == codec {
			return t.bytes
		}
	}
	b := codec.AppendDeliverTail(make([]byte, 0, len(c.Records)+64), &c.Chunk)
	c.tails = append(c.tails, tail{codec, b})
	return b
}
