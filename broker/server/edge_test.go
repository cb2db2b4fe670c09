package server

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// testEdge is a server on a log in memory.
type testEdge struct {
	*Server
	t       testing.TB
	log     *brokertest.Log
	handler http.Handler
	stop    func() // ends the broker; the test does so too
}

func newTestEdge(t testing.TB, o Options) *testEdge {
	t.Helper()
	return newTestEdgeOn(t, brokertest.NewLog(), o)
}

// newTestEdgeOn returns one on a given log.
func newTestEdgeOn(t testing.TB, log *brokertest.Log, o Options) *testEdge {
	t.Helper()
	b := broker.New(log, broker.Options{MaxPayload: o.Limits.PayloadBytes})
	return newTestEdgeOf(t, b, log, o)
}

// newTestEdgeParted returns one whose stream main has so many partitions.
func newTestEdgeParted(t testing.TB, partitions int) *testEdge {
	t.Helper()
	logs := brokertest.NewPartitions(partitions)
	main := broker.Stream{Name: broker.MainStream}
	for _, l := range logs {
		main.Logs = append(main.Logs, l)
	}
	return newTestEdgeOf(t, broker.New(nil, broker.Options{}, main), logs[0], anyone())
}

func newTestEdgeOf(t testing.TB, b *broker.Broker, log *brokertest.Log, o Options) *testEdge {
	t.Helper()
	e := &testEdge{t: t, log: log}
	s, err := New(b, o)
	if err != nil {
		t.Fatal(err)
	}
	e.Server, e.handler = s, s.Public()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = b.Run(ctx) })
	e.stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(e.stop)
	return e
}

// anyone is the options of a broker on loopback that asks nobody who they are.
func anyone() Options { return Options{Access: Access{Loopback: true}} }

// do sends a request; headers are "Name: value". Host is local if none is given.
func (e *testEdge) do(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	e.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "localhost:7070"
	setHeaders(r, headers)
	w := httptest.NewRecorder()
	e.handler.ServeHTTP(w, r)
	noteExchange(e.t, &exchange{publicListener, r, []byte(body), w.Code, w.Header(), w.Body.Bytes()})
	return w
}

func setHeaders(r *http.Request, headers []string) {
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ":")
		if value = strings.TrimPrefix(value, " "); name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Add(name, value)
	}
}

// publish stores a message and returns its answer.
func (e *testEdge) publishText(topic, payload string, headers ...string) published {
	e.t.Helper()
	w := e.do("POST", "/v1/topics/"+topic+"/messages", payload, headers...)
	if w.Code != http.StatusOK {
		e.t.Fatalf("publish to %s: %d %s", topic, w.Code, w.Body)
	}
	var p published
	decode(e.t, w.Body, &p)
	return p
}

// store puts a message into the log past the broker's checks, and waits.
func (e *testEdge) store(m protocol.Message) {
	e.t.Helper()
	stored := make(chan struct{})
	entry := &storage.Entry{Topic: m.Topic, Record: protocol.AppendRecord(nil, &m), Done: func(storage.Result) { close(stored) }}
	if err := e.log.Append(e.t.Context(), entry); err != nil {
		e.t.Fatal(err)
	}
	<-stored
}

func decode(t testing.TB, r io.Reader, into any) {
	t.Helper()
	d := json.NewDecoder(r)
	if err := d.Decode(into); err != nil {
		t.Fatal(err)
	}
}

// wantProblem checks a refusal in all its parts.
func wantProblem(t testing.TB, w *httptest.ResponseRecorder, code protocol.Code, sentence string) {
	t.Helper()
	status := code.Info().Status
	if w.Code != status {
		t.Errorf("status %d, want %d: %s", w.Code, status, w.Body)
		return
	}
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type %q", got)
	}
	if status == http.StatusUnauthorized && w.Header().Get("WWW-Authenticate") == "" {
		t.Error("401 without WWW-Authenticate")
	}
	var p problem
	decode(t, w.Body, &p)
	if p.Code != code || p.Status != status || p.Title == "" || p.Retryable != code.Retryable() {
		t.Errorf("problem %+v, want the code %s", p, code)
	}
	if !strings.Contains(p.Detail, sentence) {
		t.Errorf("detail %q, want %q in it", p.Detail, sentence)
	}
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		// net/http keeps a connection half a second after a refusal.
		t.Cleanup(func() { time.Sleep(time.Second) })
		f(t)
	})
}

// memListener hands out net.Pipe connections, for tests in virtual time.
type memListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *memListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7070} }

// serve answers requests over net.Pipe and returns how to dial and a client.
func (e *testEdge) serve() (dial func() net.Conn, client *http.Client) {
	l := &memListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	h := e.HTTP(e.handler)
	h.BaseContext = func(net.Listener) context.Context { return ctx }
	running.Go(func() { _ = h.Serve(e.Gate(l)) })
	dial = func() net.Conn {
		here, there := net.Pipe()
		l.conns <- there
		return here
	}
	transport := &http.Transport{
		DialContext:        func(context.Context, string, string) (net.Conn, error) { return dial(), nil },
		DisableCompression: true,
	}
	e.t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = h.Close()
		cancel()
		running.Wait()
	})
	return dial, &http.Client{
		Transport:     notingTransport{transport, e.t},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
