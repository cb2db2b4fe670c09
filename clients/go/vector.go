package tidewire

import (
	"slices"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// A vector is one offset for each partition of a stream, in the order of their
// numbers. A bbolt log has one partition, so nearly every vector has one entry.
//
// Each partition is a sequence of its own: a delivery of one says nothing about
// the others. One offset for all, the naive way, takes the first delivery of a
// partition that is behind for old and drops it.
type vector []protocol.Place

// vectorOf reads the cursors of Subscribed.
func vectorOf(cursors []*tidewirev1.Cursor) vector {
	var v vector
	for _, c := range cursors {
		v.set(c.Partition, c.Offset)
	}
	return v
}

func (v vector) find(partition uint32) (int, bool) {
	return slices.BinarySearchFunc(v, partition, func(o protocol.Place, p uint32) int {
		return int(int64(o.Partition) - int64(p))
	})
}

// at returns the offset of a partition; 0, before its first message, if it has
// appeared since.
func (v vector) at(partition uint32) uint64 {
	if i, ok := v.find(partition); ok {
		return v[i].Offset
	}
	return 0
}

// set moves the offset of a partition.
func (v *vector) set(partition uint32, offset uint64) {
	i, ok := v.find(partition)
	if !ok {
		*v = slices.Insert(*v, i, protocol.Place{Partition: partition})
	}
	(*v)[i].Offset = offset
}

// others returns a copy without a partition; nil if it has no other.
func (v vector) others(partition uint32) vector {
	if i, ok := v.find(partition); ok && len(v) == 1 && i == 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(v), func(o protocol.Place) bool { return o.Partition == partition })
}

// with returns the place that has the offset of p in its partition and those of v
// in the others.
func (v vector) with(p protocol.Position) place {
	if len(v) == 0 {
		return place{position: p}
	}
	return place{text: p.With(v).String()}
}
