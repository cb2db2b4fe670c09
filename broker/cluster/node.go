package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

const (
	// beatEvery is the pace of heartbeats.
	beatEvery = time.Second

	// liveFor is how long after it wrote a heartbeat that has come back a node may
	// act. Others expire it after more than that: see the package's documentation.
	liveFor = 2 * time.Second

	// goodbyeWait bounds how long a node that ends waits for its goodbye to be stored.
	goodbyeWait = time.Second
)

// Errors of [Node.Write]. Nothing was written then, and never will be.
var (
	ErrFull = errors.New("too much waits to be written to the control log: Kafka does not take it")
	ErrAway = errors.New("this node is not part of the cluster at the moment")
	// ErrTooLarge is that of a record which Kafka would refuse.
	ErrTooLarge = errors.New("a record for the control log is too large")
)

// Options are what a [Node] needs. Zero values are useful but for Name and Log.
type Options struct {
	Name    string
	Version uint32 // the newest rules that this node can follow
	Log     Log
	Parts   []Part // what follows the log beside the nodes

	// Heads, if not nil, tells how far each partition is applied. It is called each second.
	Heads func() []*clusterv1.StreamHeads
	// Live, if not nil, is told when the node may act and when it must pause, on
	// one goroutine, without locks held. [Node.Live] knows it at once.
	Live func(live bool)

	CheckpointEvery time.Duration // 10 minutes
	CheckpointBytes int64         // 64 MiB
	Logger          *slog.Logger
	Boot            func() uint64 // draws a boot; random
}

// A Node is this node of the cluster.
//
//   - It reads the log from the last whole checkpoint on and keeps the [State] and its parts. Once it has
//     read to the end it says hello.
//   - It writes a heartbeat each second, once the one before has come back. It expires who is
//     silent, and writes checkpoints when that is its turn.
//   - When it finds itself expired, everything that it wrote and that was not applied until then never will be;
//     its leases are gone. It comes back as another boot at once. Parts write what the others must know of
//     this node when they are told that it has joined, each time.
//   - When another node comes with its name, Run ends.
//   - Nothing depends on its goodbye.
type Node struct {
	opts  Options
	queue *queue
	start time.Time     // of the clock below
	boot  atomic.Uint64 // changed on the goroutine that applies
	until atomic.Int64  // may act until then, since start; 0 never
	woken chan struct{} // has a token when until was set
	back  chan struct{} // has a token when a heartbeat has come back

	mu      sync.Mutex
	state   *State
	read    progress
	out     beating
	me      membership
	changed chan struct{} // closed when leases may have changed, or whether it is live
	pages   checkpointer
}

// progress is how far the log was read.
type progress struct {
	ready   bool   // there is a state to go on from
	problem string // why there is none
	applied uint64 // index up to which the log was read
	target  uint64 // index at which the node has caught up
}

// membership is what the log says of this node.
type membership struct {
	joined  bool // its boot is there
	leaving bool // it says goodbye
	left    bool // that has been applied
}

// beating is what a node knows of its own heartbeats.
type beating struct {
	sent time.Duration // when the one was written that has not come back; 0 if none is out
	// Index of the last one that took longer than the pace to come back. Kafka was away or slow then, and it
	// may be longer so for others: only what came since then says that they are silent.
	calm uint64
}

// New returns a node that begins when Run does.
func New(o Options) (*Node, error) {
	if !validName(o.Name) {
		return nil, fmt.Errorf("%q cannot be the name of a node: write up to %d bytes of text", o.Name, maxName)
	}
	if o.CheckpointEvery <= 0 {
		o.CheckpointEvery = 10 * time.Minute
	}
	if o.CheckpointBytes <= 0 {
		o.CheckpointBytes = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Boot == nil {
		o.Boot = rand.Uint64
	}
	return &Node{
		opts: o, queue: newQueue(), state: NewState(o.Parts...), start: time.Now(),
		woken: make(chan struct{}, 1), back: make(chan struct{}, 1), changed: make(chan struct{}), pages: checkpointer{kick: make(chan struct{}, 1)},
	}, nil
}

// Boot is the number of this membership. It is another one each time that a part is
// told that this node has joined.
func (n *Node) Boot() uint64 { return n.boot.Load() }

// Live reports whether the node may act by its leases now.
func (n *Node) Live() bool { return n.now() < time.Duration(n.until.Load()) }

// Write appends records to the log, behind everything written before. It does not wait; they
// count once they come back and are applied, or never: after the boot with which
// they were written is gone, none of them will. Parts may call it.
// The error is [ErrAway], [ErrFull], [ErrTooLarge], or that a text is not UTF-8.
func (n *Node) Write(records ...*clusterv1.Record) error { return n.queue.put(false, records...) }

// Queued is how many bytes wait to be written.
func (n *Node) Queued() int { return n.queue.queued() }

// View calls f with the state, which must not be kept. Not from a part, which has it.
func (n *Node) View(f func(s *State)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n.state)
}

// Claim asks for a lease, unless a claim of this node is on its way. Who gets it is an
// event: [Claimed]. A claim that comes when the lease is held is void: whoever wants it
// still asks again when it is [Released]. Parts may call it.
func (n *Node) Claim(lease string) error {
	if !n.queue.ask(lease) {
		return nil
	}
	err := n.Write(&clusterv1.Record{Record: &clusterv1.Record_Claim{Claim: &clusterv1.Claim{Lease: lease}}})
	if err != nil {
		n.queue.answered(lease)
	}
	return err
}

// Release gives up a lease that this node holds with that generation. Parts may
// call it.
func (n *Node) Release(lease string, generation uint64) error {
	return n.Write(&clusterv1.Record{Record: &clusterv1.Record_Release{
		Release: &clusterv1.Release{Lease: lease, Generation: generation},
	}})
}

func (n *Node) now() time.Duration { return time.Since(n.start) }

// Run is the life of the node. It returns nil when ctx ends, and an error that no
// further try will mend.
func (n *Node) Run(ctx context.Context) error {
	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	var work sync.WaitGroup
	work.Go(func() { n.life(inner, cancel) })
	select {
	case <-ctx.Done():
		n.goodbye(inner)
	case <-inner.Done():
	}
	cancel(nil)
	work.Wait()
	n.end()
	if err := context.Cause(inner); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// end wakes who acts by a lease.
func (n *Node) end() {
	n.queue.setOpen(false)
	n.until.Store(0)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.broadcast()
}
