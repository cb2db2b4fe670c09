package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tidewire/tidewire/storage/boltfile"
)

// A commit to the active segment costs one sync. bbolt's own way costs two: the
// pages of a transaction, and then the meta page that makes them count. The
// second is only there so that a meta page on disk proves its pages; here they
// prove themselves, and that is checked when the file is opened:
//
//   - The root page carries the number of the transaction, which the meta page
//     carries too. bbolt uses a page again two transactions later, so a root that
//     was lost shows an older number.
//   - It carries the last offset too. The blocks must reach it, without a hole
//     between their offsets, and each byte of them has its checksum. Pages of the
//     tree that were lost show older blocks, or none.
//
// If that fails, the power went during the newest transaction, and nothing in it
// had been answered. The one before is whole, for its sync had come back, and
// bbolt never writes to the pages of the one before: its meta page counts again.
// If that one does not hold either, the file is damaged, and stays as it is.
//
// An earlier attempt at the same transaction could have left pages with the same
// number. So the first commit after a start, and after one that failed, is made
// in bbolt's way.

// stamp makes a transaction verifiable. It is called by all that write to
// segments; last is the last offset stored.
func stamp(tx *bbolt.Tx, last uint64) error {
	return errors.Join(
		tx.Bucket(bucketInfo).SetSequence(uint64(tx.ID())),
		tx.Bucket(bucketBlocks).SetSequence(last))
}

// checkStamp holds the stamp of the newest transaction against it and the last
// offset that was found.
func checkStamp(tx *bbolt.Tx, last uint64) error {
	switch id, stamped := tx.Bucket(bucketInfo).Sequence(), tx.Bucket(bucketBlocks).Sequence(); {
	case id != uint64(tx.ID()):
		return fmt.Errorf("%w: its root is of transaction %d and not %d", errDamaged, id, tx.ID())
	case stamped != last:
		return fmt.Errorf("%w: it ends at offset %d and not %d", errDamaged, last, stamped)
	}
	return nil
}

// commit ends a stamped transaction of the active segment. When it returns nil
// the transaction is durable. It also tells how long the sync took.
func (s *segment) commit(tx *bbolt.Tx) (synced time.Duration, err error) {
	began := time.Now()
	err = tx.Commit() // with NoSync it only writes
	if err == nil && s.db.NoSync {
		began = time.Now()
		err = s.db.Sync()
	}
	s.db.NoSync = err == nil
	return time.Since(began), err
}

// confirm makes an empty commit behind the last one, which from then on is never
// taken for one that a power cut left unfinished: damage to it is damage. Nobody
// relies on it, so a full disk is no reason to fail.
func (s *segment) confirm() error {
	if !s.db.NoSync {
		return nil
	}
	s.db.NoSync = false
	err := s.db.Update(func(tx *bbolt.Tx) error { return stamp(tx, tx.Bucket(bucketBlocks).Sequence()) })
	if isFull(err) {
		return nil
	}
	return err
}

// openNewest opens the file of a segment that is not sealed as openWritable does.
// If its newest transaction is not whole, the one before counts again, and undone
// is true.
func (s *segment) openNewest(mapped int64, terms chain) (undone bool, err error) {
	err = s.openWritable(mapped, terms)
	if !errors.Is(err, errDamaged) {
		return false, err
	}
	sum, found := newestSum(s.path)
	if !found {
		return false, err
	}
	if hideErr := sum.set(0); hideErr != nil {
		return false, errors.Join(err, hideErr)
	}
	if s.openWritable(mapped, terms) != nil {
		return false, errors.Join(err, sum.set(sum.value))
	}
	return true, nil
}

// metaSum is the checksum of a bbolt file's meta page. Without it the page does
// not count.
type metaSum struct {
	path  string
	at    int64
	value uint64
}

// newestSum finds the checksum of the newest meta page, if the other one is of
// the transaction before it.
func newestSum(path string) (metaSum, bool) {
	f, err := os.Open(path)
	if err != nil {
		return metaSum{}, false
	}
	defer func() { _ = f.Close() }()
	older, ok := boltfile.ReadMeta(f, 0)
	newest, also := boltfile.ReadMeta(f, 1)
	if older.TxID > newest.TxID {
		older, newest = newest, older
	}
	if !ok || !also || older.TxID+1 != newest.TxID {
		return metaSum{}, false
	}
	return metaSum{path, newest.SumAt(), newest.Sum}, true
}

func (m metaSum) set(value uint64) error {
	f, err := os.OpenFile(m.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(binary.LittleEndian.AppendUint64(nil, value), m.at)
	return errors.Join(err, f.Sync(), f.Close())
}
