package storage

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/tidewire/tidewire/protocol"
)

// TestNewest compares Newest with the simplest way to say it, over sealed
// segments, segments being sealed and the active one, from any place, a few at a
// time or all; with many topics, so that all of them are walked over, and through
// the window, the index and the files.
func TestNewest(t *testing.T) {
	rng := newRand(t)
	l := openTest(t, t.TempDir(), LogOptions{SegmentBytes: 1, WindowBytes: 1 << 16})
	var topics []string // by offset-1
	for batch := range 12 {
		var entries []*Entry
		for range 1000 {
			// Two spaces of names; few topics come often, many once or twice.
			topic := fmt.Sprintf("%c.%d", 'a'+rune(rng.IntN(2)), int(float64(5000)*rng.Float64()*rng.Float64()))
			topics = append(topics, topic)
			entries = append(entries, message(topic, "", fmt.Sprint(len(topics))))
		}
		l.publish(entries...)
		if batch < 10 && rng.IntN(2) == 0 {
			l.settle()
		}
	}
	sealed := 0
	for _, s := range l.state.segs {
		if s.index == nil {
			sealed++
		}
	}
	t.Logf("%d segments, %d of them sealed", len(l.state.segs), sealed)
	head := uint64(len(topics))
	for range 60 {
		filter := []string{">", "a.*", "b.>", "*.7", "c.*", topics[rng.IntN(len(topics))]}[rng.IntN(6)]
		after := uint64(rng.IntN(len(topics)))
		through := after + 1 + uint64(rng.IntN(len(topics)-int(after)))
		if rng.IntN(3) > 0 {
			after, through = uint64(rng.IntN(1000)), head
		}
		if rng.IntN(4) == 0 { // a short one
			after = head - uint64(1+rng.IntN(3000))
			through = after + 1 + uint64(rng.IntN(int(head-after)))
		}
		want := newestOf(topics, mustFilter(t, filter), after, through)
		n := 1 + rng.IntN(3000)
		var got []uint64
		for at := after; at < through; {
			offsets, covered, err := l.Newest(mustFilter(t, filter), at, through, n)
			if err != nil || len(offsets) > n || covered <= at || covered > through || covered < through && len(offsets) < n {
				t.Fatalf("%s in (%d, %d]: %d offsets, covers up to %d, %v", filter, at, through, len(offsets), covered, err)
			}
			checkPicked(t, l, filter, at, covered, offsets)
			got = append(got, offsets...)
			at = covered
		}
		// A record may be named whose topic has a newer one behind the range.
		behind := func(o uint64) bool { return slices.Contains(topics[through:], topics[o-1]) }
		got = slices.DeleteFunc(got, func(o uint64) bool { return !slices.Contains(want, o) && behind(o) })
		if !slices.Equal(got, want) {
			t.Fatalf("%s in (%d, %d]: got %d offsets, want %d", filter, after, through, len(got), len(want))
		}
	}
}

// newestOf is Newest over a list of topics.
func newestOf(topics []string, f protocol.Filter, after, through uint64) (offsets []uint64) {
	seen := map[string]bool{}
	for offset := uint64(len(topics)); offset > after; offset-- {
		topic := topics[offset-1]
		if !seen[topic] && f.Match(topic) && offset <= through {
			offsets = append(offsets, offset)
		}
		seen[topic] = true
	}
	slices.Reverse(offsets)
	return offsets
}

// checkPicked reads the records at the offsets, and no others.
func checkPicked(t *testing.T, l *testLog, filter string, after, through uint64, offsets []uint64) {
	t.Helper()
	var got []uint64
	for at := after; at < through; {
		c, err := l.Read(Query{Filter: mustFilter(t, filter), After: at, Through: through, Picked: true, Offsets: offsets})
		if err != nil || c.Through <= at || c.Through > through {
			t.Fatalf("read above %d: up to %d, %v", at, c.Through, err)
		}
		for m, err := range c.Messages() {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, m.Position.Offset)
		}
		at = c.Through
	}
	if !slices.Equal(got, offsets) {
		t.Fatalf("read %d records at %d offsets of %s in (%d, %d]", len(got), len(offsets), filter, after, through)
	}
}

// TestNewestInDamage: what meta.db has of the topics is damaged, and the segments
// say it too.
func TestNewestInDamage(t *testing.T) {
	l := openTest(t, t.TempDir(), LogOptions{SegmentBytes: 1, WindowBytes: 1})
	for round := range 4 {
		var entries []*Entry
		for i := range 700 {
			entries = append(entries, message(fmt.Sprintf("t.%d", i%(10-round)), "", strings.Repeat("x", 400)))
		}
		l.publish(entries...)
		l.settle()
	}
	filters := []string{"t.*", "t.9", "t.0", "none"}
	want := make(map[string][]uint64)
	newest := func(filter string) []uint64 {
		offsets, _, err := l.Newest(mustFilter(t, filter), 0, l.head, 100)
		if err != nil {
			t.Fatal(err)
		}
		return offsets
	}
	for _, filter := range filters {
		want[filter] = newest(filter)
	}
	if len(want["t.*"]) != 10 || l.state.segs[0].index != nil {
		t.Fatalf("%d topics, the first segment is sealed: %v", len(want["t.*"]), l.state.segs[0].index == nil)
	}
	err := l.meta.update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketLast)
		return b.ForEach(func(topic, v []byte) error {
			v = bytes.Clone(v)
			v[0] ^= 1
			return b.Put(bytes.Clone(topic), v)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, filter := range filters {
		if got := newest(filter); !slices.Equal(got, want[filter]) {
			t.Errorf("%s: %v, and without damage %v", filter, got, want[filter])
		}
	}
	if len(l.Degraded()) == 0 {
		t.Error("the damage is not told")
	}
}
