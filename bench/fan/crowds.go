package main

import (
	"errors"
	"fmt"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/tests/kafka"

	"github.com/tidewire/tidewire/bench/rig"
)

const (
	crowdNodes = 3
	crowdTopic = "bench.crowd"
	crowdPause = 160 * time.Millisecond // between frames at a steady pace
)

// crowds is the brokers' work for a delivery when each of three nodes has a crowd,
// beside one broker with one crowd: one that has its log itself, and the only node
// of a cluster.
//
// Most of that work is a write to each subscriber, for whatever is there at that
// moment: 1 message or 500. At a steady pace all sides make the same frames, as
// long as the machine keeps up. In a flood each side makes as many as it
// happens to, so that its ratio is also one of frames. How many there were stands
// below each.
func (b *bench) crowds() ([]*rig.Row, error) {
	return b.withKafka(func(k *kafka.Cluster) (rows []*rig.Row, err error) {
		alone, err := b.start()
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, alone.Stop()) }()
		one, err := b.startNodes(k, "one", 1)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, one.stop()) }()
		three, err := b.startNodes(k, "three", crowdNodes)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, three.stop()) }()
		steady, err := crowdRows(fmt.Sprintf("%d messages at a steady pace", b.steady), three, nodes{alone}, one, b.steady, func(publisher *conn) error {
			_, err := paced(publisher, crowdTopic, int(frameOf*time.Second/crowdPause), b.steady, crowdPause, nil)
			return err
		})
		if err != nil {
			return nil, err
		}
		flooded, err := crowdRows(fmt.Sprintf("a flood of %d messages", b.toCrowds), three, nodes{alone}, one, b.toCrowds, func(publisher *conn) error {
			return flood(publisher, b.toCrowds, func(int) string { return crowdTopic })
		})
		return append(steady, flooded...), err
	})
}

// crowdRows measures what so many messages cost, published by the function.
func crowdRows(what string, three, alone, one nodes, count int, publish func(*conn) error) ([]*rig.Row, error) {
	frames := make([]rig.Sample, 3)
	side := func(i int, n nodes) func() (float64, error) {
		return func() (float64, error) {
			work, perSubscriber, err := n.workOfCrowds(count, publish)
			frames[i] = append(frames[i], perSubscriber)
			return work, err
		}
	}
	work, err := turns(rounds, side(0, three), side(1, alone), side(2, one))
	if err != nil {
		return nil, err
	}
	for i := range frames {
		frames[i] = frames[i][1:] // the first turn warms up
	}
	var rows []*rig.Row
	for i, beside := range []string{1: "one broker without Kafka", 2: "the only node of a cluster"} {
		if beside == "" {
			continue
		}
		rows = append(rows, &rig.Row{
			Name: fmt.Sprintf("CPU a million deliveries, %s to %d nodes with %d subscribers each; limit: %s", what, crowdNodes, crowd, beside),
			Ours: work[0].Text(" s"), Beside: work[i].Text(" s"), Ratio: rig.Each(work[0], work[i], rig.Over), Aim: 1.2,
		}, &rig.Row{
			Name: "to compare: frames to each subscriber then",
			Ours: frames[0].Text(""), Beside: frames[i].Text(""), Ratio: rig.Each(frames[0], frames[i], rig.Over),
		})
	}
	return rows, nil
}

// workOfCrowds publishes on the first node to a crowd at each, and returns the CPU
// seconds of all of them for a million deliveries, and how many frames with
// messages each subscriber got.
func (n nodes) workOfCrowds(count int, publish func(*conn) error) (work, frames float64, err error) {
	var open []*conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for _, r := range n {
		for range crowd {
			c, err := dial(r.Addr, 16<<10, 0, &tidewirev1.Subscribe{Sub: 1, Filter: crowdTopic})
			if err != nil {
				return 0, 0, err
			}
			open = append(open, c)
		}
	}
	publisher, err := dial(n[0].Addr, 4096, 0)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = publisher.Close() }()
	before, err := n.cpu()
	if err != nil {
		return 0, 0, err
	}
	err = receiveAll(open, count, func() error { return publish(publisher) })
	after, err2 := n.cpu()
	for _, c := range open {
		frames += float64(c.frames) / float64(len(open))
	}
	deliveries := float64(count) * float64(len(open))
	return (after - before) / deliveries * 1e6, frames, errors.Join(err, err2)
}
