package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
)

// snapshot is a log at one moment, as a backup copies it: sealed segments, which
// never change, and a copy of the meta.db that lists them.
//
// The obvious way, to copy the active segment too, would have to hold a read
// transaction for as long as the reader of the backup takes, or to copy pages
// that change. Here the active segment is ended first, so nothing that is copied
// changes, and no transaction is open while it is.
//
// meta.db belongs to the keeper. Its copy is made while the keeper is held, on
// the same disk: it is small, and nobody else waits for it.
type snapshot struct {
	log      *core
	segs     []*segment // oldest first
	infos    []segmentInfo
	earliest uint64
	head     uint64
	meta     *os.File // its name is gone already
	metaSize int64
	pin      *pin
}

// pin keeps retention from segments that a backup has not copied yet. Because
// the oldest are copied first, retention waits for one segment at a time, unless
// the backup is read more slowly than messages come in: then it goes on, and the
// backup is given up.
type pin struct {
	from   atomic.Uint64 // ordinal; those before it may go
	giveUp context.CancelCauseFunc
}

const (
	// snapshotPatience is how long the segments of a log may take to be sealed.
	snapshotPatience = time.Minute
	snapshotLook     = 5 * time.Millisecond
	snapshotAsk      = time.Second // between requests to end the active segment

	// pinShare bounds what a pin keeps beyond the retention: a quarter of its
	// bytes, an eighth of its age.
	pinShareBytes = 4
	pinShareAge   = 8

	snapshotFile = "backup.tmp" // a crash leaves it behind, the next start removes it
)

// errOvertaken ends a backup that retention cannot wait for.
var errOvertaken = errors.New("retention needs the room of messages that the backup has not come to: its reader is slower than the publishers, or the disk is full; take the backup to a faster place, or allow more retention_bytes")

// snapshot takes a log as it is now: everything that was answered before the call
// is in it. close must follow. giveUp is called if retention cannot wait.
func (l *core) snapshot(ctx context.Context, giveUp context.CancelCauseFunc) (*snapshot, error) {
	if err := l.sealNow(ctx); err != nil {
		return nil, err
	}
	k := l.keeper
	k.working.Lock()
	defer k.working.Unlock()
	s := &snapshot{log: l, pin: &pin{giveUp: giveUp}}
	l.state.mu.RLock()
	s.earliest = l.state.segs[0].first
	s.head = s.earliest - 1
	for _, seg := range l.state.segs {
		if seg.index != nil {
			break
		}
		s.segs, s.infos = append(s.segs, seg), append(s.infos, seg.info)
		s.head = seg.info.last
	}
	l.state.mu.RUnlock()
	if err := s.copyMeta(); err != nil {
		return nil, err
	}
	if len(s.segs) > 0 {
		s.pin.from.Store(s.segs[0].ordinal)
		k.pin.Store(s.pin)
	}
	return s, nil
}

// close lets retention go on.
func (s *snapshot) close() {
	s.log.keeper.pin.CompareAndSwap(s.pin, nil)
	_ = s.meta.Close()
	s.log.keeper.signal()
}

// copied lets retention have a segment.
func (s *snapshot) copied(seg *segment) {
	s.pin.from.Store(seg.ordinal + 1)
	s.log.keeper.signal()
}

// copyMeta makes the copy of meta.db, and looks whether it lists the segments.
func (s *snapshot) copyMeta() error {
	path := filepath.Join(s.log.dir, snapshotFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o640)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(path) }()
	err = view(s.log.meta.db, s.log.meta.path, func(tx *bbolt.Tx) error {
		s.metaSize, err = tx.WriteTo(f)
		return err
	})
	if err == nil {
		err = s.endCopy(path)
	}
	if err == nil {
		err = s.checkCopy(path)
	}
	if info, statErr := f.Stat(); err == nil {
		s.metaSize, err = info.Size(), statErr
	}
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("copy %s: %w", s.log.meta.path, err)
	}
	s.meta = f
	return nil
}

// endCopy makes the copy know of no segment that is not in the backup.
func (s *snapshot) endCopy(path string) error {
	db, err := openBolt(path, boltOptions{})
	if err != nil {
		return err
	}
	db.NoSync = true // a copy that a crash leaves behind is removed
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketInfo).Delete(keyNewest) })
	return errors.Join(err, db.Close())
}

func (s *snapshot) checkCopy(path string) error {
	db, err := openBolt(path, boltOptions{readOnly: true})
	if err != nil {
		return err
	}
	state, err := (&meta{path: path, db: db}).load()
	if err == nil && (len(state.sealed) != len(s.segs) || state.earliest != s.earliest) {
		err = fmt.Errorf("%w: it lists %d segments from offset %d, but there are %d from offset %d", errDamaged, len(state.sealed), state.earliest, len(s.segs), s.earliest)
	}
	return errors.Join(err, db.Close())
}

// sealNow ends the active segment and waits until everything that is stored now
// is in sealed segments.
//
// A term in which nothing has been stored yet would not be in the chain of a log
// that is opened from the backup, and positions that are given later would be
// those of a stranger there. So it gets an offset first, without a record.
func (l *core) sealNow(ctx context.Context) error {
	waiting, stop := context.WithTimeout(ctx, snapshotPatience)
	defer stop()
	look, ask := time.NewTicker(snapshotLook), time.NewTicker(snapshotAsk)
	defer look.Stop()
	defer ask.Stop()
	_, head := l.Bounds()
	target := max(head, l.terms[len(l.terms)-1].first)
	for marked, asked := false, false; ; {
		sealed, active, head := l.state.progress()
		switch {
		case sealed >= target:
			return nil
		case head < target && !marked:
			marked = true
			if err := l.tail.mark(waiting); err != nil {
				return err
			}
		case head >= active && active <= target && !asked:
			asked = true
			poke(l.tail.seal)
		}
		select {
		case <-look.C:
		case <-ask.C:
			marked, asked = false, false
			l.keeper.signal()
		case <-waiting.Done():
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("the stream %s cannot be backed up now: what was published last could not be sealed within %v (%w)", l.name, snapshotPatience, l.whyNot())
		}
	}
}

func (l *core) whyNot() error {
	if err := l.Ready(); err != nil {
		return err
	}
	return errors.New("the disk is too slow for what is published")
}

// progress returns the last sealed offset, the first one of the active segment,
// and the head.
func (s *state) progress() (sealed, active, head uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	sealed = s.segs[0].first - 1
	for _, seg := range s.segs {
		if seg.index != nil {
			break
		}
		sealed = seg.info.last
	}
	return sealed, s.active().first, s.head
}

// holds reports whether the segment must stay although retention has no place
// for it. If it can wait no longer, late, the backup is given up.
func (p *pin) holds(s *segment, late bool) bool {
	if p == nil || s.ordinal < p.from.Load() {
		return false
	}
	if late {
		p.giveUp(errOvertaken)
		return false
	}
	return true
}
