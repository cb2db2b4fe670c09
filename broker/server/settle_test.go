package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	"github.com/tidewire/tidewire/broker/server"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// next returns the next frame of a kind. Others are kept for later: an answer and
// a delivery may come in any order.
func next[T any](c *client) (frame T) {
	c.t.Helper()
	for i, f := range c.kept {
		if frame, ok := f.(T); ok {
			c.kept = slices.Delete(c.kept, i, i+1)
			return frame
		}
	}
	for {
		select {
		case f := <-c.frames:
			if frame, ok := f.(T); ok {
				return frame
			}
			if refused, ok := f.(*tidewirev1.Error); ok {
				c.t.Fatalf("instead of a %T comes %v", frame, refused)
			}
			c.kept = append(c.kept, f)
		case <-c.closed:
			c.t.Fatalf("closed, without a %T: %v", frame, c.err)
		case <-time.After(2 * time.Minute):
			c.t.Fatalf("no %T comes", frame)
		}
	}
}

// deliveries takes n messages of a consumer.
func (c *client) deliveries(n int) (all []protocol.Message) {
	c.t.Helper()
	for len(all) < n {
		d := next[*protocol.Deliver](c)
		if d.After != 0 || d.Through != 0 || d.Generation == 0 || len(d.Attempts) != d.Count {
			c.t.Errorf("delivered as %+v", d)
		}
		for m, err := range d.Messages() {
			if err != nil {
				c.t.Fatal(err)
			}
			all = append(all, m)
		}
	}
	return all
}

func payloadsOf(messages []protocol.Message) string {
	var all []string
	for _, m := range messages {
		all = append(all, string(m.Payload))
	}
	return strings.Join(all, " ")
}

// settle makes a frame about single messages.
func settle(kind protocol.SettleKind, messages ...protocol.Message) *protocol.Settle {
	s := &protocol.Settle{Kind: kind, Ref: 7, Sub: 1, Generation: messages[0].Generation, Term: messages[0].Position.Term, Confirm: true}
	for _, m := range messages {
		s.Ranges = append(s.Ranges, protocol.OffsetRange{From: m.Position.Offset, Through: m.Position.Offset})
	}
	return s
}

// acked sends a frame and wants its answer: how many were settled, and the code of
// what was refused.
func (c *client) acked(s *protocol.Settle, settled uint32, code protocol.Code) {
	c.t.Helper()
	c.send(s)
	a := next[*tidewirev1.Acked](c)
	if a.Ref != s.Ref || a.Sub != s.Sub || a.Term != s.Term.String() || a.Settled != settled || a.Error != nil || (len(a.Refused) > 0) != (code != "") {
		c.t.Errorf("%.300s is answered with %.300s, want %d settled, refused %q", fmt.Sprintf("%+v", s), a.String(), settled, code)
	}
	for _, r := range a.Refused {
		if r.Code != string(code) {
			c.t.Errorf("%+v: refused %v, want %s", s, r, code)
		}
	}
}

