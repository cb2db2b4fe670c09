package server

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

func TestHistoryBackwards(t *testing.T) {
	e := newTestEdge(t, anyone())
	if p := e.historyOf("a", "before=new"); len(p.Messages) != 0 || p.Gap != nil || p.Next != e.log.PositionOf(0).String() {
		t.Errorf("empty log: %+v", p)
	}
	for i := range 5 {
		e.publishText("a", fmt.Sprint("a", i))
		e.publishText("b", fmt.Sprint("b", i))
	}
	at := func(offset uint64) string { return e.log.PositionOf(offset).String() }
	for _, c := range []struct{ query, payloads, next string }{
		{"before=new", "a0 a1 a2 a3 a4", at(0)},
		{"before=new&limit=2", "a3 a4", at(7)},
		{"before=" + at(7) + "&limit=2", "a1 a2", at(3)},
		{"before=" + at(3) + "&limit=2", "a0", at(0)},
		{"before=" + at(3) + "&limit=1", "a0", at(0)},
		{"before=" + at(2), "a0", at(0)},
		{"before=" + at(1), "", at(0)},
		{"before=" + at(0), "", at(0)},
		{"before=earliest", "", at(0)},
		{"before=last:2", "a0 a1 a2", at(0)},
		{"before=-1h", "", at(0)},
		{"before=" + time.Now().Add(time.Hour).UTC().Format(time.RFC3339), "a0 a1 a2 a3 a4", at(0)},
	} {
		if p := e.historyOf("a", c.query); p.payloads() != c.payloads || p.Next != c.next || p.Gap != nil {
			t.Errorf("%s: %s, next %s, gap %v; want %s, %s", c.query, p.payloads(), p.Next, p.Gap, c.payloads, c.next)
		}
	}
}

// TestHistoryBackwardsGaps: what is gone is told where the reader meets it, once.
func TestHistoryBackwardsGaps(t *testing.T) {
	e := newTestEdge(t, anyone())
	var at []string
	for i := range 6 {
		at = append(at, e.publishText("a", fmt.Sprint(i)).Position)
	}
	start := e.log.PositionOf(0).String()
	e.log.Trim(3)
	other := protocol.Position{Term: 5, Offset: 2}.String()
	for _, c := range []struct{ query, payloads, next, gap string }{
		{"before=new", "3 4 5", start, "retention (0, 3] " + at[2]},
		{"before=new&limit=3", "3 4 5", at[3], ""},
		{"before=" + at[3], "", start, "retention (0, 3] " + at[2]},
		{"before=" + at[1], "", start, "retention (0, 1] " + at[2]},
		{"before=" + at[0], "", start, ""},
		{"before=" + start, "", start, ""},
		{"before=" + other + "&limit=2", "4 5", at[4], "other_log (2, 2] " + at[5]},
		{"before=" + other, "3 4 5", at[3], "other_log (2, 2] " + at[5]}, // retention comes on the next page
	} {
		p, gap := e.historyOf("a", c.query), ""
		if p.Gap != nil {
			gap = fmt.Sprintf("%s (%d, %d] %s", p.Gap.Reason, p.Gap.After, p.Gap.Through, p.Gap.Position)
		}
		if p.payloads() != c.payloads || p.Next != c.next || gap != c.gap {
			t.Errorf("%s: %q, next %s, gap %q; want %q, %s, %q", c.query, p.payloads(), p.Next, gap, c.payloads, c.next, c.gap)
		}
	}
}

// TestHistoryBackwardsDamaged: what cannot be read is told before the messages
// that lie below it, and no sound one is missing.
func TestHistoryBackwardsDamaged(t *testing.T) {
	e := newTestEdge(t, anyone())
	var at []string
	for i := range 8 {
		at = append(at, e.publishText("a", fmt.Sprint(i)).Position)
	}
	e.log.Damage(2, 4)
	e.log.Damage(7, 8)
	var story []string
	for next := "new"; ; {
		p := e.historyOf("a", "limit=2&before="+next)
		if p.Gap != nil {
			story = append(story, fmt.Sprintf("%s (%d, %d] %s", p.Gap.Reason, p.Gap.After, p.Gap.Through, p.Gap.Position))
		}
		story = append(story, p.payloads())
		if len(p.Messages) == 0 && p.Gap == nil {
			break
		}
		next = p.Next
	}
	want := []string{"passed_over (7, 8] " + at[6], "5 6", "4", "passed_over (2, 4] " + at[1], "0 1", ""}
	if !slices.Equal(story, want) {
		t.Errorf("%q\nwant %q", story, want)
	}
}

