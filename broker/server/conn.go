package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/lxzan/gws"

	"github.com/tidewire/tidewire/broker"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// conn is one WebSocket connection with its session. gws calls it from one
// goroutine, the reader; the writer belongs to its wire; the keeper looks after
// it now and then.
type conn struct {
	server   *Server
	rules    *rules // by which it was let in
	codec    protocol.Codec
	identity *broker.Identity
	session  *broker.Session // nil if the upgrade was a refusal
	wire     *wire
	name     string // of the session
	ctx      context.Context
	cancel   context.CancelFunc

	connected atomic.Bool  // Connect has come
	lastRead  atomic.Int64 // when the client's own code last sent a frame, unix nanoseconds
	reading   atomic.Bool  // a frame is being worked on: the client may be waiting for us
	expires   atomic.Int64 // when its token expires, unix nanoseconds; 0 if never

	keeper keeping // the keeper's own notes
}

// open makes the session and registers the connection.
func (c *conn) open() {
	s := c.server
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.name = fmt.Sprintf("s%d", s.lastSeq.Add(1))
	c.setExpiry(c.identity)
	c.session = s.broker.NewSession(broker.SessionOptions{Name: c.name, Identity: c.identity, Codec: c.codec, Wake: c.wire.kick})
	s.metrics.connections.Inc()
	s.register(c)
	s.reviewLate(c.session, c.rules)
	if s.draining.Load() { // it came in while Drain was asking the others to go
		c.session.End(errDraining)
	}
}

func (c *conn) setExpiry(id *broker.Identity) {
	var at int64
	if !id.Expires.IsZero() {
		at = id.Expires.UnixNano()
	}
	c.expires.Store(at)
}

// read is the reader.
func (c *conn) read(socket *gws.Conn) {
	for c.receive(socket) {
	}
	c.wire.readerGone()
	if c.session == nil {
		return
	}
	c.cancel()
	c.server.unregister(c)
	c.session.Close()
	c.server.metrics.connections.Dec()
	c.server.log.Debug("session closed", "session", c.name)
}

// take is where the writer finds its frames.
func (c *conn) take(into []broker.Frame) ([]broker.Frame, []byte) {
	if c.session == nil {
		return into, nil
	}
	frames, end := c.session.Take(into)
	if end == nil {
		return frames, nil
	}
	code := end.Code.Info().Close
	if code == 0 {
		code = protocol.CodeInternal.Info().Close
	}
	return frames, closeFrame(code, end.Message)
}

// closed counts a close frame that was written, by the code that it stands for.
// The answer to a client that leaves by itself is not counted.
func (c *conn) closed(frame []byte) {
	if c.session == nil || len(frame) < 4 {
		return
	}
	number := binary.BigEndian.Uint16(frame[2:])
	name := ""
	switch number {
	case 1002, 1007, 1009: // the verdicts of gws
		name = strconv.Itoa(int(number))
	}
	if number == closeTooBig {
		c.server.metrics.limits.Met(protocol.LimitFrame)
	}
	for _, info := range protocol.Codes() {
		if info.Close == number {
			name = string(info.Code)
		}
	}
	if name != "" {
		c.server.metrics.closes.WithLabelValues(name).Inc()
	}
}

// Standard close codes that mean a limit or are sent by us.
const (
	closeBadText = 1007 // a text that is not UTF-8
	closeTooBig  = 1009 // a message that is too large
)

// gone ends the session of a connection that cannot be written to any more.
func (c *conn) gone() {
	if c.session != nil {
		c.session.End(protocol.Errorf(protocol.CodeGoingAway, "the connection is closed"))
	}
}

// goAway asks the client to come back after a random part of spread.
func (c *conn) goAway(spread time.Duration, reason string) {
	c.session.Send(&tidewirev1.GoAway{
		ReconnectAfterMs: uint32(rand.Int64N(max(spread.Milliseconds(), 1))),
		Reason:           reason,
	})
}

// events takes what gws reads besides messages.
type events struct{ gws.BuiltinEventHandler }

// OnPing answers a WebSocket ping. It proves nothing about the client's code,
// so it does not count as a sign of life.
func (events) OnPing(socket *gws.Conn, payload []byte) { _ = socket.WritePong(payload) }

// receive reads one frame and works on it. It returns false when there will be
// no other. gws.Conn.ReadLoop would make room for what a frame announces, before
// any of it has arrived.
func (c *conn) receive(socket *gws.Conn) bool {
	opcode, r, err := socket.NextReader()
	if err != nil {
		return false
	}
	if c.session == nil {
		_, err := io.Copy(io.Discard, r)
		return err == nil
	}
	in := &intake{from: &c.server.receiving, end: c.overtaken}
	defer in.leave()
	b, err := in.gather(r)
	defer keepBuffer(b)
	switch {
	case err != nil:
		if e, ok := errors.AsType[*protocol.Error](err); ok {
			c.server.metrics.limits.Refused(e)
		}
		return false
	case opcode == gws.OpcodeText && !utf8.Valid(b):
		c.wire.goodbye(closeFrame(closeBadText, "the text is not UTF-8"))
		return false
	}
	c.message(opcode, b)
	return true
}

