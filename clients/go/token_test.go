package tidewire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// source is an Options.Token that gives the texts of a list, and then the last
// one for ever. An empty text is a failure.
type source struct {
	mu    sync.Mutex
	texts []string
	asked []time.Time
}

func (s *source) token(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, time.Now())
	text := s.texts[0]
	if len(s.texts) > 1 {
		s.texts = s.texts[1:]
	}
	if text == "" {
		return "", errors.New("the issuer is away")
	}
	return text, nil
}

// refuseTokens answers handshakes as a broker does to a token that it does not
// take; all others are accepted.
func (b *fakeBroker) refuseTokens(code Code) {
	b.reply = func() *http.Response {
		body := fmt.Sprintf(`{"code":%q,"detail":"no","retryable":false}`, code)
		return &http.Response{StatusCode: 401, ProtoMajor: 1, ProtoMinor: 1, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
	}
}

// TestRefusedTokens: a token that the broker does not take any more ends the
// client, unless there is another one.
func TestRefusedTokens(t *testing.T) {
	for _, tc := range []struct {
		name     string
		code     Code
		tokens   []string
		attempts int // 0: it goes on for ever
	}{
		{"expired, the same again", CodeTokenExpired, []string{"old"}, 1},
		{"invalid, the same again", CodeUnauthorized, []string{"old"}, 1},
		{"expired, one other", CodeTokenExpired, []string{"old", "new"}, 2},
		{"expired, others", CodeTokenExpired, nil, 0},
		{"invalid, others", CodeUnauthorized, nil, 2},
		{"expired, the issuer fails once", CodeTokenExpired, []string{"old", "", "old"}, 2},
		{"forbidden", CodeForbidden, nil, 1},
	} {
		bubble(t, func(t *testing.T, b *fakeBroker) {
			b.refuseTokens(tc.code)
			given, n := &source{texts: tc.tokens}, 0
			token := given.token
			if tc.tokens == nil {
				token = func(context.Context) (string, error) { n++; return fmt.Sprint("token ", n), nil }
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			_, err := Connect(ctx, Options{Dial: b.dial, Token: token})
			if tc.attempts == 0 {
				if !errors.Is(err, context.DeadlineExceeded) || len(b.times()) < 5 || len(b.times()) > 100 {
					t.Fatalf("%s: %d attempts, %v", tc.name, len(b.times()), err)
				}
				return
			}
			e, ok := errors.AsType[*HandshakeError](err)
			if !ok || e.Err.Code != tc.code || len(b.times()) != tc.attempts {
				t.Fatalf("%s: %d attempts, %v", tc.name, len(b.times()), err)
			}
		})
	}
}

// TestExpiredSession: a session that is closed because its token has expired is
// the end for a client with this token alone; another comes back with another.
func TestExpiredSession(t *testing.T) {
	closing := protocol.CodeTokenExpired.Info().Close
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{Token: (&source{texts: []string{"only"}}).token})
		p.send(protocol.ErrorFrame(0, 0, protocol.Errorf(CodeTokenExpired, "the token has expired")))
		p.close(closing, "the token has expired")
		<-c.Ended()
		e, ok := errors.AsType[*CloseError](c.Err())
		if !ok || e.Code != closing || !errors.Is(c.Err(), &Error{Code: CodeTokenExpired}) {
			t.Fatal(c.Err())
		}
	})
	bubble(t, func(t *testing.T, b *fakeBroker) {
		_, p := open(t, b, Options{Token: (&source{texts: []string{"one", "two"}}).token})
		p.close(closing, "the token has expired")
		b.welcome()
		if got := strings.Join(b.auth, ", "); got != "Bearer one, Bearer two" {
			t.Fatal(got)
		}
	})
}

// expiringFrame is the welcome of a session whose token is good for d, by a broker
// whose clock is an hour ahead.
func expiringFrame(d time.Duration) *tidewirev1.Welcome {
	w := welcomeFrame()
	w.PingIntervalMs = uint32((24 * time.Hour).Milliseconds()) // nobody pings here
	now := time.Now().Add(time.Hour)
	w.Time, w.ExpiresAt = protocol.Micros(now), protocol.Micros(now.Add(d))
	return w
}

// TestRenewal: a token is replaced before it expires, by the broker's clock, and
// the connection stays. What fails is tried again.
func TestRenewal(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		s := &source{texts: []string{"one", "one", "", "bad", "bad", "two", "three"}}
		connected := make(chan *Client, 1)
		go func() {
			c, err := Connect(t.Context(), Options{Dial: b.dial, Token: s.token})
			if err != nil {
				t.Error(err)
			}
			connected <- c
		}()
		p := b.accept()
		expect[*tidewirev1.Connect](p)
		start := time.Now()
		p.send(expiringFrame(8 * time.Minute))
		c := <-connected
		f := expect[*tidewirev1.Refresh](p)
		if f.Token != "bad" {
			t.Fatal(f)
		}
		p.send((&protocol.RequestError{Request: "refresh", Ref: f.Ref, Err: protocol.Errorf(CodeTokenExpired, "expired")}).Frame())
		f = expect[*tidewirev1.Refresh](p) // "bad" is not shown twice
		if d := time.Since(start); f.Token != "two" || d < 7*time.Minute || d > 8*time.Minute {
			t.Fatal(f, d)
		}
		if first := s.asked[1].Sub(start); first < 6*time.Minute+45*time.Second || first > 7*time.Minute {
			t.Errorf("it asks for the next token after %v of 8 minutes", first)
		}
		at := time.Now()
		p.send(&tidewirev1.Refreshed{Ref: f.Ref, ExpiresAt: protocol.Micros(at.Add(time.Hour + 40*time.Second))})
		f = expect[*tidewirev1.Refresh](p)
		if d := time.Since(at); f.Token != "three" || d < 25*time.Second || d > 30*time.Second {
			t.Fatal(f, d)
		}
		p.send(&tidewirev1.Refreshed{Ref: f.Ref}) // this one never expires
		p.quiet(30 * time.Second)
		if n := len(b.times()); n != 1 || c.State() != StateOpen {
			t.Fatalf("%d connections, %v", n, c.State())
		}
		_ = c.Close(t.Context())
	})
}

// TestNoRenewal: a token that nobody can renew is not shown again, nobody asks for
// one where there is none, and a session that ends ends its renewal.
func TestNoRenewal(t *testing.T) {
	for _, token := range []func(context.Context) (string, error){nil, (&source{texts: []string{"only"}}).token} {
		bubble(t, func(t *testing.T, b *fakeBroker) {
			connected := make(chan *Client, 1)
			go func() {
				c, _ := Connect(t.Context(), Options{Dial: b.dial, Token: token})
				connected <- c
			}()
			p := b.accept()
			expect[*tidewirev1.Connect](p)
			p.send(expiringFrame(10 * time.Second))
			c := <-connected
			p.quiet(20 * time.Second)
			_ = c.Close(t.Context())
		})
	}
}
