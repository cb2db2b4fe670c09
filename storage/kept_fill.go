package storage

import (
	"errors"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/tidewire/tidewire/protocol"
)

// fillKept makes what retention by count knows, from the newest segment down:
// first from the indexes in memory, then from those in the files. A topic that
// makes up much of a sealed segment has no offsets in its index, and a damaged
// index has none at all: there the records are looked at, from the end.
func (o *opening) fillKept() error {
	l := o.log
	if l.state.kept == nil {
		return nil
	}
	for _, seg := range slices.Backward(l.state.segs) {
		f := keptFill{kept: l.state.kept, want: make(map[string]int), found: make(map[string][]uint64)}
		if seg.index != nil {
			f.memory(seg.index)
		} else if err := f.sealed(l, seg); err != nil {
			return err
		}
		for topic, offsets := range f.found {
			l.state.kept.older(topic, offsets)
		}
	}
	l.state.kept.filled()
	return nil
}

// keptFill collects what one segment has of the topics that lack something.
type keptFill struct {
	kept  *kept
	found map[string][]uint64 // the newest first
	want  map[string]int      // how many more the records are to tell
	all   bool                // they are to tell of all topics: the index cannot be read
}

func (f *keptFill) memory(x *topicIndex) {
	for _, p := range x.order {
		if n := f.kept.lacks([]byte(p.topic)); n > 0 {
			f.found[p.topic] = p.until(p.last, n)
		}
	}
}

func (f *keptFill) sealed(l *core, seg *segment) error {
	err := l.handles.view(seg, func(tx *bbolt.Tx) error {
		return eachTopic(tx.Bucket(bucketIndex), nil, func(topic, v []byte) (bool, error) {
			n := f.kept.lacks(topic)
			if n == 0 {
				return true, nil
			}
			p, err := decodePostings(v)
			switch {
			case err != nil:
				return false, err
			case p.count > 1 && p.dense(int(seg.info.records)):
				f.want[string(topic)] = min(n, p.count)
			default:
				f.found[string(topic)] = p.until(p.last, n)
			}
			return true, nil
		})
	})
	if errors.Is(err, errDamaged) {
		clear(f.found)
		clear(f.want)
		f.all = true
	} else if err != nil {
		return err
	}
	if len(f.want) == 0 && !f.all {
		return nil
	}
	prefetch(seg.path, int64(seg.info.size))
	return l.walk(seg, seg.info.last, f.records)
}

// records looks at the records of a segment, from the end. It may be called again
// and then goes on with the blocks that lie before what it has seen.
func (f *keptFill) records(c blockWalk) error {
	b, ok, err := c.end()
	for ; ok && (f.all || len(f.want) > 0); b, ok, err = c.prev() {
		f.block(&b)
	}
	return err
}

// block takes what a block has. Damaged records do not count.
func (f *keptFill) block(b *block) {
	for slot := b.count - 1; slot >= 0; slot-- {
		record, framed, err := b.frame(slot)
		if record == nil || err != nil || b.verify(slot, framed) != nil {
			continue
		}
		topic := protocol.RecordTopic(record)
		n, wanted := f.want[string(topic)]
		if f.all && !wanted {
			n = f.kept.lacks(topic)
		}
		if n == 0 {
			continue
		}
		name, offset := string(topic), b.first+uint64(slot)
		if have := f.found[name]; len(have) > 0 && have[len(have)-1] <= offset {
			continue // seen before the damage was met
		}
		f.found[name] = append(f.found[name], offset)
		if f.want[name] = n - 1; n == 1 && !f.all {
			delete(f.want, name)
		}
	}
}
