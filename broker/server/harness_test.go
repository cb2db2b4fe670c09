package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/lxzan/gws"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	"github.com/tidewire/tidewire/broker/server"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// edge is a broker on a real log behind a real server, reached over net.Pipe.
type edge struct {
	t        testing.TB
	log      broker.Log   // the first of logs
	logs     []broker.Log // partitions of main
	broker   *broker.Broker
	server   *server.Server
	listener *pipeListener
}

// newEdge starts one on a log on disk; it stops with the test.
func newEdge(t testing.TB, o server.Options, bo broker.Options) *edge {
	t.Helper()
	store, err := storage.Open(memoryDir(t), storage.Options{ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	log, err := store.OpenLog("main", storage.LogOptions{SegmentBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = log.Close()
		_ = store.Close()
	})
	return newEdgeOn(t, log, o, bo)
}

// newEdgeOn starts one on a given log.
func newEdgeOn(t testing.TB, log broker.Log, o server.Options, bo broker.Options) *edge {
	t.Helper()
	return newEdgeOf(t, broker.New(log, bo), []broker.Log{log}, o)
}

// newParted starts one whose stream main has so many partitions.
func newParted(t testing.TB, partitions int, o server.Options, bo broker.Options) *edge {
	t.Helper()
	if partitions == 1 {
		return newEdgeOn(t, brokertest.NewLog(), o, bo)
	}
	main := broker.Stream{Name: broker.MainStream}
	for _, l := range brokertest.NewPartitions(partitions) {
		main.Logs = append(main.Logs, l)
	}
	return newEdgeOf(t, broker.New(nil, bo, main), main.Logs, o)
}

func newEdgeOf(t testing.TB, b *broker.Broker, logs []broker.Log, o server.Options) *edge {
	t.Helper()
	o.Access.Loopback = true
	s, err := server.New(b, o)
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{t: t, log: logs[0], logs: logs, broker: b, server: s, listener: newPipeListener()}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := b.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	h := s.HTTP(s.Public())
	h.BaseContext = func(net.Listener) context.Context { return ctx }
	running.Go(func() { _ = h.Serve(s.Gate(e.listener)) })
	t.Cleanup(func() {
		gone, stop := context.WithCancel(context.Background())
		stop()
		s.Drain(gone, 0)
		cancel()
		_ = h.Close()
		running.Wait()
	})
	return e
}

// memoryDir returns a directory in which a sync costs nothing, if there is one.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "tidewire-test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// publish stores messages, in one batch, and waits for their answers.
func (e *edge) publish(messages ...protocol.Message) {
	e.t.Helper()
	var answered sync.WaitGroup
	entries := make([][]*storage.Entry, len(e.logs))
	for i := range messages {
		m := &messages[i]
		answered.Add(1)
		in := protocol.Partition(m.Topic, len(e.logs))
		entries[in] = append(entries[in], &storage.Entry{Topic: m.Topic, Record: protocol.AppendRecord(nil, m), Done: func(r storage.Result) {
			if r.Err != nil {
				e.t.Error(r.Err)
			}
			answered.Done()
		}})
	}
	for in, part := range entries {
		if len(part) == 0 {
			continue
		}
		if err := e.logs[in].Append(context.Background(), part...); err != nil {
			e.t.Fatal(err)
		}
	}
	answered.Wait()
}

// end returns where the log ends, and how many offsets it has given.
func (e *edge) end() (at protocol.Vector, given uint64) {
	for _, l := range e.logs {
		_, head := l.Bounds()
		at = l.PositionOf(head).With(at.Places)
		given += head
	}
	return at, given
}

func msg(topic, payload string) protocol.Message {
	return protocol.Message{Topic: topic, Payload: []byte(payload)}
}

// pipeListener hands out net.Pipe connections.
type pipeListener struct {
	from   net.IP // of who dials; 192.0.2.1 if there is none
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) dial() (net.Conn, error) {
	client, srv := net.Pipe()
	from := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
	if l.from != nil {
		from.IP = l.from
	}
	select {
	case l.conns <- remote{srv, from}:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7070} }

// remote is a connection that comes from an address.
type remote struct {
	net.Conn
	from net.Addr
}

func (r remote) RemoteAddr() net.Addr { return r.from }

// cutConn ends the connection after a number of bytes were read from it.
type cutConn struct {
	net.Conn
	left int
}

func (c *cutConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		_ = c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	if len(b) > c.left {
		b = b[:c.left]
	}
	n, err := c.Conn.Read(b)
	c.left -= n
	return n, err
}

// client is a WebSocket client that keeps what it receives. It answers pings.
type client struct {
	t      testing.TB
	socket *gws.Conn
	codec  protocol.Codec
	frames chan any // *protocol.Deliver or another frame of the server
	kept   []any    // that were taken from there, for later
	closed chan struct{}
	err    error // valid when closed is closed
	mute   bool  // does not answer pings
}

func contextFor(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// dialToken opens a session with a token.
func (e *edge) dialToken(token string) *client {
	e.t.Helper()
	c, err := e.dialWith(http.Header{"Authorization": {"Bearer " + token}}, protocol.Proto{}, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	c.send(&tidewirev1.Connect{Ref: 1})
	return c
}

// dial connects. wrap may put something between the socket and the client.
func (e *edge) dial(codec protocol.Codec, wrap func(net.Conn) net.Conn) (*client, error) {
	return e.dialWith(http.Header{}, codec, wrap)
}

func (e *edge) dialWith(header http.Header, codec protocol.Codec, wrap func(net.Conn) net.Conn) (*client, error) {
	conn, err := e.listener.dial()
	if err != nil {
		return nil, err
	}
	if wrap != nil {
		conn = wrap(conn)
	}
	c := &client{t: e.t, codec: codec, frames: make(chan any, 10_000), closed: make(chan struct{})}
	header.Set("Sec-Websocket-Protocol", codec.Subprotocol())
	socket, _, err := gws.NewClientFromConn(c, &gws.ClientOption{Addr: "ws://localhost:7070/v1/ws", RequestHeader: header}, conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	c.socket = socket
	go socket.ReadLoop()
	return c, nil
}

// connect dials, and opens a session with subscriptions.
func (e *edge) connect(codec protocol.Codec, subs ...*tidewirev1.Subscribe) *client {
	e.t.Helper()
	c, err := e.dial(codec, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = c.socket.NetConn().Close() })
	c.send(&tidewirev1.Connect{Ref: 1, Client: "test", Subscriptions: subs})
	return c
}

func (c *client) OnOpen(*gws.Conn) {}
func (c *client) OnClose(_ *gws.Conn, err error) {
	c.err = err
	close(c.closed)
}
func (c *client) OnPing(socket *gws.Conn, payload []byte) { _ = socket.WritePong(payload) }
func (c *client) OnPong(*gws.Conn, []byte)                {}

func (c *client) OnMessage(_ *gws.Conn, m *gws.Message) {
	defer func() { _ = m.Close() }()
	frame, err := c.decode(append([]byte(nil), m.Bytes()...))
	if err != nil {
		c.t.Errorf("decode a frame: %v", err)
		return
	}
	if ping, ok := frame.(*tidewirev1.Ping); ok && !c.mute {
		c.send(&tidewirev1.Pong{Seq: ping.Seq})
	}
	c.frames <- frame
}

func (c *client) send(frame any) {
	if _, ok := c.codec.(protocol.Proto); ok {
		_ = c.socket.WriteMessage(gws.OpcodeBinary, protocol.Proto{}.AppendClient(nil, frame))
		return
	}
	_ = c.socket.WriteMessage(gws.OpcodeText, clientJSON(c.t, frame))
}

// clientJSON writes a client's frame as text.
func clientJSON(t testing.TB, frame any) []byte {
	kind := map[string]string{
		"*protocol.Publish": "publish", "*tidewirev1.Connect": "connect", "*tidewirev1.Subscribe": "subscribe",
		"*tidewirev1.Unsubscribe": "unsubscribe", "*tidewirev1.Pong": "pong", "*tidewirev1.Refresh": "refresh", "*tidewirev1.Flow": "flow",
	}[fmt.Sprintf("%T", frame)]
	if p, ok := frame.(*protocol.Publish); ok {
		frame = map[string]any{"ref": p.Ref, "messages": p.Messages, "resume": p.Resume}
	}
	body, err := json.Marshal(frame)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	_ = json.Unmarshal(body, &fields)
	fields["type"] = kind
	body, _ = json.Marshal(fields)
	return body
}

func (c *client) decode(b []byte) (any, error) {
	if _, ok := c.codec.(protocol.Proto); ok {
		return protocol.Proto{}.DecodeServer(b)
	}
	return decodeJSON(b)
}

// decodeJSON reads the frames that the tests look at.
func decodeJSON(b []byte) (any, error) {
	var head struct {
		Type     string            `json:"type"`
		Position string            `json:"position"`
		Messages []protocolJSON    `json:"messages"`
		Results  []publishedResult `json:"results"`
		Sub      uint32            `json:"sub"`
		After    uint64            `json:"after"`
		Through  uint64            `json:"through"`
		Error    *tidewirev1.Error `json:"error"`

		Partition uint32   `json:"partition"`
		Subs      []uint32 `json:"subs"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, err
	}
	switch head.Type {
	case "deliver":
		d, err := jsonDeliver(head.Sub, head.After, head.Through, head.Messages)
		if err != nil || head.Position == "" { // then the messages are ephemeral
			return d, err
		}
		at, others, err := placed(head.Position, head.Partition)
		d.Partition, d.Term, d.Others = head.Partition, at.Term, others
		return d, err
	case "published":
		p := &protocol.Published{}
		for _, r := range head.Results {
			position, _ := protocol.ParsePosition(r.Position)
			p.Results = append(p.Results, protocol.PublishResult{Ref: r.Ref, Position: position, Duplicate: r.Duplicate, Err: protocol.FrameError(r.Error)})
		}
		return p, nil
	case "subscribed":
		return into[tidewirev1.Subscribed](b)
	case "caught_up":
		return into[tidewirev1.CaughtUp](b)
	case "gap":
		return into[tidewirev1.Gap](b)
	case "progress":
		at, others, err := placed(head.Position, head.Partition)
		return &protocol.Progress{Subs: head.Subs, At: at, Others: others}, err
	case "go_away":
		return into[tidewirev1.GoAway](b)
	case "ping":
		return into[tidewirev1.Ping](b)
	case "error":
		return into[tidewirev1.Error](b)
	case "unsubscribed":
		return into[tidewirev1.Unsubscribed](b)
	case "welcome":
		return &tidewirev1.Welcome{}, nil
	}
	return nil, errors.New("unknown frame " + head.Type)
}

type protocolJSON struct {
	Topic    string `json:"topic"`
	Position string `json:"position"`
	Payload  string `json:"payload"`
}

type publishedResult struct {
	Ref       uint32            `json:"ref"`
	Position  string            `json:"position"`
	Duplicate bool              `json:"duplicate"`
	Error     *tidewirev1.Error `json:"error"`
}

func into[T any](b []byte) (any, error) {
	v := new(T)
	err := json.Unmarshal(b, v)
	return v, err
}

// placed takes the position of a frame apart.
func placed(position string, partition uint32) (at protocol.Position, others []protocol.Place, err error) {
	v, err := protocol.ParseVector(position)
	at, ok := v.At(partition)
	if err == nil && !ok {
		err = fmt.Errorf("the position %s lacks partition %d of its frame", position, partition)
	}
	others = []protocol.Place{} // the text says it all
	for _, p := range v.Places {
		if p.Partition != partition {
			others = append(others, p)
		}
	}
	return at, others, err
}

func jsonDeliver(sub uint32, after, through uint64, messages []protocolJSON) (*protocol.Deliver, error) {
	d := &protocol.Deliver{Sub: sub, Chunk: protocol.Chunk{After: after, Through: through}}
	for _, m := range messages {
		var at protocol.Position
		var err error
		if m.Position != "" {
			at, err = protocol.ParsePosition(m.Position)
		}
		if err != nil {
			return nil, err
		}
		d.Records = protocol.AppendFramed(d.Records, protocol.AppendRecord(nil, &protocol.Message{Topic: m.Topic, Payload: []byte(m.Payload), Position: at}))
		d.Count++
	}
	return d, nil
}
