package tidewire

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

func expect2publish(p *peer) *protocol.Publish {
	p.t.Helper()
	return expect[*protocol.Publish](p)
}

func publishAll(t *testing.T, c *Client, names string) []*Pending {
	t.Helper()
	var all []*Pending
	for id := range strings.SplitSeq(names, "") {
		p, err := c.PublishAsync(t.Context(), Message{Topic: "a.b", ID: id, Payload: []byte(id)})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func outcome(p *Pending) string {
	select {
	case <-p.Done():
		return fmt.Sprint(p.receipt.Position.Offset, " ", p.err)
	default:
		return "pending"
	}
}

// What waits goes into one frame, and never more is unanswered than allowed.
func TestBatchesAndInFlight(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		all := publishAll(t, c, "abcdefghij")
		got, unanswered := "", 0
		var frames []*protocol.Publish
		for got != "abcdefghij" {
			synctest.Wait()
			for len(p.frames) > 0 {
				f := expect2publish(p)
				got, unanswered = got+ids(f), unanswered+len(f.Messages)
				frames = append(frames, f)
			}
			if unanswered > 4 {
				t.Fatalf("%d unanswered", unanswered)
			}
			for _, f := range frames {
				p.send(accepted(f, 1))
			}
			frames, unanswered = nil, 0
		}
		for _, f := range frames {
			p.send(accepted(f, 1))
		}
		for _, a := range all {
			<-a.Done()
		}
	})
}

// nanomq #897: what was published while the connection was away must not overtake
// what was unanswered when it was lost.
func TestOutboxOrderOverReconnect(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		all := publishAll(t, c, "abcd")
		f := expect2publish(p)
		for ids(f) != "abcd"[:len(f.Messages)] {
			t.Fatal(ids(f))
		}
		sent := len(f.Messages)
		for sent < 4 {
			sent += len(expect2publish(p).Messages)
		}
		start := time.Now()
		// "b" is answered, "a" is not: order is the row's, not that of answers.
		p.send(&protocol.Published{Results: []protocol.PublishResult{{Ref: f.Ref + 1, Position: protocol.Position{Term: 1, Offset: 2}}}})
		synctest.Wait()
		p.cut()
		synctest.Wait()
		all = append(all, publishAll(t, c, "ef")...)
		q, _ := b.welcome()
		all = append(all, publishAll(t, c, "g")...)
		repeat := expect2publish(q)
		if ids(repeat) != "acd" || repeat.Resume {
			t.Fatalf("first %q, resume %v", ids(repeat), repeat.Resume)
		}
		if age, since := repeat.RepeatAge, time.Since(start); age < minDelay || age > since+time.Millisecond {
			t.Fatalf("age %v, sent %v ago", age, since)
		}
		fresh := ""
		q.send(accepted(repeat, 10))
		for fresh != "efg" {
			f := expect2publish(q)
			if f.RepeatAge != 0 {
				t.Fatal("a first attempt carries an age")
			}
			fresh += ids(f)
			q.send(accepted(f, 20))
		}
		for i, a := range all {
			<-a.Done()
			if a.err != nil {
				t.Fatal(i, a.err)
			}
		}
		if got := outcome(all[1]); got != "2 <nil>" {
			t.Fatal(got)
		}
	})
}

func refusedFrom(f *protocol.Publish, from int, code Code) *protocol.Published {
	p := &protocol.Published{}
	for i := range f.Messages {
		r := protocol.PublishResult{Ref: f.Ref + uint32(i), Position: protocol.Position{Term: 1, Offset: uint64(i + 1)}}
		if i == from {
			r = protocol.PublishResult{Ref: r.Ref, Err: protocol.Errorf(code, "no")}
		} else if i > from {
			r = protocol.PublishResult{Ref: r.Ref, Err: protocol.Errorf(protocol.CodeOutOfOrder, "no")}
		}
		p.Results = append(p.Results, r)
	}
	return p
}

// collectFrame reads until n messages came, as if they were one frame.
func collectFrame(p *peer, n int) *protocol.Publish {
	all := expect2publish(p)
	for len(all.Messages) < n {
		all.Messages = append(all.Messages, expect2publish(p).Messages...)
	}
	return all
}

