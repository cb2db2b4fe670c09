package broker

import (
	"runtime"
	"sync"
)

// turns bound how much of the log is read for subscriptions at once: on half of
// the cores, at least on one.
//
// Go's run queue is first come, first served. When thousands of subscribers come
// back together and each one's writer reads the log for it, all these goroutines
// can run at once, and whatever a publish needs waits behind them at every step
// from its socket to its answer. So they wait here, as entries of a list and not
// as goroutines. The cores that are left look at sockets as soon as something
// arrives; a core that always has something to run does so every 10 ms.
//
// A session that finds a turn free reads by itself. Otherwise it waits in line,
// and a worker, which exists while somebody does, reads for it and wakes its
// writer. A turn covers one part of the log, 64 KiB, and never a write, so that
// no client can hold one. What is live, and answers, never need one.
type turns struct {
	most int

	mu      sync.Mutex
	taken   int
	waiting []*Session // each at most once, see Session.inLine
}

func newTurns() *turns { return &turns{most: max(1, runtime.GOMAXPROCS(0)/2)} }

// begin takes a turn, or puts the session in line. The caller holds Session.mu.
func (t *turns) begin(s *Session) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken == t.most {
		t.waiting = append(t.waiting, s)
		return false
	}
	t.taken++
	return true
}

// end gives a turn back, or to a worker if somebody waits.
func (t *turns) end() {
	if s := t.next(); s != nil {
		go t.work(s)
	}
}

// work has a turn, and uses it for one session after the other.
func (t *turns) work(s *Session) {
	for ; s != nil; s = t.next() {
		s.turn()
		runtime.Gosched() // others come in between
	}
}

// next returns who uses a turn that has ended; if nobody waits it is free.
func (t *turns) next() *Session {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) == 0 {
		t.waiting = nil
		t.taken--
		return nil
	}
	s := t.waiting[0]
	t.waiting[0] = nil
	t.waiting = t.waiting[1:]
	return s
}

// turn is what a worker does for a session whose turn it is.
func (s *Session) turn() {
	s.mu.Lock()
	if len(s.behind) > 0 && !s.replay.paused {
		s.serve()
	}
	s.inLine = false
	s.unlockAndWake()
}
