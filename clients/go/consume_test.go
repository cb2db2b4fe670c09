package tidewire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// consumed makes a frame with deliveries of a consumer: offset and attempt.
func consumed(sub uint32, messages ...[2]uint64) *protocol.Deliver {
	d := &protocol.Deliver{Sub: sub}
	d.Term, d.Generation = testTerm, 5
	for _, m := range messages {
		one := deliver(sub, 0, 0, m[0])
		d.Records = append(d.Records, one.Records...)
		d.Attempts = append(d.Attempts, uint32(m[1]))
		d.Count++
	}
	return d
}

// said is a settlement as text.
func said(s *protocol.Settle) string {
	text := fmt.Sprint(s.Kind, " g", s.Generation)
	for _, r := range s.Ranges {
		text += fmt.Sprintf(" %d-%d", r.From, r.Through)
	}
	if s.Delay != nil {
		text += fmt.Sprint(" ", *s.Delay)
	}
	if s.Reason != "" {
		text += " " + s.Reason
	}
	if s.Confirm {
		text += " confirm"
	}
	return text
}

// wantSaid reads settlements, which must be these, and returns the last one.
func (p *peer) wantSaid(want ...string) (last *protocol.Settle) {
	p.t.Helper()
	for _, w := range want {
		last = expect[*protocol.Settle](p)
		if got := said(last); got != w {
			p.t.Fatalf("got %q, want %q", got, w)
		}
	}
	return last
}

// yes confirms settlements.
func (p *peer) yes(f *protocol.Settle) {
	p.t.Helper()
	p.send(&tidewirev1.Acked{Ref: f.Ref, Sub: f.Sub, Term: testTerm.String(), Settled: 1})
}

// no refuses one message of a settlement.
func (p *peer) no(f *protocol.Settle, offset uint64, code Code) {
	p.t.Helper()
	p.send(&tidewirev1.Acked{Ref: f.Ref, Sub: f.Sub, Term: testTerm.String(), Refused: []*tidewirev1.RefusedRange{{From: offset, Through: offset, Code: string(code)}}})
}

// join answers the Subscribe of a member.
func (p *peer) join(generation uint64) *tidewirev1.Subscribe {
	p.t.Helper()
	return p.joinWith(generation, defaultAckWait)
}

func (p *peer) joinWith(generation uint64, ackWait time.Duration) *tidewirev1.Subscribe {
	p.t.Helper()
	f := expect[*tidewirev1.Subscribe](p)
	p.send(&tidewirev1.Subscribed{Sub: f.Sub, Generation: generation, Created: true, AckWaitMs: uint64(ackWait.Milliseconds())})
	return f
}

// running is a Consume in the background.
type running struct {
	err  error
	done chan struct{}
	stop context.CancelFunc
}

func consume(t *testing.T, c *Client, handle func(context.Context, *Delivery) error, o ConsumeOptions) *running {
	ctx, stop := context.WithCancel(t.Context())
	r := &running{done: make(chan struct{}), stop: stop}
	go func() {
		r.err = c.Consume(ctx, "billing", handle, o)
		close(r.done)
	}()
	return r
}

// member makes a consumer that is read by hand.
func member(t *testing.T, c *Client, p *peer, o ConsumeOptions) (*Consumer, uint32) {
	t.Helper()
	type result struct {
		k   *Consumer
		err error
	}
	done := make(chan result, 1)
	go func() {
		k, err := c.Consumer(t.Context(), "billing", o)
		done <- result{k, err}
	}()
	f := p.join(5)
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.k, f.Sub
}

