package tidewire

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

func TestDeliverAndPosition(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		s, n := subscribe(t, c, p, SubscribeOptions{})
		if s.Position() != at(10) {
			t.Fatal(s.Position())
		}
		got := collect(t.Context(), s)
		p.send(deliver(n, 10, 14, 11, 13))
		got.want(t, "11", "13")
		if s.Position() != at(14) {
			t.Fatal(s.Position())
		}
		p.send(deliver(n, 13, 17, 14, 16)) // overlaps: 14 was covered
		got.want(t, "11", "13", "16")
		p.send(progress(20, n), progress(18, n))
		got.want(t, "11", "13", "16")
		if s.Position() != at(20) {
			t.Fatal(s.Position())
		}
		p.send(deliver(n, 17, 19, 18), deliver(n+5, 20, 30, 21)) // old, and nobody's
		got.want(t, "11", "13", "16")
		if s.Position() != at(20) {
			t.Fatal(s.Position())
		}
	})
}

// centrifuge-go #143, #150: the position moves after the loop's body has
// returned, and progress waits its turn behind deliveries.
func TestPositionMovesAfterHandling(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		s, n := subscribe(t, c, p, SubscribeOptions{})
		p.send(deliver(n, 10, 15, 11, 12), progress(30, n))
		var seen []string
		for m, err := range s.Messages(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			seen = append(seen, s.Position())
			if m.Position.Offset == 12 {
				break
			}
		}
		if want := fmt.Sprint([]string{at(10), at(11)}); fmt.Sprint(seen) != want || s.Position() != at(11) {
			t.Fatalf("%v then %v, want %v", seen, s.Position(), want)
		}
		// The next loop goes on behind it.
		got := collect(t.Context(), s)
		got.want(t)
		if s.Position() != at(30) {
			t.Fatal(s.Position())
		}
	})
}

// What the loop left of a chunk comes in the next loop.
func TestLoopIsTakenUp(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		s, n := subscribe(t, c, p, SubscribeOptions{})
		p.send(deliver(n, 10, 15, 11, 12, 13, 14))
		for _, err := range s.Messages(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		boom := errors.New("boom")
		err := s.Handle(t.Context(), func(_ context.Context, m *Message) error {
			if m.Position.Offset == 13 {
				return boom
			}
			return nil
		})
		if !errors.Is(err, boom) || s.Position() != at(12) {
			t.Fatal(err, s.Position())
		}
		ctx, cancel := context.WithCancel(t.Context())
		got := collect(ctx, s)
		got.want(t, "14")
		for _, err := range s.Messages(t.Context()) {
			if !errors.Is(err, errBusy) {
				t.Fatal(err)
			}
		}
		cancel()
		got.want(t, "14")
		if !errors.Is(got.end, context.Canceled) {
			t.Fatal(got.end)
		}
	})
}

// All subscriptions come back in the one Connect frame, each from where it is;
// what waits in a queue is not asked for again.
func TestRestoreInConnect(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		s1, n1 := subscribe(t, c, p, SubscribeOptions{From: "earliest"})
		s2, n2 := subscribe(t, c, p, SubscribeOptions{})
		s3, _ := subscribe(t, c, p, SubscribeOptions{})
		p.send(deliver(n1, 10, 15, 12), deliver(n2, 10, 20, 19))
		s3.Close()
		expect[*tidewirev1.Unsubscribe](p)
		got1 := collect(t.Context(), s1)
		got1.want(t, "12")
		p.cut()
		q := b.accept()
		connect := expect[*tidewirev1.Connect](q)
		var from []string
		for _, f := range connect.Subscriptions {
			from = append(from, f.From)
		}
		if want := []string{at(15), at(20)}; fmt.Sprint(from) != fmt.Sprint(want) {
			t.Fatalf("%v, want %v", from, want)
		}
		r1, r2 := connect.Subscriptions[0].Sub, connect.Subscriptions[1].Sub
		if r1 == n1 || r2 == n2 || r1 == r2 {
			t.Fatal("a number was used twice")
		}
		q.send(welcomeFrame(), subscribed(r1, 15, true), subscribed(r2, 20, true),
			deliver(r1, 15, 17, 16), deliver(r2, 20, 22, 21), &tidewirev1.CaughtUp{Sub: r1})
		got1.want(t, "12", "16")
		collect(t.Context(), s2).want(t, "19", "21")
	})
}

