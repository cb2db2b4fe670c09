package tidewire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

func TestConnectPublishClose(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		go func() {
			f := expect2publish(p)
			p.send(accepted(f, 5))
		}()
		r, err := c.Publish(t.Context(), Message{Topic: "a.b", Payload: []byte("x")})
		if err != nil || r.Position.Offset != 5 || len(r.ID) != 22 {
			t.Fatal(r, err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-p.gone
		if _, err := c.Publish(t.Context(), Message{Topic: "a.b"}); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
	})
}

// Attempts that fail are repeated after a random time between half a second and a
// bound that doubles from one second to a minute.
func TestReconnectJitter(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		b.mu.Lock()
		b.refuse = func(int) error { return errors.New("refused") }
		b.mu.Unlock()
		p.cut()
		lost := time.Now()
		time.Sleep(30 * time.Minute)
		times := append([]time.Time{lost}, b.times()[1:]...)
		if len(times) < 30 {
			t.Fatalf("only %d attempts", len(times))
		}
		bound, varied := time.Second, map[time.Duration]bool{}
		for i := 1; i < len(times); i++ {
			d := times[i].Sub(times[i-1])
			if d < 500*time.Millisecond || d > bound {
				t.Fatalf("attempt %d after %v, want 0.5s to %v", i, d, bound)
			}
			varied[d] = true
			bound = min(2*bound, time.Minute)
		}
		if len(varied) < len(times)/2 {
			t.Fatal("the delays are not random")
		}
		b.mu.Lock()
		b.refuse = nil
		b.mu.Unlock()
		b.welcome()
		for c.State() != StateOpen {
			time.Sleep(time.Millisecond)
		}
	})
}

// Several addresses are tried one after the other without a pause, so that a dead
// node costs no more than its dial.
func TestNextAddressAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		b.refuse = func(n int) error {
			if n < 2 {
				return errors.New("refused")
			}
			return nil
		}
		open(t, b, Options{URLs: []string{"http://a:1", "ws://b"}})
		if strings.Join(b.addrs, " ") != "a:1 b:80 a:1" {
			t.Fatal(b.addrs)
		}
		if d := b.dials[1].Sub(b.dials[0]); d != 0 {
			t.Fatalf("the second address after %v", d)
		}
		if d := b.dials[2].Sub(b.dials[1]); d < minDelay {
			t.Fatalf("the second round after %v", d)
		}
	})
}

func TestConnectGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		b.refuse = func(int) error { return errors.New("connection refused") }
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := Connect(ctx, Options{Dial: b.dial})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection refused") {
			t.Fatal(err)
		}
	})
}

func TestHandshakeRefused(t *testing.T) {
	for _, tc := range []struct {
		status int
		body   string
		code   Code
		final  bool
	}{
		{401, `{"code":"unauthorized","detail":"no token","retryable":false}`, "unauthorized", true},
		{503, `{"code":"going_away","detail":"shutting down","retryable":true}`, "going_away", false},
		{404, "nothing here", "", true},
		{502, "bad gateway", "", false},
	} {
		bubble(t, func(t *testing.T, b *fakeBroker) {
			b.reply = func() *http.Response {
				return &http.Response{StatusCode: tc.status, ProtoMajor: 1, ProtoMinor: 1, Body: io.NopCloser(strings.NewReader(tc.body)), ContentLength: int64(len(tc.body))}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := Connect(ctx, Options{Dial: b.dial, Token: func(context.Context) (string, error) { return "secret", nil }})
			e, ok := errors.AsType[*HandshakeError](err)
			if !ok || e.Status != tc.status {
				t.Fatal(err)
			}
			if (e.Err == nil) != (tc.code == "") || e.Err != nil && e.Err.Code != tc.code {
				t.Fatal(e.Err)
			}
			if tc.final != (len(b.dials) == 1) || tc.final == errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("%d attempts, %v", len(b.dials), err)
			}
			if b.auth[0] != "Bearer secret" || strings.Contains(err.Error(), "secret") {
				t.Fatal(b.auth, err)
			}
		})
	}
}

