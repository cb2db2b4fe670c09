package kafka

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"
)

// The requests that are spoken here are all of the "flexible" generation of
// Kafka's protocol: strings, bytes and arrays have their length plus one in
// front, as uvarint, and each struct ends with a list of tagged fields.

// wireWriter appends what a request consists of.
type wireWriter struct{ b []byte }

func (w *wireWriter) int8(v int8)      { w.b = append(w.b, byte(v)) }
func (w *wireWriter) int16(v int16)    { w.b = binary.BigEndian.AppendUint16(w.b, uint16(v)) }
func (w *wireWriter) int32(v int32)    { w.b = binary.BigEndian.AppendUint32(w.b, uint32(v)) }
func (w *wireWriter) int64(v int64)    { w.b = binary.BigEndian.AppendUint64(w.b, uint64(v)) }
func (w *wireWriter) uvarint(v uint64) { w.b = binary.AppendUvarint(w.b, v) }

// no writes a false.
func (w *wireWriter) no() { w.int8(0) }

// count begins an array of n elements.
func (w *wireWriter) count(n int) { w.uvarint(uint64(n) + 1) }

func (w *wireWriter) string(s string) {
	w.count(len(s))
	w.b = append(w.b, s...)
}

// null writes an absent string, or an absent array.
func (w *wireWriter) null() { w.uvarint(0) }

func (w *wireWriter) bytes(b []byte) {
	w.count(len(b))
	w.b = append(w.b, b...)
}

func (w *wireWriter) id(id TopicID) { w.b = append(w.b, id[:]...) }

// end writes that a struct has no tagged fields.
func (w *wireWriter) end() { w.uvarint(0) }

var errShort = errors.New("the answer of Kafka ends too early or is malformed")

// wireReader reads an answer. After a mistake everything reads as zero, and
// err says so; counts are never above what the bytes that are left could hold.
type wireReader struct {
	b   []byte
	err error
}

// take returns the next n bytes, or nil.
func (r *wireReader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.fail()
		return nil
	}
	t := r.b[:n:n]
	r.b = r.b[n:]
	return t
}

func (r *wireReader) fail() {
	if r.err == nil {
		r.err = errShort
	}
	r.b = nil
}

// skip passes over n bytes.
func (r *wireReader) skip(n int) { r.take(n) }

func (r *wireReader) int16() int16 {
	if t := r.take(2); t != nil {
		return int16(binary.BigEndian.Uint16(t))
	}
	return 0
}

func (r *wireReader) int32() int32 {
	if t := r.take(4); t != nil {
		return int32(binary.BigEndian.Uint32(t))
	}
	return 0
}

func (r *wireReader) int64() int64 {
	if t := r.take(8); t != nil {
		return int64(binary.BigEndian.Uint64(t))
	}
	return 0
}

func (r *wireReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *wireReader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads the length of an array whose elements have at least one byte.
func (r *wireReader) count() int {
	n := r.uvarint()
	if n == 0 {
		return 0
	}
	if n-1 > uint64(len(r.b)) {
		r.fail()
		return 0
	}
	return int(n - 1)
}

// bytes returns bytes that share the memory of the answer, or nil for null.
func (r *wireReader) bytes() []byte {
	n := r.uvarint()
	if n == 0 || r.err != nil {
		return nil
	}
	if n-1 > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	return r.take(int(n - 1))
}

func (r *wireReader) string() string { return string(r.bytes()) }

func (r *wireReader) id() (id TopicID) {
	copy(id[:], r.take(len(id)))
	return id
}

func (r *wireReader) int32s() []int32 {
	n := r.count()
	if n*4 > len(r.b) {
		r.fail()
		return nil
	}
	list := make([]int32, n)
	for i := range list {
		list[i] = r.int32()
	}
	return list
}

// end passes over the tagged fields of a struct.
func (r *wireReader) end() {
	for range r.count() {
		r.uvarint()
		size := r.uvarint()
		if size > uint64(len(r.b)) {
			r.fail()
			return
		}
		r.skip(int(size))
	}
}

// readExactly reads n bytes in pieces, so that a wrong length costs no more
// memory than what really arrives. progress is called before each piece.
func readExactly(src io.Reader, buf []byte, n int, progress func()) ([]byte, error) {
	const piece = 256 << 10
	buf = buf[:0]
	for len(buf) < n {
		progress()
		want := min(n-len(buf), piece)
		buf = slices.Grow(buf, want)
		part := buf[len(buf) : len(buf)+want]
		if _, err := io.ReadFull(src, part); err != nil {
			return nil, err
		}
		buf = buf[:len(buf)+want]
	}
	return buf, nil
}
