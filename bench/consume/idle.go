package main

import (
	"context"
	"errors"
	"fmt"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"

	"github.com/tidewire/tidewire/bench/rig"
)

// idleConsumers is what consumers take that nobody reads.
func (b *bench) idleConsumers() ([]*rig.Row, error) {
	side := func(step string, start func() (*server, error)) func() ([]float64, error) {
		return func() (share []float64, err error) {
			s, err := start()
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, s.stop()) }()
			return b.footprintOf(s, step)
		}
	}
	all, err := series(b.fresh, side("ours", b.ours), side("nats", func() (*server, error) { return b.nats("default", b.newDir()) }))
	if err != nil {
		return nil, err
	}
	ours, nats := all[0], all[1]
	part := func(i int, name, unit string, limit float64) *rig.Row {
		r := &rig.Row{
			Name: name, Ours: ours[i].Text(unit), Beside: nats[i].Text(unit),
			Ratio: rig.Each(ours[i], ours[i], func(v, _ float64) float64 { return v / limit }), Aim: 1,
		}
		return r
	}
	return []*rig.Row{
		part(0, fmt.Sprintf("memory (RSS) of each of %d idle consumers; ratio: of 2 KB", b.idle), " B", 2000),
		part(1, "goroutines of each; ratio: of one for a hundred", "", 0.01),
		{Name: "to compare: heap of each", Ours: ours[2].Text(" B"), Beside: nats[2].Text(" B")},
	}, nil
}

// footprintOf makes consumers and returns the growth for each: of memory, of
// goroutines, and of the heap. The first ones are there for what comes once.
func (b *bench) footprintOf(s *server, step string) ([]float64, error) {
	grow := func(name string, count int) (footprint, error) {
		how := way{how: "idle"}
		if step == "nats" && name == "first" {
			if _, err := b.step(step, s.Addr, name, 1, "fill", 0); err != nil {
				return footprint{}, err
			}
		}
		if _, err := b.step(step, s.Addr, name, count, how.how, 0); err != nil {
			return footprint{}, err
		}
		return s.footprint(b.ctx)
	}
	before, err := grow("first", b.idle/100)
	if err != nil {
		return nil, err
	}
	after, err := grow("idle", b.idle)
	n := float64(b.idle)
	return []float64{(after.resident - before.resident) / n, (after.goroutines - before.goroutines) / n, (after.heap - before.heap) / n}, err
}

// idle makes consumers that nobody reads: the members leave at once.
func (l *load) idle(ctx context.Context) error {
	done := newTally(l.count)
	for i, m := range l.members {
		go func() { done.stop(m.visit(l, i, done)) }()
	}
	return done.wait(ctx)
}

// visit becomes a member of some consumers at a time, and leaves them.
func (m *member) visit(l *load, first int, done *tally) error {
	const atOnce = 32
	for i := first; i < l.count; {
		var come, leave []any
		for ; i < l.count && len(come) < atOnce; i += members {
			sub := uint32(len(come) + 1)
			come = append(come, &tidewirev1.Subscribe{Sub: sub, Filter: fmt.Sprint("idle.", i), Consumer: fmt.Sprint(l.name, i)})
			leave = append(leave, &tidewirev1.Unsubscribe{Sub: sub})
		}
		if err := exchange[*tidewirev1.Subscribed](m.conn, come); err != nil {
			return err
		}
		if err := exchange[*tidewirev1.Unsubscribed](m.conn, leave); err != nil {
			return err
		}
		done.add(len(come))
	}
	_, err := m.next() // until all are done
	return err
}

// exchange sends frames and reads as many answers.
func exchange[T any](c *conn, frames []any) error {
	if err := c.Send(frames...); err != nil {
		return err
	}
	for range frames {
		if _, err := expect[T](c); err != nil {
			return err
		}
	}
	return nil
}
