package broker

import (
	"sync"
	"sync/atomic"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// partition is one partition of a stream at work: its log and its live groups.
// Partitions and streams share nothing, so that a slow disk under one does not
// hold up another.
type partition struct {
	*stream
	number uint32
	log    Log

	// mu guards the live groups and the offset up to which commits are applied.
	// Both change together: a subscription whose cursor is applied and that is
	// put into its group under mu misses nothing and gets nothing twice.
	mu      sync.Mutex
	applied uint64
	exact   map[string]*group // of filters that are topics
	groups  trie              // of patterns

	// delivered is the offset up to which all chunks are in the queues of all
	// live subscriptions. It follows applied.
	delivered atomic.Uint64
}

func newPartition(st *stream, number uint32, log Log) *partition {
	pt := &partition{stream: st, number: number, log: log, exact: make(map[string]*group)}
	_, head := log.Bounds()
	pt.applied = head
	pt.delivered.Store(head)
	return pt
}

// apply takes one commit: publishers get their answers, live subscriptions
// their messages. It runs on one goroutine, in log order, and depends on
// nothing but the commit and on who is subscribed.
func (pt *partition) apply(c *storage.Commit) {
	deliveries, watchers := pt.match(c)
	for i := range c.Answers {
		a := &c.Answers[i]
		pt.broker.metrics.answered(&a.Result)
		a.Entry.Done(a.Result)
	}
	for _, d := range deliveries {
		for _, s := range d.members {
			for _, chunk := range d.chunks {
				if !s.session.deliver(s, chunk) {
					break
				}
			}
		}
	}
	for _, w := range watchers {
		pt.broker.consumers.runner.tell(w, c.Chunk.After, c.Chunk.Through)
	}
	pt.delivered.Store(c.Chunk.Through)
	pt.broker.metrics.applied(c)
}

// match sorts the records of a commit into the live groups and moves applied. It
// returns what is to be delivered, and the consumers that have something to read.
func (pt *partition) match(c *storage.Commit) (deliveries []delivery, watchers []watcher) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	var found, touched, watched []*group
	rest := c.Chunk.Records
	for _, topic := range c.Topics {
		record, next, ok := protocol.NextFramed(rest)
		if !ok {
			break // cannot be: the log made the chunk
		}
		framed := rest[:len(rest)-len(next)]
		rest = next
		offset, _ := protocol.RecordPlace(record)
		found = pt.find(topic, found[:0])
		if len(found) == 0 {
			continue
		}
		expires := protocol.RecordExpiry(record)
		for _, g := range found {
			if len(g.watchers) > 0 && !g.seen {
				g.seen = true
				watched = append(watched, g)
			}
			if len(g.members) == 0 {
				continue
			}
			if g.open == nil && len(g.chunks) == 0 {
				touched = append(touched, g)
			}
			g.append(framed, offset, expires, &c.Chunk)
		}
	}
	pt.applied = c.Chunk.Through
	deliveries = make([]delivery, 0, len(touched))
	for _, g := range touched {
		deliveries = append(deliveries, g.take(pt.applied))
	}
	for _, g := range watched {
		g.seen = false
		watchers = append(watchers, g.watchers...)
	}
	return deliveries, watchers
}

// find appends the live groups that match a topic. Callers hold mu.
func (pt *partition) find(topic string, found []*group) []*group {
	if g := pt.exact[topic]; g != nil {
		found = append(found, g)
	}
	return pt.groups.match(topic, found)
}

// head returns the offset up to which commits are applied.
func (pt *partition) head() uint64 {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	return pt.applied
}

// join puts a subscription into its live group if its cursor is where apply is,
// and reports whether it did.
func (*Broker) join(s *part) bool {
	pt := s.partition
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if !s.session.goLive(s, pt.applied, pt.log.PositionOf(pt.applied)) {
		return false
	}
	pt.add(s)
	return true
}

// enlist makes a subscription a member of its group before it is live, so that
// the ephemeral messages that it misses are counted. Whoever was told that it has
// caught up is a member.
func (pt *partition) enlist(s *part) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	s.session.mu.Lock()
	closed := s.closed || s.session.end != nil
	s.session.mu.Unlock()
	if !closed { // else leave may have been called already
		pt.add(s)
	}
}

// add puts a subscription into its group. Callers hold mu.
func (pt *partition) add(s *part) {
	if s.group == nil {
		s.group = pt.group(s.filter)
		if len(s.group.members) == 0 {
			s.group.through = pt.applied // it has been without chunks
		}
		s.group.add(s)
	}
}

// group returns the live group of a filter, made if need be. Callers hold mu.
func (pt *partition) group(f protocol.Filter) *group {
	g := pt.exact[f.String()]
	if !f.Exact() {
		g = pt.groups.get(f.String())
	}
	if g != nil {
		return g
	}
	g = &group{filter: f, through: pt.applied}
	if f.Exact() {
		pt.exact[f.String()] = g
	} else {
		pt.groups.put(f.String(), g)
	}
	return g
}

// leave takes a subscription out of its live groups.
func (*Broker) leave(s *subscription) {
	if s.post != nil {
		s.post.leave(s.worker, true)
		return
	}
	for _, sub := range s.parts {
		sub.partition.leave(sub)
	}
}

func (pt *partition) leave(s *part) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if s.group == nil {
		return
	}
	s.group.remove(s)
	pt.drop(s.group)
	s.group = nil
}

// drop forgets a group that nobody needs any more. Callers hold mu.
func (pt *partition) drop(g *group) {
	if !g.unused() {
		return
	}
	delete(pt.exact, g.filter.String())
	if !g.filter.Exact() {
		pt.groups.remove(g.filter.String())
	}
}