func TestMember(t *testing.T) {
	bubble(t, server.Options{}, func(t *testing.T, e *edge) {
		e.publish(msg("a", "1"), msg("b", "x"), msg("a", "2"), msg("a", "3"), msg("a", "4"), msg("a", "5"))
		c := e.connect(protocol.Proto{}, &tidewirev1.Subscribe{Sub: 1, Filter: "a", Consumer: "work", Window: 4})
		s := next[*tidewirev1.Subscribed](c)
		if !s.Created || s.Generation == 0 || s.Sub != 1 {
			t.Errorf("%v", s)
		}
		got := c.deliveries(4)
		if payloadsOf(got) != "1 2 3 4" || got[0].Attempt != 1 || got[0].Generation != s.Generation {
			t.Fatalf("%+v", got)
		}
		info, err := e.broker.Consumer("work")
		if err != nil || len(info.Members) != 1 || info.Members[0].Session == "" || info.Members[0].Client != "test" || info.Members[0].Window != 4 || info.Members[0].InFlight != 4 {
			t.Errorf("%+v, %v", info.Members, err)
		}
		c.acked(settle(protocol.SettleAck, got[0]), 1, "")
		if m := c.deliveries(1); payloadsOf(m) != "5" {
			t.Errorf("with room for one more comes %q", payloadsOf(m))
		}
		c.acked(settle(protocol.SettleAck, got[0]), 0, protocol.CodeNotPending)

		start := time.Now()
		nack := settle(protocol.SettleNack, got[1])
		nack.Delay = new(3 * time.Second)
		c.acked(nack, 1, "")
		again := c.deliveries(1)
		if payloadsOf(again) != "2" || again[0].Attempt != 2 {
			t.Errorf("%+v", again)
		}
		within(t, "the repeat", start, 3*time.Second, 4*time.Second)

		extend := settle(protocol.SettleExtend, got[2])
		extend.Delay = new(10 * time.Minute)
		c.acked(extend, 1, "")
		c.acked(settle(protocol.SettleReject, got[3]), 1, "")
		synctest.Wait()
		if info, _ := e.broker.Consumer("work"); info.Dead != 1 || info.InFlight != 3 {
			t.Errorf("dead %d, in flight %d", info.Dead, info.InFlight)
		}
		quiet := settle(protocol.SettleAck, again[0])
		quiet.Confirm = false
		c.send(quiet)
		synctest.Wait()
		select {
		case f := <-c.frames:
			t.Errorf("without confirm comes %+v", f)
		default:
		}
		c.send(quiet) // now it is refused, and that is told
		if a := next[*tidewirev1.Acked](c); a.Settled != 0 || len(a.Refused) != 1 {
			t.Errorf("%v", a)
		}
	})
}

// TestMemberInJSON is the same in text.
func TestMemberInJSON(t *testing.T) {
	bubble(t, server.Options{}, func(t *testing.T, e *edge) {
		e.publish(msg("a", "1"), msg("a", "2"))
		c := e.session("welcome", jsonConnect)
		expect := func(parts ...string) string {
			t.Helper()
			_, text, err := c.read()
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range parts {
				if !strings.Contains(string(text), part) {
					t.Errorf("%s\nlacks %s", text, part)
				}
			}
			return string(text)
		}
		say := func(format string, args ...any) {
			t.Helper()
			c.write(frame(0x81, fmt.Appendf(nil, format, args...)))
		}
		say(`{"type":"subscribe","sub":5,"filter":"a","consumer":"work","settings":{"max_deliver":3,"ack_wait_ms":60000}}`)
		expect(`"type":"subscribed","sub":5`, `"generation":1`, `"created":true`)
		text := expect(`{"type":"deliver","sub":5,"messages":[{`, `"attempt":1,"generation":1,"payload":"1"}`, `"payload":"2"`)
		var at []string
		for i := range 2 {
			_, rest, _ := strings.Cut(strings.Split(text, `"payload":`)[i], `"position":"`)
			position, _, _ := strings.Cut(rest, `"`)
			at = append(at, position)
		}
		say(`{"type":"ack","ref":1,"sub":5,"generation":1,"positions":["%s"],"confirm":true}`, at[0])
		expect(`{"type":"acked","ref":1,"sub":5,"settled":1}`)
		say(`{"type":"ack","ref":2,"sub":5,"positions":["%s"],"confirm":true}`, at[0])
		expect(`{"type":"acked","ref":2,"sub":5,"refused":[{"from":"` + at[0] + `","through":"` + at[0] + `","code":"not_pending"}]}`)
		say(`{"type":"nack","ref":3,"sub":5,"ranges":[{"from":"%s","through":"%s"}],"delay_ms":0}`, at[0], at[1])
		expect(`"attempt":2,"generation":1,"payload":"2"`)
		say(`{"type":"reject","ref":4,"sub":6,"positions":["%s"]}`, at[1])
		expect(`"type":"error","ref":4,"sub":6,"code":"unknown_subscription"`, `"request":"reject"`)
		say(`{"type":"ack","ref":5,"sub":5,"positions":["%s"],"up_to":true,"confirm":true}`, at[1])
		expect(`{"type":"acked","ref":5,"sub":5,"settled":1}`)
	})
}

