package broker_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// anybody may do everything.
var anybody = func() *broker.Identity {
	all, _ := protocol.ParseFilter(">")
	return &broker.Identity{Publish: []protocol.Filter{all}, Subscribe: []protocol.Filter{all}}
}()

// seed returns the seed of a random test, from SEED if that is set.
func seed(t testing.TB) uint64 {
	n := uint64(time.Now().UnixNano())
	if text := os.Getenv("SEED"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SEED=%d", n)
	return n
}

// world is a broker on a log in memory, and everything that was stored.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	log    *brokertest.Log   // the first of logs
	logs   []*brokertest.Log // partitions of main
	broker *broker.Broker
	stored []stored // of each partition by offset

	// Of TestModelOfWishes, by payload.
	everybody []*listener
	published int
	by        map[string]*broker.Session // of messages whose session has a mark
	expires   map[string]time.Time
	dead      map[string]bool // expired before it was published
	damaged   []damaged       // ranges that cannot be read
}

type damaged struct {
	partition      uint32
	after, through uint64
}

// damage makes the offsets in (after, through] unreadable.
func (w *world) damage(partition uint32, after, through uint64) {
	w.logs[partition].Damage(after, through)
	w.damaged = append(w.damaged, damaged{partition, after, through})
}

// heads returns the offset given last in each partition.
func (w *world) heads() (heads []uint64) {
	for _, l := range w.logs {
		heads = append(heads, head(l))
	}
	return heads
}

// somewhere returns a place in the log as a position.
func (w *world) somewhere() string {
	var v protocol.Vector
	for i, head := range w.heads() {
		v = w.logs[i].PositionOf(w.rng.Uint64N(head + 1)).With(v.Places)
	}
	return v.String()
}

type stored struct {
	topic, payload string
	partition      uint32
	offset         uint64
}

func (s stored) String() string { return fmt.Sprintf("%d_%d:%s", s.partition, s.offset, s.topic) }

// sorted puts what lies in several partitions into one order. That of each
// partition stays.
func sorted(list []stored) []stored {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b stored) int { return int(a.partition) - int(b.partition) })
	return list
}

func newWorld(t *testing.T, o broker.Options) *world { return newWorldOf(t, o, seed(t)) }

func newWorldOf(t *testing.T, o broker.Options, seed uint64) *world {
	return newParted(t, o, seed, 1)
}

// parted is the stream main on the logs of its partitions.
func parted[L broker.Log](logs []L) broker.Stream {
	main := broker.Stream{Name: broker.MainStream}
	for _, l := range logs {
		main.Logs = append(main.Logs, l)
	}
	return main
}

// newParted returns a world whose stream main has so many partitions.
func newParted(t *testing.T, o broker.Options, seed uint64, partitions int) *world {
	logs := brokertest.NewPartitions(partitions)
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 3)), log: logs[0], logs: logs}
	if partitions == 1 {
		w.broker = broker.New(logs[0], o)
	} else {
		w.broker = broker.New(nil, o, parted(logs))
	}
	w.by, w.expires, w.dead = map[string]*broker.Session{}, map[string]time.Time{}, map[string]bool{}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = w.broker.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

var modelTopics = []string{"a.x", "a.y", "b.x", "b.y.z", "c"}

// publish stores some messages through a session, as one frame.
func (w *world) publish(s *listener) { w.publishWith(s, w.rng) }

func (w *world) publishWith(s *listener, rng *rand.Rand) {
	frame := &protocol.Publish{Ref: 1}
	for range 1 + rng.IntN(6) {
		topic := modelTopics[rng.IntN(len(modelTopics))]
		payload := fmt.Sprintf("%d %0*d", len(w.stored)+len(frame.Messages), rng.IntN(200), 0)
		frame.Messages = append(frame.Messages, protocol.Message{Topic: topic, Payload: []byte(payload)})
	}
	sent := slices.Clone(frame.Messages)
	s.session.Publish(w.t.Context(), frame)
	s.until(func() bool { return len(s.results) >= len(sent) })
	for _, r := range s.results {
		if r.Err != nil {
			w.t.Fatal(r.Err)
		}
		m, at := sent[r.Ref-1], r.Position
		w.stored = append(w.stored, stored{m.Topic, string(m.Payload), at.Partition, at.Offset})
	}
	s.results = nil
}

// listener is a client by the rules of docs/protocol.md, over sessions that
// come and go. It reads only when it is told to.
type listener struct {
	w       *world
	session *broker.Session
	woken   chan struct{}
	subs    map[uint32]*place
	results []protocol.PublishResult
	ended   uint32 // the subscription whose end was answered last

	size      int  // of the frame at hand
	forgiving bool // comes back when it is disconnected for being slow
}

