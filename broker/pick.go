package broker

import (
	"errors"
	"slices"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// loaded is a record of the log, framed by protocol.AppendFramed, and the term and
// the partition in which it was written.
type loaded struct {
	framed    []byte
	term      protocol.Term
	partition uint32
}

// message reads the record.
func (r loaded) message() protocol.Message {
	c := protocol.Chunk{Partition: r.partition, Term: r.term, Count: 1, Records: r.framed}
	for m, err := range c.Messages() {
		if err == nil {
			return m
		}
	}
	return protocol.Message{} // cannot be: the log made the record
}

// expired reports whether the message has expired.
func (r loaded) expired(now uint64) bool {
	record, _, _ := protocol.NextFramed(r.framed)
	return expiredBy(protocol.RecordExpiry(record), now)
}

// pick reads records by their offsets, which it puts in order, into found, by place. What
// cannot be read is left out.
func (pt *partition) pick(f protocol.Filter, offsets []uint64, found map[uint64]loaded) {
	slices.Sort(offsets)
	for len(offsets) > 0 {
		c, err := pt.log.Read(storage.Query{Filter: f, After: offsets[0] - 1, Through: offsets[len(offsets)-1], MaxBytes: 1 << 20, Picked: true, Offsets: offsets})
		if err != nil {
			if gap := pt.gapOf(offsets[0]-1, err); gap != nil && gap.Next >= offsets[0] {
				offsets = above(offsets, gap.Next)
				continue
			}
			if !errors.Is(err, storage.ErrTrimmed) {
				pt.broker.options().Logger.Error("read messages again", "stream", pt.name, "error", err)
			}
			offsets = offsets[1:]
			continue
		}
		for record, framed := range c.Framed() {
			offset, _ := protocol.RecordPlace(record)
			found[consumer.PlaceIn(c.Partition, offset)] = loaded{framed, c.Term, c.Partition}
		}
		offsets = above(offsets, max(c.Through, offsets[0]))
	}
}

// above returns the offsets above one.
func above(offsets []uint64, through uint64) []uint64 {
	for i, o := range offsets {
		if o > through {
			return offsets[i:]
		}
	}
	return nil
}
