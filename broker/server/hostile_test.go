package server_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	"github.com/tidewire/tidewire/broker/server"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// raw is a WebSocket client that writes whatever it is told to.
type raw struct {
	t    testing.TB
	conn net.Conn
	br   *bufio.Reader
}

// handshake asks for an upgrade with these header lines and returns the answer.
func (e *edge) handshake(lines ...string) (*raw, *http.Response) {
	e.t.Helper()
	conn, err := e.listener.dial()
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	head := append([]string{
		"GET /v1/ws HTTP/1.1", "Host: localhost:7070", "Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
	}, lines...)
	if _, err := io.WriteString(conn, strings.Join(head, "\r\n")+"\r\n\r\n"); err != nil {
		e.t.Fatal(err)
	}
	r := &raw{t: e.t, conn: conn, br: bufio.NewReader(conn)}
	resp, err := http.ReadResponse(r.br, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	return r, resp
}

// open returns a raw client on an upgraded connection.
func (e *edge) open(codec protocol.Codec) *raw {
	e.t.Helper()
	r, resp := e.handshake("Sec-WebSocket-Protocol: " + codec.Subprotocol())
	if resp.StatusCode != http.StatusSwitchingProtocols {
		e.t.Fatal(resp.Status)
	}
	return r
}

func (r *raw) write(b []byte) {
	r.t.Helper()
	go func() { _, _ = r.conn.Write(b) }() // the server may close before it has read all
}

// frame returns a masked frame; the mask is zero.
func frame(first byte, payload []byte) []byte {
	b := []byte{first}
	switch {
	case len(payload) < 126:
		b = append(b, 0x80|byte(len(payload)))
	case len(payload) < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(len(payload)))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(len(payload)))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

// closing reads frames until the close frame and returns its code; 1006 if the
// connection ends without one.
func (r *raw) closing() (code uint16, reason string) {
	r.t.Helper()
	for {
		opcode, payload, err := r.read()
		if err != nil {
			return 1006, err.Error()
		}
		if opcode == 8 && len(payload) >= 2 {
			return binary.BigEndian.Uint16(payload), string(payload[2:])
		}
	}
}

func (r *raw) read() (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r.br, head[:]); err != nil {
		return 0, nil, err
	}
	size := uint64(head[1] & 0x7F)
	switch size {
	case 126:
		var b [2]byte
		_, err = io.ReadFull(r.br, b[:])
		size = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, err = io.ReadFull(r.br, b[:])
		size = binary.BigEndian.Uint64(b[:])
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(r.br, payload)
	return head[0] & 0x0F, payload, err
}

// TestBadFrames sends what a client must not send. Each connection is closed
// with the code that docs/protocol.md names, and the others go on.
func TestBadFrames(t *testing.T) {
	e := newEdgeOn(t, brokertest.NewLog(), server.Options{}, broker.Options{})
	connect := protocol.Proto{}.AppendClient(nil, &tidewirev1.Connect{Ref: 1})
	neighbour := e.connect(protocol.Proto{}, &tidewirev1.Subscribe{Sub: 1, Filter: ">"})
	follow := newReader(t, "", ">")
	follow.until(neighbour, func() bool { return follow.subs[1].caughtUp })
	tests := []struct {
		name  string
		codec protocol.Codec
		bytes []byte
		code  uint16
	}{
		{"negative 64-bit length", protocol.Proto{}, []byte{0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}, 1002},
		{"huge length", protocol.Proto{}, []byte{0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0}, 1009},
		{"15 MiB", protocol.Proto{}, append(binary.BigEndian.AppendUint64([]byte{0x82, 0xFF}, 15<<20), 0, 0, 0, 0), 1009},
		{"without a mask", protocol.Proto{}, []byte{0x82, 1, 0}, 1002},
		{"reserved bit", protocol.Proto{}, frame(0xC2, connect), 1002},
		{"unknown opcode", protocol.Proto{}, frame(0x83, connect), 1002},
		{"fragmented ping", protocol.Proto{}, frame(0x09, nil), 1002},
		{"continuation of nothing", protocol.Proto{}, frame(0x80, connect), 1002},
		{"fragments above the limit", protocol.Proto{}, append(frame(0x02, make([]byte, 600<<10)), frame(0x80, make([]byte, 600<<10))...), 1009},
		{"text to the binary codec", protocol.Proto{}, frame(0x81, []byte("{}")), 3506},
		{"binary to the text codec", protocol.JSON{}, frame(0x82, connect), 3506},
		{"bad UTF-8", protocol.JSON{}, frame(0x81, []byte("{\"type\":\"\xff\"}")), 1007},
		{"not protobuf", protocol.Proto{}, frame(0x82, []byte{0xFF, 0xFF, 0xFF}), 3504},
		{"empty", protocol.Proto{}, frame(0x82, nil), 3504},
		{"not JSON", protocol.JSON{}, frame(0x81, []byte("hello")), 3504},
		{"no type", protocol.JSON{}, frame(0x81, []byte(`{"ref":1}`)), 3504},
		{"deep JSON", protocol.JSON{}, frame(0x81, []byte(`{"type":`+strings.Repeat("[", 500_000))), 3504},
		{"publish before connect", protocol.Proto{}, frame(0x82, protocol.Proto{}.AppendClient(nil, &protocol.Publish{Messages: script[0]})), 3507},
		{"connect twice", protocol.Proto{}, append(frame(0x82, connect), frame(0x82, connect)...), 3508},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := e.open(test.codec)
			r.write(test.bytes)
			if code, reason := r.closing(); code != test.code {
				t.Errorf("closed with %d %s, want %d", code, reason, test.code)
			}
			e.publish(msg("alive", test.name))
			follow.until(neighbour, func() bool {
				got := follow.subs[1].got
				return len(got) > 0 && got[len(got)-1] == "alive "+test.name
			})
		})
	}
}

