package main

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/tests/kafka"

	"github.com/tidewire/tidewire/bench/rig"
)

const (
	pathTopic      = "bench.path"
	pathPublishers = 32 // with inFlight messages each
)

// path is the way of a message from a publisher on one broker over Kafka to a
// subscriber on another one, beside a bare loop over the same Kafka. That has a
// topic of its own of one partition too: in the broker's, its records would be
// work for the brokers.
func (b *bench) path() ([]*rig.Row, error) {
	return b.withKafka(func(k *kafka.Cluster) (rows []*rig.Row, err error) {
		n, err := b.startNodes(k, "path", 2)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, n.stop()) }()
		l, err := startBare(k)
		if err != nil {
			return nil, err
		}
		defer l.stop()
		late, err := b.pathLate(n, l)
		if err != nil {
			return nil, err
		}
		rates, err := b.pathRates(n, l)
		return append(late, rates...), err
	})
}

// pathLate measures one message at a time, of each side in turns.
func (b *bench) pathLate(n nodes, l *bare) ([]*rig.Row, error) {
	subscriber, err := dial(n[1].Addr, 4096, 0, &tidewirev1.Subscribe{Sub: 1, Filter: pathTopic})
	if err != nil {
		return nil, err
	}
	defer func() { _ = subscriber.Close() }()
	publisher, err := dial(n[0].Addr, 4096, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = publisher.Close() }()
	p50 := make([]rig.Sample, 3)
	for turn := range rounds + 1 {
		took := make([][]time.Duration, len(p50))
		for range b.single {
			if err := pathOne(publisher, subscriber, l, took); err != nil {
				return nil, err
			}
		}
		for i, t := range took {
			slices.Sort(t)
			if turn > 0 { // the first one warms up
				p50[i] = append(p50[i], t[len(t)/2].Seconds()*1000)
			}
		}
	}
	return []*rig.Row{{
		Name: "P50 from a publisher on A to a subscriber on B, one at a time; limit: a bare loop over Kafka",
		Ours: p50[0].Text(" ms"), Beside: p50[1].Text(" ms"), Ratio: rig.Each(p50[0], p50[1], rig.Over), Aim: 1.5,
	}, {
		Name: "to compare: P50 until both that and the publisher's answer are there",
		Ours: p50[2].Text(" ms"), Beside: p50[1].Text(" ms"), Ratio: rig.Each(p50[2], p50[1], rig.Over),
	}}, nil
}

// pathOne sends one message each way, and notes how long it took to the subscriber,
// through the bare loop, and until there was an answer besides.
func pathOne(publisher, subscriber *conn, l *bare, took [][]time.Duration) error {
	begin := time.Now()
	note := func(i int) { took[i] = append(took[i], time.Since(begin)) }
	if err := publisher.publish(1, 1, func(int) string { return pathTopic }); err != nil {
		return err
	}
	if err := subscriber.receive(1, false); err != nil {
		return err
	}
	note(0)
	if _, err := publisher.answers(func(uint32) {}); err != nil {
		return err
	}
	note(2)
	begin = time.Now()
	if err := l.one(); err != nil {
		return err
	}
	note(1)
	return nil
}

// pathRates measures many messages at once.
func (b *bench) pathRates(n nodes, l *bare) ([]*rig.Row, error) {
	count := b.many / pathPublishers * pathPublishers
	perMessage := func(seconds float64) float64 { return seconds / float64(count) * 1e6 }
	cpu := make([]rig.Sample, 2)
	side := func(i int, used func() (float64, error), do func() error) func() (float64, error) {
		return func() (float64, error) {
			before, err1 := used()
			begin := time.Now()
			err2 := do()
			seconds := time.Since(begin).Seconds()
			after, err3 := used()
			cpu[i] = append(cpu[i], perMessage(after-before))
			return float64(count) / seconds / 1000, errors.Join(err1, err2, err3)
		}
	}
	rates, err := turns(rounds,
		side(0, n.cpu, func() error { return n.many(count) }),
		side(1, selfCPU, func() error { return l.many(count, pathPublishers, pathPublishers*inFlight) }))
	if err != nil {
		return nil, err
	}
	for i := range cpu {
		cpu[i] = cpu[i][1:] // the first turn warms up
	}
	return []*rig.Row{{
		Name: fmt.Sprintf("messages a second of %d publishers on A to a subscriber on B; limit: a bare loop of %d producers", pathPublishers, pathPublishers),
		Ours: rates[0].Text(" k/s"), Beside: rates[1].Text(" k/s"), Ratio: rig.Each(rates[0], rates[1], rig.Over), Aim: 0.8, Least: true,
	}, {
		Name: "to compare: CPU a message then, of A and B with WebSocket and store; limit: of the bare loop",
		Ours: cpu[0].Text(" µs"), Beside: cpu[1].Text(" µs"), Ratio: rig.Each(cpu[0], cpu[1], rig.Over),
	}}, nil
}

// many has publishers on the first broker send messages until a subscriber on the
// second one has all.
func (n nodes) many(count int) error {
	subscriber, err := dial(n[1].Addr, 64<<10, 0, &tidewirev1.Subscribe{Sub: 1, Filter: pathTopic})
	if err != nil {
		return err
	}
	defer func() { _ = subscriber.Close() }()
	publishers := make([]*conn, pathPublishers)
	for i := range publishers {
		if publishers[i], err = dial(n[0].Addr, 4096, 0); err != nil {
			return err
		}
		defer func() { _ = publishers[i].Close() }()
	}
	return receiveAll([]*conn{subscriber}, count, func() error {
		errs := make([]error, len(publishers))
		var wg sync.WaitGroup
		for i, p := range publishers {
			wg.Go(func() {
				errs[i] = flood(p, count/pathPublishers, func(int) string { return pathTopic })
			})
		}
		wg.Wait()
		return rig.FirstError(errs)
	})
}
