package broker

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// consumers are all the consumers of a broker.
type consumers struct {
	broker  *Broker
	keeper  keeper
	control *control
	runner  *runner
	dead    *stream // where dead letters go

	members atomic.Uint64 // the last number that a member got

	mu       sync.Mutex // after a dispatcher's
	registry consumer.Registry
	by       map[string]post
}

// ConsumerRequest describes a consumer that is to be there.
type ConsumerRequest struct {
	Filter   string
	Stream   string // needed only where the filter could match topics of several
	From     string // where it begins if it is created: any start; empty for `earliest`
	Settings *tidewirev1.ConsumerSettings
}

// maxConsumers bounds the consumers of a broker.
const maxConsumers = 100_000

func newConsumers(b *Broker) *consumers {
	c := &consumers{
		broker: b, runner: newRunner(), by: make(map[string]post),
	}
	c.keeper = alone{c}
	return c
}

// OpenConsumers reads what the control log knows of consumers, which then go on
// where they were. It must be called before Run, at most once; without it
// consumers are forgotten when the broker ends.
func (b *Broker) OpenConsumers(log Log) error {
	c := b.consumers
	c.control = newControl(log)
	if err := c.control.replay(c.registry.Apply); err != nil {
		return err
	}
	for m := range c.registry.All() {
		if err := c.revive(m); err != nil {
			return err
		}
	}
	return nil
}

// revive makes a consumer of the control log work again.
func (c *consumers) revive(m *consumer.Machine) error {
	st, perr := c.broker.named(m.Settings().Stream)
	if perr != nil {
		c.broker.options().Logger.Warn("a consumer's stream is not configured: the consumer rests", "consumer", m.Name(), "stream", m.Settings().Stream)
		return nil
	}
	d, err := newDispatcher(c.broker, st, m)
	if err != nil {
		return err
	}
	if err := d.comeBack(); err != nil {
		return err
	}
	c.by[d.name] = d
	d.follow(consumer.Main)
	return nil
}

// comeBack looks whether the log still is the one that the consumer knows, as for
// any reader that comes back with a position. If it was rolled back the consumer
// goes on where it ends now.
func (d *dispatcher) comeBack() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	places := d.machine.Places()
	var to consumer.Places
	back := false
	for i := range d.sources {
		s := &d.sources[i]
		at, gap, err := s.comeBack(ofStrand(&places, i), s.head())
		if err != nil {
			return err
		}
		put(&to, i, at)
		s.read = at.Offset
		if back = back || gap != nil; gap != nil && s.source == consumer.Main {
			d.tellGap(s.partition, gap)
		}
	}
	if back {
		d.machine.Rewind(to)
	}
	return nil
}

// comeBack returns where a reader goes on that was at a position.
func (pt *partition) comeBack(at protocol.Position, head uint64) (protocol.Position, *storage.Gap, error) {
	r, err := pt.log.Resolve(protocol.Start{Kind: protocol.StartPosition, Position: at}, everything, head)
	if err != nil || r.Gap == nil || r.Gap.Reason == storage.GapRetention {
		return at, nil, err // retention is met by whoever reads
	}
	return pt.log.PositionOf(r.Gap.Next), r.Gap, nil
}

func (c *consumers) nextMember() uint64 { return c.members.Add(1) }

// nextGeneration returns a number that no consumer had before, nor will have.
func (c *consumers) nextGeneration() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.registry.NextGeneration()
}

// find returns a consumer by its name.
func (c *consumers) find(name string) (post, *protocol.Error) {
	c.mu.Lock()
	p := c.by[name]
	c.mu.Unlock()
	if p != nil {
		return p, nil
	}
	if err := c.keeper.blind(); err != nil {
		return nil, err
	}
	return nil, protocol.Errorf(protocol.CodeUnknownConsumer, "there is no consumer %.128q: subscribe with its name and a filter, or create it", name)
}

