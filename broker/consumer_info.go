package broker

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/protocol"
)

// ConsumerInfo is what operators are shown of a consumer.
type ConsumerInfo struct {
	Name       string
	Settings   consumer.Settings
	Generation uint64
	Created    time.Time
	Paused     bool
	Position   protocol.Position // everything up to here has been delivered or passed over
	Lag        uint64            // offsets above it; those of other topics count too
	Backlog
	NextDue time.Time // zero if nothing is due
	Oldest  *PendingInfo
	Blocked string // why no new message is taken; empty if one would be
	Members []MemberInfo
	Counts  ConsumerCounts
}

// Backlog counts messages that a consumer has not done with.
type Backlog struct {
	InFlight int
	Waiting  int // for their next delivery
	Held     int // behind an earlier message with their key
	Dead     int // dead letters
}

// PendingInfo is what operators are shown of a message that is not settled.
type PendingInfo struct {
	Position protocol.Position
	Attempts int
	State    string
	Due      time.Time // zero if nothing is
	Reason   string
}

// MemberInfo is what operators are shown of a member.
type MemberInfo struct {
	Session  string // empty for a fetch over HTTP, as are the two below
	Client   string
	Subject  string
	Window   int
	InFlight int
}

// ConsumerCounts are totals since the broker began.
type ConsumerCounts struct {
	Delivered, Redelivered, Acked, Nacked, Extended, Rejected, Died, Redriven, Expired uint64
}

// dispatched are the totals of a dispatcher. Its mu guards them.
type dispatched struct {
	delivered, redelivered, died, redriven, expired uint64
	settled                                         [4]uint64 // by protocol.SettleKind
}

func (s *dispatched) count(kind protocol.SettleKind, n uint32) { s.settled[kind] += uint64(n) }

// blockedNoMembers is why a consumer without members takes nothing.
const blockedNoMembers = "no_members"

// Consumers describes all consumers, in the order of their names.
func (b *Broker) Consumers() []ConsumerInfo {
	list := make([]ConsumerInfo, 0)
	for _, d := range b.consumers.all() {
		list = append(list, d.info())
	}
	return list
}

// Consumer describes one consumer.
func (b *Broker) Consumer(name string) (ConsumerInfo, *protocol.Error) {
	d, err := b.consumers.find(name)
	if err != nil {
		return ConsumerInfo{}, err
	}
	return d.info(), nil
}

// all returns the consumers in the order of their names.
func (c *consumers) all() []*dispatcher {
	c.mu.Lock()
	list := make([]*dispatcher, 0, len(c.by))
	for _, d := range c.by {
		list = append(list, d)
	}
	c.mu.Unlock()
	slices.SortFunc(list, func(a, b *dispatcher) int { return cmp.Compare(a.name, b.name) })
	return list
}

func (d *dispatcher) info() ConsumerInfo {
	generation, at, lag := d.place()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dropTrimmed()
	m := d.machine
	inFlight, _ := m.InFlight()
	i := ConsumerInfo{
		Name: d.name, Settings: m.Settings(), Generation: generation, Created: time.UnixMicro(m.Created()).UTC(), Paused: m.Paused(),
		Position: at, Lag: lag, Backlog: Backlog{InFlight: inFlight, Waiting: m.Waiting() + m.Dying(), Held: m.Held(), Dead: m.DeadCount()}, Blocked: m.Blocked(0),
		Counts: ConsumerCounts{
			Delivered: d.stats.delivered, Redelivered: d.stats.redelivered, Died: d.stats.died, Redriven: d.stats.redriven, Expired: d.stats.expired,
			Acked: d.stats.settled[protocol.SettleAck], Nacked: d.stats.settled[protocol.SettleNack],
			Extended: d.stats.settled[protocol.SettleExtend], Rejected: d.stats.settled[protocol.SettleReject],
		},
	}
	if due, ok := m.NextDue(); ok {
		i.NextDue = time.UnixMicro(due).UTC()
	}
	if e, ok := m.Oldest(); ok {
		p := d.pending(e)
		i.Oldest = &p
	}
	if i.Blocked == "" && len(d.members) == 0 {
		i.Blocked = blockedNoMembers
	}
	for _, member := range d.members {
		info := MemberInfo{Window: member.window, InFlight: m.HeldBy(member.id)}
		if member.session != nil {
			info.Session, info.Client, info.Subject = member.session.describe()
		}
		i.Members = append(i.Members, info)
	}
	return i
}

