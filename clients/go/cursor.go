package tidewire

import (
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// A place is a position, as text where the broker gave it so.
type place struct {
	text     string
	position protocol.Position
}

func (p place) isZero() bool { return p == place{} }

func (p place) String() string {
	if p.text != "" || p.position.IsZero() {
		return p.text
	}
	return p.position.String()
}

// phase is where a subscription is with the broker.
type phase uint8

const (
	phaseOut      phase = iota // the running session does not have it
	phaseAsked                 // Subscribe was sent
	phaseOn                    // confirmed
	phaseStopping              // Unsubscribe was sent because the queue is filling up
	phaseStopped               // taken back; asked for again when the queue is low
	phaseResting               // refused for now; asked for again after a pause
	phaseEnded
)

// cursor is what a subscription knows of the log: everything up to it is in the
// queue or was handled. It runs ahead of Subscription.kept, which follows what the
// program has handled.
//
// place is what the next Subscribe begins from. It is offsets as text, but for one
// case: where the broker answers a position with Subscribed that is not resumed,
// the Gap comes behind it. Until then place stays, or a connection that is lost in
// between would lose the gap in silence.
type cursor struct {
	phase  phase
	number uint32 // in the running session, 0 for none; used once
	from   string // begin from here while there is no place
	place  place
	places vector
	holes  int // in a row, with nothing received in between
	pause  backoff
}

// begin returns what to send as `from`.
func (c *cursor) begin() string {
	if c.place.isZero() {
		return c.from
	}
	return c.place.String()
}

// A verdict is what the session is to do about what a subscription received.
type verdict struct {
	unsubscribe bool          // take it back
	ask         bool          // begin it again from the cursor
	pause       time.Duration // but not before this
	ended       bool          // forget it
	give        bool          // give credit back
}

// ask gives the subscription a number in the running session and returns what to
// send; nil if it is not to be asked for.
func (s *Subscription) ask(number uint32) *tidewirev1.Subscribe {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.cursor
	switch c.phase {
	case phaseOut, phaseResting:
	case phaseStopped:
		if !s.queue.low() {
			return nil
		}
	default:
		return nil
	}
	c.phase, c.number = phaseAsked, number
	o := &s.options
	f := &tidewirev1.Subscribe{
		Sub: number, Filter: s.filter, From: c.begin(), Stream: o.Stream, Credit: s.flow.begin(),
		Slow: string(o.Slow), ConflateMs: uint32(o.ConflateEvery.Milliseconds()),
	}
	if o.NoEcho {
		f.Echo = new(false)
	}
	return f
}

// disconnected forgets the session's number.
func (s *Subscription) disconnected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.cursor
	c.number = 0
	switch {
	case c.phase == phaseEnded:
	case s.queue.low():
		c.phase = phaseOut
	default:
		c.phase = phaseStopped
	}
}

// confirmed takes Subscribed.
func (s *Subscription) confirmed(f *tidewirev1.Subscribed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.cursor
	if f.Sub != c.number || c.phase != phaseAsked {
		return
	}
	c.phase = phaseOn
	if len(f.Cursors) > 0 {
		c.places = vectorOf(f.Cursors)
	}
	if c.place.isZero() {
		c.place = place{text: f.Position}
		s.kept = c.place // nothing was received before
	}
	s.begun.close()
}

// deliver takes messages into the queue. size is that of their frame.
func (s *Subscription) deliver(d *protocol.Deliver, size int) verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.cursor
	if d.Sub != c.number || (c.phase != phaseOn && c.phase != phaseStopping) {
		return verdict{}
	}
	if d.Ephemeral() {
		s.ephemeral(d, size)
		return s.filling()
	}
	offset := c.places.at(d.Partition)
	if d.After > offset {
		return c.hole()
	}
	c.holes = 0
	c.pause.reset()
	if d.Through <= offset { // all of it came before
		s.flow.dropped(size)
		return verdict{give: s.flow.due()}
	}
	if s.queue.full() { // the broker has not read Unsubscribe yet
		c.number = 0
		return verdict{}
	}
	others := c.places.others(d.Partition)
	e := event{end: others.with(d.End())}
	if d.Count > 0 {
		e.chunk, e.above, e.others, e.cost = &d.Chunk, offset, others, size
		s.flow.received(size)
	} else {
		s.flow.dropped(size) // nobody would give it back
	}
	s.queue.push(e)
	c.places.set(d.Partition, d.Through)
	c.place = e.end
	s.ready.ring()
	return s.filling()
}

