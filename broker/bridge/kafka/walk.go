package kafka

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/segmentio/kafka-go/compress"
)

// maxUnpacked bounds what one batch may hold when it is unpacked. A batch
// beyond it is Bad, alike for every reader.
const maxUnpacked = 64 << 20

// A rawBatch is a batch of which only the header was read.
type rawBatch struct {
	base, last int64
	data       []byte // from its first byte on
}

// splitBatches cuts what a fetch brought into batches. Kafka cuts it off
// anywhere, so an incomplete batch at the end is left out. Batches that end
// before from are passed over.
//
// A checksum that does not fit is an error, of the batch or on the way; those
// before it are returned.
func splitBatches(set []byte, from int64) ([]rawBatch, error) {
	var list []rawBatch
	for len(set) >= batchCRCAt {
		size := int64(int32(binary.BigEndian.Uint32(set[8:]))) + batchPrefix
		if size < batchCRCAt {
			return list, failf(Corrupt, nil, "a batch claims to have %d bytes", size)
		}
		if size > int64(len(set)) {
			return list, nil
		}
		b := rawBatch{base: int64(binary.BigEndian.Uint64(set)), data: set[:size:size]}
		b.last = b.base
		set = set[size:]
		if b.data[batchMagicAt] == 2 {
			if size < batchHeader {
				return list, failf(Corrupt, nil, "a batch claims to have %d bytes", size)
			}
			if crc32.Checksum(b.data[batchSummed:], castagnoli) != binary.BigEndian.Uint32(b.data[batchCRCAt:]) {
				return list, failf(Corrupt, nil, "the checksum of the batch at offset %d is wrong", b.base)
			}
			b.last += int64(int32(binary.BigEndian.Uint32(b.data[23:])))
		}
		if b.last < b.base {
			return list, failf(Corrupt, nil, "the batch at offset %d ends before it begins", b.base)
		}
		if b.last >= from {
			list = append(list, b)
		}
	}
	return list, nil
}

// decode reads the records of a batch from offset from on.
func (raw rawBatch) decode(from int64) Batch {
	b := Batch{Base: raw.base, Last: raw.last, Epoch: -1}
	if raw.data[batchMagicAt] != 2 {
		b.Bad = failf(Corrupt, nil, "the batch is of a format that Kafka gave up with version 0.11")
		return b
	}
	be := binary.BigEndian
	attributes := be.Uint16(raw.data[21:])
	b.Epoch = int32(be.Uint32(raw.data[12:]))
	b.MaxTime = millis(int64(be.Uint64(raw.data[35:])))
	b.AppendTime = attributes&attrAppendTime != 0
	b.Transactional = attributes&attrTransactional != 0
	b.Control = attributes&attrControl != 0
	if b.Control {
		return b
	}
	body, err := unpack(compress.Compression(attributes&attrCompression), raw.data[batchHeader:])
	if err != nil {
		b.Bad = err
		return b
	}
	count := int(int32(be.Uint32(raw.data[57:])))
	b.Records, b.Bad = readRecords(body, raw, count, from)
	return b
}

// unpack undoes the compression of a batch.
func unpack(kind compress.Compression, body []byte) ([]byte, error) {
	if kind == compress.None {
		return body, nil
	}
	codec := kind.Codec()
	if codec == nil {
		return nil, failf(Corrupt, nil, "the batch is compressed in a way that is not known: %d", kind)
	}
	r := codec.NewReader(bytes.NewReader(body))
	defer r.Close()
	var out bytes.Buffer
	out.Grow(min(4*len(body), maxUnpacked))
	n, err := io.Copy(&out, io.LimitReader(r, maxUnpacked+1))
	if err != nil {
		return nil, failf(Corrupt, err, "the batch cannot be unpacked as %s", codec.Name())
	}
	if n > maxUnpacked {
		return nil, failf(Corrupt, nil, "the batch is larger than %d bytes when it is unpacked", maxUnpacked)
	}
	return out.Bytes(), nil
}

// readRecords reads count records; those below from are left out.
func readRecords(body []byte, raw rawBatch, count int, from int64) ([]Record, error) {
	const least = 7 // bytes of a record without anything
	if count < 0 || count > len(body)/least {
		return nil, failf(Corrupt, nil, "the batch claims to have %d records in %d bytes", count, len(body))
	}
	first := int64(binary.BigEndian.Uint64(raw.data[27:]))
	r := wireReader{b: body}
	records := make([]Record, 0, count)
	next := raw.base
	for range count {
		size := r.varint()
		one := wireReader{b: r.take(int(min(size, int64(len(r.b))+1)))}
		one.skip(1)
		at := first + one.varint()
		offset := raw.base + one.varint()
		rec := Record{Offset: offset, Time: millis(at), Key: one.nullable(), Value: one.nullable(), Headers: one.headers()}
		if r.err != nil || one.err != nil {
			return nil, failf(Corrupt, nil, "the records of the batch cannot be read")
		}
		if offset < next || offset > raw.last {
			return nil, failf(Corrupt, nil, "the offsets of the records do not grow from %d to %d", raw.base, raw.last)
		}
		next = offset + 1
		if offset >= from {
			records = append(records, rec)
		}
	}
	return records, nil
}

// nullable reads a key or value of a record: nil is null.
func (r *wireReader) nullable() []byte {
	n := r.varint()
	if n < 0 || r.err != nil {
		return nil
	}
	if n > int64(len(r.b)) {
		r.fail()
		return nil
	}
	if n == 0 {
		return []byte{}
	}
	return r.take(int(n))
}

func (r *wireReader) headers() []Header {
	n := r.varint()
	if n == 0 || r.err != nil {
		return nil
	}
	if n < 0 || n > int64(len(r.b)) {
		r.fail()
		return nil
	}
	list := make([]Header, 0, min(n, 16))
	for range n {
		list = append(list, Header{Key: string(r.nullable()), Value: r.nullable()})
		if r.err != nil {
			return nil
		}
	}
	return list
}
