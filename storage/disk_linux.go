package storage

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// allocate gives the file disk space up to the given size, so that writing
// there cannot fail for want of it. Where the file system cannot do that, the
// file just gets the size.
func allocate(f *os.File, from, to int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, from, to-from)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EINVAL):
			return f.Truncate(to)
		default:
			return &fs.PathError{Op: "allocate", Path: f.Name(), Err: err}
		}
	}
}

// prefetch asks for the first bytes of the file to be read ahead: bbolt's map is
// advised to be read at random, which makes a cold scan 20 times slower.
func prefetch(path string, bytes int64) {
	f, err := os.Open(path)
	if err != nil {
		return // whoever reads the file finds out
	}
	_ = unix.Fadvise(int(f.Fd()), 0, bytes, unix.FADV_WILLNEED)
	_ = f.Close()
}
