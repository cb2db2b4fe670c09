package storage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage/boltfile"
)

// A block is what one commit stored, as one value in a segment:
//
//	header   48 bytes: magic, version, flags, size of the note, term, first
//	         offset, time, sizes
//	table    8 bytes for each offset: where its record begins among the records,
//	         plus 1, or 0 for a repeat or a hole, which have none; CRC-32C of the
//	         framed record
//	crc      CRC-32C of header and table
//	digests  36 bytes for each message id: key, payload hash, offset of the
//	         first, slot of this one
//	crc      CRC-32C of the digests
//	note     what the owner of a replica gave with it, and its CRC-32C; nothing if
//	         there is none
//	records  framed as in a Deliver frame, see [protocol.AppendFramed]
//
// So each byte is covered by a checksum, one record can be checked without its
// neighbours, a whole block goes into a chunk as it is, and whoever needs only
// the digests touches only the front.
//
// The naive way, one key for each message, writes 45 times what it stores.
type block struct {
	raw     []byte
	term    protocol.Term
	first   uint64 // offset of slot 0
	time    uint64 // of the commit, in microseconds since 1970; never decreases
	count   int    // slots, one for each offset
	records int    // slots that have a record
	rows    int    // digest rows
	noted   int    // bytes of the note
	head    int    // bytes before the records
	dollar  bool   // some topic begins with '$'
	times   bool   // records have times of their own
}

