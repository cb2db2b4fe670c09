package broker

import (
	"errors"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// subscription is one cursor of a session on the log. It is in one of two
// states: behind, when the session's pump reads the log for it, and live, when
// apply feeds it. It begins behind.
type subscription struct {
	session *Session
	stream  *stream
	number  uint32
	filter  protocol.Filter
	target  uint64 // head of the log when it began: reaching it is CaughtUp

	// Guarded by stream.mu.
	group  *group // nil until it joined for the first time
	member int    // index in group.members

	// Guarded by Session.mu.
	live     bool
	closed   bool
	caughtUp bool   // CaughtUp was sent
	cursor   uint64 // what matches up to here is in the session's queue
	told     uint64 // the client's cursor once it has read the queue, at most cursor
}

// subscribe resolves a request and returns a subscription that stands behind,
// with the frames that announce it.
func (s *Session) subscribe(req *tidewirev1.Subscribe) (*subscription, []any, *protocol.Error) {
	filter, err := protocol.ParseFilter(req.Filter)
	if err != nil {
		return nil, nil, protocol.AsError(err)
	}
	if err := s.Identity().MaySubscribe(filter); err != nil {
		return nil, nil, err
	}
	st, perr := s.broker.reading(filter, req.Stream)
	if perr != nil {
		return nil, nil, perr
	}
	start, err := protocol.ParseStart(req.From)
	if err != nil {
		return nil, nil, protocol.AsError(err)
	}
	head := st.head()
	at, perr := st.resolve(start, filter, head)
	if perr != nil {
		return nil, nil, perr
	}
	sub := &subscription{session: s, stream: st, number: req.Sub, filter: filter, target: head, cursor: at.After, told: at.After}
	begin := st.log.PositionOf(at.After)
	if at.Gap != nil {
		// The gap moves the client's cursor, not this answer: a client that is cut
		// off between the two must ask from its old position again, to be told.
		begin = start.Position
	}
	frames := []any{&tidewirev1.Subscribed{
		Sub:      req.Sub,
		Position: begin.String(),
		Cursors:  []*tidewirev1.Cursor{{Offset: begin.Offset}},
		Resumed:  start.Kind == protocol.StartPosition && at.Gap == nil,
		Behind:   head - min(head, at.After),
	}}
	if at.Gap != nil {
		frames = append(frames, st.gapFrame(req.Sub, at.Gap))
	}
	return sub, frames, nil
}

// resolve says where a start begins.
func (st *stream) resolve(start protocol.Start, f protocol.Filter, head uint64) (storage.Resolved, *protocol.Error) {
	if start.Kind == protocol.StartPosition && start.Position.Partition != 0 {
		return storage.Resolved{}, protocol.Errorf(protocol.CodeInvalidPosition, "the position %s is in partition %d, but this stream has only partition 0", start.Position, start.Position.Partition)
	}
	if start.Kind != protocol.StartPosition && start.Kind != protocol.StartNew {
		st.broker.resolving <- struct{}{} // these search the log: not for everybody at once
		defer func() { <-st.broker.resolving }()
	}
	at, err := st.log.Resolve(start, f, head)
	if err != nil {
		st.broker.options.Logger.Error("resolve a start", "stream", st.name, "start", start.String(), "error", err)
		return storage.Resolved{}, protocol.AsError(err)
	}
	return at, nil
}

func (st *stream) gapFrame(sub uint32, g *storage.Gap) *tidewirev1.Gap {
	st.broker.metrics.gaps.WithLabelValues(g.Reason).Inc()
	frame := &tidewirev1.Gap{
		Sub: sub, Reason: g.Reason, After: g.After, Through: g.Through,
		Position: st.log.PositionOf(g.Next).String(), Offset: g.Next,
	}
	if g.Term != 0 {
		frame.Term = g.Term.String()
	}
	return frame
}

// pulled is what one look at the log brought for a subscription that is behind.
type pulled struct {
	chunk *chunk       // may be nil
	gap   *storage.Gap // what was trimmed under the subscription; may be nil
	live  bool         // it has joined its group: nothing more to pull
	err   error        // the log cannot be read
}

// pull reads the next part of the log for a subscription that is behind, or
// joins it to its live group if there is none. Only the session's pump calls
// it, so the cursor does not move meanwhile.
func (b *Broker) pull(s *subscription, cursor uint64) pulled {
	st := s.stream
	head := st.head()
	if cursor >= head {
		return pulled{live: b.join(s)}
	}
	c, err := st.log.Read(storage.Query{Filter: s.filter, After: cursor, Through: head, MaxBytes: maxChunkBytes})
	if errors.Is(err, storage.ErrTrimmed) {
		return pulled{gap: st.trimmedGap(cursor)}
	}
	if err != nil {
		b.options.Logger.Error("read the log", "stream", st.name, "filter", s.filter.String(), "after", cursor, "error", err)
		return pulled{err: err}
	}
	return pulled{chunk: &chunk{Chunk: c}}
}

// trimmedGap describes what retention took above a cursor.
func (st *stream) trimmedGap(cursor uint64) *storage.Gap {
	earliest, _ := st.log.Bounds()
	last := earliest - 1
	return &storage.Gap{
		Reason: storage.GapRetention, Term: st.log.PositionOf(last).Term,
		After: cursor, Through: last, Next: last,
	}
}
