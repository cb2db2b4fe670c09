package broker_test

import (
	"context"
	"errors"
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

func filters(t *testing.T, texts ...string) (list []protocol.Filter) {
	t.Helper()
	for _, text := range texts {
		f, err := protocol.ParseFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, f)
	}
	return list
}

// streams is a broker with main and two more streams, orders before audit.
type streams struct {
	*world
	orders, audit *brokertest.Log
}

func newStreams(t *testing.T) *streams {
	s := &streams{orders: brokertest.NewLog(), audit: brokertest.NewLog()}
	s.world = &world{t: t, rng: rand.New(rand.NewPCG(1, 1)), log: brokertest.NewLog()}
	s.broker = broker.New(s.log, broker.Options{},
		broker.Stream{Name: "orders", Filters: filters(t, "orders.>", "bills"), Logs: []broker.Log{s.orders}},
		broker.Stream{Name: "audit", Filters: filters(t, "*.audit"), Logs: []broker.Log{s.audit}})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.broker.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return s
}

func messages(topics ...string) (list []protocol.Message) {
	for _, topic := range topics {
		list = append(list, protocol.Message{Topic: topic, Payload: []byte(topic)})
	}
	return list
}

// send publishes one frame and returns its answers by ref.
func (l *listener) send(p *protocol.Publish) []protocol.PublishResult {
	l.w.t.Helper()
	l.results = nil
	want := len(p.Messages)
	l.session.Publish(l.w.t.Context(), p)
	l.until(func() bool { return len(l.results) == want })
	slices.SortFunc(l.results, func(a, b protocol.PublishResult) int { return int(a.Ref) - int(b.Ref) })
	return l.results
}

func codes(results []protocol.PublishResult) string {
	var list []string
	for _, r := range results {
		code := "ok"
		if r.Err != nil {
			code = string(r.Err.Code)
		}
		list = append(list, code)
	}
	return strings.Join(list, " ")
}

func head(l broker.Log) uint64 {
	_, head := l.Bounds()
	return head
}

// TestStreamsByTopic: a topic is in the first stream that has a filter for it,
// and main has the rest; history and subscriptions find it there.
func TestStreamsByTopic(t *testing.T) {
	s := newStreams(t)
	l := s.listen()
	results := l.send(&protocol.Publish{Ref: 1, Messages: messages("orders.eu", "room", "room.audit", "orders.audit", "bills", "x.y.audit")})
	if codes(results) != "ok ok ok ok ok ok" {
		t.Fatal(codes(results))
	}
	if _, err := s.broker.Publish(t.Context(), anybody, &messages("orders.us")[0], 0); err != nil {
		t.Fatal(err)
	}
	if o, a, m := head(s.orders), head(s.audit), head(s.log); o != 4 || a != 1 || m != 2 {
		t.Fatalf("orders has %d, audit %d, main %d", o, a, m)
	}
	for _, c := range []struct{ filter, stream, want string }{
		{"orders.>", "", "orders.eu orders.audit orders.us"},
		{"orders.*", "", "orders.eu orders.audit orders.us"},
		{"orders.audit", "", "orders.audit"},
		{"room", "", "room"},
		{"*", "main", "room"},
		{">", "orders", "orders.eu orders.audit bills orders.us"},
		{">", "audit", "room.audit"},
		{"*.audit", "audit", "room.audit"},
		{"orders.eu", "main", ""},
		{"$dead.x", "", ""},
	} {
		f := filters(t, c.filter)[0]
		reader := &broker.Identity{Subscribe: append(anybody.Subscribe, filters(t, "$dead.x")...)}
		page, err := s.broker.History(t.Context(), reader, broker.HistoryQuery{Filter: f, Stream: c.stream, From: protocol.Start{Kind: protocol.StartEarliest}, Limit: 10})
		if err != nil {
			t.Errorf("%s of %q: %v", c.filter, c.stream, err)
			continue
		}
		var got []string
		for _, m := range page.Messages {
			got = append(got, m.Topic)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s of %q: %v, want %s", c.filter, c.stream, got, c.want)
		}
	}
}

