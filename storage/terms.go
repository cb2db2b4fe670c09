package storage

import (
	"math"
	"slices"

	"github.com/tidewire/tidewire/protocol"
)

// maxTerms bounds the chain: a boot that writes something adds one.
const maxTerms = 10_000

// chain is the terms of a log, oldest first: each covers the offsets from its
// first up to the one before the next term's first. The first term is the log's
// identity: it covers offset 0, the place before everything, and stays for
// ever. A chain is never changed, only replaced.
//
// Invariants: never empty; firsts begin at 0 and increase strictly.
type chain []termSpan

type termSpan struct {
	term  protocol.Term
	first uint64
}

// next returns the chain with a term that covers everything above head. A last
// term in which nothing was written is replaced, and so is the oldest but the
// first if the chain would grow too long.
func (c chain) next(term protocol.Term, head uint64) chain {
	c = slices.Clone(c)
	for len(c) > 0 && c[len(c)-1].first > head {
		c = c[:len(c)-1]
	}
	if len(c) == 0 {
		return chain{{term, 0}}
	}
	if len(c) >= maxTerms {
		c = slices.Delete(c, 1, len(c)-maxTerms+2)
	}
	return append(c, termSpan{term, head + 1})
}

// at returns the term that covers the offset.
func (c chain) at(offset uint64) protocol.Term {
	return c[c.index(offset)].term
}

func (c chain) index(offset uint64) int {
	i, found := slices.BinarySearchFunc(c, offset, func(s termSpan, o uint64) int {
		switch {
		case s.first < o:
			return -1
		case s.first > o:
			return 1
		}
		return 0
	})
	if !found {
		i--
	}
	return i
}

// end returns the last offset that the term of the given offset covers.
func (c chain) end(offset uint64) uint64 {
	if i := c.index(offset) + 1; i < len(c) {
		return c[i].first - 1
	}
	return math.MaxUint64
}

// begin returns the offset before the first one that the term of the given
// offset covers.
func (c chain) begin(offset uint64) uint64 { return max(c[c.index(offset)].first, 1) - 1 }

// span returns the offsets that the term covers; last is the largest number for
// the newest term.
func (c chain) span(term protocol.Term) (first, last uint64, ok bool) {
	for _, s := range c {
		if s.term == term {
			return s.first, c.end(s.first), true
		}
	}
	return 0, 0, false
}
