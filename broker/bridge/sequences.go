package bridge

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// sequences tell a record that was overtaken: one whose sequence is not above
// all those of its boot in the window, which is the last so many offsets.
//
// The naive way keeps the highest sequence of each boot for as long as the boot
// writes. Then a node that began to read behind that highest one would disagree
// for ever with a node that has seen it. Here the verdict, and the state, follow
// from the records in the window alone: every node that has read one window is
// the same as all others. For each boot the highest is kept, and behind it those
// that would be the highest if it left; nearly always that is one.
type sequences struct {
	window uint64
	boots  map[Boot][]sequenceAt // offsets increase, sequences fall
}

type sequenceAt struct{ sequence, offset uint64 }

func newSequences(window uint64) sequences {
	return sequences{window: window, boots: make(map[Boot][]sequenceAt)}
}

// take notes a sequence and reports whether it is above the others in the window
// before its offset.
func (s *sequences) take(boot Boot, sequence, offset uint64) bool {
	known := s.boots[boot]
	for len(known) > 0 && known[0].offset+s.window < offset {
		known = known[1:]
	}
	above := len(known) == 0 || sequence > known[0].sequence
	for len(known) > 0 && known[len(known)-1].sequence <= sequence {
		known = known[:len(known)-1]
	}
	s.boots[boot] = append(known, sequenceAt{sequence, offset})
	return above
}

// forget drops what has left the window when head was the last offset.
func (s *sequences) forget(head uint64) {
	maps.DeleteFunc(s.boots, func(boot Boot, known []sequenceAt) bool {
		left := 0
		for left < len(known) && known[left].offset+s.window <= head {
			left++
		}
		if left > 0 && left < len(known) {
			s.boots[boot] = known[left:]
		}
		return left == len(known)
	})
}

// append writes the state as of an offset. Equal states have equal bytes.
func (s *sequences) append(b []byte, head uint64) []byte {
	s.forget(head)
	b = binary.AppendUvarint(b, uint64(len(s.boots)))
	for _, boot := range slices.Sorted(maps.Keys(s.boots)) {
		known := s.boots[boot]
		b = binary.BigEndian.AppendUint64(b, uint64(boot))
		b = binary.AppendUvarint(b, uint64(len(known)))
		for _, k := range known {
			b = binary.AppendUvarint(b, k.sequence)
			b = binary.AppendUvarint(b, head-k.offset)
		}
	}
	return b
}

var errBadNote = errors.New("the note beside the newest block cannot be read")

// parse reads what append wrote.
func (s *sequences) parse(b []byte, head uint64) (rest []byte, err error) {
	r := numbers{b: b}
	for range r.count() {
		boot := Boot(r.fixed())
		var known []sequenceAt
		for range r.count() {
			known = append(known, sequenceAt{sequence: r.next(), offset: head - r.next()})
		}
		if len(known) > 0 {
			s.boots[boot] = known
		}
	}
	if r.bad {
		return nil, errBadNote
	}
	return r.b, nil
}

// numbers reads numbers one after the other.
type numbers struct {
	b   []byte
	bad bool
}

func (r *numbers) next() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads how many things follow, each of at least a byte.
func (r *numbers) count() int {
	n := r.next()
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return 0
	}
	return int(n)
}

func (r *numbers) fixed() uint64 {
	if len(r.b) < 8 {
		r.b, r.bad = nil, true
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}