// TestStreamsRefused: what could be in several streams needs a name, and the
// sentence has those that there are.
func TestStreamsRefused(t *testing.T) {
	s := newStreams(t)
	for _, c := range []struct {
		filter, stream string
		code           protocol.Code
		sentence       string
	}{
		{">", "", protocol.CodeSeveralStreams, `the filter ">" could match topics of the streams orders, audit, main: name one with ` + "`stream`" + `, and subscribe once for each that you need`},
		{"*.audit", "", protocol.CodeSeveralStreams, `the filter "*.audit" could match topics of the streams orders, audit: name one with ` + "`stream`" + `, and subscribe once for each that you need`},
		{"*", "", protocol.CodeSeveralStreams, `the filter "*" could match topics of the streams orders, main: name one with ` + "`stream`" + `, and subscribe once for each that you need`},
		{"room", "nope", protocol.CodeUnknownStream, `there is no stream "nope", this broker has orders, audit, dead, main`},
	} {
		_, err := s.broker.History(t.Context(), anybody, broker.HistoryQuery{Filter: filters(t, c.filter)[0], Stream: c.stream, Limit: 1})
		if e := protocol.AsError(err); e == nil || e.Code != c.code || e.Message != c.sentence {
			t.Errorf("%s of %q: %v", c.filter, c.stream, err)
		}
		session := s.broker.NewSession(broker.SessionOptions{Identity: anybody, Codec: protocol.Proto{}, Wake: func() {}})
		session.Subscribe(&tidewirev1.Subscribe{Sub: 1, Filter: c.filter, Stream: c.stream})
		frames, _ := session.Take(nil)
		frame, err := protocol.Proto{}.DecodeServer(frames[0].Tail)
		if e, ok := frame.(*tidewirev1.Error); err != nil || !ok || e.Code != string(c.code) {
			t.Errorf("subscribe to %s of %q: %v, %v", c.filter, c.stream, frame, err)
		}
		session.Close()
	}
}

// TestStreamsLive: one session follows several streams, whose offsets have
// nothing to do with each other, through deliveries and progress.
func TestStreamsLive(t *testing.T) {
	s := newStreams(t)
	l := s.listen()
	l.subscribe(1, "orders.*", "")
	l.subscribe(2, "room.x.>", "")
	l.subscribe(3, "quiet", "")
	l.until(func() bool { return l.subs[1].caughtUp+l.subs[2].caughtUp+l.subs[3].caughtUp == 3 })
	for range 5 {
		l.send(&protocol.Publish{Ref: 1, Messages: messages("orders.a", "orders.b", "room.x.a")})
	}
	l.until(func() bool {
		l.session.Progress()
		return l.subs[1].cursor[0] == 10 && l.subs[2].cursor[0] == 5 && l.subs[3].cursor[0] == 5
	})
	if len(l.subs[1].got) != 10 || len(l.subs[2].got) != 5 || len(l.subs[3].got) != 0 {
		t.Errorf("%d, %d and %d messages", len(l.subs[1].got), len(l.subs[2].got), len(l.subs[3].got))
	}
	l.reconnect() // from the positions that it has: each is its stream's
	l.until(func() bool { return l.subs[1].caughtUp+l.subs[2].caughtUp+l.subs[3].caughtUp == 6 })
	for n, p := range l.subs {
		if len(p.gaps) > 0 {
			t.Errorf("subscription %d: %v", n, p.gaps)
		}
	}
}

// TestStreamsPositions: the position of one stream means nothing to another, and
// that is told.
func TestStreamsPositions(t *testing.T) {
	s := newStreams(t)
	l := s.listen()
	results := l.send(&protocol.Publish{Ref: 1, Messages: messages("orders.a", "room", "room")})
	l.subscribe(1, "orders.a", results[1].Position.String())
	l.until(func() bool { return l.subs[1].caughtUp > 0 })
	if p := l.subs[1]; len(p.gaps) != 1 || p.gaps[0].Reason != storage.GapOtherLog || len(p.got) != 1 {
		t.Errorf("gaps %v, %d messages", p.gaps, len(p.got))
	}
}

