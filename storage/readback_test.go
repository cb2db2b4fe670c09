package storage

import (
	"slices"
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
		if got := p.until(nil, through, n); !slices.Equal(got, want) {
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
