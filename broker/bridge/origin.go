package bridge

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// A Boot names one life of a broker process: random, drawn when it starts.
type Boot uint64

// NewBoot draws a boot.
func NewBoot() Boot {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return Boot(binary.LittleEndian.Uint64(b[:]) | 1)
}

// An Origin is what a broker says in the header tidewire-origin about a record
// that it writes. Numbers have eight bytes, big-endian:
//
//	version (one byte, 1), boot, sequence, session, time in microseconds,
//	publisher (the rest), seal (the last 16 bytes)
//
// The seal is a truncated HMAC-SHA-256, with the stream's secret, over all that,
// and over topic, id and payload. So a client of Kafka that may only write to the
// topic cannot name a publisher, use `$` topics, answer for a broker or make
// others' records look overtaken. What it can do is to write a copy of a record:
// that is a repeat, or overtaken.
type Origin struct {
	Boot      Boot
	Sequence  uint64 // increases over the records of a boot in a partition
	Session   uint64 // stands for the session that published it, 0 for none
	Micros    uint64 // time of the message
	Publisher string
}

const (
	originVersion = 1
	originFixed   = 1 + 4*8
	sealBytes     = 16
)

// sealer makes and checks seals. One goroutine uses it at a time.
type sealer struct {
	mac hash.Hash
	sum []byte
}

func newSealer(secret []byte) *sealer {
	return &sealer{mac: hmac.New(sha256.New, secret)}
}

// seal computes the seal of an origin without one. The result is valid until
// the next call.
func (s *sealer) seal(origin []byte, topic, id string, payload []byte) []byte {
	s.mac.Reset()
	var lengths [24]byte
	binary.BigEndian.PutUint64(lengths[:], uint64(len(origin)))
	binary.BigEndian.PutUint64(lengths[8:], uint64(len(topic)))
	binary.BigEndian.PutUint64(lengths[16:], uint64(len(id)))
	s.sum = append(s.sum[:0], lengths[:]...)
	s.sum = append(s.sum, origin...)
	s.sum = append(s.sum, topic...)
	s.sum = append(s.sum, id...)
	_, _ = s.mac.Write(s.sum) // a hash returns no error
	_, _ = s.mac.Write(payload)
	s.sum = s.mac.Sum(s.sum[:0])
	return s.sum[:sealBytes]
}

// encode returns the value of the header.
func (s *sealer) encode(o Origin, topic, id string, payload []byte) []byte {
	b := make([]byte, 0, originFixed+len(o.Publisher)+sealBytes)
	b = append(b, originVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(o.Boot))
	b = binary.BigEndian.AppendUint64(b, o.Sequence)
	b = binary.BigEndian.AppendUint64(b, o.Session)
	b = binary.BigEndian.AppendUint64(b, o.Micros)
	b = append(b, o.Publisher...)
	return append(b, s.seal(b, topic, id, payload)...)
}

// decode reads the value of the header. ok is false if no broker of this stream
// has written it for this record.
func (s *sealer) decode(b []byte, topic, id string, payload []byte) (o Origin, ok bool) {
	if len(b) < originFixed+sealBytes || b[0] != originVersion {
		return o, false
	}
	said, seal := b[:len(b)-sealBytes], b[len(b)-sealBytes:]
	if !hmac.Equal(seal, s.seal(said, topic, id, payload)) {
		return o, false
	}
	return Origin{
		Boot:      Boot(binary.BigEndian.Uint64(said[1:])),
		Sequence:  binary.BigEndian.Uint64(said[9:]),
		Session:   binary.BigEndian.Uint64(said[17:]),
		Micros:    binary.BigEndian.Uint64(said[25:]),
		Publisher: string(said[originFixed:]),
	}, true
}
