package broker

import (
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// subscription is one cursor of a session on the log. It is in one of two
// states: behind, when the session's pump reads the log for it, and live, when
// apply feeds it. It begins behind.
type subscription struct {
	session *Session
	number  uint32
	filter  protocol.Filter
	target  uint64 // head of the log when it began: reaching it is CaughtUp

	// Guarded by Broker.mu.
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
	if err := s.checkNumber(req.Sub); err != nil {
		return nil, nil, err
	}
	filter, err := protocol.ParseFilter(req.Filter)
	if err != nil {
		return nil, nil, protocol.AsError(err)
	}
	if err := s.Identity().MaySubscribe(filter); err != nil {
		return nil, nil, err
	}
	if req.Stream != "" && req.Stream != MainStream {
		return nil, nil, protocol.Errorf(protocol.CodeUnknownStream, "there is no stream %.80q, this broker has %s", req.Stream, MainStream)
	}
	start, err := protocol.ParseStart(req.From)
	if err != nil {
		return nil, nil, protocol.AsError(err)
	}
	head := s.broker.head()
	at, perr := s.broker.resolve(start, filter, head)
	if perr != nil {
		return nil, nil, perr
	}
	sub := &subscription{session: s, number: req.Sub, filter: filter, target: head, cursor: at.After, told: at.After}
	begin := s.broker.log.PositionOf(at.After)
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
		frames = append(frames, s.broker.gapFrame(req.Sub, at.Gap))
	}
	return sub, frames, nil
}

// MainStream is the name of the stream that every broker has.
const MainStream = "main"

// resolve says where a start begins.
func (b *Broker) resolve(start protocol.Start, f protocol.Filter, head uint64) (storage.Resolved, *protocol.Error) {
	if start.Kind == protocol.StartPosition && start.Position.Partition != 0 {
		return storage.Resolved{}, protocol.Errorf(protocol.CodeInvalidPosition, "the position %s is in partition %d, but this stream has only partition 0", start.Position, start.Position.Partition)
	}
	if start.Kind != protocol.StartPosition && start.Kind != protocol.StartNew {
		b.resolving <- struct{}{} // these search the log: not for everybody at once
		defer func() { <-b.resolving }()
	}
	at, err := b.log.Resolve(start, f, head)
	if err != nil {
		b.options().Logger.Error("resolve a start", "start", start.String(), "error", err)
		return storage.Resolved{}, protocol.AsError(err)
	}
	return at, nil
}

func (b *Broker) gapFrame(sub uint32, g *storage.Gap) *tidewirev1.Gap {
	b.metrics.gaps.WithLabelValues(g.Reason).Inc()
	frame := &tidewirev1.Gap{
		Sub: sub, Reason: g.Reason, After: g.After, Through: g.Through,
		Position: b.log.PositionOf(g.Next).String(), Offset: g.Next,
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
	head := b.head()
	if cursor >= head {
		return pulled{live: b.join(s)}
	}
	c, err := b.log.Read(storage.Query{Filter: s.filter, After: cursor, Through: head, MaxBytes: maxChunkBytes})
	if gap := b.gapOf(cursor, err); gap != nil {
		return pulled{gap: gap}
	}
	if err != nil {
		b.options().Logger.Error("read the log", "filter", s.filter.String(), "after", cursor, "error", err)
		return pulled{err: err}
	}
	return pulled{chunk: &chunk{Chunk: c}}
}
