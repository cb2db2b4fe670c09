package protocol

import "iter"

// A Chunk is a part of the log as one subscription sees it: it covers the
// offsets above After up to and including Through, and has every record in that
// range that matches. Chunks are shared and never changed.
//
// Ephemeral messages come in chunks without a term, which cover nothing. Nor do
// deliveries of a consumer, whose chunks have a generation; After and Through
// are 0 then.
type Chunk struct {
	Partition uint32
	Term      Term // in which all its records were written; 0 for ephemeral ones
	After     uint64
	Through   uint64
	Count     int    // records
	Records   []byte // see [AppendFramed]

	Attempts   []uint32 // of a consumer's deliveries: one for each record
	Generation uint64   // of a consumer's deliveries; else 0

	// Others has the places of the subscription in the other partitions, if it
	// reads several, for codecs whose frames are [Codec.Placed].
	Others []Place

	// Hidden has the offsets, increasing, of what matches in the range and is not
	// in it: retention by count does not give it any more. It is never sent; who
	// gets the chunk is told their number.
	Hidden []uint64
}

// Framed yields the records of the chunk in the order of their offsets, each also
// as [AppendFramed] has written it. It ends where one cannot be read, which is in no
// chunk that a log has made.
func (c *Chunk) Framed() iter.Seq2[[]byte, []byte] {
	return func(yield func(record, framed []byte) bool) {
		for rest := c.Records; len(rest) > 0; {
			record, next, ok := NextFramed(rest)
			if !ok || !yield(record, rest[:len(rest)-len(next)]) {
				return
			}
			rest = next
		}
	}
}

// Messages yields the messages of the chunk in the order of their offsets. A
// message that was published without an id has its position as id.
func (c *Chunk) Messages() iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		i := 0
		for rest := c.Records; len(rest) > 0; i++ {
			record, next, ok := NextFramed(rest)
			if !ok {
				yield(Message{}, errBadRecord)
				return
			}
			m, err := c.message(record)
			if m.Generation = c.Generation; i < len(c.Attempts) {
				m.Attempt = c.Attempts[i]
			}
			if !yield(m, err) || err != nil {
				return
			}
			rest = next
		}
	}
}

func (c *Chunk) message(record []byte) (Message, error) {
	m, err := ParseRecord(record)
	if err != nil {
		return Message{}, err
	}
	if m.Position.Offset == 0 { // ephemeral: it is nowhere in the log
		return m, nil
	}
	m.Position.Term, m.Position.Partition = c.Term, c.Partition
	if m.ID == "" {
		m.ID = m.Position.String()
	}
	return m, nil
}

// End returns the position of Through.
func (c *Chunk) End() Position {
	return Position{Term: c.Term, Partition: c.Partition, Offset: c.Through}
}

// AppendPlace appends where the subscription is when it has come to p, a position
// of the chunk, as a text.
func (c *Chunk) AppendPlace(b []byte, p Position) []byte {
	if len(c.Others) == 0 {
		return p.AppendText(b)
	}
	return p.With(c.Others).AppendText(b)
}

// Ephemeral reports whether the chunk has ephemeral messages: it is no part of
// the log, and moves no cursor.
func (c *Chunk) Ephemeral() bool { return c.Term == 0 }
