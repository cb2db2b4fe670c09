package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// conn is a session over a bare socket. Frames are masked with zeros, which
// costs nothing. What comes is decoded wholly, as the Go client does it.
type conn struct {
	net.Conn
	in    *bufio.Reader
	frame []byte // the last one, used again
}

const handshake = "GET /v1/ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
	"Sec-WebSocket-Protocol: " + protocol.SubprotocolProto + "\r\n\r\n"

// dial opens a session.
func dial(addr string) (*conn, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, in: bufio.NewReaderSize(nc, 64<<10)}
	if err := c.open(); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

func (c *conn) open() error {
	if _, err := fmt.Fprintf(c, handshake, c.RemoteAddr()); err != nil {
		return err
	}
	status, err := c.in.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.Contains(status, " 101 ") {
		return fmt.Errorf("the broker answered %q", status)
	}
	for line := status; line != "\r\n"; {
		if line, err = c.in.ReadString('\n'); err != nil {
			return err
		}
	}
	if err := c.send(&tidewirev1.Connect{Ref: 1, Client: "bench"}); err != nil {
		return err
	}
	_, err = expect[*tidewirev1.Welcome](c)
	return err
}

// send sends frames in one write.
func (c *conn) send(frames ...any) error {
	var b []byte
	for _, frame := range frames {
		b = appendFrame(b, frame)
	}
	_, err := c.Write(b)
	return err
}

// appendFrame appends a frame of a client as a WebSocket message.
func appendFrame(b []byte, frame any) []byte {
	const room = 14 // the largest head and mask
	head := len(b)
	b = protocol.Proto{}.AppendClient(append(b, make([]byte, room)...), frame)
	size, used := len(b)-head-room, 6
	switch {
	case size > 65535:
		used = 14
		b[head+1] = 0x80 | 127
		binary.BigEndian.PutUint64(b[head+2:], uint64(size))
	case size > 125:
		used = 8
		b[head+1] = 0x80 | 126
		binary.BigEndian.PutUint16(b[head+2:], uint16(size))
	default:
		b[head+1] = 0x80 | byte(size)
	}
	b[head] = 0x82 // the whole of a binary message
	if used < room {
		copy(b[head+used:], b[head+room:])
		b = b[:len(b)-room+used]
	}
	return b
}

// next returns the next frame; it answers pings itself, and an error that the
// broker sends is one.
func (c *conn) next() (any, error) {
	for {
		if err := c.read(); err != nil {
			return nil, err
		}
		frame, err := protocol.Proto{}.DecodeServer(c.frame)
		if err != nil {
			return nil, err
		}
		switch f := frame.(type) {
		case *tidewirev1.Ping:
			if err := c.send(&tidewirev1.Pong{Seq: f.Seq}); err != nil {
				return nil, err
			}
		case *tidewirev1.Error:
			return nil, fmt.Errorf("the broker says: %s: %s", f.Code, f.Message)
		case nil, *tidewirev1.Progress, *tidewirev1.CaughtUp:
		default:
			return frame, nil
		}
	}
}

// expect reads a frame of one kind.
func expect[T any](c *conn) (T, error) {
	frame, err := c.next()
	f, ok := frame.(T)
	if err == nil && !ok {
		err = fmt.Errorf("the broker sent %T: %.200v", frame, frame)
	}
	return f, err
}

// read reads one WebSocket message.
func (c *conn) read() error {
	head, err := c.in.Peek(2)
	if err != nil {
		return err
	}
	if head[0] == 0x88 {
		rest, _ := c.in.Peek(c.in.Buffered())
		return fmt.Errorf("the broker closed: %q", rest)
	}
	if head[0] != 0x82 {
		return fmt.Errorf("the broker sent a frame that begins with %#x", head[0])
	}
	size, skip := uint64(head[1]), 2
	if size >= 126 {
		skip = map[uint64]int{126: 4, 127: 10}[size]
		if head, err = c.in.Peek(skip); err != nil {
			return err
		}
		size = 0
		for _, b := range head[2:] {
			size = size<<8 | uint64(b)
		}
	}
	_, _ = c.in.Discard(skip)
	if uint64(cap(c.frame)) < size {
		c.frame = make([]byte, size)
	}
	c.frame = c.frame[:size]
	_, err = io.ReadFull(c.in, c.frame)
	return err
}

// fill publishes as fast as it is answered.
func (c *conn) fill(topic string, count int) error {
	const of, inFlight = 64, 4096
	frame := &protocol.Publish{Messages: make([]protocol.Message, of)}
	for i := range frame.Messages {
		frame.Messages[i] = protocol.Message{Topic: topic, Payload: make([]byte, payloadBytes)}
	}
	for sent, answered := 0, 0; answered < count; {
		for sent < count && sent-answered <= inFlight-of {
			n := min(of, count-sent)
			if err := c.send(&protocol.Publish{Ref: uint32(sent), Messages: frame.Messages[:n]}); err != nil {
				return err
			}
			sent += n
		}
		p, err := expect[*protocol.Published](c)
		if err != nil {
			return err
		}
		for _, r := range p.Results {
			if r.Err != nil {
				return r.Err
			}
		}
		answered += len(p.Results)
	}
	return nil
}