func next(t *testing.T, k *Consumer) *Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d, err := k.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestConsumeAsksForWhatIsSet(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		r := consume(t, c, func(context.Context, *Delivery) error { return nil }, ConsumeOptions{
			Filter: "a.>", Stream: "main", From: "-1h", Concurrency: 3,
			Settings: ConsumerSettings{AckWait: time.Minute, Backoff: 2 * time.Second, BackoffFactor: 3, BackoffCap: 20 * time.Second, BackoffExact: true, MaxDeliver: 4, MaxInFlight: 5, MaxInFlightBytes: 6, MaxWaiting: 7, Exclusive: true, Unordered: true},
		})
		f := p.join(5)
		if f.Consumer != "billing" || f.Filter != "a.>" || f.Stream != "main" || f.From != "-1h" || f.Window != 3 || f.Credit != nil || f.Slow != "" {
			t.Errorf("%v", f)
		}
		want := &tidewirev1.ConsumerSettings{
			AckWaitMs: new(uint64(60_000)), BackoffBaseMs: new(uint64(2000)), BackoffFactor: new(3.0), BackoffCapMs: new(uint64(20_000)), BackoffJitter: new(false),
			MaxDeliver: new(uint32(4)), MaxInFlight: new(uint32(5)), MaxInFlightBytes: new(uint64(6)), MaxWaiting: new(uint32(7)), Exclusive: new(true), Ordered: new(false),
		}
		if f.Settings.String() != want.String() {
			t.Errorf("got %v, want %v", f.Settings, want)
		}
		synctest.Wait()
		r.stop()
		<-r.done
		if r.err != nil {
			t.Error(r.err)
		}
		expect[*tidewirev1.Unsubscribe](p)

		k, _ := member(t, c, p, ConsumeOptions{})
		if k.Generation() != 5 || !k.Created() {
			t.Error(k.Generation(), k.Created())
		}
	})
}

func TestConsumeRefusesWhatCannotBeMeant(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, _ := open(t, b, Options{})
		for _, o := range []ConsumeOptions{
			{Filter: "a..b"},
			{From: "never"},
			{Window: -1},
			{Concurrency: -1},
			{Settings: ConsumerSettings{AckWait: time.Microsecond}},
			{Settings: ConsumerSettings{MaxDeliver: -1}},
			{Settings: ConsumerSettings{MaxInFlightBytes: -1}},
		} {
			if _, err := c.Consumer(t.Context(), "k", o); err == nil {
				t.Errorf("%+v is taken", o)
			}
		}
		if err := c.Consume(t.Context(), "", nil, ConsumeOptions{}); err == nil {
			t.Error("no name is taken")
		}
	})
}

// What a handler returns settles its message.
func TestHandlerOutcomes(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		var logged bytes.Buffer
		r := consume(t, c, func(_ context.Context, d *Delivery) error {
			switch d.Position.Offset {
			case 11:
				return errors.New("failed")
			case 12:
				return fmt.Errorf("wrapped: %w", Reject("no such\ncustomer "+strings.Repeat("é", 600)))
			case 13:
				return fmt.Errorf("wrapped: %w", RetryAfter(90*time.Second))
			case 14:
				panic("ouch")
			case 15:
				_ = d.Reject("by hand")
				return nil
			}
			if d.Attempt != 3 || d.Generation != 5 || string(d.Payload) != "10 " {
				t.Errorf("%+v", d.Message)
			}
			return nil
		}, ConsumeOptions{Filter: "a.>", Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		f := p.join(5)
		for i, want := range []string{
			"ack g5 10-10 confirm", "nack g5 11-11 confirm", "reject g5 12-12 no such customer " + strings.Repeat("é", (1024-17)/2) + " confirm",
			"nack g5 13-13 1m30s confirm", "nack g5 14-14 confirm", "reject g5 15-15 by hand confirm",
		} {
			p.send(consumed(f.Sub, [2]uint64{10 + uint64(i), 3}))
			p.yes(p.wantSaid(want))
		}
		r.stop()
		<-r.done
		if text := logged.String(); r.err != nil || !strings.Contains(text, "panic=ouch") || !strings.Contains(text, "consumer=billing") || !strings.Contains(text, "TestHandlerOutcomes") || strings.Count(text, "\n") != 1 {
			t.Errorf("%v, %s", r.err, text)
		}
	})
}

func TestConcurrency(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		var now, most atomic.Int32
		release := make(chan struct{})
		r := consume(t, c, func(context.Context, *Delivery) error {
			most.Store(max(most.Load(), now.Add(1)))
			<-release
			now.Add(-1)
			return nil
		}, ConsumeOptions{Filter: "a.>", Concurrency: 3, Window: 5, NoExtend: true})
		f := p.join(5)
		if f.Window != 5 {
			t.Error(f.Window)
		}
		p.send(consumed(f.Sub, [2]uint64{1, 1}, [2]uint64{2, 1}, [2]uint64{3, 1}, [2]uint64{4, 1}, [2]uint64{5, 1}))
		synctest.Wait()
		if now.Load() != 3 {
			t.Errorf("%d handlers run", now.Load())
		}
		close(release)
		synctest.Wait()
		if now.Load() != 0 || most.Load() != 3 {
			t.Errorf("%d run, at most %d ran", now.Load(), most.Load())
		}
		settled := 0
		for settled < 5 {
			f := expect[*protocol.Settle](p)
			for _, r := range f.Ranges {
				settled += int(r.Through - r.From + 1)
			}
			if f.Confirm {
				p.yes(f)
			}
		}
		r.stop()
		p.answerAll()
		<-r.done
		if r.err != nil {
			t.Error(r.err)
		}
	})
}

