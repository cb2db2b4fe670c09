package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"

	"github.com/tidewire/tidewire/bench/rig"
)

const (
	crowd     = 1_000 // subscribers of one topic
	manyStuck = 20    // lift what one takes above the noise
	softLimit = 1.0   // MiB: outbound_soft_bytes
)

// stuck is what a subscriber that reads nothing costs the broker and the
// others: first one among a thousand, then several, for the memory of each.
//
// The memory that one costs is below what the resident memory of a process varies
// by from run to run, since that depends on when garbage is collected. So the heap
// is measured that is still in use, after a collection, while the stuck one is
// there. The resident memory stands beside it.
func (b *bench) stuck() ([]*rig.Row, error) {
	heap, resident := make([]rig.Sample, 3), make([]rig.Sample, 3)
	side := func(i, stuck int) func() (float64, error) {
		return func() (float64, error) {
			var d delivered
			rate, err := b.with(func(r *broker) (rate float64, err error) {
				d, err = r.deliverAll(b.flood, crowd-stuck, stuck)
				return d.rate, err
			})
			heap[i], resident[i] = append(heap[i], d.heap), append(resident[i], d.most)
			return rate, err
		}
	}
	rates, err := turns(manyRounds, side(0, 0), side(1, 1), side(2, manyStuck))
	if err != nil {
		return nil, err
	}
	for i := range heap {
		heap[i], resident[i] = heap[i][1:], resident[i][1:] // the first turn warms up
	}
	share := rig.Each(heap[2], heap[0], func(with, without float64) float64 { return (with - without) / manyStuck })
	bySoftLimit := func(with, without float64) float64 { return (with - without) / softLimit }
	return []*rig.Row{
		{
			Name: fmt.Sprintf("deliveries of %d messages to %d, one stuck; limit: none stuck", b.flood, crowd),
			Ours: rates[1].Text(" M/s"), Beside: rates[0].Text(" M/s"),
			Ratio: rig.Each(rates[1], rates[0], rig.Over), Aim: 0.95, Least: true,
		},
		{
			Name: "heap of the broker in use then; ratio: growth by the soft limit",
			Ours: heap[1].Text(" MiB"), Beside: heap[0].Text(" MiB"),
			Ratio: rig.Each(heap[1], heap[0], bySoftLimit), Aim: 1,
		},
		{
			Name: fmt.Sprintf("the same with %d stuck, growth for each; limit: the soft limit", manyStuck),
			Ours: share.Text(" MiB"), Beside: fmt.Sprint(softLimit, " MiB"),
			Ratio: share, Aim: 1,
		},
		{
			Name: "to compare: most resident memory meanwhile, with one stuck; ratio: growth by the soft limit",
			Ours: resident[1].Text(" MiB"), Beside: resident[0].Text(" MiB"),
			Ratio: rig.Each(resident[1], resident[0], bySoftLimit),
		},
	}, nil
}

// delivered is what a flood has shown.
type delivered struct {
	rate float64 // millions of deliveries to readers a second
	most float64 // MiB of resident memory, at most
	heap float64 // MiB in use at the end
}

// deliverAll publishes to readers and to others that are stuck.
func (r *broker) deliverAll(count, readers, stuck int) (d delivered, err error) {
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
		c, err := dial(r.Addr, 16<<10, receive, &tidewirev1.Subscribe{Sub: 1, Filter: "bench.crowd"})
		if err != nil {
			return d, err
		}
		open = append(open, c)
	}
	publisher, err := dial(r.Addr, 4096, 0)
	if err != nil {
		return d, err
	}
	open = append(open, publisher)

	done := make(chan struct{})
	var watched error
	var watching sync.WaitGroup
	watching.Go(func() { d.most, watched = r.watch(done) })
	begin := time.Now()
	err = receiveAll(open[:readers], count, func() error {
		return flood(publisher, count, func(int) string { return "bench.crowd" })
	})
	seconds := time.Since(begin).Seconds()
	close(done)
	watching.Wait()
	behind, metric := r.metric("tidewire_subscriptions_behind")
	heap, inUse := r.heap()
	if err := errors.Join(err, watched, metric, inUse); err != nil {
		return d, err
	}
	if int(behind) != stuck {
		return d, fmt.Errorf("%g subscriptions are behind and not %d", behind, stuck)
	}
	d.rate, d.heap = float64(count)*float64(readers)/seconds/1e6, heap
	return d, nil
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
	return rig.FirstError(errs)
}
