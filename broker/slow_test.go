package broker_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/broker"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// store publishes messages and waits until everybody who is live has them.
func (l *listener) store(messages ...protocol.Message) {
	l.results = nil
	l.session.Publish(l.w.t.Context(), &protocol.Publish{Messages: messages})
	l.until(func() bool { return len(l.results) == len(messages) })
	synctest.Wait()
}

func text(topic, payload string) protocol.Message {
	return protocol.Message{Topic: topic, Payload: []byte(payload)}
}

// ask subscribes with wishes.
func (l *listener) ask(r *tidewirev1.Subscribe) *place {
	f, err := protocol.ParseFilter(r.Filter)
	if err != nil {
		l.w.t.Fatal(err)
	}
	p := &place{filter: f, from: r.From, wished: wished{credit: r.Credit, slow: r.Slow}}
	if r.Credit != nil {
		p.balance = int64(*r.Credit)
	}
	l.subs[r.Sub] = p
	l.session.Subscribe(r)
	return p
}

func (p *place) payloads() []string {
	var all []string
	for _, s := range p.got {
		all = append(all, s.payload)
	}
	return all
}

func wantPayloads(t *testing.T, p *place, want ...string) {
	t.Helper()
	if got := p.payloads(); !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// TestCredit: without credit nothing comes; with any, one chunk and no more; and
// what had to wait comes when there is more.
func TestCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, broker.Options{})
		publisher, l := w.listen(), w.listen()
		publisher.store(text("a", "1"))
		p := l.ask(&tidewirev1.Subscribe{Sub: 1, Filter: "a", From: "earliest", Credit: new(uint32(0))})
		l.take(10)
		publisher.store(text("a", "2"))
		l.take(10)
		wantPayloads(t, p)
		flow := func(n uint32) {
			p.balance += int64(n)
			l.session.Flow(&tidewirev1.Flow{Sub: 1, Credit: n})
			synctest.Wait()
			l.take(10)
		}
		flow(1)
		wantPayloads(t, p, "1", "2") // one chunk, which overdraws
		publisher.store(text("a", "3"))
		l.take(10)
		flow(1) // not enough to get above zero
		wantPayloads(t, p, "1", "2")
		flow(uint32(1 - p.balance))
		wantPayloads(t, p, "1", "2", "3")
	})
}

// TestCreditRefusals: what cannot be asked for is said.
func TestCreditRefusals(t *testing.T) {
	w := newWorld(t, broker.Options{})
	l := w.listen()
	l.subscribe(1, "a", "new")
	refused := func(code protocol.Code, sub uint32) {
		t.Helper()
		for {
			frames, _ := l.session.Take(nil)
			if len(frames) == 0 {
				t.Fatal("no refusal")
			}
			for i := range frames {
				frame, _ := protocol.Proto{}.DecodeServer(append(slices.Clone(frames[i].Head()), frames[i].Tail...))
				if e, ok := frame.(*tidewirev1.Error); ok {
					if e.Code != string(code) || e.Sub != sub {
						t.Fatalf("got %v, want %s of %d", e, code, sub)
					}
					return
				}
			}
		}
	}
	l.session.Flow(&tidewirev1.Flow{Sub: 1, Credit: 5})
	refused(protocol.CodeBadRequest, 0)
	l.session.Flow(&tidewirev1.Flow{Sub: 2, Credit: 5})
	refused(protocol.CodeUnknownSubscription, 2)
	for _, r := range []*tidewirev1.Subscribe{
		{Slow: "quickly"},
		{ConflateMs: 5},
		{Slow: "conflate", ConflateMs: 60_001},
		{Slow: "disconnect", Credit: new(uint32(5))},
	} {
		r.Sub, r.Filter = 3, "a"
		l.session.Subscribe(r)
		refused(protocol.CodeBadRequest, 3)
	}
}