// answerAll confirms whatever comes, in the background, until the client leaves.
func (p *peer) answerAll() {
	go func() {
		for {
			select {
			case f := <-p.frames:
				if s, ok := f.(*protocol.Settle); ok && s.Confirm {
					p.yes(s)
				}
			case <-p.gone:
				return
			}
		}
	}()
}

// A message is extended at a third of the ack wait, while it waits for its handler
// and while that runs, and not afterwards.
func TestExtension(t *testing.T) {
	for _, test := range []struct {
		name string
		o    ConsumeOptions
		told time.Duration // by the broker
		want []string      // when and what, within half a minute
	}{
		{"told", ConsumeOptions{}, 36 * time.Second, []string{"12s extend g5 1-2 36s confirm", "24s extend g5 1-2 36s confirm"}},
		{"not told", ConsumeOptions{}, 0, []string{"10s extend g5 1-2 30s confirm", "20s extend g5 1-2 30s confirm"}},
		{"off", ConsumeOptions{NoExtend: true}, 3 * time.Second, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, b *fakeBroker) {
				c, p := open(t, b, Options{})
				o := test.o
				o.Filter, o.Window, o.Grace = "a.>", 2, time.Second
				r := consume(t, c, func(ctx context.Context, _ *Delivery) error {
					select {
					case <-time.After(29 * time.Second):
					case <-ctx.Done():
					}
					return nil
				}, o)
				f := p.joinWith(5, test.told)
				begin := time.Now()
				p.send(consumed(f.Sub, [2]uint64{1, 1}, [2]uint64{2, 1}))
				for _, want := range test.want {
					f := expect[*protocol.Settle](p)
					if got := fmt.Sprint(time.Since(begin), " ", said(f)); got != want {
						t.Errorf("got %q, want %q", got, want)
					}
				}
				p.wantSaid("ack g5 1-1 confirm")
				r.stop()
				p.answerAll()
				<-r.done
			})
		})
	}
}

// By hand: what Next has given is the program's to extend.
func TestByHand(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		k, sub := member(t, c, p, ConsumeOptions{Filter: "a.>", Settings: ConsumerSettings{AckWait: 30 * time.Second}})
		p.send(consumed(sub, [2]uint64{1, 1}, [2]uint64{2, 1}, [2]uint64{3, 1}))
		d := next(t, k)
		p.yes(p.wantSaid("extend g5 2-3 30s confirm")) // after 10 s
		if err := d.Extend(0); err != nil {
			t.Fatal(err)
		}
		p.wantSaid("extend g5 1-1")
		if err := d.Extend(2 * time.Minute); err != nil {
			t.Fatal(err)
		}
		p.wantSaid("extend g5 1-1 2m0s")
		if err := errors.Join(d.Ack(), next(t, k).RetryAfter(0), next(t, k).Nack()); err != nil {
			t.Fatal(err)
		}
		p.wantSaid("ack g5 1-1", "nack g5 2-2 0s confirm", "nack g5 3-3 confirm")
		if err := d.Nack(); !errors.Is(err, ErrSettled) {
			t.Errorf("settled twice: %v", err)
		}
		if err := d.Extend(0); !errors.Is(err, ErrSettled) {
			t.Errorf("extended when settled: %v", err)
		}
		p.quiet(time.Minute)
	})
}

