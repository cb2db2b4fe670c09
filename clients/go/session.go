package tidewire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/lxzan/gws"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// maxControl bounds the frames, other than publishes, that wait to be written.
const maxControl = 4096

var (
	errLeft     = errors.New("the client left")
	errFlooded  = errors.New("the broker asks faster than it reads the answers")
	errSilence  = errors.New("the broker has not been heard of")
	errNotProto = errors.New("the broker sent a text frame where a binary one was due")
)

// A session is one connection. It has a reader, which gws drives and which never
// waits for anybody, so that pings are answered whatever the application does;
// and a writer. Whichever ends first ends the session; nobody waits for the
// other, since a dead socket may hold it for a while.
//
// What a session reports late is harmless: Client.session tells which one
// counts, and numbers of subscriptions and refs are never used again.
type session struct {
	gws.BuiltinEventHandler
	client *Client
	target target
	socket *socket
	ws     *gws.Conn
	opened chan struct{} // closed when Welcome has come
	done   chan struct{} // closed when the session has ended, after err was set

	// Guarded by Client.mu.
	limits limits
	numbers
	away    *farewell // set when the broker wants it to end
	welcome time.Time // when it opened

	refreshed chan *tidewirev1.Refreshed // answers to Refresh; nil for a refusal

	mu      sync.Mutex
	control controls
	ending
}

// numbers are what a session has, by the numbers that it knows them by.
type numbers struct {
	subs    map[uint32]*Subscription
	members map[uint32]*Consumer
}

// ending is why a session has ended.
type ending struct {
	lastWord *Error // what the broker said of the connection as a whole
	err      error
}

// farewell is a GoAway and when it came.
type farewell struct {
	*tidewirev1.GoAway
	at time.Time
}

// controls are the frames, other than publishes, that wait to be written.
type controls struct {
	frames []control
	wake   bell // the writer has something to do
}

// control is a frame, other than a publish, that waits to be written.
type control struct {
	opcode gws.Opcode
	body   []byte
}

// newSession dials a target and starts reader and writer. Connect is the first
// frame; whether the broker likes it shows in opened and done.
func (c *Client) newSession(ctx context.Context, t target) (*session, error) {
	s := &session{
		client: c, target: t, numbers: numbers{make(map[uint32]*Subscription), make(map[uint32]*Consumer)}, refreshed: make(chan *tidewirev1.Refreshed, 1),
		control: controls{wake: make(bell, 1)}, opened: make(chan struct{}), done: make(chan struct{}),
	}
	token, err := c.askToken(ctx) // may take a while
	if err != nil {
		return nil, err
	}
	if s.socket, s.ws, err = c.options.dial(ctx, t, token, s); err != nil {
		return nil, err
	}
	s.socket.silence.Store(int64(c.options.ConnectTimeout))
	s.socket.failed = s.lost
	c.attach(s)
	c.work.Go(s.read)
	c.work.Go(s.write)
	return s, nil
}

// fail ends the session; the first reason counts.
func (s *session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = err
	close(s.done)
	_ = s.socket.raw.Close() // never waits; frees a writer that hangs
}

// lost ends the session because a read failed.
func (s *session) lost(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errSilence
	}
	s.fail(fmt.Errorf("the connection was lost: %w", err))
}

// send queues a frame.
func (s *session) send(frame any) {
	s.push(control{gws.OpcodeBinary, protocol.Proto{}.AppendClient(nil, frame)})
}

func (s *session) push(c control) {
	s.mu.Lock()
	full := len(s.control.frames) >= maxControl
	if !full {
		s.control.frames = append(s.control.frames, c)
	}
	s.mu.Unlock()
	if full {
		s.fail(errFlooded)
	}
	s.kick()
}

// kick makes the writer look for something to write.
func (s *session) kick() { s.control.wake.ring() }

// leave says goodbye behind what is queued, and ends the session.
func (s *session) leave() { s.push(control{opcode: gws.OpcodeCloseConnection}) }

// read is the reader.
func (s *session) read() {
	s.ws.ReadLoop()
	s.fail(errors.New("the connection was lost"))
}

// write is the writer. A publish is encoded when it is its turn, so that all
// that waits goes into one frame.
func (s *session) write() {
	for {
		frame, ok := s.next()
		if !ok {
			select {
			case <-s.control.wake:
				continue
			case <-s.done:
				return
			}
		}
		if frame.opcode == gws.OpcodeCloseConnection {
			_ = s.ws.WriteClose(1000, nil)
			s.fail(errLeft)
			return
		}
		if s.ws.WriteMessage(frame.opcode, frame.body) != nil {
			return // gws is closing; the reader knows why
		}
	}
}