// ephemeral takes messages that are nowhere in the log. Those for which there is
// no room are gone, and the loop is told how many.
func (s *Subscription) ephemeral(d *protocol.Deliver, size int) {
	if s.queue.full() {
		s.flow.dropped(size)
		s.queue.miss(s.filter, s.cursor.place, uint64(d.Count))
		return
	}
	s.flow.received(size)
	s.queue.push(event{chunk: &d.Chunk, cost: size})
	s.ready.ring()
}

// filling takes the subscription back if the queue is filling up.
func (s *Subscription) filling() verdict {
	c := &s.cursor
	if c.phase == phaseOn && s.queue.high() {
		c.phase = phaseStopping
		return verdict{unsubscribe: true}
	}
	return verdict{give: s.flow.due()}
}

// hole is the answer to a delivery that does not begin at the cursor: ask again
// from there, at once the first time.
func (c *cursor) hole() verdict {
	c.number = 0
	if c.phase == phaseStopping { // it will begin from the cursor anyway
		return verdict{}
	}
	v := verdict{unsubscribe: true, ask: true}
	c.phase = phaseResting
	if c.holes++; c.holes > 1 {
		v.pause = c.pause.next()
	}
	return v
}

// progress moves the cursor although nothing came.
func (s *Subscription) progress(number uint32, f *tidewirev1.Progress) {
	term, ok := protocol.ParseTerm(f.Term)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.cursor
	if number != c.number || f.Through <= c.places.at(f.Partition) || (c.phase != phaseOn && c.phase != phaseStopping) {
		return
	}
	c.place = c.places.others(f.Partition).with(protocol.Position{Term: term, Partition: f.Partition, Offset: f.Through})
	c.places.set(f.Partition, f.Through)
	s.queue.push(event{end: c.place})
	s.ready.ring()
}

// reachedHead takes CaughtUp. After a reconnect it comes again, which the program
// need not know.
func (s *Subscription) reachedHead(number uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if number != s.cursor.number || s.told {
		return
	}
	s.told = true
	s.queue.push(event{caughtUp: true})
	s.ready.ring()
}

// gap takes the news that messages are gone.
func (s *Subscription) gap(f *tidewirev1.Gap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.cursor
	if f.Sub != c.number || (c.phase != phaseOn && c.phase != phaseStopping) {
		return
	}
	c.place = place{text: f.Position}
	if p, err := protocol.ParsePosition(f.Position); err == nil {
		c.place = c.places.others(f.Partition).with(p)
	}
	c.places.set(f.Partition, f.Offset)
	s.queue.push(event{end: c.place, gap: &GapError{
		Filter: s.filter, Reason: f.Reason, Term: f.Term,
		After: f.After, Through: f.Through, Position: c.place.String(), Missed: f.Missed,
	}})
	s.ready.ring()
}

// takenBack takes Unsubscribed, after the queue was filling up. It reports whether
// to ask again at once.
func (s *Subscription) takenBack() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.cursor
	if c.phase != phaseStopping {
		return false
	}
	c.phase, c.number = phaseStopped, 0
	return s.queue.low()
}

// refused takes an error of the broker about the subscription.
func (s *Subscription) refused(number uint32, err *Error) verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.cursor
	switch {
	case err.Code == protocol.CodeUnknownSubscription:
		if c.phase != phaseStopping {
			return verdict{}
		}
		c.phase, c.number = phaseStopped, 0
		return verdict{ask: s.queue.low()}
	case number != c.number:
		return verdict{}
	case err.Retryable():
		c.phase, c.number = phaseResting, 0
		return verdict{ask: true, pause: max(c.pause.next(), err.RetryAfter)}
	}
	s.endLocked(err)
	return verdict{ended: true}
}

// end ends the subscription; the first reason counts.
func (s *Subscription) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(err)
}

func (s *Subscription) endLocked(err error) {
	if s.err != nil {
		return
	}
	s.err = err
	s.cursor.phase, s.cursor.number = phaseEnded, 0
	if err == ErrClosed || err == errQuiet { //nolint:errorlint // never wrapped
		s.dropped = true
		s.queue.clear()
	}
	s.begun.close()
	s.ready.ring()
}
