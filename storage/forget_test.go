package storage

import (
	"strings"
	"testing"
)

// TestForget: segments go that have nothing above an offset and no others, and
// whoever asked is told before, while the messages can still be read.
func TestForget(t *testing.T) {
	l := openTest(t, t.TempDir(), LogOptions{SegmentBytes: 1})
	for range 40 {
		l.publish(message("a", "", strings.Repeat("x", 30_000)))
	}
	l.settle()
	segs := l.state.segs
	if len(segs) < 4 {
		t.Fatalf("%d segments", len(segs))
	}
	var told []uint64
	l.BeforeTrim(func(through uint64) {
		told = append(told, through)
		if got := l.readAll("a", through-1, 0); len(got) == 0 || got[0].Position.Offset != through {
			t.Errorf("what ends at %d cannot be read any more", through)
		}
	})
	l.Forget(segs[2].first) // one offset of the third segment goes with it, or stays with it
	l.settle()
	if earliest, _ := l.Bounds(); earliest != segs[2].first {
		t.Errorf("the log begins at %d, not at %d", earliest, segs[2].first)
	}
	if len(told) != 2 || told[0] != segs[1].first-1 || told[1] != segs[2].first-1 {
		t.Errorf("told of %v", told)
	}
	_, head := l.Bounds()
	l.Forget(head)
	l.settle()
	if earliest, _ := l.Bounds(); earliest != segs[len(segs)-1].first {
		t.Errorf("the log begins at %d: the active segment stays, and nothing else", earliest)
	}
}
