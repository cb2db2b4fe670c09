package disk

import (
	"maps"
	"math/rand/v2"
	"slices"
)

const (
	pageSize   = 4096
	sectorSize = 512
)

type page [pageSize]byte

// zeroPage stands for allocated pages that nobody has written to.
var zeroPage page

// image is one state of a file. A page that is not in the map is a hole.
type image struct {
	size  int64
	pages map[int64]*page
}

// file is the content of a file, as written and as durable.
//
// Invariants: a page that is not in dirty is shared by the images, or was lost
// by a sync that failed; it is copied before it is changed. Bytes behind the
// size are zero in now.
type file struct {
	now     image
	durable image
	dirty   map[int64]struct{} // pages in which now differs from durable
}

func newFile() *file {
	return &file{
		now:     image{pages: map[int64]*page{}},
		durable: image{pages: map[int64]*page{}},
		dirty:   map[int64]struct{}{},
	}
}

// pagesIn returns the range of pages that n bytes at off touch.
func pagesIn(off, n int64) (first, end int64) {
	return off / pageSize, (off + n + pageSize - 1) / pageSize
}

// missing counts the holes in a range of bytes.
func (f *file) missing(off, n int64) int64 {
	holes := int64(0)
	for i, end := pagesIn(off, n); i < end; i++ {
		if f.now.pages[i] == nil {
			holes++
		}
	}
	return holes
}

// fill turns the holes in a range of bytes into pages.
func (f *file) fill(off, n int64) {
	for i, end := pagesIn(off, n); i < end; i++ {
		if f.now.pages[i] == nil {
			f.now.pages[i] = &zeroPage
			f.dirty[i] = struct{}{}
		}
	}
}

// own returns a page that may be changed.
func (f *file) own(i int64) *page {
	p := f.now.pages[i]
	if _, dirty := f.dirty[i]; dirty && p != nil && p != &zeroPage {
		return p
	}
	c := new(page)
	if p != nil {
		*c = *p
	}
	f.now.pages[i] = c
	f.dirty[i] = struct{}{}
	return c
}

func (f *file) write(b []byte, off int64) {
	f.now.size = max(f.now.size, off+int64(len(b)))
	for len(b) > 0 {
		n := copy(f.own(off / pageSize)[off%pageSize:], b)
		b, off = b[n:], off+int64(n)
	}
}

func (f *file) read(b []byte, off int64) int {
	if off >= f.now.size {
		return 0
	}
	b = b[:min(int64(len(b)), f.now.size-off)]
	for rest := b; len(rest) > 0; {
		p := f.now.pages[off/pageSize]
		if p == nil {
			p = &zeroPage
		}
		n := copy(rest, p[off%pageSize:])
		rest, off = rest[n:], off+int64(n)
	}
	return len(b)
}

func (f *file) truncate(size int64) {
	if size < f.now.size {
		_, end := pagesIn(0, size)
		for i := range f.now.pages {
			if i >= end {
				delete(f.now.pages, i)
				f.dirty[i] = struct{}{}
			}
		}
		if f.now.pages[size/pageSize] != nil && size%pageSize != 0 {
			clear(f.own(size / pageSize)[size%pageSize:])
		}
	}
	f.now.size = size
}

// persist makes one page durable.
func (f *file) persist(i int64) {
	if p := f.now.pages[i]; p != nil {
		f.durable.pages[i] = p
	} else {
		delete(f.durable.pages, i)
	}
	delete(f.dirty, i)
}

func (f *file) sync() {
	for i := range f.dirty {
		f.persist(i)
	}
	f.durable.size = f.now.size
}

// syncFailing is what a failed sync does: some pages get to the disk, the others
// count as written from now on, and never will be.
func (f *file) syncFailing(rng *rand.Rand) {
	for _, i := range f.dirtyPages() {
		if rng.IntN(2) == 0 {
			f.persist(i)
		}
	}
	clear(f.dirty)
}

// writeBack makes one of the dirty pages durable, as a kernel does when it has
// the time.
func (f *file) writeBack(rng *rand.Rand) {
	for i := range f.dirty {
		if f.now.pages[i] != nil && rng.IntN(4) == 0 {
			f.persist(i)
		}
		return
	}
}

func (f *file) dirtyPages() []int64 { return slices.Sorted(maps.Keys(f.dirty)) }

// forget gives up what was written. What is durable stays.
func (f *file) forget() {
	f.now = image{size: f.durable.size, pages: map[int64]*page{}}
	clear(f.dirty)
}

// cut makes both images what is left after a power cut, where each dirty page
// is kept with the probability keep. It returns how many pages were lost or
// torn.
func (f *file) cut(rng *rand.Rand, keep float64) (lost int) {
	resized := rng.Float64() < keep
	for _, i := range f.dirtyPages() {
		switch {
		case f.now.pages[i] == nil && !resized:
			// Cut off by a truncation that never was.
		case rng.Float64() < keep:
			f.persist(i)
		case rng.IntN(4) == 0:
			f.tear(rng, i)
			lost++
		default:
			lost++
		}
	}
	if resized {
		f.durable.size = f.now.size
	}
	f.now = image{size: f.durable.size, pages: maps.Clone(f.durable.pages)}
	clear(f.dirty)
	_, end := pagesIn(0, f.now.size)
	maps.DeleteFunc(f.now.pages, func(i int64, _ *page) bool { return i >= end })
	if tail := f.now.pages[f.now.size/pageSize]; tail != nil {
		c := *tail
		clear(c[f.now.size%pageSize:])
		f.now.pages[f.now.size/pageSize] = &c
	}
	f.durable.pages = maps.Clone(f.now.pages)
	return lost
}

// tear makes some sectors of a page durable.
func (f *file) tear(rng *rand.Rand, i int64) {
	var torn page
	if p := f.durable.pages[i]; p != nil {
		torn = *p
	}
	from := f.now.pages[i]
	if from == nil {
		from = &zeroPage
	}
	for at := 0; at < pageSize; at += sectorSize {
		if rng.IntN(2) == 0 {
			copy(torn[at:at+sectorSize], from[at:])
		}
	}
	f.durable.pages[i] = &torn
}
