package broker_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/broker"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// wished is what a place has beside its filter, and what the test counts for it
// on the connection of the moment.
type wished struct {
	credit   *uint32 // given with each subscribe
	slow     string
	every    uint32
	noEcho   bool
	heads    []uint64 // of the log, when it last began with last-per-topic
	balance  int64    // of the credit
	standing bool     // CaughtUp has come
	atMost   int      // ephemeral messages since the subscribe
	atLeast  int      // ephemeral messages since CaughtUp
	heard    int      // ephemeral messages that came, and those that were told as missed
	missed   int
}

// request asks for the place, on a new connection.
func (p *place) request(n uint32) *tidewirev1.Subscribe {
	r := &tidewirev1.Subscribe{Sub: n, Filter: p.filter.String(), From: p.from, Credit: p.credit, Slow: p.slow, ConflateMs: p.every}
	if p.noEcho {
		r.Echo = new(false)
	}
	p.begun()
	p.hides.asked(p)
	if p.credit != nil {
		p.balance = int64(*p.credit)
	}
	return r
}

// begun forgets what was counted on the connection before.
func (p *place) begun() {
	p.standing, p.atMost, p.atLeast, p.heard, p.missed = false, 0, 0, 0, 0
}

// charge takes the cost of a frame: it may overdraw the credit, but not come
// without any. Ephemeral messages are counted.
func (p *place) charge(l *listener, f *protocol.Deliver) {
	if p.credit != nil && p.balance <= 0 {
		l.w.t.Fatalf("filter %s: a frame of %d bytes without credit, %d", p.filter, l.size, p.balance)
	}
	p.balance -= int64(l.size)
	for m, err := range f.Messages() {
		if err != nil {
			l.w.t.Fatal(err)
		}
		by := l.w.by[string(m.Payload)]
		if p.noEcho && by == l.session {
			l.w.t.Fatalf("filter %s: its own %q came", p.filter, m.Payload)
		}
		if m.Ephemeral != f.Ephemeral() || m.Ephemeral == !m.Position.IsZero() {
			l.w.t.Fatalf("%+v in a frame with term %v", m, f.Term)
		}
		if m.Ephemeral {
			p.heard++
		}
		if l.w.dead[string(m.Payload)] {
			l.w.t.Fatalf("filter %s: the expired %q came", p.filter, m.Payload)
		}
	}
}

func (p *place) tellMissed(t *testing.T, f *tidewirev1.Gap) {
	if cursor := p.cursor[f.Partition]; f.After != cursor || f.Through != cursor || f.Offset != cursor || f.Missed == 0 || f.Position != p.vector(f.Term) {
		t.Fatalf("filter %s: the gap %v moves the cursor %d", p.filter, f, p.cursor)
	}
	p.heard += int(f.Missed)
	p.missed += int(f.Missed)
}

// mayMiss reports whether a stored message need not come: because of what was
// wished, or because it may have expired. newest has that of each topic.
func (p *place) mayMiss(w *world, s stored, newest map[string]uint64) bool {
	if p.noEcho && w.by[s.payload] != nil || !w.expires[s.payload].IsZero() || p.gone(s) {
		return true
	}
	return (p.slow == "conflate" || p.heads != nil && s.offset <= p.heads[s.partition]) && s.offset < newest[s.topic]
}

// checkWished compares what came with what was stored: all of it is of the log,
// in order, and what must come has come.
func (p *place) checkWished(t *testing.T, w *world) {
	t.Helper()
	all, newest, came := map[stored]bool{}, map[string]uint64{}, map[stored]bool{}
	for _, s := range w.stored {
		all[s], newest[s.topic] = true, s.offset
	}
	for i, s := range p.got {
		came[s] = true
		behind := func(other stored) bool { return other.partition == s.partition && other.offset >= s.offset }
		if slices.ContainsFunc(p.got[max(0, i-100):i], behind) || !all[s] || !p.filter.Match(s.topic) {
			t.Fatalf("filter %s: %v came behind %v", p.filter, s, p.got[:i])
		}
	}
	for _, s := range w.stored {
		if s.offset > p.start[s.partition] && p.filter.Match(s.topic) && !came[s] && !p.mayMiss(w, s, newest) {
			t.Fatalf("filter %s from %d, %s: %v did not come, got %v", p.filter, p.start, p.slow, s, p.got)
		}
	}
	if p.heard < p.atLeast || p.heard > p.atMost {
		t.Fatalf("filter %s: %d ephemeral messages came or were told as missed, there were %d to %d", p.filter, p.heard, p.atLeast, p.atMost)
	}
}