func TestAckSync(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		k, sub := member(t, c, p, ConsumeOptions{Filter: "a.>", NoExtend: true, OnUnsettled: func(d *Delivery, err *Error) { t.Error(d.Position, err) }})
		for i, code := range []Code{"", CodeFenced, CodeNotPending, CodeNeverDelivered} {
			p.send(consumed(sub, [2]uint64{10 + uint64(i), 1}))
			d := next(t, k)
			done := make(chan error, 1)
			go func() { done <- d.AckSync(t.Context()) }()
			f := p.wantSaid(fmt.Sprintf("ack g5 %d-%d confirm", 10+i, 10+i))
			synctest.Wait()
			select {
			case err := <-done:
				t.Fatalf("it returns %v before the broker has answered", err)
			default:
			}
			if code == "" {
				p.yes(f)
				if err := <-done; err != nil {
					t.Error(err)
				}
				continue
			}
			p.no(f, 10+uint64(i), code)
			if err := <-done; !errors.Is(err, &Error{Code: code}) || k.Err() != nil {
				t.Errorf("%s: %v, %v", code, err, k.Err())
			}
		}
		p.send(consumed(sub, [2]uint64{20, 1}))
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := next(t, k).AckSync(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// A refusal that nobody waits for is told, and ends nothing.
func TestRefusedSettlementsAreTold(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		var told []string
		k, sub := member(t, c, p, ConsumeOptions{Filter: "a.>", Settings: ConsumerSettings{AckWait: 30 * time.Second}, OnUnsettled: func(d *Delivery, err *Error) {
			told = append(told, fmt.Sprint(d.Position.Offset, " ", err.Code))
		}})
		p.send(consumed(sub, [2]uint64{1, 1}, [2]uint64{2, 1}, [2]uint64{3, 1}, [2]uint64{4, 1}))
		_ = next(t, k).Ack()
		p.no(p.wantSaid("ack g5 1-1 confirm"), 1, CodeFenced)
		// A message that waits here and is not ours any more is not handed out.
		p.no(p.wantSaid("extend g5 2-4 30s confirm"), 2, CodeFenced)
		synctest.Wait()
		if fmt.Sprint(told) != "[1 fenced 2 fenced]" || k.Err() != nil {
			t.Errorf("%v, %v", told, k.Err())
		}
		if d := next(t, k); d.Position.Offset != 3 {
			t.Errorf("got %d", d.Position.Offset)
		}
	})
}

// The ctx of a handler ends when its message is lost.
func TestHandlerIsToldOfItsLoss(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		cause := make(chan error, 1)
		consume(t, c, func(ctx context.Context, _ *Delivery) error {
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return ctx.Err()
		}, ConsumeOptions{Filter: "a.>", OnUnsettled: func(*Delivery, *Error) {}})
		f := p.join(5)
		p.send(consumed(f.Sub, [2]uint64{1, 1}))
		p.no(p.wantSaid("extend g5 1-1 30s confirm"), 1, CodeFenced)
		if err := <-cause; !errors.Is(err, &Error{Code: CodeFenced}) {
			t.Error(err)
		}
	})
}

// After a lost connection the client joins again with the same name; what the
// broker may not have is said again, with the generation of the delivery.
func TestReconnectSaysItAgain(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		k, sub := member(t, c, p, ConsumeOptions{Filter: "a.>", NoExtend: true, OnUnsettled: func(d *Delivery, err *Error) { t.Error(d.Position, err) }})
		p.send(consumed(sub, [2]uint64{1, 1}, [2]uint64{2, 1}, [2]uint64{3, 1}, [2]uint64{4, 1}, [2]uint64{5, 1}, [2]uint64{6, 1}))
		_ = next(t, k).Ack()
		p.yes(p.wantSaid("ack g5 1-1 confirm")) // this one is answered
		_ = next(t, k).Ack()
		p.wantSaid("ack g5 2-2")
		_ = next(t, k).Nack()
		p.wantSaid("nack g5 3-3 confirm") // this one is not said again
		synctest.Wait()
		p.cut()
		synctest.Wait()
		_ = next(t, k).Nack() // while there is no connection
		sync := next(t, k)
		done := make(chan error, 1)
		go func() { done <- sync.AckSync(t.Context()) }()

		p, connect := b.welcome()
		if len(connect.Subscriptions) != 1 || connect.Subscriptions[0].Consumer != "billing" || connect.Subscriptions[0].Sub == sub {
			t.Fatalf("%v", connect)
		}
		p.quiet(time.Second) // until it has joined
		sub = connect.Subscriptions[0].Sub
		p.send(&tidewirev1.Subscribed{Sub: sub, Generation: 6})
		f := p.wantSaid("ack g5 2-2 5-5 confirm")
		if f.Sub != sub {
			t.Errorf("to %d, not %d", f.Sub, sub)
		}
		// The first was taken before the cut: that is as good as now.
		p.no(f, 2, CodeNotPending)
		if err := <-done; err != nil {
			t.Error(err)
		}
		p.yes(p.wantSaid("nack g5 4-4 confirm"))
		// What was received before and not handled yet goes on.
		d := next(t, k)
		if d.Position.Offset != 6 || d.Generation != 5 || k.Generation() != 6 || d.Ack() != nil {
			t.Errorf("%d g%d g%d", d.Position.Offset, d.Generation, k.Generation())
		}
		p.wantSaid("ack g5 6-6")
	})
}

