package storage

import (
	"errors"
	"io/fs"
	"os"
	"sync"
)

// reserve is a file that does nothing but take space. Publishes may ask the disk
// for more only while it is there; when the disk is full, background work
// removes it and so can still seal and trim, which is what frees space.
type reserve struct {
	path string
	size int64 // not above 0: no reserve

	mu   sync.Mutex
	held bool
}

// hold makes sure that the reserve is there.
func (r *reserve) hold() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held || r.size <= 0 {
		return nil
	}
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return err
	}
	err = errors.Join(allocate(f, 0, r.size), f.Close())
	if err != nil {
		_ = os.Remove(r.path) // part of it may have been allocated
		return err
	}
	r.held = true
	return nil
}

// release gives the space to whoever keeps the log alive.
func (r *reserve) release() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = false
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// withReserve runs fn again with the reserve released if the disk was full.
func (r *reserve) withReserve(fn func() error) error {
	err := fn()
	if !isFull(err) {
		return err
	}
	if err := r.release(); err != nil {
		return err
	}
	return fn()
}

// probe reports, by an error, that there is no room for size more bytes beside the
// reserve.
func (r *reserve) probe(size int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	path := r.path + ".probe"
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return err
	}
	err = errors.Join(os.Remove(path), allocate(f, 0, size)) // in this order, so that nothing is left by a crash
	return errors.Join(err, f.Close())
}
