package tidewire

import "github.com/tidewire/tidewire/protocol"

// An event is what a loop has to handle, in the order of the log: messages, a
// gap, CaughtUp, or nothing but a place.
type event struct {
	chunk    *protocol.Chunk
	above    uint64 // records of the chunk at or below are not for the loop
	others   vector // where the other partitions are; nil if there are none
	gap      *GapError
	caughtUp bool
	end      place // where the subscription is once it was handled; zero for no change
}

// eventBytes is what an event costs besides its records.
const eventBytes = 256

func (e *event) size() int {
	if e.chunk == nil {
		return eventBytes
	}
	return eventBytes + cap(e.chunk.Records)
}

// onlyPlace reports whether the event moves the position and does nothing else.
func (e *event) onlyPlace() bool { return e.chunk == nil && e.gap == nil && !e.caughtUp }

// queue holds what a subscription received and the loop has not taken.
// Subscription.mu guards it.
type queue struct {
	events []event
	bytes  int
	limit  int
}

func (q *queue) push(e event) {
	if n := len(q.events); n > 0 && e.onlyPlace() && q.events[n-1].onlyPlace() {
		q.events[n-1] = e // a program that is not reading would collect them
		return
	}
	q.events = append(q.events, e)
	q.bytes += e.size()
}

func (q *queue) pop() (event, bool) {
	if len(q.events) == 0 {
		return event{}, false
	}
	e := q.events[0]
	q.events[0] = event{}
	q.events = q.events[1:]
	q.bytes -= e.size()
	return e, true
}

// putBack makes e the next event again.
func (q *queue) putBack(e event) {
	q.events = append([]event{e}, q.events...)
	q.bytes += e.size()
}

func (q *queue) clear() { q.events, q.bytes = nil, 0 }

// full says that nothing more is taken, high that the broker should stop, low
// that it may go on.
func (q *queue) full() bool { return q.bytes >= q.limit }
func (q *queue) high() bool { return q.bytes >= q.limit/4 }
func (q *queue) low() bool  { return q.bytes <= q.limit/16 }