// place is one subscription.
type place struct {
	filter   protocol.Filter
	from     string
	start    map[uint32]uint64 // by partition: everything above it is owed; nil before it is known
	cursor   map[uint32]uint64
	caughtUp int
	got      []stored
	gaps     []*tidewirev1.Gap
	hides    *hiding // nil unless the log hides something
	wished
}

func (w *world) listen() *listener {
	l := &listener{w: w, subs: map[uint32]*place{}}
	l.connect()
	w.t.Cleanup(func() { l.session.Close() })
	return l
}

func (l *listener) connect() {
	woken := make(chan struct{}, 1)
	l.woken = woken
	wake := func() {
		select {
		case woken <- struct{}{}:
		default: // one is on its way
		}
	}
	l.session = l.w.broker.NewSession(broker.SessionOptions{Identity: anybody, Codec: protocol.Proto{}, Wake: wake})
	for n, p := range l.subs {
		l.session.Subscribe(p.request(n))
	}
}

// reconnect loses the connection and what was under way on it.
func (l *listener) reconnect() {
	l.session.Close()
	l.results = nil
	l.connect()
}

func (l *listener) subscribe(n uint32, filter, from string) {
	f, err := protocol.ParseFilter(filter)
	if err != nil {
		l.w.t.Fatal(err)
	}
	l.subs[n] = &place{filter: f, from: from}
	l.session.Subscribe(&tidewirev1.Subscribe{Sub: n, Filter: filter, From: from})
}

// take writes at most so many times what waits, and reports whether there is
// nothing left.
func (l *listener) take(times int) bool {
	for range times {
		frames, end := l.session.Take(nil)
		if end != nil && end.Code == protocol.CodeSlowConnection && l.forgiving {
			l.reconnect()
			return false
		}
		if end != nil {
			l.w.t.Fatalf("the session has ended: %v", end)
		}
		if len(frames) == 0 {
			return true
		}
		for i := range frames {
			b := append(slices.Clone(frames[i].Head()), frames[i].Tail...)
			l.size = len(b)
			l.frame(b)
		}
	}
	return false
}

// until takes until done. It asks again now and then, since done may depend on
// more than what is taken.
func (l *listener) until(done func() bool) {
	deadline := time.After(20 * time.Second)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !done() {
		if !l.take(1) {
			continue
		}
		select {
		case <-l.woken:
		case <-again.C:
		case <-deadline:
			l.w.t.Fatal("nothing more comes")
		}
	}
}

func (l *listener) frame(b []byte) {
	frame, err := protocol.Proto{}.DecodeServer(b)
	if err != nil {
		l.w.t.Fatal(err)
	}
	switch f := frame.(type) {
	case *tidewirev1.Subscribed:
		p := l.subs[f.Sub]
		p.begun()
		p.hides.begun()
		p.cursor, p.from = map[uint32]uint64{}, f.Position
		for _, c := range f.Cursors {
			p.cursor[c.Partition] = c.Offset
		}
		if p.start == nil {
			p.start = maps.Clone(p.cursor)
		}
	case *tidewirev1.Gap:
		p := l.subs[f.Sub]
		if f.Reason == "ephemeral" {
			p.tellMissed(l.w.t, f)
			return
		}
		if p.hides.gap(p, f) {
			return
		}
		p.gaps = append(p.gaps, f)
		p.cursor[f.Partition], p.from = f.Offset, f.Position
	case *tidewirev1.CaughtUp:
		l.subs[f.Sub].caughtUp++
		l.subs[f.Sub].standing = true
	case *tidewirev1.Unsubscribed:
		l.ended = f.Sub
	case *tidewirev1.Progress:
		for _, n := range f.Subs {
			l.subs[n].hides.passed(l.subs[n], f.Partition, f.Through, 0)
			l.subs[n].move(f.Term, f.Partition, f.Through)
		}
	case *protocol.Published:
		l.results = append(l.results, f.Results...)
	case *protocol.Deliver:
		l.deliver(f)
	case *tidewirev1.Error:
		if f.Code == string(protocol.CodeSlowConnection) && l.forgiving {
			return
		}
		l.w.t.Fatalf("error: %s %s", f.Code, f.Message)
	}
}

func (p *place) move(term string, partition uint32, through uint64) {
	if through > p.cursor[partition] {
		p.cursor[partition] = through
		p.from = p.vector(term)
	}
}

// vector returns the cursors as the position to come back with.
func (p *place) vector(term string) string {
	t, _ := protocol.ParseTerm(term)
	v := protocol.Vector{Term: t}
	for _, partition := range slices.Sorted(maps.Keys(p.cursor)) {
		v.Places = append(v.Places, protocol.Place{Partition: partition, Offset: p.cursor[partition]})
	}
	return v.String()
}

