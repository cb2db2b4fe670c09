package main

import (
	"fmt"
	"net"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"

	"github.com/tidewire/tidewire/bench/rig"
)

// conn is a session. What comes is decoded wholly, as the Go client does it.
type conn struct{ *rig.Conn }

// dial opens a session.
func dial(addr string) (*conn, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &conn{}
	if c.Conn, err = rig.Open(nc, 64<<10); err == nil {
		err = c.Send(&tidewirev1.Connect{Ref: 1, Client: "bench"})
	}
	if err == nil {
		_, err = expect[*tidewirev1.Welcome](c)
	}
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	return c, nil
}

// next returns the next frame; it answers pings itself, and an error that the
// broker sends is one.
func (c *conn) next() (any, error) {
	for {
		body, err := c.Receive()
		if err != nil {
			return nil, err
		}
		frame, err := protocol.Proto{}.DecodeServer(body)
		if err != nil {
			return nil, err
		}
		switch f := frame.(type) {
		case *tidewirev1.Ping:
			if err := c.Send(&tidewirev1.Pong{Seq: f.Seq}); err != nil {
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
			if err := c.Send(&protocol.Publish{Ref: uint32(sent), Messages: frame.Messages[:n]}); err != nil {
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
