package protocol

import (
	"crypto/rand"
	"encoding/binary"
	"strconv"
	"strings"
)

// MaxOffset is the largest offset: JavaScript numbers hold it exactly.
const MaxOffset = 1<<53 - 1

// maxPositionBytes is the length of the longest position.
const maxPositionBytes = len("p3w5e11264sgsf-4294967295_9007199254740991")

// A Term names one life of a log: a random number, new at every boot of a
// bbolt log. The log keeps the chain of its terms, so that a position from a
// life that was lost is noticed.
type Term uint64

// NewTerm draws a random term.
func NewTerm() Term {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return Term(binary.LittleEndian.Uint64(b[:]) | 1)
}

// String writes the term in base 36, as positions and frames carry it.
func (t Term) String() string { return strconv.FormatUint(uint64(t), 36) }

// ParseTerm reads what [Term.String] writes, and nothing else.
func ParseTerm(s string) (Term, bool) {
	n, err := strconv.ParseUint(s, 36, 64)
	if err != nil || Term(n).String() != s {
		return 0, false
	}
	return Term(n), true
}

// A Position is a place in one partition of a log: the term in which the offset
// was written, and the offset. A message has one position for ever. Offset 0 is
// the place before the first message. The zero Position is no place at all.
type Position struct {
	Term      Term
	Partition uint32
	Offset    uint64
}

// IsZero reports whether p is no place at all.
func (p Position) IsZero() bool { return p == Position{} }

// String writes the position as people see it: 'p', the term, '-', for another
// partition than 0 its number and '_', and the offset. It consists of letters,
// digits, '-' and '_' and begins with a letter.
func (p Position) String() string {
	return string(p.AppendText(make([]byte, 0, maxPositionBytes)))
}

// AppendText appends what [Position.String] returns.
func (p Position) AppendText(b []byte) []byte {
	b = append(b, 'p')
	b = strconv.AppendUint(b, uint64(p.Term), 36)
	b = append(b, '-')
	return Place{p.Partition, p.Offset}.append(b)
}

// ParsePosition reads what [Position.String] writes. Errors have the code
// invalid_position, or offset_not_position for a bare number.
func ParsePosition(s string) (Position, error) {
	if isDigits(s) {
		return Position{}, Errorf(CodeOffsetNotPosition, "%s is an offset; give the `position` of the message, which looks like %s", quote(s), Position{Term: 1234567, Offset: 42})
	}
	p, ok := parsePosition(s)
	switch {
	case ok:
		return p, nil
	case severalPartitions(s):
		return Position{}, Errorf(CodeInvalidPosition, "the position %s lists several partitions, and a single place is wanted: give the `position` of a message", quote(s))
	default:
		return Position{}, Errorf(CodeInvalidPosition, "%s is not a position; give the `position` of a message as the broker printed it, such as %s", quote(s), Position{Term: 1234567, Offset: 42})
	}
}

func parsePosition(s string) (Position, bool) {
	if len(s) > maxPositionBytes {
		return Position{}, false
	}
	s, isPosition := strings.CutPrefix(s, "p")
	term, place, found := strings.Cut(s, "-")
	if !isPosition || !found {
		return Position{}, false
	}
	t, ok := ParseTerm(term)
	if !ok || t == 0 {
		return Position{}, false
	}
	at, ok := parsePlace(place)
	return Position{Term: t, Partition: at.Partition, Offset: at.Offset}, ok
}

func isDigits(s string) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}