// Two reconnects with no traffic between lose nothing (Socket.IO #5419), and a
// subscription that was never confirmed is asked for as at first.
func TestTwoReconnects(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		s, n := subscribe(t, c, p, SubscribeOptions{})
		got := collect(t.Context(), s)
		p.send(deliver(n, 10, 12, 12))
		begun := make(chan error, 1)
		go func() {
			_, err := c.Subscribe(t.Context(), "late", SubscribeOptions{From: "last:3"})
			begun <- err
		}()
		expect[*tidewirev1.Subscribe](p)
		for range 2 {
			p.cut()
			p = b.accept()
			f := expect[*tidewirev1.Connect](p).Subscriptions
			if f[0].From != at(12) || f[1].From != "last:3" {
				t.Fatal(f)
			}
			p.send(welcomeFrame(), subscribed(f[0].Sub, 12, true))
			n = f[0].Sub
			if f[1].Sub == 0 {
				t.Fatal(f)
			}
		}
		p.send(subscribed(n+1, 3, false), deliver(n, 12, 14, 14))
		if err := <-begun; err != nil {
			t.Fatal(err)
		}
		got.want(t, "12", "14")
	})
}

func TestHole(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		s, n := subscribe(t, c, p, SubscribeOptions{})
		got := collect(t.Context(), s)
		p.send(deliver(n, 10, 12, 12), deliver(n, 14, 16, 16))
		if f := expect[*tidewirev1.Unsubscribe](p); f.Sub != n {
			t.Fatal(f)
		}
		f := expect[*tidewirev1.Subscribe](p)
		if f.From != at(12) || f.Sub == n {
			t.Fatal(f)
		}
		p.send(deliver(n, 16, 18, 18), &tidewirev1.Unsubscribed{Sub: n}, subscribed(f.Sub, 12, true))
		// A broker that goes on so is not asked in a tight circle.
		p.send(deliver(f.Sub, 13, 14, 14))
		expect[*tidewirev1.Unsubscribe](p)
		start := time.Now()
		f = expect[*tidewirev1.Subscribe](p)
		if d := time.Since(start); d < minDelay || d > time.Second || f.From != at(12) {
			t.Fatal(d, f)
		}
		p.send(subscribed(f.Sub, 12, true), deliver(f.Sub, 12, 18, 14, 16, 18))
		got.want(t, "12", "14", "16", "18")
	})
}

func TestGap(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		s, n := subscribe(t, c, p, SubscribeOptions{})
		got := collect(t.Context(), s)
		// In mid-stream; a rollback goes back, so the cursor does too.
		p.send(deliver(n, 10, 30, 30), &tidewirev1.Gap{Sub: n, Reason: "rolled_back", Term: "x", After: 20, Through: 30, Position: at(20), Offset: 20},
			deliver(n, 20, 25, 25))
		got.want(t, "30", "gap rolled_back", "25")
		if s.Position() != at(25) {
			t.Fatal(s.Position())
		}
	})
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		var gap *GapError
		s, n := subscribe(t, c, p, SubscribeOptions{OnGap: func(g *GapError) { gap = g }})
		got := collect(t.Context(), s)
		p.send(&tidewirev1.Gap{Sub: n, Reason: "retention", After: 10, Through: 41, Position: at(41), Offset: 41}, deliver(n, 41, 42, 42))
		got.want(t, "42")
		if gap == nil || gap.After != 10 || gap.Through != 41 || gap.Position != at(41) || gap.Filter != "a.>" || !strings.Contains(gap.Error(), "11 to 41") {
			t.Fatal(gap)
		}
	})
}

// A connection that is lost between Subscribed and its Gap must not lose the gap:
// until it came, the client asks from the old position.
func TestGapSurvivesLostConnection(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		begun := make(chan *Subscription, 1)
		go func() {
			s, err := c.Subscribe(t.Context(), "a", SubscribeOptions{From: at(5)})
			if err != nil {
				t.Error(err)
			}
			begun <- s
		}()
		f := expect[*tidewirev1.Subscribe](p)
		p.send(subscribed(f.Sub, 41, false))
		s := <-begun
		got := collect(t.Context(), s)
		synctest.Wait()
		p.cut()
		q, connect := b.welcome()
		f = connect.Subscriptions[0]
		if f.From != at(5) || s.Position() != at(5) {
			t.Fatal(f, s.Position())
		}
		q.send(subscribed(f.Sub, 41, false), &tidewirev1.Gap{Sub: f.Sub, Reason: "retention", After: 5, Through: 41, Position: at(41), Offset: 41})
		got.want(t, "gap retention")
		if s.Position() != at(41) {
			t.Fatal(s.Position())
		}
	})
}

