package connect

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// stream is a partition of a stream, which all nodes share.
type stream struct {
	*storage.MemoryLog
	stop func()

	mu    sync.Mutex
	moved chan struct{}
	fail  error // what reading below a place gives
	below uint64
}

func newStream(t *testing.T) *stream {
	s := &stream{MemoryLog: storage.NewMemoryLog("main", storage.MemoryOptions{}), moved: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(ctx, func(c *storage.Commit) {
			s.mu.Lock()
			close(s.moved)
			s.moved = make(chan struct{})
			s.mu.Unlock()
			for _, a := range c.Answers {
				a.Entry.Done(a.Result)
			}
		})
	}()
	s.stop = func() { cancel(); <-done }
	return s
}

func (s *stream) Place() (uint64, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, head := s.Bounds()
	return head, s.moved
}

func (s *stream) Read(q storage.Query) (protocol.Chunk, error) {
	s.mu.Lock()
	fail, below := s.fail, s.below
	s.mu.Unlock()
	if fail != nil && q.After < below {
		return protocol.Chunk{}, fail
	}
	return s.MemoryLog.Read(q)
}

func (s *stream) Bounds() (earliest, head uint64) {
	earliest, head = s.MemoryLog.Bounds()
	if s.fail != nil {
		earliest = max(earliest, s.below+1)
	}
	return earliest, head
}

// publish stores messages.
func (s *stream) publish(w *world, all ...protocol.Message) {
	w.t.Helper()
	done := make(chan storage.Result, len(all))
	for i := range all {
		m := &all[i]
		e := &storage.Entry{Topic: m.Topic, Record: protocol.AppendRecord(nil, m), Done: func(r storage.Result) { done <- r }}
		if err := s.Append(w.t.Context(), e); err != nil {
			w.t.Fatal(err)
		}
	}
	for range all {
		if r := <-done; r.Err != nil {
			w.t.Fatal(r.Err)
		}
	}
}

// numbered are messages of several topics, each numbered by topic.
func numbered(topics, from, each int) (all []protocol.Message) {
	for i := from; i < from+each; i++ {
		for topic := range topics {
			all = append(all, protocol.Message{Topic: fmt.Sprintf("orders.%d", topic), Payload: fmt.Append(nil, i)})
		}
	}
	return all
}

// out starts a node that may run a connector to the topic.
func (w *world) out(name string, s *stream, change ...func(*OutOptions)) *member {
	w.t.Helper()
	return w.member(name, "erp", func(_ *member, c Common) func(context.Context, uint64) {
		filter, err := protocol.ParseFilter("orders.>")
		if err != nil {
			w.t.Fatal(err)
		}
		o := OutOptions{
			Common: c, Stream: "main", StreamTopic: "tidewire.main", Term: 7, Partitions: []Source{s}, Filter: filter,
			Topic: foreign, Key: template(w.t, "{topic}", OutFields()), Earliest: true,
		}
		for _, f := range change {
			f(&o)
		}
		return NewOut(o).Run
	})
}

// gone reads what has gone out: payloads by key, each id once; and how many repeats
// there were.
func (w *world) gone() (got map[string][]string, n, repeats int) {
	w.t.Helper()
	got, seen := make(map[string][]string), make(map[string]bool)
	for number := range int32(partitions) {
		for _, r := range w.read(foreign, number) {
			if want := protocol.Partition(string(r.Key), partitions); want != int(number) {
				w.t.Errorf("the key %s is in partition %d, want %d", r.Key, number, want)
			}
			if id := header(&r, "tidewire-id"); seen[id] {
				repeats++
			} else {
				seen[id] = true
				n++
				got[string(r.Key)] = append(got[string(r.Key)], string(r.Value))
			}
		}
	}
	return got, n, repeats
}

func (w *world) goneAre(n int) (got map[string][]string, repeats int) {
	w.t.Helper()
	until(w.t, fmt.Sprintf("%d have gone out", n), func() bool {
		all, have, again := w.gone()
		got, repeats = all, again
		return have >= n
	})
	return got, repeats
}

func TestOutCarriesInOrder(t *testing.T) {
	inWorld(t, func(w *world) {
		s := newStream(w.t)
		defer s.stop()
		s.publish(w, numbered(5, 0, 300)...)
		s.publish(w, protocol.Message{Topic: "other", Payload: []byte("not selected")})
		a := w.out("a", s, func(o *OutOptions) {
			h, err := ParseHeader("source=tidewire of {topic}")
			none, _ := ParseHeader("none={json.none}")
			if err != nil {
				w.t.Fatal(err)
			}
			o.Headers = []Header{h, none}
		})
		defer a.stop()
		got, repeats := w.goneAre(1500)
		for topic := range 5 {
			sameTexts(w.t, "one topic", got[fmt.Sprintf("orders.%d", topic)], numbers(300))
		}
		if repeats != 0 {
			w.t.Errorf("%d repeats without a take-over", repeats)
		}
		s.publish(w,
			protocol.Message{Topic: "orders.old", Payload: []byte("x"), ExpiresAt: time.Now().Add(-time.Second)},
			protocol.Message{Topic: "orders.last", ID: "me", Payload: []byte("{}"), ContentType: "application/json", Headers: []protocol.Header{{Name: "shop", Value: "7"}}})
		got, _ = w.goneAre(1501)
		if got["orders.old"] != nil {
			w.t.Error("what has expired went out")
		}
		r := w.last("orders.last")
		for name, want := range map[string]string{
			"tidewire-id": "me", "tidewire-topic": "orders.last", "content-type": "application/json", "shop": "7", "source": "tidewire of orders.last", "none": "",
		} {
			if got := header(r, name); got != want {
				w.t.Errorf("the header %s is %q, want %q", name, got, want)
			}
		}
		if p, err := protocol.ParsePosition(header(r, "tidewire-position")); err != nil || p.Offset != 1503 {
			w.t.Errorf("the position %v: %v", p, err)
		}
	})
}

