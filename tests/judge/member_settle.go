package judge

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	kindAck    = "ack"
	kindNack   = "nack"
	kindExtend = "extend"
	kindReject = "reject"
)

// habit is something that a member does with a message.
type habit int

const (
	ackQuietly habit = iota // without asking for an answer
	ackAndAsk
	nackNow   // wait as the settings say
	nackDelay // wait as the member says
	extendIt  // and acknowledge it later
	rejectIt
	forgetIt
	habits // how many there are
)

// draw picks a habit. Whoever is to finish only acknowledges.
func draw(rng *rand.Rand, finish bool) habit {
	if finish {
		return ackAndAsk
	}
	switch n := rng.IntN(100); {
	case n < 42:
		return ackQuietly
	case n < 76:
		return ackAndAsk
	case n < 84:
		return nackNow
	case n < 88:
		return nackDelay
	case n < 92:
		return extendIt
	case n < 94:
		return rejectIt
	default:
		return forgetIt
	}
}

// sorted deals messages out to the habits.
func sorted(rng *rand.Rand, all []held, finish bool) (piles [habits][]held) {
	for _, h := range all {
		n := draw(rng, finish)
		piles[n] = append(piles[n], h)
	}
	return piles
}

const rejectReason = "the judge does not like it"

// handle does something with each message, unless the member is frozen: then it
// does when it thaws, which may be late.
func (m *member) handle(ctx context.Context, all []held) error {
	if m.frozen {
		for _, h := range all {
			h.due = time.Now()
			m.later = append(m.later, h)
		}
		return nil
	}
	wait := m.group.AckWait
	piles := sorted(m.rng, all, m.load.final.fired())
	for _, h := range piles[extendIt] {
		h.due = time.Now().Add(wait/2 + time.Duration(m.rng.Int64N(int64(wait))))
		m.later = append(m.later, h)
	}
	delay := m.rng.Int64N(200)
	return cmp.Or(
		m.settle(ctx, settleForm{Type: kindAck}, piles[ackQuietly]),
		m.settle(ctx, settleForm{Type: kindAck, Confirm: true}, piles[ackAndAsk]),
		m.settle(ctx, settleForm{Type: kindNack, Confirm: m.rng.IntN(2) == 0}, piles[nackNow]),
		m.settle(ctx, settleForm{Type: kindNack, DelayMs: &delay}, piles[nackDelay]),
		m.settle(ctx, settleForm{Type: kindExtend, ByMs: wait.Milliseconds() * 2, Confirm: m.rng.IntN(2) == 0}, piles[extendIt]),
		m.settle(ctx, settleForm{Type: kindReject, Reason: rejectReason, Confirm: m.rng.IntN(2) == 0}, piles[rejectIt]),
	)
}

// settleLater acknowledges what is due. Those of an earlier session are among
// them: the broker must not care who says it.
func (m *member) settleLater(ctx context.Context) error {
	if m.frozen || m.leaving != nil {
		return nil
	}
	var due, rest []held
	for _, h := range m.later {
		if time.Now().Before(h.due) {
			rest = append(rest, h)
		} else {
			due = append(due, h)
		}
	}
	m.later = rest
	return m.settle(ctx, settleForm{Type: kindAck, Confirm: true}, due)
}

// settle sends a request for each term and generation: one has one.
func (m *member) settle(ctx context.Context, form settleForm, all []held) error {
	for len(all) > 0 {
		var same, others []held
		for _, h := range all {
			if slices.ContainsFunc(same, func(s held) bool { return s.at == h.at }) {
				continue // came twice while the member was frozen
			}
			if h.at.term == all[0].at.term && h.generation == all[0].generation {
				same = append(same, h)
			} else {
				others = append(others, h)
			}
		}
		form.Generation = same[0].generation
		if err := m.settleSame(ctx, form, same); err != nil {
			return err
		}
		all = others
	}
	return nil
}

func (m *member) settleSame(ctx context.Context, form settleForm, all []held) error {
	m.ref++
	form.Ref, form.Sub = m.ref, theSub
	event := conEvent{Event: evSettle, At: m.load.now(), Ref: form.Ref, Kind: form.Type, Confirm: form.Confirm, Generation: form.Generation}
	for _, h := range all {
		if form.Type == kindAck {
			m.group.noteSent(h.key, h.at)
		}
		event.Positions = append(event.Positions, h.position)
		if m.rng.IntN(4) == 0 {
			form.Ranges = append(form.Ranges, rangeForm{h.position, h.position})
		} else {
			form.Positions = append(form.Positions, h.position)
		}
	}
	m.asked[form.Ref] = &asked{form.Type, form.Confirm, all}
	m.log.add(event)
	if err := m.log.flush(); err != nil {
		return err
	}
	return m.conn.send(ctx, form)
}
