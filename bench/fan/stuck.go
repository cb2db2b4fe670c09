package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

const (
	crowd     = 1_000 // subscribers of one topic
	manyStuck = 20    // lift what one takes above the noise
	softLimit = 1.0   // MiB: outbound_soft_bytes
)

// stuck is what a subscriber that reads nothing costs the broker and the
// others: first one among a thousand, then several, for the memory of each.
func (b *bench) stuck() ([]*row, error) {
	memory := make([]sample, 3)
	side := func(i, stuck int) func() (float64, error) {
		return func() (float64, error) {
			var most float64
			rate, err := b.with(func(r *broker) (rate float64, err error) {
				rate, most, err = r.deliverAll(b.flood, crowd-stuck, stuck)
				return rate, err
			})
			memory[i] = append(memory[i], most)
			return rate, err
		}
	}
	rates, err := turns(manyRounds, side(0, 0), side(1, 1), side(2, manyStuck))
	if err != nil {
		return nil, err
	}
	for i := range memory {
		memory[i] = memory[i][1:] // the first turn warms up
	}
	share := each(memory[2], memory[0], func(with, without float64) float64 { return (with - without) / manyStuck })
	return []*row{
		{
			name: fmt.Sprintf("deliveries of %d messages to %d, one stuck; limit: none stuck", b.flood, crowd),
			ours: rates[1].text(" M/s"), limit: rates[0].text(" M/s"),
			ratio: each(rates[1], rates[0], over), aim: 0.95, least: true,
		},
		{
			name: "most memory of the broker meanwhile; ratio: growth by the soft limit",
			ours: memory[1].text(" MiB"), limit: memory[0].text(" MiB"),
			ratio: each(memory[1], memory[0], func(with, without float64) float64 { return (with - without) / softLimit }),
			aim:   1,
		},
		{
			name: fmt.Sprintf("the same with %d stuck, growth for each; limit: the soft limit", manyStuck),
			ours: share.text(" MiB"), limit: fmt.Sprint(softLimit, " MiB"),
			ratio: share, aim: 1,
		},
	}, nil
}

// deliverAll publishes to readers and to others that are stuck. It returns the
// millions of deliveries to readers a second, and the most memory.
func (r *broker) deliverAll(count, readers, stuck int) (rate, most float64, err error) {
	var open []*conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for i := range readers + stuck {
		receive := 0
		if i >= readers {
			receive = 4096
		}
		c, err := dial(r.addr, 16<<10, receive, &tidewirev1.Subscribe{Sub: 1, Filter: "bench.crowd"})
		if err != nil {
			return 0, 0, err
		}
		open = append(open, c)
	}
	publisher, err := dial(r.addr, 4096, 0)
	if err != nil {
		return 0, 0, err
	}
	open = append(open, publisher)

	done := make(chan struct{})
	var watched error
	var watching sync.WaitGroup
	watching.Go(func() { most, watched = r.watch(done) })
	begin := time.Now()
	err = receiveAll(open[:readers], count, func() error {
		return flood(publisher, count, func(int) string { return "bench.crowd" })
	})
	seconds := time.Since(begin).Seconds()
	close(done)
	watching.Wait()
	behind, metric := r.metric("tidewire_subscriptions_behind")
	if err := errors.Join(err, watched, metric); err != nil {
		return 0, 0, err
	}
	if int(behind) != stuck {
		return 0, 0, fmt.Errorf("%g subscriptions are behind and not %d", behind, stuck)
	}
	return float64(count) * float64(readers) / seconds / 1e6, most, nil
}

// receiveAll publishes, and returns when all have got all.
func receiveAll(readers []*conn, count int, publish func() error) error {
	errs := make([]error, len(readers))
	var wg sync.WaitGroup
	for i, c := range readers {
		wg.Go(func() { errs[i] = c.receive(count, false) })
	}
	if err := publish(); err != nil {
		return err
	}
	wg.Wait()
	return firstError(errs)
}
