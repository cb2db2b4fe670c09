package broker

import (
	"context"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/protocol"
)

// remove ends the consumer.
func (d *dispatcher) remove(ctx context.Context) *protocol.Error {
	c := d.broker.consumers
	d.mu.Lock()
	if !d.gone {
		d.gone = true
		d.expel(errDeleted(d.name))
		d.conclude(nil)
		c.mu.Lock()
		delete(c.by, d.name)
		c.registry.Delete(d.name)
		d.journal.put(c.registry.Deltas(), nil)
		c.mu.Unlock()
	}
	d.mu.Unlock()
	d.unfollow()
	return lasting(ctx, d.journal)
}

func errDeleted(name string) *protocol.Error {
	return protocol.Errorf(protocol.CodeUnknownConsumer, "the consumer %s has been deleted", name)
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

func (d *dispatcher) pause(ctx context.Context, paused bool) *protocol.Error {
	d.setPaused(paused)
	return lasting(ctx, d.journal)
}

func (d *dispatcher) setPaused(paused bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.machine.SetPaused(paused)
	d.conclude(nil)
}

func (d *dispatcher) seek(ctx context.Context, to protocol.Position) *protocol.Error {
	d.seekAs(d.broker.consumers.nextGeneration(), to)
	return lasting(ctx, d.journal)
}

// seekAs has the consumer go on from a place, in a new generation.
func (d *dispatcher) seekAs(generation uint64, to protocol.Position) {
	d.filling.Lock() // what is being read ahead belongs to the old place
	defer d.filling.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	redrive := d.machine.Position(consumer.Redrive)
	for _, e := range d.machine.Below(protocol.MaxOffset) {
		if e.Source == consumer.Redrive && e.Offset <= redrive.Offset {
			redrive = d.stream.log.PositionOf(e.Offset - 1) // they are dead letters that somebody wants done
			break
		}
	}
	d.machine.Seek(generation, consumer.Places{Main: to, Redrive: redrive})
	for src, p := range []protocol.Position{to, redrive} {
		s := &d.sources[src]
		s.ahead, s.read, s.news = nil, p.Offset, d.stream.head()
	}
	d.conclude(nil)
}
