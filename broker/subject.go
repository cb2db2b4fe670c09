package broker

import (
	"fmt"
	"slices"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// subject is what never changes about a consumer.
type subject struct {
	broker  *Broker
	stream  *stream
	name    string
	filter  protocol.Filter
	strands []strand
}

// strand is one partition that a consumer reads for one source. What its filter selects
// in the first partition is strand 0, what was given back to it strand 1, for that has one
// topic; the other partitions of its filter follow.
type strand struct {
	*partition
	source consumer.Source
	filter protocol.Filter
}

func newSubject(b *Broker, st *stream, m *consumer.Machine) (subject, error) {
	filter, err := protocol.ParseFilter(m.Settings().Filter)
	if err != nil {
		return subject{}, err
	}
	s := subject{broker: b, stream: st, name: m.Name(), filter: filter, strands: strandsOf(st, m.Name(), filter)}
	if at := m.Places(); 1+len(at.More) != len(s.strands)-1 || at.Main.Partition != s.strands[0].number {
		return s, fmt.Errorf("the consumer %s was made for %d partitions of the stream %s, and its filter reads %d now: delete it and make it anew", m.Name(), 1+len(at.More), st.name, len(s.strands)-1)
	}
	return s, nil
}

func strandsOf(st *stream, name string, filter protocol.Filter) []strand {
	in, back := st.read(filter), mustFilter(redriveTopic(name))
	strands := append(make([]strand, 0, len(in)+1), strand{in[0], consumer.Main, filter}, strand{st.of(redriveTopic(name)), consumer.Redrive, back})
	for _, pt := range in[1:] {
		strands = append(strands, strand{pt, consumer.Main, filter})
	}
	return strands
}

func (s *subject) about() *subject { return s }

// back returns the strand of what is given back.
func (s *subject) back() *strand { return &s.strands[consumer.Redrive] }

// headsOf returns where all strands end now.
func headsOf(strands []strand) (at consumer.Places) {
	for i := range strands {
		put(&at, i, strands[i].log.PositionOf(strands[i].head()))
	}
	return at
}

// put puts the position of a strand in its place.
func put(to *consumer.Places, strand int, at protocol.Position) {
	switch strand {
	case int(consumer.Main):
		to.Main = at
	case int(consumer.Redrive):
		to.Redrive = at
	default:
		to.More = append(to.More, at)
	}
}

// ofStrand returns the position of a strand.
func ofStrand(p *consumer.Places, strand int) protocol.Position {
	switch strand {
	case int(consumer.Main):
		return p.Main
	case int(consumer.Redrive):
		return p.Redrive
	}
	return p.More[strand-2]
}

// vector returns the position of what the filter selects.
func vector(p *consumer.Places) protocol.Vector {
	v := p.Main.Vector()
	for _, more := range p.More {
		v = more.With(v.Places)
	}
	return v
}

// heads returns up to where commits are applied in each partition.
func (st *stream) heads() []uint64 {
	heads := make([]uint64, len(st.parts))
	for i, pt := range st.parts {
		heads[i] = pt.head()
	}
	return heads
}

// placesAt reads a position of what the filter selects.
func (s *subject) placesAt(text string) (to consumer.Places, ok bool) {
	v, err := protocol.ParseVector(text)
	if err != nil {
		return to, false
	}
	for i := range s.strands {
		at, is := v.At(s.strands[i].number)
		if s.strands[i].source != consumer.Main {
			continue
		}
		if !is {
			return to, false
		}
		put(&to, i, at)
	}
	return to, true
}

// filterOf returns what a source selects.
func (s *subject) filterOf(src consumer.Source) protocol.Filter { return s.strands[src].filter }

// in returns the partition of a place, nil if there is none.
func (st *stream) in(place uint64) (*partition, uint64) {
	number, offset := consumer.SplitPlace(place)
	if int64(number) >= int64(len(st.parts)) {
		return nil, 0
	}
	return st.parts[number], offset
}

// position returns the position of a place.
func (st *stream) position(place uint64) protocol.Position {
	pt, offset := st.in(place)
	if pt == nil {
		return protocol.Position{}
	}
	return pt.log.PositionOf(offset)
}

// pick reads records of a source by their places, which it puts in order, into found.
// What cannot be read is left out.
func (s *subject) pick(src consumer.Source, places []uint64, found map[uint64]loaded) {
	slices.Sort(places)
	for len(places) > 0 {
		pt, _ := s.stream.in(places[0])
		var offsets []uint64
		n := 0
		for ; n < len(places); n++ {
			in, offset := s.stream.in(places[n])
			if in != pt {
				break
			}
			offsets = append(offsets, offset)
		}
		if pt != nil {
			pt.pick(s.filterOf(src), offsets, found)
		}
		places = places[n:]
	}
}

// gapBetween is what retention took of a partition.
func (pt *partition) gapBetween(after, through uint64) *storage.Gap {
	return &storage.Gap{Reason: storage.GapRetention, Term: pt.log.PositionOf(through).Term, After: after, Through: through, Next: through}
}