// overtaken closes a connection that takes too long over a frame.
func (c *conn) overtaken() {
	e := errOvertaken()
	c.wire.goodbye(closeFrame(e.Code.Info().Close, e.Message))
	_ = c.wire.SetReadDeadline(time.Unix(1, 0))
}

// message takes a frame.
func (c *conn) message(opcode gws.Opcode, b []byte) {
	c.lastRead.Store(time.Now().UnixNano())
	c.reading.Store(true)
	defer c.reading.Store(false)
	defer c.recover()
	if err := c.handle(opcode, b); err != nil {
		c.session.End(err)
	}
}

// recover ends the session whose frame made a handler panic; the others go on.
func (c *conn) recover() {
	if p := recover(); p != nil {
		c.server.log.Error("panic while a frame was handled", "session", c.name, "panic", p, "stack", string(debug.Stack()))
		c.session.End(protocol.Errorf(protocol.CodeInternal, "something went wrong inside the broker; its log says more"))
	}
}

// handle works on one frame. An error ends the session.
func (c *conn) handle(opcode gws.Opcode, b []byte) *protocol.Error {
	if byte(opcode) != opcodeOf(c.codec)&0x0F {
		return protocol.Errorf(protocol.CodeWrongFrameType, "%s takes binary frames only, %s text frames only", protocol.SubprotocolProto, protocol.SubprotocolJSON)
	}
	frame, err := c.codec.DecodeClient(b, protocol.FrameLimits{Messages: c.server.limits().PublishMessages, Subscriptions: c.server.limits().Subscriptions})
	if err != nil {
		return c.refuse(err)
	}
	if connect, ok := frame.(*tidewirev1.Connect); ok {
		return c.connect(connect)
	}
	if !c.connected.Load() {
		return protocol.Errorf(protocol.CodeConnectFirst, "the first frame must be connect")
	}
	switch f := frame.(type) {
	case *protocol.Publish:
		c.session.Publish(c.ctx, f)
	case *tidewirev1.Subscribe:
		c.session.Subscribe(f)
	case *tidewirev1.Unsubscribe:
		c.session.Unsubscribe(f.Sub)
	case *tidewirev1.Flow:
		c.session.Flow(f)
	case *protocol.Settle:
		c.session.Settle(f)
	case *tidewirev1.Refresh:
		c.refresh(f)
	}
	return nil
}

// refuse answers a frame that could not be decoded. Only one that cannot be
// read at all ends the session.
func (c *conn) refuse(err error) *protocol.Error {
	e := protocol.AsError(err)
	c.server.metrics.limits.Refused(e)
	if request, ok := err.(*protocol.RequestError); ok && c.connected.Load() { //nolint:errorlint // the codec returns it bare
		c.session.Send(request.Frame())
		return nil
	}
	if e.Code.Info().Close == 0 {
		return protocol.Errorf(protocol.CodeBadFrame, "%s", e.Message)
	}
	return e
}

// connect opens the session and restores its subscriptions.
func (c *conn) connect(f *tidewirev1.Connect) *protocol.Error {
	if c.connected.Swap(true) {
		return protocol.Errorf(protocol.CodeConnectTwice, "the session is open already: send connect once")
	}
	l := c.server.limits()
	c.server.log.Debug("session open", "session", c.name, "subject", c.identity.Subject, "client", fmt.Sprintf("%.128q", f.Client))
	c.session.SetClient(fmt.Sprintf("%.128s", f.Client))
	c.session.Send(&tidewirev1.Welcome{
		Ref: f.Ref, Session: c.name, Server: "tidewire/" + c.server.options.Version, Subject: c.identity.Subject,
		Limits: &tidewirev1.Limits{
			PayloadBytes: uint32(l.PayloadBytes), FrameBytes: uint32(l.FrameBytes), PublishMessages: uint32(l.PublishMessages),
			InFlight: uint32(l.InFlight), Subscriptions: uint32(l.Subscriptions),
		},
		PingIntervalMs: uint32(l.PingInterval.Milliseconds()),
		PingTimeoutMs:  uint32(l.PingTimeout.Milliseconds()),
		Time:           protocol.Micros(time.Now()),
		ExpiresAt:      protocol.Micros(c.identity.Expires),
	})
	for _, sub := range f.Subscriptions {
		c.session.Subscribe(sub)
	}
	return nil
}

// refresh puts a new token of the same subject in force.
func (c *conn) refresh(f *tidewirev1.Refresh) {
	id, err := c.server.access().identifyToken(f.Token)
	if err == nil && id.Subject != c.identity.Subject {
		err = protocol.Errorf(protocol.CodeForbidden, "the new token is for another subject: connect again with it")
	}
	if err != nil {
		c.server.metrics.limits.Refused(err)
		c.session.Send((&protocol.RequestError{Request: "refresh", Ref: f.Ref, Err: err}).Frame())
		return
	}
	c.session.SetIdentity(id)
	c.setExpiry(id)
	c.session.Send(&tidewirev1.Refreshed{Ref: f.Ref, ExpiresAt: protocol.Micros(id.Expires)})
}
