package storage

import (
	"maps"
	"slices"

	"github.com/tidewire/tidewire/protocol"
)

// ReadBack returns the newest records that match; see [Log.ReadBack].
func (l *MemoryLog) ReadBack(q Query, n int) (protocol.Chunk, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	through := l.head
	if q.Through > 0 {
		through = min(through, q.Through)
	}
	c := protocol.Chunk{Term: l.terms.at(through), After: through, Through: through}
	if through <= q.After {
		return c, nil
	}
	if through < l.earliest {
		return protocol.Chunk{}, ErrTrimmed
	}
	most, budget := q.MaxBytes, int64(scanBudget)
	if most <= 0 {
		most = defaultReadBytes
	}
	match, size := collector{filter: q.Filter, kept: l.kept}, 0
	var found [][]byte // the newest first
	c.After = max(q.After, l.earliest-1)
	for i := l.find(through+1) - 1; i >= 0 && l.records[i].offset > c.After; i-- {
		r := &l.records[i]
		if full := len(found) > 0 && size+len(r.record) > most || len(match.hidden) >= hiddenAtOnce; full || budget < 0 {
			c.After = r.offset
			break
		}
		budget -= r.cost()
		if !match.given(protocol.RecordTopic(r.record), r.offset) {
			continue
		}
		found = append(found, r.record)
		if size += len(r.record); len(found) == n {
			c.After = r.offset - 1
			break
		}
	}
	for _, record := range slices.Backward(found) {
		c.Records = protocol.AppendFramed(c.Records, record)
	}
	slices.Reverse(match.hidden)
	c.Count, c.Hidden = len(found), match.hidden
	return c, nil
}

// Newest names the records of a range that are the newest of their topic there;
// see [Log.Newest].
func (l *MemoryLog) Newest(f protocol.Filter, after, through uint64, n int) (offsets []uint64, covered uint64, err error) {
	earliest, head := l.Bounds()
	through, after = min(through, head), max(after, earliest-1)
	newest := make(map[string]uint64)
	for at := through; at > after; {
		at = l.newestBelow(f, after, at, newest)
	}
	offsets = slices.Sorted(maps.Values(newest))
	if len(offsets) > n {
		return offsets[:n], offsets[n-1], nil
	}
	return offsets, through, nil
}

// newestBelow looks at some records in (after, at], from the end, notes those
// whose topic it has not, and returns where to go on.
func (l *MemoryLog) newestBelow(f protocol.Filter, after, at uint64, newest map[string]uint64) (next uint64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	i := l.find(at+1) - 1
	for range walkAtOnce {
		if i < 0 || l.records[i].offset <= after {
			return after
		}
		r := &l.records[i]
		if topic := string(protocol.RecordTopic(r.record)); newest[topic] == 0 && f.Match(topic) {
			newest[topic] = r.offset
		}
		at = r.offset - 1
		i--
	}
	return at
}
