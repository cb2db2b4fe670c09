package main

import (
	"fmt"
	"sync"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"

	"github.com/tidewire/tidewire/bench/rig"
)

const (
	watchers = 500   // subscribers of a fast topic
	fast     = 5_000 // messages a second of it
	slowly   = 5     // of them to each, conflated
)

// conflate is the broker's work to send a few messages a second of a fast topic,
// beside that of sending all. What it does without any subscriber is taken off
// both.
func (b *bench) conflate() ([]*rig.Row, error) {
	side := func(subscribers int, of *tidewirev1.Subscribe) func() (float64, error) {
		return func() (float64, error) {
			return b.with(func(r *broker) (float64, error) { return r.work(b.seconds, subscribers, of) })
		}
	}
	const topic = "bench.fast"
	work, err := turns(rounds,
		side(0, nil),
		side(watchers, &tidewirev1.Subscribe{Sub: 1, Filter: topic, Slow: "conflate", ConflateMs: 1000 / slowly}),
		side(watchers, &tidewirev1.Subscribe{Sub: 1, Filter: topic}))
	if err != nil {
		return nil, err
	}
	few, all := rig.Each(work[1], work[0], minus), rig.Each(work[2], work[0], minus)
	return []*rig.Row{{
		Name: fmt.Sprintf("broker's CPU for %d a second of %d, %d subscribers, %d s; limit: to send all", slowly, fast, watchers, b.seconds),
		Ours: few.Text(" s"), Beside: all.Text(" s"), Ratio: rig.Each(few, all, rig.Over), Aim: 0.1,
	}, {
		Name: "to compare: with no subscriber; limit: as above",
		Ours: work[0].Text(" s"), Beside: all.Text(" s"), Ratio: rig.Each(work[0], all, rig.Over),
	}}, nil
}

// work returns the CPU seconds of the broker while it takes and sends a fast
// topic.
func (r *broker) work(seconds, subscribers int, of *tidewirev1.Subscribe) (float64, error) {
	open := make([]*conn, subscribers)
	for i := range open {
		c, err := dial(r.Addr, 4096, 0, of)
		if err != nil {
			return 0, err
		}
		defer func() { _ = c.Close() }()
		open[i] = c
	}
	publisher, err := dial(r.Addr, 4096, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = publisher.Close() }()
	before, err := r.CPU()
	if err != nil {
		return 0, err
	}
	count := fast * seconds
	counts := make([]int, subscribers)
	var wg sync.WaitGroup
	for i, c := range open {
		wg.Go(func() { counts[i] = c.drain() })
	}
	if _, err := paced(publisher, "bench.fast", fast, count, time.Millisecond, nil); err != nil {
		return 0, err
	}
	after, err := r.CPU()
	if err != nil {
		return 0, err
	}
	for _, c := range open {
		_ = c.Close()
	}
	wg.Wait()
	return after - before, checkCounts(counts, count, of)
}

// drain counts messages until the connection is closed.
func (c *conn) drain() int {
	count := 0
	for {
		number, body, err := c.next()
		if err != nil {
			return count
		}
		if number == deliver {
			n, _ := records(body)
			count += n
		}
	}
}

// checkCounts tells if subscribers got too few or too many: nearly all messages,
// or as many as a conflated one should have.
func checkCounts(counts []int, all int, of *tidewirev1.Subscribe) error {
	least, most := all*9/10, all
	if of != nil && of.ConflateMs > 0 {
		should := all / fast * slowly
		least, most = should/2, should+2
	}
	for _, n := range counts {
		if n < least || n > most {
			return fmt.Errorf("a subscriber got %d messages, and should have from %d to %d", n, least, most)
		}
	}
	return nil
}
