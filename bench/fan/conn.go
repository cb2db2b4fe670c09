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
// costs nothing.
type conn struct {
	net.Conn
	in       *bufio.Reader
	frame    []byte // the last one, used again
	position string // where the subscription began
}

const handshake = "GET /v1/ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
	"Sec-WebSocket-Protocol: " + protocol.SubprotocolProto + "\r\n\r\n"

// dial opens a session with at most one subscription and waits until it stands.
// Few bytes to receive in make a client that does not read stuck sooner; 0 is
// the system's default.
func dial(addr string, buffer, receive int, subs ...*tidewirev1.Subscribe) (*conn, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	tcp := nc.(*net.TCPConn)
	_ = tcp.SetLinger(0) // no port waits after the end
	if receive > 0 {
		_ = tcp.SetReadBuffer(receive)
	}
	c := &conn{Conn: nc, in: bufio.NewReaderSize(nc, buffer)}
	if err := c.open(subs); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

func (c *conn) open(subs []*tidewirev1.Subscribe) error {
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
	if err := c.send(&tidewirev1.Connect{Ref: 1, Client: "bench", Subscriptions: subs}); err != nil {
		return err
	}
	if _, err := c.expect(welcome); err != nil || len(subs) == 0 {
		return err
	}
	body, err := c.expect(subscribed)
	for err == nil && len(body) > 0 {
		var number int
		var value []byte
		if number, value, body, err = field(body); number == 2 {
			c.position = string(value)
		}
	}
	return err
}

// send sends a frame of a client.
func (c *conn) send(frame any) error {
	const room = 14 // the largest head and mask
	b := protocol.Proto{}.AppendClient(make([]byte, room, 256), frame)
	size, start := len(b)-room, room-6
	if size <= 125 {
		b[start+1] = 0x80 | byte(size)
	} else {
		start = 0
		b[1] = 0x80 | 127
		binary.BigEndian.PutUint64(b[2:], uint64(size))
	}
	b[start] = 0x82 // the whole of a binary message
	_, err := c.Write(b[start:])
	return err
}

// Numbers of the frames of a server.
const (
	welcome    = 1
	published  = 2
	subscribed = 3
	deliver    = 4
	caughtUp   = 5
	progress   = 7
	ping       = 9
)

// next returns the number and the content of the next frame; it answers pings
// itself. The content is gone with the frame that comes after.
func (c *conn) next() (int, []byte, error) {
	for {
		if err := c.read(); err != nil {
			return 0, nil, err
		}
		number, body, _, err := field(c.frame)
		if err != nil || number != ping {
			return number, body, err
		}
		seq, _ := binary.Uvarint(body[1:])
		if err := c.send(&tidewirev1.Pong{Seq: uint32(seq)}); err != nil {
			return 0, nil, err
		}
	}
}

// read reads one WebSocket message.
func (c *conn) read() error {
	head, err := c.in.Peek(2)
	if err != nil {
		return err
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

// expect reads a frame that has this number.
func (c *conn) expect(want int) ([]byte, error) {
	number, body, err := c.next()
	if err == nil && number != want {
		err = fmt.Errorf("the broker sent the frame %d: %.200q", number, body)
	}
	return body, err
}

// receive reads until so many messages have come, and CaughtUp too if that
// is asked for.
func (c *conn) receive(count int, wantCaughtUp bool) error {
	for count > 0 || wantCaughtUp {
		number, body, err := c.next()
		if err != nil {
			return err
		}
		switch number {
		case deliver:
			n, err := records(body)
			if err != nil {
				return err
			}
			if count -= n; count < 0 {
				return fmt.Errorf("%d messages too many", -count)
			}
		case caughtUp:
			wantCaughtUp = false
		case progress:
		default:
			return fmt.Errorf("the broker sent the frame %d: %.200q", number, body)
		}
	}
	return nil
}

// records counts the messages of a Deliver frame.
func records(body []byte) (int, error) {
	count := 0
	for len(body) > 0 {
		number, _, rest, err := field(body)
		if err != nil {
			return 0, err
		}
		if number == 6 {
			count++
		}
		body = rest
	}
	return count, nil
}

// field takes the first field of a protobuf message apart.
func field(b []byte) (number int, body, rest []byte, err error) {
	tag, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, nil, fmt.Errorf("%.40q is no field", b)
	}
	number, b = int(tag>>3), b[n:]
	v, n := binary.Uvarint(b)
	switch {
	case n > 0 && tag&7 == 0: // a number
		return number, nil, b[n:], nil
	case n > 0 && tag&7 == 2 && v <= uint64(len(b)-n): // bytes
		return number, b[n : n+int(v)], b[n+int(v):], nil
	default:
		return 0, nil, nil, fmt.Errorf("field %d has the type %d", number, tag&7)
	}
}
