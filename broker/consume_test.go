package broker_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/broker"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// worker may consume everything.
var workerIdentity = func() *broker.Identity {
	all, _ := protocol.ParseFilter(">")
	dead, _ := protocol.ParseFilter("$dead.>")
	return &broker.Identity{Publish: []protocol.Filter{all}, Subscribe: []protocol.Filter{all, dead}, Consume: []protocol.Filter{all, dead}}
}()

// shop is a broker with consumers.
type shop struct {
	t      *testing.T
	broker *broker.Broker
	end    func()

	main, control *storage.Log // nil in memory
}

func request(filter string) *broker.ConsumerRequest { return &broker.ConsumerRequest{Filter: filter} }

// publishBatch publishes n messages at once.
func (s *shop) publishBatch(topic string, n int) {
	s.t.Helper()
	h := s.hire()
	f := &protocol.Publish{}
	for i := range n {
		f.Messages = append(f.Messages, protocol.Message{Topic: topic, Payload: fmt.Appendf(nil, "%d", i)})
	}
	h.session.Publish(s.t.Context(), f)
}

// openShop starts a broker: in memory, or in a directory to be opened again.
func openShop(t *testing.T, dir string) *shop {
	t.Helper()
	return openShopOn(t, dir, func(l *storage.Log) broker.Log { return l })
}

// openShopOn lets the control log be another one.
func openShopOn(t *testing.T, dir string, control func(*storage.Log) broker.Log) *shop {
	t.Helper()
	s := &shop{t: t}
	logger := slog.New(slog.DiscardHandler)
	var closers []func() error
	if dir == "" {
		s.broker = broker.New(storage.NewMemoryLog("main", storage.MemoryOptions{}), broker.Options{Logger: logger})
	} else {
		store, err := storage.Open(dir, storage.Options{ReserveBytes: -1, Logger: logger})
		if err != nil {
			t.Fatal(err)
		}
		logs := map[string]*storage.Log{}
		for _, name := range []string{"main", "dead", "control"} {
			log, err := store.OpenLog(name, storage.LogOptions{Logger: logger, SegmentBytes: 256 << 10})
			if err != nil {
				t.Fatal(err)
			}
			logs[name] = log
			closers = append(closers, log.Close)
		}
		closers = append(closers, store.Close)
		s.main, s.control = logs["main"], logs["control"]
		s.broker = broker.New(logs["main"], broker.Options{Logger: logger}, broker.Stream{Name: broker.DeadStream, Logs: []broker.Log{logs["dead"]}})
		if err := s.broker.OpenConsumers(control(logs["control"])); err != nil {
			t.Fatal(err)
		}
	}
	s.run(closers...)
	return s
}

// run runs the broker until end or the test's.
func (s *shop) run(closers ...func() error) {
	t := s.t
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.broker.Run(ctx) }()
	s.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for _, c := range closers {
			if err := c(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(s.end)
}

func (s *shop) publish(m protocol.Message) {
	s.t.Helper()
	if _, err := s.broker.Publish(s.t.Context(), workerIdentity, &m, 0); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shop) publishMany(topic string, n int) {
	s.t.Helper()
	for i := range n {
		s.publish(protocol.Message{Topic: topic, Payload: fmt.Appendf(nil, "%d", i)})
	}
}

func (s *shop) info() broker.ConsumerInfo {
	s.t.Helper()
	info, err := s.broker.Consumer("w")
	if err != nil {
		s.t.Fatal(err)
	}
	return info
}

// until waits for what no client is told.
func (s *shop) until(ok func() bool) {
	s.t.Helper()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-again.C {
		if time.Now().After(deadline) {
			s.t.Fatalf("it does not happen: %+v", s.info())
		}
	}
}

// hand is a client that works for consumers.
type hand struct {
	t       *testing.T
	session *broker.Session
	stopped chan struct{}

	mu     sync.Mutex
	more   sync.Cond
	got    []protocol.Message // deliveries
	acked  []*tidewirev1.Acked
	errors []*tidewirev1.Error
	gaps   []*tidewirev1.Gap
	subbed []*tidewirev1.Subscribed
}

func (s *shop) hire() *hand {
	h := &hand{t: s.t, stopped: make(chan struct{})}
	h.more.L = &h.mu
	woken := make(chan struct{}, 1)
	h.session = s.broker.NewSession(broker.SessionOptions{Identity: workerIdentity, Codec: protocol.Proto{}, Wake: func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	}})
	go func() {
		for {
			select {
			case <-woken:
			case <-h.stopped:
				return
			}
			for {
				frames, end := h.session.Take(nil)
				if len(frames) == 0 || end != nil {
					break
				}
				for i := range frames {
					h.frame(append(slices.Clone(frames[i].Head()), frames[i].Tail...))
				}
			}
		}
	}()
	s.t.Cleanup(h.leave)
	return h
}

