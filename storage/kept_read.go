package storage

import (
	"errors"

	"github.com/tidewire/tidewire/protocol"
)

// beforeLastKept is beforeLast where retention by count hides some of the matches:
// they do not count. It reads the newest ones, since the index does not tell of
// the offsets of many topics which is whose.
func (l *core) beforeLastKept(f protocol.Filter, head uint64, n int) (uint64, error) {
	for head > 0 {
		c, err := l.ReadBack(Query{Filter: f, Through: head}, n)
		lost, isLost := errors.AsType[*LostError](err)
		switch {
		case isLost:
			head = lost.After
			continue
		case errors.Is(err, ErrTrimmed):
			head = 0
			continue
		case err != nil:
			return 0, err
		}
		if n -= c.Count; n == 0 {
			record, _, _ := protocol.NextFramed(c.Records)
			first, _ := protocol.RecordPlace(record)
			return first - 1, nil
		}
		head = c.After
	}
	earliest, _ := l.Bounds()
	return earliest - 1, nil
}

// noteKept notes the records of a commit. Callers hold mu.
func (l *MemoryLog) noteKept(c *Commit) {
	if l.kept == nil {
		return
	}
	l.kept.mu.Lock()
	defer l.kept.mu.Unlock()
	for i, r := range l.records[len(l.records)-c.Chunk.Count:] {
		l.kept.add(c.Topics[i], r.offset)
	}
}
