package storage

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tidewire/tidewire/protocol"
)

// Stats says how much a log holds.
type Stats struct {
	Storage  string // "disk" or "memory"
	Messages uint64
	Bytes    uint64    // on disk, or in memory
	Segments int       // 0 in memory
	Oldest   time.Time // when the oldest message was stored; zero if there is none
	Newest   time.Time
	PerTopic int // how many of each topic are given, 0 for all; the others count as long as they are stored
}

// TopicStats says what a log holds of a topic and gives.
type TopicStats struct {
	Topic       string
	Messages    uint64
	First, Last uint64 // offsets
	Recent      uint64 // what was stored behind the offset that was asked about, given or not
}

// A TopicQuery asks for some of the topics that a log holds, in their order.
type TopicQuery struct {
	Filter protocol.Filter
	After  string // the topics behind this one; empty for all
	Limit  int
	Recent uint64 // an offset: what each topic has behind it is counted too
}

// matches reports whether a topic is asked for.
func (q *TopicQuery) matches(topic string) bool { return topic > q.After && q.Filter.Match(topic) }

// prefix returns what every topic that matches begins with.
func (q *TopicQuery) prefix() string {
	if q.Filter.Exact() {
		return q.Filter.String()
	}
	text := q.Filter.String()
	return text[:strings.IndexAny(text, "*>")]
}

// Stats returns how much the log holds.
func (l *core) Stats() Stats {
	l.state.mu.RLock()
	defer l.state.mu.RUnlock()
	s := Stats{Storage: "disk", Segments: len(l.state.segs), PerTopic: l.opts.PerTopic}
	for _, seg := range l.state.segs {
		if seg.info.last == 0 {
			continue
		}
		s.Messages += seg.info.records
		s.Bytes += seg.info.size
		if s.Oldest.IsZero() {
			s.Oldest = time.UnixMicro(int64(seg.info.firstTime)).UTC()
		}
		s.Newest = time.UnixMicro(int64(seg.info.lastTime)).UTC()
	}
	return s
}

// Topics returns some of the topics in the log. It looks into the index of each
// segment: for a filter that begins with a wildcard that is all of it.
//
// Each segment gives its first topics that match. The first of all segments
// together are among them, with all that any segment has of them.
func (l *core) Topics(ctx context.Context, q TopicQuery) ([]TopicStats, error) {
	l.state.mu.RLock()
	segs := l.state.segs
	l.state.mu.RUnlock()
	found := make(topicSums)
	for _, seg := range segs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		part, err := l.segmentTopics(seg, &q)
		if errors.Is(err, ErrTrimmed) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found.add(part)
	}
	return l.state.kept.bound(found.first(q.Limit)), nil
}

// segmentTopics returns the first topics of a segment that match.
func (l *core) segmentTopics(seg *segment, q *TopicQuery) ([]TopicStats, error) {
	l.state.mu.RLock()
	if seg.index != nil {
		part := make(topicSums)
		for topic, p := range seg.index.topics {
			if q.matches(topic) {
				part[topic] = p.stats(topic, q.Recent)
			}
		}
		l.state.mu.RUnlock()
		return part.first(q.Limit), nil
	}
	l.state.mu.RUnlock()
	var part []TopicStats
	prefix := q.prefix()
	err := l.handles.view(seg, func(tx *bbolt.Tx) error {
		return eachTopic(tx.Bucket(bucketIndex), []byte(max(prefix, q.After)), func(topic, postings []byte) (bool, error) {
			name := string(topic)
			if !strings.HasPrefix(name, prefix) {
				return false, nil // they are in order
			}
			if !q.matches(name) {
				return true, nil
			}
			p, err := decodePostings(postings)
			part = append(part, p.stats(name, q.Recent))
			return len(part) < q.Limit, err
		})
	})
	return part, err
}

// stats describes a topic in a part of the log.
func (p *postings) stats(topic string, recent uint64) TopicStats {
	return TopicStats{topic, uint64(p.count), p.first, p.last, p.behind(recent)}
}

// behind returns how many of the offsets lie above one. Where a stored list has
// no offsets but the first and the last that is an estimate: they are many, and
// taken to come evenly.
func (p *postings) behind(after uint64) uint64 {
	switch {
	case p.last <= after:
		return 0
	case p.first > after:
		return uint64(p.count)
	case p.count > 2 && len(p.deltas) == 0:
		return uint64(float64(p.count-1) * float64(p.last-after) / float64(p.last-p.first))
	}
	n, offset, rest := uint64(0), p.last, p.deltas
	for offset > after {
		n++
		if offset, rest = p.before(offset, rest); rest == nil {
			break
		}
	}
	return n
}

// topicSums adds up what several parts of a log have of each topic. Parts come
// in the order of the log.
type topicSums map[string]TopicStats

func (s topicSums) add(part []TopicStats) {
	for _, t := range part {
		if before, ok := s[t.Topic]; ok {
			t.Messages += before.Messages
			t.First = before.First
			t.Recent += before.Recent
		}
		s[t.Topic] = t
	}
}

// first returns the first n topics, in order.
func (s topicSums) first(n int) []TopicStats {
	all := slices.SortedFunc(maps.Values(s), func(a, b TopicStats) int { return cmp.Compare(a.Topic, b.Topic) })
	return all[:min(n, len(all))]
}

// Stats returns how much the log holds.
func (l *MemoryLog) Stats() Stats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s := Stats{Storage: "memory", PerTopic: l.opts.PerTopic, Messages: uint64(len(l.records)), Bytes: uint64(l.bytes)}
	if n := len(l.records); n > 0 {
		s.Oldest = time.UnixMicro(int64(l.records[0].time)).UTC()
		s.Newest = time.UnixMicro(int64(l.records[n-1].time)).UTC()
	}
	return s
}

// recordsAtOnce is how many records Topics looks at before publishers get their
// turn.
const recordsAtOnce = 8192

// Topics returns some of the topics in the log. It looks at every message.
func (l *MemoryLog) Topics(ctx context.Context, q TopicQuery) ([]TopicStats, error) {
	found := make(topicSums)
	for next, more := uint64(0), true; more; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		next, more = l.sumTopics(&q, next, found)
	}
	return l.kept.bound(found.first(q.Limit)), nil
}

// sumTopics adds some records from an offset on, and returns where to go on.
func (l *MemoryLog) sumTopics(q *TopicQuery, from uint64, found topicSums) (next uint64, more bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	i := l.find(from)
	end := min(i+recordsAtOnce, len(l.records))
	for _, r := range l.records[i:end] {
		if topic := string(protocol.RecordTopic(r.record)); q.matches(topic) {
			found.add([]TopicStats{(&postings{count: 1, first: r.offset, last: r.offset}).stats(topic, q.Recent)})
		}
		from = r.offset + 1
	}
	return from, end < len(l.records)
}