// leave loses the connection.
func (h *hand) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.stopped:
	default:
		close(h.stopped)
		h.session.Close()
	}
}

func (h *hand) frame(b []byte) {
	frame, err := protocol.Proto{}.DecodeServer(b)
	if err != nil {
		h.t.Error(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch f := frame.(type) {
	case *protocol.Deliver:
		for m, err := range f.Messages() {
			if err != nil {
				h.t.Error(err)
			}
			h.got = append(h.got, m)
		}
	case *tidewirev1.Acked:
		h.acked = append(h.acked, f)
	case *tidewirev1.Error:
		h.errors = append(h.errors, f)
	case *tidewirev1.Gap:
		h.gaps = append(h.gaps, f)
	case *tidewirev1.Subscribed:
		h.subbed = append(h.subbed, f)
	}
	h.more.Broadcast()
}

// consume subscribes and waits for the answer.
func (h *hand) consume(name, filter string, window uint32, settings *tidewirev1.ConsumerSettings) {
	h.t.Helper()
	n := len(h.subbed)
	h.session.Subscribe(&tidewirev1.Subscribe{Sub: uint32(n + 1), Consumer: name, Filter: filter, Window: window, Settings: settings})
	h.wait(func() bool { return len(h.subbed) > n || len(h.errors) > 0 })
}

// wait waits until it holds; ok is false after 20 seconds.
func (h *hand) wait(ok func() bool) {
	h.t.Helper()
	late := time.AfterFunc(20*time.Second, func() { h.mu.Lock(); h.more.Broadcast(); h.mu.Unlock() })
	defer late.Stop()
	begin := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for !ok() {
		if time.Since(begin) >= 20*time.Second {
			h.t.Fatalf("nothing more comes: %d deliveries, %d acked, errors %v", len(h.got), len(h.acked), h.errors)
		}
		h.more.Wait()
	}
}

// take waits for n deliveries and takes them.
func (h *hand) take(n int) []protocol.Message {
	h.t.Helper()
	h.wait(func() bool { return len(h.got) >= n })
	h.mu.Lock()
	defer h.mu.Unlock()
	got := h.got[:n:n]
	h.got = h.got[n:]
	return got
}

// idle checks that nothing comes. It is for tests in virtual time.
func (h *hand) idle() {
	h.t.Helper()
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.got) > 0 {
		h.t.Fatalf("%d deliveries that nobody expects, the first of %v, attempt %d", len(h.got), h.got[0].Position, h.got[0].Attempt)
	}
}

func (h *hand) settle(kind protocol.SettleKind, confirm bool, change func(*protocol.Settle), messages ...protocol.Message) *tidewirev1.Acked {
	h.t.Helper()
	f := &protocol.Settle{Kind: kind, Ref: 7, Sub: 1, Confirm: confirm, Term: messages[0].Position.Term, Generation: messages[0].Generation}
	for _, m := range messages {
		f.Ranges = append(f.Ranges, protocol.OffsetRange{Partition: m.Position.Partition, From: m.Position.Offset, Through: m.Position.Offset})
	}
	if change != nil {
		change(f)
	}
	n := len(h.acked)
	h.session.Settle(f)
	if !confirm {
		return nil
	}
	h.wait(func() bool { return len(h.acked) > n })
	return h.acked[n]
}

func (h *hand) ack(messages ...protocol.Message) {
	h.t.Helper()
	if a := h.settle(protocol.SettleAck, true, nil, messages...); int(a.Settled) != len(messages) || len(a.Refused) > 0 || a.Error != nil {
		h.t.Fatalf("answer %v to an ack of %d", a, len(messages))
	}
}

func payloads(messages []protocol.Message) (texts []string) {
	for _, m := range messages {
		texts = append(texts, string(m.Payload))
	}
	return texts
}

func TestConsumeLiveAndStored(t *testing.T) {
	s := openShop(t, "")
	s.publishMany("job.a", 3)
	s.publish(protocol.Message{Topic: "other", Payload: []byte("x")})
	h := s.hire()
	h.consume("w", "job.*", 0, nil)
	if !h.subbed[0].Created || h.subbed[0].Generation == 0 {
		t.Fatalf("answer %v", h.subbed[0])
	}
	got := h.take(3)
	if want := []string{"0", "1", "2"}; !slices.Equal(payloads(got), want) {
		t.Fatalf("got %v", payloads(got))
	}
	if got[0].Attempt != 1 || got[0].Generation != h.subbed[0].Generation {
		t.Fatalf("attempt %d, generation %d", got[0].Attempt, got[0].Generation)
	}
	s.publishMany("job.b", 2)
	got = append(got, h.take(2)...)
	if i := s.info(); i.InFlight != 5 || i.Lag != 0 && i.InFlight == 0 {
		t.Fatalf("info %+v", i)
	}
	h.ack(got...)
	if i := s.info(); i.InFlight != 0 || i.Oldest != nil || i.Counts.Acked != 5 {
		t.Fatalf("info %+v", i)
	}
	a := h.settle(protocol.SettleAck, true, nil, got[0])
	if len(a.Refused) != 1 || a.Refused[0].Code != "not_pending" || a.Settled != 0 {
		t.Fatalf("answer to a second ack: %v", a)
	}
}

func TestConsumerRedelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openShop(t, "")
		defer s.end()
		h := s.hire()
		defer h.leave()
		h.consume("w", "job", 0, &tidewirev1.ConsumerSettings{BackoffJitter: new(false), MaxDeliver: new(uint32(3)), AckWaitMs: new(uint64(10_000))})
		s.publishMany("job", 1)
		first := h.take(1)[0]
		h.idle()
		begin := time.Now()
		second := h.take(1)[0] // after the ack wait and the first backoff
		if waited := time.Since(begin); waited != 11*time.Second || second.Attempt != 2 || second.Position != first.Position {
			t.Fatalf("attempt %d after %v", second.Attempt, waited)
		}
		begin = time.Now()
		h.settle(protocol.SettleNack, false, nil, second)
		third := h.take(1)[0]
		if waited := time.Since(begin); waited != 2*time.Second || third.Attempt != 3 {
			t.Fatalf("attempt %d after %v", third.Attempt, waited)
		}
		h.settle(protocol.SettleExtend, false, func(f *protocol.Settle) { d := time.Minute; f.Delay = &d }, third)
		time.Sleep(59 * time.Second)
		h.idle()
		if i := s.info(); i.InFlight != 1 || i.Dead != 0 {
			t.Fatalf("info %+v", i)
		}
		time.Sleep(2 * time.Second)
		h.idle()
		if i := s.info(); i.InFlight != 0 || i.Dead != 1 {
			t.Fatalf("info %+v", i)
		}
		list, next, err := s.broker.DeadLetters(t.Context(), "w", "", 10)
		if err != nil || next != "" || len(list) != 1 {
			t.Fatalf("dead letters %v %v", list, err)
		}
		l := list[0]
		if l.Topic != "job" || l.Origin != first.Position.String() || l.Attempts != 3 || l.Reason == "" || string(l.Message.Payload) != "0" || l.ID != first.ID {
			t.Fatalf("dead letter %+v", l)
		}
		if n, err := s.broker.Redrive(t.Context(), "w", broker.DeadSelection{IDs: []string{l.ID}}, false); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		back := h.take(1)[0]
		if back.Topic != "job" || back.ID != first.ID || back.Attempt != 1 || len(back.Headers) != 0 || string(back.Payload) != "0" {
			t.Fatalf("redriven %+v", back)
		}
		h.ack(back)
		if i := s.info(); i.Dead != 0 || i.InFlight != 0 {
			t.Fatalf("info %+v", i)
		}
	})
}

