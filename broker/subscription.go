package broker

import (
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// subscription is what a session has asked for under one number: a part in each
// partition that its filter reads, with one credit and one CaughtUp for all.
type subscription struct {
	session *Session
	stream  *stream
	number  uint32
	filter  protocol.Filter
	parts   []*part // in the order of their partitions; nearly always one
	wishes
	consuming

	// Guarded by Session.mu.
	closed   bool
	behind   int // parts that are not live
	catching int // parts that have not caught up: at 0 CaughtUp is sent
	credit   credit
}

// part is the cursor of a subscription in one partition. It is either behind,
// when the session's pump reads the log for it or something has to come first, or
// live, when apply feeds it. It begins behind.
type part struct {
	*subscription
	partition *partition
	target    uint64 // head of the log when it began: reaching it is having caught up
	membership

	// Guarded by Session.mu.
	stance stance
	progress
	latest latest
	untold
}

// progress is how far a part has come. It is guarded by Session.mu.
type progress struct {
	caughtUp bool   // target was reached
	cursor   uint64 // what matches up to here is in the session's queue
	told     uint64 // the client's cursor once it has read the queue, at most cursor
}

// membership is the place of a part in its live group. It is guarded by
// partition.mu.
type membership struct {
	group  *group // nil until the subscription has caught up
	member int    // index in group.members
}

// newSubscription returns a subscription with a part in each of the partitions, of
// which there is one at least. A single part lies beside it: what is told to
// millions is found in one place.
func newSubscription(s *Session, number uint32, filter protocol.Filter, in []*partition) *subscription {
	whole := &struct {
		subscription
		only [1]part
		list [1]*part
	}{subscription: subscription{session: s, stream: in[0].stream, number: number, filter: filter, behind: len(in), catching: len(in)}}
	sub, parts := &whole.subscription, whole.only[:]
	sub.parts = whole.list[:0]
	if len(in) > 1 {
		parts = make([]part, len(in))
	}
	for i, pt := range in {
		parts[i] = part{subscription: sub, partition: pt}
		sub.parts = append(sub.parts, &parts[i])
	}
	return sub
}

// allowed returns nil if the identity may have the subscription.
func (sub *subscription) allowed(id *Identity) *protocol.Error {
	if sub.post != nil {
		return id.MayConsume(sub.filter)
	}
	return id.MaySubscribe(sub.filter)
}

// in returns the part in a partition, or nil.
func (sub *subscription) in(pt *partition) *part {
	for _, p := range sub.parts {
		if p.partition == pt {
			return p
		}
	}
	return nil
}

// others returns where the client is in the other partitions, once it has read the
// queue; nil if there are none. Callers hold mu.
func (sub *part) others() []protocol.Place {
	if len(sub.parts) == 1 {
		return nil
	}
	places := make([]protocol.Place, 0, len(sub.parts)-1)
	for _, p := range sub.parts {
		if p != sub {
			places = append(places, protocol.Place{Partition: p.partition.number, Offset: p.told})
		}
	}
	return places
}

// placed makes the position of a gap, which goes on at a place of the part, that
// of the whole subscription. Callers hold mu.
func (sub *part) placed(g *tidewirev1.Gap, at protocol.Position) *tidewirev1.Gap {
	if len(sub.parts) > 1 {
		g.Position = at.With(sub.others()).String()
	}
	return g
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
	sub := newSubscription(s, req.Sub, filter, st.read(filter))
	sub.wishes, sub.credit = wishes, creditOf(req)
	for _, p := range sub.parts {
		p.target = p.partition.head()
	}
	at, perr := sub.begin(start)
	if perr != nil {
		return nil, nil, perr
	}
	return sub, sub.announce(start, at), nil
}

// announce returns the frames with which a subscription begins: Subscribed, and
// what it cannot have.
//
// A gap moves the client's cursor, not the answer before it: a client that is cut
// off between the two must ask from its old position again, to be told. Of several
// gaps the last one moves all cursors for the same reason.
func (sub *subscription) announce(start protocol.Start, at []storage.Resolved) []any {
	f := &tidewirev1.Subscribed{Sub: sub.number, Resumed: start.Kind == protocol.StartPosition}
	var gaps []any
	var last *tidewirev1.Gap
	var begin, after protocol.Vector
	for i, p := range sub.parts {
		r := &at[i]
		p.cursor, p.told, p.quiet = r.After, r.After, r.Quiet
		to := p.partition.log.PositionOf(r.After)
		from := to
		if r.Gap != nil {
			from, _ = start.Vector().At(p.partition.number)
			last = p.partition.gapFrame(sub.number, r.Gap)
			last.Position = start.String()
			gaps = append(gaps, last)
			f.Resumed = false
		}
		begin, after = from.With(begin.Places), to.With(after.Places)
		f.Cursors = append(f.Cursors, &tidewirev1.Cursor{Partition: p.partition.number, Offset: from.Offset})
		f.Behind += p.target - min(p.target, r.After)
	}
	f.Position = begin.String()
	if last != nil {
		f.Position, last.Position = start.String(), after.String()
	}
	return append([]any{f}, gaps...)
}

// begin says where the parts of a subscription begin. For last-per-topic that is
// before the oldest record of the first round: whoever comes back with that
// position gets what was superseded since, and not all that ever was.
func (sub *subscription) begin(start protocol.Start) ([]storage.Resolved, *protocol.Error) {
	if start.Kind != protocol.StartLastPerTopic {
		ends := make([]end, 0, len(sub.parts))
		for _, p := range sub.parts {
			ends = append(ends, end{p.partition, p.target})
		}
		return sub.stream.begin(start, sub.filter, ends)
	}
	at := make([]storage.Resolved, len(sub.parts))
	for i, p := range sub.parts {
		var err *protocol.Error
		if at[i], err = p.beginLatest(); err != nil {
			return nil, err
		}
	}
	return at, nil
}

// end is a partition and its head.
type end struct {
	*partition
	head uint64
}

// begin says where a start begins in each of the partitions that a filter reads.
func (st *stream) begin(start protocol.Start, f protocol.Filter, in []end) ([]storage.Resolved, *protocol.Error) {
	v := start.Vector()
	switch {
	case start.Kind == protocol.StartLast && len(in) > 1:
		return st.beforeLast(start.Last, f, in)
	case start.Kind == protocol.StartPosition:
		if err := st.complete(v, f); err != nil {
			return nil, err
		}
	}
	at := make([]storage.Resolved, len(in))
	for i, p := range in {
		own := start
		own.Several = nil
		own.Position, _ = v.At(p.number)
		var err *protocol.Error
		if at[i], err = p.resolve(own, f, p.head); err != nil {
			return nil, err
		}
	}
	return at, nil
}

// complete returns nil if a position says of each partition that the filter reads
// where to go on.
func (st *stream) complete(v protocol.Vector, f protocol.Filter) *protocol.Error {
	n := len(st.parts)
	for _, place := range v.Places {
		if int64(place.Partition) >= int64(n) {
			return protocol.Errorf(protocol.CodeInvalidPosition, "the position %.100s names partition %d, but the stream %s has %d, counted from 0: give a position of this stream", v, place.Partition, st.name, n)
		}
	}
	for _, pt := range st.read(f) {
		if _, ok := v.At(pt.number); ok {
			continue
		}
		if f.Exact() {
			return protocol.Errorf(protocol.CodeInvalidPosition, "the position %.100s says nothing of partition %d of the stream %s, which has the topic %.80q: give the position of a message of this topic, or of a subscription to it", v, pt.number, st.name, f)
		}
		return protocol.Errorf(protocol.CodeInvalidPosition, "the position %.100s says nothing of partition %d of the stream %s, and %.80q reads all %d: give the position of the subscription, which lists them, and not that of a message", v, pt.number, st.name, f, n)
	}
	return nil
}

// beginLatest plans the first round of last-per-topic.
func (sub *part) beginLatest() (storage.Resolved, *protocol.Error) {
	pt := sub.partition
	earliest, _ := pt.log.Bounds()
	if err := pt.plan(sub, earliest-1, sub.target); err != nil {
		pt.broker.options().Logger.Error("look for the newest of each topic", "stream", pt.name, "filter", sub.filter.String(), "error", err)
		return storage.Resolved{}, protocol.AsError(err)
	}
	sub.latest.until = sub.target
	if len(sub.latest.offsets) == 0 {
		return storage.Resolved{After: sub.target}, nil
	}
	return storage.Resolved{After: sub.latest.offsets[0] - 1}, nil
}

// own returns the part of a start that is the partition's, which alone the filter
// reads.
func (pt *partition) own(start protocol.Start, f protocol.Filter) (protocol.Start, *protocol.Error) {
	if start.Kind != protocol.StartPosition {
		return start, nil
	}
	if err := pt.complete(start.Vector(), f); err != nil {
		return start, err
	}
	at, _ := start.Vector().At(pt.number)
	return protocol.Start{Kind: protocol.StartPosition, Position: at}, nil
}

// resolve says where a start, whose position is the partition's own, begins.
func (pt *partition) resolve(start protocol.Start, f protocol.Filter, head uint64) (storage.Resolved, *protocol.Error) {
	if start.Kind != protocol.StartPosition && start.Kind != protocol.StartNew {
		pt.broker.resolving <- struct{}{} // these search the log: not for everybody at once
		defer func() { <-pt.broker.resolving }()
	}
	at, err := pt.log.Resolve(start, f, head)
	if err != nil {
		pt.broker.options().Logger.Error("resolve a start", "stream", pt.name, "start", start.String(), "error", err)
		return storage.Resolved{}, protocol.AsError(err)
	}
	return at, nil
}

func (pt *partition) gapFrame(sub uint32, g *storage.Gap) *tidewirev1.Gap {
	pt.broker.metrics.gaps.WithLabelValues(g.Reason).Inc()
	frame := &tidewirev1.Gap{
		Sub: sub, Partition: pt.number, Reason: g.Reason, After: g.After, Through: g.Through,
		Position: pt.log.PositionOf(g.Next).String(), Offset: g.Next,
	}
	if g.Term != 0 {
		frame.Term = g.Term.String()
	}
	return frame
}
