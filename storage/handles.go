package storage

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

// maxHandles is how many sealed segments are kept open if nothing else is said.
// One costs a file and address space, no memory; the default retention has
// fewer.
const maxHandles = 128

// handles opens the files of sealed segments when they are read and closes
// those that have not been read for longest.
type handles struct {
	most int // that are kept open; 0 means maxHandles

	mu   sync.Mutex
	open []*segment // the one read last comes last
}

// bound returns how many are kept open.
func (h *handles) bound() int {
	if h.most > 0 {
		return h.most
	}
	return maxHandles
}

// view runs fn in a read transaction of the segment. It returns [ErrTrimmed] if
// retention has taken the segment.
func (h *handles) view(s *segment, fn func(*bbolt.Tx) error) error {
	db, err := h.acquire(s)
	if err != nil {
		return err
	}
	defer s.release()
	if db.IsReadOnly() {
		h.touch(s)
	}
	return view(db, s.path, fn)
}

// acquire opens the segment. Where the process has no file left, others are
// closed for it; and if all of those are being read, it waits for a moment:
// readers hold a file for one bounded chunk.
func (h *handles) acquire(s *segment) (*bbolt.DB, error) {
	const longest = time.Second
	wait := time.Millisecond
	for {
		db, err := s.acquire()
		switch {
		case !outOfFiles(err):
			return db, err
		case h.shed():
		case wait > longest:
			return nil, err
		default:
			<-time.After(wait)
			wait *= 2
		}
	}
}

func outOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// shed closes the handle that has not been read for longest, of those that are
// not in use, and reports whether there was one.
func (h *handles) shed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, s := range h.open {
		if s.closeIfUnused() == nil {
			h.open = slices.Delete(h.open, i, i+1)
			return true
		}
	}
	return false
}

// touch notes that the segment is in use and closes others beyond the bound.
func (h *handles) touch(s *segment) {
	h.mu.Lock()
	var victims []*segment
	switch i := slices.Index(h.open, s); {
	case i < 0:
		h.open = append(h.open, s)
		if n := len(h.open) - h.bound(); n > 0 {
			victims = slices.Clone(h.open[:n])
			h.open = slices.Delete(h.open, 0, n)
		}
	case i < len(h.open)-h.bound()/4: // near the end it makes no difference
		h.open = append(slices.Delete(h.open, i, i+1), s)
	}
	h.mu.Unlock()
	for _, v := range victims {
		if v.closeIfUnused() != nil {
			h.mu.Lock()
			h.open = append(h.open, v) // its turn comes again
			h.mu.Unlock()
		}
	}
}

// forget drops a segment that retention has taken.
func (h *handles) forget(s *segment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.Index(h.open, s); i >= 0 {
		h.open = slices.Delete(h.open, i, i+1)
	}
}

// acquire returns the open database; release must follow.
func (s *segment) acquire() (*bbolt.DB, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.retiring {
		s.unused.Wait()
	}
	if s.removed {
		return nil, ErrTrimmed
	}
	if s.db == nil {
		db, err := s.openSealed()
		if err != nil {
			return nil, unreadable(s.path, err)
		}
		s.db = db
	}
	s.refs++
	return s.db, nil
}

func (s *segment) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refs--; s.refs > 0 {
		return
	}
	if s.removed && s.db != nil {
		_ = s.db.Close() // a reader's handle on a file that is gone
		s.db = nil
	}
	s.unused.Broadcast()
}

var errInUse = errors.New("in use")

// closeIfUnused closes a sealed segment's handle unless it is in use.
func (s *segment) closeIfUnused() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refs > 0 {
		return errInUse
	}
	if s.db != nil {
		_ = s.db.Close()
		s.db = nil
	}
	return nil
}

// retire closes the handle that writes, once its readers are done, and cuts off
// what was allocated beyond size. The next reader opens the file read-only:
// bbolt cannot do that while a handle that writes has it locked.
func (s *segment) retire(size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retiring = true
	for s.refs > 0 {
		s.unused.Wait()
	}
	defer s.unused.Broadcast()
	s.retiring = false
	if s.db == nil {
		return nil
	}
	err := s.db.Close()
	s.db, s.file = nil, nil
	return errors.Join(err, truncate(s.path, size))
}

// remove deletes the file. Readers that have it open go on.
func (s *segment) remove() error {
	s.mu.Lock()
	s.removed = true
	idle := s.refs == 0
	db := s.db
	if idle {
		s.db = nil
	}
	s.mu.Unlock()
	err := os.Remove(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // somebody else was faster
	}
	if idle && db != nil {
		return errors.Join(err, db.Close())
	}
	return err
}

// close closes the handle once its readers are done.
func (s *segment) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.refs > 0 {
		s.unused.Wait()
	}
	if s.db == nil {
		return nil
	}
	err := s.db.Close()
	s.db, s.file = nil, nil
	return err
}

// truncate cuts the file down to size if it is longer.
func truncate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	stat, err := f.Stat()
	if err == nil && stat.Size() > size {
		if err = f.Truncate(size); err == nil {
			err = f.Sync()
		}
	}
	return errors.Join(err, f.Close())
}
