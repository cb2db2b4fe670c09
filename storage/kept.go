package storage

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tidewire/tidewire/protocol"
)

// kept is retention by count: it knows the newest offsets of each topic, at most
// so many, and so which records are not given any more. Those are still in their
// segments, which go as a whole. Every read asks hides, and nothing else judges.
//
// What it says follows from the log alone: the offsets of each topic. It is made
// anew at every boot, from the indexes of the segments, so that the bound may be
// changed at any time; a higher one brings back what is still stored.
//
// The naive way counts the records of a topic behind each one that is read. That
// makes a read of a sealed segment look into the indexes of all newer ones, and a
// filter for many topics do so for each of them. Here a publish costs two steps
// in one posting list, and a read one look into a map; and the price is memory:
// about 150 bytes for each topic, and two to four bytes for each of the offsets.
//
// Offsets that retention by age or bytes has taken may still be counted. They are
// the oldest ones, so that changes nothing: a topic hides what lies before the
// oldest of a full count, and then that is gone.
type kept struct {
	most int

	mu     sync.RWMutex
	topics map[string]*postings // the newest of each topic

	top atomic.Uint64 // no offset above it is hidden
}

// clear forgets everything.
func (k *kept) clear() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.topics)
	k.top.Store(0)
}

// newKept returns nil if there is no bound. Its methods may be called then.
func newKept(most int) *kept {
	if most <= 0 {
		return nil
	}
	return &kept{most: most, topics: make(map[string]*postings)}
}

// stored notes the records of a commit.
func (k *kept) stored(records []storedRecord) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range records {
		k.add(records[i].topic, records[i].offset)
	}
}

// add notes a record, the newest of its topic. Callers hold mu.
func (k *kept) add(topic string, offset uint64) {
	p := k.topics[topic]
	if p == nil {
		p = &postings{topic: strings.Clone(topic)}
		k.topics[p.topic] = p
	}
	if p.count == k.most {
		k.top.Store(max(k.top.Load(), p.first))
		if k.most == 1 {
			p.first, p.last = offset, offset
			return
		}
		p.drop()
	}
	p.add(offset)
}

// drop forgets the first offset of at least two.
func (p *postings) drop() {
	if delta, rest := p.step(); delta > 0 {
		p.first += delta
		p.deltas = rest
		p.count--
	}
}

// hides reports whether a record is not given any more, for the newer ones of its
// topic.
func (k *kept) hides(topic []byte, offset uint64) bool {
	if k == nil || offset > k.top.Load() {
		return false
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	p := k.topics[string(topic)]
	return p != nil && p.count == k.most && offset < p.first
}

// hiddenUpTo returns an offset above which nothing that matches is hidden. For one
// topic nothing that is below it is given either.
func (k *kept) hiddenUpTo(f protocol.Filter) uint64 {
	if k == nil || !f.Exact() {
		return k.hiddenTop()
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	if p := k.topics[f.String()]; p != nil && p.count == k.most {
		return p.first - 1
	}
	return 0
}

func (k *kept) hiddenTop() uint64 {
	if k == nil {
		return 0
	}
	return k.top.Load()
}

// bound turns what is stored of the topics into what is given of them.
func (k *kept) bound(topics []TopicStats) []TopicStats {
	if k == nil {
		return topics
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	for i := range topics {
		t := &topics[i]
		if p := k.topics[t.Topic]; p != nil && t.Messages > uint64(k.most) {
			t.Messages, t.First = uint64(k.most), p.first
		}
	}
	return topics
}

// forget drops those of the topics that have nothing above an offset any more.
func (k *kept) forget(topics [][]byte, through uint64) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, topic := range topics {
		if p := k.topics[string(topic)]; p != nil && p.last <= through {
			delete(k.topics, string(topic))
		}
	}
}

// lacks returns how many older offsets of a topic there is place for.
func (k *kept) lacks(topic []byte) int {
	if p := k.topics[string(topic)]; p != nil {
		return k.most - p.count
	}
	return k.most
}

// older puts offsets of a topic, the newest first, before those that are known.
func (k *kept) older(topic string, offsets []uint64) {
	if len(offsets) == 0 {
		return
	}
	p := &postings{topic: topic}
	for _, offset := range slices.Backward(offsets) {
		p.add(offset)
	}
	if newer := k.topics[topic]; newer != nil {
		count, last, deltas := p.count+newer.count, newer.last, newer.deltas
		p.add(newer.first)
		p.deltas = append(p.deltas, deltas...)
		p.count, p.last = count, last
	}
	k.topics[topic] = p
}

// filled says that everything stored is known.
func (k *kept) filled() {
	top := uint64(0)
	for _, p := range k.topics {
		if p.count == k.most {
			top = max(top, p.first-1)
		}
	}
	k.top.Store(top)
}
