package storage

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/tidewire/tidewire/protocol"
)

// An OtherTermError says that a copy on disk belongs to another life of its stream
// than the one that is asked for. [ReplicaOptions.Renew] drops it.
type OtherTermError struct {
	Have, Want protocol.Term
}

func (e *OtherTermError) Error() string {
	return fmt.Sprintf("the copy on disk has the term %s, but the stream now has the term %s: if the cluster was made anew, move the directory of the copy away, and it is read again from Kafka", e.Have, e.Want)
}

// firstTerm returns the term with which a new log begins.
func (o *opening) firstTerm() protocol.Term {
	if o.replica != nil {
		return o.replica.Term
	}
	return protocol.NewTerm()
}

// checkTerm compares the term of a copy with the one that its stream has. A copy
// of another one is refused, or dropped if that was asked for.
func (o *opening) checkTerm() error {
	if o.replica == nil || o.meta.terms[0].term == o.replica.Term && len(o.meta.terms) == 1 {
		return nil
	}
	d, err := o.log.meta.definition()
	if err != nil {
		return err
	}
	if d != nil {
		if err := o.checkKind(d); err != nil {
			return err
		}
	}
	if !o.replica.Renew {
		return &OtherTermError{Have: o.meta.terms[0].term, Want: o.replica.Term}
	}
	o.log.log.Warn("the stream has begun anew elsewhere: the copy on disk is dropped, and read again", "stream", o.log.name, "term", o.meta.terms[0].term, "new_term", o.replica.Term)
	last := o.lastOrdinal()
	err = o.log.reserve.withReserve(func() error {
		return o.log.meta.reset(chain{{o.replica.Term, 0}}, last, 1)
	})
	if err == nil {
		o.meta, err = o.log.meta.load()
	}
	return err
}

// checkKind refuses to open a copy as a log of its own, the other way round, or as
// the copy of another partition.
func (o *opening) checkKind(d *definition) error {
	switch {
	case d.Replica && o.replica == nil:
		return errors.New("it is a copy of a stream whose order is decided elsewhere: open it as one, or choose another data directory")
	case !d.Replica && o.replica != nil:
		return errors.New("it is a log of its own and no copy: choose another data directory, or another name for the stream")
	case d.Partition != o.log.partition:
		return fmt.Errorf("it has partition %d of its stream, and partition %d is asked for: choose another data directory", d.Partition, o.log.partition)
	}
	return nil
}

// mostEmpty is how many segments at the end may be without a block: one that is
// active and one spare. A copy may have gone on further than was synced.
func (o *opening) mostEmpty() int {
	if o.replica != nil {
		return maxUnsealed + 2
	}
	return 2
}

// loadNote finds the newest note of a copy: in its newest block, or in meta.db if
// retention has taken all of them.
func (o *opening) loadNote() error {
	if o.replica == nil {
		return nil
	}
	l := o.log
	for _, s := range slices.Backward(l.state.segs) {
		if s.info.last == 0 {
			continue
		}
		return l.walk(s, s.info.last, func(c blockWalk) error {
			b, ok, err := c.end()
			if err != nil || !ok {
				return err
			}
			note, err := b.note()
			l.state.note = bytes.Clone(note)
			return err
		})
	}
	return view(l.meta.db, l.meta.path, func(tx *bbolt.Tx) error {
		l.state.note = bytes.Clone(tx.Bucket(bucketInfo).Get(keyNote))
		return nil
	})
}

// putNote keeps the newest note of a copy beyond the block that has it.
func putNote(info *bbolt.Bucket, note []byte) error {
	if len(note) == 0 {
		return nil
	}
	return info.Put(keyNote, note)
}

// reset forgets everything that is stored: the log has these terms and begins with
// the offset first. The segments up to an ordinal are to be removed.
func (m *meta) reset(terms chain, last, first uint64) error {
	return m.update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketSegments, bucketLast, bucketDigests} {
			if err := tx.DeleteBucket(name); err != nil {
				return err
			}
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		info := tx.Bucket(bucketInfo)
		return errors.Join(
			putChain(tx, terms),
			info.Delete(keyEvicted), info.Delete(keyNote), info.Delete(keyNewest),
			info.Put(keyTrimmed, key(last)), info.Put(keyEarliest, key(first)), info.Put(keyBegan, key(first)))
	})
}