const (
	blockMagic   = 0x31425754 // "TWB1"
	blockVersion = 2
	headerBytes  = 48
	slotBytes    = 8
	rowBytes     = 36
	crcBytes     = 4

	flagDollar = 1 << 0
	flagTimes  = 1 << 1

	maxNote = math.MaxUint16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged is wrapped by everything that a checksum or a bound complains of.
var errDamaged = boltfile.ErrDamaged

// blockHeader is what a block says of itself before its contents.
type blockHeader struct {
	term  protocol.Term
	first uint64
	time  uint64
}

// digestRow is one message id of a block.
type digestRow struct {
	key     DedupeKey
	payload uint64 // hash of the payload of the first
	first   uint64 // offset of the first message with this id
	slot    uint32 // of this one in its block
}

// blockBuilder makes a block, entry by entry, so that little is left to do when
// it is wanted.
type blockBuilder struct {
	blockHeader
	count   int // offsets
	records int
	rows    int
	flags   byte
	table   []byte
	digests []byte
	note    []byte
	body    []byte // records, framed
}

// begin starts a block, in the memory of the one before.
func (b *blockBuilder) begin(h blockHeader) {
	*b = blockBuilder{blockHeader: h, table: b.table[:0], digests: b.digests[:0], body: b.body[:0]}
}

// recycle takes the memory of an encoded block away from its builder, for the next
// one.
func (b *blockBuilder) recycle() blockBuilder {
	memory := blockBuilder{table: b.table, digests: b.digests, body: b.body}
	b.table, b.digests, b.body = nil, nil, nil
	return memory
}

// identify adds the digest row of the entry that is added next.
func (b *blockBuilder) identify(key *DedupeKey, payload, first uint64) {
	le := binary.LittleEndian
	b.digests = append(b.digests, key[:]...)
	b.digests = le.AppendUint64(b.digests, payload)
	b.digests = le.AppendUint64(b.digests, first)
	b.digests = le.AppendUint32(b.digests, uint32(b.count))
	b.rows++
}

// add gives the next offset to a record, or to nothing if it is nil, and writes
// the place into the record.
func (b *blockBuilder) add(record []byte, time uint64) {
	offset := b.first + uint64(b.count)
	b.count++
	if record == nil {
		b.table = append(b.table, make([]byte, slotBytes)...)
		return
	}
	protocol.PlaceRecord(record, offset, time)
	at := len(b.body)
	b.body = protocol.AppendFramed(b.body, record)
	b.table = binary.LittleEndian.AppendUint32(b.table, uint32(at+1))
	b.table = binary.LittleEndian.AppendUint32(b.table, crc32.Checksum(b.body[at:], castagnoli))
	b.records++
	if topic := protocol.RecordTopic(record); len(topic) > 0 && topic[0] == '$' {
		b.flags |= flagDollar
	}
}

// encode returns the block.
func (b *blockBuilder) encode() []byte {
	size := headerBytes + len(b.table) + crcBytes + len(b.digests) + crcBytes + noteBytes(len(b.note)) + len(b.body)
	raw := make([]byte, headerBytes, size)
	le := binary.LittleEndian
	le.PutUint32(raw, blockMagic)
	raw[4], raw[5] = blockVersion, b.flags
	le.PutUint16(raw[6:], uint16(len(b.note)))
	le.PutUint64(raw[8:], uint64(b.term))
	le.PutUint64(raw[16:], b.first)
	le.PutUint64(raw[24:], b.time)
	le.PutUint32(raw[32:], uint32(b.count))
	le.PutUint32(raw[36:], uint32(b.records))
	le.PutUint32(raw[40:], uint32(b.rows))
	le.PutUint32(raw[44:], uint32(size))
	raw = append(raw, b.table...)
	raw = le.AppendUint32(raw, crc32.Checksum(raw, castagnoli))
	raw = append(raw, b.digests...)
	raw = le.AppendUint32(raw, crc32.Checksum(b.digests, castagnoli))
	if len(b.note) > 0 {
		raw = append(raw, b.note...)
		raw = le.AppendUint32(raw, crc32.Checksum(b.note, castagnoli))
	}
	return append(raw, b.body...)
}

// noteBytes returns what a note of a size takes in a block.
func noteBytes(size int) int {
	if size == 0 {
		return 0
	}
	return size + crcBytes
}

// openBlock reads the front of a block and verifies header and table. The block
// refers to raw.
func openBlock(raw []byte) (block, error) { return openFront(raw, len(raw)) }

// openFront opens a block of which raw is the front or all, and size the length.
func openFront(raw []byte, size int) (block, error) {
	le := binary.LittleEndian
	if len(raw) < headerBytes+crcBytes || le.Uint32(raw) != blockMagic {
		return block{}, fmt.Errorf("%w: a block does not begin as it should", errDamaged)
	}
	if raw[4] != blockVersion {
		return block{}, fmt.Errorf("%w: a block has version %d, this program knows %d", errDamaged, raw[4], blockVersion)
	}
	b := block{
		raw:     raw,
		term:    protocol.Term(le.Uint64(raw[8:])),
		first:   le.Uint64(raw[16:]),
		time:    le.Uint64(raw[24:]),
		count:   int(le.Uint32(raw[32:])),
		records: int(le.Uint32(raw[36:])),
		rows:    int(le.Uint32(raw[40:])),
		noted:   int(le.Uint16(raw[6:])),
		dollar:  raw[5]&flagDollar != 0,
		times:   raw[5]&flagTimes != 0,
	}
	b.head = b.rowsEnd() + crcBytes + noteBytes(b.noted)
	switch {
	case int(le.Uint32(raw[44:])) != size, b.head > len(raw),
		b.count == 0, b.records > b.count, b.rows > b.count,
		b.first > math.MaxInt64:
		return block{}, fmt.Errorf("%w: the sizes in a block contradict each other", errDamaged)
	case le.Uint32(raw[b.table():]) != crc32.Checksum(raw[:b.table()], castagnoli):
		return block{}, fmt.Errorf("%w: the checksum of the block at offset %d does not match", errDamaged, b.first)
	}
	return b, nil
}

// table returns where the table ends.
func (b *block) table() int { return headerBytes + b.count*slotBytes }

// rowsEnd returns where the digest rows end.
func (b *block) rowsEnd() int { return b.table() + crcBytes + b.rows*rowBytes }

// last returns the offset of the last slot.
func (b *block) last() uint64 { return b.first + uint64(b.count) - 1 }

// body returns all records of the block, framed, unverified.
func (b *block) body() []byte { return b.raw[b.head:] }

// at returns where the record of a slot begins, or 0 if it has none.
func (b *block) at(slot int) int {
	at := int(binary.LittleEndian.Uint32(b.raw[headerBytes+slot*slotBytes:]))
	if at == 0 {
		return 0
	}
	return b.head + at - 1
}

// frame returns the record of a slot and the same with its frame, both
// unverified; nil if the slot is a repeat's.
func (b *block) frame(slot int) (record, framed []byte, err error) {
	at := b.at(slot)
	if at == 0 {
		return nil, nil, nil
	}
	if at > len(b.raw) {
		return nil, nil, fmt.Errorf("%w: the record at offset %d is not where the block says", errDamaged, b.first+uint64(slot))
	}
	record, rest, ok := protocol.NextFramed(b.raw[at:])
	if !ok {
		return nil, nil, fmt.Errorf("%w: the record at offset %d cannot be read", errDamaged, b.first+uint64(slot))
	}
	return record, b.raw[at : len(b.raw)-len(rest)], nil
}

// verify checks the record of a slot, as frame returned it, against its
// checksum.
func (b *block) verify(slot int, framed []byte) error {
	want := binary.LittleEndian.Uint32(b.raw[headerBytes+slot*slotBytes+4:])
	if crc32.Checksum(framed, castagnoli) != want {
		return fmt.Errorf("%w: the checksum of the record at offset %d does not match", errDamaged, b.first+uint64(slot))
	}
	return nil
}

// verifyAll checks the digests and every record, and that nothing lies between
// them, and calls each with the offset of each record.
func (b *block) verifyAll(each func(offset uint64, record []byte) error) error {
	if _, err := b.digests(); err != nil {
		return err
	}
	if _, err := b.note(); err != nil {
		return err
	}
	at, stored := b.head, 0
	for slot := range b.count {
		record, framed, err := b.frame(slot)
		if err != nil {
			return err
		}
		if framed == nil {
			continue
		}
		if err := b.verify(slot, framed); err != nil {
			return err
		}
		offset, _ := protocol.RecordPlace(record)
		if b.at(slot) != at || offset != b.first+uint64(slot) {
			return fmt.Errorf("%w: the record at offset %d is in another's place", errDamaged, b.first+uint64(slot))
		}
		if err := each(offset, record); err != nil {
			return err
		}
		at += len(framed)
		stored++
	}
	if at != len(b.raw) || stored != b.records {
		return fmt.Errorf("%w: the block at offset %d has bytes that belong to no record", errDamaged, b.first)
	}
	return nil
}

// digests returns the digest rows as they are stored, verified.
func (b *block) digests() ([]byte, error) {
	rows := b.raw[b.table()+crcBytes : b.rowsEnd()]
	if binary.LittleEndian.Uint32(b.raw[b.rowsEnd():]) != crc32.Checksum(rows, castagnoli) {
		return nil, fmt.Errorf("%w: the checksum of the digests at offset %d does not match", errDamaged, b.first)
	}
	return rows, nil
}

// note returns the note, verified; nil if there is none.
func (b *block) note() ([]byte, error) {
	if b.noted == 0 {
		return nil, nil
	}
	note, sum := b.raw[b.rowsEnd()+crcBytes:b.head-crcBytes], b.raw[b.head-crcBytes:]
	if binary.LittleEndian.Uint32(sum) != crc32.Checksum(note, castagnoli) {
		return nil, fmt.Errorf("%w: the checksum of the note at offset %d does not match", errDamaged, b.first)
	}
	return note, nil
}

// parseRow reads one stored digest row.
func parseRow(b []byte) digestRow {
	le := binary.LittleEndian
	return digestRow{
		key:     DedupeKey(b[:16]),
		payload: le.Uint64(b[16:]),
		first:   le.Uint64(b[24:]),
		slot:    le.Uint32(b[32:]),
	}
}
