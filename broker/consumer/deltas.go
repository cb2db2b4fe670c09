package consumer

import (
	"encoding/binary"
	"math"

	"github.com/tidewire/tidewire/protocol"
)

// A record of the log is groups, each a byte for its kind, the length of its
// body as a varint, and the body. The upper half of the kind is the version.
const (
	kindDeltas byte = version<<4 | iota // incarnation, then deltas
	kindCreate                          // incarnation, then a state without entries
	kindDelete                          // incarnation, the registry's last number
	kindBegin                           // the registry's last number
	kindPage                            // incarnation, then a state
	kindEnd                             // nothing
	kindPart                            // incarnation, number of the part, a piece of a state
	kindLast                            // incarnation, how many parts were before it, the last piece

	version = 1
)

// The deltas. Each is a byte and its fields, numbers as varints; the upper
// three bits of the byte are flags where a delta has some.
const (
	deltaTook          byte = iota + 1 // place, an entry (see appendEntry): new, and the cursor of its source is there
	deltaNow                           // place, state, attempts, due, due minus first; with flagReason the reason
	deltaGone                          // place
	deltaMoved                         // place; flagRedrive
	deltaCursor                        // term, partition, offset; flagRedrive
	deltaGeneration                    // generation
	deltaPaused                        // flagOn
	deltaSettings                      // see appendSettings
	deltaClear                         // no entry is left
	deltaDead                          // offset in the stream of dead letters
	deltaUndead                        // the same
	deltaUndeadThrough                 // the same

	deltaMask   byte = 0x1f
	flagReason  byte = 0x20
	flagRedrive byte = 0x20
	flagOn      byte = 0x20
)

// deltas is what a machine has decided since it was asked last, encoded.
type deltas struct {
	body  []byte
	place uint64       // of the last deltaMoved
	moved [sources]int // where the last delta begins, plus 1, if it is a deltaMoved of that source
}

func (d *deltas) op(op byte, numbers ...uint64) {
	d.body = append(d.body, op)
	for _, n := range numbers {
		d.body = binary.AppendUvarint(d.body, n)
	}
	d.moved = [sources]int{}
}

// forget empties d. A small buffer is kept, which the next decisions fill.
func (d *deltas) forget() {
	if cap(d.body) > keepDeltas {
		d.body = nil
	}
	d.body, d.moved = d.body[:0], [sources]int{}
}

func (d *deltas) took(v Entry) {
	d.op(deltaTook, v.Offset)
	d.body = appendEntry(d.body, v)
}

func (d *deltas) now(v Entry, reason bool) {
	op := deltaNow
	if reason {
		op |= flagReason
	}
	d.op(op, v.Offset)
	d.body = append(d.body, byte(v.State))
	d.body = binary.AppendUvarint(d.body, uint64(v.Attempts))
	d.body = appendTimes(d.body, v)
	if reason {
		d.body = appendString(d.body, v.Reason)
	}
}

// movedTo takes the place of a move of the same source in the same partition right
// before it: a consumer whose filter is rare skips much.
func (d *deltas) movedTo(src Source, place uint64) {
	if at := d.moved[src]; at > 0 && d.place>>placeBits == place>>placeBits {
		d.body = d.body[:at-1]
	}
	at := len(d.body) + 1
	d.op(deltaMoved|redrive(src), place)
	d.moved[src], d.place = at, place
}

func (d *deltas) cursor(src Source, at protocol.Position) {
	d.op(deltaCursor | redrive(src))
	d.body = appendPosition(d.body, at)
}

func (d *deltas) gone(offset uint64)          { d.op(deltaGone, offset) }
func (d *deltas) generation(n uint64)         { d.op(deltaGeneration, n) }
func (d *deltas) clear()                      { d.op(deltaClear) }
func (d *deltas) dead(offset uint64)          { d.op(deltaDead, offset) }
func (d *deltas) undead(offset uint64)        { d.op(deltaUndead, offset) }
func (d *deltas) undeadThrough(offset uint64) { d.op(deltaUndeadThrough, offset) }

func (d *deltas) settings(s Settings) {
	d.op(deltaSettings)
	d.body = appendSettings(d.body, s)
}

func (d *deltas) paused(on bool) {
	op := deltaPaused
	if on {
		op |= flagOn
	}
	d.op(op)
}

