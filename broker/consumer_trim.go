package broker

import (
	"context"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/storage"
)

// trimPatience is how long retention waits for consumers.
const trimPatience = 10 * time.Second

// beforeTrim is called before retention takes what lies up to an offset. Messages
// that a consumer has tried become dead letters while they can still be read; of
// those it has not, it is told. A consumer that is not behind is moved along, so
// that it does not miss what it was never to get.
func (st *stream) beforeTrim(through uint64) {
	c := st.broker.consumers
	ctx, cancel := context.WithTimeout(context.Background(), trimPatience)
	defer cancel()
	for _, d := range c.all() {
		if d.stream == st {
			d.beforeTrim(ctx, through)
		}
	}
	_ = c.control.wait(ctx) // what was not stored in time is told as a gap after a restart
}

func (d *dispatcher) beforeTrim(ctx context.Context, through uint64) {
	passed := min(through, d.stream.delivered.Load()) // of everything up to here it has been told ...
	d.lookAfter(d.broker.consumers.runner.takeNews(d))
	d.mu.Lock()
	for src := range d.sources {
		s := &d.sources[src]
		if !s.behind() && len(s.ahead) == 0 && d.machine.Cursor(consumer.Source(src)) < passed { // ... and has got it
			d.machine.Skip(consumer.Source(src), d.stream.log.PositionOf(passed))
			s.read = max(s.read, passed)
		}
	}
	for _, e := range d.machine.Below(through) {
		switch {
		case e.State == consumer.Dying:
		case e.Attempts > 0:
			d.machine.Bury(e.Offset, "retention is about to remove the message")
		default:
			d.machine.Lost(e.Offset)
			d.tellGap(&storage.Gap{Reason: storage.GapRetention, Term: d.stream.log.PositionOf(e.Offset).Term, After: e.Offset - 1, Through: e.Offset, Next: e.Offset})
		}
	}
	d.conclude(nil)
	d.mu.Unlock()
	d.untilBuried(ctx, through)
}

// untilBuried waits until nothing is dying up to an offset.
func (d *dispatcher) untilBuried(ctx context.Context, through uint64) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		d.mu.Lock()
		left := 0
		for _, e := range d.machine.Below(through) {
			if e.State == consumer.Dying {
				left++
			}
		}
		d.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
