package cluster

import (
	"maps"
	"slices"

	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

// Term is the definition of a stream from an index on.
type Term struct {
	Index      uint64
	Definition *clusterv1.Definition // never changed
}

// Streams returns the names of the streams that are defined, in their order.
func (s *State) Streams() []string { return slices.Sorted(maps.Keys(s.streams)) }

// Terms returns all terms of a stream, the newest last; none if there is no such stream.
func (s *State) Terms(stream string) []Term { return slices.Clone(s.streams[stream]) }

// Definition returns what holds for a stream now, nil if there is no such stream.
func (s *State) Definition(stream string) *clusterv1.Definition {
	terms := s.streams[stream]
	if len(terms) == 0 {
		return nil
	}
	return terms[len(terms)-1].Definition
}

// define adds a stream, or a term behind the one that the writer knew as the newest.
func (s *State) define(at At, d *clusterv1.Define) {
	def := d.GetDefinition()
	terms := s.streams[def.GetStream()]
	if !validName(def.GetStream()) || def.GetTerm() == 0 || d.GetAfter() != s.Definition(def.GetStream()).GetTerm() {
		return
	}
	for _, t := range terms {
		if t.Definition.GetTerm() == def.GetTerm() {
			return // a term is never used twice
		}
	}
	s.streams[def.GetStream()] = append(terms, Term{Index: at.Index, Definition: def})
	s.changed(at, Event{Kind: Defined, Boot: at.Boot, Name: def.GetStream(), Generation: at.Index})
}
