package broker

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// TestMergedRanges: ranges that were put together hold the same offsets, in order
// and without an overlap.
func TestMergedRanges(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("the seed is %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		var ranges []protocol.OffsetRange
		want := map[uint64]bool{}
		for range random.IntN(8) {
			r := protocol.OffsetRange{From: 1 + random.Uint64N(40)}
			r.Through = r.From + random.Uint64N(10)
			ranges = append(ranges, r)
			for o := r.From; o <= r.Through; o++ {
				want[o] = true
			}
		}
		got, last := 0, uint64(0)
		for _, r := range merged(ranges) {
			if r.From > r.Through || last > 0 && r.From <= last+1 {
				t.Fatalf("%v of %v", r, ranges)
			}
			for last = r.From; last <= r.Through; last++ {
				if got++; !want[last] {
					t.Fatalf("%d is not in %v", last, ranges)
				}
			}
			last = r.Through
		}
		if got != len(want) {
			t.Fatalf("%d offsets of %d in %v", got, len(want), ranges)
		}
	}
	whole := []protocol.OffsetRange{{From: 1, Through: protocol.MaxOffset}, {From: 5, Through: protocol.MaxOffset}}
	if m := merged(whole); len(m) != 1 || m[0].Through != protocol.MaxOffset {
		t.Errorf("%v", m)
	}
}