// The verdict of a close code decides; what the client was asked to do ends with
// it, and says what is known.
func TestFinalClose(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		sub, _ := subscribe(t, c, p, SubscribeOptions{})
		got := collect(t.Context(), sub)
		sent, err := c.PublishAsync(t.Context(), Message{Topic: "a.b"})
		if err != nil {
			t.Fatal(err)
		}
		expect2publish(p)
		p.send(&tidewirev1.Error{Code: "forbidden", Message: "not you"})
		p.close(3501, "not you")
		<-c.Ended()
		e, ok := errors.AsType[*CloseError](c.Err())
		if !ok || e.Code != 3501 || e.Err.Code != CodeForbidden {
			t.Fatal(c.Err())
		}
		_, err = sent.Wait(t.Context())
		if _, ok := errors.AsType[*UnknownOutcomeError](err); !ok || !errors.Is(err, e) {
			t.Fatal(err)
		}
		got.want(t)
		if !errors.Is(got.end, e) || !errors.Is(sub.Err(), e) {
			t.Fatal(got.end)
		}
		if _, err := c.Subscribe(t.Context(), "a", SubscribeOptions{}); !errors.Is(err, e) {
			t.Fatal(err)
		}
		if n := len(b.times()); n != 1 || c.State() != StateClosed {
			t.Fatalf("%d connections, %v", n, c.State())
		}
	})
}

func TestRetryableClose(t *testing.T) {
	for _, code := range []uint16{1000, 1001, 1011, 3000, 3003, 3004, 4000} {
		bubble(t, func(t *testing.T, b *fakeBroker) {
			c, p := open(t, b, Options{})
			p.close(code, "")
			b.welcome()
			for c.State() != StateOpen {
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// A broker that says nothing for ping interval and timeout is dead, also if its
// socket takes all that is written.
func TestSilence(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		_, p := open(t, b, Options{})
		start := time.Now()
		for range 3 {
			time.Sleep(30 * time.Second)
			p.send(&tidewirev1.Ping{Seq: 9})
			if f := expect[*tidewirev1.Pong](p); f.Seq != 9 {
				t.Fatal(f)
			}
		}
		b.welcome()
		if d := time.Since(start); d < 125*time.Second || d > 127*time.Second {
			t.Fatalf("a new connection after %v", d)
		}
	})
}

// A socket that takes nothing any more, and gives nothing, holds nobody up.
func TestDeadSocket(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		p.stuck = make(chan struct{})
		start := time.Now()
		for i := range 8 {
			if _, err := c.PublishAsync(t.Context(), Message{Topic: "a.b", ID: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		q, _ := b.welcome()
		if d := time.Since(start); d > 15*time.Second {
			t.Fatalf("a new connection after %v", d)
		}
		if got := ids(collectFrame(q, 4)); got != "0123" {
			t.Fatal(got)
		}
		close(p.stuck)
		<-p.gone
	})
}

func TestGoAway(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{URLs: []string{"http://a:1"}})
		if _, err := c.PublishAsync(t.Context(), Message{Topic: "a.b", ID: "1"}); err != nil {
			t.Fatal(err)
		}
		f := expect2publish(p)
		start := time.Now()
		p.send(&tidewirev1.GoAway{ReconnectAfterMs: 7000, Elsewhere: []string{"http://b:2"}})
		time.Sleep(time.Second)
		if _, err := c.PublishAsync(t.Context(), Message{Topic: "a.b", ID: "2"}); err != nil {
			t.Fatal(err)
		}
		p.quiet(time.Second) // what is new waits for the next broker
		p.send(accepted(f, 1))
		<-p.gone // all is answered
		if d := time.Since(start); d > 3*time.Second {
			t.Fatalf("left after %v", d)
		}
		q, _ := b.welcome()
		if d := time.Since(start).Round(time.Millisecond); d != 7*time.Second {
			t.Fatalf("came back after %v", d)
		}
		if b.addrs[1] != "b:2" {
			t.Fatal(b.addrs)
		}
		if f := expect2publish(q); ids(f) != "2" || f.RepeatAge != 0 || f.Resume {
			t.Fatal(f)
		}
	})
}

// An encrypted client is not sent to a bare address.
func TestGoAwayKeepsEncryption(t *testing.T) {
	s := &session{target: target{tls: true}, away: &farewell{GoAway: &tidewirev1.GoAway{Elsewhere: []string{"http://b", "https://c", "nonsense"}}}}
	got := elsewhere(s)
	if len(got) != 1 || got[0].addr != "c:443" || got[0].url != "wss://c/v1/ws" {
		t.Fatal(got)
	}
}

func TestURLs(t *testing.T) {
	for text, want := range map[string]string{
		"http://h:1":      "ws://h:1/v1/ws",
		"ws://h":          "ws://h/v1/ws",
		"https://h/":      "wss://h/v1/ws",
		"wss://h/x?y=1":   "wss://h/x?y=1",
		"http://[::1]:70": "ws://[::1]:70/v1/ws",
		"h:7070":          "",
		"localhost":       "",
		"ftp://h":         "",
		"http://":         "",
		"http://u:p@h":    "",
		"http://h\x00":    "",
	} {
		got, err := parseTarget(text)
		if got.url != want || (want == "") != (err != nil) {
			t.Errorf("%q: %q, %v; want %q", text, got.url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "u:p") {
			t.Errorf("the password is in %q", err)
		}
	}
}
