package broker

import (
	"slices"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

const (
	// maxTakeBytes bounds what is written at once.
	maxTakeBytes = 256 << 10
	// enoughBytes is what is worth a write without looking at the log first.
	enoughBytes = 32 << 10
	// maxReads is how often Take looks at the log in vain before it returns, so
	// that a long stretch without a match does not keep its caller.
	maxReads = 16
	// maxResults bounds the answers in one Published frame.
	maxResults = 1000
)

// Take returns the frames to write next, appended to into, and counts those it
// returned before as written. When it returns none, there is nothing to do
// until Wake is called (which may be at once); or, if it returns an error, ever:
// the session has ended for that reason and all its frames are out.
//
// Subscriptions that are behind are served here, at the pace at which the
// client takes what is written: one part of the log at a time, when little else
// waits, and only when it is the session's turn.
func (s *Session) Take(into []Frame) ([]Frame, *protocol.Error) {
	s.mu.Lock()
	s.out.written()
	into, end := s.take(into)
	if len(into) == 0 && end == nil {
		s.pumping = false
	}
	s.unlockAndWake()
	return into, end
}

func (s *Session) take(into []Frame) ([]Frame, *protocol.Error) {
	for range maxReads {
		s.flushResults()
		into = s.out.take(into)
		if s.out.writing >= enoughBytes || (len(into) > 0 && !s.reads()) {
			return into, nil
		}
		if !s.reads() {
			return into, s.end
		}
		if s.inLine = !s.broker.turns.begin(s); s.inLine {
			return into, nil // with Wake it goes on
		}
		s.serve()
		s.broker.turns.end()
		if len(into) > 0 {
			break
		}
	}
	return s.out.take(into), nil
}

// flushResults turns the answers that have come in since the last write into
// frames.
func (s *Session) flushResults() {
	for results := range slices.Chunk(s.pub.results, maxResults) {
		s.out.push(s.codec.AppendServer(nil, &protocol.Published{Results: results}))
	}
	s.pub.results = s.pub.results[:0]
	if cap(s.pub.results) > 16 {
		s.pub.results = nil
	}
}

// serve reads a part of the log for the next subscription that is behind. It
// gives mu away while it reads.
func (s *Session) serve() {
	sub := s.behind[0]
	s.behind = s.behind[1:]
	switch {
	case sub.closed:
		return
	case sub.post != nil:
		s.serveWork(sub.subscription)
		return
	case sub.credit.exhausted(): // by another part
		s.fallBack(sub)
		return
	}
	cursor, told, first := sub.cursor, sub.told, !sub.caughtUp
	s.mu.Unlock()
	p := s.broker.pull(sub, cursor, first)
	var tail []byte
	if p.chunk != nil && p.chunk.Count > 0 {
		p.chunk.After = told // what has no match was not worth a frame
		if !s.places(sub) {
			tail = s.tail(p.chunk)
		}
	}
	s.mu.Lock()
	if sub.closed || s.end != nil || p.live {
		return
	}
	switch {
	case p.err != nil:
		s.failSubscription(sub.subscription, p.err)
		return
	case p.rest:
		s.rest(sub)
		return
	case p.chunk != nil && p.chunk.Count > 0 && sub.credit.exhausted():
		// Another part has used it up meanwhile: it is read again when there is more.
	case p.gap != nil:
		s.tellHidden(sub)
		gap := sub.partition.gapFrame(sub.number, p.gap)
		s.out.push(s.codec.AppendServer(nil, sub.placed(gap, sub.partition.log.PositionOf(p.gap.Next))))
		sub.cursor, sub.told = p.gap.Next, p.gap.Next
	case p.chunk != nil:
		sub.hidden += p.hidden
		s.catchUp(sub, p.chunk, tail)
	}
	s.fallBack(sub)
}

// places reports whether a frame of the subscription has to say where it is in other
// partitions, too. They move on meanwhile: so it is encoded under mu.
func (s *Session) places(sub *part) bool { return len(sub.parts) > 1 && s.codec.Placed() }

// tail encodes a chunk that is for one subscription alone.
func (s *Session) tail(c *protocol.Chunk) []byte {
	return s.codec.AppendDeliverTail(make([]byte, 0, len(c.Records)+tailOverhead), c)
}

// catchUp queues what was read from the log. There is no tail yet if it depends on
// where the subscription is.
func (s *Session) catchUp(sub *part, c *protocol.Chunk, tail []byte) {
	sub.cursor = c.Through
	if c.Through >= sub.latest.covered {
		sub.latest.offsets = nil // the round is over
	}
	if c.Count > 0 {
		s.tellHidden(sub)
		if tail == nil {
			c.Others = sub.others()
			tail = s.tail(c)
		}
		sub.told = c.Through
		s.queue(sub, c.Count, tail)
		s.paceReplay(len(tail))
	}
	s.tellCaughtUp(sub)
}

// queue queues a Deliver frame of so many messages.
func (s *Session) queue(sub *part, count int, tail []byte) {
	size := s.out.pushDeliver(s.codec, sub.number, tail)
	sub.credit.spend(size)
	s.broker.metrics.delivered.Add(float64(count))
}

// tellCaughtUp tells, when all parts have reached their heads.
func (s *Session) tellCaughtUp(sub *part) {
	if sub.caughtUp || sub.cursor < sub.target {
		return
	}
	s.tellHidden(sub)
	sub.caughtUp = true
	if sub.catching--; sub.catching == 0 {
		s.out.push(s.codec.AppendServer(nil, &tidewirev1.CaughtUp{Sub: sub.number}))
	}
}

// failSubscription ends a subscription whose part of the log cannot be read.
func (s *Session) failSubscription(sub *subscription, err error) {
	s.out.push(s.codec.AppendServer(nil, protocol.ErrorFrame(0, sub.number, protocol.AsError(err))))
	s.drop(sub)
	go s.broker.leave(sub) // takes partition.mu, which comes before mu
}

// goLive makes a subscription live if its cursor is where apply is. The caller
// holds partition.mu, so that nothing is applied in between.
func (s *Session) goLive(sub *part, applied uint64, at protocol.Position) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub.closed || s.end != nil || sub.cursor != applied {
		return false
	}
	s.setStance(sub, live)
	if sub.told < sub.cursor {
		// The group's next chunk begins at the end of its last one. That may lie
		// above what the client knows, which it would take for a hole.
		s.tellHidden(sub)
		sub.told = sub.cursor
		s.out.push(s.codec.AppendServer(nil, sub.progressFrame(at)))
	}
	s.tellMissed(sub, at)
	s.tellCaughtUp(sub)
	return true
}

