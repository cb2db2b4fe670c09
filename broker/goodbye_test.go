package broker_test

import (
	"testing"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

// Who unsubscribes does not come back: what it had goes to whoever comes next, at
// once. Who loses its connection may: it has the ack wait to answer.
func TestGoodbye(t *testing.T) {
	s := openShop(t, "")
	a := s.hire()
	a.consume("w", "job", 0, &tidewirev1.ConsumerSettings{AckWaitMs: new(uint64(600_000))})
	s.publishMany("job", 3)
	a.ack(a.take(3)[0])
	a.session.Unsubscribe(1)
	s.until(func() bool { return s.info().InFlight == 0 })
	b := s.hire()
	b.consume("w", "job", 0, nil)
	got := b.take(2)
	if got[0].Attempt != 2 || string(got[0].Payload) != "1" || string(got[1].Payload) != "2" {
		t.Fatalf("got %v, attempt %d", payloads(got), got[0].Attempt)
	}
	b.leave()
	s.until(func() bool { return len(s.info().Members) == 0 })
	if i := s.info(); i.InFlight != 2 || i.Waiting != 0 {
		t.Fatalf("after a lost connection: %+v", i)
	}
}