func redrive(src Source) byte {
	if src == Redrive {
		return flagRedrive
	}
	return 0
}

// Deltas returns what was decided since the last call, as one group for the
// log, and forgets it. It is nil if nothing was.
func (m *Machine) Deltas() []byte {
	if len(m.deltas.body) == 0 {
		return nil
	}
	return m.AppendDeltas(nil)
}

// AppendDeltas is [Machine.Deltas] behind what b has.
func (m *Machine) AppendDeltas(b []byte) []byte {
	if len(m.deltas.body) == 0 {
		return b
	}
	b = appendGroup(b, kindDeltas, m.incarnation, m.deltas.body)
	m.deltas.forget()
	return b
}

// Unwritten is about how many bytes [Machine.Deltas] has to give.
func (m *Machine) Unwritten() int { return len(m.deltas.body) }

func appendGroup(b []byte, kind byte, number uint64, rest []byte) []byte {
	var head [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(head[:], number)
	b = append(b, kind)
	b = binary.AppendUvarint(b, uint64(n+len(rest)))
	b = append(b, head[:n]...)
	return append(b, rest...)
}

// AppendState appends everything about the machine but the holders, in
// one form: two machines are the same if these bytes are.
func (m *Machine) AppendState(b []byte) []byte {
	b = m.appendHead(b)
	b = binary.AppendUvarint(b, uint64(len(m.dead)))
	var before uint64
	for _, offset := range m.dead {
		b = binary.AppendUvarint(b, offset-before)
		before = offset
	}
	b = binary.AppendUvarint(b, uint64(len(m.pending.at)))
	before = 0
	for e := range m.pending.all() {
		b = binary.AppendUvarint(b, e.Offset-before)
		b = appendEntry(b, e.Entry)
		before = e.Offset
	}
	return b
}

func (m *Machine) appendHead(b []byte) []byte {
	b = appendString(b, m.name)
	b = binary.AppendVarint(b, m.created)
	b = binary.AppendUvarint(b, m.generation)
	b = append(b, m.flags())
	b = appendSettings(b, m.settings)
	b = appendPosition(b, m.cursors.first[Main])
	b = appendPosition(b, m.cursors.first[Redrive])
	if more := m.cursors.more; len(more) > 0 {
		b = binary.AppendUvarint(b, uint64(len(more)))
		for _, p := range more {
			b = appendPosition(b, p)
		}
	}
	return b
}

// The flags of a head.
const (
	headPaused  byte = 1 << iota
	headSeveral      // it reads several partitions: the places in the others follow
)

func (m *Machine) flags() (flags byte) {
	if m.paused {
		flags |= headPaused
	}
	if len(m.cursors.more) > 0 {
		flags |= headSeveral
	}
	return flags
}

// appendEntry appends all of an entry but its offset and its holder.
func appendEntry(b []byte, v Entry) []byte {
	b = append(b, byte(v.State)|byte(v.Source)<<4)
	b = binary.LittleEndian.AppendUint64(b, v.Key)
	b = binary.AppendUvarint(b, uint64(v.Size))
	b = binary.AppendUvarint(b, uint64(v.Attempts))
	b = appendTimes(b, v)
	return appendString(b, v.Reason)
}

func appendTimes(b []byte, v Entry) []byte {
	b = binary.AppendVarint(b, v.Due)
	return binary.AppendVarint(b, v.Due-v.First)
}

func appendPosition(b []byte, p protocol.Position) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(p.Term))
	b = binary.AppendUvarint(b, uint64(p.Partition))
	return binary.AppendUvarint(b, p.Offset)
}

func appendSettings(b []byte, s Settings) []byte {
	b = appendString(b, s.Filter)
	b = appendString(b, s.Stream)
	for _, n := range []int64{
		int64(s.AckWait), int64(s.Backoff.Base), int64(s.Backoff.Cap),
		int64(s.MaxDeliver), int64(s.MaxInFlight), int64(s.MaxWaiting), s.MaxInFlightBytes,
	} {
		b = binary.AppendVarint(b, n)
	}
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(s.Backoff.Factor))
	b = appendBool(b, s.Backoff.Jitter)
	b = appendBool(b, s.Exclusive)
	return appendBool(b, s.Ordered)
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}