// behindAny reports whether a cursor is not at the head of its partition.
func (p *place) behindAny(heads []uint64) bool {
	for partition, offset := range p.cursor {
		if offset < heads[partition] {
			return true
		}
	}
	return p.cursor == nil
}

func (l *listener) deliver(f *protocol.Deliver) {
	p := l.subs[f.Sub]
	if p == nil {
		l.w.t.Fatalf("a delivery of subscription %d, which has ended", f.Sub)
	}
	p.charge(l, f)
	if f.Ephemeral() {
		return
	}
	cursor, known := p.cursor[f.Partition]
	if !known || f.After > cursor {
		l.w.t.Fatalf("filter %s: false hole in partition %d: cursor %d, after %d", p.filter, f.Partition, cursor, f.After)
	}
	came := len(p.got)
	for m, err := range f.Messages() {
		if err != nil {
			l.w.t.Fatal(err)
		}
		if m.Position.Offset > cursor {
			p.got = append(p.got, stored{m.Topic, string(m.Payload), m.Position.Partition, m.Position.Offset})
		}
	}
	p.hides.passed(p, f.Partition, f.Through, len(p.got)-came)
	p.move(f.Term.String(), f.Partition, f.Through)
}

// check compares what came with what was stored.
func (p *place) check(t *testing.T, all []stored) {
	t.Helper()
	var want []stored
	for _, s := range all {
		if s.offset > p.start[s.partition] && p.filter.Match(s.topic) && !p.gone(s) {
			want = append(want, s)
		}
	}
	if !slices.Equal(sorted(p.got), sorted(want)) {
		t.Fatalf("filter %s from %d: got %d messages, want %d\n got %v\nwant %v", p.filter, p.start, len(p.got), len(want), sorted(p.got), sorted(want))
	}
}

// exact checks that gaps for damage take nothing that is sound.
func (p *place) exact(t *testing.T, w *world) {
	t.Helper()
	for _, g := range p.gaps {
		for offset := g.After + 1; g.Reason == storage.GapPassedOver && offset <= g.Through; offset++ {
			if !slices.ContainsFunc(w.damaged, func(d damaged) bool {
				return d.partition == g.Partition && offset > d.after && offset <= d.through
			}) {
				t.Fatalf("filter %s: offset %d is sound and lies in the gap (%d, %d]", p.filter, offset, g.After, g.Through)
			}
		}
	}
}

// gone reports whether a gap covered the message.
func (p *place) gone(s stored) bool {
	return slices.ContainsFunc(p.gaps, func(g *tidewirev1.Gap) bool {
		return g.Partition == s.partition && g.After < s.offset && s.offset <= g.Through
	})
}

// TestModel lets listeners subscribe, read slowly or quickly, lose their
// connections and come back, while messages are stored, retention trims and the
// disk loses some. Each gets every message above its start once, in order, or a
// gap that covers it.
func TestModel(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprintf("partitions=%d", n), func(t *testing.T) { testModel(t, n) })
	}
}

func testModel(t *testing.T, partitions int) {
	w := newParted(t, broker.Options{SoftOutbound: 1500}, seed(t), partitions)
	publisher := w.listen()
	listeners := []*listener{w.listen(), w.listen(), w.listen()}
	filters := []string{"a.x", "a.*", ">", "*.x", "b.>", "c", "nothing"}
	next := uint32(0)
	steps := 3000
	if os.Getenv("TIDEWIRE_SOAK") != "" {
		steps = 300_000
	}
	for range steps {
		l := listeners[w.rng.IntN(len(listeners))]
		switch w.rng.IntN(12) {
		case 0, 1, 2:
			w.publish(publisher)
		case 3:
			if len(l.subs) < 12 {
				from := []string{"", "earliest", "last:3", "-1m", "position"}[w.rng.IntN(5)]
				if from == "position" {
					from = w.somewhere()
				}
				next++
				l.subscribe(next, filters[w.rng.IntN(len(filters))], from)
			}
		case 4:
			l.reconnect()
		case 5:
			l.session.Progress()
		case 6:
			partition := w.rng.IntN(partitions)
			head := head(w.logs[partition])
			switch w.rng.IntN(20) {
			case 0, 1:
				w.logs[partition].Trim(uint64(w.rng.IntN(int(head) + 1)))
			case 2, 3, 4, 5, 6:
				after := uint64(w.rng.IntN(int(head) + 1))
				w.damage(uint32(partition), after, min(after+uint64(w.rng.IntN(20)), head))
			}
		default:
			l.take(1 + w.rng.IntN(3))
		}
	}
	heads := w.heads()
	for _, l := range listeners {
		l.session.Progress()
		l.until(func() bool {
			l.session.Progress()
			for _, p := range l.subs {
				if p.caughtUp == 0 || p.behindAny(heads) {
					return false
				}
			}
			return true
		})
		for _, p := range l.subs {
			p.check(t, w.stored)
			p.exact(t, w)
		}
	}
}

