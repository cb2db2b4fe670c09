package kafka

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

// The layout of a batch, in bytes from its start:
//
//	 0  8  offset of its first record
//	 8  4  length of all that follows
//	12  4  epoch of the leader
//	16  1  magic: 2
//	17  4  CRC-32C of all that follows
//	21  2  attributes
//	23  4  offset of its last record, from the first
//	27  8  time of its first record
//	35  8  newest time
//	43  8  producer id
//	51  2  producer epoch
//	53  4  sequence
//	57  4  number of records
//	61     records, compressed or not
const (
	batchHeader  = 61
	batchPrefix  = 12 // before what its length counts
	batchMagicAt = 16
	batchCRCAt   = 17
	batchSummed  = 21 // where what the checksum covers begins
)

// Attributes of a batch.
const (
	attrCompression   = 0x07
	attrAppendTime    = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// recordOverhead bounds what a record takes besides key, value and headers, and
// headerOverhead what a header takes besides its own.
const (
	recordOverhead = 40
	headerOverhead = 10
)

// recordSize is at least what the record takes in a batch.
func recordSize(r *Record) int {
	n := recordOverhead + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += headerOverhead + len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}

// A batchWriter builds a batch, record by record.
type batchWriter struct {
	b     []byte
	count int
	first int64
	last  int64 // newest time
}

func newBatchWriter(size int) *batchWriter {
	return &batchWriter{b: make([]byte, batchHeader, batchHeader+size)}
}

func (w *batchWriter) add(r *Record) {
	t := r.Time.UnixMilli()
	if w.count == 0 {
		w.first, w.last = t, t
	}
	w.last = max(w.last, t)
	delta, offset := t-w.first, int64(w.count)
	size := 1 + varintLen(delta) + varintLen(offset) + nullableLen(r.Key) + nullableLen(r.Value) + varintLen(int64(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		size += varintLen(int64(len(h.Key))) + len(h.Key) + nullableLen(h.Value)
	}
	b := binary.AppendVarint(w.b, int64(size))
	b = append(b, 0) // attributes of a record: there are none
	b = binary.AppendVarint(b, delta)
	b = binary.AppendVarint(b, offset)
	b = appendNullable(b, r.Key)
	b = appendNullable(b, r.Value)
	b = binary.AppendVarint(b, int64(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		b = binary.AppendVarint(b, int64(len(h.Key)))
		b = append(b, h.Key...)
		b = appendNullable(b, h.Value)
	}
	w.b = b
	w.count++
}

// finish returns the batch.
func (w *batchWriter) finish() []byte {
	be := binary.BigEndian
	be.PutUint32(w.b[8:], uint32(len(w.b)-batchPrefix))
	be.PutUint32(w.b[12:], ^uint32(0)) // the leader writes its epoch
	w.b[batchMagicAt] = 2
	be.PutUint16(w.b[21:], 0)
	be.PutUint32(w.b[23:], uint32(w.count-1))
	be.PutUint64(w.b[27:], uint64(w.first))
	be.PutUint64(w.b[35:], uint64(w.last))
	be.PutUint64(w.b[43:], ^uint64(0)) // no producer id, epoch and sequence
	be.PutUint16(w.b[51:], ^uint16(0))
	be.PutUint32(w.b[53:], ^uint32(0))
	be.PutUint32(w.b[57:], uint32(w.count))
	be.PutUint32(w.b[batchCRCAt:], crc32.Checksum(w.b[batchSummed:], castagnoli))
	return w.b
}

func appendNullable(b, v []byte) []byte {
	if v == nil {
		return binary.AppendVarint(b, -1)
	}
	b = binary.AppendVarint(b, int64(len(v)))
	return append(b, v...)
}

func nullableLen(v []byte) int {
	if v == nil {
		return 1
	}
	return varintLen(int64(len(v))) + len(v)
}

func varintLen(v int64) int {
	u := uint64(v<<1) ^ uint64(v>>63)
	n := 1
	for u >= 0x80 {
		u >>= 7
		n++
	}
	return n
}

func millis(t int64) time.Time { return time.UnixMilli(t) }
