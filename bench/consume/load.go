package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// topic is that of so many messages.
func topic(count int) string { return fmt.Sprint("bench.", count) }

const oldTopic = "bench.old"

// load is one run of our members on a consumer of their own.
type load struct {
	members []*member
	name    string
	topic   string
	count   int
}

// member is one connection with a subscription to the consumer.
type member struct {
	*conn
	generation uint64
	term       protocol.Term
	last       uint64 // offset of the last delivery
	apart      bool   // a frame for each acknowledgement
	keep       bool   // the first message stays without one
	quiet      chan struct{}
}

// stepOurs does one run and prints the seconds: ADDR NAME COUNT HOW PENDING.
func stepOurs(ctx context.Context, args []string) error {
	count, err1 := strconv.Atoi(args[2])
	pending, err2 := strconv.Atoi(args[4])
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	l := &load{name: args[1], count: count}
	how, size, _ := strings.Cut(args[3], "-")
	n, _ := strconv.Atoi(size) // 0 where there is none
	for range members {
		c, err := dial(args[0])
		if err != nil {
			return err
		}
		defer c.Close()
		defer context.AfterFunc(ctx, func() { _ = c.Close() })()
		l.members = append(l.members, &member{conn: c, apart: strings.HasPrefix(how, "single"), quiet: make(chan struct{})})
	}
	var seconds float64
	var err error
	switch how {
	case "fill":
		err = l.members[0].fill(topic(count), count)
	case "idle":
		err = l.idle(ctx)
	case "old", "rest":
		l.topic, l.members = oldTopic, l.members[:1]
		l.members[0].keep = how == "old"
		_, err = l.measure(ctx, 0, pending)
	case "oldfill":
		err = l.members[0].fill(oldTopic, count)
	default:
		l.topic = topic(count)
		seconds, err = l.measure(ctx, n, pending)
	}
	if err == nil && seconds > 0 {
		fmt.Println(seconds)
	}
	return err
}

// measure has the members take and acknowledge everything, n goroutines with a
// confirmation for each, or none, and returns the seconds from the creation of the
// consumer until the broker has taken everything.
func (l *load) measure(ctx context.Context, n, pending int) (float64, error) {
	begin := time.Now()
	if err := l.subscribe(pending); err != nil {
		return 0, err
	}
	done := newTally(l.count)
	for _, m := range l.members {
		if n > 0 {
			go m.confirmAll(done, n/members)
		} else {
			go m.ackAll(done)
		}
	}
	err := done.wait(ctx)
	if err == nil && n == 0 {
		err = l.settled()
	}
	return time.Since(begin).Seconds(), err
}

// subscribe makes the members. The first one creates the consumer.
func (l *load) subscribe(pending int) error {
	for _, m := range l.members {
		s := &tidewirev1.Subscribe{
			Sub: 1, Filter: l.topic, Consumer: l.name, Window: uint32(pending / len(l.members)),
			Settings: &tidewirev1.ConsumerSettings{MaxInFlight: new(uint32(pending)), AckWaitMs: new(uint64(time.Hour.Milliseconds()))},
		}
		if err := m.Send(s); err != nil {
			return err
		}
		subscribed, err := expect[*tidewirev1.Subscribed](m.conn)
		if err != nil {
			return err
		}
		m.generation = subscribed.Generation
	}
	return nil
}

const lastRef = 1 << 30 // of the acknowledgement that asks whether all were taken

// ackAll acknowledges what comes, as soon as it is here.
func (m *member) ackAll(done *tally) {
	for {
		frame, err := m.next()
		if err != nil {
			done.stop(err)
			return
		}
		switch f := frame.(type) {
		case *protocol.Deliver:
			n, err := m.ack(f)
			if err != nil {
				done.stop(err)
				return
			}
			done.add(n)
		case *tidewirev1.Acked:
			if f.Ref == lastRef {
				close(m.quiet)
				return
			}
			done.stop(fmt.Errorf("acknowledgements were refused: %v", f))
		}
	}
}

// ack acknowledges each message of a delivery and returns how many there were.
func (m *member) ack(d *protocol.Deliver) (int, error) {
	var ranges []protocol.OffsetRange
	n := 0
	m.term = d.Term
	for message, err := range d.Messages() {
		if err != nil {
			return 0, err
		}
		if len(message.Payload) != payloadBytes {
			return 0, fmt.Errorf("a message has %d bytes", len(message.Payload))
		}
		n, m.last = n+1, message.Position.Offset
		if m.keep {
			m.keep = false
			continue
		}
		ranges = appendOffset(ranges, m.last, m.apart)
	}
	var frames []any
	for len(ranges) > 0 && m.apart {
		frames = append(frames, m.settle(0, ranges[:1]))
		ranges = ranges[1:]
	}
	if len(ranges) > 0 {
		frames = append(frames, m.settle(0, ranges))
	}
	return n, m.Send(frames...)
}

func (m *member) settle(ref uint32, ranges []protocol.OffsetRange) *protocol.Settle {
	return &protocol.Settle{Ref: ref, Sub: 1, Generation: m.generation, Term: m.term, Ranges: ranges}
}

// appendOffset lets the last range grow if the offset is the next one.
func appendOffset(ranges []protocol.OffsetRange, offset uint64, apart bool) []protocol.OffsetRange {
	if last := len(ranges) - 1; last >= 0 && !apart && ranges[last].Through == offset-1 {
		ranges[last].Through = offset
		return ranges
	}
	return append(ranges, protocol.OffsetRange{From: offset, Through: offset})
}

// settled returns when the broker has taken all acknowledgements: it answers what
// each member sent last.
func (l *load) settled() error {
	for _, m := range l.members {
		if m.last == 0 {
			continue
		}
		s := m.settle(lastRef, []protocol.OffsetRange{{From: m.last, Through: m.last}})
		s.Confirm = true
		if err := m.Send(s); err != nil {
			return err
		}
	}
	for _, m := range l.members {
		if m.last > 0 {
			<-m.quiet
		}
	}
	return nil
}
