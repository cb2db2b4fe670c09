package tidewire

import (
	"math"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// maxBatchBytes bounds a Publish frame of several messages. Larger frames save
// nothing, and delay what comes behind them.
const maxBatchBytes = 256 << 10

// outgoing is a message in the outbox.
type outgoing struct {
	Pending
	message protocol.Message
	size    int

	ref       uint32    // of the attempt that is under way; 0 if none is
	frame     uint32    // ref of the first message of its frame
	sentAt    time.Time // of that attempt
	first     time.Time // first attempt of which it is not known whether it was stored
	abandoned bool      // nobody waits for it: it is not repeated
	settled   bool      // answered or given up: it only holds its place
}

// outbox keeps published messages until they are answered, in the order of
// publishing. Client.mu guards it.
//
// All that is unanswered is a row: what is in flight first, then what was not
// sent yet. After a lost connection or a retryable refusal the row is sent again
// from its beginning, so nothing new overtakes anything old. The naive way, to
// send again each message that was refused, reorders: while it is on its way
// again, later ones are accepted.
type outbox struct {
	maxCount, maxBytes int

	row    []*outgoing
	next   int // row[:next] was sent, unless settled
	count  int // not settled
	bytes  int
	flight map[uint32]*outgoing // unanswered, by ref
	ref    uint32               // last one used

	refused bool // a retryable refusal: nothing is sent until all in flight is answered
	resume  bool // the next frame says that the row begins again
	pause   backoff
	after   time.Duration // the broker's wish for the pause

	waiting []*waiter // for room, in the order in which they came
}

// waiter is a publisher that waits for room.
type waiter struct {
	message *outgoing
	taken   chan struct{} // closed when the message is in the row
}

func newOutbox(o *Options) outbox {
	return outbox{
		maxCount: o.OutboxMessages, maxBytes: o.OutboxBytes,
		flight: make(map[uint32]*outgoing),
	}
}

// hasRoom reports whether a message fits. One that is larger than the whole
// outbox goes alone.
func (o *outbox) hasRoom(m *outgoing) bool {
	return o.count == 0 || (o.count < o.maxCount && o.bytes+m.size <= o.maxBytes)
}

// add puts a message into the row, or returns whom to wait for.
func (o *outbox) add(m *outgoing) *waiter {
	if len(o.waiting) == 0 && o.hasRoom(m) {
		o.append(m)
		return nil
	}
	w := &waiter{message: m, taken: make(chan struct{})}
	o.waiting = append(o.waiting, w)
	return w
}

func (o *outbox) append(m *outgoing) {
	o.row = append(o.row, m)
	o.count++
	o.bytes += m.size
}

// settle gives the outcome of a message to whoever waits for it, and its room
// to the next.
func (o *outbox) settle(m *outgoing, r Receipt, err error) {
	if m.settled {
		return
	}
	m.settled = true
	m.message.Payload = nil
	o.count--
	o.bytes -= m.size
	m.resolve(r, err)
	done := 0
	for done < len(o.row) && o.row[done].settled {
		o.row[done] = nil
		done++
	}
	o.row = o.row[done:]
	o.next = max(o.next-done, 0)
	for len(o.waiting) > 0 && o.hasRoom(o.waiting[0].message) {
		o.append(o.waiting[0].message)
		close(o.waiting[0].taken)
		o.waiting = o.waiting[1:]
	}
}

// limits are what the broker allows in the running session.
type limits struct {
	inFlight int // messages
	messages int // in a frame
	payload  int // bytes
	frame    int // bytes
}

// batch returns the next frame: messages that wait, as many as may be in flight.
// nil if there are none.
func (o *outbox) batch(l *limits) *protocol.Publish {
	if o.refused {
		return nil
	}
	if o.ref > math.MaxUint32-1<<20 {
		o.ref = 0 // the few in flight are far from it
	}
	room := min(l.inFlight-len(o.flight), l.messages)
	p := &protocol.Publish{Ref: o.ref + 1, Resume: o.resume}
	var oldest time.Time
	size, now := 0, time.Now()
	for len(p.Messages) < room {
		m := o.peek(l)
		if m == nil {
			break
		}
		// The age holds for the whole frame, so repeats go apart from the others.
		if len(p.Messages) > 0 && (size+m.size > min(maxBatchBytes, l.frame) || m.first.IsZero() != oldest.IsZero()) {
			break
		}
		if oldest.IsZero() || m.first.Before(oldest) {
			oldest = m.first
		}
		o.next++
		o.ref++
		m.ref, m.frame, m.sentAt = o.ref, p.Ref, now
		o.flight[m.ref] = m
		p.Messages = append(p.Messages, m.message)
		size += m.size
	}
	if len(p.Messages) == 0 {
		return nil
	}
	o.resume = false
	if !oldest.IsZero() {
		p.RepeatAge = max(now.Sub(oldest), time.Millisecond)
	}
	return p
}

// peek returns the next message to send. Those that this broker would not take
// are refused here: a frame that is too large would cost the connection.
func (o *outbox) peek(l *limits) *outgoing {
	for o.next < len(o.row) {
		m := o.row[o.next]
		switch {
		case m.settled:
			o.next++
		case len(m.message.Payload) > l.payload || m.size > l.frame:
			o.next++
			o.settle(m, Receipt{}, protocol.Errorf(protocol.CodePayloadTooLarge, "the payload has %d bytes, at most %d are allowed", len(m.message.Payload), l.payload))
		default:
			return m
		}
	}
	return nil
}

// answer takes the answer to one message.
func (o *outbox) answer(r *protocol.PublishResult) {
	m := o.flight[r.Ref]
	if m == nil {
		return
	}
	delete(o.flight, r.Ref)
	m.ref = 0
	switch {
	case r.Err == nil:
		o.pause.reset()
		o.settle(m, Receipt{ID: m.message.ID, Position: r.Position, Duplicate: r.Duplicate}, nil)
	case !r.Err.Retryable():
		o.settle(m, Receipt{}, r.Err)
	default:
		o.refused = true
		o.after = max(o.after, r.Err.RetryAfter)
		if !certainlyNotStored(r.Err.Code) && m.first.IsZero() {
			m.first = m.sentAt
		}
		if m.abandoned {
			o.settle(m, Receipt{}, r.Err)
		}
	}
}

// certainlyNotStored tells refusals after which an attempt does not count, so
// that the message cannot become too old to be repeated.
func certainlyNotStored(code Code) bool {
	return code == protocol.CodeOutOfOrder || code == protocol.CodeStorageFull || code == protocol.CodeOverloaded || code == protocol.CodeRateLimited
}

// answerFrame takes the refusal of a whole frame.
func (o *outbox) answerFrame(frame uint32, err *Error) {
	for ref := frame; ; ref++ {
		if m := o.flight[ref]; m == nil || m.frame != frame {
			return
		}
		o.answer(&protocol.PublishResult{Ref: ref, Err: err})
	}
}

// hold returns how long to pause before the row is sent again, once after each
// refusal, when nothing is in flight any more.
func (o *outbox) hold() (time.Duration, bool) {
	if len(o.flight) > 0 || !o.refused {
		return 0, false
	}
	d := max(o.pause.next(), o.after)
	o.after = 0
	return d, true
}

// again begins the row anew after a refusal.
func (o *outbox) again() {
	o.refused, o.resume, o.next = false, true, 0
}

// lost begins the row anew on another connection. What was in flight may have
// been stored.
func (o *outbox) lost() {
	o.refused, o.resume, o.next, o.after = false, false, 0, 0
	flight := o.flight
	o.flight = make(map[uint32]*outgoing)
	for _, m := range flight {
		m.ref = 0
		if m.first.IsZero() {
			m.first = m.sentAt
		}
		if m.abandoned {
			o.settle(m, Receipt{}, nil)
		}
	}
}