func TestTakenOver(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		var cause error
		r := consume(t, c, func(ctx context.Context, _ *Delivery) error {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return nil
		}, ConsumeOptions{Filter: "a.>", Settings: ConsumerSettings{Exclusive: true}})
		f := p.join(5)
		p.send(consumed(f.Sub, [2]uint64{1, 1}))
		synctest.Wait()
		p.send(&tidewirev1.Error{Sub: f.Sub, Code: "taken_over", Message: "another one has taken over"})
		<-r.done
		if !errors.Is(r.err, &Error{Code: CodeTakenOver}) || !errors.Is(cause, &Error{Code: CodeTakenOver}) {
			t.Errorf("%v, %v", r.err, cause)
		}
		p.cut()
		if _, connect := b.welcome(); len(connect.Subscriptions) != 0 {
			t.Errorf("it takes over again: %v", connect)
		}
	})
}

// When ctx ends, running handlers finish, their acks are confirmed, and what nobody
// has begun goes back with the goodbye.
func TestConsumeDrains(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		begun := 0
		r := consume(t, c, func(ctx context.Context, _ *Delivery) error {
			begun++
			time.Sleep(20 * time.Second)
			return ctx.Err()
		}, ConsumeOptions{Filter: "a.>", NoExtend: true})
		f := p.join(5)
		p.send(consumed(f.Sub, [2]uint64{1, 1}))
		synctest.Wait()
		r.stop()
		synctest.Wait()
		p.send(consumed(f.Sub, [2]uint64{2, 1}, [2]uint64{3, 1}))
		s := p.wantSaid("ack g5 1-1 confirm")
		p.quiet(time.Second)
		select {
		case <-r.done:
			t.Fatal("it has returned before the broker has answered")
		default:
		}
		p.yes(s)
		if u := expect[*tidewirev1.Unsubscribe](p); u.Sub != f.Sub {
			t.Error(u)
		}
		<-r.done
		if r.err != nil || begun != 1 {
			t.Errorf("%v, %d handlers", r.err, begun)
		}
	})
}

func TestGrace(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		r := consume(t, c, func(ctx context.Context, _ *Delivery) error {
			<-ctx.Done()
			return ctx.Err()
		}, ConsumeOptions{Filter: "a.>", NoExtend: true, Grace: 7 * time.Second})
		f := p.join(5)
		p.send(consumed(f.Sub, [2]uint64{1, 1}))
		synctest.Wait()
		begin := time.Now()
		r.stop()
		s := p.wantSaid("nack g5 1-1 confirm")
		if d := time.Since(begin); d != 7*time.Second {
			t.Errorf("after %v", d)
		}
		p.yes(s)
		<-r.done
		if r.err != nil {
			t.Error(r.err)
		}
	})
}

// Closing the client lets handlers finish, and waits for the broker's word on acks
// that nobody has asked an answer for.
func TestCloseFlushesAcks(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		k, sub := member(t, c, p, ConsumeOptions{Filter: "a.>"})
		p.send(consumed(sub, [2]uint64{1, 1}, [2]uint64{2, 1}))
		_ = next(t, k).Ack()
		p.yes(p.wantSaid("ack g5 1-1 confirm"))
		_ = next(t, k).Ack()
		p.wantSaid("ack g5 2-2")
		done := make(chan error, 1)
		go func() { done <- c.Close(t.Context()) }()
		s := p.wantSaid("ack g5 2-2 confirm")
		p.quiet(time.Second)
		p.no(s, 2, CodeNotPending) // of course: it was taken the first time
		expect[*tidewirev1.Unsubscribe](p)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := k.Next(t.Context()); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		for _, err := range k.Deliveries(t.Context()) {
			t.Error("something after Close: ", err)
		}
	})
}

func TestCloseGivesUpWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		k, sub := member(t, c, p, ConsumeOptions{Filter: "a.>"})
		p.send(consumed(sub, [2]uint64{1, 1}, [2]uint64{2, 1}))
		_ = next(t, k).Ack()
		p.wantSaid("ack g5 1-1 confirm")
		d := next(t, k)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := k.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err := d.Ack(); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// A consumer that cannot be served for now is joined again after a pause, and a
