package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// keeper looks after the segments: it prepares the next one, seals full ones,
// and removes those that retention has no place for. It does so in small steps,
// each after a commit as long as there are any, so that publishes hardly notice.
//
// When the disk is full it releases the reserve, tries again, and leaves what
// cannot be done for later. A sync that fails is fatal here too.
type keeper struct {
	log      *core
	wake     chan struct{}         // the segments have changed
	progress chan struct{}         // a segment was sealed, or could not be
	full     atomic.Bool           // the disk was full at the last attempt
	trouble  atomic.Pointer[error] // what the last attempt failed with, or nil
	leftover []*segment            // trimmed before a crash, but not cleaned up
	newest   uint64                // ordinal of the newest active segment that meta.db knows of
	purging  purging
	pin      atomic.Pointer[pin] // of a backup under way, or nil
	working  sync.Mutex          // held while there is work, and by a snapshot of meta.db
	refused  atomic.Bool         // publishes were, for lack of room, and none was seen since

	beforeTrim func(through uint64) // may be nil; set before run

	preparing sync.Mutex // one of keeper and writer prepares a segment

	err    error // set before failed is closed
	failed chan struct{}
}

const (
	// maxUnsealed bounds the segments whose index waits in memory.
	maxUnsealed = 4

	// sealBytes is how much is written at a time while commits go on: a few
	// pages for each, so that the slowest commit is not much slower.
	sealBytes = 128 << 10

	// sealPause is how long a step waits for a commit to follow.
	sealPause = 2 * time.Millisecond

	// roomBytes must be free before publishes are welcome again: about a large
	// message.
	roomBytes = 256 << 10

	fullPause   = time.Second // between attempts while the disk is full
	damagePause = time.Minute // between attempts while a file is damaged
)

var (
	errKeeper   = errors.New("the log's background work has failed")
	errDiskFull = &fs.PathError{Op: "seal", Path: "segment", Err: syscall.ENOSPC}
)

func newKeeper(l *core) *keeper {
	return &keeper{
		log:      l,
		wake:     make(chan struct{}, 1),
		progress: make(chan struct{}, 1),
		failed:   make(chan struct{}),
		purging:  newPurging(),
	}
}

func (k *keeper) signal() { poke(k.wake) }

// run works until ctx ends.
func (k *keeper) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-timer.C:
		}
		err := k.work(ctx)
		if isFull(err) {
			err = k.log.reserve.release()
			if err == nil {
				err = k.work(ctx)
			}
		}
		pause := k.nextDeadline()
		k.trouble.Store(nil)
		if err != nil {
			k.trouble.Store(&err)
		}
		switch {
		case ctx.Err() != nil:
			return
		case isFull(err):
			if !k.full.Swap(true) {
				k.log.log.Warn("there is no room to store more: nothing is stored until there is", "stream", k.log.name, "error", err)
			}
			pause = fullPause
		case errors.Is(err, errDamaged):
			k.log.log.Error("the log cannot be looked after", "stream", k.log.name, "err", err)
			pause = damagePause
		case err != nil:
			k.err = fmt.Errorf("look after log %s: %w", k.log.name, err)
			close(k.failed)
			return
		default:
			k.full.Store(false)
		}
		poke(k.progress)
		poke(k.purging.done)
		timer.Reset(pause)
	}
}

// work does what is due.
func (k *keeper) work(ctx context.Context) error {
	k.working.Lock()
	defer k.working.Unlock()
	steps := []func(context.Context) error{k.sealAll, k.cleanUp, k.trim, k.prune, k.noteNewest, k.ready, k.findRoom}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	k.log.metrics.observe(k.log)
	return nil
}

// ready sees to the reserve and, once the active segment is half full, to the
// next one.
func (k *keeper) ready(context.Context) error {
	if err := k.log.reserve.hold(); err != nil {
		return err
	}
	s := &k.log.state
	s.mu.RLock()
	due := len(s.spares) == 0 && int64(s.active().info.size) > k.log.opts.SegmentBytes/2
	s.mu.RUnlock()
	if !due {
		return nil
	}
	return k.prepare()
}

// findRoom ends with an error as long as publishes are refused for lack of room,
// so that the log is not ready although nothing else is to be done.
func (k *keeper) findRoom(context.Context) error {
	if !k.refused.Load() {
		return nil
	}
	if err := k.log.reserve.probe(roomBytes); err != nil {
		return err
	}
	k.refused.Store(false)
	return nil
}

// prepare makes a segment to be active next, unless there is one.
func (k *keeper) prepare() error {
	k.preparing.Lock()
	defer k.preparing.Unlock()
	s := &k.log.state
	s.mu.RLock()
	ready := len(s.spares) > 0
	s.mu.RUnlock()
	if ready {
		return nil
	}
	if err := k.log.reserve.hold(); err != nil {
		return err
	}
	size := k.log.opts.SegmentBytes
	seg := k.log.newSegment(s.lastOrdinal() + 1)
	if err := seg.create(2*size, size); err != nil {
		return err
	}
	s.mu.Lock()
	s.spares = append(s.spares, seg)
	s.mu.Unlock()
	return nil
}

// nextDeadline returns how long there is nothing to do if nothing happens.
func (k *keeper) nextDeadline() time.Duration {
	const never = 24 * time.Hour
	age := k.log.opts.RetentionAge
	s := &k.log.state
	s.mu.RLock()
	defer s.mu.RUnlock()
	if k.purges(s.segs[0]) {
		return fullPause // it could not be completed at once
	}
	if age < 0 {
		return never
	}
	now, next := k.log.opts.Now(), never
	for _, seg := range s.segs {
		if seg.info.last == 0 {
			continue
		}
		due := time.UnixMicro(int64(seg.info.lastTime)).Add(age)
		if seg == s.active() {
			due = time.UnixMicro(int64(seg.info.firstTime)).Add(age / activeShare)
		}
		if k.pin.Load().holds(seg, false) {
			due = due.Add(age / pinShareAge)
		}
		next = min(next, max(due.Sub(now), 0)+time.Millisecond)
	}
	return next
}

// pace waits for the next commit, or a moment if there is none; not at all when
// segments pile up.
func (k *keeper) pace(ctx context.Context) error {
	if len(k.log.state.unsealed()) > 1 {
		return ctx.Err()
	}
	pause := time.NewTimer(sealPause)
	defer pause.Stop()
	select {
	case <-k.log.tail.tick:
	case <-pause.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}
