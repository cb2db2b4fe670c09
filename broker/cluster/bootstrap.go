package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

const (
	// tail is how many values at the end of the log are looked at for the place of
	// the last checkpoint: each heartbeat tells it. Then eight times as many, and so on.
	tail = 1000

	// bootstrapPause is the pause before a node that finds no checkpoint looks again: another
	// node may write one.
	bootstrapPause = 5 * time.Second
)

// errEnough ends a reading that has seen enough.
var errEnough = errors.New("enough")

// ErrNoCheckpoint is returned where the beginning of the control log is gone and no whole
// checkpoint is left.
var ErrNoCheckpoint = errors.New("the beginning of the control topic is gone and it holds no whole checkpoint: " +
	"start a node that still knows the state, or wait for the running ones to write a checkpoint; raise retention.ms of the topic")

// bootstrap loads the last whole checkpoint and returns the index to read on from.
func (n *Node) bootstrap(ctx context.Context) (from uint64, err error) {
	for {
		state := NewState(n.opts.Parts...)
		from, last, err := load(ctx, n.opts.Log, state)
		n.mu.Lock()
		if err == nil {
			n.state, n.read = state, progress{ready: true, applied: from - 1, target: last}
			n.pages.whole.at = n.now()
			n.mu.Unlock()
			return from, nil
		}
		n.read.problem = err.Error()
		n.mu.Unlock()
		if !errors.Is(err, ErrNoCheckpoint) && !errors.Is(err, ErrGone) {
			return 0, err
		}
		n.opts.Logger.Error("cannot start", "error", err)
		select {
		case <-time.After(bootstrapPause):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// load makes the state that of the last whole checkpoint, and returns where to read on and where
// the log ends now.
func load(ctx context.Context, log Log, state *State) (from, last uint64, err error) {
	first, last, err := log.Bounds(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("ask for the bounds of the control log: %w", err)
	}
	begins, err := findCheckpoints(ctx, log, span{first, last})
	if err != nil {
		return 0, 0, err
	}
	for _, begin := range begins {
		pages, err := readCheckpoint(ctx, log, span{begin, last})
		if err != nil {
			return 0, 0, err
		}
		if pages != nil {
			return begin + 1, last, state.LoadState(pages)
		}
	}
	if first > 1 {
		return 0, 0, ErrNoCheckpoint
	}
	return 1, last, nil
}

// span is a range of indexes, both ends included.
type span struct{ first, last uint64 }

func (r span) has(index uint64) bool { return r.first <= index && index <= r.last }

// findCheckpoints returns where checkpoints may begin that are still there, the newest first.
func findCheckpoints(ctx context.Context, log Log, all span) ([]uint64, error) {
	for n := uint64(tail); ; n *= 8 {
		at := all
		if at.last > n {
			at.first = max(at.first, at.last-n+1)
		}
		var found []uint64
		err := readRange(ctx, log, at, func(_ uint64, e *clusterv1.Envelope) bool {
			for _, rec := range e.GetRecords() {
				begin := max(rec.GetHeartbeat().GetCheckpoint(), rec.GetCheckpointEnd().GetBegin())
				if begin > 0 && all.has(begin) && !slices.Contains(found, begin) {
					found = append(found, begin)
				}
			}
			return true
		})
		if err != nil {
			return nil, err
		}
		if len(found) > 0 || at.first == all.first {
			slices.Sort(found)
			slices.Reverse(found)
			return found, nil
		}
	}
}

// readCheckpoint returns the state that the pages of a checkpoint hold, nil if it is
// not whole.
func readCheckpoint(ctx context.Context, log Log, at span) (state []byte, err error) {
	var boot, sequence, pages uint64
	whole := false
	begin := at.first
	err = readRange(ctx, log, at, func(index uint64, e *clusterv1.Envelope) bool {
		if index == begin {
			boot = e.GetBoot()
		}
		if e.GetBoot() != boot || e.GetSequence() <= sequence {
			return true
		}
		sequence = e.GetSequence()
		for _, rec := range e.GetRecords() {
			if p := rec.GetCheckpointPage(); p.GetBegin() == begin && p.GetNumber() == pages {
				state = append(state, p.GetState()...)
				pages++
			}
			if end := rec.GetCheckpointEnd(); end.GetBegin() == begin {
				whole = end.GetPages() == pages && end.GetChecksum() == xxhash.Sum64(state)
				return false
			}
		}
		return true
	})
	if err != nil || !whole {
		return nil, err
	}
	return state, nil
}

// readRange hands the envelopes of a range of indexes to f, until it returns false.
func readRange(ctx context.Context, log Log, at span, f func(uint64, *clusterv1.Envelope) bool) error {
	if at.first > at.last {
		return nil
	}
	err := log.Read(ctx, at.first, func(index uint64, value []byte) error {
		if index <= at.last && value != nil {
			if e, err := Decode(value); err == nil && !f(index, e) {
				return errEnough
			}
		}
		if index >= at.last {
			return errEnough
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		return nil
	case err == nil:
		return ctx.Err()
	default:
		return fmt.Errorf("read the control log: %w", err)
	}
}
