package storage

import (
	"context"
	"errors"
	"sync"
)

// handover is how many commits may wait to be applied: the next sync goes on
// meanwhile.
const handover = 4

// Run commits what is appended until ctx ends, and looks after the segments
// meanwhile. It calls apply with each commit, in order, from one goroutine; apply
// calls the Done of each answer. When ctx ends Run commits and applies what was
// queued before and returns nil.
//
// An error means that a sync failed: the last commits answer everything that was
// pending with outcome_unknown, and the process must end.
func (l *Log) Run(ctx context.Context, apply func(*Commit)) error {
	commits := make(chan *Commit, handover)
	hand := func(c *Commit) { commits <- c }
	var applier, keeper sync.WaitGroup
	applier.Go(func() {
		for c := range commits {
			apply(c)
		}
	})
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	keeper.Go(func() { l.keeper.run(keeping) })

	err := l.committer.run(ctx, l.queue, hand)
	stop()
	keeper.Wait()
	err = errors.Join(err, l.keeper.err)
	if err != nil {
		l.queue.close(errUnknown())
		l.committer.refuseQueued(errUnknown(), hand)
	}
	close(commits)
	applier.Wait()
	return err
}
