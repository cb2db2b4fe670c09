package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// administered is what operators ask a log.
type administered interface {
	Append(ctx context.Context, entries ...*Entry) error
	Read(q Query) (protocol.Chunk, error)
	Resolve(s protocol.Start, f protocol.Filter, head uint64) (Resolved, error)
	PositionOf(offset uint64) protocol.Position
	Bounds() (earliest, head uint64)
	Stats() Stats
	Topics(ctx context.Context, q TopicQuery) ([]TopicStats, error)
	Purge(ctx context.Context) (uint64, error)
}

// running runs a log until the end of the test.
func running(t *testing.T, l interface {
	Run(ctx context.Context, apply func(*Commit)) error
},
) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- l.Run(ctx, func(c *Commit) {
			for _, a := range c.Answers {
				a.Entry.Done(a.Result)
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func putAll(t *testing.T, l administered, entries ...*Entry) []Result {
	t.Helper()
	answers := make(chan Result, len(entries))
	for _, e := range entries {
		e.Done = func(r Result) { answers <- r }
	}
	if err := l.Append(t.Context(), entries...); err != nil {
		t.Fatal(err)
	}
	results := make([]Result, 0, len(entries))
	for range entries {
		results = append(results, <-answers)
	}
	return results
}

// eachKind runs a test with a log on disk and one in memory.
func eachKind(t *testing.T, test func(t *testing.T, l administered)) {
	t.Run("disk", func(t *testing.T) {
		l := openTest(t, t.TempDir(), LogOptions{SegmentBytes: 1})
		running(t, l.Log)
		test(t, l.Log)
	})
	t.Run("memory", func(t *testing.T) {
		l := NewMemoryLog("m", MemoryOptions{})
		running(t, l)
		test(t, l)
	})
}

// TestTopics compares the pages of topics with what was stored, over several
// segments, sealed and not.
func TestTopics(t *testing.T) {
	eachKind(t, func(t *testing.T, l administered) {
		seed := uint64(time.Now().UnixNano())
		t.Logf("SEED=%d", seed)
		rng := rand.New(rand.NewPCG(seed, 6))
		want, recent := make(topicSums), uint64(rng.IntN(1300))
		for range 30 {
			var entries []*Entry
			for range 40 {
				topic := fmt.Sprintf("%c.%d", 'a'+rune(rng.IntN(4)), rng.IntN(30))
				entries = append(entries, message(topic, "", string(make([]byte, rng.IntN(1000)))))
			}
			for i, r := range putAll(t, l, entries...) {
				stats := TopicStats{Topic: entries[i].Topic, Messages: 1, First: r.Position.Offset, Last: r.Position.Offset}
				if r.Position.Offset > recent {
					stats.Recent = 1
				}
				want.add([]TopicStats{stats})
			}
		}
		for _, text := range []string{">", "a.*", "b.>", "*.7", "c.12", "none", "c"} {
			f := mustFilter(t, text)
			var all []TopicStats
			for _, topic := range want.first(len(want)) {
				if f.Match(topic.Topic) {
					all = append(all, topic)
				}
			}
			for _, limit := range []int{1, 7, 1000} {
				var got []TopicStats
				off := 0 // of topics that make up much of a sealed segment it is an estimate
				for after := ""; ; {
					page, err := l.Topics(t.Context(), TopicQuery{Filter: f, After: after, Limit: limit, Recent: recent})
					if err != nil || len(page) > limit {
						t.Fatalf("%s after %q: %d topics, %v", text, after, len(page), err)
					}
					if len(page) == 0 {
						break
					}
					got, after = append(got, page...), page[len(page)-1].Topic
				}
				for i := range min(len(got), len(all)) {
					off += int(max(got[i].Recent, all[i].Recent) - min(got[i].Recent, all[i].Recent))
					got[i].Recent = all[i].Recent
				}
				if !slices.Equal(got, all) || off > 5 {
					t.Fatalf("%s by %d: got %v, want %v, %d recent ones off", text, limit, got, all, off)
				}
			}
		}
		if s := l.Stats(); s.Messages != 1200 || s.Bytes < 500_000 || s.Oldest.IsZero() || s.Newest.Before(s.Oldest) || s.Storage == "disk" && s.Segments < 2 {
			t.Errorf("%+v", s)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Topics(ctx, TopicQuery{Filter: mustFilter(t, ">"), Limit: 1}); !errors.Is(err, context.Canceled) {
			t.Errorf("after its end: %v", err)
		}
	})
}

// TestPurge: what was stored is gone, its readers are told by retention, ids stay
// known, and the log goes on.
func TestPurge(t *testing.T) {
	eachKind(t, func(t *testing.T, l administered) {
		if through, err := l.Purge(t.Context()); err != nil || through != 0 {
			t.Errorf("an empty log: %d, %v", through, err)
		}
		var last []Result
		for i := range 20 {
			last = putAll(t, l, message("a", fmt.Sprint(i), string(make([]byte, 50_000))))
		}
		through, err := l.Purge(t.Context())
		if err != nil || through != 20 {
			t.Fatalf("through %d, %v", through, err)
		}
		if earliest, head := l.Bounds(); earliest != 21 || head != 20 {
			t.Errorf("it has %d to %d", earliest, head)
		}
		if s := l.Stats(); s.Messages != 0 {
			t.Errorf("%+v", s)
		}
		topics, err := l.Topics(t.Context(), TopicQuery{Filter: mustFilter(t, ">"), Limit: 10})
		if err != nil || len(topics) != 0 {
			t.Errorf("topics %v, %v", topics, err)
		}
		if _, err := l.Read(Query{Filter: mustFilter(t, "a"), After: 3}); !errors.Is(err, ErrTrimmed) {
			t.Errorf("a reader in the middle: %v", err)
		}
		at, err := l.Resolve(protocol.Start{Kind: protocol.StartPosition, Position: l.PositionOf(3)}, mustFilter(t, "a"), 20)
		if err != nil || at.Gap == nil || at.Gap.Reason != GapRetention || at.Gap.Through != 20 || at.After != 20 {
			t.Errorf("%+v, %v", at, err)
		}
		if r := putAll(t, l, message("a", "19", string(make([]byte, 50_000))))[0]; !r.Duplicate || r.Position != last[0].Position {
			t.Errorf("a repeat: %+v", r)
		}
		putAll(t, l, message("b", "", "new"))
		if c, err := l.Read(Query{Filter: mustFilter(t, ">"), After: 20}); err != nil || c.Count != 1 {
			t.Errorf("%d messages, %v", c.Count, err)
		}
		if through, err := l.Purge(t.Context()); err != nil || through != 22 {
			t.Errorf("again: through %d, %v", through, err)
		}
	})
}

// TestPurgeIsCutShort: a purge whose caller has gone is completed.
func TestPurgeIsCutShort(t *testing.T) {
	l := openTest(t, t.TempDir(), LogOptions{})
	l.publish(message("a", "", "x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Purge(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	running(t, l.Log)
	if through, err := l.Purge(t.Context()); err != nil || through != 1 {
		t.Errorf("through %d, %v", through, err)
	}
}

// TestRecent counts what lists of offsets have behind one, and estimates it where
// a stored list has but its ends.
func TestRecent(t *testing.T) {
	rng := newRand(t)
	for range 200 {
		p, offsets := &postings{topic: "a"}, []uint64(nil)
		for offset, n := uint64(0), 1+rng.IntN(50); n > 0; n-- {
			offset += 1 + rng.Uint64N(300)
			p.add(offset)
			offsets = append(offsets, offset)
		}
		after := rng.Uint64N(p.last + 3)
		want := uint64(0)
		for _, offset := range offsets {
			if offset > after {
				want++
			}
		}
		if got := p.behind(after); got != want {
			t.Fatalf("%v behind %d: %d, not %d", offsets, after, got, want)
		}
	}
	stored := postings{count: 101, first: 100, last: 300}
	for after, want := range map[uint64]uint64{0: 101, 99: 101, 100: 100, 200: 50, 299: 0, 300: 0} {
		if got := stored.behind(after); got != want {
			t.Errorf("behind %d: %d, not %d", after, got, want)
		}
	}
}
