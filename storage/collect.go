package storage

import (
	"slices"
	"unsafe"

	"github.com/tidewire/tidewire/protocol"
)

// collector gathers matching records into a chunk.
type collector struct {
	filter protocol.Filter
	cur    uint64 // everything up to here has been looked at
	limit  uint64 // last offset wanted
	max    int    // bytes wanted
	budget int    // bytes that may still be looked through
	out    []byte
	count  int
	kept   *kept
	hidden []uint64 // offsets of what matches and is not given any more

	topic   []byte // of the record before, and whether it matched
	matched bool
}

func (c *collector) full() bool {
	return len(c.out) >= c.max || c.budget <= 0 || len(c.hidden) >= hiddenAtOnce
}

// block takes what matches from a block, from cur on. Blocks in memory need not
// be verified. Neighbours that match are copied together.
func (c *collector) block(b *block, verify bool) error {
	c.budget -= len(b.raw)
	if size := len(b.raw) - b.head; !verify && c.wants(b) && len(c.out)+size <= c.max {
		c.out = append(c.out, b.body()...)
		c.count += b.records
		c.cur = b.last()
		return nil
	}
	slot, last := 0, min(b.last(), c.limit)
	if c.cur >= b.first {
		slot = int(c.cur - b.first + 1)
	}
	from, to := 0, 0 // the part of the block that is still to be copied
	for ; c.cur < last && len(c.out)+to-from < c.max; slot++ {
		framed, err := c.look(b, slot, verify)
		if err != nil {
			c.out = append(c.out, b.raw[from:to]...)
			return err
		}
		if framed == nil {
			continue
		}
		if at := b.at(slot); at != to {
			c.out = append(c.out, b.raw[from:to]...)
			from, to = at, at
		}
		to += len(framed)
	}
	c.out = append(c.out, b.raw[from:to]...)
	return nil
}

// wants reports whether everything in the block matches.
func (c *collector) wants(b *block) bool {
	return c.filter.All() && !b.dollar && c.cur < b.first && b.last() <= c.limit && c.kept.hiddenTop() < b.first
}

// pick takes one record from a block, if there is one and it matches.
func (c *collector) pick(b *block, slot int, verify bool) error {
	framed, err := c.look(b, slot, verify)
	c.out = append(c.out, framed...)
	return err
}

// expect makes room for so many records more, once, if they are about as long as
// the first. Growing step by step would take four times as much memory, and many
// who read a hundred messages each come back together.
func (c *collector) expect(more int) {
	const differ = 8 // bytes by which they may be longer
	if c.count == 1 && more > 0 {
		c.out = slices.Grow(c.out, min(more*(len(c.out)+differ), c.max))
	}
}

// look moves cur to the slot and returns its record with its frame, or nil if
// there is none or it does not match. If the record is damaged cur stays.
func (c *collector) look(b *block, slot int, verify bool) (framed []byte, err error) {
	record, framed, err := b.frame(slot)
	if err != nil {
		return nil, err
	}
	if verify && record != nil { // before the topic is believed
		if err := b.verify(slot, framed); err != nil {
			return nil, err
		}
	}
	c.cur = b.first + uint64(slot)
	if record == nil {
		return nil, nil
	}
	if !c.given(protocol.RecordTopic(record), c.cur) {
		return nil, nil
	}
	c.count++
	return framed, nil
}

// given reports whether the record of a topic matches and is given. If it matches
// and is not, it is noted.
func (c *collector) given(topic []byte, offset uint64) bool {
	if !c.match(topic) {
		return false
	}
	if c.kept.hides(topic, offset) {
		c.hidden = append(c.hidden, offset)
		return false
	}
	return true
}

// forget lets go of the bytes of a transaction that ends.
func (c *collector) forget() { c.topic = nil }

// match asks the filter, or remembers what it said of the record before.
func (c *collector) match(topic []byte) bool {
	if string(topic) != string(c.topic) || c.topic == nil {
		c.topic = topic
		c.matched = c.filter.Match(unsafe.String(unsafe.SliceData(topic), len(topic)))
	}
	return c.matched
}
