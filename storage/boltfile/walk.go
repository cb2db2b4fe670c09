package boltfile

import (
	"encoding/binary"
	"io"
)

// A Walk goes over the pages of a damaged file and takes what makes sense; a page
// that does not is left out with all that only it leads to, and no page is taken
// twice.
type Walk struct {
	From   io.ReaderAt
	MaxKey int // elements with longer keys are left out

	pages uint64
	seen  map[uint64]bool
}

// Element is one entry of a leaf page.
type Element struct {
	Bucket bool
	Key    []byte
	At     int64 // of the value in the file
	Size   int
}

// Extend says that the file has so many pages, unless it has more already.
func (w *Walk) Extend(pages uint64) { w.pages = max(w.pages, pages) }

// Read returns n bytes of the file, nil if they cannot be had.
func (w *Walk) Read(at int64, n int) []byte {
	if n < 0 || at < 0 || uint64(at)+uint64(n) > w.pages*PageBytes {
		return nil
	}
	b := make([]byte, n)
	if _, err := w.From.ReadAt(b, at); err != nil {
		return nil
	}
	return b
}

// Tree calls leaf with each element of the leaves that a page leads to.
func (w *Walk) Tree(id uint64, leaf func(Element)) {
	if w.seen == nil {
		w.seen = make(map[uint64]bool)
	}
	if id < 2 || id >= w.pages || w.seen[id] {
		return
	}
	w.seen[id] = true
	page := w.Read(int64(id)*PageBytes, PageBytes)
	le := binary.LittleEndian
	if page == nil || le.Uint64(page) != id || uint64(le.Uint32(page[12:])) >= w.pages-id {
		return
	}
	w.elements(page, int64(id)*PageBytes, (int(le.Uint32(page[12:]))+1)*PageBytes, leaf)
}

// Inside walks over a bucket that lies in an element.
func (w *Walk) Inside(e Element, leaf func(Element)) {
	head := w.Read(e.At, min(bucketBytes, e.Size))
	if len(head) < bucketBytes {
		return
	}
	if root := binary.LittleEndian.Uint64(head); root != 0 {
		w.Tree(root, leaf)
		return
	}
	if page := w.Read(e.At+bucketBytes, e.Size-bucketBytes); len(page) >= pageHeadBytes {
		w.elements(page, e.At+bucketBytes, len(page), leaf)
	}
}

// elements goes through a page of limit bytes at a place of the file. page is
// its beginning.
func (w *Walk) elements(page []byte, at int64, limit int, leaf func(Element)) {
	le := binary.LittleEndian
	kind, count := le.Uint16(page[8:]), int(le.Uint16(page[10:]))
	if kind != pageBranch && kind != pageLeaf || pageHeadBytes+count*elementBytes > limit {
		return
	}
	heads := page[pageHeadBytes:]
	if n := count * elementBytes; n > len(heads) {
		heads = w.Read(at+pageHeadBytes, n)
	}
	for i := range min(count, len(heads)/elementBytes) {
		head := heads[i*elementBytes:]
		if kind == pageBranch {
			w.Tree(le.Uint64(head[8:]), leaf)
			continue
		}
		pos := pageHeadBytes + i*elementBytes + int(le.Uint32(head[4:]))
		ksize, vsize := int(le.Uint32(head[8:])), int(le.Uint32(head[12:]))
		if ksize > w.MaxKey || pos+ksize+vsize > limit {
			continue
		}
		leaf(Element{
			Bucket: le.Uint32(head)&elementBucket != 0,
			Key:    w.Read(at+int64(pos), ksize),
			At:     at + int64(pos+ksize),
			Size:   vsize,
		})
	}
}