func TestSubscribeRefused(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		for _, filter := range []string{"", "a.", "a.b>", "a..b"} {
			if _, err := c.Subscribe(t.Context(), filter, SubscribeOptions{}); !errors.Is(err, &Error{Code: CodeInvalidFilter}) {
				t.Error(filter, err)
			}
		}
		if _, err := c.Subscribe(t.Context(), "a", SubscribeOptions{From: "1234"}); !errors.Is(err, &Error{Code: protocol.CodeOffsetNotPosition}) {
			t.Error(err)
		}
		go func() {
			f := expect[*tidewirev1.Subscribe](p)
			p.send(protocol.ErrorFrame(0, f.Sub, protocol.Errorf(CodeForbidden, "not you")))
		}()
		if _, err := c.Subscribe(t.Context(), "a", SubscribeOptions{}); !errors.Is(err, &Error{Code: CodeForbidden}) {
			t.Error(err)
		}
		p.cut()
		_, connect := b.welcome()
		if len(connect.Subscriptions) != 0 {
			t.Fatal("a refused subscription was restored")
		}
	})
}

// A subscription that the broker refuses for now is asked for again from its
// place; what was received stays.
func TestSubscriptionRetries(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		var told []string
		s, n := subscribe(t, c, p, SubscribeOptions{OnRefused: func(err *Error) { told = append(told, err.Message) }})
		p.send(deliver(n, 10, 12, 12), protocol.ErrorFrame(0, n, protocol.Errorf(protocol.CodeInternal, "cannot read")))
		start := time.Now()
		f := expect[*tidewirev1.Subscribe](p)
		if d := time.Since(start); d < minDelay || d > time.Second || f.From != at(12) {
			t.Fatal(d, f)
		}
		p.send(subscribed(f.Sub, 12, true), deliver(f.Sub, 12, 13, 13), protocol.ErrorFrame(0, f.Sub, protocol.Errorf(CodeForbidden, "token changed")))
		got := collect(t.Context(), s)
		got.want(t, "12", "13")
		if !errors.Is(got.end, &Error{Code: CodeForbidden}) {
			t.Fatal(got.end)
		}
		if !slices.Equal(told, []string{"cannot read"}) {
			t.Fatalf("told of %q", told)
		}
	})
}

func TestCaughtUpOnceInItsPlace(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		var seen []string
		s, n := subscribe(t, c, p, SubscribeOptions{OnCaughtUp: func() { seen = append(seen, "caught up") }})
		p.send(deliver(n, 10, 12, 12), &tidewirev1.CaughtUp{Sub: n}, deliver(n, 12, 13, 13))
		synctest.Wait()
		p.cut()
		q, connect := b.welcome()
		n = connect.Subscriptions[0].Sub
		q.send(subscribed(n, 13, true), &tidewirev1.CaughtUp{Sub: n}, deliver(n, 13, 14, 14))
		for m, err := range s.Messages(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if seen = append(seen, fmt.Sprint(m.Position.Offset)); m.Position.Offset == 14 {
				break
			}
		}
		if fmt.Sprint(seen) != "[12 caught up 13 14]" {
			t.Fatal(seen)
		}
	})
}

// A slow loop is taken back and begun again. Meanwhile pings are answered, others
// are served, memory is bounded, and in the end nothing is lost or doubled.
func TestSlowLoop(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		slow, n := subscribe(t, c, p, SubscribeOptions{QueueBytes: 64 << 10})
		quick, m := subscribe(t, c, p, SubscribeOptions{})
		got := collect(t.Context(), quick)
		offset := uint64(10)
		next := func() *protocol.Deliver {
			offset++
			return deliverSized(n, [2]uint64{offset - 1, offset}, 4000, offset)
		}
		for range 100 { // far more than its queue holds, the broker is slow to stop
			p.send(next())
		}
		if f := expect[*tidewirev1.Unsubscribe](p); f.Sub != n {
			t.Fatal(f)
		}
		p.quiet(time.Second)
		slow.mu.Lock()
		if slow.queue.bytes > 80<<10 {
			t.Errorf("%d bytes are queued", slow.queue.bytes)
		}
		slow.mu.Unlock()
		for i := range uint64(10) { // minutes in which nobody reads the slow one
			time.Sleep(25 * time.Second)
			p.send(&tidewirev1.Ping{Seq: 7}, deliver(m, 10+i, 11+i, 11+i))
			expect[*tidewirev1.Pong](p)
		}
		got.want(t, "11", "12", "13", "14", "15", "16", "17", "18", "19", "20")
		p.send(&tidewirev1.Unsubscribed{Sub: n})
		p.quiet(time.Second)

		stop := make(chan struct{})
		defer close(stop)
		begun := 0
		go p.playLog(stop, 4000, func() { begun++ })
		last := uint64(10)
		for m, err := range slow.Messages(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if m.Position.Offset != last+1 {
				t.Fatalf("%d after %d", m.Position.Offset, last)
			}
			if last++; last == 500 {
				break
			}
			time.Sleep(time.Second)
		}
		if begun < 10 {
			t.Fatalf("begun %d times: the queue was not bounded", begun)
		}
	})
}