// TestStreamsOrder: a refusal by one stream holds back what follows it to that
// stream alone, until it is repeated with resume.
func TestStreamsOrder(t *testing.T) {
	s := newStreams(t)
	l := s.listen()
	l.send(&protocol.Publish{Ref: 1, Messages: messages("orders.a", "room")})
	s.orders.Refuse(protocol.Errorf(protocol.CodeStorageFull, "full"))
	r := l.send(&protocol.Publish{Ref: 10, Messages: messages("orders.a", "room", "orders.b", "room")})
	if codes(r) != "storage_full ok out_of_order ok" {
		t.Fatal(codes(r))
	}
	s.orders.Refuse(nil)
	if r := l.send(&protocol.Publish{Ref: 20, Messages: messages("room", "orders.c")}); codes(r) != "ok out_of_order" {
		t.Fatal(codes(r))
	}
	// A frame with resume that has nothing for the stream is remembered for it.
	if r := l.send(&protocol.Publish{Ref: 30, Resume: true, Messages: messages("room")}); codes(r) != "ok" {
		t.Fatal(codes(r))
	}
	if r := l.send(&protocol.Publish{Ref: 40, Messages: messages("orders.a", "orders.b")}); codes(r) != "ok ok" {
		t.Fatal(codes(r))
	}
}

// failing is a log whose Run fails when it is told to.
type failing struct {
	*brokertest.Log
	fail chan struct{}
}

func (l *failing) Run(ctx context.Context, _ func(*storage.Commit)) error {
	select {
	case <-l.fail:
		return errors.New("sync failed")
	case <-ctx.Done():
		return nil
	}
}

// TestStreamsFail: when the log of one stream fails the broker ends, and the
// others answer what they have taken.
func TestStreamsFail(t *testing.T) {
	main, other := brokertest.NewLog(), &failing{brokertest.NewLog(), make(chan struct{})}
	b := broker.New(main, broker.Options{}, broker.Stream{Name: "orders", Filters: filters(t, "orders.>"), Logs: []broker.Log{other}})
	main.Hold(true)
	answered := make(chan storage.Result, 1)
	m := messages("room")[0]
	if err := main.Append(t.Context(), &storage.Entry{Topic: m.Topic, Record: protocol.AppendRecord(nil, &m), Done: func(r storage.Result) { answered <- r }}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- b.Run(t.Context()) }()
	main.Hold(false)
	close(other.fail)
	if err := <-ended; err == nil || err.Error() != "sync failed" {
		t.Errorf("%v", err)
	}
	if r := <-answered; r.Err != nil {
		t.Errorf("%v", r.Err)
	}
}

// TestAudience: who would get a message of a topic at once is counted, in the
// stream that holds the topic.
func TestAudience(t *testing.T) {
	s := newStreams(t)
	l := s.listen()
	if n := s.broker.Audience("room"); n != 0 {
		t.Errorf("%d before anybody is there", n)
	}
	l.subscribe(1, "room", "new")
	l.subscribe(2, "orders.>", "new")
	l.subscribe(3, "orders.*", "new")
	l.until(func() bool { return l.subs[1].caughtUp+l.subs[2].caughtUp+l.subs[3].caughtUp == 3 })
	for topic, want := range map[string]int{"room": 1, "orders.eu": 2, "orders.eu.north": 1, "hall": 0} {
		if n := s.broker.Audience(topic); n != want {
			t.Errorf("%s: %d, want %d", topic, n, want)
		}
	}
	l.unsubscribe(1)
	if n := s.broker.Audience("room"); n != 0 {
		t.Errorf("%d after it has gone", n)
	}
}
