package broker

import (
	"math/rand/v2"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// gapEphemeral is the reason of a gap that no log knows of: ephemeral messages
// came while the subscription was behind.
const gapEphemeral = "ephemeral"

// A Relay brings the records of ephemeral messages to the other nodes of a
// cluster. Send must not block, and may drop them.
type Relay interface {
	Send(topic string, record []byte)
}

// UseRelay makes the broker send ephemeral messages to other nodes, too. It must
// be called before the first is published.
func (b *Broker) UseRelay(r Relay) { b.relay = r }

// publishEphemeral brings a message to the subscriptions that are live now. It
// runs on the publisher's goroutine and waits for nobody, so the ephemeral
// messages of one publisher keep their order, and may overtake stored ones that
// still wait for the disk.
func (b *Broker) publishEphemeral(who *Identity, m *protocol.Message, origin uint64) *protocol.Error {
	if err := b.check(who, m); err != nil {
		return err
	}
	m.Origin, m.Time, m.Position = origin, time.Now(), protocol.Position{}
	record := protocol.AppendRecord(make([]byte, 0, recordSize(m)), m)
	b.spread(m.Topic, record)
	if b.relay != nil {
		b.relay.Send(m.Topic, record)
	}
	b.metrics.ephemeral.Inc()
	return nil
}

// Relayed brings an ephemeral message that another node has sent to the
// subscriptions that are live here. The record is a checked one, and the broker's
// from now on.
func (b *Broker) Relayed(record []byte) { b.spread(string(protocol.RecordTopic(record)), record) }

// spread brings the record of an ephemeral message to the subscriptions of this
// node.
func (b *Broker) spread(topic string, record []byte) {
	c := &chunk{expires: protocol.RecordExpiry(record)}
	c.Count, c.Records = 1, protocol.AppendFramed(nil, record)
	for _, members := range b.holds(topic).audience(topic) {
		for _, sub := range members {
			sub.session.deliverEphemeral(sub, c, record)
		}
	}
}

// audience returns the members of the groups that match a topic. They are lent.
func (pt *partition) audience(topic string) [][]*part {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	groups := pt.find(topic, nil)
	audience := make([][]*part, 0, len(groups))
	for _, g := range groups {
		g.lent = true
		audience = append(audience, g.members)
	}
	return audience
}

// deliverEphemeral queues an ephemeral message for a subscription that is at the
// head of the log, and counts it as missed for one that fell behind. It costs
// credit and room as others do, but no cursor moves. A conflated subscription
// that rests is as good as live.
func (s *Session) deliverEphemeral(sub *part, c *chunk, record []byte) {
	tail := c.tail(s.codec)
	s.mu.Lock()
	defer s.unlockAndWake()
	if sub.closed || s.end != nil {
		return
	}
	if out := sub.leftOut(record, nowMicros()); out != "" {
		s.broker.metrics.leftOut.WithLabelValues(out).Inc()
		return
	}
	room := s.out.size() <= s.broker.options().SoftOutbound && !sub.credit.exhausted()
	if room && (sub.stance == live || sub.stance == resting) {
		s.queue(sub, c.Count, tail)
		return
	}
	sub.missed++
	s.broker.metrics.leftOut.WithLabelValues(outEphemeral).Inc()
	if sub.stance == live {
		s.tooSlow(sub) // when it is live again it is told what it missed
	}
}

// tellMissed tells a subscription that is live again how many ephemeral messages
// came meanwhile. The client's cursor is at the head of the log now; so the frame
// can name it, and nothing moves.
func (s *Session) tellMissed(sub *part, at protocol.Position) {
	if sub.missed == 0 {
		return
	}
	s.out.push(s.codec.AppendServer(nil, sub.placed(sub.partition.countedGap(sub.number, gapEphemeral, at, sub.missed), at)))
	sub.missed = 0
}

// mark returns the number that stands for the session in what it publishes from
// now on, drawing one if need be. Sessions whose subscriptions want their own
// messages publish without: it would cost every subscriber nine bytes.
func (s *Session) mark() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.pub.origin == 0 {
		s.pub.origin = rand.Uint64()
	}
	return s.pub.origin
}

// origin returns the number that stands for the session; 0 if it has none.
func (s *Session) origin() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pub.origin
}