// TestSettleHostile: whatever a member says, the session lives on, the consumer
// keeps its state, and it takes no time.
func TestSettleHostile(t *testing.T) {
	bubble(t, server.Options{}, func(t *testing.T, e *edge) {
		e.publish(msg("a", "1"), msg("a", "2"), msg("a", "3"))
		c := e.connect(protocol.Proto{},
			&tidewirev1.Subscribe{Sub: 1, Filter: "a", Consumer: "work", Window: 2},
			&tidewirev1.Subscribe{Sub: 2, Filter: "a"})
		got := c.deliveries(2)
		with := func(change func(s *protocol.Settle)) *protocol.Settle {
			s := settle(protocol.SettleAck, got[0])
			change(s)
			return s
		}
		rangeOf := func(r protocol.OffsetRange) *protocol.Settle {
			return with(func(s *protocol.Settle) { s.Ranges = []protocol.OffsetRange{r} })
		}
		for _, s := range []*protocol.Settle{
			with(func(s *protocol.Settle) { s.Term++ }),
			rangeOf(protocol.OffsetRange{Partition: 4294967295, From: 1, Through: 1}),
			rangeOf(protocol.OffsetRange{From: protocol.MaxOffset, Through: protocol.MaxOffset}),
			rangeOf(protocol.OffsetRange{From: 4, Through: 4}),
		} {
			c.acked(s, 0, protocol.CodeNeverDelivered)
		}
		c.acked(with(func(s *protocol.Settle) { s.Generation = 1 << 63 }), 0, protocol.CodeFenced)

		refused := func(s *protocol.Settle, code protocol.Code) {
			t.Helper()
			c.send(s)
			for {
				f := <-c.frames
				if r, ok := f.(*tidewirev1.Error); ok {
					if r.Code != string(code) || r.Request != s.Kind.String() || r.Ref != s.Ref || r.Sub != s.Sub {
						t.Errorf("%d ranges of %d: refused with %v, want %s", len(s.Ranges), s.Sub, r, code)
					}
					return
				}
			}
		}
		refused(with(func(s *protocol.Settle) { s.Sub = 9 }), protocol.CodeUnknownSubscription)
		refused(with(func(s *protocol.Settle) { s.Sub = 0 }), protocol.CodeUnknownSubscription)
		refused(with(func(s *protocol.Settle) { s.Sub = 2 }), protocol.CodeBadRequest)
		refused(with(func(s *protocol.Settle) { s.Ranges = nil }), protocol.CodeBadRequest)
		refused(with(func(s *protocol.Settle) { s.Term = 0 }), protocol.CodeBadRequest)
		refused(rangeOf(protocol.OffsetRange{From: 5, Through: 3}), protocol.CodeBadRequest)
		refused(rangeOf(protocol.OffsetRange{From: 1, Through: 1 << 63}), protocol.CodeBadRequest)
		refused(with(func(s *protocol.Settle) { s.Ranges = manyRanges(10_001) }), protocol.CodeTooManyMessages)
		refused(with(func(s *protocol.Settle) { s.Kind, s.Delay = protocol.SettleExtend, new(13*time.Hour) }), protocol.CodeBadRequest)
		refused(with(func(s *protocol.Settle) { s.Kind, s.Reason = protocol.SettleReject, "a\nb" }), protocol.CodeBadRequest)

		if info, _ := e.broker.Consumer("work"); info.InFlight != 2 || info.Dead != 0 {
			t.Errorf("what was refused has done something: %+v", info)
		}
		// Everything there is, ten thousand times.
		everything := with(func(s *protocol.Settle) {
			s.Ranges = make([]protocol.OffsetRange, protocol.MaxSettleRanges)
			for i := range s.Ranges {
				s.Ranges[i] = protocol.OffsetRange{From: 1, Through: protocol.MaxOffset}
			}
			s.Confirm = false
		})
		c.send(everything)
		for {
			if got = c.deliveries(1); payloadsOf(got) == "3" {
				break
			}
		}
		if info, _ := e.broker.Consumer("work"); info.InFlight != 1 {
			t.Errorf("%+v", info)
		}
	})
}

