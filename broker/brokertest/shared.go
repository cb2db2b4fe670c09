package brokertest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// Shared is the order of a log that several nodes follow, as Kafka keeps one. What a node
// appends has its place at once, and every node gets to it in its own time.
type Shared struct {
	mu      sync.Mutex
	term    protocol.Term
	number  uint32 // of the partition
	all     []sharedEntry
	changed chan struct{} // closed when there is more
}

type sharedEntry struct {
	storage.Entry

	own  *storage.Entry // as its follower knows it
	from *Follower
	time uint64
}

// NewShared returns an empty order.
func NewShared() *Shared { return &Shared{term: protocol.NewTerm(), changed: make(chan struct{})} }

// NewSharedPartitions returns n empty orders, which are the partitions of one stream.
func NewSharedPartitions(n int) (all []*Shared) {
	for i := range n {
		s := NewShared()
		s.number = uint32(i)
		if i > 0 {
			s.term = all[0].term
		}
		all = append(all, s)
	}
	return all
}

// Follower is the log as one node has it. It keeps the contract of broker.Log; its
// publishes are answered when it has come to them.
type Follower struct {
	*Log

	shared *Shared
	ended  bool // guarded by shared.mu

	state   sync.Mutex
	stalled bool
	delay   func() time.Duration
	changed chan struct{}
}

// Follow returns the log of a new node, which has read nothing.
func (s *Shared) Follow() *Follower {
	l := NewLog()
	l.terms, l.number = []span{{s.term, 0}}, s.number
	return &Follower{Log: l, shared: s, changed: make(chan struct{})}
}

// Stall keeps the node from reading on, until it is stalled no more.
func (f *Follower) Stall(stalled bool) {
	f.state.Lock()
	defer f.state.Unlock()
	f.stalled = stalled
	close(f.changed)
	f.changed = make(chan struct{})
}

// Delay has each step of reading on wait for what a function draws.
func (f *Follower) Delay(delay func() time.Duration) {
	f.state.Lock()
	defer f.state.Unlock()
	f.delay = delay
}

// Append gives entries their place.
func (f *Follower) Append(_ context.Context, entries ...*storage.Entry) error {
	s := f.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.ended {
		return protocol.Errorf(protocol.CodeGoingAway, "the log is closed")
	}
	for _, e := range entries {
		shared := sharedEntry{Entry: *e, own: e, from: f, time: uint64(time.Now().UnixMicro())}
		shared.Record, shared.Done, shared.Order = slices.Clone(e.Record), nil, nil
		s.all = append(s.all, shared)
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// Run follows the order until ctx ends. What becomes of its own entries that it has not come to
// then, nobody knows.
func (f *Follower) Run(ctx context.Context, apply func(*storage.Commit)) error {
	for next := 0; ; {
		if !f.open(ctx) {
			f.shared.mu.Lock()
			f.ended = true
			rest := f.shared.all[next:]
			f.shared.mu.Unlock()
			for i := range rest {
				if rest[i].from == f {
					rest[i].own.Done(storage.Result{Err: protocol.Errorf(protocol.CodeUnknown, "the log has ended")})
				}
			}
			return nil
		}
		f.shared.mu.Lock()
		entries, changed := f.shared.all[next:], f.shared.changed
		f.shared.mu.Unlock()
		if len(entries) == 0 {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				continue
			}
		}
		next += len(entries)
		apply(f.take(entries))
	}
}

// open waits until the node may read on.
func (f *Follower) open(ctx context.Context) bool {
	f.state.Lock()
	delay := f.delay
	f.state.Unlock()
	if delay != nil {
		select {
		case <-time.After(delay()):
		case <-ctx.Done():
		}
	}
	for ctx.Err() == nil {
		f.state.Lock()
		stalled, changed := f.stalled, f.changed
		f.state.Unlock()
		if !stalled {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return false
}

func (f *Follower) take(entries []sharedEntry) *storage.Commit {
	l := f.Log
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &storage.Commit{Chunk: protocol.Chunk{Partition: f.shared.number, Term: f.shared.term, After: l.head()}}
	for i := range entries {
		e := &entries[i]
		copied := e.Entry
		copied.Record = slices.Clone(e.Record) // offset and time are written into it
		result := l.store(c, &copied, e.time)
		if e.from == f {
			c.Answers = append(c.Answers, storage.Answer{Entry: e.own, Result: result})
		}
	}
	c.Chunk.Through = l.head()
	return c
}
