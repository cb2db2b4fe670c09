package broker_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// hiding knows what a place is to be told of messages that retention by count
// hides: not one too many, and none too few. All of it is nothing for a place in
// a log that hides nothing.
type hiding struct {
	w    *world
	keep int

	quiet   map[uint32]uint64 // by partition: up to here nothing need be told
	awaited map[uint32]int    // told for the frame of the partition that comes next
	told    uint64            // in all, by frames that came
	untold  int               // left out because of quiet
}

// isHidden reports whether enough newer ones of its topic are stored.
func (h *hiding) isHidden(s stored) bool {
	newer := 0
	for _, other := range h.w.stored {
		if other.topic == s.topic && other.offset > s.offset {
			newer++
		}
	}
	return newer >= h.keep
}

// asked notes where the place begins.
func (h *hiding) asked(p *place) {
	if h == nil {
		return
	}
	h.quiet, h.awaited = map[uint32]uint64{}, map[uint32]int{}
	if strings.HasPrefix(p.from, "p") {
		return
	}
	for _, s := range h.w.stored {
		if (!p.filter.Exact() || p.filter.Match(s.topic)) && h.isHidden(s) {
			h.quiet[s.partition] = s.offset
		}
	}
}

func (h *hiding) begun() {
	if h != nil {
		h.awaited = map[uint32]int{}
	}
}

// gap takes a gap that tells a number.
func (h *hiding) gap(p *place, f *tidewirev1.Gap) bool {
	if h == nil {
		return false
	}
	if f.Missed == 0 {
		h.passed(p, f.Partition, max(f.After, p.cursor[f.Partition]), 0)
		return false
	}
	cursor := p.cursor[f.Partition]
	if f.Reason != storage.GapRetention || f.After != cursor || f.Through != cursor || f.Offset != cursor || h.awaited[f.Partition] > 0 {
		h.w.t.Fatalf("filter %s at %d, which waits for %d: gap %v", p.filter, p.cursor, h.awaited, f)
	}
	if at := p.vector(f.Term); f.Position != at {
		h.w.t.Fatalf("filter %s at %s: gap %v", p.filter, at, f)
	}
	h.awaited[f.Partition] = int(f.Missed)
	return true
}

// passed is called when the cursor moves, with so many messages.
func (h *hiding) passed(p *place, partition uint32, through uint64, came int) {
	if h == nil {
		return
	}
	missing := 0
	got := p.got[len(p.got)-came:]
	for _, s := range h.w.stored {
		if s.partition != partition || s.offset <= p.cursor[partition] || s.offset > through || !p.filter.Match(s.topic) || slices.Contains(got, s) {
			continue
		}
		if !h.isHidden(s) {
			h.w.t.Fatalf("filter %s (%d, %d] of partition %d: %v did not come", p.filter, p.cursor[partition], through, partition, s)
		}
		if s.offset > h.quiet[partition] {
			missing++
		} else {
			h.untold++
		}
	}
	if missing != h.awaited[partition] {
		h.w.t.Fatalf("filter %s (%d, %d] of partition %d, quiet up to %d: %d were told to be missing, and %d are", p.filter, p.cursor[partition], through, partition, h.quiet[partition], h.awaited[partition], missing)
	}
	h.told += uint64(missing)
	delete(h.awaited, partition)
}

// hidingWorld is a world on a log that keeps so many messages of each topic.
func hidingWorld(t *testing.T, log broker.Log, o broker.Options) *world {
	return hidingWorldOf(t, broker.New(log, o))
}

func hidingWorldOf(t *testing.T, b *broker.Broker) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed(t), 4)), broker: b}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = w.broker.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

func diskLog(t *testing.T, o storage.LogOptions) broker.Log {
	o.Logger = slog.New(slog.DiscardHandler)
	store, err := storage.Open(t.TempDir(), storage.Options{ReserveBytes: -1, Logger: o.Logger})
	if err != nil {
		t.Fatal(err)
	}
	log, err := store.OpenLog("main", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = log.Close(), store.Close() })
	return log
}

// TestModelOfHidden lets listeners come, read slowly, lose their connections and
// come back with their positions, while each topic keeps a few messages alone.
// Each gets all that is kept, once and in order, and is told of the others by
// their number, right before the frame that passes them.
func TestModelOfHidden(t *testing.T) {
	for name, c := range map[string]struct {
		log   func(t *testing.T, keep int) broker.Log
		steps int
	}{
		"memory": {func(_ *testing.T, keep int) broker.Log {
			return storage.NewMemoryLog("main", storage.MemoryOptions{PerTopic: keep})
		}, 500},
		"memory, trimmed": {func(_ *testing.T, keep int) broker.Log {
			return storage.NewMemoryLog("main", storage.MemoryOptions{PerTopic: keep, Messages: 10 * keep})
		}, 500},
		"disk": {func(t *testing.T, keep int) broker.Log {
			return diskLog(t, storage.LogOptions{PerTopic: keep, SegmentBytes: 1, WindowBytes: 2000})
		}, 250},
	} {
		t.Run(name, func(t *testing.T) {
			keep := []int{1, 2, 3, 6}[seed(t)%4]
			w := hidingWorld(t, c.log(t, keep), broker.Options{SoftOutbound: 1500})
			told, untold := w.hide(keep, c.steps)
			if t.Logf("keep %d: %d were told, %d need not be", keep, told, untold); told == 0 {
				t.Error("nothing was told")
			}
		})
	}
	t.Run("three partitions", func(t *testing.T) {
		const keep = 2
		var logs []*storage.MemoryLog
		for range 3 {
			logs = append(logs, storage.NewMemoryLog("main", storage.MemoryOptions{PerTopic: keep, Messages: 20 * keep}))
		}
		w := hidingWorldOf(t, broker.New(nil, broker.Options{SoftOutbound: 1500}, parted(brokertest.NewParts(logs...))))
		if told, _ := w.hide(keep, 500); told == 0 {
			t.Error("nothing was told")
		}
	})
}