// TestExpiryIsJudgedAtDelivery: what has expired is left out live, in catch-up
// and in history, and leaves no hole.
func TestExpiryIsJudgedAtDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, broker.Options{})
		publisher, live, late := w.listen(), w.listen(), w.listen()
		p := live.ask(&tidewirev1.Subscribe{Sub: 1, Filter: "a"})
		live.take(10)
		soon := text("a", "soon")
		soon.ExpiresAt = time.Now().Add(time.Second)
		past := text("a", "past")
		past.ExpiresAt = time.Now()
		publisher.store(text("a", "1"), soon, past)
		publisher.store(past)
		publisher.store(text("a", "2"))
		live.take(10)
		wantPayloads(t, p, "1", "soon", "2")
		time.Sleep(time.Second)
		q := late.ask(&tidewirev1.Subscribe{Sub: 1, Filter: "a", From: "earliest"})
		late.take(10)
		wantPayloads(t, q, "1", "2")
		page, err := w.broker.History(t.Context(), anybody, broker.HistoryQuery{Filter: q.filter, From: protocol.Start{Kind: protocol.StartEarliest}, Limit: 10})
		if err != nil || len(page.Messages) != 2 {
			t.Errorf("history: %v, %v", page, err)
		}
	})
}

// TestConflation: of 5,000 messages a second in a topic a subscriber that wants
// five gets five, the last one always, and a quiet topic is not held back.
func TestConflation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, broker.Options{})
		publisher, l := w.listen(), w.listen()
		p := l.ask(&tidewirev1.Subscribe{Sub: 1, Filter: "price.*", Slow: "conflate", ConflateMs: 200})
		l.take(10)
		publisher.store(text("price.a", "first"))
		l.take(10)
		wantPayloads(t, p, "first") // at once
		time.Sleep(time.Second)
		p.got = nil
		begin := time.Now()
		for i := range 5000 {
			publisher.store(text("price.a", fmt.Sprint(i)))
			if i == 500 {
				publisher.store(text("price.b", "rare"))
			}
			l.take(3)
			time.Sleep(200 * time.Microsecond)
		}
		for time.Since(begin) < 2*time.Second {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			l.take(10)
		}
		got := p.payloads()
		if n := len(got); n < 5 || n > 8 || got[n-1] != "4999" || !slices.Contains(got, "rare") {
			t.Errorf("got %q", got)
		}
	})
}

// TestConflationBehind: without a rate only who is behind is conflated.
func TestConflationBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, broker.Options{})
		publisher, l := w.listen(), w.listen()
		p := l.ask(&tidewirev1.Subscribe{Sub: 1, Filter: "a.*", Slow: "conflate", Credit: new(uint32(200))})
		l.take(10)
		for i := range 3 {
			publisher.store(text("a.x", fmt.Sprint(i)), text("a.x", fmt.Sprint(i, "'")), text("b", ""))
			l.take(10)
		}
		wantPayloads(t, p, "0", "0'", "1", "1'", "2", "2'")
		for i := range 9 {
			publisher.store(text("a.x", fmt.Sprint(i)), text("a.y", fmt.Sprint(i)), text("b", ""))
		}
		l.take(10)
		p.got = nil
		p.balance += 10_000
		l.session.Flow(&tidewirev1.Flow{Sub: 1, Credit: 10_000})
		l.take(10)
		wantPayloads(t, p, "8", "8")
	})
}

// TestLastPerTopic: the newest of each topic in the order of offsets, then
// everything, without a seam.
func TestLastPerTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, broker.Options{})
		publisher, l := w.listen(), w.listen()
		for i := range 4 {
			publisher.store(text("a.x", fmt.Sprint("x", i)), text("a.y", fmt.Sprint("y", i)), text("b", fmt.Sprint(i)))
		}
		publisher.store(text("a.y", "y4"), text("a.z", "z"))
		p := l.ask(&tidewirev1.Subscribe{Sub: 1, Filter: "a.*", From: "last-per-topic"})
		publisher.store(text("a.y", "y5"), text("a.y", "y6"))
		l.take(10)
		publisher.store(text("a.x", "x4"), text("a.x", "x5"))
		l.take(10)
		wantPayloads(t, p, "x3", "y4", "z", "y5", "y6", "x4", "x5")
		if p.caughtUp != 1 {
			t.Errorf("caught up %d times", p.caughtUp)
		}
		none := l.ask(&tidewirev1.Subscribe{Sub: 2, Filter: "none", From: "last-per-topic"})
		l.take(10)
		if none.caughtUp != 1 || len(none.got) > 0 {
			t.Errorf("of nothing: %+v", none)
		}
	})
}

