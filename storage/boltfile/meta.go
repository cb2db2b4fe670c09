package boltfile

import (
	"encoding/binary"
	"hash/fnv"
	"io"
)

// Meta is a meta page, of which a file has two; the newer one counts.
type Meta struct {
	PageSize uint32
	Root     uint64 // number of the page with which the tree begins
	End      uint64 // number of pages in use
	TxID     uint64
	Sum      uint64 // its checksum, without which it does not count
}

// ReadMeta reads the meta page in a slot, 0 or 1; ok is false if it is not whole.
func ReadMeta(r io.ReaderAt, slot int64) (m Meta, ok bool) {
	var b [metaFieldBytes]byte
	if _, err := r.ReadAt(b[:], slot*PageBytes+pageHeadBytes); err != nil {
		return m, false
	}
	le := binary.LittleEndian
	m = Meta{
		PageSize: le.Uint32(b[8:]),
		Root:     le.Uint64(b[16:]),
		End:      le.Uint64(b[40:]),
		TxID:     le.Uint64(b[48:]),
		Sum:      le.Uint64(b[metaSumAt:]),
	}
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaSumAt])
	return m, le.Uint32(b[:]) == boltMagic && le.Uint32(b[4:]) == boltVersion && m.Sum == sum.Sum64()
}

// SumAt returns where in the file the checksum is.
func (m *Meta) SumAt() int64 { return int64(m.TxID%2)*PageBytes + pageHeadBytes + metaSumAt }
