package storage

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"
)

// A LostError says that the messages in (After, Through] are damaged on disk and
// cannot be given. Reading goes on after Through.
type LostError struct {
	After   uint64
	Through uint64
}

func (e *LostError) Error() string {
	return fmt.Sprintf("storage: the offsets %d to %d are damaged and cannot be read", e.After+1, e.Through)
}

// damages is what was found damaged since the log was opened. A segment that is
// in it is read through its [salvage]: around the damage, and without bbolt
// where that fails. An undamaged log pays one atomic load for it.
//
// Nothing of it is stored: after a restart the damage is found again, or the
// file has been put back.
type damages struct {
	any       atomic.Bool
	surveying sync.Mutex // one survey at a time
	unobserve func()     // nil if nobody collects

	mu       sync.RWMutex
	segments map[*segment]*salvage
	files    map[string]error // every damaged file, and what is wrong with it
}

// salvaged returns what can be read of the segment from the offset on, nil if it
// is not known to be damaged.
func (d *damages) salvaged(s *segment, offset uint64) *salvage {
	if !d.any.Load() {
		return nil
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if v := d.segments[s]; v != nil && v.through >= offset {
		return v
	}
	return nil // it has grown since, and what is new may be sound
}

// note remembers that a file is damaged. It reports whether that is news.
func (d *damages) note(path string, err error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files[path] != nil {
		return false
	}
	if d.files == nil {
		d.files, d.segments = make(map[string]error), make(map[*segment]*salvage)
	}
	d.files[path] = err
	d.any.Store(true)
	return true
}

func (d *damages) put(s *segment, v *salvage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.segments[s] = v
}

// forget drops a segment whose file is gone for good.
func (d *damages) forget(s *segment) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.segments, s)
	delete(d.files, s.path)
}

// list says which files are damaged, and how.
func (d *damages) list() []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var all []string
	for _, path := range slices.Sorted(maps.Keys(d.files)) {
		all = append(all, d.files[path].Error())
	}
	return all
}

// observe makes the number of damaged files a metric; the registerer may be nil.
func (d *damages) observe(r prometheus.Registerer, stream string) {
	if r == nil {
		return
	}
	gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tidewire_storage_damaged_files", Help: "Files that were found damaged and are still there.",
		ConstLabels: prometheus.Labels{"stream": stream},
	}, func() float64 {
		d.mu.RLock()
		defer d.mu.RUnlock()
		return float64(len(d.files))
	})
	r.MustRegister(gauge)
	d.unobserve = func() { r.Unregister(gauge) }
}

// Degraded says which files are damaged; nothing if none is known to be. The log
// works on: what cannot be read is told to readers, see [LostError].
func (l *core) Degraded() []string {
	all := l.damages.list()
	for i := range all {
		all[i] = fmt.Sprintf("the stream %s: %s", l.name, all[i])
	}
	return all
}

// damaged logs, once, that a file is damaged.
func (l *core) damaged(path string, err error) {
	err = damagedFile(path, err)
	if l.damages.note(path, err) {
		l.log.Error("a file is damaged; the broker goes on, and subscribers are told a gap, passed_over, for what cannot be read", "stream", l.name, "file", path, "err", err)
	}
}

// survey finds out what can still be read of a segment after a read of it failed
// with err, for the offsets up to through.
func (l *core) survey(s *segment, through uint64, err error) error {
	l.damages.surveying.Lock()
	defer l.damages.surveying.Unlock()
	if l.damages.salvaged(s, through) != nil {
		return nil // somebody else was faster
	}
	if s.gone() {
		return ErrTrimmed
	}
	l.damaged(s.path, err)
	v, err := l.salvage(s, through)
	if err != nil {
		return err
	}
	l.damages.put(s, v)
	if s.gone() { // meanwhile
		l.damages.forget(s)
		return ErrTrimmed
	}
	return nil
}

// walk calls fn with the blocks of a segment; again, around the damage, if it
// meets any: fn goes on where it was or begins anew. through is the last offset
// that the segment may hold.
func (l *core) walk(s *segment, through uint64, fn func(blockWalk) error) error {
	l.state.mu.RLock()
	blocks, synced := l.state.unsynced(s)
	l.state.mu.RUnlock()
	if len(blocks) > 0 {
		through = min(through, synced)
	}
	v := l.damages.salvaged(s, through)
	if v == nil {
		err := l.handles.view(s, func(tx *bbolt.Tx) error { return fn(over(newBlockCursor(tx), blocks)) })
		if !errors.Is(err, errDamaged) {
			return err
		}
		if err := l.survey(s, through, err); err != nil {
			return err
		}
		v = l.damages.salvaged(s, through)
	}
	c, err := v.open(s)
	if err != nil {
		return err
	}
	defer c.close()
	return fn(over(c, blocks))
}

// gone reports whether retention has removed the segment.
func (s *segment) gone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removed
}
