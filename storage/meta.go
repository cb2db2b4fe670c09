package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tidewire/tidewire/protocol"
)

// meta is meta.db. Its buckets:
//
//	info      see the keys below
//	terms     first offset -> term: the chain
//	segments  ordinal -> what is known of a sealed segment; one that is not here
//	          has not been sealed to the end
//	last      topic -> offset of its newest record in the sealed segments, and a
//	          checksum
//	digests   first offset of a block -> its time and digest rows, with a
//	          checksum, for blocks whose segment is gone while dedupe still
//	          needs them
type meta struct {
	path string
	db   *bbolt.DB
}

const (
	metaFile   = "meta.db"
	lockWait   = 100 * time.Millisecond
	logFormat  = 3
	metaMapped = 64 << 20
)

var (
	bucketInfo     = []byte("info")
	bucketTerms    = []byte("terms")
	bucketSegments = []byte("segments")
	bucketLast     = []byte("last")
	bucketDigests  = []byte("digests")

	keyFormat   = []byte("format")
	keyTrimmed  = []byte("trimmed")  // ordinal of the newest segment that retention took
	keyEarliest = []byte("earliest") // offset after that segment
	keyEvicted  = []byte("evicted")  // time of the newest digest row that was dropped
	keyNewest   = []byte("newest")   // ordinal of the newest segment that was made active
	keyBegan    = []byte("began")    // of a replica: the offset with which it began, if not 1
	keyNote     = []byte("note")     // of a replica: the newest one when its last segment went
	keySealed   = []byte("sealed")   // in a segment: its segmentInfo
	keyOrdinal  = []byte("ordinal")  // in a segment
	keyLog      = []byte("log")      // in a segment: first term of its log
)

// metaState is what a log needs to know of meta.db to open.
type metaState struct {
	terms    chain
	sealed   map[uint64]segmentInfo // by ordinal
	trimmed  uint64
	earliest uint64 // 1 at first
	evicted  uint64
	newest   uint64
	began    uint64 // 0 means 1
}

func metaBuckets() [][]byte {
	return [][]byte{bucketInfo, bucketTerms, bucketSegments, bucketLast, bucketDigests}
}

// createMeta makes the meta.db of a new log with its first term.
func createMeta(dir string, term protocol.Term) error {
	tmp := filepath.Join(dir, metaFile+".tmp")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := openBolt(tmp, boltOptions{mapped: metaMapped})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range metaBuckets() {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		if err := tx.Bucket(bucketInfo).Put(keyFormat, key(logFormat)); err != nil {
			return err
		}
		return putChain(tx, chain(nil).next(term, 0))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	return renameSync(tmp, filepath.Join(dir, metaFile))
}

// openMeta checks and opens meta.db, without a change to it.
func openMeta(dir string) (*meta, error) {
	m := &meta{path: filepath.Join(dir, metaFile)}
	if err := checkPages(m.path); err != nil {
		return nil, err
	}
	db, err := openBolt(m.path, boltOptions{mapped: metaMapped})
	if err != nil {
		return nil, err
	}
	m.db = db
	return m, db.Sync()
}

// openMetaToRead does the same for somebody who will change nothing.
func openMetaToRead(dir string) (*meta, error) {
	m := &meta{path: filepath.Join(dir, metaFile)}
	if err := checkPages(m.path); err != nil {
		return nil, err
	}
	db, err := openBolt(m.path, boltOptions{readOnly: true})
	m.db = db
	return m, err
}

func (m *meta) load() (metaState, error) {
	s := metaState{sealed: make(map[uint64]segmentInfo)}
	err := view(m.db, m.path, func(tx *bbolt.Tx) error {
		info := tx.Bucket(bucketInfo)
		for _, name := range metaBuckets() {
			if tx.Bucket(name) == nil {
				return fmt.Errorf("%w: it has no bucket %s", errDamaged, name)
			}
		}
		if v := number(info.Get(keyFormat)); v != logFormat {
			return fmt.Errorf("%s has format %d, this program knows format %d: use the version of tidewire that wrote it", m.path, v, logFormat)
		}
		s.trimmed, s.evicted = number(info.Get(keyTrimmed)), number(info.Get(keyEvicted))
		s.began = number(info.Get(keyBegan))
		s.earliest, s.newest = max(number(info.Get(keyEarliest)), 1), number(info.Get(keyNewest))
		var err error
		if s.terms, err = readChain(tx); err != nil {
			return err
		}
		return tx.Bucket(bucketSegments).ForEach(func(k, v []byte) error {
			i, err := decodeInfo(v)
			s.sealed[number(k)] = i
			return err
		})
	})
	return s, err
}

// setChain replaces the chain of terms.
func (m *meta) setChain(c chain) error {
	return m.update(func(tx *bbolt.Tx) error { return putChain(tx, c) })
}

func (m *meta) update(fn func(*bbolt.Tx) error) error {
	return guard(m.path, func() error { return m.db.Update(fn) })
}

// lastOf returns the offset of the newest record of the topic in the sealed
// segments; known is false if they have none.
func (m *meta) lastOf(topic string) (offset uint64, known bool, err error) {
	err = view(m.db, m.path, func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketLast).Get([]byte(topic))
		if v == nil {
			return nil
		}
		if offset, known = decodeLast([]byte(topic), v); !known {
			return errLast
		}
		return nil
	})
	return offset, known, err
}

var errLast = fmt.Errorf("%w: what it has of the newest record of a topic does not match its checksum", errDamaged)

// dropLast forgets those of the topics that have nothing after the offset.
func (m *meta) dropLast(topics [][]byte, through uint64) error {
	return m.update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketLast)
		for _, t := range topics {
			if v := b.Get(t); len(v) < 8 || number(v[:8]) > through {
				continue
			}
			if err := b.Delete(t); err != nil {
				return err
			}
		}
		return nil
	})
}

// encodeLast returns what the bucket last has for a topic: the offset and a
// checksum of both.
func encodeLast(topic []byte, offset uint64) []byte {
	v := key(offset)
	sum := crc32.Update(crc32.Checksum(topic, castagnoli), castagnoli, v)
	return binary.BigEndian.AppendUint32(v, sum)
}

// decodeLast reads what encodeLast wrote; ok is false if it is damaged.
func decodeLast(topic, v []byte) (offset uint64, ok bool) {
	if len(v) != 8+crcBytes {
		return 0, false
	}
	offset = number(v[:8])
	return offset, bytes.Equal(v, encodeLast(topic, offset))
}

func putChain(tx *bbolt.Tx, c chain) error {
	if err := tx.DeleteBucket(bucketTerms); err != nil {
		return err
	}
	b, err := tx.CreateBucket(bucketTerms)
	if err != nil {
		return err
	}
	for _, s := range c {
		if err := b.Put(key(s.first), key(uint64(s.term))); err != nil {
			return err
		}
	}
	return nil
}

func readChain(tx *bbolt.Tx) (chain, error) {
	var c chain
	err := tx.Bucket(bucketTerms).ForEach(func(k, v []byte) error {
		if len(k) != 8 || len(v) != 8 {
			return fmt.Errorf("%w: a term cannot be read", errDamaged)
		}
		c = append(c, termSpan{protocol.Term(number(v)), number(k)})
		return nil
	})
	if err == nil && (len(c) == 0 || c[0].first != 0) {
		return nil, fmt.Errorf("%w: the chain of terms has no beginning", errDamaged)
	}
	return c, err
}

// key writes a number so that keys sort as numbers do.
func key(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// number reads what key wrote; 0 if it is not there.
func number(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
