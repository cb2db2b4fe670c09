package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/tidewire/tidewire/protocol"
)

// segment is a file of blocks. The active segment grows; a full one waits to be
// sealed; a sealed one never changes and its file is opened when it is read.
//
// Its buckets are info, index (topic -> postings, written when it is sealed) and
// blocks. A block has the offset of its first slot as key. A small one is a
// plain value; a large one lies in a bucket of its own, under blockKey: a leaf
// of up to four plain values never splits, so large ones would be written again
// and again by the commits after theirs.
type segment struct {
	log     protocol.Term // first term of its log
	ordinal uint64
	path    string
	first   uint64 // offset of its first slot; set when it becomes active

	// The log's mu guards these. index is nil once the segment is sealed: it
	// is in the file then.
	info  segmentInfo
	index *topicIndex

	mu       sync.Mutex
	unused   sync.Cond // refs has become 0, or the file has changed hands
	db       *bbolt.DB
	file     *os.File // of a handle that writes
	size     int64    // length of the file while it is written
	refs     int      // readers and the writer
	retiring bool     // nobody may begin to read for a moment
	removed  bool
	begun    bool // its index has been begun: nothing may be added
}

// segmentInfo is what is known of a segment's contents.
type segmentInfo struct {
	first     uint64 // offsets
	last      uint64 // 0 if it is empty
	firstTime uint64 // times of the first and the last commit, in microseconds
	lastTime  uint64
	records   uint64
	rows      uint64 // digest rows
	size      uint64 // bytes of the file in use
}

const (
	segmentSuffix = ".seg"
	smallBlock    = 1000     // bytes up to which a block is a plain value
	pageSlack     = 48 << 10 // what a commit writes beside its block, at most
	minSegment    = 256 << 10
)

var (
	bucketBlocks = []byte("blocks")
	bucketIndex  = []byte("index")
	blockKey     = []byte("b")
)

// newSegment returns the log's segment of that ordinal, whose file may or may not
// exist.
func (l *core) newSegment(ordinal uint64) *segment {
	s := &segment{
		log:     l.terms[0].term,
		ordinal: ordinal,
		path:    filepath.Join(l.dir, fmt.Sprintf("%08d%s", ordinal, segmentSuffix)),
	}
	s.unused.L = &s.mu
	return s
}

// parseOrdinal reads the name of a segment's file.
func parseOrdinal(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, ok && err == nil && n > 0 && fmt.Sprintf("%08d", n) == digits
}

// create makes the segment's file, empty but ready for use, under a temporary
// name first: it is there as a whole or not at all. It has its full length from
// the start, as a hole, so that no commit has to change that. Allocated space
// would be the obvious way, but turning it into written space makes each commit a
// fifth slower; a write that finds no space fails before anything is synced.
func (s *segment) create(mapped, size int64) error {
	tmp := s.path + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := openBolt(tmp, boltOptions{mapped: mapped, file: &s.file})
	if err != nil {
		return err
	}
	err = s.extend(size)
	if err == nil {
		err = db.Update(s.init)
	}
	if err == nil {
		err = renameSync(tmp, s.path)
	}
	if err != nil {
		_ = db.Close()
		_ = os.Remove(tmp)
		return err
	}
	s.db = db
	return nil
}

func (s *segment) init(tx *bbolt.Tx) error {
	info, err := tx.CreateBucket(bucketInfo)
	if err != nil {
		return err
	}
	for _, name := range [][]byte{bucketBlocks, bucketIndex} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return errors.Join(
		info.Put(keyFormat, key(logFormat)),
		info.Put(keyOrdinal, key(s.ordinal)),
		info.Put(keyLog, key(uint64(s.log))),
		stamp(tx, 0))
}

// openWritable opens the file of a segment that is not sealed, verifies it and
// rebuilds its index, without a change to it.
func (s *segment) openWritable(mapped int64, terms chain) error {
	if err := checkPages(s.path); err != nil {
		return err
	}
	db, err := openBolt(s.path, boltOptions{mapped: mapped, file: &s.file})
	if err != nil {
		return err
	}
	stat, err := s.file.Stat()
	if err == nil {
		err = s.file.Sync()
	}
	if err == nil {
		err = view(db, s.path, s.identify)
	}
	if err == nil {
		s.db, s.size = db, stat.Size()
		err = s.rebuild(terms)
	}
	if err != nil {
		s.db, s.index, s.info = nil, nil, segmentInfo{}
		_ = db.Close()
		return err
	}
	return nil
}

