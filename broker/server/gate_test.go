package server_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	"github.com/tidewire/tidewire/broker/server"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// value returns a metric of a registry; labels are "name=value".
func value(t testing.TB, r *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var has []string
			for _, l := range m.GetLabel() {
				has = append(has, l.GetName()+"="+l.GetValue())
			}
			if f.GetName() == name && fmt.Sprint(has) == fmt.Sprint(labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("there is no metric %s%v", name, labels)
	return 0
}

func met(t testing.TB, r *prometheus.Registry, l protocol.Limit) float64 {
	t.Helper()
	return value(t, r, "tidewire_limits_total", "limit="+string(l))
}

// request sends a request on a connection of its own and returns the answer.
func (e *edge) request(lines ...string) *http.Response {
	e.t.Helper()
	conn, err := e.listener.dial()
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = conn.Close() })
	return ask(e.t, conn, lines...)
}

func ask(t testing.TB, conn net.Conn, lines ...string) *http.Response {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	head := strings.Join(append(lines, "Host: localhost:7070"), "\r\n")
	if _, err := io.WriteString(conn, head+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, conn)
}

func readAnswer(t testing.TB, conn net.Conn) *http.Response {
	t.Helper()
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Error(err)
		return &http.Response{Status: "no answer", Body: http.NoBody, Header: http.Header{}}
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	return answer
}

// codeOf reads the code of a problem.
func codeOf(t testing.TB, answer *http.Response) protocol.Code {
	t.Helper()
	var p struct{ Code protocol.Code }
	if err := json.NewDecoder(answer.Body).Decode(&p); err != nil {
		t.Fatalf("%s: %v", answer.Status, err)
	}
	return p.Code
}

// TestConnectionsOfEveryKind: WebSocket, events and idle connections count
// alike; each that finds no room is told in its own way, and those inside do not
// notice.
func TestConnectionsOfEveryKind(t *testing.T) {
	registry := prometheus.NewRegistry()
	o := server.Options{Registry: registry, Limits: server.Limits{Connections: 3, ConnectTimeout: time.Hour}}
	bubble(t, o, func(t *testing.T, e *edge) {
		inside := e.connect(protocol.Proto{}, &tidewirev1.Subscribe{Sub: 1, Filter: ">"})
		follow := newReader(t, "", ">")
		follow.until(inside, func() bool { return follow.subs[1].caughtUp })
		e.request("GET /v1/events?filter=a HTTP/1.1")
		idle, err := e.listener.dial()
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()

		answer := e.request("GET /v1/topics/a/messages HTTP/1.1")
		if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" || !answer.Close {
			t.Errorf("HTTP: %s, %v", answer.Status, answer.Header)
		}
		if code := codeOf(t, answer); code != protocol.CodeTooManyConns {
			t.Errorf("HTTP: %s", code)
		}
		if _, answer := e.handshake("Sec-WebSocket-Protocol: tidewire.v1.json"); answer.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a program: %s", answer.Status)
		}
		browser, answer := e.handshake("Sec-WebSocket-Protocol: tidewire.v1.json", "Origin: http://localhost:7070")
		if answer.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("a browser: %s", answer.Status)
		}
		if code, reason := browser.closing(); code != 3005 {
			t.Errorf("a browser: closed with %d %s", code, reason)
		}
		if answer := e.request("GET /healthz HTTP/1.1"); answer.StatusCode != http.StatusOK {
			t.Errorf("healthz: %s", answer.Status)
		}
		if n := met(t, registry, protocol.LimitConnections); n != 4 {
			t.Errorf("counted %v, want 4", n)
		}

		e.publish(msg("a", "still here"))
		follow.until(inside, func() bool { return len(follow.subs[1].got) == 1 })
		_ = idle.Close()
		synctest.Wait()
		if answer := e.request("GET /v1/topics/a/messages HTTP/1.1", "Connection: close"); answer.StatusCode != http.StatusOK {
			t.Errorf("after one has gone: %s", answer.Status)
		}
	})
}

// TestCrowd: of a crowd of connections that say nothing only a few are held to
// be told, for a short time; and all places are free again in the end.
func TestCrowd(t *testing.T) {
	registry := prometheus.NewRegistry()
	o := server.Options{Registry: registry, Limits: server.Limits{Connections: 1}}
	bubble(t, o, func(t *testing.T, e *edge) {
		var open atomic.Int32
		for range 200 {
			conn, err := e.listener.dial()
			if err != nil {
				t.Fatal(err)
			}
			open.Add(1)
			go func() {
				_, _ = io.Copy(io.Discard, conn)
				open.Add(-1)
			}()
		}
		synctest.Wait()
		if n := open.Load(); n != 1+32 {
			t.Errorf("%d connections are open, want 33", n)
		}
		time.Sleep(6 * time.Second)
		if n := open.Load(); n != 1 {
			t.Errorf("after 6 s %d are open, want 1", n)
		}
		time.Sleep(6 * time.Second) // the head of its request does not come
		if n := open.Load(); n != 0 {
			t.Errorf("after 12 s %d are open", n)
		}
		if n := value(t, registry, "tidewire_connections"); n != 0 {
			t.Errorf("the gauge says %v", n)
		}
		if n := met(t, registry, protocol.LimitConnections); n != 199 {
			t.Errorf("counted %v, want 199", n)
		}
		if answer := e.request("GET /healthz HTTP/1.1"); answer.StatusCode != http.StatusOK {
			t.Errorf("healthz: %s", answer.Status)
		}
	})
}

