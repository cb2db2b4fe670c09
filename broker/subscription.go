package broker

import (
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// subscription is one cursor of a session on the log. It is either behind, when
// the session's pump reads the log for it or something has to come first, or
// live, when apply feeds it. It begins behind.
type subscription struct {
	session *Session
	stream  *stream
	number  uint32
	filter  protocol.Filter
	target  uint64 // head of the log when it began: reaching it is CaughtUp
	wishes
	membership
	consuming

	// Guarded by Session.mu.
	stance stance
	closed bool
	progress
	credit credit
	latest latest
	untold
}

// progress is how far a subscription has come. It is guarded by Session.mu.
type progress struct {
	caughtUp bool   // CaughtUp was sent
	cursor   uint64 // what matches up to here is in the session's queue
	told     uint64 // the client's cursor once it has read the queue, at most cursor
}

// allowed returns nil if the identity may have the subscription.
func (sub *subscription) allowed(id *Identity) *protocol.Error {
	if sub.dispatcher != nil {
		return id.MayConsume(sub.filter)
	}
	return id.MaySubscribe(sub.filter)
}

// membership is the place of a subscription in its live group. It is guarded by
// stream.mu.
type membership struct {
	group  *group // nil until the subscription has caught up
	member int    // index in group.members
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
	wishes, perr := s.wishesOf(req)
	if perr != nil {
		return nil, nil, perr
	}
	head := st.head()
	sub := &subscription{session: s, stream: st, number: req.Sub, filter: filter, target: head, wishes: wishes, credit: creditOf(req)}
	at, perr := st.begin(sub, start)
	if perr != nil {
		return nil, nil, perr
	}
	sub.cursor, sub.told, sub.quiet = at.After, at.After, at.Quiet
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

// begin says where a subscription begins. For last-per-topic that is before the
// oldest record of the first round: whoever comes back with that position gets
// what was superseded since, and not all that ever was.
func (st *stream) begin(sub *subscription, start protocol.Start) (storage.Resolved, *protocol.Error) {
	if start.Kind != protocol.StartLastPerTopic {
		return st.resolve(start, sub.filter, sub.target)
	}
	earliest, _ := st.log.Bounds()
	if err := st.plan(sub, earliest-1, sub.target); err != nil {
		st.broker.options().Logger.Error("look for the newest of each topic", "stream", st.name, "filter", sub.filter.String(), "error", err)
		return storage.Resolved{}, protocol.AsError(err)
	}
	sub.latest.until = sub.target
	if len(sub.latest.offsets) == 0 {
		return storage.Resolved{After: sub.target}, nil
	}
	return storage.Resolved{After: sub.latest.offsets[0] - 1}, nil
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
		st.broker.options().Logger.Error("resolve a start", "stream", st.name, "start", start.String(), "error", err)
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
func (b *Broker) pull(s *subscription, cursor uint64, first bool) pulled {
	st := s.stream
	head := st.head()
	if cursor >= head {
		return pulled{live: b.join(s)}
	}
	var c protocol.Chunk
	var err error
	switch {
	case !s.conflates(cursor):
		c, err = st.log.Read(storage.Query{Filter: s.filter, After: cursor, Through: head, MaxBytes: maxChunkBytes})
	case s.tooEarly(cursor):
		return pulled{rest: true}
	default:
		c, err = st.readLatest(s, cursor, head)
	}
	if gap := st.gapOf(cursor, err); gap != nil {
		return pulled{gap: gap}
	}
	if err != nil {
		b.options().Logger.Error("read the log", "stream", st.name, "filter", s.filter.String(), "after", cursor, "error", err)
		return pulled{err: err}
	}
	if first && c.Through >= s.target { // CaughtUp comes with this chunk
		st.enlist(s)
	}
	s.sift(&c, b.metrics)
	return pulled{chunk: &c, hidden: hiddenAbove(c.Hidden, s.quiet)}
}
