package broker

import (
	"context"
	"slices"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
)

const (
	// A checkpoint is written when so much has been written since the last one,
	// and the one before may go then: a start reads at most about twice as much.
	checkpointBytes = 32 << 20
	checkpointEvery = 10 * time.Minute

	checkpointLook = time.Second // how often that is looked at
)

// A forgetful log can let go of what is no longer needed.
type forgetful interface {
	Forget(through uint64)
}

// keepCheckpoints writes checkpoints until ctx ends.
func (c *consumers) keepCheckpoints(ctx context.Context) {
	log, ok := c.control.log.(forgetful)
	if !ok {
		return // nothing is ever read from it again
	}
	tick := time.NewTicker(checkpointLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		written, since := c.control.size()
		if written < checkpointBytes && (written == 0 || time.Since(since) < checkpointEvery) {
			continue
		}
		c.checkpoint(ctx, log)
	}
}

// checkpoint writes the state of every consumer into the control log, between a
// beginning and an end. Each page is put in order with the deltas of its consumer,
// so nothing stops meanwhile. What lies before the beginning of a checkpoint that
// is complete is not needed any more.
func (c *consumers) checkpoint(ctx context.Context, log forgetful) {
	c.control.begin()
	first := make(chan stored, 1)
	c.mu.Lock()
	c.control.put(c.registry.BeginCheckpoint(), func(s stored) { first <- s })
	c.mu.Unlock()
	begun := <-first
	for _, m := range c.machines() {
		c.page(m)
		if c.control.full() && c.control.wait(ctx) != nil {
			return
		}
	}
	c.mu.Lock()
	c.control.put(c.registry.EndCheckpoint(), nil)
	c.mu.Unlock()
	if begun.err == nil && c.control.wait(ctx) == nil {
		log.Forget(begun.after)
	}
}

// begin starts to count anew what is written.
func (c *control) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written, c.began = 0, time.Now()
}

// full reports whether so much waits to be written that more should wait for it.
func (c *control) full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes > 4<<20
}

// machines returns all consumers, those that rest too.
func (c *consumers) machines() []*consumer.Machine {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(c.registry.All())
}

// page writes the whole state of a consumer.
func (c *consumers) page(m *consumer.Machine) {
	c.mu.Lock()
	d, _ := c.by[m.Name()].(*dispatcher)
	c.mu.Unlock()
	if d == nil || d.machine != m { // it rests, or it has been deleted
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.registry.Get(m.Name()) == m {
			c.putPages(m)
		}
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.gone {
		c.putPages(m)
	}
}

func (c *consumers) putPages(m *consumer.Machine) {
	for _, part := range c.registry.Pages(m, controlRecord) {
		c.control.put(part, nil)
	}
}