func (w *world) hide(keep, steps int) (told uint64, untold int) {
	publisher := w.listen()
	listeners := []*listener{w.listen(), w.listen(), w.listen()}
	filters := []string{"a.x", "a.*", ">", "*.x", "b.>", "c", "nothing"}
	next := uint32(0)
	for range steps {
		l := listeners[w.rng.IntN(len(listeners))]
		switch w.rng.IntN(10) {
		case 0, 1, 2:
			for range 1 + w.rng.IntN(15) {
				w.publish(publisher)
			}
		case 3:
			if len(l.subs) >= 6 {
				continue
			}
			next++
			p := &place{from: []string{"new", "earliest", "last:7", "-1m"}[w.rng.IntN(4)], hides: &hiding{w: w, keep: keep}}
			p.filter, _ = protocol.ParseFilter(filters[w.rng.IntN(len(filters))])
			l.subs[next] = p
			l.session.Subscribe(p.request(next))
		case 4:
			l.reconnect()
		case 5:
			l.session.Progress()
		default:
			l.take(1 + w.rng.IntN(3))
		}
	}
	heads := make([]uint64, 4)
	for _, s := range w.stored {
		heads[s.partition] = s.offset
	}
	for _, l := range listeners {
		l.until(func() bool {
			l.session.Progress()
			return !slices.ContainsFunc(slices.Collect(maps.Values(l.subs)), func(p *place) bool { return p.caughtUp == 0 || p.behindAny(heads) })
		})
		for _, p := range l.subs {
			told, untold = told+p.hides.told, untold+p.hides.untold
		}
	}
	return told, untold
}

// TestHistoryOfHidden reads pages in both directions: with each that begins at a
// position comes the number of messages that it would have had.
func TestHistoryOfHidden(t *testing.T) {
	const keep = 3
	w := hidingWorld(t, storage.NewMemoryLog("main", storage.MemoryOptions{PerTopic: keep, Messages: 200}), broker.Options{})
	h := &hiding{w: w, keep: keep}
	publisher := w.listen()
	for len(w.stored) < 300 {
		w.publish(publisher)
	}
	oldest := w.stored[len(w.stored)-200].offset
	for range 300 {
		text := []string{"a.x", "a.*", ">", "c"}[w.rng.IntN(4)]
		filter, _ := protocol.ParseFilter(text)
		all, err := w.broker.History(t.Context(), anybody, broker.HistoryQuery{Filter: filter, From: protocol.Start{Kind: protocol.StartEarliest}, Limit: 1000})
		if err != nil || all.Gap != nil {
			t.Fatalf("from the beginning: %+v %v", all.Gap, err)
		}
		back, err := w.broker.History(t.Context(), anybody, broker.HistoryQuery{Filter: filter, Back: true, Limit: 1000})
		if err != nil || back.Gap == nil || back.Gap.Missed > 0 || len(back.Messages) != len(all.Messages) {
			t.Fatalf("from the end: %+v %v", back, err)
		}
		from := all.Next
		from.Offset = oldest - 20 + w.rng.Uint64N(from.Offset-oldest+21)
		q := broker.HistoryQuery{Filter: filter, From: protocol.Start{Kind: protocol.StartPosition, Position: from}, Back: w.rng.IntN(2) == 0, Limit: 1 + w.rng.IntN(4)}
		var want, got []uint64
		missed, told, ranges := uint64(0), uint64(0), 0
		for _, s := range w.stored {
			switch beyond := s.offset < oldest || s.offset >= from.Offset && q.Back || s.offset <= from.Offset && !q.Back; {
			case beyond || !filter.Match(s.topic):
			case h.isHidden(s):
				missed++
			default:
				want = append(want, s.offset)
			}
		}
		for n := 0; ; n++ {
			page, err := w.broker.History(t.Context(), anybody, q)
			if err != nil || n > 300 {
				t.Fatal(n, err)
			}
			for _, m := range page.Messages {
				got = append(got, m.Position.Offset)
			}
			if g := page.Gap; g != nil && g.Missed > 0 {
				if g.Reason != storage.GapRetention || g.After != q.From.Position.Offset || g.Through != g.After || g.Position != q.From.Position.String() {
					t.Fatalf("from %v: gap %v", q.From.Position, g)
				}
				told += g.Missed
			} else if g != nil {
				ranges++
			}
			if len(page.Messages) == 0 && page.Gap == nil {
				break
			}
			q.From.Position = page.Next
		}
		if trimmed := q.Back || from.Offset+1 < oldest; trimmed != (ranges == 1) {
			t.Fatalf("%s from %v of a log from %d on: %d ranges are told", text, from, oldest, ranges)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) || told != missed {
			t.Fatalf("%s from %v, back %v: got %v and %d told, want %v and %d", text, from, q.Back, got, told, want, missed)
		}
	}
}

