package rig

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/tidewire/tidewire/protocol"
)

// Conn is a session over a bare socket, which takes as little of the machine as it
// can. Frames are masked with zeros, which costs nothing.
type Conn struct {
	net.Conn
	in    *bufio.Reader
	frame []byte // the last one, used again
}

const handshake = "GET /v1/ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
	"Sec-WebSocket-Protocol: " + protocol.SubprotocolProto + "\r\n\r\n"

// Open makes a WebSocket connection of one to a broker, with a buffer of so many
// bytes for what comes. Connect is for the caller to send.
func Open(nc net.Conn, buffer int) (*Conn, error) {
	c := &Conn{Conn: nc, in: bufio.NewReaderSize(nc, buffer)}
	if _, err := fmt.Fprintf(c, handshake, c.RemoteAddr()); err != nil {
		return nil, err
	}
	status, err := c.in.ReadString('\n')
	if err != nil {
		return nil, err
	}
	if !strings.Contains(status, " 101 ") {
		return nil, fmt.Errorf("the broker answered %q", status)
	}
	for line := status; line != "\r\n"; {
		if line, err = c.in.ReadString('\n'); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Send sends frames of a client in one write.
func (c *Conn) Send(frames ...any) error {
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

// Receive returns the content of the next WebSocket message. It is gone with the
// one that comes after.
func (c *Conn) Receive() ([]byte, error) {
	head, err := c.in.Peek(2)
	if err != nil {
		return nil, err
	}
	if head[0] == 0x88 {
		rest, _ := c.in.Peek(c.in.Buffered())
		return nil, fmt.Errorf("the broker closed: %q", rest)
	}
	if head[0] != 0x82 {
		return nil, fmt.Errorf("the broker sent a frame that begins with %#x", head[0])
	}
	size, skip := uint64(head[1]), 2
	if size >= 126 {
		skip = map[uint64]int{126: 4, 127: 10}[size]
		if head, err = c.in.Peek(skip); err != nil {
			return nil, err
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
	return c.frame, err
}
