package storage

import (
	"errors"
	"os"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/tidewire/tidewire/storage/boltfile"
)

// boltOptions are what differs between our bbolt files.
type boltOptions struct {
	mapped   int64 // address space to take, so that growing never remaps
	readOnly bool
	file     **os.File // receives the open file, if not nil
}

// growBytes is the step in which bbolt makes a file longer that nobody made long
// enough before.
const growBytes = 1 << 20

// busyError is the path of a file that another process has locked.
type busyError string

func (e busyError) Error() string {
	return string(e) + " is in use by another process: stop that one first"
}

// openBolt opens a bbolt file. One that is opened for writing must have passed
// checkPages, or be new.
func openBolt(path string, o boltOptions) (*bbolt.DB, error) {
	var db *bbolt.DB
	err := guard(path, func() (err error) {
		db, err = bbolt.Open(path, 0o640, &bbolt.Options{
			Timeout:         lockWait,
			ReadOnly:        o.readOnly,
			PageSize:        boltfile.PageBytes,
			InitialMmapSize: int(o.mapped),
			NoFreelistSync:  true, // one write less for each commit; rebuilt at open
			FreelistType:    bbolt.FreelistMapType,
			NoStatistics:    true,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				f, err := os.OpenFile(name, flag, mode)
				if o.file != nil {
					*o.file = f
				}
				return f, err
			},
		})
		return err
	})
	switch {
	case err == nil:
	case errors.Is(err, berrors.ErrTimeout):
		return nil, busyError(path)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, damagedFile(path, err)
	default:
		return nil, err
	}
	db.AllocSize = growBytes
	return db, nil
}

// checkPages returns an error that wraps errDamaged if the bbolt file does not
// hold together. Values of keys are not looked at.
func checkPages(path string) error {
	return checkFile(path, func(f *os.File, size int64) error { return boltfile.Check(f, size) })
}

// checkBranches returns an error that wraps errDamaged if the trees of a segment
// could lead bbolt in a circle. That is looked at before each cold read of an old
// segment, for which checkPages would be too slow.
func checkBranches(path string) error {
	return checkFile(path, func(f *os.File, _ int64) error { return boltfile.CheckBranches(f) })
}

func checkFile(path string, check func(f *os.File, size int64) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := check(f, info.Size()); err != nil {
		return damagedFile(path, err)
	}
	return nil
}

// openToBeRead opens the file of a sealed segment for readers.
func (s *segment) openToBeRead() (*bbolt.DB, error) {
	if err := checkBranches(s.path); err != nil {
		return nil, unreadable(s.path, err)
	}
	db, err := s.openSealed()
	if err != nil {
		return nil, unreadable(s.path, err)
	}
	return db, nil
}
