package judge

import (
	"encoding/json"
	"fmt"
)

// readSubscriber takes the lines of one subscriber. Lines about a subscription
// come after the one that names it.
func (v *verdict) readSubscriber(name string) (func([]byte) error, func()) {
	var subs []*cover
	ended := false
	line := func(text []byte) error {
		var e subEvent
		if err := json.Unmarshal(text, &e); err != nil {
			return err
		}
		if e.Event == evWant {
			subs = append(subs, v.newCover(name, &e))
			return nil
		}
		if e.Event == evEnd {
			ended = true
			v.subscriberEnd(name, subs, e.Complete)
			return nil
		}
		if e.Sub >= len(subs) {
			return fmt.Errorf("subscription %d was never named", e.Sub)
		}
		return v.subscriberLine(name, subs[e.Sub], &e)
	}
	return line, func() { v.end(ended) }
}

func (v *verdict) newCover(name string, e *subEvent) *cover {
	c := &cover{
		want: want{e.Filter, e.From}, name: fmt.Sprintf("%s %s", name, e.Filter),
		started: map[uint32]uint64{}, cursors: map[uint32]uint64{}, newest: map[uint32]uint64{},
		got: make(bits, len(v.all)/64+1),
	}
	v.covers = append(v.covers, c)
	v.report.Traffic.Subscriptions++
	return c
}

func (v *verdict) subscriberEnd(name string, subs []*cover, complete bool) {
	for _, c := range subs {
		c.waited = true
	}
	if !complete {
		v.report.fault(&v.report.Faults.Stuck, "stuck: %s waited in vain for something that was answered, or for caught_up", name)
	}
}

func (v *verdict) subscriberLine(name string, c *cover, e *subEvent) error {
	switch e.Event {
	case evReconnect:
		v.report.Traffic.Reconnects++
	case evRefused:
		v.refused(name, e.Reason, c.filter)
	case evHole:
		v.report.Traffic.Holes++
	case evGoAway:
		v.report.Traffic.GoAways++
	case evSubscribed:
		if c.subscribed == 0 || e.From == "" {
			c.started[e.Partition], c.subscribed = e.Offset, e.At
		}
		c.cursors[e.Partition] = e.Offset
	case evProgress:
		c.cursors[e.Partition] = max(c.cursors[e.Partition], e.Through)
	case evGap:
		v.report.Traffic.Gaps++
		g := toldGap{at: e.At, partition: e.Partition, reason: e.Reason, after: e.After, through: e.Through}
		if e.Reason == "other_log" { // has no range: everything up to here
			g.after, g.through = 0, e.Offset
		}
		c.gaps = append(c.gaps, g)
		c.cursors[e.Partition] = e.Offset
		c.newest[e.Partition] = min(c.newest[e.Partition], e.Offset)
	case evDeliver:
		for i := range e.Messages {
			if err := v.receive(c, e, &e.Messages[i]); err != nil {
				return err
			}
		}
		c.cursors[e.Partition] = max(c.cursors[e.Partition], e.Through)
	}
	return nil
}

func (v *verdict) receive(c *cover, e *subEvent, r *receipt) error {
	v.report.Traffic.Receipts++
	faults := &v.report.Faults
	i, found := v.byKey[key{r.Topic, r.ID}]
	if !found || !matches(c.filter, r.Topic) {
		v.report.fault(&faults.Foreign, "foreign: %s got %s %s, which nobody sent there", c.name, r.Topic, r.ID)
		return nil
	}
	m := &v.all[i]
	if m.sum != r.Sum {
		v.report.fault(&faults.Damaged, "damaged: %s got %s with another payload than was sent", c.name, m)
	}
	at, err := parsePlace(r.Position)
	if err != nil {
		v.report.fault(&faults.Damaged, "damaged: %s got %s: %v", c.name, m, err)
		return nil
	}
	twice := c.got.has(i)
	switch {
	case m.known && m.at != at:
		v.report.fault(&faults.Doubled, "doubled: %s is at %s, and %s got it at %s", m, m.at, c.name, at)
	case twice:
		v.report.fault(&faults.Doubled, "doubled: %s got %s at %s once more", c.name, m, at)
	case at.offset <= c.newest[at.partition]:
		v.report.fault(&faults.Reordered, "reordered: %s got %s at %s after offset %d", c.name, m, at, c.newest[at.partition])
	case at.partition != e.Partition || at.offset <= e.After || at.offset > e.Through:
		v.report.fault(&faults.Damaged, "damaged: %s got %s at %s in a frame for %d to %d", c.name, m, at, e.After, e.Through)
	}
	if !m.known {
		m.known, m.at = true, at
	}
	m.seen = max(m.seen, e.At)
	c.got.set(i)
	c.newest[at.partition] = max(c.newest[at.partition], at.offset)
	return nil
}

// judgeGaps: what a gap covers must not be there. A gap by retention is false
// if somebody got the message later; any other reason says that it was never
// safely stored, so an answer or any delivery gives it the lie.
func (v *verdict) judgeGaps() {
	for _, c := range v.covers {
		for i := range c.gaps {
			g := &c.gaps[i]
			for j := range v.all {
				m := &v.all[j]
				if !m.known || !g.covers(m.at) || !matches(c.filter, m.topic) {
					continue
				}
				if g.reason != "retention" || m.seen > g.at {
					v.report.fault(&v.report.Faults.FalseGaps, "false gap: %s was told that %d to %d are gone (%s), but %s is at %s",
						c.name, g.after, g.through, g.reason, m, m.at)
					break
				}
			}
		}
	}
}

// judgeLost looks for what is in the log and did not come although a
// subscription covers it and was told of no gap.
func (v *verdict) judgeLost() {
	for i := range v.all {
		m := &v.all[i]
		if !m.known {
			continue
		}
		for _, c := range v.covers {
			if v.missed(c, int32(i), m) {
				v.report.fault(&v.report.Faults.Lost, "lost: %s at %s never came to %s", m, m.at, c.name)
				break // a message is lost once, whoever misses it
			}
		}
	}
}

func (v *verdict) missed(c *cover, i int32, m *sent) bool {
	if c.got.has(i) || c.subscribed == 0 || !matches(c.filter, m.topic) {
		return false
	}
	begun := m.at.offset > c.started[m.at.partition] || m.intended > c.subscribed ||
		(c.from == "earliest" && !v.plan.Tuning.Retention)
	// A subscriber waited for what was answered; anything else only as far as it came.
	due := c.waited && m.answered || m.at.offset <= c.cursors[m.at.partition]
	if !begun || !due {
		return false
	}
	for j := range c.gaps {
		if c.gaps[j].covers(m.at) {
			return false
		}
	}
	return true
}

// bits is a set of message numbers.
type bits []uint64

func (b bits) has(i int32) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b bits) set(i int32)      { b[i/64] |= 1 << (i % 64) }