// TestMembersKnowTheAckWait: whoever has set it, and also after a change.
func TestMembersKnowTheAckWait(t *testing.T) {
	s := openShop(t, "")
	for _, c := range []struct {
		given *uint64
		want  uint64
	}{{nil, 30_000}, {new(uint64(500)), 500}, {nil, 500}} {
		h := s.hire()
		h.consume("w", "job", 0, &tidewirev1.ConsumerSettings{AckWaitMs: c.given})
		if got := h.subbed[0].AckWaitMs; got != c.want {
			t.Errorf("told %d ms, want %d", got, c.want)
		}
	}
	h := s.hire()
	h.session.Subscribe(&tidewirev1.Subscribe{Sub: 1, Filter: "job"})
	h.wait(func() bool { return len(h.subbed) > 0 })
	if got := h.subbed[0].AckWaitMs; got != 0 {
		t.Errorf("a plain subscription is told %d ms", got)
	}
}

func TestConsumerRejects(t *testing.T) {
	s := openShop(t, "")
	h, watcher := s.hire(), s.hire()
	watcher.session.Subscribe(&tidewirev1.Subscribe{Sub: 1, Filter: "job"})
	h.consume("w", "job", 0, nil)
	s.publish(protocol.Message{Topic: "job", ID: "one", Payload: []byte("bad"), Headers: []protocol.Header{{Name: "h", Value: "v"}}, Key: "k"})
	m := h.take(1)[0]
	h.settle(protocol.SettleReject, true, func(f *protocol.Settle) { f.Reason = "no such customer" }, m)
	s.until(func() bool { return s.info().Dead > 0 })
	l, err := s.broker.DeadLetter(t.Context(), "w", "one")
	if err != nil || l.Reason != "no such customer" || l.Attempts != 1 || l.Message.Key != "k" || len(l.Message.Headers) != 1 {
		t.Fatalf("%+v %v", l, err)
	}
	if _, err := s.broker.DeadLetter(t.Context(), "w", "two"); err == nil {
		t.Fatal("a dead letter that is none was found")
	}
	found, err := s.broker.FindMessage(t.Context(), "one", "")
	if err != nil || len(found) != 1 || len(found[0].Consumers) != 1 || found[0].Consumers[0].State != "dead" || found[0].Consumers[0].Reason != "no such customer" {
		t.Fatalf("found %+v %v", found, err)
	}
	// Redriving reaches nobody but the consumer.
	if n, err := s.broker.Redrive(t.Context(), "w", broker.DeadSelection{All: true}, false); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	again := h.take(1)[0]
	if again.ID != "one" || again.Topic != "job" || again.Key != "k" || len(again.Headers) != 1 {
		t.Fatalf("redriven %+v", again)
	}
	watcher.take(1)
	if n := len(watcher.got); n != 0 {
		t.Fatalf("redriving reached %d others", n)
	}
	// It may die again, and still says where it came from first.
	h.settle(protocol.SettleReject, true, func(f *protocol.Settle) { f.Reason = "still not" }, again)
	s.until(func() bool { return s.info().Dead > 0 })
	l, err = s.broker.DeadLetter(t.Context(), "w", "one")
	if err != nil || l.Reason != "still not" || l.Origin != m.Position.String() || len(l.Message.Headers) != 1 {
		t.Fatalf("%+v %v", l, err)
	}
	if n, err := s.broker.Redrive(t.Context(), "w", broker.DeadSelection{All: true}, true); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if got := watcher.take(1)[0]; got.Topic != "job" || string(got.Payload) != "bad" {
		t.Fatalf("published anew: %+v", got)
	}
	if n, err := s.broker.PurgeDead(t.Context(), "w", broker.DeadSelection{All: true}); err != nil || n != 0 {
		t.Fatal(n, err)
	}
}