// DECISIONS 7: after a retryable refusal all from the refused one on come again,
// in order, the first frame with resume, and nothing new before them.
func TestResumeAfterRefusal(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		all := publishAll(t, c, "abcdefg")
		f := collectFrame(p, 4)
		answers := refusedFrom(f, 1, protocol.CodeStorageFull)
		answers.Results[1].Err.RetryAfter = 3 * time.Second
		p.send(&protocol.Published{Results: answers.Results[:2]})
		p.quiet(20 * time.Second) // two are still unanswered
		p.send(&protocol.Published{Results: answers.Results[2:]})
		start := time.Now()
		again := expect2publish(p)
		if d := time.Since(start); d < 3*time.Second || d > 4*time.Second {
			t.Fatalf("again after %v", d)
		}
		if ids(again) != "bcde" || !again.Resume {
			t.Fatalf("%q, resume %v", ids(again), again.Resume)
		}
		if again.RepeatAge != 0 {
			t.Fatal("nothing was stored, so the age begins anew")
		}
		p.send(accepted(again, 2))
		if last := collectFrame(p, 2); ids(last) != "fg" || last.Resume {
			t.Fatal(last)
		} else {
			p.send(accepted(last, 6))
		}
		for i, a := range all {
			<-a.Done()
			if a.err != nil || a.receipt.Position.Offset != uint64(i+1) {
				t.Fatal(outcome(a))
			}
		}
	})
}

// After an unknown outcome the repeat carries the age of the first attempt, and
// the pauses grow.
func TestUnknownIsRepeatedWithAge(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		start := time.Now()
		all := publishAll(t, c, "a")
		bound := time.Second
		for range 8 {
			f := expect2publish(p)
			if since := time.Since(start); since > 0 && (f.RepeatAge > since || f.RepeatAge < since-11*time.Millisecond || !f.Resume) {
				t.Fatalf("age %v after %v, resume %v", f.RepeatAge, since, f.Resume)
			}
			sent := time.Now()
			p.send(refusedFrom(f, 0, protocol.CodeUnknown))
			for len(p.frames) == 0 {
				time.Sleep(10 * time.Millisecond)
				if i := len(p.frames); i == 0 && time.Since(start)%(25*time.Second) < 10*time.Millisecond {
					p.send(&tidewirePing)
				}
				p.skipPongs()
			}
			if d := time.Since(sent); d < minDelay || d > bound+10*time.Millisecond {
				t.Fatalf("after %v, want %v to %v", d, minDelay, bound)
			}
			bound = min(2*bound, maxDelay)
		}
		p.send(accepted(expect2publish(p), 3))
		<-all[0].Done()
		if got := outcome(all[0]); got != "3 <nil>" {
			t.Fatal(got)
		}
	})
}

func TestRefusalsThatStay(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		all := publishAll(t, c, "abc")
		f := collectFrame(p, 3)
		p.send(&protocol.Published{Results: []protocol.PublishResult{
			{Ref: f.Ref, Err: protocol.Errorf(CodeIDConflict, "other payload")},
			{Ref: f.Ref + 1, Position: protocol.Position{Term: 1, Offset: 1}, Duplicate: true},
			{Ref: f.Ref + 2, Err: protocol.Errorf(CodeRepeatTooOld, "too old")},
		}})
		for i, want := range []Code{CodeIDConflict, "", CodeRepeatTooOld} {
			r, err := all[i].Wait(t.Context())
			e, ok := errors.AsType[*Error](err)
			if (want != "") != ok || ok && e.Code != want {
				t.Fatal(i, err)
			}
			if i == 1 && !r.Duplicate {
				t.Fatal(r)
			}
		}
		// A whole frame is refused.
		all = publishAll(t, c, "d")
		f = expect2publish(p)
		p.send(protocol.ErrorFrame(f.Ref, 0, protocol.Errorf(protocol.CodeTooManyMessages, "too many")))
		if _, err := all[0].Wait(t.Context()); !errors.Is(err, &Error{Code: protocol.CodeTooManyMessages}) {
			t.Fatal(err)
		}
	})
}

