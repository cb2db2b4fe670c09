package brokertest

import (
	"context"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
	"github.com/tidewire/tidewire/storage/logtest"
)

// A Whole is a log that is to become a part: [storage.Log] and
// [storage.MemoryLog] are.
type Whole interface {
	logtest.Log
	Stats() storage.Stats
	Topics(ctx context.Context, q storage.TopicQuery) ([]storage.TopicStats, error)
	Purge(ctx context.Context) (through uint64, err error)
}

// A Part makes a log, which knows of no others, one of the partitions of a stream:
// its positions have the number of the partition, and the term of all.
type Part struct {
	Whole
	Number uint32
	Term   protocol.Term
}

// NewParts makes logs the partitions of one stream.
func NewParts[L Whole](logs ...L) []*Part {
	term := protocol.NewTerm()
	parts := make([]*Part, len(logs))
	for i, l := range logs {
		parts[i] = &Part{Whole: l, Number: uint32(i), Term: term}
	}
	return parts
}

func (p *Part) outer(at protocol.Position) protocol.Position {
	if at.IsZero() {
		return at
	}
	return protocol.Position{Term: p.Term, Partition: p.Number, Offset: at.Offset}
}

func (p *Part) chunk(c protocol.Chunk, err error) (protocol.Chunk, error) {
	c.Term, c.Partition = p.Term, p.Number
	return c, err
}

// Run hands commits on with the positions of the partition.
func (p *Part) Run(ctx context.Context, apply func(*storage.Commit)) error {
	return p.Whole.Run(ctx, func(c *storage.Commit) {
		c.Chunk, _ = p.chunk(c.Chunk, nil)
		for i := range c.Answers {
			r := &c.Answers[i].Result
			r.Position = p.outer(r.Position)
		}
		apply(c)
	})
}

// Read reads with the number of the partition.
func (p *Part) Read(q storage.Query) (protocol.Chunk, error) { return p.chunk(p.Whole.Read(q)) }

// ReadBack reads with the number of the partition.
func (p *Part) ReadBack(q storage.Query, n int) (protocol.Chunk, error) {
	return p.chunk(p.Whole.ReadBack(q, n))
}

// PositionOf returns the position of an offset.
func (p *Part) PositionOf(offset uint64) protocol.Position {
	return p.outer(p.Whole.PositionOf(offset))
}

// Resolve says where a start begins.
func (p *Part) Resolve(s protocol.Start, f protocol.Filter, head uint64) (storage.Resolved, error) {
	if s.Position.Term == p.Term {
		s.Position = p.Whole.PositionOf(s.Position.Offset)
	}
	s.Position.Partition = 0
	at, err := p.Whole.Resolve(s, f, head)
	if at.Gap != nil && at.Gap.Reason != storage.GapOtherLog {
		at.Gap.Term = p.Term
	}
	return at, err
}

// BeforeTrim passes a hook on to a log that has one.
func (p *Part) BeforeTrim(fn func(through uint64)) {
	if l, ok := p.Whole.(interface{ BeforeTrim(func(uint64)) }); ok {
		l.BeforeTrim(fn)
	}
}
