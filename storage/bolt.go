package storage

import (
	"errors"
	"os"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
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
			PageSize:        pageBytes,
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