func TestBadMessagesAreRefusedHere(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		for _, m := range []Message{{}, {Topic: "a..b"}, {Topic: "$x"}, {Topic: "a", ID: "\x00"}, {Topic: "a", Headers: []Header{{Name: "b ", Value: ""}}}} {
			if _, err := c.Publish(t.Context(), m); !isError(err) {
				t.Errorf("%v: %v", m, err)
			}
		}
		// The broker's own limit is known since its welcome.
		if _, err := c.Publish(t.Context(), Message{Topic: "a", Payload: make([]byte, 1001)}); !errors.Is(err, &Error{Code: CodePayloadTooLarge}) {
			t.Fatal(err)
		}
		p.quiet(time.Second)
	})
}

func isError(err error) bool {
	_, ok := errors.AsType[*Error](err)
	return ok
}

// The outcome of a publish whose ctx ends: not sent, or unknown and not repeated.
func TestPublishContext(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		publish := func(id string) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := c.Publish(ctx, Message{Topic: "a", ID: id})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			return err
		}
		unknown := func(err error) bool {
			_, ok := errors.AsType[*UnknownOutcomeError](err)
			return ok
		}
		if err := publish("a"); !unknown(err) {
			t.Fatal(err)
		}
		expect2publish(p)
		p.cut()
		synctest.Wait()
		if err := publish("b"); unknown(err) {
			t.Fatal(err)
		}
		q, _ := b.welcome()
		publishAll(t, c, "c")
		if f := expect2publish(q); ids(f) != "c" || f.RepeatAge != 0 {
			t.Fatal(ids(f))
		}
	})
}

// The outbox is bounded; who waits for room keeps its turn.
func TestOutboxIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{OutboxMessages: 2})
		publishAll(t, c, "ab")
		f := collectFrame(p, 2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		order := make(chan string, 3)
		for _, id := range []string{"c", "d", "e"} {
			go func() {
				if id == "d" {
					if _, err := c.PublishAsync(ctx, Message{Topic: "a", ID: id}); errors.Is(err, context.DeadlineExceeded) {
						order <- "d gave up"
					}
					return
				}
				if _, err := c.PublishAsync(t.Context(), Message{Topic: "a", ID: id}); err != nil {
					t.Error(err)
				}
				order <- id
			}()
			synctest.Wait()
		}
		p.quiet(10 * time.Second)
		if got := <-order; got != "d gave up" {
			t.Fatal(got)
		}
		p.send(accepted(&protocol.Publish{Ref: f.Ref, Messages: f.Messages[:1]}, 1))
		if f := expect2publish(p); ids(f) != "c" {
			t.Fatal(ids(f))
		}
		p.send(accepted(&protocol.Publish{Ref: f.Ref + 1, Messages: f.Messages[:1]}, 2))
		if f := expect2publish(p); ids(f) != "e" {
			t.Fatal(ids(f))
		}
	})
}

// A small message does not overtake a large one that waits for room.
func TestRoomGoesInTurn(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{OutboxBytes: 1120})
		publishAll(t, c, "a")
		f := expect2publish(p)
		for _, m := range []Message{{Topic: "a", ID: "L", Payload: make([]byte, 1000)}, {Topic: "a", ID: "s"}} {
			go func() {
				if _, err := c.PublishAsync(t.Context(), m); err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
		}
		p.quiet(time.Second)
		p.send(accepted(f, 1))
		if f = expect2publish(p); ids(f) != "L" {
			t.Fatal(ids(f))
		}
		p.send(accepted(f, 2))
		if got := ids(expect2publish(p)); got != "s" {
			t.Fatal(got)
		}
	})
}

// Close waits for the answers, over a lost connection, and no longer than ctx.
func TestCloseWaitsForOutbox(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		all := publishAll(t, c, "a")
		expect2publish(p)
		closed := make(chan error, 1)
		go func() { closed <- c.Close(t.Context()) }()
		synctest.Wait()
		p.cut()
		q, _ := b.welcome()
		q.send(accepted(expect2publish(q), 1))
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		if got := outcome(all[0]); got != "1 <nil>" {
			t.Fatal(got)
		}
	})
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		all := publishAll(t, c, "a")
		expect2publish(p)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := c.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if _, ok := errors.AsType[*UnknownOutcomeError](all[0].err); !ok {
			t.Fatal(all[0].err)
		}
	})
}
