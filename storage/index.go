package storage

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// topicIndex leads from topics to the offsets of their records in one segment.
// It lives in memory while the segment is active and is written into it when it
// is sealed. The log's mu guards it.
type topicIndex struct {
	topics  map[string]*postings
	order   []*postings // as they came first: a walk over it can stop and go on
	records int
}

// postings are the offsets of one topic, increasing: the first and then the
// differences as varints, one to two bytes for each record as a rule.
type postings struct {
	topic  string
	count  int
	first  uint64
	last   uint64
	deltas []byte
}

// sparse is how many records there must be for each match of a filter before
// picking them one by one beats reading everything: a pick costs about as much
// as reading this many neighbours.
const sparse = 32

func newTopicIndex() *topicIndex {
	return &topicIndex{topics: make(map[string]*postings)}
}

// add notes the offset of a record and returns the topic as a string that the
// index keeps anyway, so that the caller need not keep its own.
func (x *topicIndex) add(topic string, offset uint64) string {
	x.records++
	p := x.topics[topic]
	if p == nil {
		p = &postings{topic: strings.Clone(topic)}
		x.topics[p.topic] = p
		x.order = append(x.order, p)
	}
	p.add(offset)
	return p.topic
}

func (p *postings) add(offset uint64) {
	if p.count == 0 {
		p.first = offset
	} else {
		p.deltas = binary.AppendUvarint(p.deltas, offset-p.last)
	}
	p.last = offset
	p.count++
}

// step returns the distance from the first offset to the second, and what follows
// it; 0 if there is no second.
func (p *postings) step() (delta uint64, rest []byte) {
	delta, size := binary.Uvarint(p.deltas)
	if size <= 0 {
		return 0, nil
	}
	return delta, p.deltas[size:]
}

// after appends the offsets above the given one to dst, at most n.
func (p *postings) after(dst []uint64, after uint64, n int) []uint64 {
	if p.count == 0 || p.last <= after {
		return dst
	}
	offset, rest := p.first, p.deltas
	for range p.count {
		if offset > after {
			if n == 0 {
				return dst
			}
			n--
			dst = append(dst, offset)
		}
		delta, size := binary.Uvarint(rest)
		if size <= 0 {
			return dst
		}
		rest = rest[size:]
		offset += delta
	}
	return dst
}

// until returns the offsets up to the given one, the newest first, at most n. It
// walks from the end: a varint ends with its only byte below 128, so
// the list can be read in both directions.
func (p *postings) until(through uint64, n int) (dst []uint64) {
	offset, rest := p.last, p.deltas
	for range p.count {
		if offset <= through {
			if n == 0 {
				return dst
			}
			n--
			dst = append(dst, offset)
		}
		if offset, rest = p.before(offset, rest); rest == nil {
			return dst
		}
	}
	return dst
}

// before returns the offset before one, to which the deltas lead, and the deltas
// that lead to it; rest is nil if there is none.
func (*postings) before(offset uint64, deltas []byte) (before uint64, rest []byte) {
	start := len(deltas) - 1
	for start > 0 && deltas[start-1] >= 0x80 {
		start--
	}
	if start < 0 {
		return 0, nil
	}
	delta, size := binary.Uvarint(deltas[start:])
	if size <= 0 {
		return 0, nil
	}
	return offset - delta, deltas[:start]
}

// A stored posting list is the count, the first offset, the distance to the
// last, all as varints, and the deltas. The deltas of a topic that makes up
// much of its segment are left out: such a segment is read as a whole.

// encode returns the postings as they are stored in a segment of so many
// records.
func (p *postings) encode(records int) []byte {
	b := make([]byte, 0, 3*binary.MaxVarintLen64+len(p.deltas))
	b = binary.AppendUvarint(b, uint64(p.count))
	b = binary.AppendUvarint(b, p.first)
	b = binary.AppendUvarint(b, p.last-p.first)
	if !p.dense(records) {
		b = append(b, p.deltas...)
	}
	return b
}

// dense reports whether reading everything is the better way to these records.
func (p *postings) dense(records int) bool { return p.count*sparse >= records }

// decodePostings reads what encode wrote. The deltas refer to b.
func decodePostings(b []byte) (postings, error) {
	var v [3]uint64
	for i := range v {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			return postings{}, fmt.Errorf("%w: an entry of the topic index cannot be read", errDamaged)
		}
		v[i], b = n, b[size:]
	}
	return postings{count: int(v[0]), first: v[1], last: v[1] + v[2], deltas: b}, nil
}