// TestJoinRefused: what cannot be a consumer, or not with this subscription.
func TestJoinRefused(t *testing.T) {
	bubble(t, server.Options{}, func(t *testing.T, e *edge) {
		c := e.connect(protocol.Proto{}, &tidewirev1.Subscribe{Sub: 1, Filter: "a.>", Consumer: "work"})
		next[*tidewirev1.Subscribed](c)
		for _, s := range []struct {
			sub  *tidewirev1.Subscribe
			code protocol.Code
		}{
			{&tidewirev1.Subscribe{Consumer: "nobody"}, protocol.CodeUnknownConsumer},
			{&tidewirev1.Subscribe{Consumer: "work", Filter: "b"}, protocol.CodeConsumerExists},
			{&tidewirev1.Subscribe{Consumer: "work", Settings: &tidewirev1.ConsumerSettings{Exclusive: new(true)}}, protocol.CodeConsumerFixed},
			{&tidewirev1.Subscribe{Consumer: "a.b", Filter: "a"}, protocol.CodeBadRequest},
			{&tidewirev1.Subscribe{Consumer: "$a", Filter: "a"}, protocol.CodeBadRequest},
			{&tidewirev1.Subscribe{Consumer: strings.Repeat("c", 129), Filter: "a"}, protocol.CodeBadRequest},
			{&tidewirev1.Subscribe{Consumer: "new", Filter: "a", Credit: new(uint32(1))}, protocol.CodeBadRequest},
			{&tidewirev1.Subscribe{Consumer: "new", Filter: "a", Slow: "catch_up"}, protocol.CodeBadRequest},
			{&tidewirev1.Subscribe{Consumer: "new", Filter: "a", ConflateMs: 1}, protocol.CodeBadRequest},
			{&tidewirev1.Subscribe{Consumer: "new", Filter: "a", Echo: new(true)}, protocol.CodeBadRequest},
			{&tidewirev1.Subscribe{Consumer: "new", Filter: "a", From: "last-per-topic"}, protocol.CodeInvalidStart},
			{&tidewirev1.Subscribe{Consumer: "new", Filter: "a", Settings: &tidewirev1.ConsumerSettings{AckWaitMs: new(^uint64(0))}}, protocol.CodeBadRequest},
			{&tidewirev1.Subscribe{Consumer: "new", Filter: "a", Settings: &tidewirev1.ConsumerSettings{MaxInFlightBytes: new(^uint64(0))}}, protocol.CodeBadRequest},
			{&tidewirev1.Subscribe{Consumer: "new", Filter: "$redrive.work"}, protocol.CodeForbidden},
		} {
			s.sub.Sub = 7
			c.send(s.sub)
			if code, says := c.refusal(); code != s.code {
				t.Errorf("%v: %s %s, want %s", s.sub, code, says, s.code)
			}
		}
		if all := e.broker.Consumers(); len(all) != 1 || len(all[0].Members) != 1 {
			t.Errorf("what was refused has done something: %+v", all)
		}
	})
}

// TestTakenOver: of an exclusive consumer the last to come is the member, and what
// the one before says does not count.
func TestTakenOver(t *testing.T) {
	bubble(t, server.Options{}, func(t *testing.T, e *edge) {
		e.publish(msg("a", "1"))
		sub := &tidewirev1.Subscribe{Sub: 1, Filter: "a", Consumer: "work", Settings: &tidewirev1.ConsumerSettings{Exclusive: new(true)}}
		first := e.connect(protocol.Proto{}, sub)
		old := first.deliveries(1)
		second := e.connect(protocol.Proto{}, sub)
		if code, _ := first.refusal(); code != protocol.CodeTakenOver {
			t.Errorf("the first is told %s", code)
		}
		now := second.deliveries(1)
		if now[0].Generation <= old[0].Generation || now[0].Attempt != 2 || payloadsOf(now) != "1" {
			t.Errorf("%+v, before %+v", now, old)
		}
		first.send(settle(protocol.SettleAck, old[0]))
		if code, _ := first.refusal(); code != protocol.CodeUnknownSubscription {
			t.Errorf("the first may still settle: %s", code)
		}
		second.acked(settle(protocol.SettleAck, old[0]), 0, protocol.CodeFenced)
		second.acked(settle(protocol.SettleAck, now[0]), 1, "")
	})
}

