package storage

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
)

// TestPostingsBothWays: a posting list gives the same from either end, whatever
// the size of its steps.
func TestPostingsBothWays(t *testing.T) {
	rng := newRand(t)
	for range 200 {
		var p postings
		var want []uint64
		offset := uint64(1 + rng.IntN(1000))
		for range rng.IntN(40) {
			p.add(offset)
			want = append(want, offset)
			offset += 1 + rng.Uint64N(1<<rng.IntN(40))
		}
		through, n := rng.Uint64N(offset+1), rng.IntN(45)
		slices.Reverse(want)
		want = slices.DeleteFunc(want, func(o uint64) bool { return o > through })
		want = want[:min(n, len(want))]
		if got := p.until(through, n); !slices.Equal(got, want) {
			t.Fatalf("up to %d at most %d: %v, want %v", through, n, got, want)
		}
	}
}

// TestReadBackCostsWhatItReturns: the newest message of a topic costs the same,
// however many there are.
func TestReadBackCostsWhatItReturns(t *testing.T) {
	cost := func(rare int) float64 {
		l := openTest(t, t.TempDir(), LogOptions{WindowBytes: 1})
		for range rare {
			entries := []*Entry{message("rare", "", "x")}
			for range 40 {
				entries = append(entries, message("other", "", "x"))
			}
			l.publish(entries...)
		}
		q := Query{Filter: mustFilter(t, "rare")}
		return testing.AllocsPerRun(20, func() {
			if c, err := l.ReadBack(q, 1); err != nil || c.Count != 1 {
				t.Fatalf("%+v, %v", c, err)
			}
		})
	}
	if few, many := cost(5), cost(400); many > few+2 {
		t.Errorf("%v allocations for the newest of 5, %v for the newest of 400", few, many)
	}
}

// TestReadBackMeanwhile reads backwards while messages are stored, segments are
// sealed and retention takes them: of each topic the numbers go down one by one,
// until retention is met.
func TestReadBackMeanwhile(t *testing.T) {
	l := openTest(t, t.TempDir(), LogOptions{SegmentBytes: 1, RetentionBytes: 1 << 20, WindowBytes: 64 << 10})
	topics := []string{"hot", "warm", "rare"}
	err := l.during(func() {
		stop := make(chan struct{})
		var readers sync.WaitGroup
		for i, topic := range topics {
			readers.Go(func() {
				for n := 1; ; n = n%50 + 7 {
					select {
					case <-stop:
						return
					default:
						downOnce(t, l, topic, n*(i+1))
					}
				}
			})
		}
		publishCounted(t, l, topics, 300)
		close(stop)
		readers.Wait()
	})
	if err != nil {
		t.Fatal(err)
	}
	if earliest, _ := l.Bounds(); earliest == 1 {
		t.Error("retention took nothing: the test shows little")
	}
}

// publishCounted publishes batches in which the payloads of each topic count up.
func publishCounted(t *testing.T, l *testLog, topics []string, batches int) {
	counts := make([]int, len(topics))
	for range batches {
		var answered sync.WaitGroup
		var entries []*Entry
		for i := range 100 {
			topic := 0
			if i%7 == 0 {
				topic = 1
			}
			if i == 50 {
				topic = 2
			}
			e := message(topics[topic], "", fmt.Sprintf("%d %0100d", counts[topic], 0))
			counts[topic]++
			answered.Add(1)
			e.Done = func(Result) { answered.Done() }
			entries = append(entries, e)
		}
		if err := l.Append(t.Context(), entries...); err != nil {
			t.Error(err)
			return
		}
		answered.Wait()
	}
}

// downOnce reads a topic from its newest message down to retention.
func downOnce(t *testing.T, l *testLog, topic string, n int) {
	_, through := l.Bounds()
	last := -1
	for through > 0 {
		c, err := l.ReadBack(Query{Filter: mustFilter(t, topic), Through: through, MaxBytes: 3000}, n)
		if errors.Is(err, ErrTrimmed) {
			return
		}
		if err != nil || c.Through != through || c.After >= through {
			t.Errorf("%s from %d: (%d, %d], %v", topic, through, c.After, c.Through, err)
			return
		}
		var numbers []int
		for m, err := range c.Messages() {
			var number int
			if _, scan := fmt.Sscan(string(m.Payload), &number); err != nil || scan != nil {
				t.Error(err, scan)
			}
			numbers = append(numbers, number)
		}
		for _, number := range slices.Backward(numbers) {
			if last >= 0 && number != last-1 {
				t.Errorf("%s: %d comes before %d", topic, number, last)
				return
			}
			last = number
		}
		through = c.After
	}
}