// TestPurgedDeadLetters: what the stream of dead letters does not hold any more is
// not counted and not listed, after a restart either.
func TestPurgedDeadLetters(t *testing.T) {
	dir := t.TempDir()
	s := openShop(t, dir)
	h := s.hire()
	h.consume("w", "job", 0, nil)
	reject := func(n int) {
		t.Helper()
		s.publishMany("job", n)
		h.settle(protocol.SettleReject, true, nil, h.take(n)...)
	}
	reject(3)
	s.until(func() bool { return s.info().Dead == 3 })
	if _, err := s.broker.Purge(t.Context(), broker.DeadStream); err != nil {
		t.Fatal(err)
	}
	if i := s.info(); i.Dead != 0 {
		t.Fatalf("%d dead letters are counted, all have been purged", i.Dead)
	}
	reject(1)
	s.until(func() bool { return s.info().Dead == 1 })
	list, _, err := s.broker.DeadLetters(t.Context(), "w", "", 10)
	if err != nil || len(list) != 1 {
		t.Fatalf("dead letters %v, %v", list, err)
	}
	h.leave()
	s.end()
	s = openShop(t, dir)
	again, _, err := s.broker.DeadLetters(t.Context(), "w", "", 10)
	if err != nil || len(again) != 1 || again[0].Position != list[0].Position {
		t.Fatalf("dead letters after a restart: %v, %v", again, err)
	}
}

