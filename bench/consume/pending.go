package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/protocol"

	"github.com/tidewire/tidewire/bench/rig"
)

const (
	few, many = 1_000, 100_000 // pending messages

	// caches is how much more may be lost to memory that is too large for the
	// processor's caches. What grows with the number itself would show as 100.
	caches = 3
)

// pending is what a decision costs beside few and beside many pending messages,
// in the state machine alone: a process has too many other costs to see it.
func (b *bench) pending() ([]*rig.Row, error) {
	const decisions = 200_000
	var rows []*rig.Row
	for _, kind := range []struct {
		name string
		do   func(*backlog, int)
	}{{"a message taken and acked", (*backlog).ack}, {"an ack wait that ends, and the redelivery", (*backlog).expire}} {
		side := func(size int) func() ([]float64, error) {
			return func() ([]float64, error) {
				l, err := newBacklog(size)
				if err != nil {
					return nil, err
				}
				kind.do(l, size) // to its steady state
				before := cpuTime()
				kind.do(l, decisions)
				return []float64{float64(cpuTime()-before) / decisions}, l.check(size)
			}
		}
		times, err := turns(b.rounds, side(many), side(few))
		if err != nil {
			return nil, err
		}
		rows = append(rows, &rig.Row{
			Name: fmt.Sprintf("%s, beside %d pending; limit: beside %d", kind.name, many, few),
			Ours: times[0][0].Text(" ns"), Beside: times[1][0].Text(" ns"),
			Ratio: rig.Each(times[0][0], times[1][0], rig.Over), Aim: caches * math.Log(many) / math.Log(few),
		})
	}
	b.note("The aim of what is pending is the ratio of the logarithms, times %d for memory beyond the caches.", caches)
	return rows, nil
}

// cpuTime is what this process has taken of the processors, which others on the
// machine change less than the time that passes.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage) // cannot fail
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// backlog is a consumer with messages in flight.
type backlog struct {
	*consumer.Machine
	random *rand.Rand
	now    int64
	next   uint64   // offset
	flying []uint64 // offsets, of which none has timed out
}

func newBacklog(size int) (*backlog, error) {
	s := consumer.DefaultSettings()
	s.MaxInFlight, s.MaxInFlightBytes, s.MaxWaiting, s.MaxDeliver = math.MaxInt, math.MaxInt64, math.MaxInt, math.MaxInt
	var all consumer.Registry
	m, err := all.Create("bench", s, consumer.Places{}, 1)
	if err != nil {
		return nil, err
	}
	l := &backlog{Machine: m, random: rand.New(rand.NewPCG(1, 2))}
	for range size {
		l.take()
	}
	return l, nil
}

// take takes the next message; they come evenly over the time of an ack wait.
func (l *backlog) take() {
	l.next++
	l.now += 300 // microseconds
	l.Take(consumer.Message{At: protocol.Position{Term: 1, Offset: l.next}, Size: payloadBytes}, 1, l.now)
	l.flying = append(l.flying, l.next)
	l.written()
}

// written does what the broker does with what was decided: it is handed on to be
// written, many decisions at once.
func (l *backlog) written() {
	if l.next%64 == 0 {
		l.Deltas()
	}
}

// ack takes messages, and acknowledges another one for each.
func (l *backlog) ack(times int) {
	for range times {
		l.take()
		last := len(l.flying) - 1
		i := l.random.IntN(last)
		l.Ack(0, l.flying[i])
		l.flying[i] = l.flying[last]
		l.flying = l.flying[:last]
	}
}

// expire lets ack waits end and delivers again what is due.
func (l *backlog) expire(times int) {
	for done := 0; done < times; l.next++ {
		l.now, _ = l.NextDue()
		l.Advance(consumer.Moment{Now: l.now, Random: l.random.Int64N})
		for {
			if _, again := l.Retry(1, l.now); !again {
				break
			}
			done++
		}
		l.written()
	}
}

// check tells if another number of messages is pending than there should be.
func (l *backlog) check(size int) error {
	if l.Pending() != size {
		return fmt.Errorf("%d messages are pending and not %d", l.Pending(), size)
	}
	return nil
}
