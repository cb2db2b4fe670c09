package consumer

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// maxNumber is the largest incarnation or generation: JavaScript numbers hold it
// exactly.
const maxNumber = 1<<53 - 1

// reader reads what the append functions write. After the first thing that is
// wrong it gives zeros, and ok is false. It allocates by what it has read.
type reader struct {
	b      []byte
	wrong  bool
	reason string // the last one: most are alike, and share their bytes
}

func (r *reader) fail() {
	r.b, r.wrong = nil, true
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) bool() bool {
	c := r.byte()
	if c > 1 {
		r.fail()
	}
	return c == 1
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) signed() int64 {
	n, size := binary.Varint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) upTo(most uint64) uint64 {
	n := r.number()
	if n > most {
		r.fail()
		return 0
	}
	return n
}

func (r *reader) offset() uint64 { return r.upTo(protocol.MaxOffset) }

func (r *reader) place() uint64 { return r.upTo(maxPlace) }

func (r *reader) fixed() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	n := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return n
}

// bytes is the next n bytes, in place.
func (r *reader) bytes() []byte {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) why() string {
	if b := r.bytes(); string(b) != r.reason {
		r.reason = string(b)
	}
	return r.reason
}

func (r *reader) position() protocol.Position {
	return protocol.Position{
		Term:      protocol.Term(r.fixed()),
		Partition: uint32(r.upTo(math.MaxUint32)),
		Offset:    r.offset(),
	}
}

func (r *reader) state() State {
	s := State(r.byte())
	if s >= states {
		r.fail()
		return 0
	}
	return s
}

func (r *reader) entry(offset uint64) Entry {
	v := Entry{Offset: offset}
	both := r.byte()
	v.State, v.Source = State(both&0xf), Source(both>>4)
	if v.State >= states || v.Source >= sources {
		r.fail()
		return Entry{}
	}
	v.Key = r.fixed()
	v.Size = int(r.upTo(math.MaxInt32))
	v.Attempts = int(r.upTo(math.MaxInt32))
	v.Due, v.First = r.times()
	v.Reason = r.why()
	return v
}

func (r *reader) times() (due, first int64) {
	due = r.signed()
	return due, due - r.signed()
}

func (r *reader) settings() Settings {
	s := Settings{Filter: string(r.bytes()), Stream: string(r.bytes())}
	s.AckWait = time.Duration(r.signed())
	s.Backoff.Base = time.Duration(r.signed())
	s.Backoff.Cap = time.Duration(r.signed())
	s.MaxDeliver = int(r.signed())
	s.MaxInFlight = int(r.signed())
	s.MaxWaiting = int(r.signed())
	s.MaxInFlightBytes = r.signed()
	s.Backoff.Factor = math.Float64frombits(r.fixed())
	s.Backoff.Jitter = r.bool()
	s.Exclusive = r.bool()
	s.Ordered = r.bool()
	return s
}