func TestConsumerIsShared(t *testing.T) {
	s := openShop(t, "")
	a, b := s.hire(), s.hire()
	a.consume("w", "job", 2, nil)
	b.consume("w", "job", 2, nil)
	s.publishMany("job", 10)
	fromA, fromB := a.take(2), b.take(2)
	if i := s.info(); i.InFlight != 4 || len(i.Members) != 2 {
		t.Fatalf("info %+v", i)
	}
	a.ack(fromA...)
	next := a.take(2)
	b.leave()
	a.ack(next...)
	got := a.take(2) // what b had comes before what is new
	want := payloads(fromB)
	if !slices.Equal(payloads(got), want) || got[0].Attempt != 2 {
		t.Fatalf("got %v, want %v", payloads(got), want)
	}
	a.ack(got...)
	for range 2 {
		a.ack(a.take(2)...)
	}
	if i := s.info(); i.InFlight != 0 || i.Lag != 0 || i.Counts.Acked != 10 {
		t.Fatalf("info %+v", i)
	}
}

func TestExclusiveConsumerIsTakenOver(t *testing.T) {
	s := openShop(t, "")
	a, b := s.hire(), s.hire()
	a.consume("w", "job", 0, &tidewirev1.ConsumerSettings{Exclusive: new(true)})
	s.publishMany("job", 3)
	mine := a.take(3)
	b.consume("w", "", 0, nil)
	a.wait(func() bool { return len(a.errors) == 1 })
	if a.errors[0].Code != "taken_over" || a.errors[0].Sub != 1 {
		t.Fatalf("error %v", a.errors[0])
	}
	yours := b.take(3)
	if !slices.Equal(payloads(yours), payloads(mine)) || yours[0].Attempt != 2 || yours[0].Generation <= mine[0].Generation {
		t.Fatalf("got %v, attempt %d, generation %d after %d", payloads(yours), yours[0].Attempt, yours[0].Generation, mine[0].Generation)
	}
	at := mine[0].Position
	late := &protocol.Settle{Kind: protocol.SettleAck, Term: at.Term, Generation: mine[0].Generation, Ranges: []protocol.OffsetRange{{From: at.Offset, Through: at.Offset}}}
	_, refused, err := s.broker.Settle(t.Context(), workerIdentity, "w", []*protocol.Settle{late})
	if err != nil || len(refused) != 1 || refused[0].Code != "fenced" {
		t.Fatalf("late ack: %v %v", refused, err)
	}
	b.ack(yours...)
}