// hookedLog calls a hook in the middle of each read.
type hookedLog struct {
	*brokertest.Log
	onRead func()
}

func (l *hookedLog) Read(q storage.Query) (protocol.Chunk, error) {
	l.onRead()
	return l.Log.Read(q)
}

// TestUnsubscribeIsTheLastWord ends a subscription while the log is being read
// for it: nothing of it comes behind the answer.
func TestUnsubscribeIsTheLastWord(t *testing.T) {
	w := newWorld(t, broker.Options{})
	w.publish(w.listen())
	hooked := &hookedLog{Log: w.log}
	session := broker.New(hooked, broker.Options{}).NewSession(broker.SessionOptions{Identity: anybody, Codec: protocol.Proto{}, Wake: func() {}})
	defer session.Close()
	hooked.onRead = func() { session.Unsubscribe(1) }
	session.Subscribe(&tidewirev1.Subscribe{Sub: 1, Filter: ">", From: "earliest"})
	var last any
	for {
		frames, end := session.Take(nil)
		if end != nil {
			t.Fatal(end)
		}
		if len(frames) == 0 {
			break
		}
		for i := range frames {
			frame, err := protocol.Proto{}.DecodeServer(append(slices.Clone(frames[i].Head()), frames[i].Tail...))
			if err != nil {
				t.Fatal(err)
			}
			last = frame
		}
	}
	if _, ok := last.(*tidewirev1.Unsubscribed); !ok {
		t.Errorf("the last frame is %T", last)
	}
}

// TestHardLimit ends a session whose client sends and never reads.
func TestHardLimit(t *testing.T) {
	w := newWorld(t, broker.Options{HardOutbound: 10_000})
	l := w.listen()
	for range 1000 {
		l.session.Unsubscribe(77)
	}
	for {
		frames, end := l.session.Take(nil)
		if end != nil {
			if end.Code != protocol.CodeSlowConnection {
				t.Errorf("ended with %v", end)
			}
			return
		}
		if len(frames) == 0 {
			t.Fatal("the session goes on")
		}
	}
}

// TestOrderOverRefusals pipelines over a refusal: what comes behind it is
// refused too, until the client repeats from there with resume.
func TestOrderOverRefusals(t *testing.T) {
	w := newWorld(t, broker.Options{})
	l := w.listen()
	send := func(ref uint32, resume bool) protocol.PublishResult {
		l.results = nil
		l.session.Publish(t.Context(), &protocol.Publish{Ref: ref, Resume: resume, Messages: []protocol.Message{{Topic: "a", Payload: []byte("x")}}})
		l.until(func() bool { return len(l.results) == 1 })
		return l.results[0]
	}
	if r := send(1, false); r.Err != nil {
		t.Fatal(r.Err)
	}
	w.log.Refuse(protocol.Errorf(protocol.CodeStorageFull, "full"))
	if r := send(2, false); r.Err == nil || r.Err.Code != protocol.CodeStorageFull {
		t.Fatalf("2: %v", r.Err)
	}
	w.log.Refuse(nil)
	if r := send(3, false); r.Err == nil || r.Err.Code != protocol.CodeOutOfOrder {
		t.Fatalf("3 must not be stored before 2: %v", r.Err)
	}
	if r := send(2, true); r.Err != nil {
		t.Fatalf("2 again: %v", r.Err)
	}
	if r := send(3, false); r.Err != nil {
		t.Fatalf("3 again: %v", r.Err)
	}
}

// TestRefreshTakesRightsAway: a token that allows less ends the subscriptions
// that it does not allow, and no others.
func TestRefreshTakesRightsAway(t *testing.T) {
	w := newWorld(t, broker.Options{})
	l := w.listen()
	l.subscribe(1, "a.x", "new")
	l.subscribe(2, "b.>", "new")
	l.take(10)
	only, _ := protocol.ParseFilter("a.>")
	l.session.SetIdentity(&broker.Identity{Subscribe: []protocol.Filter{only}})
	frames, _ := l.session.Take(nil)
	if len(frames) != 1 {
		t.Fatalf("%d frames", len(frames))
	}
	frame, err := protocol.Proto{}.DecodeServer(append(slices.Clone(frames[0].Head()), frames[0].Tail...))
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := frame.(*tidewirev1.Error); !ok || e.Sub != 2 || e.Code != string(protocol.CodeForbidden) {
		t.Fatalf("got %v", frame)
	}
	publisher := w.listen()
	for range 20 {
		w.publish(publisher)
	}
	l.take(100) // fails on a delivery of subscription 2
	if len(l.subs[1].got) == 0 || len(l.subs[2].got) != 0 {
		t.Errorf("got %d of the allowed, %d of the lost subscription", len(l.subs[1].got), len(l.subs[2].got))
	}
}