// TestHiddenBehindAnotherGap: a page tells one gap. What is hidden behind another
// one is told by the next page.
func TestHiddenBehindAnotherGap(t *testing.T) {
	w := hidingWorld(t, storage.NewMemoryLog("main", storage.MemoryOptions{PerTopic: 1}), broker.Options{})
	publisher := w.listen()
	for i := range 5 {
		publisher.session.Publish(t.Context(), &protocol.Publish{Ref: uint32(i), Messages: []protocol.Message{{Topic: []string{"b", "a", "a", "c", "a"}[i], Payload: []byte("x")}}})
		publisher.until(func() bool { return len(publisher.results) == i+1 })
	}
	strange := protocol.Position{Term: 77, Offset: 3}
	filter, _ := protocol.ParseFilter(">")
	for back, want := range map[bool]string{
		false: "other_log 0: 1; retention 2: 4 5; ",
		true:  "other_log 0: 4 5; retention 2: 1; ",
	} {
		q := broker.HistoryQuery{Filter: filter, From: protocol.Start{Kind: protocol.StartPosition, Position: strange}, Limit: 10, Back: back}
		got := ""
		for range 2 {
			page, err := w.broker.History(t.Context(), anybody, q)
			if err != nil || page.Gap == nil {
				t.Fatal(page, err)
			}
			got += fmt.Sprintf("%s %d:", page.Gap.Reason, page.Gap.Missed)
			for _, m := range page.Messages {
				got += fmt.Sprint(" ", m.Position.Offset)
			}
			got += "; "
			q.From.Position = page.Next
		}
		if got != want {
			t.Errorf("back %v: %s, want %s", back, got, want)
		}
	}
}

// stretched is a log that a hook looks at before each read.
type stretched struct {
	*storage.MemoryLog
	before func(reads int)
	reads  int
}

func (l *stretched) Read(q storage.Query) (protocol.Chunk, error) {
	l.reads++
	l.before(l.reads)
	return l.MemoryLog.Read(q)
}

// TestLongStretches has so much hidden that the log is read several times before
// there is anything to give: what is told comes in one piece before what passes
// it, be that a message, CaughtUp or a gap of a range.
func TestLongStretches(t *testing.T) {
	for name, c := range map[string]struct {
		behind int // messages that follow the subscribe
		before func(l *stretched, reads int)
		want   string
	}{
		"a message": {1, func(*stretched, int) {}, "subscribed; gap 9000; deliver 0 to 9001; caught up; "},
		"caught up": {5000, func(*stretched, int) {}, "subscribed; gap 12288; caught up; gap 1711; deliver 0 to 14000; "},
		"a gap range": {1, func(l *stretched, reads int) {
			if reads == 2 {
				_, _ = l.Purge(t.Context())
			}
		}, "subscribed; gap 4096; gap (4096, 9001]; caught up; "},
	} {
		log := &stretched{MemoryLog: storage.NewMemoryLog("main", storage.MemoryOptions{PerTopic: 1})}
		log.before = func(reads int) { c.before(log, reads) }
		w := hidingWorld(t, log, broker.Options{})
		begin := log.PositionOf(0)
		publisher, l := w.listen(), w.listen()
		publish := func(n int) {
			for part := range slices.Chunk(slices.Repeat([]protocol.Message{{Topic: "a", Payload: []byte("x")}}, n), 100) {
				publisher.session.Publish(t.Context(), &protocol.Publish{Ref: 1, Messages: part})
				publisher.until(func() bool { return len(publisher.results) == len(part) })
				publisher.results = nil
			}
		}
		publish(9000)
		l.session.Subscribe(&tidewirev1.Subscribe{Sub: 1, Filter: "a", From: begin.String()})
		publish(c.behind)
		got := ""
		for {
			frames, _ := l.session.Take(nil)
			if len(frames) == 0 {
				break
			}
			for i := range frames {
				frame, _ := protocol.Proto{}.DecodeServer(append(slices.Clone(frames[i].Head()), frames[i].Tail...))
				switch f := frame.(type) {
				case *tidewirev1.Subscribed:
					got += "subscribed; "
				case *tidewirev1.CaughtUp:
					got += "caught up; "
				case *protocol.Deliver:
					got += fmt.Sprintf("deliver %d to %d; ", f.After, f.Through)
				case *tidewirev1.Gap:
					if f.Missed == 0 {
						got += fmt.Sprintf("gap (%d, %d]; ", f.After, f.Through)
					} else {
						got += fmt.Sprintf("gap %d; ", f.Missed)
					}
				}
			}
		}
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}
