package broker

import (
	"slices"

	"github.com/tidewire/tidewire/protocol"
)

// group is everybody who is subscribed live to one filter. Each commit becomes
// at most a few chunks for each group, whatever the number of its members.
// Everything in it is guarded by partition.mu.
type group struct {
	filter  protocol.Filter
	through uint64 // `through` of the last chunk: `after` of the next one

	members []*part
	lent    bool // apply is reading members: copy before changing them

	watchers []watcher // consumers that read what matches
	seen     bool      // the current commit has something for the watchers

	open   *chunk   // being filled by the current commit
	chunks []*chunk // finished ones of the current commit
}

// add appends a member. Its place in members is kept in the subscription.
func (g *group) add(s *part) {
	g.own()
	s.member = len(g.members)
	g.members = append(g.members, s)
}

// remove takes a member out; the last one takes its place.
func (g *group) remove(s *part) {
	g.own()
	last := len(g.members) - 1
	g.members[s.member] = g.members[last]
	g.members[s.member].member = s.member
	g.members[last] = nil
	g.members = g.members[:last]
}

// own makes members safe to change: apply may still read what it was lent.
func (g *group) own() {
	if g.lent {
		g.members = append(make([]*part, 0, len(g.members)+1), g.members...)
		g.lent = false
	}
}

// append adds a record of the current commit, as it stands framed in the
// commit's own memory: nothing is copied before somebody gets it. expires is when
// it does, 0 for never.
func (g *group) append(framed []byte, offset, expires uint64, commit *protocol.Chunk) {
	if g.open != nil && g.open.size+len(framed) > maxChunkBytes {
		g.finish(offset - 1)
	}
	if g.open == nil {
		g.open = &chunk{Chunk: protocol.Chunk{Partition: commit.Partition, Term: commit.Term, After: g.through}}
	}
	g.open.parts = append(g.open.parts, framed)
	g.open.size += len(framed)
	g.open.Count++
	if expires != 0 && (g.open.expires == 0 || expires < g.open.expires) {
		g.open.expires = expires
	}
}

// finish ends the open chunk: nothing more of the range up to through matches.
func (g *group) finish(through uint64) {
	g.open.Through = through
	g.through = through
	g.chunks = append(g.chunks, g.open)
	g.open = nil
}

// take returns what the current commit has for the members, and lends them.
func (g *group) take(through uint64) delivery {
	g.finish(through)
	d := delivery{chunks: g.chunks, members: g.members}
	g.chunks, g.lent = nil, true
	return d
}

// delivery is one group's part of a commit.
type delivery struct {
	chunks  []*chunk
	members []*part
}

// watcher is a consumer that is to be told when something matches.
type watcher struct {
	listener listener
	strand   int
}

// unwatch takes a consumer out.
func (g *group) unwatch(l listener) {
	g.watchers = slices.DeleteFunc(slices.Clone(g.watchers), func(w watcher) bool { return w.listener == l })
}

// unused reports whether nobody needs the group any more.
func (g *group) unused() bool { return len(g.members) == 0 && len(g.watchers) == 0 }
