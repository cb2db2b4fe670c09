package storage

import "sort"

// window keeps the newest blocks in memory, so that most resumes never touch
// the disk. The log's mu guards it; the blocks themselves never change.
//
// Invariant: blocks are in order and without a hole between them; everything
// above the synced offset is in it.
type window struct {
	blocks []block
	bytes  int64
	limit  int64
}

// push adds the newest block and drops the oldest beyond the limit.
func (w *window) push(b block, synced uint64) {
	w.blocks = append(w.blocks, b)
	w.bytes += int64(len(b.raw))
	w.trim(synced)
}

// trim drops the oldest blocks beyond the limit that are synced; at least one
// block stays.
func (w *window) trim(synced uint64) {
	drop := 0
	for w.bytes > w.limit && drop < len(w.blocks)-1 && w.blocks[drop].last() <= synced {
		w.bytes -= int64(len(w.blocks[drop].raw))
		w.blocks[drop] = block{}
		drop++
	}
	w.blocks = w.blocks[drop:]
}

// at returns the block that has the offset.
func (w *window) at(offset uint64) (b block, ok bool) {
	i := sort.Search(len(w.blocks), func(i int) bool { return w.blocks[i].last() >= offset })
	if i == len(w.blocks) || w.blocks[i].first > offset {
		return block{}, false
	}
	return w.blocks[i], true
}

// from returns up to n blocks beginning with the one that has the offset; none
// if the window begins later.
func (w *window) from(offset uint64, n int) []block {
	i := sort.Search(len(w.blocks), func(i int) bool { return w.blocks[i].last() >= offset })
	if i == len(w.blocks) || w.blocks[i].first > offset {
		return nil
	}
	return append([]block(nil), w.blocks[i:min(i+n, len(w.blocks))]...)
}

// until returns up to n blocks, in order, that end with the one that has the
// offset; none if the window does not have it.
func (w *window) until(offset uint64, n int) []block {
	i := sort.Search(len(w.blocks), func(i int) bool { return w.blocks[i].last() >= offset })
	if i == len(w.blocks) || w.blocks[i].first > offset {
		return nil
	}
	return append([]block(nil), w.blocks[max(0, i+1-n):i+1]...)
}