// open returns a consumer that somebody wants to be a member of. If it is not
// there it is created, and durable when open returns; if it is, what the request
// says must be what it is, and settings that may change are changed.
func (c *consumers) open(ctx context.Context, who *Identity, name string, req *ConsumerRequest) (p post, created bool, err *protocol.Error) {
	if err := protocol.CheckConsumer(name); err != nil {
		return nil, false, err
	}
	if p, err = c.find(name); err == nil {
		if err := who.MayConsume(p.about().filter); err != nil {
			return nil, false, err
		}
		return p, false, agree(ctx, p, req)
	}
	if req.Filter == "" {
		return nil, false, err
	}
	filter, perr := protocol.ParseFilter(req.Filter)
	if perr != nil {
		return nil, false, protocol.AsError(perr)
	}
	if err := who.MayConsume(filter); err != nil {
		return nil, false, err
	}
	p, created, err = c.create(ctx, name, filter, req)
	if err != nil || created {
		return p, created, err
	}
	return p, false, agree(ctx, p, req) // somebody else was quicker
}

// create makes a consumer and waits until it is durable, or until ctx ends.
func (c *consumers) create(ctx context.Context, name string, filter protocol.Filter, req *ConsumerRequest) (p post, created bool, err *protocol.Error) {
	settings, at, err := c.plan(name, filter, req)
	if err != nil {
		return nil, false, err
	}
	c.mu.Lock()
	if c.by[name] == nil {
		err = c.room()
	}
	c.mu.Unlock()
	if err != nil {
		return nil, false, err
	}
	return c.keeper.create(ctx, name, settings, at)
}

// alone keeps the consumers of a broker that is no node of a cluster.
type alone struct{ *consumers }

func (c alone) create(ctx context.Context, name string, settings consumer.Settings, at consumer.Places) (p post, created bool, err *protocol.Error) {
	st, err := c.broker.named(settings.Stream)
	if err != nil {
		return nil, false, err
	}
	c.mu.Lock()
	if p := c.by[name]; p != nil {
		c.mu.Unlock()
		return p, false, nil
	}
	var d *dispatcher
	m, failed := c.registry.Create(name, settings, at, nowOf())
	if failed == nil {
		d, failed = newDispatcher(c.broker, st, m)
	}
	if failed != nil {
		c.mu.Unlock()
		return nil, false, protocol.AsError(failed)
	}
	c.by[name] = d
	c.control.put(c.registry.Deltas(), nil)
	c.mu.Unlock()
	d.follow(consumer.Main)
	if err := c.control.wait(ctx); err != nil {
		return nil, false, err
	}
	return d, true, nil
}

// plan says what a consumer would be like: its settings, and where it
// would begin.
func (c *consumers) plan(name string, filter protocol.Filter, req *ConsumerRequest) (settings consumer.Settings, at consumer.Places, err *protocol.Error) {
	if filter.Match(deadTopicOf(name)) || strings.HasPrefix(filter.String(), redrivePrefix) {
		return settings, at, protocol.Errorf(protocol.CodeInvalidFilter, "the filter %q would give the consumer what is dead, again and again: name topics of your own, or the dead letters of another consumer", filter)
	}
	st, err := c.broker.reading(filter, req.Stream)
	if err != nil {
		return settings, at, err
	}
	if settings, err = settingsOf(consumer.DefaultSettings(), req.Settings); err != nil {
		return settings, at, err
	}
	settings.Filter, settings.Stream = filter.String(), st.name
	if err = settings.Check(); err != nil {
		return settings, at, err
	}
	strands := strandsOf(st, name, filter)
	if at, err = resolveConsumer(strands, req.From); err != nil {
		return settings, at, err
	}
	at.Redrive = headsOf(strands).Redrive
	return settings, at, nil
}

// room returns an error if there are as many consumers as may be. Callers hold mu.
func (c *consumers) room() *protocol.Error {
	if len(c.by) < maxConsumers {
		return nil
	}
	return protocol.Errorf(protocol.CodeSubscriptionsFull, "the broker has %d consumers, at most %d are allowed: delete some that nobody needs", maxConsumers, maxConsumers)
}

// resolveConsumer says where a consumer begins in what its filter selects.
func resolveConsumer(strands []strand, from string) (at consumer.Places, _ *protocol.Error) {
	if from == "" {
		from = "earliest"
	}
	start, err := protocol.ParseStart(from)
	if err != nil {
		return at, protocol.AsError(err)
	}
	if start.Kind == protocol.StartLastPerTopic {
		return at, protocol.Errorf(protocol.CodeInvalidStart, "a consumer gets every message, so it cannot begin with `last-per-topic`: give another start")
	}
	var in []end
	for i := range strands {
		if l := &strands[i]; l.source == consumer.Main {
			in = append(in, end{l.partition, l.head()})
		}
	}
	found, perr := in[0].begin(start, strands[consumer.Main].filter, in)
	if perr != nil {
		return at, perr
	}
	for i, r := range found {
		to := in[i].log.PositionOf(r.After)
		if i == 0 {
			at.Main = to
		} else {
			at.More = append(at.More, to)
		}
	}
	return at, nil
}

