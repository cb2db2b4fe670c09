package broker

import (
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// pulled is what one look at the log brought for a subscription that is behind.
type pulled struct {
	chunk *protocol.Chunk // may be nil
	gap   *storage.Gap    // what was trimmed under the subscription; may be nil
	live  bool            // it has joined its group: nothing more to pull
	rest  bool            // it is conflated, and its next round is not due
	err   error           // the log cannot be read

	hidden uint64 // how many of the chunk's range retention by count hides
}

// pull reads the next part of the log for a subscription that is behind, or
// joins it to its live group if there is none. Only the session's pump calls
// it, so the cursor does not move meanwhile. first says that it has not caught up
// before.
func (b *Broker) pull(s *part, cursor uint64, first bool) pulled {
	pt := s.partition
	head := pt.head()
	if cursor >= head {
		return pulled{live: b.join(s)}
	}
	var c protocol.Chunk
	var err error
	switch {
	case !s.conflates(cursor):
		c, err = pt.log.Read(storage.Query{Filter: s.filter, After: cursor, Through: head, MaxBytes: maxChunkBytes})
	case s.tooEarly(cursor):
		return pulled{rest: true}
	default:
		c, err = pt.readLatest(s, cursor, head)
	}
	if gap := pt.gapOf(cursor, err); gap != nil {
		return pulled{gap: gap}
	}
	if err != nil {
		b.options().Logger.Error("read the log", "stream", pt.name, "filter", s.filter.String(), "after", cursor, "error", err)
		return pulled{err: err}
	}
	if first && c.Through >= s.target { // it has caught up with this chunk
		pt.enlist(s)
	}
	s.sift(&c, b.metrics)
	return pulled{chunk: &c, hidden: hiddenAbove(c.Hidden, s.quiet)}
}
