package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrDamaged is wrapped by everything that says that a file does not hold together.
var ErrDamaged = errors.New("damaged")

// PageBytes is the size of a page.
const PageBytes = 4096

const (
	pageHeadBytes  = 16
	elementBytes   = 16
	bucketBytes    = 16
	pageBranch     = 0x01
	pageLeaf       = 0x02
	elementBucket  = 0x01
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	metaFieldBytes = 64
	metaSumAt      = 56 // in them
	maxPageDepth   = 64
)

// pageFile is a bbolt file under examination.
type pageFile struct {
	r    io.ReaderAt
	root uint64
	end  uint64 // number of pages in use
	seen []bool
}

// Check returns an error if a file of so many bytes does not hold together: it
// wraps [ErrDamaged], or says that the file cannot be read. Values of keys are not
// looked at.
func Check(r io.ReaderAt, size int64) error {
	p := &pageFile{r: r}
	if err := p.readMeta(); err != nil {
		return err
	}
	if p.end > uint64(size)/PageBytes {
		return fmt.Errorf("%w: it has been cut short to %d bytes", ErrDamaged, size)
	}
	p.seen = make([]bool, p.end)
	return p.page(p.root, 0, keyRange{})
}

// readMeta finds the newer one of the two meta pages.
func (p *pageFile) readMeta() error {
	m, found := ReadMeta(p.r, 0)
	if other, ok := ReadMeta(p.r, 1); ok && (!found || other.TxID > m.TxID) {
		m, found = other, true
	}
	switch {
	case !found:
		return fmt.Errorf("%w: it does not begin like a file of this program", ErrDamaged)
	case m.PageSize != PageBytes:
		return fmt.Errorf("%w: its pages have %d bytes and not %d", ErrDamaged, m.PageSize, PageBytes)
	}
	p.root, p.end = m.Root, m.End
	return nil
}

// page checks a page and all that it leads to.
func (p *pageFile) page(id uint64, depth int, keys keyRange) error {
	if id < 2 || id >= p.end || depth > maxPageDepth {
		return fmt.Errorf("%w: page %d cannot be", ErrDamaged, id)
	}
	b := make([]byte, PageBytes)
	if _, err := p.r.ReadAt(b, int64(id)*PageBytes); err != nil {
		return fmt.Errorf("read page %d: %w", id, err)
	}
	le := binary.LittleEndian
	overflow := uint64(le.Uint32(b[12:]))
	if le.Uint64(b) != id || overflow >= p.end-id {
		return fmt.Errorf("%w: page %d is not what it should be", ErrDamaged, id)
	}
	for i := id; i <= id+overflow; i++ {
		if p.seen[i] {
			return fmt.Errorf("%w: page %d is used twice", ErrDamaged, i)
		}
		p.seen[i] = true
	}
	e := elements{
		b:     b,
		limit: int(overflow+1) * PageBytes,
		more:  func(b []byte) error { _, err := p.r.ReadAt(b, int64(id)*PageBytes); return err },
	}
	return p.elements(&e, id, depth, keys)
}

// elements is the content of a page, or of a bucket that lies within one. Only
// the first page of a long one is read as long as the rest is not needed.
type elements struct {
	b     []byte
	limit int
	more  func([]byte) error
}

// slice returns n bytes, or nil if they lie outside.
func (e *elements) slice(at, n int) ([]byte, error) {
	if at < 0 || n < 0 || at > e.limit || n > e.limit-at {
		return nil, fmt.Errorf("%w: an element lies outside its page", ErrDamaged)
	}
	if at+n > len(e.b) {
		e.b = make([]byte, e.limit)
		if err := e.more(e.b); err != nil {
			return nil, err
		}
	}
	return e.b[at : at+n], nil
}

// keyRange is where the keys of a page must lie: a page that a power cut left old
// may hold keys that now belong to its neighbour. nil is no bound.
type keyRange struct{ from, below []byte }

// check holds the next key against the one before and the range.
func (r keyRange) check(before, key []byte) error {
	if before != nil && bytes.Compare(before, key) >= 0 ||
		before == nil && bytes.Compare(key, r.from) < 0 ||
		r.below != nil && bytes.Compare(key, r.below) >= 0 {
		return fmt.Errorf("%w: the keys of a page are not in order", ErrDamaged)
	}
	return nil
}

func (p *pageFile) elements(e *elements, id uint64, depth int, keys keyRange) error {
	le := binary.LittleEndian
	head, err := e.slice(0, pageHeadBytes)
	if err != nil {
		return err
	}
	kind, count := le.Uint16(head[8:]), int(le.Uint16(head[10:]))
	switch {
	case kind == pageBranch && count > 0:
		return p.branch(e, count, depth, keys)
	case kind != pageLeaf:
		return fmt.Errorf("%w: page %d is of no known kind", ErrDamaged, id)
	}
	var before []byte
	for i := range count {
		at := pageHeadBytes + i*elementBytes
		head, err := e.slice(at, elementBytes)
		if err != nil {
			return err
		}
		key, err := p.leaf(e, at, head, depth)
		if err == nil {
			err = keys.check(before, key)
		}
		if err != nil {
			return err
		}
		before = key
	}
	return nil
}

// branch checks the elements of a branch page and the pages they lead to.
func (p *pageFile) branch(e *elements, count, depth int, keys keyRange) error {
	le := binary.LittleEndian
	firsts, children := make([][]byte, count), make([]uint64, count)
	var before []byte
	for i := range count {
		at := pageHeadBytes + i*elementBytes
		head, err := e.slice(at, elementBytes)
		if err != nil {
			return err
		}
		children[i] = le.Uint64(head[8:])
		if firsts[i], err = e.slice(at+int(le.Uint32(head)), int(le.Uint32(head[4:]))); err != nil {
			return err
		}
		if err := keys.check(before, firsts[i]); err != nil {
			return err
		}
		before = firsts[i]
	}
	for i, child := range children {
		of := keyRange{firsts[i], keys.below}
		if i+1 < count {
			of.below = firsts[i+1]
		}
		if err := p.page(child, depth+1, of); err != nil {
			return err
		}
	}
	return nil
}

// leaf checks one element of a leaf and returns its key.
func (p *pageFile) leaf(e *elements, at int, head []byte, depth int) ([]byte, error) {
	le := binary.LittleEndian
	flags, pos := le.Uint32(head), int(le.Uint32(head[4:]))
	ksize, vsize := int(le.Uint32(head[8:])), int(le.Uint32(head[12:]))
	if pos+ksize+vsize > e.limit-at {
		return nil, fmt.Errorf("%w: a value lies outside its page", ErrDamaged)
	}
	key, err := e.slice(at+pos, ksize)
	if err != nil || flags&elementBucket == 0 {
		return key, err
	}
	value, err := e.slice(at+pos+ksize, vsize)
	if err != nil {
		return nil, err
	}
	if vsize < bucketBytes {
		return nil, fmt.Errorf("%w: a bucket is too small", ErrDamaged)
	}
	if root := le.Uint64(value); root != 0 {
		return key, p.page(root, depth+1, keyRange{})
	}
	inline := elements{b: value[bucketBytes:], limit: vsize - bucketBytes}
	if vsize < bucketBytes+pageHeadBytes || le.Uint16(inline.b[8:]) != pageLeaf {
		return nil, fmt.Errorf("%w: a bucket in a page makes no sense", ErrDamaged)
	}
	return key, p.elements(&inline, 0, depth+1, keyRange{})
}