// TestPlacesAreFreed ends connections in every way and looks for places that
// stay taken.
func TestPlacesAreFreed(t *testing.T) {
	registry := prometheus.NewRegistry()
	o := server.Options{Registry: registry, Limits: server.Limits{Connections: 100}}
	bubble(t, o, func(t *testing.T, e *edge) {
		e.request("GET /healthz HTTP/1.1", "Connection: close")
		e.request("GET /healthz HTTP/1.1") // goes when it has been idle
		e.request("NONSENSE")
		_, _ = e.handshake("Sec-WebSocket-Protocol: mqtt")
		browser, _ := e.handshake("Sec-WebSocket-Protocol: mqtt", "Origin: http://localhost:7070")
		browser.closing()
		e.open(protocol.Proto{}) // sends no Connect
		cut := e.connect(protocol.Proto{})
		_ = cut.socket.NetConn().Close()
		leaving := e.connect(protocol.JSON{})
		_ = leaving.socket.WriteClose(1000, nil)
		bad := e.open(protocol.Proto{})
		bad.write(frame(0xC2, nil))
		bad.closing()
		frozen, err := e.dial(protocol.Proto{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		frozen.mute = true
		frozen.send(&tidewirev1.Connect{Ref: 1})
		time.Sleep(3 * time.Minute)
		if n := value(t, registry, "tidewire_connections"); n != 0 {
			t.Errorf("%v connections are open", n)
		}
	})
}

func TestConnectionRate(t *testing.T) {
	registry := prometheus.NewRegistry()
	o := server.Options{Registry: registry, Limits: server.Limits{Rates: server.Rates{Connections: 2}}}
	bubble(t, o, func(t *testing.T, e *edge) {
		for _, want := range []int{200, 200, 429} {
			answer := e.request("GET /v1/topics/a/messages HTTP/1.1")
			if answer.StatusCode != want {
				t.Errorf("%s, want %d", answer.Status, want)
			}
			if want == 429 && (answer.Header.Get("Retry-After") != "1" || codeOf(t, answer) != protocol.CodeRateLimited) {
				t.Errorf("%v", answer.Header)
			}
		}
		time.Sleep(time.Second)
		if answer := e.request("GET /v1/topics/a/messages HTTP/1.1"); answer.StatusCode != http.StatusOK {
			t.Errorf("a second later: %s", answer.Status)
		}
		if n := met(t, registry, protocol.LimitConnectionRate); n != 1 {
			t.Errorf("counted %v", n)
		}
	})
}

// TestConnectionsPerAddress: an address that has all that it may have takes
// nothing from another one.
func TestConnectionsPerAddress(t *testing.T) {
	registry := prometheus.NewRegistry()
	b := broker.New(brokertest.NewLog(), broker.Options{})
	s, err := server.New(b, server.Options{Registry: registry, Limits: server.Limits{ConnectionsPerAddress: 2}, Access: server.Access{Loopback: true}})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := s.HTTP(s.Public())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = h.Serve(s.Gate(listener))
	}()
	defer func() {
		_ = h.Close()
		<-done
	}()
	from := func(address string) net.Conn {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: 10 * time.Second}
		conn, err := dialer.Dial("tcp", listener.Addr().String())
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Skip("this machine has no second loopback address (127.0.0.2)")
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	for _, want := range []int{200, 200, 503} {
		if answer := ask(t, from("127.0.0.1"), "GET /v1/topics/a/messages HTTP/1.1"); answer.StatusCode != want {
			t.Errorf("%s, want %d", answer.Status, want)
		}
	}
	if answer := ask(t, from("127.0.0.2"), "GET /v1/topics/a/messages HTTP/1.1"); answer.StatusCode != 200 {
		t.Errorf("another address: %s", answer.Status)
	}
	if n := met(t, registry, protocol.LimitAddress); n != 1 {
		t.Errorf("counted %v", n)
	}
}

// brokenListener has no file left for a while.
type brokenListener struct {
	*pipeListener
	tries atomic.Int32
	until time.Time
}

func (l *brokenListener) Accept() (net.Conn, error) {
	if time.Now().Before(l.until) {
		l.tries.Add(1)
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.pipeListener.Accept()
}

// TestAcceptDoesNotSpin: where connections cannot be accepted, trying goes on at
// a bounded pace, and ends well.
func TestAcceptDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := broker.New(brokertest.NewLog(), broker.Options{})
		s, err := server.New(b, server.Options{Access: server.Access{Loopback: true}})
		if err != nil {
			t.Fatal(err)
		}
		l := &brokenListener{pipeListener: newPipeListener(), until: time.Now().Add(10 * time.Second)}
		h := s.HTTP(s.Public())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = h.Serve(s.Gate(l))
		}()
		conn, err := l.dial()
		if err != nil {
			t.Fatal(err)
		}
		if answer := ask(t, conn, "GET /healthz HTTP/1.1", "Connection: close"); answer.StatusCode != http.StatusOK {
			t.Error(answer.Status)
		}
		if n := l.tries.Load(); n > 30 {
			t.Errorf("it tried %d times in 10 s", n)
		}
		_ = h.Close()
		<-done
	})
}
