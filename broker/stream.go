package broker

import (
	"sync"
	"sync/atomic"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// A Stream is a named log and the topics that it holds.
type Stream struct {
	Name    string
	Filters []protocol.Filter // of its topics, as far as no stream before it has them
	Log     Log
}

// MainStream is the name of the stream that every broker has. It holds the
// topics that no other stream holds.
const MainStream = "main"

// everything is the filter of the stream main.
var everything = mustFilter(">")

func mustFilter(text string) protocol.Filter {
	f, err := protocol.ParseFilter(text)
	if err != nil {
		panic(err)
	}
	return f
}

// stream is a stream at work: its log and its live groups. Streams share
// nothing, so that a slow disk under one does not hold up another.
type stream struct {
	broker  *Broker
	name    string
	filters []protocol.Filter
	log     Log

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

func newStream(b *Broker, s Stream) *stream {
	st := &stream{broker: b, name: s.Name, filters: s.Filters, log: s.Log, exact: make(map[string]*group)}
	_, head := s.Log.Bounds()
	st.applied = head
	st.delivered.Store(head)
	return st
}

// apply takes one commit: publishers get their answers, live subscriptions
// their messages. It runs on one goroutine, in log order, and depends on
// nothing but the commit and on who is subscribed.
func (st *stream) apply(c *storage.Commit) {
	deliveries, watchers := st.match(c)
	for i := range c.Answers {
		a := &c.Answers[i]
		st.broker.metrics.answered(&a.Result)
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
		st.broker.consumers.runner.tell(w, c.Chunk.After, c.Chunk.Through)
	}
	st.delivered.Store(c.Chunk.Through)
	st.broker.metrics.applied(c)
}

// match sorts the records of a commit into the live groups and moves applied. It
// returns what is to be delivered, and the consumers that have something to read.
func (st *stream) match(c *storage.Commit) (deliveries []delivery, watchers []watcher) {
	st.mu.Lock()
	defer st.mu.Unlock()
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
		found = st.find(topic, found[:0])
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
			g.append(framed, offset, expires, c.Chunk.Term)
		}
	}
	st.applied = c.Chunk.Through
	deliveries = make([]delivery, 0, len(touched))
	for _, g := range touched {
		deliveries = append(deliveries, g.take(st.applied))
	}
	for _, g := range watched {
		g.seen = false
		watchers = append(watchers, g.watchers...)
	}
	return deliveries, watchers
}

// find appends the live groups that match a topic. Callers hold mu.
func (st *stream) find(topic string, found []*group) []*group {
	if g := st.exact[topic]; g != nil {
		found = append(found, g)
	}
	return st.groups.match(topic, found)
}

// head returns the offset up to which commits are applied.
func (st *stream) head() uint64 {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.applied
}

// join puts a subscription into its live group if its cursor is where apply is,
// and reports whether it did.
func (*Broker) join(s *subscription) bool {
	st := s.stream
	st.mu.Lock()
	defer st.mu.Unlock()
	if !s.session.goLive(s, st.applied, st.log.PositionOf(st.applied)) {
		return false
	}
	st.add(s)
	return true
}

// enlist makes a subscription a member of its group before it is live, so that
// the ephemeral messages that it misses are counted. Whoever was told that it has
// caught up is a member.
func (st *stream) enlist(s *subscription) {
	st.mu.Lock()
	defer st.mu.Unlock()
	s.session.mu.Lock()
	closed := s.closed || s.session.end != nil
	s.session.mu.Unlock()
	if !closed { // else leave may have been called already
		st.add(s)
	}
}

// add puts a subscription into its group. Callers hold mu.
func (st *stream) add(s *subscription) {
	if s.group == nil {
		s.group = st.group(s.filter)
		if len(s.group.members) == 0 {
			s.group.through = st.applied // it has been without chunks
		}
		s.group.add(s)
	}
}

// group returns the live group of a filter, made if need be. Callers hold mu.
func (st *stream) group(f protocol.Filter) *group {
	g := st.exact[f.String()]
	if !f.Exact() {
		g = st.groups.get(f.String())
	}
	if g != nil {
		return g
	}
	g = &group{filter: f, through: st.applied}
	if f.Exact() {
		st.exact[f.String()] = g
	} else {
		st.groups.put(f.String(), g)
	}
	return g
}

// leave takes a subscription out of its live group.
func (*Broker) leave(s *subscription) {
	if s.dispatcher != nil {
		s.dispatcher.leave(s.worker, true)
		return
	}
	st := s.stream
	st.mu.Lock()
	defer st.mu.Unlock()
	if s.group == nil {
		return
	}
	s.group.remove(s)
	st.drop(s.group)
	s.group = nil
}

// drop forgets a group that nobody needs any more. Callers hold mu.
func (st *stream) drop(g *group) {
	if !g.unused() {
		return
	}
	delete(st.exact, g.filter.String())
	if !g.filter.Exact() {
		st.groups.remove(g.filter.String())
	}
}
