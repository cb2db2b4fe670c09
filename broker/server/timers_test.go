package server_test

import (
	"io"
	"net"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/lxzan/gws"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	"github.com/tidewire/tidewire/broker/server"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// The timers of a connection, in virtual time. The keeper looks once a second,
// so each of them is exact to a second.

// bubble runs fn with an edge in a synctest bubble.
func bubble(t *testing.T, o server.Options, fn func(t *testing.T, e *edge)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fn(t, newEdgeOn(t, brokertest.NewLog(), o, broker.Options{}))
	})
}

// within checks that something took about as long as it should.
func within(t *testing.T, what string, since time.Time, least, most time.Duration) {
	t.Helper()
	if took := time.Since(since); took < least || took > most {
		t.Errorf("%s took %v, want %v to %v", what, took, least, most)
	}
}

func TestNoConnect(t *testing.T) {
	bubble(t, server.Options{}, func(t *testing.T, e *edge) {
		start := time.Now()
		r := e.open(protocol.Proto{})
		if code, _ := r.closing(); code != 3006 {
			t.Errorf("closed with %d", code)
		}
		within(t, "the close", start, 10*time.Second, 12*time.Second)
	})
}

// TestSlowHandshake sends the head of a request one byte at a time.
func TestSlowHandshake(t *testing.T) {
	bubble(t, server.Options{}, func(t *testing.T, e *edge) {
		start := time.Now()
		conn, err := e.listener.dial()
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		for err == nil {
			_, err = conn.Write([]byte("G"))
			time.Sleep(100 * time.Millisecond)
		}
		within(t, "the close", start, 10*time.Second, 12*time.Second)
	})
}