// agree holds a request against a consumer that is there, and changes the settings
// that may change.
func agree(ctx context.Context, p post, req *ConsumerRequest) *protocol.Error {
	now := settingsNow(p)
	next, err := agreed(p.about().name, now, req)
	if err != nil || next == now {
		return err
	}
	return p.change(ctx, req)
}

// change gives the consumer the settings of a request. Who only joins with them does
// not wait for that.
func (d *dispatcher) change(_ context.Context, req *ConsumerRequest) *protocol.Error {
	d.mu.Lock()
	defer d.mu.Unlock()
	next, err := agreed(d.name, d.machine.Settings(), req)
	if err != nil {
		return err
	}
	d.machine.SetSettings(next)
	d.conclude(nil)
	return nil
}

// agreed returns the settings that a request would give a consumer that is there.
func agreed(name string, now consumer.Settings, req *ConsumerRequest) (next consumer.Settings, err *protocol.Error) {
	if next, err = settingsOf(now, req.Settings); err != nil {
		return next, err
	}
	if (req.Filter != "" && req.Filter != now.Filter) || (req.Stream != "" && req.Stream != now.Stream) {
		return next, protocol.Errorf(protocol.CodeConsumerExists, "the consumer %s selects %s in the stream %s: leave both out to join it, or take another name", name, now.Filter, now.Stream)
	}
	if next == now {
		return next, nil
	}
	return next, now.ChangeTo(next)
}

// settingsOf puts what a client gives in place of what is there.
func settingsOf(s consumer.Settings, given *tidewirev1.ConsumerSettings) (consumer.Settings, *protocol.Error) {
	if given == nil {
		return s, nil
	}
	set(&s.AckWait, given.AckWaitMs, milliseconds)
	set(&s.Backoff.Base, given.BackoffBaseMs, milliseconds)
	set(&s.Backoff.Cap, given.BackoffCapMs, milliseconds)
	set(&s.Backoff.Factor, given.BackoffFactor, same[float64])
	set(&s.Backoff.Jitter, given.BackoffJitter, same[bool])
	set(&s.MaxDeliver, given.MaxDeliver, number[uint32])
	set(&s.MaxInFlight, given.MaxInFlight, number[uint32])
	set(&s.MaxWaiting, given.MaxWaiting, number[uint32])
	set(&s.MaxInFlightBytes, given.MaxInFlightBytes, func(n uint64) int64 { return int64(min(n, 1<<62)) })
	set(&s.Exclusive, given.Exclusive, same[bool])
	set(&s.Ordered, given.Ordered, same[bool])
	return s, s.Check()
}

func set[T, W any](field *T, given *W, as func(W) T) {
	if given != nil {
		*field = as(*given)
	}
}

func same[T any](v T) T { return v }

func number[T uint32 | uint64](n T) int { return int(n) }

func milliseconds(ms uint64) time.Duration {
	return time.Duration(min(ms, uint64(maxMs))) * time.Millisecond
}

// maxMs keeps arithmetic on what clients give safe; it is far above any limit.
const maxMs = uint64(365 * 24 * time.Hour / time.Millisecond)

// run looks after the consumers until ctx ends, and writes down what they have
// done until then.
func (c *consumers) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var working sync.WaitGroup
	working.Go(func() { c.runner.run(ctx) })
	err := c.keeper.run(ctx)
	cancel()
	working.Wait()
	return err
}

func (c alone) run(ctx context.Context) error {
	logging, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var working, writing sync.WaitGroup
	var err error
	writing.Go(func() {
		err = c.control.log.Run(logging, c.control.applied)
		c.control.fail(protocol.Errorf(protocol.CodeUnknown, "what consumers have done could not be stored: it may be forgotten"))
	})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	working.Go(func() { c.keepCheckpoints(ctx) })
	working.Go(func() { c.control.run(ctx) })
	go func() { // a log that fails ends everything
		writing.Wait()
		cancel()
	}()
	working.Wait()
	stop()
	writing.Wait()
	return err
}
