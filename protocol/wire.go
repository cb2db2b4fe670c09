package protocol

import (
	"encoding/binary"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// A field is one field of a protobuf message. Frames that are many are read and
// written field by field, without the generated structs; the tests compare the
// result with theirs.
type field struct {
	num protowire.Number
	typ protowire.Type
	raw []byte // the value as it is on the wire, well formed for typ
}

// nextField splits the first field off b, which is not empty. ok is false if b
// is not the encoding of a message.
func nextField(b []byte) (f field, rest []byte, ok bool) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return field{}, nil, false
	}
	size := protowire.ConsumeFieldValue(num, typ, b[n:])
	if size < 0 {
		return field{}, nil, false
	}
	return field{num: num, typ: typ, raw: b[n : n+size]}, b[n+size:], true
}

// varint is the value of a field of VarintType.
func (f field) varint() uint64 {
	v, _ := protowire.ConsumeVarint(f.raw)
	return v
}

// fixed64 is the value of a field of Fixed64Type.
func (f field) fixed64() uint64 { return binary.LittleEndian.Uint64(f.raw) }

// bytes is the value of a field of BytesType.
func (f field) bytes() []byte {
	v, _ := protowire.ConsumeBytes(f.raw)
	return slices.Clip(v)
}

// countField counts how often a field of BytesType occurs, so that limits are
// checked before anything is allocated.
func countField(b []byte, want protowire.Number) int {
	count := 0
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return count
		}
		if f.num == want && f.typ == protowire.BytesType {
			count++
		}
		b = rest
	}
	return count
}

// lastVarint returns the value of a varint field, the last one if it is there
// several times, as in all of protobuf; else 0.
func lastVarint(b []byte, want protowire.Number) uint64 {
	var v uint64
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return v
		}
		if f.num == want && f.typ == protowire.VarintType {
			v = f.varint()
		}
		b = rest
	}
	return v
}

// appendUint appends a varint field, left out if it is 0.
func appendUint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

// uintSize is the size of what appendUint appends for the fields up to 15.
func uintSize(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

// appendText appends a string field, left out if it is empty.
func appendText(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendString(b, s)
}

// textSize is the size of what appendText appends for the fields up to 15.
func textSize(s string) int {
	if s == "" {
		return 0
	}
	return 1 + protowire.SizeBytes(len(s))
}
