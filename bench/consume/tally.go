package main

import (
	"context"
	"sync"
	"sync/atomic"
)

// tally counts what is to be acknowledged.
type tally struct {
	left  atomic.Int64
	ended chan struct{}
	err   error
	once  sync.Once
}

func newTally(count int) *tally {
	t := &tally{ended: make(chan struct{})}
	t.left.Store(int64(count))
	return t
}

// one counts an acknowledgement, unless it failed.
func (t *tally) one(err error) {
	if err != nil {
		t.stop(err)
		return
	}
	t.add(1)
}

func (t *tally) add(n int) {
	if t.left.Add(-int64(n)) == 0 {
		t.stop(nil)
	}
}

// stop ends the count; the first call of it tells how.
func (t *tally) stop(err error) {
	t.once.Do(func() {
		t.err = err
		close(t.ended)
	})
}

func (t *tally) over() bool { return t.left.Load() <= 0 }

func (t *tally) wait(ctx context.Context) error {
	select {
	case <-t.ended:
		return t.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