// TestDisconnect ends the session of who asked for it and cannot keep up.
func TestDisconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, broker.Options{SoftOutbound: 1000})
		publisher, l := w.listen(), w.listen()
		for range 50 { // far more than the limit, and no reason: it is not live yet
			publisher.store(text("a", "0123456789"))
		}
		p := l.ask(&tidewirev1.Subscribe{Sub: 1, Filter: "a", From: "earliest", Slow: "disconnect"})
		l.take(10)
		if len(p.got) != 50 {
			t.Fatalf("got %d", len(p.got))
		}
		for range 50 {
			publisher.store(text("a", "0123456789"))
		}
		for {
			frames, end := l.session.Take(nil)
			if end != nil {
				if end.Code != protocol.CodeSlowConnection {
					t.Errorf("ended with %v", end)
				}
				return
			}
			if len(frames) == 0 {
				t.Fatal("the session goes on")
			}
		}
	})
}

// TestEphemeral: it comes to who is live, has no position and is never stored.
func TestEphemeral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, broker.Options{})
		publisher, l := w.listen(), w.listen()
		p := l.ask(&tidewirev1.Subscribe{Sub: 1, Filter: "a"})
		l.take(10)
		m := text("a", "now")
		m.Ephemeral, m.ID = true, "same"
		publisher.store(m, text("a", "stored"), m)
		for _, i := range []int{0, 1} {
			if r := publisher.results[i]; r.Err != nil || !r.Position.IsZero() || r.Duplicate {
				t.Errorf("answer %+v", r)
			}
		}
		l.take(10)
		wantPayloads(t, p, "stored")
		if p.heard != 2 {
			t.Errorf("%d came", p.heard)
		}
		if _, head := w.log.Bounds(); head != 1 {
			t.Errorf("%d are stored", head)
		}
		if r, err := w.broker.Publish(t.Context(), anybody, &m, 0); err != nil || !r.Position.IsZero() {
			t.Errorf("%+v, %v", r, err)
		}
		l.take(10)
		if p.heard != 3 {
			t.Errorf("%d came", p.heard)
		}
	})
}

// TestSoftLimitHolds: what waits for a session whose client takes nothing reaches
// the soft limit and never passes it; but one message alone may be larger, or
// nobody could ever get it.
func TestSoftLimitHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const soft = 10_000
		w := newWorld(t, broker.Options{SoftOutbound: soft})
		publisher, l := w.listen(), w.listen()
		l.subscribe(1, "a", "new")
		l.until(func() bool { return l.subs[1].caughtUp == 1 })
		var want []string
		for i := range 30 {
			want = append(want, fmt.Sprintf("%0*d", 900, i))
			publisher.store(text("a", want[i]))
			if n := l.session.Waiting(); n > soft || (i > 20 && n < soft-2000) {
				t.Fatalf("%d bytes wait after %d messages", n, i+1)
			}
		}
		l.until(func() bool { return len(l.subs[1].got) == len(want) })
		l.take(10)
		want = append(want, fmt.Sprintf("%0*d", 2*soft, 0))
		publisher.store(text("a", want[30]))
		if n := l.session.Waiting(); n < 2*soft {
			t.Fatalf("%d bytes wait: a live subscription went back to the log for one large message", n)
		}
		l.take(10)
		wantPayloads(t, l.subs[1], want...)
	})
}
