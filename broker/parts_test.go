package broker_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/broker"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// answers subscribes on a session of its own, and returns all frames that come.
func (w *world) answers(codec protocol.Codec, r *tidewirev1.Subscribe) (frames []any, texts []string) {
	s := w.broker.NewSession(broker.SessionOptions{Identity: anybody, Codec: codec, Wake: func() {}})
	defer s.Close()
	s.Subscribe(r)
	for {
		taken, end := s.Take(nil)
		if end != nil {
			w.t.Fatal(end)
		}
		if len(taken) == 0 {
			return frames, texts
		}
		for i := range taken {
			b := append(slices.Clone(taken[i].Head()), taken[i].Tail...)
			texts = append(texts, string(b))
			if codec == (protocol.Proto{}) {
				f, err := protocol.Proto{}.DecodeServer(b)
				if err != nil {
					w.t.Fatal(err)
				}
				frames = append(frames, f)
			}
		}
	}
}

// TestLastOfSeveralPartitions: last:N is the newest N by time, partition and offset,
// whatever the filter and wherever they lie.
func TestLastOfSeveralPartitions(t *testing.T) {
	seed := seed(t)
	synctest.Test(t, func(t *testing.T) {
		w := newParted(t, broker.Options{}, seed, 3)
		publisher := w.listen()
		type known struct {
			stored
			at time.Time
		}
		var all []known
		for range 60 {
			if w.rng.IntN(3) > 0 { // else the time is the same
				time.Sleep(time.Duration(w.rng.IntN(5)) * time.Millisecond)
			}
			n := len(w.stored)
			w.publish(publisher)
			for _, s := range w.stored[n:] {
				all = append(all, known{s, time.Now()})
			}
		}
		trimmed := head(w.logs[1]) / 2
		w.logs[1].Trim(trimmed)
		w.logs[2].Damage(3, 7)
		all = slices.DeleteFunc(all, func(k known) bool {
			return k.partition == 1 && k.offset <= trimmed || k.partition == 2 && k.offset > 3 && k.offset <= 7
		})
		slices.SortFunc(all, func(a, b known) int {
			return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.partition, b.partition), cmp.Compare(a.offset, b.offset))
		})
		for range 200 {
			text := []string{">", "a.*", "*.x", "nothing", "c"}[w.rng.IntN(5)]
			filter := filters(t, text)[0]
			n := 1 + w.rng.IntN(len(all)+10)
			var want, got []stored
			for _, k := range all {
				if filter.Match(k.topic) {
					want = append(want, k.stored)
				}
			}
			want = want[max(0, len(want)-n):]
			frames, _ := w.answers(protocol.Proto{}, &tidewirev1.Subscribe{Sub: 1, Filter: text, From: fmt.Sprintf("last:%d", n)})
			for _, f := range frames {
				d, ok := f.(*protocol.Deliver)
				if !ok {
					continue
				}
				for m, err := range d.Messages() {
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, stored{m.Topic, string(m.Payload), m.Position.Partition, m.Position.Offset})
				}
			}
			if !slices.Equal(sorted(got), sorted(want)) {
				t.Fatalf("%s, last:%d:\n got %v\nwant %v", text, n, sorted(got), sorted(want))
			}
		}
	})
}

