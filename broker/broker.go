package broker

import (
	"context"
	"errors"
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
	protocol.LimitPayload.SetDefault(&o.MaxPayload)
	protocol.LimitInFlight.SetDefault(&o.MaxInFlight)
	protocol.LimitSubscriptions.SetDefault(&o.MaxSubs)
	protocol.LimitAllSubs.SetDefault(&o.MaxAllSubs)
	protocol.LimitOutboundSoft.SetDefault(&o.SoftOutbound)
	protocol.LimitOutboundHard.SetDefault(&o.HardOutbound)
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
	streams  []*stream // in the order in which they claim topics; main is the last
	settings atomic.Pointer[Options]
	metrics  *metrics

	buckets    buckets      // of publishers
	subscribed atomic.Int64 // subscriptions of all sessions
	consumers  *consumers
	relay      Relay // nil if there are no other nodes

	turns     *turns        // of reading the log
	resolving chan struct{} // has a token for each start that is being searched for
}

// New returns a broker. main is the log of the stream main, which takes every
// topic that none of the others takes; of those the first whose filters match
// has a topic. A main of several partitions stands among the others, and main is
// nil then. [Broker.Run] makes it work.
func New(main Log, options Options, others ...Stream) *Broker {
	b := &Broker{turns: newTurns(), resolving: make(chan struct{}, resolvingAtOnce)}
	options = options.withDefaults()
	b.settings.Store(&options)
	b.metrics = newMetrics(options.Registerer)
	b.consumers = newConsumers(b)
	for _, s := range allStreams(main, others) {
		st := newStream(b, s)
		b.streams = append(b.streams, st)
		for _, pt := range st.parts {
			if l, ok := pt.log.(trimmed); ok {
				l.BeforeTrim(pt.beforeTrim)
			}
		}
		if s.Name == DeadStream {
			b.consumers.dead = st
		}
	}
	if options.Registerer != nil {
		options.Registerer.MustRegister(newConsumerMetrics(b.consumers))
	}
	b.consumers.control = newControl(storage.NewMemoryLog("control", storage.MemoryOptions{}))
	return b
}

// allStreams puts main behind the others, and adds what every broker has.
func allStreams(main Log, others []Stream) (streams []Stream) {
	last := Stream{Name: MainStream, Logs: []Log{main}}
	dead := false
	for _, s := range others {
		switch s.Name {
		case MainStream:
			last = s
			continue
		case DeadStream:
			s.Filters, dead = []protocol.Filter{deadFilter}, true
		}
		streams = append(streams, s)
	}
	if !dead {
		log := storage.NewMemoryLog(DeadStream, storage.MemoryOptions{})
		streams = append(streams, Stream{Name: DeadStream, Filters: []protocol.Filter{deadFilter}, Logs: []Log{log}})
	}
	last.Filters = []protocol.Filter{everything}
	return append(streams, last)
}

// A trimmed log says when retention is about to remove messages.
type trimmed interface {
	BeforeTrim(fn func(through uint64))
}

// options returns the settings in effect. They are not changed, but others may
// come into effect.
func (b *Broker) options() *Options { return b.settings.Load() }

// Run commits and applies until ctx ends, or until a log fails: then nothing
// can be promised any more, the other logs end what they have begun, and the
// program must end.
func (b *Broker) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	run := func(what func() error) {
		running.Go(func() {
			defer cancel()
			if err := what(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	for _, st := range b.streams {
		for _, pt := range st.parts {
			run(func() error { return pt.log.Run(ctx, pt.apply) })
		}
	}
	run(func() error { return b.consumers.run(ctx) })
	running.Wait()
	return errors.Join(errs...)
}
