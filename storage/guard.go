package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"go.etcd.io/bbolt"
)

// guard runs fn, which reads the file, and turns panics and memory faults into
// errors: bbolt panics on pages that make no sense, and a mapped file that was
// cut short faults.
func guard(path string, fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damagedFile(path, fmt.Errorf("%w: %v", errDamaged, p))
		}
	}()
	if err = fn(); errors.Is(err, errDamaged) {
		return damagedFile(path, err)
	}
	return err
}

// view runs fn in a read transaction under guard.
func view(db *bbolt.DB, path string, fn func(*bbolt.Tx) error) error {
	return guard(path, func() error { return db.View(fn) })
}

// fileError names the file that is damaged and says what to do.
type fileError struct {
	path string
	err  error
}

func (e *fileError) Error() string {
	return fmt.Sprintf("%s is damaged (%v): stop the broker, run `tidewire check --deep --data %s` and put the file back from a backup",
		e.path, e.err, filepath.Dir(filepath.Dir(filepath.Dir(e.path))))
}

// missingSealed says that a sealed segment is not there. Whoever has no backup may
// own up to the loss with an empty file, which is then as good as a damaged one.
func missingSealed(path string) error {
	return fmt.Errorf("the segment %s is missing: put it back from a backup; if there is none, create an empty file in its place, and its messages will be told to subscribers as a gap", path)
}

func (e *fileError) Unwrap() error { return e.err }

func damagedFile(path string, err error) error {
	if _, ok := errors.AsType[*fileError](err); ok {
		return err
	}
	return &fileError{path, err}
}

// unreadable turns the error with which a sealed segment's file could not be
// opened into damage, unless it may pass by itself or is for the operator to
// mend without a loss.
func unreadable(path string, err error) error {
	if _, busy := errors.AsType[busyError](err); busy || isFull(err) || errors.Is(err, fs.ErrPermission) || errors.Is(err, errDamaged) {
		return err
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("it is missing")
	}
	return damagedFile(path, fmt.Errorf("%w: %w", errDamaged, err))
}

// isFull reports whether err says that the disk is full, or that the process has
// no file descriptor left, and that nothing has been synced yet: it may succeed
// later. A write or an open says so with a path; a sync without one, and then the
// pages are lost.
func isFull(err error) bool {
	p, ok := errors.AsType[*fs.PathError](err)
	if !ok {
		return false
	}
	for _, errno := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(p.Err, errno) {
			return true
		}
	}
	return false
}