// publishWished publishes one message of some kind through a listener.
func (w *world) publishWished(l *listener) {
	w.published++
	m := protocol.Message{Topic: modelTopics[w.rng.IntN(len(modelTopics))], Payload: fmt.Appendf(nil, "%d %0*d", w.published, w.rng.IntN(300), 0)}
	text := string(m.Payload)
	switch w.rng.IntN(8) {
	case 0:
		m.ExpiresAt = time.Now().Add(-time.Second)
		w.dead[text] = true
	case 1:
		m.ExpiresAt = time.Now().Add(time.Duration(1+w.rng.IntN(60)) * time.Millisecond)
	case 2, 3:
		m.Ephemeral = true
	}
	w.expires[text] = m.ExpiresAt
	for _, p := range l.subs {
		if p.noEcho { // the session has its mark
			w.by[text] = l.session
		}
	}
	if m.Ephemeral {
		w.count(&m, text)
	}
	before := w.heads()
	l.results = nil
	session := l.session
	session.Publish(w.t.Context(), &protocol.Publish{Ref: 1, Messages: []protocol.Message{m}})
	// A session that is disconnected meanwhile gets no answer.
	l.until(func() bool { return len(l.results) > 0 || l.session != session })
	if m.Ephemeral {
		return
	}
	synctest.Wait()
	partition := protocol.Partition(m.Topic, len(w.logs))
	head := head(w.logs[partition])
	if head == before[partition] && l.session != session {
		return // the session had ended
	}
	if head != before[partition]+1 {
		w.t.Fatalf("%d messages were stored", head-before[partition])
	}
	w.stored = append(w.stored, stored{m.Topic, text, uint32(partition), head})
}

// count notes an ephemeral message for all who stand or may stand.
func (w *world) count(m *protocol.Message, text string) {
	for _, l := range w.everybody {
		for _, p := range l.subs {
			if !p.filter.Match(m.Topic) || p.noEcho && w.by[text] == l.session {
				continue
			}
			p.atMost++
			if p.standing {
				p.atLeast++
			}
		}
	}
}

// subscribeWished begins a subscription with random wishes.
func (l *listener) subscribeWished(n uint32, filter string) {
	w := l.w
	f, _ := protocol.ParseFilter(filter)
	p := &place{filter: f, from: []string{"new", "earliest", "last:3", "last-per-topic"}[w.rng.IntN(4)]}
	p.noEcho = w.rng.IntN(3) == 0
	p.slow = []string{"", "catch_up", "conflate", "conflate", "disconnect"}[w.rng.IntN(5)]
	if p.slow == "conflate" && w.rng.IntN(2) == 0 {
		p.every = uint32(1 + w.rng.IntN(40))
	}
	if p.slow != "disconnect" && w.rng.IntN(2) == 0 {
		p.credit = new(uint32(w.rng.IntN(800)))
	}
	if p.from == "last-per-topic" {
		p.heads = w.heads()
	}
	l.subs[n] = p
	l.session.Subscribe(p.request(n))
}

func (l *listener) grant(most int) {
	for n, p := range l.subs {
		if p.credit != nil {
			more := uint32(1 + l.w.rng.IntN(most))
			p.balance += int64(more)
			l.session.Flow(&tidewirev1.Flow{Sub: n, Credit: more})
		}
	}
}

// TestModelOfWishes is TestModel with credit, slow policies, last-per-topic,
// expiry, ephemeral messages and subscriptions without echo, all at random.
func TestModelOfWishes(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprintf("partitions=%d", n), func(t *testing.T) { testModelOfWishes(t, n) })
	}
}

func testModelOfWishes(t *testing.T, partitions int) {
	seed := seed(t) // by the real clock
	synctest.Test(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		w := newParted(t, broker.Options{SoftOutbound: 1500, Registerer: metrics}, seed, partitions)
		for range 3 {
			l := w.listen()
			l.forgiving = true
			w.everybody = append(w.everybody, l)
		}
		filters := []string{"a.x", "a.*", ">", "*.x", "b.>", "c", "nothing"}
		next := uint32(0)
		steps := 3000
		if os.Getenv("TIDEWIRE_SOAK") != "" {
			steps = 100_000
		}
		for range steps {
			l := w.everybody[w.rng.IntN(len(w.everybody))]
			switch w.rng.IntN(16) {
			case 0, 1, 2, 3, 4:
				w.publishWished(l)
			case 5:
				if len(l.subs) < 10 {
					next++
					l.subscribeWished(next, filters[w.rng.IntN(len(filters))])
				}
			case 6:
				if w.rng.IntN(3) == 0 {
					l.reconnect()
				}
			case 7:
				l.session.Progress()
			case 8:
				if w.rng.IntN(20) == 0 {
					log := w.logs[w.rng.IntN(partitions)]
					log.Trim(uint64(w.rng.IntN(int(head(log)) + 1)))
				}
			case 9:
				l.grant(1500)
			case 10:
				time.Sleep(time.Duration(w.rng.IntN(30)) * time.Millisecond)
			default:
				l.take(1 + w.rng.IntN(3))
			}
		}
		heads := w.heads()
		missed := 0
		for _, l := range w.everybody {
			l.until(func() bool {
				l.grant(100_000)
				l.session.Progress()
				for _, p := range l.subs {
					if !p.standing || p.behindAny(heads) {
						return false
					}
				}
				return true
			})
			synctest.Wait()
			l.take(100) // what was missed is told behind
			for _, p := range l.subs {
				p.checkWished(t, w)
				missed += p.missed
			}
		}
		for _, l := range w.everybody {
			l.session.Close()
		}
		checkCounted(t, metrics)
		t.Logf("%d stored, %d ephemeral messages told as missed on the last connections", len(w.stored), missed)
	})
}