// settlement that cannot be taken for now is said again.
func TestRetryableRefusals(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		var told atomic.Int32
		k, sub := member(t, c, p, ConsumeOptions{Filter: "a.>", NoExtend: true, OnRefused: func(*Error) { told.Add(1) }, OnUnsettled: func(d *Delivery, err *Error) { t.Error(d.Position, err) }})
		p.send(consumed(sub, [2]uint64{1, 1}, [2]uint64{2, 1}, [2]uint64{3, 1}))
		_ = next(t, k).Ack()
		f := p.wantSaid("ack g5 1-1 confirm")
		begin := time.Now()
		p.send(&tidewirev1.Acked{Ref: f.Ref, Sub: f.Sub, Error: &tidewirev1.Error{Code: "overloaded", Message: "later", RetryAfterMs: 3000, Retryable: true}})
		synctest.Wait()
		_ = next(t, k).Ack()
		f = p.wantSaid("ack g5 1-2 confirm")
		if d := time.Since(begin); d < 3*time.Second {
			t.Errorf("after %v", d)
		}
		p.send(&tidewirev1.Error{Ref: f.Ref, Sub: f.Sub, Request: "ack", Code: "overloaded", Message: "later", Retryable: true})
		p.yes(p.wantSaid("ack g5 1-2 confirm"))

		p.send(&tidewirev1.Error{Sub: sub, Code: "overloaded", Message: "later", Retryable: true})
		synctest.Wait()
		_ = next(t, k).Ack()
		if again := p.join(6); again.Sub == sub || again.Consumer != "billing" || told.Load() != 1 {
			t.Errorf("%v, told %d times", again, told.Load())
		}
		p.wantSaid("ack g5 3-3 confirm")
	})
}

func TestConsumerRefused(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		r := consume(t, c, nil, ConsumeOptions{})
		f := expect[*tidewirev1.Subscribe](p)
		p.send(&tidewirev1.Error{Sub: f.Sub, Code: "unknown_consumer", Message: "there is none"})
		<-r.done
		if !errors.Is(r.err, &Error{Code: CodeUnknownConsumer}) {
			t.Error(r.err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Consumer(ctx, "k", ConsumeOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		expect[*tidewirev1.Subscribe](p)
		expect[*tidewirev1.Unsubscribe](p)
	})
}

// Many at a time go in few frames, and many goroutines may take.
func TestAcksAreBatched(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		k, sub := member(t, c, p, ConsumeOptions{Filter: "a.>", Window: 2000, NoExtend: true})
		const n = 1000
		for from := uint64(1); from <= n; from += 100 {
			var messages [][2]uint64
			for o := from; o < from+100; o++ {
				messages = append(messages, [2]uint64{o, 1})
			}
			p.send(consumed(sub, messages...))
		}
		synctest.Wait()
		k.mu.Lock() // the writer finds all of them at once
		for _, d := range k.queue {
			d.settleLocked(&settlement{kind: protocol.SettleAck})
		}
		k.queue = nil
		k.mu.Unlock()
		c.kick()
		p.wantSaid("ack g5 1-1000 confirm")

		p.send(consumed(sub, [2]uint64{2000, 1}, [2]uint64{2001, 1}))
		var work sync.WaitGroup
		for range 2 {
			work.Go(func() {
				if d, err := k.Next(t.Context()); err != nil || d.Ack() != nil {
					t.Error(err)
				}
			})
		}
		work.Wait()
	})
}

// What comes at about the same time is extended together, what comes later in its
// own time, and what is done not at all.
func TestExtensionsGoTogether(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		k, sub := member(t, c, p, ConsumeOptions{Filter: "a.>", OnUnsettled: func(*Delivery, *Error) {}})
		begin := time.Now()
		p.send(consumed(sub, [2]uint64{1, 1}))
		time.Sleep(100 * time.Millisecond)
		p.send(consumed(sub, [2]uint64{2, 1}))
		if f := p.wantSaid("extend g5 1-2 30s confirm"); time.Since(begin) != 10*time.Second {
			t.Errorf("%v after %v", f, time.Since(begin))
		}
		time.Sleep(4 * time.Second)
		p.send(consumed(sub, [2]uint64{9, 1}))
		for _, want := range []string{"20s extend g5 1-2 30s confirm", "24s extend g5 9-9 30s confirm", "30s extend g5 1-2 30s confirm"} {
			f := expect[*protocol.Settle](p)
			if got := fmt.Sprint(time.Since(begin).Round(time.Second), " ", said(f)); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		k.mu.Lock()
		for _, d := range k.queue[:2] {
			d.settleLocked(&settlement{kind: protocol.SettleAck})
		}
		k.mu.Unlock()
		c.kick()
		p.wantSaid("ack g5 1-2", "extend g5 9-9 30s confirm")
	})
}

