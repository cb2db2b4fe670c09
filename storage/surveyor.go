package storage

import (
	"encoding/binary"
	"hash/fnv"
	"io"

	"go.etcd.io/bbolt"
)

// surveyor walks over the pages of a damaged file and takes what makes sense; a
// page that does not is left out with all that only it leads to.
type surveyor struct {
	r       io.ReaderAt
	terms   chain  // nil if they are not known
	first   uint64 // offsets that may be in the file
	through uint64
	pages   uint64
	seen    map[uint64]bool

	places []place
	rows   uint64 // sound digest rows
	lost   uint64 // time of the newest block whose digest rows are not
}

// maxBlockKey is more than any key on the way to a block has.
const maxBlockKey = 16

// element is one entry of a leaf page.
type element struct {
	bucket bool
	key    []byte
	at     int64 // of the value in the file
	size   int
}

// file walks over the blocks of a segment. One that is still written to is held
// by a transaction meanwhile, so that no page is used again.
func (w *surveyor) file(l *Log, s *segment) {
	_ = l.handles.view(s, func(tx *bbolt.Tx) error {
		w.pages = uint64(tx.Size()) / pageBytes
		w.tree(uint64(tx.Bucket(bucketBlocks).Root()), w.block)
		return nil
	})
	// Beside what bbolt takes for the root there is the transaction before: as a
	// rule it leads to the same pages, from another one.
	for id := range int64(2) {
		if root, end, ok := w.meta(id); ok {
			w.pages = max(w.pages, end)
			w.tree(root, func(e element) {
				if e.bucket && string(e.key) == string(bucketBlocks) {
					w.inside(e, w.block)
				}
			})
		}
	}
}

// meta reads one of the two meta pages.
func (w *surveyor) meta(id int64) (root, end uint64, ok bool) {
	var b [pageHeadBytes + metaFieldBytes]byte
	if _, err := w.r.ReadAt(b[:], id*pageBytes); err != nil {
		return 0, 0, false
	}
	le, m := binary.LittleEndian, b[pageHeadBytes:]
	sum := fnv.New64a()
	_, _ = sum.Write(m[:56])
	ok = le.Uint32(m) == boltMagic && le.Uint32(m[4:]) == boltVersion && le.Uint32(m[8:]) == pageBytes && le.Uint64(m[56:]) == sum.Sum64()
	return le.Uint64(m[16:]), le.Uint64(m[40:]), ok
}

// block takes a block, if its front is sound and it belongs here.
func (w *surveyor) block(e element) {
	if e.bucket {
		first := number(e.key)
		w.inside(e, func(v element) {
			if string(v.key) == string(blockKey) && !v.bucket {
				w.take(first, v)
			}
		})
		return
	}
	w.take(number(e.key), e)
}

func (w *surveyor) take(first uint64, e element) {
	b, ok := w.front(e)
	if !ok || b.first != first || b.first < w.first || b.last() > w.through {
		return
	}
	if w.terms != nil && (w.terms.at(b.first) != b.term || w.terms.at(b.last()) != b.term) {
		return
	}
	w.places = append(w.places, place{first: b.first, last: b.last(), time: b.time, at: e.at, size: e.size})
	if _, err := b.digests(); err == nil {
		w.rows += uint64(b.rows)
	} else if b.rows > 0 {
		w.lost = max(w.lost, b.time)
	}
}

// front reads a block without its records.
func (w *surveyor) front(e element) (block, bool) {
	head := w.read(e.at, min(headerBytes, e.size))
	if len(head) < headerBytes {
		return block{}, false
	}
	le := binary.LittleEndian
	count, rows := int(le.Uint32(head[32:])), int(le.Uint32(head[40:]))
	size := headerBytes + count*slotBytes + crcBytes + rows*rowBytes + crcBytes
	if size > e.size {
		return block{}, false
	}
	b, err := openFront(w.read(e.at, size), e.size)
	return b, err == nil
}

// read returns n bytes of the file, nil if they cannot be had.
func (w *surveyor) read(at int64, n int) []byte {
	if n < 0 || at < 0 || uint64(at)+uint64(n) > w.pages*pageBytes {
		return nil
	}
	b := make([]byte, n)
	if _, err := w.r.ReadAt(b, at); err != nil {
		return nil
	}
	return b
}

// tree calls leaf with each element of the leaves that a page leads to.
func (w *surveyor) tree(id uint64, leaf func(element)) {
	if w.seen == nil {
		w.seen = make(map[uint64]bool)
	}
	if id < 2 || id >= w.pages || w.seen[id] {
		return
	}
	w.seen[id] = true
	page := w.read(int64(id)*pageBytes, pageBytes)
	le := binary.LittleEndian
	if page == nil || le.Uint64(page) != id || uint64(le.Uint32(page[12:])) >= w.pages-id {
		return
	}
	w.elements(page, int64(id)*pageBytes, (int(le.Uint32(page[12:]))+1)*pageBytes, leaf)
}

// inside walks over a bucket that lies in an element.
func (w *surveyor) inside(e element, leaf func(element)) {
	head := w.read(e.at, min(bucketBytes, e.size))
	if len(head) < bucketBytes {
		return
	}
	if root := binary.LittleEndian.Uint64(head); root != 0 {
		w.tree(root, leaf)
		return
	}
	if page := w.read(e.at+bucketBytes, e.size-bucketBytes); len(page) >= pageHeadBytes {
		w.elements(page, e.at+bucketBytes, len(page), leaf)
	}
}

// elements goes through a page of limit bytes at a place of the file. page is
// its beginning.
func (w *surveyor) elements(page []byte, at int64, limit int, leaf func(element)) {
	le := binary.LittleEndian
	kind, count := le.Uint16(page[8:]), int(le.Uint16(page[10:]))
	if kind != pageBranch && kind != pageLeaf || pageHeadBytes+count*elementBytes > limit {
		return
	}
	heads := page[pageHeadBytes:]
	if n := count * elementBytes; n > len(heads) {
		heads = w.read(at+pageHeadBytes, n)
	}
	for i := range min(count, len(heads)/elementBytes) {
		head := heads[i*elementBytes:]
		if kind == pageBranch {
			w.tree(le.Uint64(head[8:]), leaf)
			continue
		}
		pos := pageHeadBytes + i*elementBytes + int(le.Uint32(head[4:]))
		ksize, vsize := int(le.Uint32(head[8:])), int(le.Uint32(head[12:]))
		if ksize > maxBlockKey || pos+ksize+vsize > limit {
			continue
		}
		leaf(element{
			bucket: le.Uint32(head)&elementBucket != 0,
			key:    w.read(at+int64(pos), ksize),
			at:     at + int64(pos+ksize),
			size:   vsize,
		})
	}
}
