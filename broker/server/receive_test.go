package server_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/broker/server"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// announce begins a binary frame of a size.
func announce(size int) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{0x82, 0xFF}, uint64(size)), 0, 0, 0, 0)
}

// TestAnnouncedFrames opens many connections that each announce a frame of the
// largest size and send nothing of it: that costs nothing.
func TestAnnouncedFrames(t *testing.T) {
	bubble(t, server.Options{}, func(t *testing.T, e *edge) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 200 {
			e.open(protocol.Proto{}).write(announce(1 << 20))
		}
		synctest.Wait()
		runtime.ReadMemStats(&after)
		if total := after.TotalAlloc - before.TotalAlloc; total > 40<<20 {
			t.Errorf("%d MiB were allocated for 200 frames that did not come", total>>20)
		}
	})
}

// TestHalfReceived: many connections send most of a large frame, or of a large
// body, and stop. All of them together hold no more than the bound; and somebody
// who sends a large message as usual gets through.
func TestHalfReceived(t *testing.T) {
	const bound = 4 << 20
	registry := prometheus.NewRegistry()
	o := server.Options{Registry: registry, Limits: server.Limits{ReceivingBytes: bound, PayloadBytes: 512 << 10}}
	bubble(t, o, func(t *testing.T, e *edge) {
		part := make([]byte, 500<<10)
		head := protocol.Proto{}.AppendClient(nil, &tidewirev1.Connect{Ref: 1})
		var stuck []*raw
		for range 5 {
			r := e.open(protocol.Proto{})
			r.write(append(append(frame(0x82, head), announce(1<<20)...), part...))
			stuck = append(stuck, r)
			synctest.Wait() // so that the first is the first
		}
		for range 5 {
			conn, err := e.listener.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			go func() {
				_, _ = fmt.Fprintf(conn, "POST /v1/topics/a/messages HTTP/1.1\r\nHost: localhost:7070\r\nContent-Length: %d\r\n\r\n", 512<<10)
				_, _ = conn.Write(part)
			}()
			go func() { _, _ = io.Copy(io.Discard, conn) }()
		}
		synctest.Wait()
		if n := value(t, registry, "tidewire_receiving_bytes"); n > bound || n < bound/2 {
			t.Errorf("%v bytes are held, at most %d may be", n, bound)
		}
		start := time.Now()
		neighbour := e.connect(protocol.Proto{})
		m := protocol.Message{Topic: "a", Payload: bytes.Repeat([]byte("x"), 250<<10)}
		neighbour.send(&protocol.Publish{Ref: 1, Messages: []protocol.Message{m}})
		for stored := false; !stored; {
			switch f := (<-neighbour.frames).(type) {
			case *protocol.Published:
				if stored = true; f.Results[0].Err != nil {
					t.Error(f.Results[0].Err)
				}
			case *tidewirev1.Error:
				t.Fatal(f.Code)
			}
		}
		within(t, "the neighbour's message", start, 0, 3*time.Second)
		if code, reason := stuck[0].closing(); code != 3002 {
			t.Errorf("the first of them was closed with %d %s", code, reason)
		}
		synctest.Wait()
		if met(t, registry, protocol.LimitReceiving) == 0 {
			t.Error("nothing was counted")
		}
	})
}

// TestSlowBodyIsTold: a body that was overtaken is answered.
func TestSlowBodyIsTold(t *testing.T) {
	o := server.Options{Limits: server.Limits{ReceivingBytes: 256 << 10}}
	bubble(t, o, func(t *testing.T, e *edge) {
		conn, err := e.listener.dial()
		if err != nil {
			t.Fatal(err)
		}
		answer := make(chan *http.Response, 1)
		go func() {
			answer <- ask(t, conn, "POST /v1/topics/a/messages HTTP/1.1", "Content-Length: 200000")
		}()
		synctest.Wait()
		go func() { _, _ = conn.Write(make([]byte, 150_000)) }()
		time.Sleep(2 * time.Second)
		if other := e.post("b", make([]byte, 150_000)); other.StatusCode != http.StatusOK {
			t.Errorf("the other one: %s", other.Status)
		}
		slow := <-answer
		if code := codeOf(t, slow); slow.StatusCode != http.StatusServiceUnavailable || code != protocol.CodeSlowConnection {
			t.Errorf("%s %s", slow.Status, code)
		}
	})
}

// post publishes over HTTP on a connection of its own.
func (e *edge) post(topic string, payload []byte) *http.Response {
	e.t.Helper()
	conn, err := e.listener.dial()
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = conn.Close() })
	go func() {
		_, _ = fmt.Fprintf(conn, "POST /v1/topics/%s/messages HTTP/1.1\r\nHost: localhost:7070\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", topic, len(payload), payload)
	}()
	return readAnswer(e.t, conn)
}