// TestFragments takes a frame in pieces, with a ping in between.
func TestFragments(t *testing.T) {
	e := newEdgeOn(t, brokertest.NewLog(), server.Options{}, broker.Options{})
	r := e.open(protocol.JSON{})
	r.write(append(append(frame(0x01, []byte(`{"type":"con`)), frame(0x89, []byte("x"))...), frame(0x80, []byte(`nect"}`))...))
	seen := map[byte]bool{}
	for !seen[1] || !seen[10] {
		opcode, payload, err := r.read()
		if err != nil {
			t.Fatal(err)
		}
		seen[opcode] = true
		if opcode == 1 && !strings.Contains(string(payload), `"type":"welcome"`) {
			t.Errorf("got %s", payload)
		}
		if opcode == 10 && string(payload) != "x" {
			t.Errorf("pong with %q", payload)
		}
	}
}

// TestRefusedUpgrades: programs read a status; browsers, and who uses their
// WebSocket elsewhere, a close code.
func TestRefusedUpgrades(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	e := newEdgeOn(t, brokertest.NewLog(), server.Options{Access: server.Access{JWT: server.JWT{Secret: secret}, AllowedOrigins: []string{"https://app.example"}}}, broker.Options{})
	browser := "Origin: https://app.example"
	expired, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "ann", "exp": 1}).SignedString(secret)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		lines  []string
		status int
		code   uint16
		echo   string
	}{
		{"no token, program", []string{"Sec-WebSocket-Protocol: tidewire.v1.json"}, 401, 0, ""},
		{"no token, browser", []string{browser, "Sec-WebSocket-Protocol: tidewire.v1.json"}, 101, 3500, "tidewire.v1.json"},
		{"bad token, browser", []string{browser, "Sec-WebSocket-Protocol: bearer.abc, tidewire.v1.proto"}, 101, 3500, "tidewire.v1.proto"},
		{"expired token, program", []string{"Authorization: Bearer " + expired, "Sec-WebSocket-Protocol: tidewire.v1.json"}, 401, 0, ""},
		{"expired token, browser", []string{browser, "Sec-WebSocket-Protocol: tidewire.v1.json, bearer." + expired}, 101, 3505, "tidewire.v1.json"},
		{"foreign origin", []string{"Origin: https://evil.example", "Sec-WebSocket-Protocol: tidewire.v1.json"}, 101, 3502, "tidewire.v1.json"},
		{"unknown subprotocol, browser", []string{browser, "Sec-WebSocket-Protocol: mqtt"}, 101, 3500, "mqtt"},
		{"bad token, WebSocket of the web", []string{"Sec-WebSocket-Protocol: tidewire.v1.proto, bearer.abc"}, 101, 3500, "tidewire.v1.proto"},
		{"expired token, WebSocket of the web", []string{"Sec-WebSocket-Protocol: tidewire.v1.json", "Sec-WebSocket-Protocol: bearer." + expired}, 101, 3505, "tidewire.v1.json"},
		{"only a token, browser", []string{browser, "Sec-WebSocket-Protocol: bearer.abc"}, 101, 3500, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, resp := e.handshake(test.lines...)
			if resp.StatusCode != test.status || resp.Header.Get("Sec-WebSocket-Protocol") != test.echo {
				t.Fatalf("%s, subprotocol %q", resp.Status, resp.Header.Get("Sec-WebSocket-Protocol"))
			}
			if test.code == 0 {
				if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
					t.Errorf("content type %s", got)
				}
				if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), `"retryable":false`) {
					t.Errorf("who has nothing else is told to come back: %s, %v", body, err)
				}
				return
			}
			if code, reason := r.closing(); code != test.code || reason == "" {
				t.Errorf("closed with %d %q, want %d", code, reason, test.code)
			}
		})
	}
}