func (d *dispatcher) pending(e consumer.Entry) PendingInfo {
	p := PendingInfo{Position: d.stream.log.PositionOf(e.Offset), Attempts: e.Attempts, State: e.State.String(), Reason: e.Reason}
	if e.State == consumer.InFlight || e.State == consumer.Waiting {
		p.Due = time.UnixMicro(e.Due).UTC()
	}
	return p
}

// PutConsumer creates a consumer, or changes the settings of one.
func (b *Broker) PutConsumer(ctx context.Context, name string, req *ConsumerRequest) (info ConsumerInfo, created bool, err *protocol.Error) {
	d, created, err := b.consumers.open(ctx, operator, name, req)
	if err != nil {
		return ConsumerInfo{}, false, err
	}
	return d.info(), created, b.consumers.control.wait(ctx)
}

// operator may do everything: who can reach the admin listener is asked for no key.
var operator = &Identity{Consume: []protocol.Filter{everything, mustFilter("$dead.>")}}

// DeleteConsumer ends a consumer and forgets what it has done. Its dead letters
// stay readable as topics until retention takes them.
func (b *Broker) DeleteConsumer(ctx context.Context, name string) *protocol.Error {
	c := b.consumers
	d, err := c.find(name)
	if err != nil {
		return err
	}
	d.mu.Lock()
	if !d.gone {
		d.gone = true
		d.expel(protocol.Errorf(protocol.CodeUnknownConsumer, "the consumer %s has been deleted", name))
		d.conclude(nil)
		c.mu.Lock()
		delete(c.by, name)
		c.registry.Delete(name)
		c.control.put(c.registry.Deltas(), nil)
		c.mu.Unlock()
	}
	d.mu.Unlock()
	d.unfollow()
	return c.control.wait(ctx)
}

// expel ends all memberships. Callers hold mu.
func (d *dispatcher) expel(err *protocol.Error) {
	for _, m := range d.members {
		m.left = true
		if m.session != nil {
			m.session.endWork(m.sub, err)
		} else {
			m.wake()
		}
	}
	d.members = nil
}

// PauseConsumer stops deliveries of a consumer, or lets them go on. What is in
// flight can still be settled.
func (b *Broker) PauseConsumer(ctx context.Context, name string, paused bool) (ConsumerInfo, *protocol.Error) {
	d, err := b.consumers.find(name)
	if err != nil {
		return ConsumerInfo{}, err
	}
	d.mu.Lock()
	d.machine.SetPaused(paused)
	d.conclude(nil)
	d.mu.Unlock()
	return d.info(), b.consumers.control.wait(ctx)
}

// SeekConsumer has a consumer go on from another place. Everything that was in
// flight or waiting is forgotten, and late acknowledgements of it are fenced.
func (b *Broker) SeekConsumer(ctx context.Context, name, to string) (ConsumerInfo, *protocol.Error) {
	d, err := b.consumers.find(name)
	if err != nil {
		return ConsumerInfo{}, err
	}
	if to == "" {
		return ConsumerInfo{}, protocol.Errorf(protocol.CodeInvalidStart, "say where the consumer is to go on: give `to`, such as earliest, -10m or a position")
	}
	at, err := d.stream.resolveConsumer(to, d.sources[0].filter)
	if err != nil {
		return ConsumerInfo{}, err
	}
	d.filling.Lock() // what is being read ahead belongs to the old place
	d.mu.Lock()
	redrive := d.machine.Position(consumer.Redrive)
	for _, e := range d.machine.Below(protocol.MaxOffset) {
		if e.Source == consumer.Redrive && e.Offset <= redrive.Offset {
			redrive = d.stream.log.PositionOf(e.Offset - 1) // they are dead letters that somebody wants done
			break
		}
	}
	d.machine.Seek(b.consumers.nextGeneration(), consumer.Places{Main: at, Redrive: redrive})
	for src, p := range []protocol.Position{at, redrive} {
		s := &d.sources[src]
		s.ahead, s.read, s.news = nil, p.Offset, d.stream.head()
	}
	d.conclude(nil)
	d.mu.Unlock()
	d.filling.Unlock()
	return d.info(), b.consumers.control.wait(ctx)
}
