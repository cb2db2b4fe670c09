package storage

import (
	"context"
	"sort"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ahead is what of a [Replica] can be read and is not on disk yet, oldest first.
type ahead struct {
	limit int64 // bytes
	gauge prometheus.Gauge
	ready chan struct{} // has a token while something may wait

	mu      sync.Mutex
	batches []*batch
	bytes   int64
	space   chan struct{} // closed, and replaced, when something is dropped
	failed  error         // nothing will be written any more
}

// maxSyncBytes bounds what one transaction stores.
const maxSyncBytes = 4 * maxBatchBytes

func newAhead(limit int64, gauge prometheus.Gauge) ahead {
	return ahead{limit: limit, gauge: gauge, ready: make(chan struct{}, 1), space: make(chan struct{})}
}

// wait waits until there is room for one more.
func (a *ahead) wait(ctx context.Context) error {
	for {
		a.mu.Lock()
		full, space, failed := a.bytes >= a.limit, a.space, a.failed
		a.mu.Unlock()
		switch {
		case failed != nil:
			return failed
		case !full:
			return nil
		}
		select {
		case <-space:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (a *ahead) put(b *batch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.batches = append(a.batches, b)
	a.bytes += int64(len(b.raw))
	a.gauge.Set(float64(a.bytes))
	poke(a.ready)
}

// oldest returns what may be written next with one sync.
func (a *ahead) oldest() []*batch {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, size := 0, 0
	for n < len(a.batches) && a.batches[n].segment == a.batches[0].segment {
		if size += len(a.batches[n].raw); n > 0 && size > maxSyncBytes {
			break
		}
		n++
	}
	return a.batches[:n:n]
}

func (a *ahead) all() []*batch {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.batches
}

// drop forgets the oldest n.
func (a *ahead) drop(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range a.batches[:n] {
		a.bytes -= int64(len(b.raw))
	}
	if a.batches = a.batches[n:]; len(a.batches) == 0 {
		a.batches = nil
	}
	a.gauge.Set(float64(a.bytes))
	close(a.space)
	a.space = make(chan struct{})
}

// fail says that nothing will be written any more.
func (a *ahead) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = err
	close(a.space)
	a.space = make(chan struct{})
}

// cost is about what will be added to the file of a segment.
func (a *ahead) cost(s *segment) (n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range a.batches {
		if b.segment == s {
			n += blockCost(b)
		}
	}
	return n
}

// since returns since when the oldest waits, zero if nothing does.
func (a *ahead) since() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.batches) == 0 {
		return time.Time{}
	}
	return a.batches[0].started
}

// unsynced returns the blocks of a segment that may not be in its file yet, and
// the offset up to which everything is. Callers hold mu.
func (s *state) unsynced(seg *segment) (blocks []block, synced uint64) {
	if s.synced == s.head {
		return nil, s.synced
	}
	_, last := s.find(seg.first)
	all := s.window.blocks
	from := sort.Search(len(all), func(i int) bool { return all[i].first > s.synced && all[i].first >= seg.first })
	to := sort.Search(len(all), func(i int) bool { return all[i].first > last })
	return append([]block(nil), all[from:max(from, to)]...), s.synced
}

// aheadCursor walks over the blocks of a segment of which the newest are in memory.
// What the file has of them is not looked at.
type aheadCursor struct {
	blockWalk         // of the file
	blocks    []block // at least one
	at        int     // in blocks; below 0 while the walk is in the file
}

// over puts blocks in memory behind those of a file.
func over(file blockWalk, blocks []block) blockWalk {
	if len(blocks) == 0 {
		return file
	}
	return &aheadCursor{blockWalk: file, blocks: blocks}
}

// memory goes on in memory.
func (c *aheadCursor) memory(at int) (block, bool, error) {
	if c.at = at; at >= len(c.blocks) {
		return block{}, false, nil
	}
	return c.blocks[at], true, nil
}

// file goes on with what the file has given, if that lies before what is in memory.
func (c *aheadCursor) file(b block, ok bool, err error) (block, bool, error) {
	if err == nil && (!ok || b.first >= c.blocks[0].first) {
		return c.memory(0)
	}
	c.at = -1
	return b, ok, err
}

func (c *aheadCursor) start() (block, bool, error) { return c.file(c.blockWalk.start()) }
func (c *aheadCursor) end() (block, bool, error)   { return c.memory(len(c.blocks) - 1) }

func (c *aheadCursor) next() (block, bool, error) {
	if c.at >= 0 {
		return c.memory(c.at + 1)
	}
	return c.file(c.blockWalk.next())
}

func (c *aheadCursor) prev() (block, bool, error) {
	switch {
	case c.at > 0:
		return c.memory(c.at - 1)
	case c.at < 0:
		return c.blockWalk.prev()
	}
	c.at = -1
	b, ok, err := c.blockWalk.end()
	for err == nil && ok && b.first >= c.blocks[0].first {
		b, ok, err = c.blockWalk.prev()
	}
	return b, ok, err
}

func (c *aheadCursor) seek(offset uint64) (block, bool, error) {
	if offset < c.blocks[0].first {
		b, ok, err := c.blockWalk.seek(offset)
		if !c.damaged() {
			c.at = -1
			return b, ok, err
		}
		return c.file(b, ok, err) // that of a damaged file goes on to the next
	}
	at := sort.Search(len(c.blocks), func(i int) bool { return c.blocks[i].last() >= offset })
	return c.memory(at)
}
