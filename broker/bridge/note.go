package bridge

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/storage"
)

// A Mark identifies what a partition has at its end: the last record that a
// node has read, so that it can be compared with what Kafka has there now, and
// with what other nodes have.
type Mark struct {
	Offset   int64 // of Kafka; -1 if nothing was read yet
	Epoch    int32 // of the leader that appended the record's batch
	Checksum uint64
}

// noMark is the mark of a partition of which nothing was read.
var noMark = Mark{Offset: -1}

// checksum is over all that a producer gave to a record. A topic that was made
// anew, and copied records of it, differ in their times.
func checksum(rec *kafka.Record) uint64 {
	h := sha256.New()
	var buf [9]byte
	put := func(b []byte) {
		buf[8] = 0
		if b == nil {
			buf[8] = 1
		}
		binary.BigEndian.PutUint64(buf[:], uint64(len(b)))
		_, _ = h.Write(buf[:]) // a hash returns no error
		_, _ = h.Write(b)
	}
	put(binary.BigEndian.AppendUint64(nil, uint64(rec.Time.UnixMilli())))
	put(rec.Key)
	value := rec.Value
	if len(value) > 1024 { // a faster hash for what may be large
		value = binary.BigEndian.AppendUint64(nil, storage.PayloadHash(value))
	}
	put(value)
	for _, header := range rec.Headers {
		put([]byte(header.Key))
		put(header.Value)
	}
	return binary.BigEndian.Uint64(h.Sum(buf[:0]))
}

// noteVersion is the first byte of a note.
const noteVersion = 1

// note is what is stored with each block: what apply must know to go on behind
// it. head is the offset, ours, up to which the partition was read.
type note struct {
	head uint64
	mark Mark
}

// encodeNote writes a note and the state of the rules.
func encodeNote(n note, s *sequences) []byte {
	b := []byte{noteVersion}
	b = binary.AppendUvarint(b, n.head)
	b = binary.AppendUvarint(b, offsetOf(n.mark.Offset))
	b = binary.AppendUvarint(b, uint64(uint32(n.mark.Epoch)))
	b = binary.BigEndian.AppendUint64(b, n.mark.Checksum)
	return s.append(b, n.head)
}

// parseNote reads a note into the state of rules that have seen nothing yet.
func parseNote(b []byte, s *sequences) (n note, err error) {
	if len(b) == 0 || b[0] != noteVersion {
		return n, errBadNote
	}
	r := numbers{b: b[1:]}
	n.head = r.next()
	n.mark.Offset = int64(r.next()) - 1
	n.mark.Epoch = int32(uint32(r.next()))
	n.mark.Checksum = r.fixed()
	if r.bad {
		return n, errBadNote
	}
	rest, err := s.parse(r.b, n.head)
	if err == nil && len(rest) > 0 {
		err = errBadNote
	}
	return n, err
}
