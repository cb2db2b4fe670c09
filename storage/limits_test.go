package storage

import (
	"testing"

	"github.com/tidewire/tidewire/protocol"
)

// The bound of the queue is a constant here and a row of the table of limits.
func TestQueueIsAsTheTableSays(t *testing.T) {
	if maxQueueBytes != protocol.LimitQueue.Default() {
		t.Errorf("the queue holds %d bytes, the table says %d", maxQueueBytes, protocol.LimitQueue.Default())
	}
}
