package broker

import (
	"context"
	"slices"
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
func (pt *partition) beforeTrim(through uint64) {
	c := pt.broker.consumers
	ctx, cancel := context.WithTimeout(context.Background(), trimPatience)
	defer cancel()
	for _, p := range c.all() {
		p.beforeTrim(ctx, pt, through)
	}
	_ = c.keeper.wait(ctx) // what was not stored in time is told as a gap after a restart
}

func (d *dispatcher) beforeTrim(ctx context.Context, pt *partition, through uint64) {
	if !d.reads(pt) {
		return
	}
	passed := min(through, pt.delivered.Load()) // of everything up to here it has been told
	d.lookAfter()
	d.filling.Lock() // nothing is read ahead meanwhile
	d.mu.Lock()
	unread := make([]uint64, len(d.sources)) // by strand: from which offset on messages were not taken; 0 if all were
	for i := range d.sources {
		if s := &d.sources[i]; s.partition == pt {
			unread[i] = d.moveAlong(s, passed)
		}
	}
	last := consumer.PlaceIn(pt.number, through)
	for _, e := range d.machine.Below(last) {
		switch {
		case e.State == consumer.Dying:
		case e.Attempts > 0:
			d.machine.Bury(e.Offset, "retention is about to remove the message")
		default:
			d.machine.Lost(e.Offset)
			_, offset := consumer.SplitPlace(e.Offset)
			d.tellGap(pt, pt.gapBetween(offset-1, offset))
		}
	}
	d.conclude(nil)
	d.mu.Unlock()
	d.filling.Unlock()
	for i, first := range unread {
		if first > 0 && pt.any(ctx, d.sources[i].filter, first-1, passed) {
			d.mu.Lock()
			d.tellGap(pt, pt.gapBetween(first-1, passed))
			d.conclude(nil)
			d.mu.Unlock()
		}
	}
	d.untilBuried(ctx, last)
}

// moveAlong makes a consumer go on above an offset. It returns the first offset
// that was not taken before, 0 if there is none up to there. Callers hold filling
// and mu.
func (d *dispatcher) moveAlong(s *source, through uint64) (unread uint64) {
	if reached := s.reached(); reached < through && (s.behind() || len(s.ahead) > 0) {
		unread = reached + 1
	}
	for len(s.ahead) > 0 && s.reached() < through {
		s.ahead = s.ahead[1:]
	}
	s.read = max(s.read, through)
	if d.machine.CursorIn(s.source, s.number) < through {
		d.machine.Skip(s.source, s.log.PositionOf(through))
	}
	return unread
}

// reads reports whether the consumer reads something of a partition.
func (s *subject) reads(pt *partition) bool {
	return slices.ContainsFunc(s.strands, func(l strand) bool { return l.partition == pt })
}

// any reports whether the log has something that matches in a range. What cannot
// be found out counts as yes.
func (pt *partition) any(ctx context.Context, f protocol.Filter, after, through uint64) bool {
	for after < through {
		c, err := pt.log.Read(storage.Query{Filter: f, After: after, Through: through, MaxBytes: 1})
		if err != nil || c.Count > 0 || c.Through == after || ctx.Err() != nil {
			return true
		}
		after = c.Through
	}
	return false
}

// untilBuried waits until nothing is dying up to a place in its partition.
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
