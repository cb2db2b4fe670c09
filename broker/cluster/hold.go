package cluster

import (
	"context"
	"time"
)

// holdPause is how long a node leaves a lease to others that it gave up.
const holdPause = time.Second

// Hold calls run whenever this node holds the lease and may act, one call at a time, and asks for
// the lease whenever it is free. The context of run ends when the lease is lost or the node
// must pause; after a pause run is called again, with the same generation if no
// other node came in between. A run that returns by itself gives up the lease, and
// Hold asks for it again a second later, so that another node may try. Hold returns when ctx ends, and then gives up the lease too. There
// is one Hold for each lease of a node.
func (n *Node) Hold(ctx context.Context, lease string, run func(ctx context.Context, generation uint64)) {
	var done Lease // what was given up, and may not have been applied yet
	for {
		l, ok := n.acquire(ctx, lease, done)
		if !ok {
			return
		}
		if !n.use(ctx, l, run) {
			continue
		}
		done = l
		if n.Release(lease, l.Generation) != nil {
			done = Lease{} // nothing gets through: hold on
		}
		select {
		case <-time.After(holdPause):
		case <-ctx.Done():
		}
	}
}

// acquire waits until this node holds the lease and may act. It is false when ctx
// ends before.
func (n *Node) acquire(ctx context.Context, lease string, done Lease) (l Lease, ok bool) {
	for ctx.Err() == nil {
		l, mine, changed := n.lease(lease)
		switch {
		case mine && l != done:
			return l, true
		case l.Boot == 0 && n.Live():
			if err := n.Claim(lease); err != nil {
				n.opts.Logger.Warn("a lease cannot be claimed", "lease", lease, "error", err)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return Lease{}, false
}

// lease returns who holds a lease, whether this node may act by it, and what is
// closed when that may be otherwise.
func (n *Node) lease(name string) (l Lease, mine bool, changed <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l, held := n.state.Lease(name)
	return l, held && l.Boot == n.Boot() && n.Live(), n.changed
}

// use runs run while this node holds that very lease and may act. It reports whether the
// lease is to be given up.
func (n *Node) use(ctx context.Context, l Lease, run func(context.Context, uint64)) bool {
	mine, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		run(mine, l.Generation)
	}()
	for {
		now, still, changed := n.lease(l.Name)
		if !still || now != l {
			cancel()
			<-ended
			return ctx.Err() != nil && now == l
		}
		select {
		case <-ended:
			return true
		case <-changed:
		}
	}
}
