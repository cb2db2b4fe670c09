// Package clustertest is a control log in memory, for tests of what runs on one: several
// nodes append, all see one order, and what a network and a Kafka do to that can be
// asked for.
package clustertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tidewire/tidewire/broker/cluster"
)

// Log is a control log in memory.
type Log struct {
	mu      sync.Mutex
	first   uint64
	values  [][]byte // of the indexes from 1 on; those below first are gone
	away    bool
	changed chan struct{} // closed when anything has changed
}

// New returns an empty log.
func New() *Log { return &Log{first: 1, changed: make(chan struct{})} }

// Append stores a value, as some other producer would, and returns its index.
func (l *Log) Append(value []byte) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.values = append(l.values, value)
	l.wakeLocked()
	return uint64(len(l.values))
}

// Values returns all values that were ever stored, that of index 1 first.
func (l *Log) Values() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([][]byte(nil), l.values...)
}

// Trim removes the values below an index.
func (l *Log) Trim(first uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first = max(l.first, min(first, uint64(len(l.values))+1))
	l.wakeLocked()
}

// Away makes the log unreachable for all nodes, or reachable again.
func (l *Log) Away(away bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away = away
	l.wakeLocked()
}

func (l *Log) wakeLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Faults are what may happen on the way between one node and the log. The zero value
// is a perfect way.
type Faults struct {
	// Write and Answer are the time until a value is stored, and until the node knows;
	// Read is the time until it sees what is stored. Each is drawn between zero and that.
	Write, Answer, Read time.Duration
	// Recover is how long after the log was away, or the node stalled, nothing passes yet:
	// drawn likewise, each time anew.
	Recover time.Duration
	// Repeat is the chance that a value is stored once more, up to RepeatAfter later:
	// Kafka's producers try again.
	Repeat      float64
	RepeatAfter time.Duration
}

// Way is the log as one node reaches it: a [cluster.Log].
type Way struct {
	log *Log

	mu      sync.Mutex
	rand    *rand.Rand
	faults  Faults
	stalled bool
	late    sync.WaitGroup
}

var _ cluster.Log = (*Way)(nil)

// Way returns a new way to the log. The seed decides what is drawn.
func (l *Log) Way(seed uint64) *Way {
	return &Way{log: l, rand: rand.New(rand.NewPCG(seed, 0))}
}

// SetFaults changes what may happen from now on.
func (w *Way) SetFaults(f Faults) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = f
}

// Stall stops everything between this node and the log, or lets it go on: what was
// under way then comes late.
func (w *Way) Stall(stalled bool) {
	w.mu.Lock()
	w.stalled = stalled
	w.mu.Unlock()
	w.log.mu.Lock()
	w.log.wakeLocked()
	w.log.mu.Unlock()
}

// Wait returns when everything that comes late has come. Nothing may be stalled.
func (w *Way) Wait() { w.late.Wait() }

func (w *Way) draw(most func(Faults) time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d := most(w.faults); d > 0 {
		return time.Duration(w.rand.Int64N(int64(d) + 1))
	}
	return 0
}

func (w *Way) repeats() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.faults.Repeat > 0 && w.rand.Float64() < w.faults.Repeat
}

// open waits until nothing is stalled.
func (w *Way) open(ctx context.Context) error {
	for waited := false; ; waited = true {
		w.log.mu.Lock()
		away, changed := w.log.away, w.log.changed
		w.log.mu.Unlock()
		w.mu.Lock()
		stalled := w.stalled
		w.mu.Unlock()
		if !away && !stalled {
			if waited {
				return pause(ctx, w.draw(func(f Faults) time.Duration { return f.Recover }))
			}
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Produce implements [cluster.Log]. When ctx ends while the value is under way, the
// value may be stored all the same.
func (w *Way) Produce(ctx context.Context, value []byte) error {
	stored := make(chan struct{})
	w.late.Go(func() {
		defer close(stored)
		w.store(ctx, value)
	})
	select {
	case <-stored:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := pause(ctx, w.draw(func(f Faults) time.Duration { return f.Answer })); err != nil {
		return err
	}
	return w.open(ctx)
}

// store does so once or twice. Half of what was under way when ctx ended is lost.
func (w *Way) store(ctx context.Context, value []byte) {
	background := context.WithoutCancel(ctx)
	_ = pause(background, w.draw(func(f Faults) time.Duration { return f.Write }))
	if w.open(ctx) != nil && w.draw(func(Faults) time.Duration { return 1 }) == 0 {
		return
	}
	again := w.repeats()
	if w.open(ctx) == nil {
		w.log.Append(value)
	} else {
		again = true
	}
	if again {
		w.late.Go(func() {
			_ = pause(background, w.draw(func(f Faults) time.Duration { return f.RepeatAfter }))
			w.log.Append(value)
		})
	}
}

// Bounds implements [cluster.Log].
func (w *Way) Bounds(ctx context.Context) (first, last uint64, err error) {
	if err := w.open(ctx); err != nil {
		return 0, 0, err
	}
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	return w.log.first, uint64(len(w.log.values)), nil
}

// Read implements [cluster.Log].
func (w *Way) Read(ctx context.Context, from uint64, sink func(index uint64, value []byte) error) error {
	for next := from; ; {
		if err := w.open(ctx); err != nil {
			return nil //nolint:nilerr // ctx has ended: that is no error of the log
		}
		w.log.mu.Lock()
		first, values, changed := w.log.first, w.log.values, w.log.changed
		w.log.mu.Unlock()
		if next < first {
			return fmt.Errorf("%w: index %d", cluster.ErrGone, next)
		}
		if next > uint64(len(values)) {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if pause(ctx, w.draw(func(f Faults) time.Duration { return f.Read })) != nil || w.open(ctx) != nil {
			return nil //nolint:nilerr // as above
		}
		for ; next <= uint64(len(values)); next++ {
			if err := sink(next, values[next-1]); err != nil {
				return err
			}
		}
	}
}