// TestConsumerOutlivesBroker: what was confirmed stays, what was in flight stays
// so until its ack wait, attempts are counted on.
func TestConsumerOutlivesBroker(t *testing.T) {
	dir := t.TempDir()
	s := openShop(t, dir)
	h := s.hire()
	h.consume("w", "job", 0, nil)
	s.publishMany("job", 5)
	got := h.take(5)
	h.ack(got[1], got[3])
	h.settle(protocol.SettleReject, true, func(f *protocol.Settle) { f.Reason = "bad" }, got[4])
	s.until(func() bool { return s.info().Dead > 0 })
	generation := s.info().Generation
	h.leave()
	s.end()

	s = openShop(t, dir)
	if i := s.info(); i.Generation != generation || i.InFlight != 2 || i.Dead != 1 || i.Lag != 0 {
		t.Fatalf("info %+v", i)
	}
	h = s.hire()
	h.consume("w", "job", 0, nil)
	if h.subbed[0].Created {
		t.Fatal("it was created anew")
	}
	h.ack(got[0]) // its member came back
	h.settle(protocol.SettleNack, true, func(f *protocol.Settle) { f.Delay = new(time.Duration(0)) }, got[2])
	again := h.take(1)
	if string(again[0].Payload) != "2" || again[0].Attempt != 2 {
		t.Fatalf("got %v, attempt %d", payloads(again), again[0].Attempt)
	}
	h.ack(again...)
	s.publishMany("job", 1)
	h.ack(h.take(1)...)
	if i := s.info(); i.InFlight != 0 || i.Waiting != 0 {
		t.Fatalf("info %+v", i)
	}
	if n, err := s.broker.Redrive(t.Context(), "w", broker.DeadSelection{All: true}, false); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if back := h.take(1)[0]; string(back.Payload) != "4" {
		t.Fatalf("redriven %q", back.Payload)
	}
}

// TestConsumerOfItself: a consumer cannot feed on what it has given up; one of
// another's dead letters is fine.
func TestConsumerOfItself(t *testing.T) {
	s := openShop(t, "")
	for filter, fine := range map[string]bool{"$dead.>": false, "$dead.w": false, "$dead.*": false, "$redrive.w": false, "$redrive.other": false, "$dead.other": true} {
		_, _, err := s.broker.PutConsumer(t.Context(), "w", request(filter))
		if (err == nil) != fine {
			t.Errorf("%s: %v", filter, err)
		}
	}
	s.publishMany("job", 1)
	other := s.hire()
	other.consume("other", "job", 0, nil)
	other.settle(protocol.SettleReject, true, nil, other.take(1)[0])
	h := s.hire()
	h.consume("w", "", 0, nil)
	if m := h.take(1)[0]; m.Topic != "$dead.other" || string(m.Payload) != "0" {
		t.Fatalf("got %+v", m)
	}
}

func TestFetch(t *testing.T) {
	s := openShop(t, "")
	s.publishMany("job", 3)
	fetch := func(most int, wait time.Duration, filter string) (broker.FetchResult, *protocol.Error) {
		return s.broker.Fetch(t.Context(), workerIdentity, "w", &broker.FetchRequest{Max: most, Wait: wait, ConsumerRequest: broker.ConsumerRequest{Filter: filter}})
	}
	if _, err := fetch(2, 0, ""); err == nil || err.Code != protocol.CodeUnknownConsumer {
		t.Fatalf("error %v", err)
	}
	r, err := fetch(2, 0, "job")
	if err != nil || !r.Created || len(r.Chunks) != 1 || r.Chunks[0].Count != 2 {
		t.Fatalf("%+v %v", r, err)
	}
	rest, err := fetch(2, time.Minute, "")
	if err != nil || len(rest.Chunks) != 1 || rest.Chunks[0].Count != 1 {
		t.Fatalf("%+v %v", rest, err)
	}
	late := make(chan broker.FetchResult, 1)
	go func() {
		r, _ := fetch(5, time.Minute, "")
		late <- r
	}()
	s.until(func() bool { return len(s.info().Members) > 0 })
	s.publishMany("job", 1)
	if r := <-late; len(r.Chunks) != 1 || r.Chunks[0].Count != 1 {
		t.Fatalf("%+v", r)
	}
	if i := s.info(); i.InFlight != 4 || len(i.Members) != 0 {
		t.Fatalf("info %+v", i)
	}
	f := &protocol.Settle{Kind: protocol.SettleAck, Term: r.Chunks[0].Term, Ranges: []protocol.OffsetRange{{From: 1, Through: protocol.MaxOffset}}}
	if n, refused, err := s.broker.Settle(t.Context(), workerIdentity, "w", []*protocol.Settle{f}); err != nil || n != 4 || len(refused) != 0 {
		t.Fatal(n, refused, err)
	}
}