// TestPositionsThatDoNotSuffice: a position must say of each partition that the
// filter reads where to go on. More is fine.
func TestPositionsThatDoNotSuffice(t *testing.T) {
	w := newParted(t, broker.Options{}, 1, 3)
	term := w.log.PositionOf(0).Term.String()
	in := protocol.Partition("a.x", 3)
	own, other := fmt.Sprintf("-%d_0", in), fmt.Sprintf("-%d_0", (in+1)%3)
	own, other = strings.Replace(own, "-0_", "-", 1), strings.Replace(other, "-0_", "-", 1)
	single := newWorld(t, broker.Options{})
	for _, c := range []struct {
		w            *world
		filter, from string
		want         string // of the refusal; empty for none
	}{
		{w, ">", "p" + term + "-0-1_0-2_0", ""},
		{w, ">", "p" + term + "-0-2_0", "says nothing of partition 1"},
		{w, ">", "p" + term + "-0", "give the position of the subscription"},
		{w, ">", "p" + term + "-0-1_0-2_0-3_0", "names partition 3"},
		{w, "a.x", "p" + term + own, ""},
		{w, "a.x", "p" + term + "-0-1_0-2_0", ""},
		{w, "a.x", "p" + term + other, "which has the topic"},
		{single, ">", "p" + term + "-0-1_0", "names partition 1"},
		{single, ">", "p" + term + "-1_0", "names partition 1"},
	} {
		frames, _ := c.w.answers(protocol.Proto{}, &tidewirev1.Subscribe{Sub: 1, Filter: c.filter, From: c.from})
		switch f := frames[0].(type) {
		case *tidewirev1.Error:
			if c.want == "" || f.Code != string(protocol.CodeInvalidPosition) || !strings.Contains(f.Message, c.want) {
				t.Errorf("%s from %s: %s %s", c.filter, c.from, f.Code, f.Message)
			}
		case *tidewirev1.Subscribed:
			if c.want != "" {
				t.Errorf("%s from %s is taken", c.filter, c.from)
			}
		}
	}
}

// TestGapsOfSeveralPartitions: what is gone is told for each partition, and only
// the last gap moves the position, since a client may be cut off between them.
func TestGapsOfSeveralPartitions(t *testing.T) {
	w := newParted(t, broker.Options{}, 1, 3)
	publisher := w.listen()
	for slices.Min(w.heads()) < 5 {
		w.publish(publisher)
	}
	w.logs[0].Trim(3)
	w.logs[2].Trim(4)
	term := w.log.PositionOf(0).Term
	asked := protocol.Vector{Term: term, Places: []protocol.Place{{Offset: 1}, {Partition: 1, Offset: 2}, {Partition: 2, Offset: 3}}}
	after := protocol.Vector{Term: term, Places: []protocol.Place{{Offset: 3}, {Partition: 1, Offset: 2}, {Partition: 2, Offset: 4}}}
	frames, _ := w.answers(protocol.Proto{}, &tidewirev1.Subscribe{Sub: 1, Filter: ">", From: asked.String()})
	s := frames[0].(*tidewirev1.Subscribed)
	if s.Resumed || s.Position != asked.String() || fmt.Sprint(s.Cursors) != fmt.Sprint([]*tidewirev1.Cursor{{Offset: 1}, {Partition: 1, Offset: 2}, {Partition: 2, Offset: 3}}) {
		t.Errorf("%v", s)
	}
	if behind := w.heads()[0] - 3 + w.heads()[1] - 2 + w.heads()[2] - 4; s.Behind != behind {
		t.Errorf("behind %d, want %d", s.Behind, behind)
	}
	first, second := frames[1].(*tidewirev1.Gap), frames[2].(*tidewirev1.Gap)
	if first.Reason != storage.GapRetention || first.Partition != 0 || first.After != 1 || first.Through != 3 || first.Offset != 3 || first.Position != asked.String() {
		t.Errorf("%v", first)
	}
	if second.Partition != 2 || second.After != 3 || second.Through != 4 || second.Offset != 4 || second.Position != after.String() {
		t.Errorf("%v, want position %s", second, after)
	}
	caughtUp := 0
	for _, f := range frames {
		if _, ok := f.(*tidewirev1.CaughtUp); ok {
			caughtUp++
		}
	}
	if caughtUp != 1 {
		t.Errorf("CaughtUp came %d times", caughtUp)
	}
}

// TestProgressOfSeveralPartitions: progress moves each partition, and as text the
// whole subscription. Who reads one partition shares a frame with others.
func TestProgressOfSeveralPartitions(t *testing.T) {
	w := newParted(t, broker.Options{}, 1, 3)
	l, publisher := w.listen(), w.listen()
	topic := "a.x"
	in := uint32(protocol.Partition(topic, 3))
	l.subscribe(1, "nothing.>", "new")
	l.subscribe(2, "d", "new")
	l.until(func() bool { return l.subs[1].caughtUp == 1 && l.subs[2].caughtUp == 1 })
	publisher.send(&protocol.Publish{Ref: 1, Messages: messages(topic, topic)})
	l.until(func() bool { l.session.Progress(); return l.subs[1].cursor[in] == 2 })
	if len(l.subs[1].cursor) != 3 || len(l.subs[2].cursor) != 1 {
		t.Errorf("cursors %v and %v", l.subs[1].cursor, l.subs[2].cursor)
	}
	_, texts := w.answers(protocol.JSON{}, &tidewirev1.Subscribe{Sub: 1, Filter: ">", From: "earliest"})
	at := protocol.Vector{Term: w.log.PositionOf(0).Term}
	for i, head := range w.heads() {
		at.Places = append(at.Places, protocol.Place{Partition: uint32(i), Offset: head})
	}
	if !slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(s, `"position":"`+at.String()+`"`) }) {
		t.Errorf("no frame has the position %s: %q", at, texts)
	}
}

