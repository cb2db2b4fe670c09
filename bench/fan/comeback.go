package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"

	"github.com/tidewire/tidewire/bench/rig"
)

const (
	rooms       = 100 // topics, among which those who come back are spread
	missed      = 100 // messages that each of them missed
	atOnce      = 500 // of them that are on their way
	publishers  = 4
	publishRate = 1_000 // messages a second of all publishers
	quietTime   = 2 * time.Second
	spread      = 1_000 // come back in a second when they do not come at once
)

func room(i int) string { return fmt.Sprint("bench.room.", i%rooms) }

// comeBack is how long it takes until all who come back have what they missed,
// and what publishers notice of it. They would notice something if the crowd came
// to another broker of this machine, since it needs the same cores: less than that
// no broker can reach, and the table has it beside its own.
func (b *bench) comeBack() (rows []*rig.Row, err error) {
	r, err := b.start()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Stop()) }()
	other, err := b.start()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, other.Stop()) }()
	late := make([]rig.Sample, 5)
	side := func(i int, arrive func() (*arrival, error)) func() (float64, error) {
		return func() (float64, error) {
			if err := errors.Join(r.idle(), other.idle()); err != nil {
				return 0, err
			}
			var a *arrival
			p99, err := b.whilePublishing(r, func() (err error) {
				a, err = arrive()
				return err
			})
			late[i] = append(late[i], p99)
			if a == nil {
				return 0, err
			}
			return a.seconds, errors.Join(err, a.leave())
		}
	}
	back := func(i int, to *broker, perSecond int) func() (float64, error) {
		return func() (float64, error) {
			from, err := to.miss()
			if err != nil {
				return 0, err
			}
			return side(i, func() (*arrival, error) { return b.connect(to, from, missed, perSecond) })()
		}
	}
	times, err := turns(rounds,
		side(0, func() (*arrival, error) { <-time.After(quietTime); return nil, nil }),
		side(1, func() (*arrival, error) { return b.connect(r, "new", 0, 0) }),
		back(2, r, 0), back(3, r, spread), back(4, other, 0))
	if err != nil {
		return nil, err
	}
	return comeBackRows(b.returning, times, late), nil
}

// comeBackRows makes the rows of how long it took and of how late answers were.
func comeBackRows(returning int, times, late []rig.Sample) []*rig.Row {
	for i := range late {
		late[i] = late[i][1:] // the first turn warms up
	}
	meanwhile := func(name string, i int, aim float64) *rig.Row {
		return &rig.Row{Name: name, Ours: late[i].Text(" ms"), Beside: late[0].Text(" ms"), Ratio: rig.Each(late[i], late[0], rig.Over), Aim: aim}
	}
	return []*rig.Row{
		{
			Name: fmt.Sprintf("%d come back and get %d messages each; limit: they connect", returning, missed),
			Ours: times[2].Text(" s"), Beside: times[1].Text(" s"), Ratio: rig.Each(times[2], times[1], rig.Over), Aim: 3,
		},
		meanwhile("P99 of publishers meanwhile; limit: when nobody comes", 2, 2),
		meanwhile("to compare: P99 while they connect", 1, 0),
		meanwhile(fmt.Sprintf("to compare: P99 while %d a second come back", spread), 3, 0),
		meanwhile("to compare: P99 while all come back to another broker of this machine", 4, 0),
	}
}

// miss publishes what will have been missed, and returns the position before it.
func (r *broker) miss() (string, error) {
	c, err := dial(r.Addr, 4096, 0, &tidewirev1.Subscribe{Sub: 1, Filter: "bench.nobody"})
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	return c.position, flood(c, rooms*missed, room)
}

// idle waits until everybody is gone.
func (r *broker) idle() error {
	for {
		n, err := r.metric("tidewire_sessions")
		if err != nil || n == 0 {
			return err
		}
		<-time.After(50 * time.Millisecond)
	}
}

// arrival is a process whose subscribers are all there, after so many seconds.
// They stay until leave, so that nobody measures how they go.
type arrival struct {
	seconds float64
	leave   func() error
}

// connect has another process connect all, so many a second or, with 0, as fast
// as it can.
func (b *bench) connect(r *broker, from string, count, perSecond int) (*arrival, error) {
	cmd := exec.Command(b.self, "-step", "connect", r.Addr, strconv.Itoa(b.returning), from, strconv.Itoa(count), strconv.Itoa(perSecond))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	a := &arrival{leave: func() error { return errors.Join(in.Close(), cmd.Wait()) }}
	if _, err := fmt.Fscanln(out, &a.seconds); err != nil {
		return nil, errors.Join(fmt.Errorf("connect: %w", err), a.leave())
	}
	return a, nil
}

// whilePublishing has another process publish while something is done, and
// returns the P99 of its answers in milliseconds.
func (b *bench) whilePublishing(r *broker, do func() error) (p99 float64, err error) {
	cmd := exec.Command(b.self, "-step", "publish", r.Addr, strconv.Itoa(publishers), strconv.Itoa(publishRate))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err = do()
	if err := errors.Join(err, in.Close(), cmd.Wait()); err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(out.String()), 64)
}

// stepConnect connects subscribers, waits until each has its messages, prints
// the seconds, and keeps them until its input ends: ADDR COUNT FROM MISSED
// PERSECOND.
func stepConnect(args []string) error {
	count, err1 := strconv.Atoi(args[1])
	missed, err2 := strconv.Atoi(args[3])
	perSecond, err3 := strconv.Atoi(args[4])
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	errs := make([]error, count)
	open := make([]*conn, count) // they stay until all are there
	turn := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range count {
		if perSecond > 0 {
			<-time.After(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(perSecond))))
		}
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			sub := &tidewirev1.Subscribe{Sub: 1, Filter: room(i), From: args[2]}
			if open[i], errs[i] = dial(args[0], 4096, 0, sub); errs[i] == nil && missed > 0 {
				errs[i] = open[i].receive(missed, true)
			}
		})
	}
	wg.Wait()
	seconds := time.Since(begin).Seconds()
	if err := rig.FirstError(errs); err != nil {
		return err
	}
	fmt.Println(seconds)
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