// TestMemberLeaves: what a member had goes to another one at once; if there is
// none, to whoever comes back, and it may still be settled.
func TestMemberLeaves(t *testing.T) {
	bubble(t, server.Options{}, func(t *testing.T, e *edge) {
		e.publish(msg("a", "1"), msg("a", "2"))
		sub := &tidewirev1.Subscribe{Sub: 1, Filter: "a", Consumer: "work", Window: 1}
		first := e.connect(protocol.Proto{}, sub)
		got := first.deliveries(1)
		second := e.connect(protocol.Proto{}, sub)
		rest := second.deliveries(1)
		_ = first.socket.NetConn().Close()
		synctest.Wait()
		start := time.Now()
		second.acked(settle(protocol.SettleAck, rest[0]), 1, "")
		if m := second.deliveries(1); payloadsOf(m) != payloadsOf(got) || m[0].Attempt != 2 {
			t.Errorf("%+v", m)
		}
		within(t, "the handover", start, 0, time.Second)
		_ = second.socket.NetConn().Close()
		synctest.Wait()
		third := e.connect(protocol.Proto{}, sub)
		next[*tidewirev1.Subscribed](third)
		third.acked(settle(protocol.SettleAck, got[0]), 1, "")
	})
}

// TestLostPermission: a token that does not allow to consume any more ends the
// membership.
func TestLostPermission(t *testing.T) {
	all := broker.Identity{Consume: []protocol.Filter{mustParse(t, ">")}}
	b := newEdge(t, server.Options{}, broker.Options{})
	session := b.broker.NewSession(broker.SessionOptions{Identity: &all, Codec: protocol.Proto{}, Wake: func() {}})
	defer session.Close()
	session.Subscribe(&tidewirev1.Subscribe{Sub: 1, Filter: "a", Consumer: "work"})
	session.SetIdentity(&broker.Identity{Subscribe: []protocol.Filter{mustParse(t, ">")}})
	if info, err := b.broker.Consumer("work"); err != nil || len(info.Members) != 0 {
		t.Errorf("%+v, %v", info.Members, err)
	}
}

func mustParse(t *testing.T, text string) protocol.Filter {
	t.Helper()
	f, err := protocol.ParseFilter(text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestLateUpTo: an ack up to a message takes the message itself, too, although its
// time is over and it waits for its repeat.
func TestLateUpTo(t *testing.T) {
	bubble(t, server.Options{}, func(t *testing.T, e *edge) {
		e.publish(msg("a", "1"), msg("a", "2"))
		sub := &tidewirev1.Subscribe{Sub: 1, Filter: "a", Consumer: "work"}
		sub.Settings = &tidewirev1.ConsumerSettings{BackoffBaseMs: new(uint64(60_000)), BackoffCapMs: new(uint64(60_000)), BackoffJitter: new(false)}
		c := e.connect(protocol.Proto{}, sub)
		got := c.deliveries(2)
		time.Sleep(40 * time.Second)
		if info, _ := e.broker.Consumer("work"); info.Waiting != 2 {
			t.Fatalf("%+v", info)
		}
		late := settle(protocol.SettleAck, got[0])
		late.UpTo = true
		c.acked(late, 1, "")
		if info, _ := e.broker.Consumer("work"); info.Waiting != 1 {
			t.Errorf("%+v", info)
		}
	})
}

// TestSettleCost: ranges that name the same messages ten thousand times cost no
// more than looking at them once.
func TestSettleCost(t *testing.T) {
	e := newEdgeOn(t, brokertest.NewLog(), server.Options{}, broker.Options{}) // in real time
	const waiting = 2000
	for range waiting / 100 {
		var all []protocol.Message
		for range 100 {
			all = append(all, msg("a", "x"))
		}
		e.publish(all...)
	}
	sub := &tidewirev1.Subscribe{Sub: 1, Filter: "a", Consumer: "work", Settings: &tidewirev1.ConsumerSettings{MaxInFlight: new(uint32(waiting))}}
	c := e.connect(protocol.Proto{}, sub)
	got := c.deliveries(waiting)
	s := settle(protocol.SettleExtend, got[0])
	s.Ranges = make([]protocol.OffsetRange, protocol.MaxSettleRanges)
	for i := range s.Ranges {
		s.Ranges[i] = protocol.OffsetRange{From: 1 + uint64(i%2), Through: protocol.MaxOffset - uint64(i)}
	}
	start := time.Now()
	c.acked(s, waiting, "")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}
