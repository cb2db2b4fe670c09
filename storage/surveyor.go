package storage

import (
	"encoding/binary"
	"os"

	"go.etcd.io/bbolt"

	"github.com/tidewire/tidewire/storage/boltfile"
)

// surveyor walks over the pages of a damaged segment and takes the blocks that
// make sense.
type surveyor struct {
	boltfile.Walk
	terms   chain  // nil if they are not known
	first   uint64 // offsets that may be in the file
	through uint64

	places []place
	rows   uint64 // sound digest rows
	lost   uint64 // time of the newest block whose digest rows are not
}

// maxBlockKey is more than any key on the way to a block has.
const maxBlockKey = 16

// newSurveyor begins with a file that may have the offsets from first up to
// through. terms is nil if they are not known.
func newSurveyor(f *os.File, terms chain, first, through uint64) *surveyor {
	return &surveyor{Walk: boltfile.Walk{From: f, MaxKey: maxBlockKey}, terms: terms, first: first, through: through}
}

// file walks over the blocks of a segment. One that is still written to is held
// by a transaction meanwhile, so that no page is used again.
func (w *surveyor) file(l *core, s *segment) {
	_ = l.handles.view(s, func(tx *bbolt.Tx) error {
		w.Extend(uint64(tx.Size()) / boltfile.PageBytes)
		w.Tree(uint64(tx.Bucket(bucketBlocks).Root()), w.block)
		return nil
	})
	// Beside what bbolt takes for the root there is the transaction before: as a
	// rule it leads to the same pages, from another one.
	for slot := range int64(2) {
		if m, ok := boltfile.ReadMeta(w.From, slot); ok && m.PageSize == boltfile.PageBytes {
			w.Extend(m.End)
			w.Tree(m.Root, func(e boltfile.Element) {
				if e.Bucket && string(e.Key) == string(bucketBlocks) {
					w.Inside(e, w.block)
				}
			})
		}
	}
}

// block takes a block, if its front is sound and it belongs here.
func (w *surveyor) block(e boltfile.Element) {
	if e.Bucket {
		first := number(e.Key)
		w.Inside(e, func(v boltfile.Element) {
			if string(v.Key) == string(blockKey) && !v.Bucket {
				w.take(first, v)
			}
		})
		return
	}
	w.take(number(e.Key), e)
}

func (w *surveyor) take(first uint64, e boltfile.Element) {
	b, ok := w.front(e)
	if !ok || b.first != first || b.first < w.first || b.last() > w.through {
		return
	}
	if w.terms != nil && (w.terms.at(b.first) != b.term || w.terms.at(b.last()) != b.term) {
		return
	}
	w.places = append(w.places, place{first: b.first, last: b.last(), time: b.time, at: e.At, size: e.Size})
	if _, err := b.digests(); err == nil {
		w.rows += uint64(b.rows)
	} else if b.rows > 0 {
		w.lost = max(w.lost, b.time)
	}
}

// front reads a block without its records.
func (w *surveyor) front(e boltfile.Element) (block, bool) {
	head := w.Read(e.At, min(headerBytes, e.Size))
	if len(head) < headerBytes {
		return block{}, false
	}
	le := binary.LittleEndian
	count, rows := int(le.Uint32(head[32:])), int(le.Uint32(head[40:]))
	size := headerBytes + count*slotBytes + crcBytes + rows*rowBytes + crcBytes + noteBytes(int(le.Uint16(head[6:])))
	if size > e.Size {
		return block{}, false
	}
	b, err := openFront(w.Read(e.At, size), e.Size)
	return b, err == nil
}
