package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tidewire/tidewire/protocol"

	"github.com/tidewire/tidewire/bench/rig"
)

const (
	payloadBytes = 128
	frameOf      = 16  // messages that a flood has in a frame
	inFlight     = 512 // and without an answer
)

var payload = make([]byte, payloadBytes)

// flood publishes as fast as it is answered.
func flood(c *conn, count int, topic func(int) string) error {
	sent, answered := 0, 0
	for answered < count {
		for sent < count && sent-answered <= inFlight-frameOf {
			n := min(frameOf, count-sent)
			if err := c.publish(sent, n, topic); err != nil {
				return err
			}
			sent += n
		}
		n, err := c.answers(func(uint32) {})
		if err != nil {
			return err
		}
		answered += n
	}
	return nil
}

// publish sends one frame; its messages have the numbers from first on.
func (c *conn) publish(first, n int, topic func(int) string) error {
	frame := &protocol.Publish{Ref: uint32(first), Messages: make([]protocol.Message, n)}
	for i := range frame.Messages {
		frame.Messages[i] = protocol.Message{Topic: topic(first + i), Payload: payload}
	}
	return c.Send(frame)
}

// answers reads a frame of answers and returns how many there are.
func (c *conn) answers(each func(ref uint32)) (int, error) {
	number, body, err := c.next()
	if err != nil {
		return 0, err
	}
	if number == caughtUp || number == progress { // of the subscription that noted a position
		return 0, nil
	}
	if number != published {
		return 0, fmt.Errorf("the broker answered with the frame %d: %.200q", number, body)
	}
	count := 0
	for len(body) > 0 {
		number, result, rest, err := field(body)
		if err != nil {
			return 0, err
		}
		body = rest
		if number != 2 {
			continue
		}
		ref := uint64(0)
		for len(result) > 0 {
			tag, n := binary.Uvarint(result)
			if tag == 1<<3 {
				ref, _ = binary.Uvarint(result[n:])
			}
			if number, _, result, err = field(result); err != nil {
				return 0, err
			}
			if number == 5 {
				return 0, fmt.Errorf("message %d was refused", ref)
			}
		}
		each(uint32(ref))
		count++
	}
	return count, nil
}

// paced publishes so many messages a second to a topic, a frame every while,
// until it has published count of them or stop is closed. It returns how long
// each answer took, from the moment when its frame was due: one that could not
// be sent in time counts as late.
func paced(c *conn, topic string, rate, count int, every time.Duration, stop <-chan struct{}) ([]time.Duration, error) {
	p := &pace{begin: time.Now(), every: every, of: max(1, int(float64(rate)*every.Seconds()))}
	sent, total := make(chan error, 1), make(chan int, 1)
	go func() { sent <- p.send(c, topic, count, stop, total) }()
	var took []time.Duration
	want := -1
	for want != len(took) {
		_, err := c.answers(func(ref uint32) { took = append(took, time.Since(p.due(int(ref)))) })
		if err != nil {
			return nil, err
		}
		select {
		case want = <-total:
		default:
		}
	}
	return took, <-sent
}

// pace is when messages are due.
type pace struct {
	begin time.Time
	every time.Duration
	of    int // messages each time
}

func (p *pace) due(message int) time.Time {
	return p.begin.Add(time.Duration(message/p.of+1) * p.every)
}

// send sends what is due. Before the last frame, which comes after stop, it says
// how many messages there are in all: an answer is yet to come then.
func (p *pace) send(c *conn, topic string, count int, stop <-chan struct{}, total chan<- int) error {
	one := func(int) string { return topic }
	for n := 0; ; n += p.of {
		<-time.After(time.Until(p.due(n)))
		last := n+p.of >= count
		select {
		case <-stop:
			last = true
		default:
		}
		if last {
			total <- n + p.of
		}
		if err := c.publish(n, p.of, one); err != nil {
			_ = c.Close() // frees who waits for answers
			return err
		}
		if last {
			return nil
		}
	}
}

// stepPublish publishes at a rate over some connections until its input ends,
// and prints the P99 of the answers in milliseconds: ADDR CONNECTIONS RATE.
func stepPublish(args []string) error {
	connections, err1 := strconv.Atoi(args[1])
	rate, err2 := strconv.Atoi(args[2])
	if err1 != nil || err2 != nil {
		return fmt.Errorf("%q are not numbers", args[1:])
	}
	stop := make(chan struct{})
	all := make([][]time.Duration, connections)
	errs := make([]error, connections)
	var wg sync.WaitGroup
	for i := range connections {
		c, err := dial(args[0], 4096, 0)
		if err != nil {
			return err
		}
		wg.Go(func() {
			each := rate / connections
			all[i], errs[i] = paced(c, fmt.Sprint("bench.paced.", i), each, 1<<30, time.Second/time.Duration(each), stop)
		})
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	close(stop)
	wg.Wait()
	if err := rig.FirstError(append(errs, err)); err != nil {
		return err
	}
	took := slices.Sorted(slices.Values(slices.Concat(all...)))
	fmt.Println(took[len(took)*99/100].Seconds() * 1000)
	return nil
}
