package brokertest

import (
	"math"
	"slices"
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

const defaultReadBytes = 64 << 10

// Read returns what matches above an offset. A chunk ends where a term ends.
func (l *Log) Read(q storage.Query) (protocol.Chunk, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q.After+1 < l.earliest {
		return protocol.Chunk{}, storage.ErrTrimmed
	}
	through := l.head()
	if q.Through != 0 {
		through = min(through, q.Through)
	}
	at, end := l.span(q.After + 1)
	if lost := l.lostAt(q.After + 1); lost != nil && q.After < through {
		return protocol.Chunk{}, &storage.LostError{After: q.After, Through: min(lost.through, end, through)}
	}
	c := protocol.Chunk{Partition: l.number, Term: at.term, After: q.After, Through: max(min(through, end), q.After)}
	maxBytes := q.MaxBytes
	if maxBytes == 0 {
		maxBytes = defaultReadBytes
	}
	for offset := c.After + 1; offset <= c.Through; offset++ {
		if l.lostAt(offset) != nil {
			c.Through = offset - 1
			break
		}
		r := l.records[offset-1]
		if r.bytes == nil || !q.Filter.Match(r.topic) {
			continue
		}
		if _, picked := slices.BinarySearch(q.Offsets, offset); q.Picked && !picked {
			continue
		}
		if c.Count > 0 && len(c.Records)+len(r.bytes) > maxBytes {
			c.Through = offset - 1
			break
		}
		c.Records = protocol.AppendFramed(c.Records, r.bytes)
		c.Count++
	}
	return c, nil
}

// ReadBack returns the newest that match in a part of the log, at most n. A chunk
// ends where a term begins.
func (l *Log) ReadBack(q storage.Query, n int) (protocol.Chunk, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	through := l.head()
	if q.Through != 0 {
		through = min(through, q.Through)
	}
	at, _ := l.span(through)
	c := protocol.Chunk{Partition: l.number, Term: at.term, After: through, Through: through}
	if through <= q.After {
		return c, nil
	}
	if through < l.earliest {
		return protocol.Chunk{}, storage.ErrTrimmed
	}
	maxBytes := q.MaxBytes
	if maxBytes == 0 {
		maxBytes = defaultReadBytes
	}
	floor := max(q.After, l.earliest-1, max(at.first, 1)-1)
	if lost := l.lostAt(through); lost != nil {
		return protocol.Chunk{}, &storage.LostError{After: max(lost.after, floor), Through: through}
	}
	for ; c.After > floor && c.Count < n && l.lostAt(c.After) == nil; c.After-- {
		r := l.records[c.After-1]
		if r.bytes == nil || !q.Filter.Match(r.topic) {
			continue
		}
		if c.Count > 0 && len(c.Records)+len(r.bytes) > maxBytes {
			break
		}
		c.Records = append(protocol.AppendFramed(nil, r.bytes), c.Records...)
		c.Count++
	}
	return c, nil
}

// lostAt returns the damage in which an offset lies, or nil.
func (l *Log) lostAt(offset uint64) *damage {
	for i := range l.damages {
		if d := &l.damages[i]; offset > d.after && offset <= d.through {
			return d
		}
	}
	return nil
}

// Newest names the records of a range that are the newest of their topic.
func (l *Log) Newest(f protocol.Filter, after, through uint64, n int) (offsets []uint64, covered uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := map[string]bool{}
	for offset := l.head(); offset > max(after, l.earliest-1); offset-- {
		r := l.records[offset-1]
		if r.bytes == nil || seen[r.topic] || !f.Match(r.topic) {
			continue
		}
		seen[r.topic] = true
		if offset <= through {
			offsets = append(offsets, offset)
		}
	}
	slices.Reverse(offsets)
	if len(offsets) > n {
		return offsets[:n], offsets[n-1], nil
	}
	return offsets, through, nil
}

// Resolve says where a start begins.
func (l *Log) Resolve(s protocol.Start, f protocol.Filter, head uint64) (storage.Resolved, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	head = min(head, l.head())
	switch s.Kind {
	case protocol.StartEarliest:
		return storage.Resolved{After: l.earliest - 1}, nil
	case protocol.StartLast:
		return storage.Resolved{After: l.last(s.Last, f, head)}, nil
	case protocol.StartSince:
		return storage.Resolved{After: l.before(time.Now().Add(-s.Since), head)}, nil
	case protocol.StartTime:
		return storage.Resolved{After: l.before(s.Time, head)}, nil
	case protocol.StartPosition:
		return l.position(s.Position, head), nil
	default:
		return storage.Resolved{After: head}, nil
	}
}

// last returns the offset after which the newest n matching messages come.
func (l *Log) last(n int, f protocol.Filter, head uint64) uint64 {
	for offset := head; offset >= l.earliest; offset-- {
		if r := l.records[offset-1]; r.bytes != nil && f.Match(r.topic) {
			if n--; n == 0 {
				return offset - 1
			}
		}
	}
	return l.earliest - 1
}

// before returns the offset before the first one that was stored at t or later.
func (l *Log) before(t time.Time, head uint64) uint64 {
	for offset := l.earliest; offset <= head; offset++ {
		if l.records[offset-1].time >= protocol.Micros(t) {
			return offset - 1
		}
	}
	return head
}

func (l *Log) position(p protocol.Position, head uint64) storage.Resolved {
	begin := l.earliest - 1
	end, known := l.termEnd(p.Term)
	if !known {
		return storage.Resolved{After: begin, Gap: &storage.Gap{
			Reason: storage.GapOtherLog, Term: p.Term, After: p.Offset, Through: p.Offset, Next: begin,
		}}
	}
	if end = min(end, head); p.Offset > end {
		return storage.Resolved{After: end, Gap: &storage.Gap{
			Reason: storage.GapRolledBack, Term: p.Term, After: end, Through: p.Offset, Next: end,
		}}
	}
	if p.Offset < begin {
		return storage.Resolved{After: begin, Gap: &storage.Gap{
			Reason: storage.GapRetention, Term: p.Term, After: p.Offset, Through: begin, Next: begin,
		}}
	}
	return storage.Resolved{After: p.Offset}
}

// span returns the term of an offset and the last offset that it may have.
func (l *Log) span(offset uint64) (at span, end uint64) {
	end = math.MaxUint64
	for i := len(l.terms) - 1; i > 0; i-- {
		if l.terms[i].first <= offset {
			return l.terms[i], end
		}
		end = l.terms[i].first - 1
	}
	return l.terms[0], end
}

// termEnd returns the last offset of a term.
func (l *Log) termEnd(term protocol.Term) (end uint64, known bool) {
	for _, s := range l.terms {
		if s.term == term {
			_, end := l.span(s.first)
			return end, true
		}
	}
	return 0, false
}