// next returns what to write next: first what is queued, then what was said of
// deliveries, then messages.
func (s *session) next() (control, bool) {
	s.mu.Lock()
	if len(s.control.frames) > 0 {
		c := s.control.frames[0]
		s.control.frames = s.control.frames[1:]
		s.mu.Unlock()
		return c, true
	}
	s.mu.Unlock()
	if f := s.client.nextSettle(s); f != nil {
		return control{gws.OpcodeBinary, protocol.Proto{}.AppendClient(nil, f)}, true
	}
	p := s.client.nextPublish(s)
	if p == nil {
		return control{}, false
	}
	return control{gws.OpcodeBinary, protocol.Proto{}.AppendClient(nil, p)}, true
}

// OnPing queues the answer to a WebSocket ping, which something between client
// and broker may send.
func (s *session) OnPing(_ *gws.Conn, payload []byte) {
	s.push(control{gws.OpcodePong, append([]byte(nil), payload...)})
}

// OnClose tells what the close frame said.
func (s *session) OnClose(_ *gws.Conn, err error) {
	closed, ok := errors.AsType[*gws.CloseError](err)
	if !ok {
		s.fail(fmt.Errorf("the connection was lost: %w", err))
		return
	}
	s.mu.Lock()
	word := s.lastWord
	s.mu.Unlock()
	if closed.Code == 0 {
		closed.Code = 1005 // what RFC 6455 calls a close frame without a code
	}
	s.fail(&CloseError{Code: closed.Code, Reason: string(closed.Reason), Err: word})
}

// OnMessage takes a frame. Its buffer is left to the garbage collector, since a
// Deliver may refer to it.
func (s *session) OnMessage(_ *gws.Conn, message *gws.Message) {
	if message.Opcode != gws.OpcodeBinary {
		s.fail(errNotProto)
		return
	}
	frame, err := protocol.Proto{}.DecodeServer(message.Bytes())
	if err != nil {
		s.fail(fmt.Errorf("a frame of the broker cannot be read: %w", err))
		return
	}
	s.handle(frame, len(message.Bytes()))
}

// handle takes a frame of so many bytes.
func (s *session) handle(frame any, size int) {
	c := s.client
	switch f := frame.(type) {
	case *protocol.Deliver:
		if sub := c.subscription(s, f.Sub); sub != nil {
			s.follow(sub, f.Sub, sub.deliver(f, size))
		} else if k := c.member(s, f.Sub); k != nil {
			k.deliver(f)
		}
	case *tidewirev1.Acked:
		if k := c.member(s, f.Sub); k != nil {
			k.acked(s, f)
		}
	case *protocol.Published:
		c.published(s, f.Results)
	case *tidewirev1.Ping:
		s.send(&tidewirev1.Pong{Seq: f.Seq})
	case *tidewirev1.Progress:
		for _, number := range f.Subs {
			if sub := c.subscription(s, number); sub != nil {
				sub.progress(number, f)
			}
		}
	case *tidewirev1.Subscribed:
		if sub := c.subscription(s, f.Sub); sub != nil {
			sub.confirmed(f)
		} else if k := c.member(s, f.Sub); k != nil {
			k.confirmed(s, f)
		}
	case *tidewirev1.CaughtUp:
		if sub := c.subscription(s, f.Sub); sub != nil {
			sub.reachedHead(f.Sub)
		}
	case *tidewirev1.Gap:
		if sub := c.subscription(s, f.Sub); sub != nil {
			sub.gap(f)
		} else if k := c.member(s, f.Sub); k != nil {
			k.gap(f)
		}
	case *tidewirev1.Unsubscribed:
		c.unsubscribed(s, f.Sub)
	case *tidewirev1.Error:
		s.refused(f)
	case *tidewirev1.Welcome:
		c.welcomed(s, f)
	case *tidewirev1.GoAway:
		c.sentAway(s, f)
	case *tidewirev1.Refreshed:
		s.answeredRefresh(f)
	}
}

// refused takes an error frame: of a subscription, of a Refresh, of a whole
// publish frame, or of the connection, which is about to be closed then.
func (s *session) refused(f *tidewirev1.Error) {
	err := protocol.FrameError(f)
	_, settles := protocol.ParseSettleKind(f.Request)
	switch {
	case settles:
		if k := s.client.member(s, f.Sub); k != nil {
			k.refusedSettle(s, f.Ref, err)
		}
	case f.Sub != 0:
		if k := s.client.member(s, f.Sub); k != nil {
			k.refused(s, f.Sub, err)
		}
		if sub := s.client.subscription(s, f.Sub); sub != nil {
			s.follow(sub, f.Sub, sub.refused(f.Sub, err))
			if err.Retryable() && sub.options.OnRefused != nil {
				sub.options.OnRefused(err)
			}
		}
	case f.Ref == refreshRef:
		s.answeredRefresh(nil)
	case f.Ref != 0:
		s.client.refusedPublish(s, f.Ref, err)
	case f.Request == "": // else it refuses a frame without a number, which is not ours
		s.mu.Lock()
		s.lastWord = err
		s.mu.Unlock()
	}
}
