package broker

import (
	"context"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// trimPatience is how long retention waits for consumers.
const trimPatience = 10 * time.Second

// beforeTrim is called before retention takes what lies up to an offset. Messages
// that a consumer has tried become dead letters while they can still be read; of
// those it has not, it is told. A consumer that is not behind is moved along, so
// that it does not miss what it was never to get.
func (st *partition) beforeTrim(through uint64) {
	c := st.broker.consumers
	ctx, cancel := context.WithTimeout(context.Background(), trimPatience)
	defer cancel()
	for _, p := range c.all() {
		if p.about().stream == st {
			p.beforeTrim(ctx, through)
		}
	}
	_ = c.keeper.wait(ctx) // what was not stored in time is told as a gap after a restart
}

func (d *dispatcher) beforeTrim(ctx context.Context, through uint64) {
	passed := min(through, d.stream.delivered.Load()) // of everything up to here it has been told
	d.lookAfter()
	d.filling.Lock() // nothing is read ahead meanwhile
	d.mu.Lock()
	var unread [2]uint64 // after which offset messages were not taken; 0 if all were
	for src := range d.sources {
		unread[src] = d.moveAlong(consumer.Source(src), passed)
	}
	for _, e := range d.machine.Below(through) {
		switch {
		case e.State == consumer.Dying:
		case e.Attempts > 0:
			d.machine.Bury(e.Offset, "retention is about to remove the message")
		default:
			d.machine.Lost(e.Offset)
			d.tellGap(d.gapBetween(e.Offset-1, e.Offset))
		}
	}
	d.conclude(nil)
	d.mu.Unlock()
	d.filling.Unlock()
	for src, after := range unread {
		if after > 0 && d.stream.any(ctx, d.sources[src].filter, after-1, passed) {
			d.mu.Lock()
			d.tellGap(d.gapBetween(after-1, passed))
			d.conclude(nil)
			d.mu.Unlock()
		}
	}
	d.untilBuried(ctx, through)
}

// moveAlong makes a consumer go on above an offset. It returns the first offset
// that was not taken before, 0 if there is none up to there. Callers hold filling
// and mu.
func (d *dispatcher) moveAlong(src consumer.Source, through uint64) (unread uint64) {
	s := &d.sources[src]
	if reached := s.reached(); reached < through && (s.behind() || len(s.ahead) > 0) {
		unread = reached + 1
	}
	for len(s.ahead) > 0 && s.reached() < through {
		s.ahead = s.ahead[1:]
	}
	s.read = max(s.read, through)
	if d.machine.Cursor(src) < through {
		d.machine.Skip(src, d.stream.log.PositionOf(through))
	}
	return unread
}

func (d *dispatcher) gapBetween(after, through uint64) *storage.Gap {
	return &storage.Gap{Reason: storage.GapRetention, Term: d.stream.log.PositionOf(through).Term, After: after, Through: through, Next: through}
}

// any reports whether the log has something that matches in a range. What cannot
// be found out counts as yes.
func (st *partition) any(ctx context.Context, f protocol.Filter, after, through uint64) bool {
	for after < through {
		c, err := st.log.Read(storage.Query{Filter: f, After: after, Through: through, MaxBytes: 1})
		if err != nil || c.Count > 0 || c.Through == after || ctx.Err() != nil {
			return true
		}
		after = c.Through
	}
	return false
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
