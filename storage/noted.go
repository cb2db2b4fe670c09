package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"go.etcd.io/bbolt"
)

// A segment that was deleted by hand is missed because those after it are there.
// After the newest one there is none: meta.db says that it has been active. The
// keeper notes that soon after the change, so that no commit waits for it. A
// spare is not noted: nothing is lost with it.

// noteNewest tells meta.db which segment is active.
func (k *keeper) noteNewest(context.Context) error {
	s := &k.log.state
	s.mu.RLock()
	active := s.active()
	s.mu.RUnlock()
	if active.ordinal <= k.newest {
		return nil
	}
	if _, err := os.Stat(active.path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s was deleted while the broker wrote to it: start again, and publish again what was published since", active.path)
	}
	err := k.log.meta.update(func(tx *bbolt.Tx) error {
		return raise(tx.Bucket(bucketInfo), keyNewest, active.ordinal)
	})
	if err == nil {
		k.newest = active.ordinal
	}
	return err
}

// lastOrdinal returns the ordinal of the last segment that there is or that must
// be there.
func (o *opening) lastOrdinal() uint64 {
	last := max(o.meta.newest, o.meta.trimmed)
	for ordinal := range o.files {
		last = max(last, ordinal)
	}
	return last
}