// checkCounted compares the metrics with what must hold when everybody has left.
func checkCounted(t *testing.T, metrics *prometheus.Registry) {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range families {
		m := f.GetMetric()[0]
		switch f.GetName() {
		case "tidewire_subscriptions", "tidewire_subscriptions_behind", "tidewire_sessions":
			if v := m.GetGauge().GetValue(); v != 0 {
				t.Errorf("%s is %v with nobody there", f.GetName(), v)
			}
			seen++
		case "tidewire_left_out_total":
			if n := len(f.GetMetric()); n != 3 {
				t.Errorf("%d reasons to leave something out: %v", n, f)
			}
			seen++
		case "tidewire_subscription_fallbacks_total":
			for _, m := range f.GetMetric() {
				if reason := m.GetLabel()[0].GetValue(); m.GetCounter().GetValue() == 0 && reason != "disconnect" {
					t.Errorf("%s is 0 for the reason %s", f.GetName(), reason)
				}
			}
			seen++
		case "tidewire_published_ephemeral_total":
			if m.GetCounter().GetValue() == 0 {
				t.Errorf("%s is 0", f.GetName())
			}
			seen++
		case "tidewire_delivery_seconds":
			if m.GetHistogram().GetSampleCount() == 0 {
				t.Errorf("%s has no sample", f.GetName())
			}
			seen++
		}
	}
	if seen != 7 {
		t.Errorf("%d of 7 metrics are there", seen)
	}
}

// TestConcurrentWishes lets everybody work at the same time, by the real clock:
// stored and ephemeral messages are published while conflated subscriptions rest
// and wake, credit comes late, and subscriptions come and go.
func TestConcurrentWishes(t *testing.T) {
	w := newWorld(t, broker.Options{SoftOutbound: 3000})
	stop := make(chan struct{})
	var publishing, listening sync.WaitGroup
	publisher, rng := w.listen(), rand.New(rand.NewPCG(w.rng.Uint64(), 1))
	publishing.Go(func() {
		for len(w.stored) < 20_000 { // more is only more work
			select {
			case <-stop:
				return
			default:
				w.publishWith(publisher, rng)
				m := protocol.Message{Topic: "a.x", Payload: []byte("now"), Ephemeral: true}
				_, _ = w.broker.Publish(t.Context(), anybody, &m, 0)
			}
		}
	})
	for range 5 {
		l, rng := w.listen(), rand.New(rand.NewPCG(w.rng.Uint64(), 2))
		w.everybody = append(w.everybody, l)
		listening.Go(func() { l.wishfully(rng) })
	}
	listening.Wait()
	close(stop)
	publishing.Wait()
	heads := w.heads()
	for _, l := range w.everybody {
		l.until(func() bool {
			l.feed(100_000)
			l.session.Progress()
			for _, p := range l.subs {
				if p.behindAny(heads) {
					return false
				}
			}
			return true
		})
		for _, p := range l.subs {
			p.atMost = math.MaxInt // its messages are counted by TestModelOfWishes
			p.checkWished(t, w)
		}
	}
}

// wishfully does this and that with subscriptions of all kinds.
func (l *listener) wishfully(rng *rand.Rand) {
	next := uint32(0)
	for range 400 {
		switch rng.IntN(9) {
		case 0:
			l.reconnect()
		case 1, 2:
			next++
			filter, _ := protocol.ParseFilter([]string{"a.x", "a.*", ">", "b.>"}[rng.IntN(4)])
			p := &place{filter: filter, from: []string{"new", "earliest", "last:5"}[rng.IntN(3)]}
			switch rng.IntN(3) {
			case 0:
				p.slow = "conflate"
				p.every = uint32(rng.IntN(4))
			case 1:
				p.credit = new(uint32(rng.IntN(500)))
			}
			l.subs[next] = p
			l.session.Subscribe(p.request(next))
		case 3:
			for n := range l.subs {
				l.unsubscribe(n)
				break
			}
		case 4:
			l.session.Progress()
		case 5:
			l.feed(2000)
		default:
			l.take(1 + rng.IntN(5))
		}
	}
}

// feed gives credit to all that have some.
func (l *listener) feed(bytes uint32) {
	for n, p := range l.subs {
		if p.credit != nil {
			p.balance += int64(bytes)
			l.session.Flow(&tidewirev1.Flow{Sub: n, Credit: bytes})
		}
	}
}
