package broker_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/protocol"
)

// TestConcurrent is TestModel with everybody at work at the same time:
// subscriptions join and leave live groups while commits are applied.
func TestConcurrent(t *testing.T) {
	w := newWorld(t, broker.Options{SoftOutbound: 3000})
	var publishing sync.WaitGroup
	stop := make(chan struct{})
	publisher, rng := w.listen(), rand.New(rand.NewPCG(w.rng.Uint64(), 1))
	publishing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				w.publishWith(publisher, rng)
			}
		}
	})
	filters := []string{"a.x", "a.*", ">", "b.>"}
	listeners := make([]*listener, 6)
	var listening sync.WaitGroup
	for i := range listeners {
		l, rng := w.listen(), rand.New(rand.NewPCG(w.rng.Uint64(), 2))
		listeners[i] = l
		listening.Go(func() {
			next := uint32(0)
			for range 400 {
				switch rng.IntN(10) {
				case 0:
					l.reconnect()
				case 1:
					next++
					l.subscribe(next, filters[rng.IntN(len(filters))], []string{"new", "earliest", "last:5"}[rng.IntN(3)])
				case 2:
					for n := range l.subs {
						l.unsubscribe(n)
						break
					}
				case 3:
					l.session.Progress()
				default:
					l.take(1 + rng.IntN(5))
				}
			}
		})
	}
	listening.Wait()
	close(stop)
	publishing.Wait()
	heads := w.heads()
	for _, l := range listeners {
		l.until(func() bool {
			l.session.Progress()
			for _, p := range l.subs {
				if p.behindAny(heads) {
					return false
				}
			}
			return true
		})
		for _, p := range l.subs {
			p.check(t, w.stored)
		}
	}
}

// unsubscribe ends a subscription, from another goroutine as the edge does, and
// takes until that is answered. Nothing of it may come behind the answer.
func (l *listener) unsubscribe(n uint32) {
	l.ended = 0
	go l.session.Unsubscribe(n)
	l.until(func() bool { return l.ended == n })
	delete(l.subs, n)
}

// TestRangesAreContiguous holds the live half of the client's rule: each frame
// begins where the one before ended, so that a frame which is lost shows.
func TestRangesAreContiguous(t *testing.T) {
	w := newWorld(t, broker.Options{})
	l, publisher := w.listen(), w.listen()
	l.subscribe(1, "a.*", "new")
	l.take(10)
	through, frames := uint64(0), 0
	for i := range 50 {
		topic := "a.x"
		if i%3 == 0 {
			topic = "c"
		}
		publisher.results = nil
		publisher.session.Publish(t.Context(), &protocol.Publish{Messages: []protocol.Message{{Topic: topic, Payload: fmt.Append(nil, i)}}})
		publisher.until(func() bool { return len(publisher.results) == 1 })
	}
	deadline := time.After(10 * time.Second)
	for frames < 33 {
		taken, _ := l.session.Take(nil)
		for i := range taken {
			frame, err := protocol.Proto{}.DecodeServer(append(append([]byte(nil), taken[i].Head()...), taken[i].Tail...))
			if err != nil {
				t.Fatal(err)
			}
			if d, ok := frame.(*protocol.Deliver); ok {
				if frames > 0 && d.After != through {
					t.Fatalf("frame %d begins after %d, the one before ended at %d", frames, d.After, through)
				}
				through = d.Through
				frames++
			}
		}
		if len(taken) == 0 {
			select {
			case <-l.woken:
			case <-deadline:
				t.Fatalf("%d frames", frames)
			}
		}
	}
}