// TestHistoryBackwardsRolledBack: of a lost end only what is gone is told.
func TestHistoryBackwardsRolledBack(t *testing.T) {
	log := brokertest.NewLog()
	e := newTestEdgeOn(t, log, anyone())
	var at []string
	for i := range 6 {
		at = append(at, e.publishText("a", fmt.Sprint(i)).Position)
	}
	e.stop()
	log.Reboot(4)
	e = newTestEdgeOn(t, log, anyone())
	e.publishText("a", "new")
	p := e.historyOf("a", "limit=2&before="+at[5])
	if p.payloads() != "2 3" || p.Gap == nil || p.Gap.Reason != "rolled_back" || p.Gap.After != 4 || p.Gap.Through != 5 || p.Next != at[2] {
		t.Errorf("%+v %+v", p, p.Gap)
	}
	if p := e.historyOf("a", "limit=2&before="+at[4]); p.payloads() != "2 3" || p.Gap != nil {
		t.Errorf("nothing before it is gone: %+v %+v", p, p.Gap)
	}
}

func TestHistoryBackwardsIsBounded(t *testing.T) {
	e := newTestEdge(t, anyone())
	const count, size = 200, 27 << 10 // several messages of a chunk, and not all fit on the page
	for i := range count {
		e.store(protocol.Message{Topic: "a", Payload: fmt.Appendf(nil, "%0*d", size, i)})
	}
	q := broker.HistoryQuery{Filter: mustFilter(t, "a"), Back: true, Limit: 1000}
	got, pages := count, 0
	for ; got > 0; pages++ {
		p, err := e.broker.History(t.Context(), e.access().anonymous, q)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(p.Messages); n == 0 || n*size > 4<<20 {
			t.Fatalf("a page of %d messages", n)
		}
		for _, m := range slices.Backward(p.Messages) {
			if got--; !strings.HasSuffix(string(m.Payload), fmt.Sprintf("%03d", got)) {
				t.Fatalf("page %d: %s in place of %d", pages, m.Payload[len(m.Payload)-3:], got)
			}
		}
		q.From = protocol.Start{Kind: protocol.StartPosition, Position: p.Next}
	}
	if pages != 2 {
		t.Errorf("%d pages", pages)
	}
}

// backTrimming is a log that retention passes while a page is read backwards.
type backTrimming struct {
	*brokertest.Log
	rng *rand.Rand
}

func (l *backTrimming) ReadBack(q storage.Query, n int) (protocol.Chunk, error) {
	if earliest, _ := l.Bounds(); l.rng.IntN(6) == 0 {
		l.Trim(earliest - 1 + l.rng.Uint64N(4))
	}
	q.MaxBytes = 1 + l.rng.IntN(200)
	return l.Log.ReadBack(q, n)
}

// TestHistoryBackwardsByPages pages backwards through random logs with random
// limits, while messages come and go: each message that was there at the
// beginning comes once, or lies in the one gap at the end.
func TestHistoryBackwardsByPages(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 60 {
		backwardsByPages(t, rng)
	}
}

func backwardsByPages(t *testing.T, rng *rand.Rand) {
	e := newTestEdge(t, anyone())
	want := map[string]uint64{} // offsets
	for i := range rng.IntN(60) {
		m := protocol.Message{Topic: []string{"a", "a", "b"}[rng.IntN(3)], Payload: fmt.Append(nil, i)}
		if rng.IntN(6) == 0 {
			m.ExpiresAt = time.Unix(1, 0)
		}
		e.store(m)
		if _, head := e.log.Bounds(); m.Topic == "a" && m.ExpiresAt.IsZero() {
			want[string(m.Payload)] = head
		}
	}
	e.broker = broker.New(&backTrimming{e.log, rng}, broker.Options{}) // which sees what was stored
	var got []string
	var gone uint64
	for next := "new"; ; {
		p := e.historyOf("a", fmt.Sprintf("limit=%d&before=%s", 1+rng.IntN(8), next))
		if gone > 0 && (p.Gap != nil || len(p.Messages) > 0) {
			t.Fatalf("after the beginning: %+v %+v", p, p.Gap)
		}
		if p.Gap != nil {
			gone = p.Gap.Through
		}
		page := strings.Fields(p.payloads())
		got = append(page, got...)
		if len(page) == 0 && p.Gap == nil {
			break
		}
		next = p.Next
	}
	if !slices.IsSortedFunc(got, func(a, b string) int { return int(want[a]) - int(want[b]) }) {
		t.Fatalf("not in the order of the log: %v", got)
	}
	for payload, offset := range want {
		if had := slices.Contains(got, payload); had == (offset <= gone) {
			t.Fatalf("%s at %d: had %t, gone up to %d; got %v", payload, offset, had, gone, got)
		}
	}
	if len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Fatalf("twice: %v", got)
	}
}
