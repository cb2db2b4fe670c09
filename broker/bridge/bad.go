package bridge

import (
	"slices"
	"strconv"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
)

// A record that is no message is copied to a topic for such records, by one node,
// with these headers besides its own.
const (
	badReason    = "tidewire-bad-reason"
	badTopic     = "tidewire-bad-topic"
	badPartition = "tidewire-bad-partition"
	badOffset    = "tidewire-bad-offset"
	badBytes     = "tidewire-bad-bytes" // of its value, if that was cut
)

// maxBadBytes is what is kept of a record: the copy must be a record that Kafka
// takes.
const maxBadBytes = 512 << 10

// Copy returns the record that is written for a refused one. It is its key, value
// and headers, as far as there is room, with what is wrong and where it stood.
func (r Refused) Copy() kafka.Record {
	c := kafka.Record{Time: r.Record.Time, Key: slices.Clone(r.Record.Key), Value: slices.Clone(r.Record.Value)}
	add := func(name, value string) {
		c.Headers = append(c.Headers, kafka.Header{Key: name, Value: []byte(value)})
	}
	add(badReason, string(r.Reason))
	add(badTopic, r.Partition.Topic)
	add(badPartition, strconv.Itoa(int(r.Partition.Number)))
	add(badOffset, strconv.FormatInt(r.Record.Offset, 10))
	room := maxBadBytes
	if len(c.Key) > room {
		c.Key = c.Key[:room]
	}
	if room -= len(c.Key); len(c.Value) > room {
		add(badBytes, strconv.Itoa(len(c.Value)))
		c.Value = c.Value[:room]
	}
	room -= len(c.Value)
	for _, h := range r.Record.Headers {
		if room -= len(h.Key) + len(h.Value) + 16; room < 0 {
			break
		}
		c.Headers = append(c.Headers, kafka.Header{Key: h.Key, Value: slices.Clone(h.Value)})
	}
	return c
}
