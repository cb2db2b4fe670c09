package broker

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// Options are the settings of a [Broker]. Zero values mean the defaults, which
// stand in [protocol.Limits].
type Options struct {
	MaxPayload    int // bytes of a message's payload
	MaxInFlight   int // published messages of a session that wait for an answer
	MaxSubs       int // subscriptions of a session
	MaxAllSubs    int // subscriptions of all sessions
	SoftOutbound  int // bytes waiting for a session, beyond which its subscriptions go back to the log
	HardOutbound  int // bytes waiting for a session, beyond which it is ended
	PublishRate   int // messages of a publisher in a second; 0 for no limit
	ReplayRate    int // bytes that a session reads from the log in a second; 0 for no limit
	Registerer    prometheus.Registerer
	Logger        *slog.Logger
	AppendTimeout time.Duration // how long a publish waits for room in the log's queue; 5 s
}

func (o Options) withDefaults() Options {
	set := func(v *int, l protocol.Limit) {
		if *v == 0 {
			*v = l.Default()
		}
	}
	set(&o.MaxPayload, protocol.LimitPayload)
	set(&o.MaxInFlight, protocol.LimitInFlight)
	set(&o.MaxSubs, protocol.LimitSubscriptions)
	set(&o.MaxAllSubs, protocol.LimitAllSubs)
	set(&o.SoftOutbound, protocol.LimitOutboundSoft)
	set(&o.HardOutbound, protocol.LimitOutboundHard)
	if o.AppendTimeout == 0 {
		o.AppendTimeout = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// resolvingAtOnce is how many starts are searched for in the log at once: each
// may take tens of milliseconds and megabytes.
const resolvingAtOnce = 4

// A Broker takes messages in and brings them to subscriptions. Its methods may
// be called from many goroutines.
type Broker struct {
	log      Log
	settings atomic.Pointer[Options]
	metrics  *metrics

	buckets    buckets      // of publishers
	subscribed atomic.Int64 // subscriptions of all sessions

	resolving chan struct{} // has a token for each start that is being searched for

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

// New returns a broker on a log. [Broker.Run] makes it work.
func New(log Log, options Options) *Broker {
	b := &Broker{log: log, exact: make(map[string]*group), resolving: make(chan struct{}, resolvingAtOnce)}
	options = options.withDefaults()
	b.settings.Store(&options)
	b.metrics = newMetrics(options.Registerer)
	_, head := log.Bounds()
	b.applied = head
	b.delivered.Store(head)
	return b
}

// options returns the settings in effect. They are not changed, but others may
// come into effect.
func (b *Broker) options() *Options { return b.settings.Load() }

// Run commits and applies until ctx ends, or until the log fails: then nothing
// can be promised any more and the program must end.
func (b *Broker) Run(ctx context.Context) error { return b.log.Run(ctx, b.apply) }

// apply takes one commit: publishers get their answers, live subscriptions
// their messages. It runs on one goroutine, in log order, and depends on
// nothing but the commit and on who is subscribed.
func (b *Broker) apply(c *storage.Commit) {
	deliveries := b.match(c)
	for i := range c.Answers {
		a := &c.Answers[i]
		b.metrics.answered(&a.Result)
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
	b.delivered.Store(c.Chunk.Through)
}

// match sorts the records of a commit into the live groups and moves applied.
func (b *Broker) match(c *storage.Commit) []delivery {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found, touched []*group
	rest := c.Chunk.Records
	for _, topic := range c.Topics {
		record, next, ok := protocol.NextFramed(rest)
		if !ok {
			break // cannot be: the log made the chunk
		}
		framed := rest[:len(rest)-len(next)]
		rest = next
		offset, _ := protocol.RecordPlace(record)
		found = found[:0]
		if g := b.exact[topic]; g != nil {
			found = append(found, g)
		}
		found = b.groups.match(topic, found)
		for _, g := range found {
			if g.open == nil && len(g.chunks) == 0 {
				touched = append(touched, g)
			}
			g.append(framed, offset, c.Chunk.Term)
		}
	}
	b.applied = c.Chunk.Through
	deliveries := make([]delivery, 0, len(touched))
	for _, g := range touched {
		deliveries = append(deliveries, g.take(b.applied))
	}
	return deliveries
}

// head returns the offset up to which commits are applied.
func (b *Broker) head() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.applied
}

// join puts a subscription into its live group if its cursor is where apply is,
// and reports whether it did.
func (b *Broker) join(s *subscription) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !s.session.goLive(s, b.applied, b.log.PositionOf(b.applied)) {
		return false
	}
	if s.group == nil {
		s.group = b.group(s.filter)
		s.group.add(s)
	}
	return true
}

// group returns the live group of a filter, made if need be. Callers hold mu.
func (b *Broker) group(f protocol.Filter) *group {
	g := b.exact[f.String()]
	if !f.Exact() {
		g = b.groups.get(f.String())
	}
	if g != nil {
		return g
	}
	g = &group{filter: f, through: b.applied}
	if f.Exact() {
		b.exact[f.String()] = g
	} else {
		b.groups.put(f.String(), g)
	}
	return g
}

// leave takes a subscription out of its live group.
func (b *Broker) leave(s *subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.group == nil {
		return
	}
	s.group.remove(s)
	if len(s.group.members) == 0 {
		delete(b.exact, s.filter.String())
		if !s.filter.Exact() {
			b.groups.remove(s.filter.String())
		}
	}
	s.group = nil
}
