package broker_test

import (
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// openParted starts a broker whose stream main has three partitions, and dead two.
func openParted(t *testing.T, dir string) *shop {
	t.Helper()
	s := &shop{t: t}
	logger := slog.New(slog.DiscardHandler)
	store, err := storage.Open(dir, storage.Options{ReserveBytes: -1, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	var closers []func() error
	open := func(name string) *storage.Log {
		log, err := store.OpenLog(name, storage.LogOptions{Logger: logger, SegmentBytes: 256 << 10})
		if err != nil {
			t.Fatal(err)
		}
		closers = append(closers, log.Close)
		return log
	}
	stream := func(name string, n int, term protocol.Term) broker.Stream {
		st := broker.Stream{Name: name}
		for i := range n {
			st.Logs = append(st.Logs, &brokertest.Part{Whole: open(fmt.Sprintf("%s-%d", name, i)), Number: uint32(i), Term: term})
		}
		return st
	}
	s.broker = broker.New(nil, broker.Options{Logger: logger}, stream(broker.MainStream, 3, 77), stream(broker.DeadStream, 2, 78))
	if err := s.broker.OpenConsumers(open("control")); err != nil {
		t.Fatal(err)
	}
	s.run(append(closers, store.Close)...)
	return s
}

// job is a message that somebody has to do.
type job struct {
	topic, key, payload string
	state               string // "", done or dead
}

// TestConsumeSeveralPartitions lets members come and go, acknowledge, give back and
// reject, while messages are published to three partitions, and the broker is
// started anew in between. Each is done or dead once; what is done never comes
// again; of one key in a partition one is in flight at a time, in order.
func TestConsumeSeveralPartitions(t *testing.T) {
	for _, filter := range []string{"job.*", "job.3"} {
		t.Run(filter, func(t *testing.T) { consumeParted(t, filter) })
	}
}

func consumeParted(t *testing.T, filter string) {
	seed := seed(t)
	rng := rand.New(rand.NewPCG(seed, 5))
	f := filters(t, filter)[0]
	dir := t.TempDir()
	s := openParted(t, dir)
	all := map[string]*job{}
	var order []*job
	publish := func(n int) {
		for range n {
			j := &job{topic: fmt.Sprintf("job.%d", rng.IntN(6)), payload: fmt.Sprint(len(all)), key: []string{"", "a", "b"}[rng.IntN(3)]}
			all[j.payload], order = j, append(order, j)
			s.publish(protocol.Message{Topic: j.topic, Key: j.key, Payload: []byte(j.payload)})
		}
	}
	settings := &tidewirev1.ConsumerSettings{BackoffBaseMs: new(uint64(1)), BackoffCapMs: new(uint64(5)), MaxDeliver: new(uint32(1000))}
	var h *hand
	flying := map[string]protocol.Message{} // by partition and key
	work := func() {
		for _, m := range h.take(1) {
			j := all[string(m.Payload)]
			if j == nil || !f.Match(m.Topic) || j.topic != m.Topic || j.state != "" {
				t.Fatalf("%s of %s, %+v, came", m.Payload, m.Topic, j)
			}
			lane := fmt.Sprint(m.Position.Partition, j.key)
			if other, is := flying[lane]; j.key != "" && is && string(other.Payload) != j.payload {
				t.Fatalf("%s came while %s is in flight, of the key %s", m.Payload, other.Payload, lane)
			}
			if j.key != "" && m.Attempt == 1 {
				for _, before := range order[:slices.Index(order, j)] {
					if before.state == "" && before.key == j.key && f.Match(before.topic) && protocol.Partition(before.topic, 3) == protocol.Partition(j.topic, 3) {
						t.Fatalf("%s came before %s, of the key %s", j.payload, before.payload, j.key)
					}
				}
			}
			flying[lane] = m
			switch rng.IntN(6) {
			case 0:
				h.settle(protocol.SettleNack, true, func(f *protocol.Settle) { f.Delay = new(time.Duration(0)) }, m)
			case 1:
				if a := h.settle(protocol.SettleReject, true, func(f *protocol.Settle) { f.Reason = "no" }, m); a.Settled != 1 {
					t.Fatalf("%v", a)
				}
				j.state = "dead"
			default:
				h.ack(m)
				j.state = "done"
			}
			delete(flying, lane)
		}
	}
	left := func() (n int) {
		for _, j := range all {
			if f.Match(j.topic) && j.state == "" {
				n++
			}
		}
		return n
	}
	publish(60)
	for range 4 {
		h = s.hire()
		h.consume("w", filter, uint32(1+rng.IntN(4)), settings)
		if len(h.errors) > 0 {
			t.Fatal(h.errors)
		}
		if want := map[bool]int{true: 1, false: 3}[f.Exact()]; len(h.subbed[0].Cursors) != want {
			t.Errorf("cursors %v", h.subbed[0].Cursors)
		}
		clear(flying)
		for range min(20, left()) {
			if left() > 0 {
				work()
			}
		}
		publish(10)
		h.session.Unsubscribe(1) // so that what is in flight comes again at once
		s.until(func() bool { return s.info().InFlight == 0 })
		h.leave()
		s.end()
		s = openParted(t, dir)
	}
	h = s.hire()
	h.consume("w", filter, 4, nil)
	clear(flying)
	for left() > 0 {
		work()
	}
	s.until(func() bool { i := s.info(); return i.InFlight == 0 && i.Waiting == 0 && i.Lag == 0 })
	s.checkDead(all, f)
	if strings.Count(s.info().Position.String(), "-") != map[bool]int{true: 1, false: 3}[f.Exact()] {
		t.Errorf("it is at %s", s.info().Position)
	}
	// What is dead is given back, and what comes then is done.
	n, err := s.broker.Redrive(t.Context(), "w", broker.DeadSelection{All: true}, false)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		m := h.take(1)[0]
		j := all[string(m.Payload)]
		if j.state != "dead" || m.Topic != j.topic || m.Key != j.key || m.Attempt != 1 {
			t.Fatalf("%+v was given back: %+v", j, m)
		}
		j.state = "done"
		h.ack(m)
	}
	h.wait(func() bool { return len(h.got) == 0 })
	// From a place in all partitions everything above comes again.
	for _, m := range h.seekBack(s, rng) {
		if all[string(m.Payload)].state != "done" {
			t.Fatalf("%s came", m.Payload)
		}
	}
}

// checkDead compares the dead letters with what was rejected.
func (s *shop) checkDead(all map[string]*job, f protocol.Filter) {
	s.t.Helper()
	var want, got []string
	for _, j := range all {
		if j.state == "dead" && f.Match(j.topic) {
			want = append(want, j.payload)
		}
	}
	s.until(func() bool { return s.info().Dead == len(want) })
	letters, _, err := s.broker.DeadLetters(s.t.Context(), "w", "", 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, l := range letters {
		got = append(got, string(l.Message.Payload))
		found, err := s.broker.FindMessage(s.t.Context(), l.Origin, "")
		if err != nil || len(found) != 1 || string(found[0].Message.Payload) != string(l.Message.Payload) || found[0].Consumers[0].State != "dead" {
			s.t.Fatalf("the origin %s of %s: %+v, %v", l.Origin, l.Message.Payload, found, err)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		s.t.Fatalf("dead are %v, want %v", got, want)
	}
}

// seekBack moves the consumer to a place of each partition, and returns what comes
// then, which must be all above.
func (h *hand) seekBack(s *shop, rng *rand.Rand) []protocol.Message {
	h.t.Helper()
	at, err := protocol.ParseVector(s.info().Position.String())
	if err != nil {
		h.t.Fatal(err)
	}
	for i := range at.Places {
		at.Places[i].Offset -= min(at.Places[i].Offset, rng.Uint64N(12))
	}
	sub, _ := (&world{t: s.t, broker: s.broker}).answers(protocol.Proto{}, &tidewirev1.Subscribe{Sub: 1, Filter: s.info().Settings.Filter, From: at.String()})
	want := map[protocol.Position]bool{}
	for _, f := range sub {
		if d, ok := f.(*protocol.Deliver); ok {
			for m, err := range d.Messages() {
				if err != nil {
					h.t.Fatal(err)
				}
				want[m.Position] = true
			}
		}
	}
	if _, err := s.broker.SeekConsumer(h.t.Context(), "w", at.String()); err != nil {
		h.t.Fatalf("moved to %s: %v", at, err)
	}
	var came []protocol.Message
	for len(want) > 0 {
		m := h.take(1)[0]
		if !want[m.Position] {
			h.t.Fatalf("%v came, want one of %v", m.Position, slices.Collect(maps.Keys(want)))
		}
		delete(want, m.Position)
		came = append(came, m)
		h.ack(m)
	}
	return came
}

// TestSharedSeveralPartitions shares a consumer of three partitions among members on
// three nodes, and ends the node that decides: each job is done once, and all nodes
// know the same of it.
func TestSharedSeveralPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTownOf(t, 3, 3)
		settings := &tidewirev1.ConsumerSettings{AckWaitMs: new(uint64(2000)), BackoffBaseMs: new(uint64(1))}
		hands := make([]*hand, len(w.nodes))
		for i, n := range w.nodes {
			hands[i] = n.hire()
			hands[i].consume("w", "job.*", 3, settings)
		}
		if n := len(hands[1].subbed[0].Cursors); n != 3 {
			t.Errorf("%d cursors", n)
		}
		done, partitions := map[string]int{}, map[uint32]bool{}
		published := 0
		publish := func(n *townNode, count int) {
			for range count {
				n.publish(protocol.Message{Topic: fmt.Sprintf("job.%d", published%7), Payload: fmt.Append(nil, published)})
				published++
			}
		}
		work := func(until int) {
			for range 3000 {
				if len(done) >= until {
					return
				}
				for _, h := range hands {
					h.mu.Lock()
					got := h.got
					h.got = nil
					h.mu.Unlock()
					for _, m := range got {
						if a := h.settle(protocol.SettleAck, true, nil, m); a.Settled == 1 {
							done[string(m.Payload)]++
							partitions[m.Position.Partition] = true
						}
					}
				}
				w.settled()
			}
			t.Fatalf("%d of %d are done", len(done), until)
		}
		publish(w.nodes[0], 30)
		publish(w.nodes[2], 30)
		work(40)
		w.nodes[0].crash()
		hands = hands[1:]
		publish(w.nodes[1], 20)
		work(published)
		for text, times := range done {
			if times != 1 {
				t.Errorf("%s was acknowledged %d times", text, times)
			}
		}
		if len(partitions) != 3 {
			t.Errorf("work came from the partitions %v", partitions)
		}
		w.same(w.nodes[1:]...)
		for _, n := range w.nodes[1:] {
			if i := n.info(); i.InFlight != 0 || i.Lag != 0 || strings.Count(i.Position.String(), "-") != 3 {
				t.Errorf("node %s: %+v", n.name, i)
			}
		}
		// From the beginning of all partitions everything comes again, to both.
		for _, h := range hands {
			h.mu.Lock()
			h.got = nil
			h.mu.Unlock()
		}
		if _, err := w.nodes[1].broker.SeekConsumer(t.Context(), "w", "earliest"); err != nil {
			t.Fatal(err)
		}
		clear(done)
		work(published)
	})
}

// TestPurgeOfSeveralPartitions: what a consumer has tried becomes dead letters before
// it goes, of what it has not it is told in each partition, and then it goes on.
func TestPurgeOfSeveralPartitions(t *testing.T) {
	s := openParted(t, t.TempDir())
	h := s.hire()
	h.consume("w", "job.*", 4, nil)
	given := map[uint32]int{}
	for i := range 60 {
		m := protocol.Message{Topic: fmt.Sprintf("job.%d", i%9), Payload: fmt.Append(nil, i)}
		given[uint32(protocol.Partition(m.Topic, 3))]++
		s.publish(m)
	}
	tried := h.take(4)
	pause := func(paused bool) { // else more is tried while one partition after the other is purged
		if _, err := s.broker.PauseConsumer(t.Context(), "w", paused); err != nil {
			t.Fatal(err)
		}
	}
	pause(true)
	if _, err := s.broker.Purge(t.Context(), broker.MainStream); err != nil {
		t.Fatal(err)
	}
	s.until(func() bool { i := s.info(); return i.Dead == len(tried) && i.InFlight == 0 && i.Lag == 0 })
	for _, m := range tried {
		if _, err := s.broker.DeadLetter(t.Context(), "w", m.Position.String()); err != nil {
			t.Errorf("%v: %v", m.Position, err)
		}
	}
	pause(false)
	s.publish(protocol.Message{Topic: "job.3", Payload: []byte("after")})
	got := h.take(1)
	if string(got[0].Payload) != "after" {
		t.Fatalf("got %s", got[0].Payload)
	}
	h.ack(got...)
	h.mu.Lock()
	defer h.mu.Unlock()
	told := map[uint32]bool{}
	for _, g := range h.gaps {
		if g.Reason != storage.GapRetention || g.After >= g.Through || g.Through != uint64(given[g.Partition]) {
			t.Errorf("gap %v of a partition with %d", g, given[g.Partition])
		}
		told[g.Partition] = true
	}
	if len(told) != 3 {
		t.Errorf("told of %v", h.gaps)
	}
}

// TestKeysOfSeveralPartitions: a key is one of a partition. While a message of it is in
// flight the next of the partition waits, and that of another partition does not.
func TestKeysOfSeveralPartitions(t *testing.T) {
	s := openParted(t, t.TempDir())
	h := s.hire()
	h.consume("w", "job.*", 0, nil)
	byPartition := map[int]string{}
	for i := 0; len(byPartition) < 2; i++ {
		topic := fmt.Sprintf("job.%d", i)
		if n := protocol.Partition(topic, 3); n < 2 {
			byPartition[n] = topic
		}
	}
	for i, topic := range []string{byPartition[0], byPartition[0], byPartition[1]} {
		s.publish(protocol.Message{Topic: topic, Key: "k", Payload: fmt.Append(nil, i)})
	}
	got := h.take(2)
	texts := payloads(got)
	slices.Sort(texts)
	if !slices.Equal(texts, []string{"0", "2"}) {
		t.Fatalf("got %v", texts)
	}
	s.until(func() bool { return s.info().Held == 1 })
	h.ack(got...)
	if next := h.take(1); string(next[0].Payload) != "1" {
		t.Errorf("then %s", next[0].Payload)
	}
}
