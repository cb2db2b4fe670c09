package tidewire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lxzan/gws"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// fakeBroker is the other end of Options.Dial: each dial gives a test the broker's
// end of a pipe, on which it plays its script.
type fakeBroker struct {
	t     testing.TB
	peers chan *peer

	mu     sync.Mutex
	dials  []time.Time
	addrs  []string
	refuse func(n int) error     // of the n-th dial, from 0; nil accepts all
	reply  func() *http.Response // refuses handshakes if set
	auth   []string              // Authorization headers seen
}

func newFake(t testing.TB) *fakeBroker {
	return &fakeBroker{t: t, peers: make(chan *peer, 1000)}
}

func (b *fakeBroker) dial(_ context.Context, _, addr string) (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.dials)
	b.dials = append(b.dials, time.Now())
	b.addrs = append(b.addrs, addr)
	if b.refuse != nil {
		if err := b.refuse(n); err != nil {
			return nil, err
		}
	}
	near, far := net.Pipe()
	go b.serve(far, b.reply)
	return near, nil
}

func (b *fakeBroker) serve(conn net.Conn, reply func() *http.Response) {
	br := bufio.NewReader(conn)
	req, err := http.ReadRequest(br)
	if err != nil {
		conn.Close()
		return
	}
	b.mu.Lock()
	b.auth = append(b.auth, req.Header.Get("Authorization"))
	b.mu.Unlock()
	if reply != nil {
		_ = reply().Write(conn)
		conn.Close()
		return
	}
	p := &peer{t: b.t, conn: conn, frames: make(chan any, 10_000), gone: make(chan struct{})}
	up := gws.NewUpgrader(p, &gws.ServerOption{SubProtocols: []string{protocol.SubprotocolProto}})
	ws, err := up.UpgradeFromConn(conn, br, req)
	if err != nil {
		return
	}
	p.ws = ws
	b.peers <- p
	ws.ReadLoop()
	close(p.gone)
}

func (b *fakeBroker) times() []time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]time.Time(nil), b.dials...)
}

// accept waits for the next connection.
func (b *fakeBroker) accept() *peer {
	b.t.Helper()
	select {
	case p := <-b.peers:
		return p
	case <-time.After(10 * time.Minute):
		b.t.Fatal("nobody has connected")
		return nil
	}
}

// welcome waits for the next connection and welcomes it.
func (b *fakeBroker) welcome() (*peer, *tidewirev1.Connect) {
	b.t.Helper()
	p := b.accept()
	c := expect[*tidewirev1.Connect](p)
	p.send(welcomeFrame())
	return p, c
}

func welcomeFrame() *tidewirev1.Welcome {
	return &tidewirev1.Welcome{
		Session: "s1", PingIntervalMs: 25_000, PingTimeoutMs: 10_000,
		Limits: &tidewirev1.Limits{PayloadBytes: 1000, FrameBytes: 1 << 20, PublishMessages: 10, InFlight: 4, Subscriptions: 10},
	}
}

// peer is the broker's end of one connection.
type peer struct {
	gws.BuiltinEventHandler
	t      testing.TB
	conn   net.Conn
	ws     *gws.Conn
	frames chan any
	gone   chan struct{}
	stuck  chan struct{} // if set, nothing more is read until it is closed
	onPong func(payload string)
}

func (p *peer) OnPong(_ *gws.Conn, payload []byte) { p.onPong(string(payload)) }

func (p *peer) OnMessage(_ *gws.Conn, m *gws.Message) {
	if p.stuck != nil {
		<-p.stuck
	}
	f, err := protocol.Proto{}.DecodeClient(append([]byte(nil), m.Bytes()...), protocol.FrameLimits{Messages: 1000, Subscriptions: 1000})
	if err != nil {
		p.t.Errorf("a frame of the client cannot be read: %v", err)
		return
	}
	p.frames <- f
}

// expect returns the next frame, which must be of that type.
func expect[F any](p *peer) F {
	p.t.Helper()
	var zero F
	select {
	case f := <-p.frames:
		got, ok := f.(F)
		if !ok {
			p.t.Fatalf("got %T %v, want %T", f, f, zero)
		}
		return got
	case <-time.After(10 * time.Minute):
		p.t.Fatalf("no %T came", zero)
	case <-p.gone:
		select {
		case f := <-p.frames:
			if got, ok := f.(F); ok {
				return got
			}
		default:
		}
		p.t.Fatalf("the client has gone, want %T", zero)
	}
	return zero
}

// quiet fails the test if a frame comes within d.
func (p *peer) quiet(d time.Duration) {
	p.t.Helper()
	select {
	case f := <-p.frames:
		p.t.Fatalf("got %T %v, want nothing", f, f)
	case <-time.After(d):
	}
}

