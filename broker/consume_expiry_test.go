package broker_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/broker"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// fate returns what the consumer w has made of the message with an id.
func (s *shop) fate(id string) broker.MessageState {
	s.t.Helper()
	found, err := s.broker.FindMessage(s.t.Context(), id, "")
	if err != nil || len(found) != 1 || len(found[0].Consumers) != 1 {
		s.t.Fatalf("found %+v, %v", found, err)
	}
	return found[0].Consumers[0]
}

// TestRetriesExpire: a message that has expired since its first delivery is not
// delivered again, whatever ended that one, and gives its key to the next.
func TestRetriesExpire(t *testing.T) {
	later := func(f *protocol.Settle) { f.Delay = new(10 * time.Second) }
	for name, end := range map[string]func(h, other *hand, m protocol.Message){
		"nack":        func(h, _ *hand, m protocol.Message) { h.settle(protocol.SettleNack, true, later, m) },
		"ack wait":    func(*hand, *hand, protocol.Message) { time.Sleep(10 * time.Second) },
		"member lost": func(h, _ *hand, _ protocol.Message) { time.Sleep(5 * time.Second); h.leave() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openShop(t, "")
				defer s.end()
				h, other := s.hire(), s.hire()
				defer h.leave()
				defer other.leave()
				begin := time.Now()
				h.consume("w", "job", 0, &tidewirev1.ConsumerSettings{BackoffJitter: new(false), AckWaitMs: new(uint64(10_000))})
				s.publish(protocol.Message{Topic: "job", ID: "one", Key: "k", ExpiresAt: time.Now().Add(5 * time.Second)})
				first := h.take(1)[0]
				other.consume("w", "job", 0, nil)
				s.publish(protocol.Message{Topic: "job", ID: "two", Key: "k"})
				other.idle() // the key is taken
				end(h, other, first)
				time.Sleep(time.Until(begin.Add(12 * time.Second)))
				synctest.Wait()
				got := append(h.got, other.got...)
				if len(got) == 0 || got[0].ID != "two" || got[0].Attempt != 1 {
					t.Errorf("delivered %+v, want two alone", got)
				}
				if i := s.info(); i.Counts.Expired != 1 || i.Counts.Redelivered != 0 || i.Counts.Delivered != 2 || i.Waiting != 0 || i.Dead != 0 {
					t.Errorf("info %+v", i)
				}
				if fate := s.fate("one"); fate.State != "done" {
					t.Errorf("it is %+v", fate)
				}
			})
		})
	}
}

// TestRedrivenDoNotExpire: who redrives a dead letter wants it delivered.
func TestRedrivenDoNotExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openShop(t, "")
		defer s.end()
		h := s.hire()
		defer h.leave()
		h.consume("w", "job", 0, nil)
		s.publish(protocol.Message{Topic: "job", ID: "one", ExpiresAt: time.Now().Add(5 * time.Second)})
		h.settle(protocol.SettleReject, true, nil, h.take(1)...)
		time.Sleep(time.Minute)
		if fate := s.fate("one"); fate.State != "dead" {
			t.Errorf("it is %+v", fate)
		}
		if n, err := s.broker.Redrive(t.Context(), "w", broker.DeadSelection{All: true}, false); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		again := h.take(1)
		h.settle(protocol.SettleNack, true, nil, again...)
		if back := h.take(1)[0]; back.ID != "one" || back.Attempt != 2 {
			t.Errorf("got %+v", back)
		}
	})
}

// TestFateOfExpired: what a consumer has not done with and will not get any more
// is told as expired; one that is in flight is just that.
func TestFateOfExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openShop(t, "")
		defer s.end()
		h := s.hire()
		defer h.leave()
		h.consume("w", "job", 2, nil)
		for _, id := range []string{"flying", "waiting", "new"} {
			s.publish(protocol.Message{Topic: "job", ID: id, ExpiresAt: time.Now().Add(5 * time.Second)})
		}
		got := h.take(2)
		if _, err := s.broker.PauseConsumer(t.Context(), "w", true); err != nil {
			t.Fatal(err)
		}
		h.settle(protocol.SettleNack, true, nil, got[1])
		want := func(id, state string) {
			t.Helper()
			if fate := s.fate(id); fate.State != state || state == "expired" && !fate.Due.IsZero() {
				t.Errorf("%s is %+v, want %s", id, fate, state)
			}
		}
		want("flying", "in_flight")
		want("waiting", "waiting")
		want("new", "not_yet")
		time.Sleep(5 * time.Second)
		want("flying", "in_flight")
		want("waiting", "expired")
		want("new", "expired")
		if fate := s.fate("waiting"); fate.Attempts != 1 || fate.Reason == "" {
			t.Errorf("what is known of it is gone: %+v", fate)
		}
	})
}