// playLog serves one subscription at a time from an endless log, until stop is
// closed. It is slow to notice that it shall stop.
func (p *peer) playLog(stop chan struct{}, padding int, begun func()) {
	var sub uint32
	var offset uint64
	for {
		if sub != 0 {
			for range 3 {
				p.send(deliverSized(sub, [2]uint64{offset, offset + 1}, padding, offset+1))
				offset++
			}
		}
		var f any
		select {
		case f = <-p.frames:
		case <-stop:
			return
		case <-time.After(100 * time.Millisecond):
		}
		switch f := f.(type) {
		case *tidewirev1.Subscribe:
			from, _ := protocol.ParsePosition(f.From)
			sub, offset = f.Sub, from.Offset
			p.send(subscribed(sub, offset, true))
			begun()
		case *tidewirev1.Unsubscribe:
			sub = 0
			p.send(&tidewirev1.Unsubscribed{Sub: f.Sub})
		}
	}
}

// A connection that is lost while a subscription is taken back does not bring it
// back before the loop has caught up.
func TestSlowLoopOverReconnect(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		s, n := subscribe(t, c, p, SubscribeOptions{QueueBytes: 64 << 10})
		var want []string
		for i := uint64(10); i < 20; i++ {
			p.send(deliverSized(n, [2]uint64{i, i + 1}, 4000, i+1))
			want = append(want, fmt.Sprint(i+1))
		}
		expect[*tidewirev1.Unsubscribe](p)
		p.cut()
		q, connect := b.welcome()
		if len(connect.Subscriptions) != 0 {
			t.Fatal("restored although its queue is full")
		}
		got := collect(t.Context(), s)
		f := expect[*tidewirev1.Subscribe](q)
		if f.From != at(20) {
			t.Fatal(f)
		}
		q.send(subscribed(f.Sub, 20, true), deliver(f.Sub, 20, 21, 21))
		got.want(t, append(want, "21")...)
	})
}

func TestSubscriptionClose(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		s, n := subscribe(t, c, p, SubscribeOptions{})
		p.send(deliver(n, 10, 15, 11, 12, 13))
		var got []uint64
		for m, err := range s.Messages(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, m.Position.Offset)
			if len(got) == 2 {
				s.Close()
				s.Close()
			}
		}
		if fmt.Sprint(got) != "[11 12]" || !errors.Is(s.Err(), ErrClosed) || s.Position() != at(12) {
			t.Fatal(got, s.Err(), s.Position())
		}
		expect[*tidewirev1.Unsubscribe](p)
	})
}

// What a session reports after it was given up changes nothing.
func TestLateFramesAreIgnored(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		s, n := subscribe(t, c, p, SubscribeOptions{})
		all := publishAll(t, c, "a")
		f := expect2publish(p)
		c.mu.Lock()
		old := c.session
		c.mu.Unlock()
		p.cut()
		q, _ := b.welcome()
		again := expect2publish(q)
		old.handle(deliver(n, 10, 12, 12), 0)
		old.handle(accepted(f, 99), 0)
		old.handle(&tidewirev1.GoAway{}, 0)
		old.handle(&tidewirev1.Unsubscribed{Sub: n}, 0)
		old.handle(welcomeFrame(), 0)
		old.handle(protocol.ErrorFrame(0, n, protocol.Errorf(CodeForbidden, "late")), 0)
		collect(t.Context(), s).want(t)
		q.send(accepted(again, 1))
		<-all[0].Done()
		if got := outcome(all[0]); got != "1 <nil>" {
			t.Fatal(got)
		}
	})
}