// TestOrderInEachPartition: after a refusal nothing of the connection passes in that
// partition, and the others go on, for only within a partition is there an order.
func TestOrderInEachPartition(t *testing.T) {
	w := newParted(t, broker.Options{}, 1, 2)
	l := w.listen()
	byPartition := map[int]string{}
	for i := 0; len(byPartition) < 2; i++ {
		topic := fmt.Sprintf("t%d", i)
		byPartition[protocol.Partition(topic, 2)] = topic
	}
	w.logs[0].Refuse(protocol.Errorf(protocol.CodeStorageFull, "full"))
	first := messages(byPartition[0], byPartition[1])
	if got := codes(l.send(&protocol.Publish{Ref: 1, Messages: first})); got != "storage_full ok" {
		t.Fatal(got)
	}
	w.logs[0].Refuse(nil)
	if got := codes(l.send(&protocol.Publish{Ref: 3, Messages: first})); got != "out_of_order ok" {
		t.Fatal(got)
	}
	if got := codes(l.send(&protocol.Publish{Ref: 5, Messages: first, Resume: true})); got != "ok ok" {
		t.Fatal(got)
	}
}

// TestLookingAtSeveralPartitions: operators and history see one stream.
func TestLookingAtSeveralPartitions(t *testing.T) {
	w := newParted(t, broker.Options{}, 1, 3)
	publisher := w.listen()
	for range 20 {
		w.publish(publisher)
	}
	info := w.broker.Streams()
	last := protocol.Vector{Term: w.log.PositionOf(0).Term}
	for i, head := range w.heads() {
		last.Places = append(last.Places, protocol.Place{Partition: uint32(i), Offset: head})
	}
	if got := info[len(info)-1]; got.Last.String() != last.String() {
		t.Errorf("last %s, want %s", got.Last, last)
	}
	for _, s := range w.stored {
		at := protocol.Position{Term: last.Term, Partition: s.partition, Offset: s.offset}
		found, err := w.broker.FindMessage(t.Context(), at.String(), "")
		if err != nil || len(found) != 1 || string(found[0].Message.Payload) != s.payload || found[0].Message.Position != at {
			t.Fatalf("%v: %v %v", s, found, err)
		}
	}
	for _, topic := range modelTopics {
		var want, got []string
		for _, s := range w.stored {
			if s.topic == topic {
				want = append(want, s.payload)
			}
		}
		q := broker.HistoryQuery{Filter: filters(t, topic)[0], From: protocol.Start{Kind: protocol.StartEarliest}, Limit: 3}
		for len(got) < len(want) {
			page, err := w.broker.History(t.Context(), anybody, q)
			if err != nil || len(page.Messages) == 0 {
				t.Fatal(page, err)
			}
			for _, m := range page.Messages {
				got = append(got, string(m.Payload))
			}
			q.From, _ = protocol.ParseStart(page.Next.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", topic, got, want)
		}
		q.From, _ = protocol.ParseStart(last.String())
		q.Back, q.Limit = true, 1000 // before a position of a subscription to all
		if page, err := w.broker.History(t.Context(), anybody, q); err != nil || len(page.Messages) < len(want)-1 || page.Messages[0].Topic != topic {
			t.Errorf("%s before %s: %d messages, want %d, %v", topic, last, len(page.Messages), len(want), err)
		}
	}
	q := broker.HistoryQuery{Filter: filters(t, ">")[0], Limit: 3}
	if _, err := w.broker.History(t.Context(), anybody, q); err == nil || protocol.AsError(err).Code != protocol.CodeUnsupported {
		t.Errorf("history of a pattern: %v", err)
	}
}