// openSealed opens the file of a sealed segment. bbolt goes back to the
// transaction before if the newest one's root cannot be read; the mark that
// comes with the last slice of the index tells.
func (s *segment) openSealed() (*bbolt.DB, error) {
	db, err := openBolt(s.path, boltOptions{readOnly: true})
	if err != nil {
		return nil, err
	}
	err = view(db, s.path, func(tx *bbolt.Tx) error {
		if err := s.identify(tx); err != nil {
			return err
		}
		if tx.Bucket(bucketInfo).Get(keySealed) == nil {
			return fmt.Errorf("%w: its index is not complete", errDamaged)
		}
		return nil
	})
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
}

// identify checks that the file is this segment of this log.
func (s *segment) identify(tx *bbolt.Tx) error {
	for _, name := range [][]byte{bucketInfo, bucketBlocks, bucketIndex} {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("%w: it has no bucket %s", errDamaged, name)
		}
	}
	info := tx.Bucket(bucketInfo)
	switch {
	case number(info.Get(keyFormat)) != logFormat:
		return fmt.Errorf("%s has format %d, this program knows format %d: use the version of tidewire that wrote it", s.path, number(info.Get(keyFormat)), logFormat)
	case number(info.Get(keyOrdinal)) != s.ordinal, number(info.Get(keyLog)) != uint64(s.log):
		return fmt.Errorf("%s belongs to another log or has been renamed: put the right file in its place", s.path)
	}
	return nil
}

// extend makes the file at least so long, as a hole. Only whoever writes to it
// may call it.
func (s *segment) extend(size int64) error {
	if size <= s.size {
		return nil
	}
	if err := s.file.Truncate(size); err != nil {
		return err
	}
	s.size = size
	return nil
}

// blockCursor walks over the blocks of a segment within a transaction.
type blockCursor struct {
	blocks *bbolt.Bucket
	cursor *bbolt.Cursor
}

func newBlockCursor(tx *bbolt.Tx) blockCursor {
	b := tx.Bucket(bucketBlocks)
	return blockCursor{b, b.Cursor()}
}

// The moves return the block they lead to; ok is false if there is none.

func (c blockCursor) start() (b block, ok bool, err error) { return c.open(c.cursor.First()) }
func (c blockCursor) end() (b block, ok bool, err error)   { return c.open(c.cursor.Last()) }
func (c blockCursor) next() (b block, ok bool, err error)  { return c.open(c.cursor.Next()) }
func (c blockCursor) prev() (b block, ok bool, err error)  { return c.open(c.cursor.Prev()) }

func (c blockCursor) damaged() bool { return false }

// seek moves to the block that holds the offset.
func (c blockCursor) seek(offset uint64) (b block, ok bool, err error) {
	k, v := c.cursor.Seek(key(offset))
	if k == nil {
		k, v = c.cursor.Last()
	} else if number(k) > offset {
		k, v = c.cursor.Prev()
	}
	b, ok, err = c.open(k, v)
	if ok && (b.first > offset || b.last() < offset) {
		return block{}, false, nil
	}
	return b, ok, err
}

func (c blockCursor) open(k, v []byte) (block, bool, error) {
	if k == nil {
		return block{}, false, nil
	}
	if v == nil {
		if own := c.blocks.Bucket(k); own != nil {
			v = own.Get(blockKey)
		}
	}
	b, err := openBlock(v)
	if err == nil && number(k) != b.first {
		err = fmt.Errorf("%w: the block at offset %d says that it begins at %d", errDamaged, number(k), b.first)
	}
	return b, err == nil, err
}

// add notes a block that has been stored.
func (i *segmentInfo) add(b *block) {
	if i.last == 0 {
		i.first, i.firstTime = b.first, b.time
	}
	i.last, i.lastTime = b.last(), b.time
	i.records += uint64(b.records)
	i.rows += uint64(b.rows)
}

const infoBytes = 7 * 8

func (i *segmentInfo) encode() []byte {
	b := make([]byte, 0, infoBytes)
	for _, n := range []uint64{i.first, i.last, i.firstTime, i.lastTime, i.records, i.rows, i.size} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return b
}

func decodeInfo(b []byte) (segmentInfo, error) {
	if len(b) != infoBytes {
		return segmentInfo{}, fmt.Errorf("%w: what is known of a segment cannot be read", errDamaged)
	}
	var i segmentInfo
	for at, n := range []*uint64{&i.first, &i.last, &i.firstTime, &i.lastTime, &i.records, &i.rows, &i.size} {
		*n = binary.LittleEndian.Uint64(b[at*8:])
	}
	return i, nil
}
