package server

import (
	"container/list"
	"io"
	"math/bits"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/protocol"
)

const (
	freePiece = 1 << 10     // bytes of a frame or a body that nobody counts
	readPiece = 16 << 10    // at most read at once
	keptPiece = 64 << 10    // buffers up to this size are used again
	grace     = time.Second // nobody is closed who has been sending for less
	lookAgain = grace / 4   // while somebody waits for room
)

// receiving bounds the memory of what clients are sending: frames and bodies
// that have arrived in part. Memory is taken as bytes arrive, whatever length
// was announced, so a client must send what it wants to occupy.
//
// When all is taken, whoever has been sending for longest is closed, and comes
// back; with nobody who has been at it for a second, the next one waits. So
// those who send large messages swiftly get through, however many do not.
type receiving struct {
	bound func() int64
	gauge prometheus.Gauge

	mu     sync.Mutex
	held   int64
	open   list.List     // intakes that are arriving, in the order of their beginning
	change chan struct{} // closed, and replaced, when bytes are given back; nil if nobody waits
}

// intake is one frame or body. It belongs to who reads it.
type intake struct {
	from  *receiving
	end   func() // makes reading fail, at once; called by others
	begun time.Time

	held    int64         // guarded by from.mu, as is what follows
	waiting bool          // for room: not its fault
	ended   bool          // others needed the room
	place   *list.Element // in from.open; nil if it holds nothing or is whole
}

// errOvertaken says that the room was needed for others.
func errOvertaken() *protocol.Error {
	return protocol.Exceeded(protocol.LimitReceiving, "the broker has no room for a message that takes so long to arrive: send it faster, or in smaller ones")
}

// grow takes n bytes more. It returns false if the intake has to end.
func (in *intake) grow(n int) bool {
	r := in.from
	for {
		victim, change, ok := r.tryTake(in, int64(n))
		if victim != nil {
			victim.end()
			continue
		}
		if change == nil {
			return ok
		}
		timer := time.NewTimer(lookAgain)
		select {
		case <-change:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// tryTake takes n bytes; or returns who must end first, or what to wait for.
func (r *receiving) tryTake(in *intake, n int64) (victim *intake, change <-chan struct{}, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	in.waiting = false
	if in.ended {
		return nil, nil, false
	}
	if r.held+n <= r.bound() {
		r.held += n
		in.held += n
		r.gauge.Add(float64(n))
		if in.place == nil {
			in.place = r.open.PushBack(in)
		}
		return nil, nil, true
	}
	if victim = r.slowest(in); victim != nil {
		r.dropLocked(victim)
		victim.ended = true
		return victim, nil, false
	}
	in.waiting = true
	if r.change == nil {
		r.change = make(chan struct{})
	}
	return nil, r.change, false
}

// slowest returns who has been sending for longest, but not who asks.
func (r *receiving) slowest(asks *intake) *intake {
	for e := r.open.Front(); e != nil; e = e.Next() {
		in := e.Value.(*intake)
		if in != asks && !in.waiting && time.Since(in.begun) >= grace {
			return in
		}
	}
	return nil
}

// whole says that all has arrived: the bytes count until leave, but nobody can
// end it any more. It returns false if somebody has.
func (in *intake) whole() bool {
	in.from.mu.Lock()
	defer in.from.mu.Unlock()
	if in.place != nil {
		in.from.open.Remove(in.place)
		in.place = nil
	}
	return !in.ended
}

// leave gives back what the intake holds.
func (in *intake) leave() {
	in.from.mu.Lock()
	defer in.from.mu.Unlock()
	in.from.dropLocked(in)
}

func (r *receiving) dropLocked(in *intake) {
	if in.place != nil {
		r.open.Remove(in.place)
		in.place = nil
	}
	if in.held == 0 {
		return
	}
	r.held -= in.held
	r.gauge.Sub(float64(in.held))
	in.held = 0
	if r.change != nil {
		close(r.change)
		r.change = nil
	}
}

// gather reads all that r has into a buffer that keepBuffer takes back.
func (in *intake) gather(r io.Reader) ([]byte, error) {
	in.begun = time.Now()
	buf := newBuffer(freePiece)
	for {
		if size := cap(buf); len(buf) == size {
			if !in.grow(size) {
				return buf, errOvertaken()
			}
			bigger := append(newBuffer(2*size), buf...)
			keepBuffer(buf)
			buf = bigger
		}
		n, err := r.Read(buf[len(buf):min(cap(buf), len(buf)+readPiece)])
		buf = buf[:len(buf)+n]
		switch {
		case err == io.EOF:
			if !in.whole() {
				return buf, errOvertaken()
			}
			return buf, nil
		case err != nil:
			if !in.whole() {
				return buf, errOvertaken()
			}
			return buf, err
		}
	}
}

// buffers are those that nobody uses, by the power of two that is their size: a
// quiet connection has none.
var buffers [bits.UintSize]sync.Pool

// newBuffer returns an empty buffer of a size that is a power of two.
func newBuffer(size int) []byte {
	if b, ok := buffers[bits.Len(uint(size))].Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, size)
}

// keepBuffer takes back what newBuffer returned.
func keepBuffer(b []byte) {
	if cap(b) > 0 {
		buffers[bits.Len(uint(cap(b)))].Put(&b)
	}
}
