package broker

import (
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// latest is how a subscription reads only the newest message of each topic: in
// rounds. A round asks the log once which records between the cursor and the
// head those are, and then reads them in chunks. What the log cannot name at
// once, since there are too many topics, is left to the next round.
//
// A subscription that begins with last-per-topic does one such stretch, up to
// the head that it saw; a conflated one does all its reading so.
//
// While a round is under way newer records may come. Then a topic is sent again
// in the next round: nothing is sent out of the order of offsets.
type latest struct {
	until uint64 // the first stretch, of last-per-topic, ends here

	// Of the round under way. Only the session's pump uses them.
	offsets []uint64 // to be read
	covered uint64   // the round ends here

	// Guarded by Session.mu.
	next  time.Time   // no round begins before
	timer *time.Timer // ends the rest of a subscription that waits for it
}

// maxRound bounds the records of a round, and so what a subscription that is in
// one holds: 128 KiB of offsets.
const maxRound = 16 << 10

// nearby is how far back a round costs so little that it waits for no other.
const nearby = 1 << 10

// conflates reports whether the subscription, at a place in the log, reads only
// what is newest.
func (sub *part) conflates(cursor uint64) bool {
	return sub.slow == slowConflate || cursor < sub.latest.until
}

// tooEarly reports whether a round that begins now would begin too early.
func (sub *part) tooEarly(cursor uint64) bool {
	if sub.every == 0 || cursor < sub.latest.covered {
		return false
	}
	sub.session.mu.Lock()
	defer sub.session.mu.Unlock()
	return time.Now().Before(sub.latest.next)
}

// plan begins a round.
func (pt *partition) plan(sub *part, after, through uint64) error {
	if !sub.filter.Exact() && through-min(after, through) > nearby {
		pt.broker.resolving <- struct{}{} // it may look at all topics: not for everybody at once
		defer func() { <-pt.broker.resolving }()
	}
	offsets, covered, err := pt.log.Newest(sub.filter, after, through, maxRound)
	sub.latest.offsets, sub.latest.covered = offsets, covered
	return err
}

// readLatest reads the next part of a round, beginning one if need be.
func (pt *partition) readLatest(sub *part, cursor, head uint64) (protocol.Chunk, error) {
	l := &sub.latest
	if cursor >= l.covered {
		through := head
		if sub.slow != slowConflate {
			through = min(head, l.until)
		}
		if sub.every > 0 {
			sub.session.mu.Lock()
			l.next = time.Now().Add(sub.every)
			sub.session.mu.Unlock()
		}
		if err := pt.plan(sub, cursor, through); err != nil {
			return protocol.Chunk{}, err
		}
	}
	return pt.log.Read(storage.Query{
		Filter: sub.filter, After: cursor, Through: l.covered, MaxBytes: maxChunkBytes,
		Picked: true, Offsets: l.offsets,
	})
}

// rest takes a conflated subscription out of all queues until its next round.
// Callers hold mu.
func (s *Session) rest(sub *part) {
	s.setStance(sub, resting)
	wait := time.Until(sub.latest.next)
	sub.latest.timer = time.AfterFunc(wait, func() {
		s.mu.Lock()
		if sub.stance == resting && !sub.closed && s.end == nil {
			s.fallBack(sub)
		}
		s.unlockAndWake()
	})
}
