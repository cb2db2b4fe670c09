package consumer

import (
	"slices"

	"github.com/tidewire/tidewire/protocol"
)

// A place stands for a message of the stream in one number: its offset and, above
// the 53 bits of that, its partition. In a stream of one partition it is the offset.
// The places of a partition are in the order of its offsets, and all of one partition
// before all of the next.
const (
	placeBits = 53
	maxPlace  = protocol.MaxPartitions<<placeBits - 1
)

// PlaceOf returns the place of a position.
func PlaceOf(p protocol.Position) uint64 { return PlaceIn(p.Partition, p.Offset) }

// PlaceIn returns the place of an offset in a partition.
func PlaceIn(partition uint32, offset uint64) uint64 { return uint64(partition)<<placeBits | offset }

// SplitPlace returns what a place is made of.
func SplitPlace(place uint64) (partition uint32, offset uint64) {
	return uint32(place >> placeBits), place & protocol.MaxOffset
}

// reach is how far a machine has read: in each partition that its filter selects
// something of, and what was given back to it, which lies in one.
type reach struct {
	first [sources]protocol.Position // Main's first partition
	more  []protocol.Position        // its others, in their order
}

func reachOf(to Places) reach {
	return reach{first: [sources]protocol.Position{to.Main, to.Redrive}, more: slices.Clone(to.More)}
}

// in returns the cursor of a source in a partition; nil if it does not read that.
// Where it reads only one, that is meant.
func (r *reach) in(src Source, partition uint32) *protocol.Position {
	if src == Redrive || len(r.more) == 0 || r.first[Main].Partition == partition {
		return &r.first[src]
	}
	i, found := slices.BinarySearchFunc(r.more, partition, func(p protocol.Position, n uint32) int {
		return int(int64(p.Partition) - int64(n))
	})
	if !found {
		return nil
	}
	return &r.more[i]
}

// covers reports whether a place is at or below the cursor of its source.
func (r *reach) covers(src Source, place uint64) bool {
	partition, offset := SplitPlace(place)
	at := r.in(src, partition)
	return at != nil && offset <= at.Offset
}

// lane is what is pending of one source in one partition, by place.
type lane struct {
	partition uint32
	source    Source
	list      list
}

// lanes are in the order of their partitions, and of sources in each.
type lanes []lane

// of returns the lane of an entry, made if need be.
func (l *lanes) of(v *Entry) *list {
	partition, _ := SplitPlace(v.Offset)
	i, found := slices.BinarySearchFunc(*l, partition, func(is lane, n uint32) int {
		if is.partition == n {
			return int(is.source) - int(v.Source)
		}
		return int(int64(is.partition) - int64(n))
	})
	if !found {
		*l = slices.Insert(*l, i, lane{partition: partition, source: v.Source})
	}
	return &(*l)[i].list
}

// heads returns the first entries of the sources in the next partition, and the
// lanes behind it.
func (l lanes) heads() (next [sources]*entry, rest lanes) {
	n := 0
	for n < len(l) && l[n].partition == l[0].partition {
		next[l[n].source] = l[n].list.head
		n++
	}
	return next, l[n:]
}
