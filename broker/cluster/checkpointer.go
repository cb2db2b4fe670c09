package cluster

import (
	"context"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

const (
	// pageBytes bounds the state in one page of a checkpoint.
	pageBytes = 256 << 10

	// checkpointLook is how often the holder looks whether a checkpoint is due.
	checkpointLook = time.Second
)

// checkpointer is what the writing of checkpoints has to know. Node.mu guards all but kick.
type checkpointer struct {
	kick     chan struct{} // has a token when something of this boot was applied
	whole    since         // the last whole checkpoint began
	now      since         // the last checkpoint began
	snapshot []byte        // the state where the own checkpoint began
	of       uint64        // index of that
}

// since is what has come since a checkpoint began.
type since struct {
	bytes int64
	at    time.Duration // when it began, since the node started
}

func (c *checkpointer) grown(n int) {
	c.whole.bytes += int64(n)
	c.now.bytes += int64(n)
}

// checkpoints writes them while this node holds the lease for it. The pages are the state
// at the index of the beginning, taken there at once and written one after
// the other, each once the one before was applied: others' records come in between.
func (n *Node) checkpoints(ctx context.Context, _ uint64) {
	look := time.NewTicker(checkpointLook)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
		n.mu.Lock()
		last := n.pages.whole
		n.mu.Unlock()
		if last.bytes >= n.opts.CheckpointBytes || n.now()-last.at >= n.opts.CheckpointEvery {
			n.writeCheckpoint(ctx)
		}
	}
}

func (n *Node) writeCheckpoint(ctx context.Context) {
	n.mu.Lock()
	n.pages.snapshot = nil // of a cycle that was given up
	n.mu.Unlock()
	n.must(&clusterv1.Record{Record: &clusterv1.Record_CheckpointBegin{CheckpointBegin: &clusterv1.CheckpointBegin{}}})
	var snapshot []byte
	var begin uint64
	if !n.await(ctx, func() step {
		snapshot, begin = n.pages.snapshot, n.pages.of
		return when(snapshot != nil)
	}) {
		return
	}
	pages := uint64(0)
	for page := range slices.Chunk(snapshot, pageBytes) {
		n.must(&clusterv1.Record{Record: &clusterv1.Record_CheckpointPage{
			CheckpointPage: &clusterv1.CheckpointPage{Begin: begin, Number: pages, State: page},
		}})
		pages++
		if !n.await(ctx, func() step {
			if n.state.cycle.begin != begin {
				return lost
			}
			return when(n.state.cycle.pages == pages)
		}) {
			return
		}
	}
	n.must(&clusterv1.Record{Record: &clusterv1.Record_CheckpointEnd{
		CheckpointEnd: &clusterv1.CheckpointEnd{Begin: begin, Pages: pages, Checksum: xxhash.Sum64(snapshot)},
	}})
	if n.await(ctx, func() step {
		if n.state.checkpoint != begin && n.state.cycle.begin != begin {
			return lost
		}
		return when(n.state.checkpoint == begin)
	}) {
		n.opts.Logger.Info("a checkpoint of the control topic is written", "begin", begin, "bytes", len(snapshot), "pages", pages)
	}
}

// step is what a wait for the own records has come to.
type step uint8

const (
	waiting step = iota
	done
	lost // another cycle has begun
)

func when(ok bool) step {
	if ok {
		return done
	}
	return waiting
}

// await returns when something that was applied brought cond to an end, and whether it is
// a good one; cond holds n.mu. It is false when ctx ends before.
func (n *Node) await(ctx context.Context, cond func() step) bool {
	for {
		n.mu.Lock()
		is := cond()
		n.mu.Unlock()
		if is != waiting {
			return is == done
		}
		select {
		case <-n.pages.kick:
		case <-ctx.Done():
			return false
		}
	}
}