// TestSlowBodyOfOperators: whoever begins a body on their listener and does not go
// on holds the connection for a bounded time.
func TestSlowBodyOfOperators(t *testing.T) {
	bubble(t, server.Options{}, func(t *testing.T, e *edge) {
		l := newPipeListener()
		h := e.server.HTTP(e.server.Admin())
		ended := runAside(func() { _ = h.Serve(l) })
		defer func() {
			_ = h.Close()
			<-ended
		}()
		for _, path := range []string{"/v1/streams/main/purge", "/v1/consumers/w/seek"} {
			conn, err := l.dial()
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			late := time.AfterFunc(time.Hour, func() { _ = conn.Close() })
			go func() {
				_, _ = io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n{")
			}()
			if code := codeOf(t, readAnswer(t, conn)); code != protocol.CodeSlowConnection {
				t.Errorf("%s: answered %s", path, code)
			}
			within(t, path, start, 30*time.Second, 32*time.Second)
			late.Stop()
			_ = conn.Close()
		}
	})
}

// TestPing: a client that answers stays for hours, and learns on the way where
// its quiet subscription is; one that is frozen is gone after ping interval and
// timeout, although its browser goes on answering WebSocket pings.
func TestPing(t *testing.T) {
	bubble(t, server.Options{}, func(t *testing.T, e *edge) {
		alive := e.connect(protocol.Proto{}, &tidewirev1.Subscribe{Sub: 1, Filter: "quiet"})
		frozen, err := e.dial(protocol.JSON{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		frozen.mute = true
		frozen.send(&tidewirev1.Connect{Ref: 1})
		start := time.Now()
		e.publish(msg("loud", "1"))
		<-frozen.closed
		within(t, "noticing the frozen client", start, 10*time.Second, 37*time.Second)
		time.Sleep(3 * time.Hour)
		r := newReader(t, "", "quiet")
		for len(alive.frames) > 0 {
			r.take(<-alive.frames)
		}
		select {
		case <-alive.closed:
			t.Errorf("the living client was closed: %v", alive.err)
		default:
		}
		if _, head := e.log.Bounds(); r.subs[1].offset[0] != head {
			t.Errorf("progress told %d, the log is at %d", r.subs[1].offset[0], head)
		}
	})
}

// TestStuckClient reads nothing at all: its writer gives up in time, and nobody
// else waits for it.
func TestStuckClient(t *testing.T) {
	bubble(t, server.Options{}, func(t *testing.T, e *edge) {
		stuck, resp := e.handshake("Sec-WebSocket-Protocol: tidewire.v1.proto")
		_ = resp
		_ = stuck.conn.SetDeadline(time.Time{})
		connect := protocol.Proto{}.AppendClient(nil, &tidewirev1.Connect{Ref: 1, Subscriptions: []*tidewirev1.Subscribe{{Sub: 1, Filter: ">"}}})
		if _, err := stuck.conn.Write(frame(0x82, connect)); err != nil {
			t.Fatal(err)
		}
		healthy := e.connect(protocol.Proto{}, &tidewirev1.Subscribe{Sub: 1, Filter: ">"})
		synctest.Wait() // both have subscribed
		start := time.Now()
		r := newReader(t, "", ">")
		for range 100 {
			e.publish(msg("a", "1"))
		}
		r.until(healthy, func() bool { return len(r.subs[1].got) == 100 })
		within(t, "serving the healthy client", start, 0, time.Second)
		// A Write of the peer fails when the server has closed the connection.
		var err error
		for err == nil {
			_ = stuck.conn.SetWriteDeadline(time.Now().Add(time.Second))
			if _, err = stuck.conn.Write(frame(0x8A, nil)); isTimeout(err) {
				err = nil
			}
			time.Sleep(time.Second)
		}
		within(t, "cutting off the stuck client", start, 25*time.Second, 60*time.Second)
	})
}

func isTimeout(err error) bool {
	n, ok := err.(net.Error) //nolint:errorlint // net.Pipe returns it bare
	return ok && n.Timeout()
}

// TestTokenExpiry ends a session when its token expires, unless it was
// refreshed.
func TestTokenExpiry(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	bubble(t, server.Options{Access: server.Access{JWT: server.JWT{Secret: secret}}}, func(t *testing.T, e *edge) {
		token := func(subject string, ttl time.Duration) string {
			text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": subject, "exp": time.Now().Add(ttl).Unix(), "subscribe": []string{">"}}).SignedString(secret)
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
		start := time.Now()
		refreshing := e.dialToken(token("ann", time.Minute))
		expiring := e.dialToken(token("bob", time.Minute))
		if w, ok := (<-expiring.frames).(*tidewirev1.Welcome); !ok || w.ExpiresAt != protocol.Micros(start.Add(time.Minute)) {
			t.Errorf("the welcome of a token is %v", w)
		}
		time.Sleep(50 * time.Second)
		refreshing.send(&tidewirev1.Refresh{Ref: 1, Token: token("eve", time.Hour)})
		if code, text := refreshing.refusal(); code != protocol.CodeForbidden {
			t.Errorf("a token of another subject: %s %s", code, text)
		}
		// The broker of the bubble allows no leeway: this one is of no use, and the
		// first goes on.
		refreshing.send(&tidewirev1.Refresh{Ref: 2, Token: token("ann", -time.Second)})
		if code, text := refreshing.refusal(); code != protocol.CodeTokenExpired {
			t.Errorf("an expired token: %s %s", code, text)
		}
		refreshing.send(&tidewirev1.Refresh{Ref: 2, Token: token("ann", time.Hour)})
		<-expiring.closed
		within(t, "the end of the token", start, time.Minute, 62*time.Second)
		if closed, ok := expiring.err.(*gws.CloseError); !ok || protocol.CloseRetryable(closed.Code) { //nolint:errorlint // gws returns it bare
			t.Errorf("who has only this token is told to come back: %v", expiring.err)
		}
		<-refreshing.closed
		within(t, "the end of the second token", start, 50*time.Second+time.Hour, 50*time.Second+time.Hour+2*time.Second)
	})
}

// TestDrain asks everybody to go, and spreads their return.
func TestDrain(t *testing.T) {
	bubble(t, server.Options{}, func(t *testing.T, e *edge) {
		var clients []*client
		for range 50 {
			clients = append(clients, e.connect(protocol.Proto{}))
		}
		synctest.Wait()
		start := time.Now()
		ctx, cancel := contextFor(10 * time.Second)
		defer cancel()
		e.server.Drain(ctx, 5*time.Second)
		within(t, "draining clients that stay", start, 10*time.Second, 11*time.Second)
		var early, late int
		for _, c := range clients {
			<-c.closed
			for len(c.frames) > 0 {
				if f, ok := (<-c.frames).(*tidewirev1.GoAway); ok {
					if f.ReconnectAfterMs >= 5000 {
						t.Errorf("come back after %d ms", f.ReconnectAfterMs)
					}
					if f.ReconnectAfterMs < 2500 {
						early++
					} else {
						late++
					}
				}
			}
		}
		if early+late != 50 || early < 10 || late < 10 {
			t.Errorf("%d come back early, %d late", early, late)
		}
	})
}

// TestManySmallFrames is slow to read while a thousand subscriptions are
// answered: writes of very many frames keep them whole.
func TestManySmallFrames(t *testing.T) {
	bubble(t, server.Options{}, func(t *testing.T, e *edge) {
		r := e.open(protocol.Proto{})
		connect := &tidewirev1.Connect{Ref: 1}
		for i := range 1000 {
			connect.Subscriptions = append(connect.Subscriptions, &tidewirev1.Subscribe{Sub: uint32(i + 1), Filter: "t." + strconv.Itoa(i)})
		}
		r.write(frame(0x82, protocol.Proto{}.AppendClient(nil, connect)))
		synctest.Wait()       // everything waits now
		for i := range 2001 { // Welcome, and Subscribed and CaughtUp for each
			head, err := r.br.Peek(1)
			if err != nil {
				t.Fatal(err)
			}
			if head[0] != 0x82 {
				t.Fatalf("frame %d begins with %#x", i, head[0])
			}
			if _, _, err := r.read(); err != nil {
				t.Fatalf("frame %d: %v", i, err)
			}
		}
	})
}
