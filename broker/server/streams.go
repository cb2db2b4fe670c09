package server

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// streams are the open streams of server-sent events. The zero value has none.
type streams struct {
	mu     sync.Mutex
	open   map[*stream]struct{}
	closed *protocol.Error // why none may begin
}

// add takes a stream in.
func (ss *streams) add(st *stream) *protocol.Error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.closed != nil {
		return ss.closed
	}
	if ss.open == nil {
		ss.open = make(map[*stream]struct{})
	}
	ss.open[st] = struct{}{}
	return nil
}

func (ss *streams) remove(st *stream) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	delete(ss.open, st)
}

// end ends all streams, and begins no more. Their browsers are told to come back
// after a random part of spread.
func (ss *streams) end(spread time.Duration) {
	reason := protocol.Errorf(protocol.CodeGoingAway, "the broker is shutting down: connect again")
	ss.mu.Lock()
	ss.closed = reason
	open := ss.open
	ss.open = nil
	ss.mu.Unlock()
	for st := range open {
		st.session.Send(retryIn(rand.N(max(spread, time.Millisecond))))
		st.session.End(reason)
	}
}

// retryIn is a frame of streams alone: how long to wait before coming back.
type retryIn time.Duration

func (d retryIn) append(b []byte) []byte {
	return fmt.Appendf(b, "retry: %d\n\n", time.Duration(d).Milliseconds())
}
