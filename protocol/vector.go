package protocol

import (
	"slices"
	"strconv"
	"strings"
)

// MaxPartitions is how many partitions a stream may have.
const MaxPartitions = 1024

// maxVectorBytes is the length of the longest text of a vector.
const maxVectorBytes = len("p3w5e11264sgsf") + MaxPartitions*len("-1023_9007199254740991")

// A Place is an offset in one partition.
type Place struct {
	Partition uint32
	Offset    uint64
}

// A Vector is a place in each of several partitions of one stream: where
// somebody is who reads them all. The places are in the order of their
// partitions, each of which is there once, and all of one term. A [Position] is
// a vector of one place. The zero Vector is no place at all.
type Vector struct {
	Term   Term
	Places []Place
}

// Vector returns the position as a vector of one place; none for the zero
// Position.
func (p Position) Vector() Vector {
	if p.IsZero() {
		return Vector{}
	}
	return Vector{Term: p.Term, Places: []Place{{p.Partition, p.Offset}}}
}

// With returns the vector of p and of others, which are in the order of their
// partitions and do not have p's.
func (p Position) With(others []Place) Vector {
	i, _ := slices.BinarySearchFunc(others, p.Partition, comparePartition)
	places := make([]Place, 0, len(others)+1)
	places = append(append(places, others[:i]...), Place{p.Partition, p.Offset})
	return Vector{Term: p.Term, Places: append(places, others[i:]...)}
}

func comparePartition(place Place, partition uint32) int {
	return int(int64(place.Partition) - int64(partition))
}

// position returns the i-th place.
func (v Vector) position(i int) Position {
	return Position{Term: v.Term, Partition: v.Places[i].Partition, Offset: v.Places[i].Offset}
}

// IsZero reports whether v is no place at all.
func (v Vector) IsZero() bool { return len(v.Places) == 0 }

// At returns the place in a partition, if there is one.
func (v Vector) At(partition uint32) (Position, bool) {
	i, ok := slices.BinarySearchFunc(v.Places, partition, comparePartition)
	if !ok {
		return Position{}, false
	}
	return v.position(i), true
}

// String writes the vector as people see it: as a position, with '-', partition,
// '_' and offset for each place. The zero Vector is empty.
func (v Vector) String() string { return string(v.AppendText(nil)) }

// AppendText appends what [Vector.String] returns.
func (v Vector) AppendText(b []byte) []byte {
	if v.IsZero() {
		return b
	}
	b = append(b, 'p')
	b = strconv.AppendUint(b, uint64(v.Term), 36)
	for _, place := range v.Places {
		b = append(b, '-')
		b = place.append(b)
	}
	return b
}

func (p Place) append(b []byte) []byte {
	if p.Partition != 0 {
		b = strconv.AppendUint(b, uint64(p.Partition), 10)
		b = append(b, '_')
	}
	return strconv.AppendUint(b, p.Offset, 10)
}

// ParseVector reads what [Vector.String] and [Position.String] write. Errors are
// those of [ParsePosition].
func ParseVector(s string) (Vector, error) {
	if !severalPartitions(s) {
		p, err := ParsePosition(s)
		return p.Vector(), err
	}
	v, ok := parseVector(s)
	if !ok {
		return Vector{}, Errorf(CodeInvalidPosition, "%s is not a position; give it as the broker printed it: the partitions in their order, at most %d of them, such as %s",
			quote(s), MaxPartitions, Vector{1234567, []Place{{0, 42}, {1, 17}}})
	}
	return v, nil
}

// severalPartitions reports whether a text looks as if it listed several
// partitions.
func severalPartitions(s string) bool {
	return strings.HasPrefix(s, "p") && strings.Count(s, "-") > 1
}

func parseVector(s string) (Vector, bool) {
	if len(s) > maxVectorBytes {
		return Vector{}, false
	}
	term, rest, _ := strings.Cut(s[1:], "-")
	t, ok := ParseTerm(term)
	if !ok || t == 0 {
		return Vector{}, false
	}
	v := Vector{Term: t, Places: make([]Place, 0, strings.Count(rest, "-")+1)}
	for text := range strings.SplitSeq(rest, "-") {
		place, ok := parsePlace(text)
		n := len(v.Places)
		if !ok || n == MaxPartitions || n > 0 && place.Partition <= v.Places[n-1].Partition {
			return Vector{}, false
		}
		v.Places = append(v.Places, place)
	}
	return v, true
}

// parsePlace reads an offset, behind its partition and '_' if that is not 0.
func parsePlace(text string) (p Place, ok bool) {
	offset := text
	if partition, rest, found := strings.Cut(text, "_"); found {
		n, err := strconv.ParseUint(partition, 10, 32)
		if err != nil {
			return Place{}, false
		}
		p.Partition, offset = uint32(n), rest
	}
	n, err := strconv.ParseUint(offset, 10, 64)
	if err != nil || n > MaxOffset {
		return Place{}, false
	}
	p.Offset = n
	return p, string(p.append(make([]byte, 0, len(text)))) == text // no leading zeros: one place has one text
}
