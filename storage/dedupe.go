package storage

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"math/rand/v2"
)

// dedupe remembers the newest N message ids: an entry is a repeat iff its key is
// among the previous N entries that had one, repeats and conflicts counted too.
// That rule depends on the log alone, so every node that reads N records back
// reaches the same verdicts.
//
// Rows stand in a ring, in log order; an open-addressing table finds the newest
// row of a key. Both hold no pointers, so the garbage collector does not look
// inside, and grow with use. A map of a million keys costs three times the
// memory and a hundred times the marking.
//
// Invariants: the row with sequence s is in ring slot s % N; exactly those rows
// are in the table that are the newest of their key; undo has one step for each
// row that is not final.
//
// The writer alone uses it.
type dedupe struct {
	limit   uint64        // N
	next    uint64        // sequence of the next row
	ring    [][]dedupeRow // in parts of ringPart rows
	table   []dedupeEntry // a power of two of them, at most half of them taken
	used    int           // taken places in the table
	seed    [2]uint64     // keeps strangers from choosing colliding ids
	evicted uint64        // time of the newest row that has left, 0 if none has
	blind   bool          // what came before the first row is not known
	undo    []dedupeUndo
}

type dedupeRow struct {
	key     DedupeKey
	payload uint64 // hash of the payload of the first
	first   uint64 // offset of the first
	time    uint64 // of the commit, in microseconds
}

// dedupeEntry leads to a row. Part of the key's hash is beside it: a key that is
// not there costs one look into memory, not two.
type dedupeEntry struct {
	hash uint32
	slot uint32 // ring slot + 1; 0 is a free place
}

// dedupeUndo is what it takes to forget one row.
type dedupeUndo struct {
	old     dedupeRow // the row that left for it, if full
	full    bool
	older   uint32 // slot + 1 of the same key before, 0 if none
	evicted uint64
}

const ringPart = 4096

func newDedupe(limit int) *dedupe {
	return &dedupe{
		limit: uint64(limit),
		table: make([]dedupeEntry, 1024),
		seed:  [2]uint64{rand.Uint64(), rand.Uint64()},
	}
}

// len returns the number of rows.
func (d *dedupe) len() int { return int(min(d.next, d.limit)) }

// oldest returns the time of the oldest row, 0 if there is none.
func (d *dedupe) oldest() uint64 {
	if d.next == 0 {
		return 0
	}
	return d.row(uint32((d.next - uint64(d.len())) % d.limit)).time
}

// forgotten returns the time up to which ids may have been forgotten, 0 if none
// was. end is the time of the log's end.
func (d *dedupe) forgotten(end uint64) uint64 {
	switch {
	case !d.blind || d.next >= d.limit:
		return d.evicted
	case d.next == 0:
		return max(d.evicted, end)
	}
	return max(d.evicted, d.oldest())
}

func (d *dedupe) row(slot uint32) *dedupeRow {
	return &d.ring[slot/ringPart][slot%ringPart]
}

// find returns the newest row of the key. The row is valid until the next add.
func (d *dedupe) find(key *DedupeKey) *dedupeRow {
	if i, found := d.lookup(key); found {
		return d.row(d.table[i].slot - 1)
	}
	return nil
}

// add remembers a row as the newest, in place of the one N rows before.
func (d *dedupe) add(r dedupeRow) {
	slot := uint32(d.next % d.limit)
	u := dedupeUndo{evicted: d.evicted}
	if d.next >= d.limit {
		u.old, u.full = *d.row(slot), true
		d.drop(slot)
		d.evicted = max(d.evicted, u.old.time)
	} else if slot/ringPart == uint32(len(d.ring)) {
		d.ring = append(d.ring, make([]dedupeRow, ringPart))
	}
	*d.row(slot) = r
	u.older = d.point(slot)
	d.next++
	d.undo = append(d.undo, u)
}

// keep makes the oldest n rows that could be reverted final.
func (d *dedupe) keep(n int) { d.undo = append(d.undo[:0], d.undo[n:]...) }

// revert forgets all rows that are not final, newest first.
func (d *dedupe) revert() {
	for i := len(d.undo) - 1; i >= 0; i-- {
		u := &d.undo[i]
		d.next--
		slot := uint32(d.next % d.limit)
		place, _ := d.lookup(&d.row(slot).key)
		if u.older != 0 {
			d.table[place].slot = u.older
		} else {
			d.free(place)
		}
		d.evicted = u.evicted
		if u.full {
			*d.row(slot) = u.old
			if _, newer := d.lookup(&u.old.key); !newer {
				d.point(slot)
			}
		}
	}
	d.undo = d.undo[:0]
}

// point makes the table lead to the row in the slot and returns the slot + 1 to
// which it led for the same key before, or 0.
func (d *dedupe) point(slot uint32) (older uint32) {
	if d.used*2 >= len(d.table) {
		d.grow()
	}
	key := &d.row(slot).key
	place, found := d.lookup(key)
	if found {
		older = d.table[place].slot
	} else {
		d.used++
	}
	d.table[place] = dedupeEntry{d.hash(key), slot + 1}
	return older
}

// drop takes the row in the slot out of the table, unless a newer one has its
// key.
func (d *dedupe) drop(slot uint32) {
	mask := len(d.table) - 1
	for place := int(d.hash(&d.row(slot).key)) & mask; d.table[place].slot != 0; place = (place + 1) & mask {
		if d.table[place].slot == slot+1 {
			d.free(place)
			return
		}
	}
}

// lookup returns the place of the key in the table, or else where it belongs.
func (d *dedupe) lookup(key *DedupeKey) (place int, found bool) {
	mask, hash := len(d.table)-1, d.hash(key)
	for place = int(hash) & mask; ; place = (place + 1) & mask {
		e := d.table[place]
		if e.slot == 0 {
			return place, false
		}
		if e.hash == hash && d.row(e.slot-1).key == *key {
			return place, true
		}
	}
}

func (d *dedupe) hash(key *DedupeKey) uint32 {
	a := binary.LittleEndian.Uint64(key[:8]) ^ d.seed[0]
	b := binary.LittleEndian.Uint64(key[8:]) ^ d.seed[1]
	hi, lo := bits.Mul64(a, b)
	return uint32(hi ^ lo)
}

// free empties a place and moves up those behind it that would no longer be
// found, so that no tombstones are needed.
func (d *dedupe) free(place int) {
	mask := len(d.table) - 1
	d.used--
	for next := (place + 1) & mask; d.table[next].slot != 0; next = (next + 1) & mask {
		home := int(d.table[next].hash) & mask
		if (next-home)&mask >= (next-place)&mask {
			d.table[place] = d.table[next]
			place = next
		}
	}
	d.table[place] = dedupeEntry{}
}

func (d *dedupe) grow() {
	old := d.table
	d.table = make([]dedupeEntry, 2*len(old))
	mask := len(d.table) - 1
	for _, e := range old {
		if e.slot == 0 {
			continue
		}
		place := int(e.hash) & mask
		for d.table[place].slot != 0 {
			place = (place + 1) & mask
		}
		d.table[place] = e
	}
}

// rows yields the rows in their order.
func (d *dedupe) rows() iter.Seq[*dedupeRow] {
	return func(yield func(*dedupeRow) bool) {
		for n := d.next - uint64(d.len()); n < d.next; n++ {
			if !yield(d.row(uint32(n % d.limit))) {
				return
			}
		}
	}
}
