package storage

import (
	"context"
	"fmt"
	"sync/atomic"
)

// A purge is retention that has no patience: the active segment ends, and it and
// those before it go in the order and with the care of [keeper.trim].

// purging is what the keeper knows of purges.
type purging struct {
	through atomic.Uint64 // ordinal up to which segments are to go
	done    chan struct{} // has a token when a purge may be complete
	one     chan struct{} // has a token while somebody waits for a purge
}

func newPurging() purging {
	return purging{done: make(chan struct{}, 1), one: make(chan struct{}, 1)}
}

// Purge removes every message that is stored now, and those that are stored in
// the same segment until it has ended, and returns the last offset that it
// removed. Ids stay known as long as the dedupe window reaches. If ctx ends first
// the purge goes on nevertheless. Run must be under way.
func (l *core) Purge(ctx context.Context) (through uint64, err error) {
	p := &l.keeper.purging
	select {
	case p.one <- struct{}{}:
		defer func() { <-p.one }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	l.state.mu.RLock()
	active := l.state.active()
	target := active.ordinal
	if active.info.last == 0 {
		target-- // nothing is in it
	}
	l.state.mu.RUnlock()
	p.through.Store(target)
	l.keeper.signal()
	for {
		l.state.mu.RLock()
		oldest := l.state.segs[0]
		l.state.mu.RUnlock()
		if oldest.ordinal > target {
			return oldest.first - 1, nil
		}
		select {
		case <-p.done:
		case <-l.keeper.failed:
			return 0, errKeeper
		case <-ctx.Done():
			if trouble := l.Ready(); trouble != nil {
				return 0, trouble
			}
			return 0, fmt.Errorf("the purge goes on, but is not complete: %w", ctx.Err())
		}
	}
}

// Forget lets whole segments go that have nothing above an offset, soon, without
// waiting for it.
func (l *core) Forget(through uint64) {
	l.state.mu.RLock()
	target := uint64(0)
	for i, s := range l.state.segs[:len(l.state.segs)-1] {
		if l.state.segs[i+1].first-1 <= through {
			target = s.ordinal
		}
	}
	l.state.mu.RUnlock()
	p := &l.keeper.purging
	for old := p.through.Load(); target > old && !p.through.CompareAndSwap(old, target); old = p.through.Load() {
	}
	l.keeper.signal()
}

// purges reports whether a segment is to go.
func (k *keeper) purges(s *segment) bool { return s.ordinal <= k.purging.through.Load() }

// Purge removes every message that is held, and returns the last offset that it
// removed.
func (l *MemoryLog) Purge(context.Context) (through uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.records {
		l.forget(&l.records[i])
	}
	l.metrics.trimmed.Add(float64(len(l.records)))
	l.records, l.earliest = nil, l.head+1
	l.observe()
	return l.head, nil
}