func (w *world) last(key string) *kafka.Record {
	all := w.read(foreign, int32(protocol.Partition(key, partitions)))
	return &all[len(all)-1]
}

// Kafka takes records and says that it does not, nodes are frozen and ended in the
// middle: nothing is lost, and but for repeats everything is in order.
func TestOutTakeOver(t *testing.T) {
	inWorld(t, func(w *world) {
		s := newStream(w.t)
		defer s.stop()
		members := []*member{w.out("a", s), w.out("b", s), w.out("c", s)}
		const each, rounds = 400, 6
		for round := range rounds {
			s.publish(w, numbered(3, round*each, each)...)
			if round%3 == 0 {
				w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut, Count: 1 + rand.IntN(3)})
			}
			w.goneAre(round*3*each + 1)
			for i, m := range members {
				if !m.holds() {
					continue
				}
				if round%2 == 0 {
					m.way.Stall(true)
					defer m.way.Stall(false)
				} else {
					m.stop()
					members[i] = w.out(fmt.Sprintf("new-%d", round), s)
				}
			}
			w.goneAre((round + 1) * 3 * each)
			for _, m := range members {
				m.way.Stall(false)
			}
		}
		got, repeats := w.goneAre(rounds * 3 * each)
		w.t.Logf("%d repeats", repeats)
		for topic := range 3 {
			sameTexts(w.t, "one topic", got[fmt.Sprintf("orders.%d", topic)], numbers(rounds*each))
		}
		for _, m := range members {
			m.stop()
		}
	})
}

func TestOutGoesOnWhereItWas(t *testing.T) {
	inWorld(t, func(w *world) {
		s := newStream(w.t)
		defer s.stop()
		fresh := func(o *OutOptions) { o.Earliest = false }
		s.publish(w, numbered(1, 0, 10)...)
		a := w.out("a", s, fresh)
		until(w.t, "it runs", a.holds)
		pass(time.Second)
		s.publish(w, numbered(1, 10, 10)...)
		w.goneAre(10)
		pass(time.Second) // until the connector knows
		a.stop()
		s.publish(w, numbered(1, 20, 10)...)
		b := w.out("b", s, fresh)
		defer b.stop()
		got, repeats := w.goneAre(20)
		sameTexts(w.t, "what is new", got["orders.0"], numbers(30)[10:])
		if repeats != 0 {
			w.t.Errorf("%d repeats after an orderly end", repeats)
		}
	})
}

func TestOutPassesOverGaps(t *testing.T) {
	for name, fail := range map[string]error{"trimmed": storage.ErrTrimmed, "damaged": &storage.LostError{After: 0, Through: 5}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				s := newStream(w.t)
				defer s.stop()
				s.publish(w, numbered(1, 0, 10)...)
				a := w.out("a", s)
				w.goneAre(10)
				pass(time.Second)
				a.stop()
				s.publish(w, numbered(1, 10, 10)...)
				s.mu.Lock()
				s.fail, s.below = fail, 15
				if name == "damaged" {
					s.fail = &storage.LostError{After: 10, Through: 15}
				}
				s.mu.Unlock()
				b := w.out("b", s)
				defer b.stop()
				got, _ := w.goneAre(15)
				sameTexts(w.t, "what is there", got["orders.0"], append(numbers(10), numbers(20)[15:]...))
			})
		})
	}
}

func TestOutPassesOverBadMessages(t *testing.T) {
	inWorld(t, func(w *world) {
		s := newStream(w.t)
		defer s.stop()
		s.publish(w,
			protocol.Message{Topic: "orders.a", Payload: []byte(`{"to":"x"}`)},
			protocol.Message{Topic: "orders.b", Payload: []byte(`none`)},
			protocol.Message{Topic: "orders.c", Payload: []byte(`{"to":"y"}`)},
			protocol.Message{Topic: "orders.d", Payload: fmt.Appendf(nil, `{"to":"%02000000d"}`, 0)})
		a := w.out("a", s, func(o *OutOptions) { o.Key = template(w.t, "{json.to}", OutFields()) })
		defer a.stop()
		w.goneAre(2)
		until(w.t, "the copies", func() bool { return len(w.read(badTopic, 0)) == 2 })
		for i, want := range []string{"not_json tidewire.main 1", "too_large tidewire.main 3"} {
			r := w.read(badTopic, 0)[i]
			if got := header(&r, "tidewire-bad-reason") + " " + header(&r, "tidewire-bad-topic") + " " + header(&r, "tidewire-bad-offset"); got != want {
				w.t.Errorf("%q, want %q", got, want)
			}
		}
	})
}
