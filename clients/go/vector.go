package tidewire

import (
	"slices"
	"strconv"
	"strings"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// A vector is one offset for each partition of a stream, in the order of their
// numbers. A bbolt log has one partition, so nearly every vector has one entry.
//
// Each partition is a sequence of its own: a delivery of one says nothing about
// the others. One offset for all, the naive way, takes the first delivery of a
// partition that is behind for old and drops it.
type vector []partitionOffset

type partitionOffset struct {
	partition uint32
	offset    uint64
}

// vectorOf reads the cursors of Subscribed.
func vectorOf(cursors []*tidewirev1.Cursor) vector {
	var v vector
	for _, c := range cursors {
		v.set(c.Partition, c.Offset)
	}
	return v
}

func (v vector) find(partition uint32) (int, bool) {
	return slices.BinarySearchFunc(v, partition, func(o partitionOffset, p uint32) int {
		return int(int64(o.partition) - int64(p))
	})
}

// at returns the offset of a partition; 0, before its first message, if it has
// appeared since.
func (v vector) at(partition uint32) uint64 {
	if i, ok := v.find(partition); ok {
		return v[i].offset
	}
	return 0
}

// set moves the offset of a partition.
func (v *vector) set(partition uint32, offset uint64) {
	i, ok := v.find(partition)
	if !ok {
		*v = slices.Insert(*v, i, partitionOffset{partition: partition})
	}
	(*v)[i].offset = offset
}

// others returns a copy without a partition; nil if it has no other.
func (v vector) others(partition uint32) vector {
	if i, ok := v.find(partition); ok && len(v) == 1 && i == 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(v), func(o partitionOffset) bool { return o.partition == partition })
}

// with returns the place that has the offset of p in its partition and those of v
// in all others: what proto says of a position that lists several partitions.
func (v vector) with(p protocol.Position) place {
	if len(v) == 0 {
		return place{position: p}
	}
	all := slices.Clone(v)
	all.set(p.Partition, p.Offset)
	text := "p" + p.Term.String()
	for _, o := range all {
		text += "-"
		if o.partition != 0 {
			text += strconv.FormatUint(uint64(o.partition), 10) + "_"
		}
		text += strconv.FormatUint(o.offset, 10)
	}
	return place{text: text}
}

// isVector reports whether a start is a position that lists several partitions.
// Only the broker can tell whether it is a good one.
func isVector(from string) bool {
	return strings.HasPrefix(from, "p") && strings.Count(from, "-") > 1 &&
		!strings.ContainsFunc(from, func(c rune) bool {
			return (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != '-' && c != '_'
		})
}
