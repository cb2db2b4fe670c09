package bridge

import (
	"strconv"
	"strings"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// A Reason says why a record of Kafka is no message. It is the label of a
// metric, and stands in the log and in the header of a copied record.
type Reason string

// The reasons. None of them depends on a clock, on chance or on the node.
const (
	Accepted        Reason = ""
	Transactional   Reason = "transactional"  // whether it was committed cannot be seen
	Unreadable      Reason = "unreadable"     // its batch is damaged, or packed in an unknown way
	NullKey         Reason = "null_key"       // the key is the topic
	InvalidTopic    Reason = "invalid_topic"  // the key breaks the rules for topics
	NullValue       Reason = "null_value"     // a tombstone: there is no payload
	PayloadTooLarge Reason = "too_large"      // more than the stream takes
	Misplaced       Reason = "misplaced"      // another partitioner than murmur2 has put it here
	BadHeader       Reason = "bad_header"     // a header tidewire-... is not as it must be
	Forged          Reason = "forged"         // tidewire-origin was not written by a broker for this record
	ReservedTopic   Reason = "reserved_topic" // `$` topics are written by brokers
	OtherStream     Reason = "other_stream"   // the topic belongs to another stream
	Overtaken       Reason = "overtaken"      // a resent record, or one that comes after later ones of its broker
)

// canary is the verdict on a record by which a broker sees that what it writes
// comes back. It is nobody's message, and no fault.
const canary Reason = "canary"

// canaryPrefix begins the key of such a record. Behind it stands the partition,
// so that a copy of it is nothing elsewhere.
const canaryPrefix = "$canary."

func canaryKey(partition int) string { return canaryPrefix + strconv.Itoa(partition) }

// Reasons lists those for which a record is refused.
func Reasons() []Reason {
	return []Reason{
		Transactional, Unreadable, NullKey, InvalidTopic, NullValue, PayloadTooLarge,
		Misplaced, BadHeader, Forged, ReservedTopic, OtherStream, Overtaken,
	}
}

// rules judge the records of one partition, in the order of the log. They are the
// same on every node: a verdict follows from the definition, the record and the
// records in the window before it. One goroutine uses them.
type rules struct {
	def       Definition
	partition int
	canary    string
	holder    holder
	sealer    *sealer
	sequences sequences
}

func newRules(def Definition, partition int) (*rules, error) {
	h, err := newHolder(def)
	if err != nil {
		return nil, err
	}
	return &rules{
		def: def, partition: partition, canary: canaryKey(partition), holder: h,
		sealer: newSealer(def.Secret), sequences: newSequences(uint64(def.DedupeWindow)),
	}, nil
}

// A verdict is what the rules say of a record.
type verdict struct {
	reason  Reason
	message protocol.Message // if it is accepted; its time is the record's
	micros  uint64
	origin  Origin // Boot is 0 if no broker wrote it
	left    int    // headers that were left out
}

// judge judges one record. What would be refused whatever came before it leaves
// the sequences alone: else a copy that somebody puts into another partition
// would burn the sequences of a broker there.
func (r *rules) judge(rec *kafka.Record, transactional bool) verdict {
	v := r.read(rec, transactional)
	if (v.reason == Accepted || v.reason == canary) && v.origin.Boot != 0 && !r.sequences.take(v.origin.Boot, v.origin.Sequence, offsetOf(rec.Offset)) {
		v.reason = Overtaken
	}
	return v
}

// read judges a record without looking at what was before it.
func (r *rules) read(rec *kafka.Record, transactional bool) (v verdict) {
	refuse := func(why Reason) verdict { return verdict{reason: why} }
	topic := string(rec.Key)
	sings := topic == r.canary
	switch {
	case transactional:
		return refuse(Transactional)
	case rec.Key == nil:
		return refuse(NullKey)
	case protocol.CheckTopic(topic) != nil:
		return refuse(InvalidTopic)
	case rec.Value == nil:
		return refuse(NullValue)
	case len(rec.Value) > r.def.MaxPayload:
		return refuse(PayloadTooLarge)
	case !sings && protocol.Partition(topic, r.def.Partitions) != r.partition:
		return refuse(Misplaced)
	}
	d, ok := decodeHeaders(rec.Headers)
	if !ok {
		return refuse(BadHeader)
	}
	v.message, v.left, v.micros = d.message, d.left, microsOf(rec)
	v.message.Topic, v.message.Payload = topic, rec.Value
	if d.marks > 0 {
		v.origin, ok = r.sealer.decode(d.origin, topic, d.message.ID, rec.Value)
		if !ok || d.marks > 1 || v.origin.Boot == 0 {
			return refuse(Forged)
		}
		v.micros = min(v.origin.Micros, maxMicros)
		v.message.Publisher, v.message.Origin = v.origin.Publisher, v.origin.Session
	}
	switch {
	case protocol.IsReserved(topic) && v.origin.Boot == 0, !sings && strings.HasPrefix(topic, canaryPrefix):
		return refuse(ReservedTopic)
	case sings:
		v.reason = canary
		return v
	case !protocol.IsReserved(topic) && !r.holder.has(topic):
		return refuse(OtherStream)
	}
	v.message.Time = protocol.Time(v.micros)
	return v
}

// maxMicros is the last microsecond of the year 9999.
const maxMicros = 253402300799_999999

// microsOf returns the time that the producer gave to a record; 0 if none.
func microsOf(rec *kafka.Record) uint64 {
	ms := rec.Time.UnixMilli()
	return uint64(min(max(ms, 0), maxMicros/1000)) * 1000
}

// offsetOf returns our offset of an offset of Kafka, which begins at 0.
func offsetOf(kafkaOffset int64) uint64 { return uint64(kafkaOffset) + 1 }

// entry makes an accepted record ready for storage. The bytes are the same on
// every node.
func (v *verdict) entry() *storage.Entry {
	m := &v.message
	size := len(m.Payload) + len(m.Topic) + len(m.ID) + 64
	e := &storage.Entry{Topic: m.Topic, Record: protocol.AppendRecord(make([]byte, 0, size), m)}
	if m.ID != "" {
		e.Key = storage.KeyOf(m.Topic, m.ID)
		e.Payload = storage.PayloadHash(m.Payload)
	}
	return e
}