// A consumer may have been given another ack wait when a client comes back to it.
func TestExtensionAfterChange(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		_, sub := member(t, c, p, ConsumeOptions{Filter: "a.>"})
		begin := time.Now()
		p.send(consumed(sub, [2]uint64{1, 1}))
		synctest.Wait()
		p.cut()
		p, connect := b.welcome()
		sub = connect.Subscriptions[0].Sub
		p.send(&tidewirev1.Subscribed{Sub: sub, Generation: 5, AckWaitMs: 6000})
		p.send(consumed(sub, [2]uint64{2, 1}))
		joined := time.Since(begin)
		for _, want := range []string{"2s extend g5 2-2 6s confirm", "4s extend g5 2-2 6s confirm"} {
			f := expect[*protocol.Settle](p)
			if got := fmt.Sprint(time.Since(begin)-joined, " ", said(f)); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
}

// Several that wait for a message are all served, and all told of the end.
func TestManyTakers(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		k, sub := member(t, c, p, ConsumeOptions{Filter: "a.>", NoExtend: true})
		var taken, ended atomic.Int32
		for range 5 {
			go func() {
				for _, err := range k.Deliveries(t.Context()) {
					if errors.Is(err, &Error{Code: protocol.CodeTakenOver}) {
						ended.Add(1)
						return
					}
					if err != nil {
						t.Error(err)
					}
					taken.Add(1)
					time.Sleep(time.Second)
				}
			}()
		}
		synctest.Wait()
		p.send(consumed(sub, [2]uint64{1, 1}, [2]uint64{2, 1}, [2]uint64{3, 1}, [2]uint64{4, 1}, [2]uint64{5, 1}))
		synctest.Wait()
		if taken.Load() != 5 {
			t.Errorf("%d have one", taken.Load())
		}
		time.Sleep(2 * time.Second)
		p.send(&tidewirev1.Error{Sub: sub, Code: "taken_over", Message: "another one has taken over"})
		synctest.Wait()
		if ended.Load() != 5 {
			t.Errorf("%d were told", ended.Load())
		}
	})
}

// A client that the broker ends for good ends its consumers.
func TestConsumersEndWithTheClient(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		r := consume(t, c, nil, ConsumeOptions{Filter: "a.>"})
		p.join(5)
		p.close(3500, "no")
		<-r.done
		if e, ok := errors.AsType[*CloseError](r.err); !ok || e.Code != 3500 {
			t.Error(r.err)
		}
	})
}

func TestConsumerIsToldOfGaps(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		told := make(chan *GapError, 1)
		var logged bytes.Buffer
		_, sub := member(t, c, p, ConsumeOptions{Filter: "a.>", OnGap: func(gap *GapError) { told <- gap }})
		gap := &tidewirev1.Gap{Sub: sub, Reason: "retention", Term: testTerm.String(), After: 3, Through: 9, Position: at(9)}
		p.send(gap)
		if got := <-told; got.Error() != "messages for \"a.>\" are missing: offsets 4 to 9 were deleted by age or size (retention)" || got.Position != at(9) {
			t.Errorf("%+v", got)
		}
		_, sub = member(t, c, p, ConsumeOptions{Filter: "a.>", Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		gap.Sub = sub
		p.send(gap)
		synctest.Wait()
		if text := logged.String(); !strings.Contains(text, "reason=retention after=3 through=9") {
			t.Error(text)
		}
	})
}