// deliver queues a chunk for a live subscription. It reports whether the
// subscription is still live: when too much waits for the session, it goes back
// to reading the log.
func (s *Session) deliver(sub *part, c *chunk) bool {
	tail := c.ready(s.codec)
	s.mu.Lock()
	if wanted, stays := s.wants(sub, c); !wanted {
		s.unlockAndWake()
		return stays
	}
	if s.places(sub) || sub.alters(c) {
		s.deliverOwn(sub, c)
		s.unlockAndWake()
		return true
	}
	if tail == nil { // it is encoded for the first who wants it, and not under mu
		s.mu.Unlock()
		tail = c.tail(s.codec)
		s.mu.Lock()
		if wanted, stays := s.wants(sub, c); !wanted {
			s.unlockAndWake()
			return stays
		}
	}
	sub.cursor, sub.told = c.Through, c.Through
	s.queue(sub, c.Count, tail)
	s.sentRound(sub)
	s.unlockAndWake()
	return true
}

// deliverOwn queues a live chunk in a form of the subscription's own. Of one that
// is empty then the client learns with the next frame, which begins where it is.
func (s *Session) deliverOwn(sub *part, c *chunk) {
	mine := sub.own(c, s.broker.metrics)
	sub.cursor = c.Through
	if mine.Count == 0 {
		return
	}
	if s.places(sub) {
		mine.Others = sub.others()
	}
	sub.told = c.Through
	s.queue(sub, mine.Count, s.tail(mine))
	s.sentRound(sub)
}

// sentRound notes that a conflated subscription was sent something.
func (s *Session) sentRound(sub *part) {
	if sub.every > 0 {
		sub.latest.next = time.Now().Add(sub.every)
	}
}

// wants reports whether a chunk is to be queued for a subscription, and whether
// that stays live. It does not if too much waits already.
func (s *Session) wants(sub *part, c *chunk) (wanted, stays bool) {
	switch {
	case sub.stance != live || sub.closed || s.end != nil:
		return false, false
	case c.Through <= sub.cursor:
		return false, true // it joined after this commit
	case s.out.size() > 0 && s.out.size()+c.cost() > s.broker.options().SoftOutbound || sub.credit.exhausted():
		s.tooSlow(sub)
		return false, false
	case sub.every > 0 && time.Now().Before(sub.latest.next):
		s.rest(sub)
		return false, false
	}
	return true, true
}

// tooSlow does with a live subscription that cannot keep up what it asked for.
func (s *Session) tooSlow(sub *part) {
	s.broker.metrics.fallbacks.WithLabelValues(sub.slowness()).Inc()
	if !sub.credit.exhausted() {
		s.broker.metrics.limits.Met(protocol.LimitOutboundSoft)
	}
	if sub.slow == slowDisconnect {
		s.endLocked(protocol.Errorf(protocol.CodeSlowConnection, "more than %d bytes would wait for this connection, and subscription %d asked to be disconnected then: come back with its position", s.broker.options().SoftOutbound, sub.number))
		return
	}
	s.fallBack(sub)
}

// Progress tells the client where its quiet live subscriptions are, so that
// their positions do not fall behind retention. The edge calls it now and then.
func (s *Session) Progress() {
	for _, pt := range s.following() {
		s.tellProgress(pt)
	}
}

// following returns the partitions that the session has subscriptions to.
func (s *Session) following() []*partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*partition
	for _, sub := range s.subs {
		for _, p := range sub.parts {
			if !slices.Contains(found, p.partition) {
				found = append(found, p.partition)
			}
		}
	}
	return found
}

// tellProgress tells of the subscriptions to one partition.
func (s *Session) tellProgress(pt *partition) {
	// Everything up to here is in the queues of all live subscriptions, so what
	// is queued behind this frame lies above it.
	at := pt.log.PositionOf(pt.delivered.Load())
	s.mu.Lock()
	defer s.unlockAndWake()
	if s.end != nil {
		return
	}
	var quiet []uint32
	for _, sub := range s.subs {
		p := sub.in(pt)
		if p == nil || p.stance != live || sub.post != nil || p.told >= at.Offset {
			continue
		}
		p.cursor, p.told = at.Offset, at.Offset
		if len(sub.parts) > 1 {
			s.out.push(s.codec.AppendServer(nil, p.progressFrame(at)))
		} else {
			quiet = append(quiet, sub.number)
		}
	}
	if len(quiet) > 0 {
		s.out.push(s.codec.AppendServer(nil, &protocol.Progress{Subs: quiet, At: at}))
	}
	s.checkHard()
}

// progressFrame moves the client's cursor. Callers hold mu.
func (sub *part) progressFrame(at protocol.Position) *protocol.Progress {
	return &protocol.Progress{Subs: []uint32{sub.number}, At: at, Others: sub.others()}
}
