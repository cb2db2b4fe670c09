package main

import (
	"encoding/binary"
	"fmt"
	"net"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"

	"github.com/tidewire/tidewire/bench/rig"
)

// conn is a session with at most one subscription.
type conn struct {
	*rig.Conn
	position string // where the subscription began
	frames   int    // with messages that receive has read
}

// dial opens a session and waits until its subscription stands. Few bytes to
// receive in make a client that does not read stuck sooner; 0 is the system's
// default.
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
	c := &conn{}
	if c.Conn, err = rig.Open(nc, buffer); err == nil {
		err = c.subscribe(subs)
	}
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	return c, nil
}

func (c *conn) subscribe(subs []*tidewirev1.Subscribe) error {
	if err := c.Send(&tidewirev1.Connect{Ref: 1, Client: "bench", Subscriptions: subs}); err != nil {
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
		frame, err := c.Receive()
		if err != nil {
			return 0, nil, err
		}
		number, body, _, err := field(frame)
		if err != nil || number != ping {
			return number, body, err
		}
		seq, _ := binary.Uvarint(body[1:])
		if err := c.Send(&tidewirev1.Pong{Seq: uint32(seq)}); err != nil {
			return 0, nil, err
		}
	}
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
			c.frames++
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
