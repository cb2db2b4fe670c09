package storage

import (
	"errors"
	"io"
	"os"
	"slices"
	"sort"
)

// A salvage is what can still be read of a damaged segment: where its sound
// blocks are. They are read with plain reads, each checked again, so nothing
// depends on the pages that lead to them.
//
// The naive way asks bbolt again and again what comes next; but whoever met a
// torn page cannot be told what lies behind it, nor where the damage ends.
type salvage struct {
	first   uint64 // offsets that this speaks of
	through uint64
	places  []place // in order, none overlaps
	lost    uint64  // time of the newest digest row that may be lost, 0 if none is
}

// place is where a block is whose header and table are sound.
type place struct {
	first uint64
	last  uint64
	time  uint64
	at    int64 // in the file
	size  int
}

// salvage makes a survey of a segment's file.
func (l *core) salvage(s *segment, through uint64) (*salvage, error) {
	l.state.mu.RLock()
	info := s.info
	l.state.mu.RUnlock()
	v := &salvage{first: s.first, through: through}
	f, err := os.Open(s.path)
	if isFull(err) {
		return nil, err
	}
	if err == nil { // else nothing of it can be read
		defer func() { _ = f.Close() }()
		prefetch(s.path, int64(info.size))
		w := newSurveyor(f, l.terms, v.first, through)
		w.file(l, s)
		v.places = w.places
		v.arrange()
		v.lost = w.lost
		if w.rows < info.rows {
			v.lost = max(v.lost, v.newestHole(info.lastTime))
		}
		return v, nil
	}
	if info.rows > 0 {
		v.lost = info.lastTime
	}
	return v, nil
}

// arrange puts the places in order and drops what contradicts them.
func (v *salvage) arrange() {
	slices.SortFunc(v.places, func(a, b place) int {
		switch {
		case a.first < b.first:
			return -1
		case a.first > b.first:
			return 1
		}
		return 0
	})
	kept := v.places[:0]
	for _, p := range v.places {
		if n := len(kept); n == 0 || p.first > kept[n-1].last {
			kept = append(kept, p)
		}
	}
	v.places = kept
}

// newestHole returns a time at or after everything in the last hole between the
// places, 0 if there is none. end is the time of the end.
func (v *salvage) newestHole(end uint64) uint64 {
	next := v.through + 1
	for _, p := range slices.Backward(v.places) {
		if p.last+1 < next {
			return end
		}
		next, end = p.first, p.time
	}
	if v.first < next {
		return end
	}
	return 0
}

// find returns the index of the place that has the offset, or of the one that
// would come next.
func (v *salvage) find(offset uint64) (i int, has bool) {
	i = sort.Search(len(v.places), func(i int) bool { return v.places[i].last >= offset })
	return i, i < len(v.places) && v.places[i].first <= offset
}

// hole returns the last offset of the hole in which the offset is.
func (v *salvage) hole(offset uint64) uint64 {
	if i, _ := v.find(offset); i < len(v.places) {
		return v.places[i].first - 1
	}
	return v.through
}

// blockWalk moves over the blocks of a segment. The moves return the block they
// lead to; ok is false if there is none.
type blockWalk interface {
	start() (b block, ok bool, err error)
	end() (b block, ok bool, err error)
	next() (b block, ok bool, err error)
	prev() (b block, ok bool, err error)
	seek(offset uint64) (b block, ok bool, err error)
	damaged() bool // the segment is known to be damaged: what it lacks is expected
}

// salvageCursor walks over the sound blocks of a damaged segment. It never fails:
// a block that cannot be read any more is passed over.
type salvageCursor struct {
	*salvage
	file *os.File // nil if there is none
	at   int
}

// open begins to read. close must follow.
func (v *salvage) open(s *segment) (*salvageCursor, error) {
	f, err := os.Open(s.path)
	switch {
	case err == nil:
		return &salvageCursor{salvage: v, file: f}, nil
	case s.gone():
		return nil, ErrTrimmed
	case isFull(err):
		return nil, err
	}
	return &salvageCursor{salvage: v}, nil
}

func (c *salvageCursor) close() {
	if c.file != nil {
		_ = c.file.Close()
	}
}

// read returns the block of a place, if it is still sound.
func (c *salvageCursor) read(p place) (block, bool) {
	if c.file == nil {
		return block{}, false
	}
	raw := make([]byte, p.size)
	if _, err := c.file.ReadAt(raw, p.at); err != nil && !errors.Is(err, io.EOF) {
		return block{}, false
	}
	b, err := openBlock(raw)
	return b, err == nil && b.first == p.first && b.last() == p.last
}

func (c *salvageCursor) start() (block, bool, error) {
	c.at = -1
	return c.next()
}

func (c *salvageCursor) end() (block, bool, error) {
	c.at = len(c.places)
	return c.prev()
}

func (c *salvageCursor) next() (block, bool, error) { return c.move(1) }
func (c *salvageCursor) prev() (block, bool, error) { return c.move(-1) }

func (c *salvageCursor) move(by int) (block, bool, error) {
	for c.at += by; c.at >= 0 && c.at < len(c.places); c.at += by {
		if b, ok := c.read(c.places[c.at]); ok {
			return b, true, nil
		}
	}
	return block{}, false, nil
}

func (c *salvageCursor) damaged() bool { return true }

// seek moves to the block that holds the offset, or, unlike that of a sound
// segment, to the next one.
func (c *salvageCursor) seek(offset uint64) (block, bool, error) {
	c.at, _ = c.find(offset)
	c.at--
	return c.next()
}
