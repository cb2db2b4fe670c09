package broker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// heldLog is a log that is read only when the test lets it.
type heldLog struct {
	*brokertest.Log
	hold   chan struct{} // closed when it may be read
	fail   atomic.Bool
	active atomic.Int64
	peak   atomic.Int64
}

func (l *heldLog) Read(q storage.Query) (protocol.Chunk, error) {
	n := l.active.Add(1)
	defer l.active.Add(-1)
	for {
		if peak := l.peak.Load(); n <= peak || l.peak.CompareAndSwap(peak, n) {
			break
		}
	}
	<-l.hold
	if l.fail.Load() {
		return protocol.Chunk{}, errors.New("the disk is on fire")
	}
	return l.Log.Read(q)
}

func (l *heldLog) close() { l.hold = make(chan struct{}) }

func (l *heldLog) open() { close(l.hold) }

func newHeld(t *testing.T) (*world, *heldLog) {
	log := &heldLog{Log: brokertest.NewLog()}
	log.close()
	log.open()
	w := &world{t: t, log: log.Log, broker: broker.New(log, broker.Options{})}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = w.broker.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return w, log
}

func (w *world) wantTurns(taken, waiting int) {
	w.t.Helper()
	synctest.Wait()
	if _, a, b := w.broker.Turns(); a != taken || b != waiting {
		w.t.Fatalf("%d turns are taken and %d sessions wait, want %d and %d", a, b, taken, waiting)
	}
}

// TestTurns: of many who come back only a few are read for at once, everybody
// gets everything in the end, and who publishes or is live waits for nobody, not
// even a session that itself stands in line.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const crowd = 40
		w, log := newHeld(t)
		most, _, _ := w.broker.Turns()
		live := w.listen()
		live.store(text("a", "1"), text("a", "2"))
		live.subscribe(1, "a", "new")
		live.until(func() bool { return live.subs[1].caughtUp == 1 })
		log.close()
		var back sync.WaitGroup
		listeners := make([]*listener, crowd)
		for i := range listeners {
			l := w.listen()
			listeners[i] = l
			l.subscribe(1, "a", "earliest")
			back.Go(func() { l.until(func() bool { return len(l.subs[1].got) == 4 }) })
		}
		inLine := w.listen()
		synctest.Wait()
		inLine.subscribe(1, "a", "earliest")
		inLine.take(10)
		fickle := w.listen()
		fickle.subscribe(1, "a", "earliest")
		fickle.take(10)
		fickle.unsubscribe(1)
		w.wantTurns(most, crowd+2-most)
		live.store(text("a", "3"))
		live.take(10)
		wantPayloads(t, live.subs[1], "3")
		inLine.store(text("a", "4"))
		wantPayloads(t, inLine.subs[1])
		log.open()
		back.Wait()
		inLine.until(func() bool { return len(inLine.subs[1].got) == 4 })
		fickle.subscribe(1, "a", "earliest")
		live.store(text("a", "5"))
		for _, l := range append(listeners, inLine, fickle) {
			l.until(func() bool { return len(l.subs[1].got) == 5 })
			wantPayloads(t, l.subs[1], "1", "2", "3", "4", "5")
		}
		if peak := log.peak.Load(); peak != int64(most) {
			t.Fatalf("%d read at once, want %d", peak, most)
		}
		w.wantTurns(0, 0)
	})
}

// TestTurnsSlowClients: clients that take nothing keep nobody from reading.
func TestTurnsSlowClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newHeld(t)
		publisher := w.listen()
		for i := range 40 { // several parts of the log
			publisher.store(text("a", fmt.Sprint(i, strings.Repeat(" ", 10_000))))
		}
		for range 10 {
			stuck := w.listen()
			stuck.subscribe(1, "a", "earliest")
			stuck.take(1) // what it was given is being written for ever
		}
		l := w.listen()
		l.subscribe(1, "a", "earliest")
		l.until(func() bool { return len(l.subs[1].got) == 40 })
		w.wantTurns(0, 0)
	})
}

// TestTurnsAreGivenBack: whatever becomes of those who have a turn or wait for
// one, and whether the log can be read or not.
func TestTurnsAreGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, log := newHeld(t)
		most, _, _ := w.broker.Turns()
		publisher := w.listen()
		publisher.store(text("a", "1"))
		leave := []func(*broker.Session){
			(*broker.Session).Close,
			func(s *broker.Session) { s.Unsubscribe(1) },
			func(s *broker.Session) { s.End(protocol.Errorf(protocol.CodeGoingAway, "go")) },
			func(s *broker.Session) { s.SetIdentity(&broker.Identity{}) },
			func(*broker.Session) {},
		}
		for _, fail := range []bool{false, true} {
			log.close()
			log.fail.Store(fail)
			sessions := make([]*broker.Session, most+2*len(leave))
			for i := range sessions {
				s := w.broker.NewSession(broker.SessionOptions{Identity: anybody, Codec: protocol.Proto{}, Wake: func() {}})
				s.Subscribe(&tidewirev1.Subscribe{Sub: 1, Filter: "a", From: "earliest"})
				go func() { // takes what stands in the queue, and looks for more
					for frames, end := s.Take(nil); len(frames) > 0 && end == nil; {
						frames, end = s.Take(nil)
					}
				}()
				sessions[i] = s
			}
			w.wantTurns(most, len(sessions)-most)
			for i, s := range sessions {
				leave[i%len(leave)](s)
			}
			w.wantTurns(most, len(sessions)-most)
			log.open()
			w.wantTurns(0, 0)
			for i, s := range sessions {
				if i%len(leave) != 0 {
					s.Close()
				}
			}
		}
		log.fail.Store(false)
		l := w.listen()
		l.subscribe(1, "a", "earliest")
		l.until(func() bool { return l.subs[1].caughtUp == 1 })
		wantPayloads(t, l.subs[1], "1")
	})
}