func (p *peer) send(frames ...any) {
	p.t.Helper()
	for _, f := range frames {
		var b []byte
		if d, ok := f.(*protocol.Deliver); ok {
			tail := protocol.Proto{}.AppendDeliverTail(nil, &d.Chunk)
			b = append(protocol.Proto{}.AppendDeliverHead(nil, d.Sub, len(tail)), tail...)
		} else {
			b = protocol.Proto{}.AppendServer(nil, f)
		}
		if err := p.ws.WriteMessage(gws.OpcodeBinary, b); err != nil {
			p.t.Errorf("send %T: %v", f, err)
		}
	}
}

// cut ends the connection without a word.
func (p *peer) cut() { _ = p.conn.Close() }

func (p *peer) close(code uint16, reason string) { _ = p.ws.WriteClose(code, []byte(reason)) }

const testTerm = protocol.Term(77)

func at(offset uint64) string {
	return protocol.Position{Term: testTerm, Offset: offset}.String()
}

func subscribed(sub uint32, offset uint64, resumed bool) *tidewirev1.Subscribed {
	return &tidewirev1.Subscribed{Sub: sub, Position: at(offset), Cursors: []*tidewirev1.Cursor{{Offset: offset}}, Resumed: resumed}
}

// deliver makes a frame that covers (after, through] and has the given offsets.
func deliver(sub uint32, after, through uint64, offsets ...uint64) *protocol.Deliver {
	return deliverSized(sub, [2]uint64{after, through}, 0, offsets...)
}

func deliverSized(sub uint32, span [2]uint64, padding int, offsets ...uint64) *protocol.Deliver {
	d := &protocol.Deliver{Sub: sub}
	d.Term, d.After, d.Through = testTerm, span[0], span[1]
	for _, o := range offsets {
		m := protocol.Message{Topic: "a.b", ID: fmt.Sprint("m", o), Payload: append([]byte(fmt.Sprint(o, " ")), make([]byte, padding)...), Position: protocol.Position{Offset: o}}
		d.Records = protocol.AppendFramed(d.Records, protocol.AppendRecord(nil, &m))
		d.Count++
	}
	return d
}

func progress(through uint64, subs ...uint32) *tidewirev1.Progress {
	return &tidewirev1.Progress{Subs: subs, Term: testTerm.String(), Through: through}
}

// accepted answers all messages of a frame.
func accepted(f *protocol.Publish, first uint64) *protocol.Published {
	p := &protocol.Published{}
	for i := range f.Messages {
		p.Results = append(p.Results, protocol.PublishResult{Ref: f.Ref + uint32(i), Position: protocol.Position{Term: testTerm, Offset: first + uint64(i)}})
	}
	return p
}

func ids(f *protocol.Publish) string {
	var s string
	for _, m := range f.Messages {
		s += m.ID
	}
	return s
}

// bubble runs a test in virtual time, and fails if a goroutine of it is left.
func bubble(t *testing.T, f func(t *testing.T, b *fakeBroker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newFake(t)) })
}

// open connects a client to the fake broker.
func open(t *testing.T, b *fakeBroker, o Options) (*Client, *peer) {
	t.Helper()
	o.Dial = b.dial
	type result struct {
		c   *Client
		err error
	}
	done := make(chan result, 1)
	go func() {
		c, err := Connect(t.Context(), o)
		done <- result{c, err}
	}()
	p, _ := b.welcome()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = r.c.Close(ctx)
		for {
			select {
			case p := <-b.peers:
				p.cut()
			default:
				return
			}
		}
	})
	return r.c, p
}

// subscribe begins a subscription that the broker confirms at an offset.
func subscribe(t *testing.T, c *Client, p *peer, o SubscribeOptions) (*Subscription, uint32) {
	t.Helper()
	type result struct {
		s   *Subscription
		err error
	}
	done := make(chan result, 1)
	go func() {
		s, err := c.Subscribe(t.Context(), "a.>", o)
		done <- result{s, err}
	}()
	f := expect[*tidewirev1.Subscribe](p)
	p.send(subscribed(f.Sub, 10, true))
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.s, f.Sub
}

// collect reads a subscription in the background: offsets, and "gap REASON".
type collector struct {
	mu  sync.Mutex
	got []string
	end error
}

func collect(ctx context.Context, s *Subscription) *collector {
	c := &collector{}
	go func() {
		for m, err := range s.Messages(ctx) {
			c.mu.Lock()
			if gap, ok := errors.AsType[*GapError](err); ok {
				c.got = append(c.got, "gap "+gap.Reason)
			} else if err != nil {
				c.end = err
			} else {
				c.got = append(c.got, fmt.Sprint(m.Position.Offset))
			}
			c.mu.Unlock()
		}
	}()
	return c
}

func (c *collector) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if fmt.Sprint(c.got) != fmt.Sprint(want) {
		t.Fatalf("got %v, want %v", c.got, want)
	}
}

var tidewirePing = tidewirev1.Ping{Seq: 1}

// skipPongs drops pongs that are next.
func (p *peer) skipPongs() {
	for len(p.frames) > 0 {
		f := <-p.frames
		if _, ok := f.(*tidewirev1.Pong); !ok {
			p.frames <- f
			return
		}
	}
}