func TestBadSubprotocol(t *testing.T) {
	e := newEdgeOn(t, brokertest.NewLog(), server.Options{}, broker.Options{})
	if _, resp := e.handshake("Sec-WebSocket-Protocol: mqtt"); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("program: %s", resp.Status)
	}
	r, resp := e.handshake("Origin: http://localhost:7070", "Sec-WebSocket-Protocol: mqtt")
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp.Status)
	}
	if code, _ := r.closing(); code != 3509 {
		t.Errorf("browser: closed with %d", code)
	}
}

// TestAnnouncedLengths opens many connections that each announce a large frame
// and never send it: memory stays where it is.
func TestAnnouncedLengths(t *testing.T) {
	e := newEdgeOn(t, brokertest.NewLog(), server.Options{}, broker.Options{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 200 {
		r := e.open(protocol.Proto{})
		r.write(append(binary.BigEndian.AppendUint64([]byte{0x82, 0xFF}, 15<<20), 0, 0, 0, 0))
		if code, _ := r.closing(); code != 1009 {
			t.Fatalf("closed with %d", code)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 30<<20 {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	}
	if total := after.TotalAlloc - before.TotalAlloc; total > 200<<20 {
		t.Errorf("%d MiB were allocated for frames that never came", total>>20)
	}
}

// TestRequestErrors: a request that cannot be served is answered, and the
// session goes on.
func TestRequestErrors(t *testing.T) {
	e := newEdgeOn(t, brokertest.NewLog(), server.Options{Limits: server.Limits{Subscriptions: 3, PublishMessages: 2}}, broker.Options{MaxSubs: 3, MaxPayload: 100})
	c := e.connect(protocol.Proto{}, &tidewirev1.Subscribe{Sub: 9, Filter: "a"})
	sub := func(n uint32, filter, from string) any {
		return &tidewirev1.Subscribe{Sub: n, Filter: filter, From: from}
	}
	pub := func(m ...protocol.Message) any { return &protocol.Publish{Ref: 5, Messages: m} }
	tests := []struct {
		send any
		code protocol.Code
		text string
	}{
		{sub(1, "orders.", ""), protocol.CodeInvalidFilter, "did the shell take your '>'? Quote it"},
		{sub(1, "a..b", ""), protocol.CodeInvalidFilter, "empty token"},
		{sub(1, "", ""), protocol.CodeInvalidFilter, "empty"},
		{sub(1, "a.>.b", ""), protocol.CodeInvalidFilter, "last token"},
		{sub(0, "a", ""), protocol.CodeBadRequest, "above 0"},
		{sub(9, "a", ""), protocol.CodeSubscriptionInUse, "another number"},
		{sub(1, "a", "1234"), protocol.CodeOffsetNotPosition, "1234"},
		{sub(1, "a", "yesterday"), protocol.CodeInvalidStart, "earliest"},
		{sub(1, "a", "pxyz"), protocol.CodeInvalidPosition, "position"},
		{sub(1, "a", "pabc-3_7"), protocol.CodeInvalidPosition, "partition"},
		{sub(1, "a", "last:0"), protocol.CodeInvalidStart, "1 to"},
		{&tidewirev1.Subscribe{Sub: 1, Filter: "a", Stream: "other"}, protocol.CodeUnknownStream, "main"},
		{&tidewirev1.Unsubscribe{Sub: 44}, protocol.CodeUnknownSubscription, "44"},
		{pub(msg("", "x")), protocol.CodeInvalidTopic, "empty"},
		{pub(msg("a.*", "x")), protocol.CodeInvalidTopic, "filters"},
		{pub(msg("a b", "x")), protocol.CodeInvalidTopic, "space"},
		{pub(msg(strings.Repeat("a", 256), "x")), protocol.CodeInvalidTopic, "at most 255"},
		{pub(msg("$dead.x", "x")), protocol.CodeReservedTopic, "$"},
		{pub(msg("a", strings.Repeat("x", 101))), protocol.CodePayloadTooLarge, "at most 100"},
		{pub(protocol.Message{Topic: "a", ID: strings.Repeat("i", 129)}), protocol.CodeInvalidID, "at most 128"},
		{pub(protocol.Message{Topic: "a", Headers: []protocol.Header{{Name: "x", Value: "1"}, {Name: "X", Value: "2"}}}), protocol.CodeInvalidHeader, "twice"},
		{pub(protocol.Message{Topic: "a", Headers: make([]protocol.Header, 40)}), protocol.CodeInvalidHeader, "32 headers"},
		{pub(msg("a", "1"), msg("a", "2"), msg("a", "3")), protocol.CodeTooManyMessages, "at most 2"},
		{&tidewirev1.Subscribe{Sub: 7, Filter: "a", Slow: "no"}, protocol.CodeBadRequest, "disconnect"},
		{&tidewirev1.Flow{Sub: 7, Credit: 1}, protocol.CodeUnknownSubscription, "no subscription 7"},
	}
	for i, test := range tests {
		c.send(test.send)
		if code, text := c.refusal(); code != test.code || !strings.Contains(text, test.text) {
			t.Errorf("%d: %s %q, want %s %q", i, code, text, test.code, test.text)
		}
	}
	c.send(sub(1, "a", ""))
	c.send(sub(2, "a", ""))
	c.send(sub(3, "a", ""))
	if code, _ := c.refusal(); code != protocol.CodeTooManySubscriptions {
		t.Errorf("a fourth subscription: %s", code)
	}
}

// TestErrorsAreAttributed: a refused request is told from an error of the
// connection also where it gives no number of its own, and the session goes on.
func TestErrorsAreAttributed(t *testing.T) {
	e := newEdge(t, server.Options{Limits: server.Limits{PublishMessages: 1}}, broker.Options{})
	c := e.connect(protocol.Proto{})
	next := func() *tidewirev1.Error {
		for {
			select {
			case f := <-c.frames:
				if f, ok := f.(*tidewirev1.Error); ok {
					return f
				}
			case <-c.closed:
				t.Fatalf("closed: %v", c.err)
			case <-time.After(10 * time.Second):
				t.Fatal("nothing comes")
			}
		}
	}
	for _, test := range []struct {
		send     any
		request  string
		ref, sub uint32
		says     string
	}{
		{&tidewirev1.Subscribe{Filter: "a"}, "subscribe", 0, 0, "`sub` is missing"},
		{&tidewirev1.Subscribe{Sub: 4, Filter: "a..b"}, "subscribe", 0, 4, "empty token"},
		{&tidewirev1.Unsubscribe{}, "unsubscribe", 0, 0, "no subscription 0"},
		{&protocol.Publish{}, "publish", 0, 0, "no message"},
		{&protocol.Publish{Ref: 7, Messages: []protocol.Message{msg("a", "x"), msg("a", "y")}}, "publish", 7, 0, "at most 1"},
		{&tidewirev1.Refresh{Token: "x"}, "refresh", 0, 0, "JWT"},
		{&tidewirev1.Refresh{Ref: 9, Token: "x"}, "refresh", 9, 0, "JWT"},
	} {
		c.send(test.send)
		if f := next(); f.Request != test.request || f.Ref != test.ref || f.Sub != test.sub || !strings.Contains(f.Message, test.says) {
			t.Errorf("%v is answered with %v", test.send, f)
		}
	}
	// A publish without a ref has its answer as any other.
	c.send(&protocol.Publish{Messages: []protocol.Message{msg("a", "x")}})
	for {
		if p, ok := (<-c.frames).(*protocol.Published); ok {
			if len(p.Results) != 1 || p.Results[0].Ref != 0 || p.Results[0].Err != nil {
				t.Errorf("%+v", p.Results)
			}
			return
		}
	}
}

// TestIDConflict repeats an id with the same payload and with another one.
func TestIDConflict(t *testing.T) {
	e := newEdge(t, server.Options{}, broker.Options{})
	c := e.connect(protocol.Proto{})
	publish := func(topic, payload string) protocol.PublishResult {
		c.send(&protocol.Publish{Ref: 1, Messages: []protocol.Message{{Topic: topic, ID: "one", Payload: []byte(payload)}}})
		for {
			if p, ok := (<-c.frames).(*protocol.Published); ok {
				return p.Results[0]
			}
		}
	}
	first := publish("a", "x")
	if again := publish("a", "x"); !again.Duplicate || again.Position != first.Position {
		t.Errorf("repeat: %+v, first %+v", again, first)
	}
	if other := publish("a", "y"); other.Err == nil || other.Err.Code != protocol.CodeIDConflict {
		t.Errorf("other payload: %+v", other)
	}
	if elsewhere := publish("b", "y"); elsewhere.Duplicate || elsewhere.Err != nil {
		t.Errorf("other topic: %+v", elsewhere)
	}
}

// refusal returns the next refusal that comes.
func (c *client) refusal() (protocol.Code, string) {
	c.t.Helper()
	for {
		select {
		case f := <-c.frames:
			switch f := f.(type) {
			case *tidewirev1.Error:
				return protocol.Code(f.Code), f.Message
			case *protocol.Published:
				for _, r := range f.Results {
					if r.Err != nil {
						return r.Err.Code, r.Err.Message
					}
				}
			}
		case <-c.closed:
			return "", fmt.Sprint("closed: ", c.err)
		case <-time.After(10 * time.Second):
			return "", "nothing comes"
		}
	}
}
