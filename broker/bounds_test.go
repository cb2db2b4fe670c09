package broker

import (
	"testing"

	"github.com/tidewire/tidewire/broker/brokertest"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// What a client can make large, seen from inside.

func hostileSession() *Session {
	all, _ := protocol.ParseFilter(">")
	who := &Identity{Publish: []protocol.Filter{all}, Subscribe: []protocol.Filter{all}}
	return New(brokertest.NewLog(), Options{}).NewSession(SessionOptions{Identity: who, Codec: protocol.Proto{}, Wake: func() {}})
}

// TestAnswersAreBounded publishes what is refused, and reads no answer.
func TestAnswersAreBounded(t *testing.T) {
	s := hostileSession()
	for frames := 1; s.end == nil; frames++ {
		s.Publish(t.Context(), &protocol.Publish{Messages: make([]protocol.Message, 1000)})
		if frames > 100 {
			t.Fatalf("%d answers wait", len(s.pub.results))
		}
	}
	if s.end.Code != protocol.CodeSlowConnection || len(s.pub.results) > 0 {
		t.Errorf("ended with %v, %d answers wait", s.end, len(s.pub.results))
	}
}

// TestSubscribeStorm subscribes and unsubscribes, and reads nothing.
func TestSubscribeStorm(t *testing.T) {
	s := hostileSession()
	for n := uint32(1); s.end == nil; n++ {
		s.Subscribe(&tidewirev1.Subscribe{Sub: n, Filter: "a"})
		s.Unsubscribe(n)
		if n > 100_000 || len(s.behind) > 1 {
			t.Fatalf("%d frames wait, %d subscriptions are behind", len(s.out.frames), len(s.behind))
		}
	}
}

// TestOutboxDoesNotCreep keeps an outbox busy that is never empty.
func TestOutboxDoesNotCreep(t *testing.T) {
	var o outbox
	body := make([]byte, 1000)
	for range 600 {
		o.push(body)
	}
	for range 1000 {
		taken := o.take(nil)
		o.written()
		for range taken {
			o.push(body)
		}
		if len(o.frames) > 1200 {
			t.Fatalf("600 frames wait in %d places", len(o.frames))
		}
	}
	for len(o.take(nil)) > 0 {
		o.written()
	}
	if o.bytes != 0 || o.size() != 0 || cap(o.frames) > keptFrames {
		t.Errorf("an empty outbox has %d bytes and room for %d frames", o.size(), cap(o.frames))
	}
}
