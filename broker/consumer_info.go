package broker

import (
	"cmp"
	"context"
	"maps"
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
	Position   protocol.Vector // everything up to here has been delivered or passed over
	Lag        uint64          // offsets above it; those of other topics count too
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
	for _, p := range b.consumers.all() {
		list = append(list, infoOf(p))
	}
	return list
}

// Consumer describes one consumer.
func (b *Broker) Consumer(name string) (ConsumerInfo, *protocol.Error) {
	p, err := b.consumers.find(name)
	if err != nil {
		return ConsumerInfo{}, err
	}
	return infoOf(p), nil
}

// all returns the consumers in the order of their names.
func (c *consumers) all() []post {
	c.mu.Lock()
	list := slices.Collect(maps.Values(c.by))
	c.mu.Unlock()
	slices.SortFunc(list, func(a, b post) int { return cmp.Compare(a.about().name, b.about().name) })
	return list
}

func infoOf(p post) (i ConsumerInfo) {
	about := p.about()
	generation, at, lag := p.place()
	staff, stats := p.staff()
	p.look(func(m *consumer.Machine) {
		inFlight, _ := m.InFlight()
		i = ConsumerInfo{
			Settings: m.Settings(), Created: time.UnixMicro(m.Created()).UTC(), Paused: m.Paused(),
			Backlog: Backlog{InFlight: inFlight, Waiting: m.Waiting() + m.Dying(), Held: m.Held(), Dead: m.DeadCount()}, Blocked: m.Blocked(0),
		}
		if due, ok := m.NextDue(); ok {
			i.NextDue = time.UnixMicro(due).UTC()
		}
		if e, ok := m.Oldest(); ok {
			p := about.pending(e)
			i.Oldest = &p
		}
	})
	i.Name, i.Generation, i.Position, i.Lag, i.Members = about.name, generation, at, lag, staff
	i.Counts = ConsumerCounts{
		Delivered: stats.delivered, Redelivered: stats.redelivered, Died: stats.died, Redriven: stats.redriven, Expired: stats.expired,
		Acked: stats.settled[protocol.SettleAck], Nacked: stats.settled[protocol.SettleNack],
		Extended: stats.settled[protocol.SettleExtend], Rejected: stats.settled[protocol.SettleReject],
	}
	if i.Blocked == "" && len(i.Members) == 0 {
		i.Blocked = blockedNoMembers
	}
	return i
}

func (about *subject) pending(e consumer.Entry) PendingInfo {
	p := PendingInfo{Position: about.stream.position(e.Offset), Attempts: e.Attempts, State: e.State.String(), Reason: e.Reason}
	if e.State == consumer.InFlight || e.State == consumer.Waiting {
		p.Due = time.UnixMicro(e.Due).UTC()
	}
	return p
}

func (d *dispatcher) look(f func(m *consumer.Machine)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d.machine)
}

func (d *dispatcher) staff() (list []MemberInfo, stats dispatched) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dropTrimmed()
	for _, m := range d.members {
		list = append(list, m.info(d.machine.HeldBy(m.id)))
	}
	return list, d.stats
}

func (m *member) info(inFlight int) MemberInfo {
	info := MemberInfo{Window: m.window, InFlight: inFlight}
	if m.session != nil {
		info.Session, info.Client, info.Subject = m.session.describe()
	}
	return info
}

// dropTrimmed forgets the dead letters that retention has taken. Callers hold mu.
func (d *dispatcher) dropTrimmed() {
	earliest, _ := d.dead().log.Bounds()
	d.machine.UndeadThrough(earliest - 1)
	d.conclude(nil)
}

// PutConsumer creates a consumer, or changes the settings of one.
func (b *Broker) PutConsumer(ctx context.Context, name string, req *ConsumerRequest) (info ConsumerInfo, created bool, err *protocol.Error) {
	p, created, err := b.consumers.open(ctx, operator, name, req)
	if err != nil {
		return ConsumerInfo{}, false, err
	}
	return infoOf(p), created, b.consumers.keeper.wait(ctx)
}

// operator may do everything: who can reach the admin listener is asked for no key.
var operator = &Identity{Consume: []protocol.Filter{everything, mustFilter("$dead.>")}}

// DeleteConsumer ends a consumer and forgets what it has done. Its dead letters
// stay readable as topics until retention takes them.
func (b *Broker) DeleteConsumer(ctx context.Context, name string) *protocol.Error {
	p, err := b.consumers.find(name)
	if err != nil {
		return err
	}
	return p.remove(ctx)
}

// PauseConsumer stops deliveries of a consumer, or lets them go on. What is in
// flight can still be settled.
func (b *Broker) PauseConsumer(ctx context.Context, name string, paused bool) (ConsumerInfo, *protocol.Error) {
	p, err := b.consumers.find(name)
	if err != nil {
		return ConsumerInfo{}, err
	}
	err = p.pause(ctx, paused)
	return infoOf(p), err
}

// SeekConsumer has a consumer go on from another place. Everything that was in
// flight or waiting is forgotten, and late acknowledgements of it are fenced.
func (b *Broker) SeekConsumer(ctx context.Context, name, to string) (ConsumerInfo, *protocol.Error) {
	p, err := b.consumers.find(name)
	if err != nil {
		return ConsumerInfo{}, err
	}
	if to == "" {
		return ConsumerInfo{}, protocol.Errorf(protocol.CodeInvalidStart, "say where the consumer is to go on: give `to`, such as earliest, -10m or a position")
	}
	at, err := resolveConsumer(p.about().strands, to)
	if err != nil {
		return ConsumerInfo{}, err
	}
	err = p.seek(ctx, at)
	return infoOf(p), err
}