// What the broker delivers again although it is here, or was acked a moment ago, is
// not handled twice; what was nacked, and what is of another generation, is.
func TestHandledOnce(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		type call struct{ offset, attempt uint64 }
		var mu sync.Mutex
		var calls []call
		ended := make(chan error)
		r := consume(t, c, func(_ context.Context, d *Delivery) error {
			mu.Lock()
			calls = append(calls, call{d.Position.Offset, uint64(d.Attempt)})
			mu.Unlock()
			return <-ended
		}, ConsumeOptions{Filter: "a.>", NoExtend: true, OnUnsettled: func(*Delivery, *Error) {}})
		f := p.join(5)
		want := func(all ...call) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if fmt.Sprint(calls) != fmt.Sprint(all) {
				t.Fatalf("got %v, want %v", calls, all)
			}
			calls = nil
		}
		p.send(consumed(f.Sub, [2]uint64{1, 1}, [2]uint64{2, 1}))
		want(call{1, 1})
		p.send(consumed(f.Sub, [2]uint64{1, 2}, [2]uint64{2, 2})) // one runs, the other waits here
		want()
		ended <- nil
		want(call{2, 2})
		ack := p.wantSaid("ack g5 1-1 confirm")
		p.send(consumed(f.Sub, [2]uint64{1, 3})) // it has not seen the ack
		p.yes(ack)
		ended <- errors.New("failed")
		nack := p.wantSaid("nack g5 2-2 confirm")
		p.send(consumed(f.Sub, [2]uint64{2, 3})) // before the answer
		p.yes(nack)
		want(call{2, 3})
		other := consumed(f.Sub, [2]uint64{2, 1})
		other.Generation = 6
		p.send(other) // it was put back to an earlier place
		ended <- nil
		p.no(p.wantSaid("ack g5 2-2"), 2, CodeFenced)
		want(call{2, 1})
		ended <- nil
		p.yes(p.wantSaid("ack g6 2-2"))
		p.send(consumed(f.Sub, [2]uint64{1, 1})) // answered: this is a new one
		want(call{1, 1})
		ended <- nil
		p.answerAll()
		r.stop()
		<-r.done
	})
	bubble(t, func(t *testing.T, b *fakeBroker) { // by hand
		c, p := open(t, b, Options{})
		k, sub := member(t, c, p, ConsumeOptions{Filter: "a.>", NoExtend: true})
		p.send(consumed(sub, [2]uint64{1, 1}))
		next(t, k) // and forgotten
		p.send(consumed(sub, [2]uint64{1, 2}))
		d := next(t, k)
		_ = d.Ack()
		p.send(consumed(sub, [2]uint64{1, 3}, [2]uint64{2, 1}))
		if e := next(t, k); d.Attempt != 2 || e.Position.Offset != 2 {
			t.Errorf("%d, %d", d.Attempt, e.Position.Offset)
		}
		p.yes(p.wantSaid("ack g5 1-1 confirm"))
		synctest.Wait()
		k.mu.Lock()
		defer k.mu.Unlock()
		if len(k.live) != 0 {
			t.Errorf("%d are remembered", len(k.live))
		}
	})
}

// A broker that crashed may have forgotten that it delivered messages. It delivers
// them again; what was done here meanwhile is said again, and not done again.
func TestBrokerForgetsDeliveries(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		k, sub := member(t, c, p, ConsumeOptions{Filter: "a.>", NoExtend: true, OnUnsettled: func(d *Delivery, err *Error) { t.Error(d.Position, err) }})
		p.send(consumed(sub, [2]uint64{1, 1}, [2]uint64{2, 1}, [2]uint64{3, 1}, [2]uint64{4, 1}))
		for range 3 {
			_ = next(t, k).Ack()
		}
		synctest.Wait()
		p.cut()
		p, connect := b.welcome()
		sub = connect.Subscriptions[0].Sub
		p.send(&tidewirev1.Subscribed{Sub: sub, Generation: 5})
		f := p.wantSaid("ack g5 1-1 2-2 3-3 confirm") // one by one, or it would not tell
		p.send(consumed(sub, [2]uint64{1, 1}))        // one comes before the answer
		p.send(&tidewirev1.Acked{Ref: f.Ref, Sub: f.Sub, Settled: 1, Refused: []*tidewirev1.RefusedRange{
			{From: 1, Through: 1, Code: string(CodeNeverDelivered)}, {From: 2, Through: 2, Code: string(CodeNotPending)}, // it may say either
		}})
		p.wantSaid("ack g5 1-1")
		p.send(consumed(sub, [2]uint64{2, 1})) // the other one after it
		p.wantSaid("ack g5 2-2")
		p.send(consumed(sub, [2]uint64{4, 1})) // this one waits here
		synctest.Wait()
		if d := next(t, k); d.Position.Offset != 4 || len(k.queue) != 0 || k.owed != 0 {
			t.Errorf("got %d, %d wait, %d owed", d.Position.Offset, len(k.queue), k.owed)
		}
	})
}
