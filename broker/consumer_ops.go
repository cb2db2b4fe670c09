package broker

import (
	"context"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/protocol"
)

// lasting returns when everything that was decided holds.
func (d *dispatcher) lasting(ctx context.Context) *protocol.Error {
	answer := make(chan stored, 1)
	d.mu.Lock()
	d.journal.put(nil, func(s stored) { answer <- s })
	d.mu.Unlock()
	return await(ctx, answer)
}

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
	return d.lasting(ctx)
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
	return d.lasting(ctx)
}

func (d *dispatcher) setPaused(paused bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.machine.SetPaused(paused)
	d.conclude(nil)
}

func (d *dispatcher) seek(ctx context.Context, to consumer.Places) *protocol.Error {
	d.seekAs(d.broker.consumers.nextGeneration(), to)
	return d.lasting(ctx)
}

// seekAs has the consumer go on from a place, in a new generation.
func (d *dispatcher) seekAs(generation uint64, to consumer.Places) {
	d.filling.Lock() // what is being read ahead belongs to the old place
	defer d.filling.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	to.Redrive = d.machine.Position(consumer.Redrive)
	for e := range d.machine.Entries() {
		if e.Source == consumer.Redrive {
			_, offset := consumer.SplitPlace(e.Offset)
			to.Redrive = d.back().log.PositionOf(offset - 1) // they are dead letters that somebody wants done
			break
		}
	}
	d.machine.Seek(generation, to)
	for i := range d.sources {
		s := &d.sources[i]
		s.ahead, s.read, s.news = nil, ofStrand(&to, i).Offset, s.head()
	}
	d.conclude(nil)
}
