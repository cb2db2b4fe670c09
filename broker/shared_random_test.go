package broker_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/cluster"
	"github.com/tidewire/tidewire/broker/cluster/clustertest"
	"github.com/tidewire/tidewire/broker/consumer"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// referee reads the control log as a node does, by itself, and holds what was decided against what
// was confirmed before.
type referee struct {
	t      *testing.T
	copies consumer.Copies
	acks   map[[2]uint64]uint64 // places, by boot and number of the ask
	done   map[uint64]bool      // places whose ack was confirmed
	grants int
}

func (*referee) Name() string { return "consumers" }

func (r *referee) Apply(s *cluster.State, at cluster.At, rec *clusterv1.Record) {
	switch x := rec.GetRecord().(type) {
	case *clusterv1.Record_ConsumerCreate:
		r.copies.Create(at.Index, x.ConsumerCreate.GetPlan())
	case *clusterv1.Record_ConsumerDelete:
		r.copies.Delete(x.ConsumerDelete.GetConsumer())
	case *clusterv1.Record_ConsumerJoin:
		j := x.ConsumerJoin
		if c := r.copies.Of(j.GetConsumer()); c != nil {
			r.copies.Join(at.Index, c, consumer.Member{
				Boot: at.Boot, Number: j.GetMember(), Window: j.GetWindow(), Session: j.GetSession(), Client: j.GetClient(), Subject: j.GetSubject(),
			}, j.GetAgain())
		}
	case *clusterv1.Record_ConsumerLeave:
		if c := r.copies.Of(x.ConsumerLeave.GetConsumer()); c != nil {
			c.Leave(at.Boot, x.ConsumerLeave.GetMember())
		}
	case *clusterv1.Record_ConsumerAsk:
		a := x.ConsumerAsk
		if a.GetSeek() != nil && r.copies.Of(a.GetConsumer()) != nil {
			r.copies.Draw(at.Index)
		}
		if a.GetSettle() != nil && a.GetSettle().GetKind() == 0 && a.GetSettle().GetConfirm() {
			first := a.GetSettle().GetRanges()[0]
			r.acks[[2]uint64{at.Boot, a.GetAsk()}] = consumer.PlaceIn(first.GetPartition(), first.GetFrom())
		}
	case *clusterv1.Record_ConsumerDecided:
		r.decided(s, at, x.ConsumerDecided)
	}
}

func (r *referee) decided(s *cluster.State, at cluster.At, d *clusterv1.ConsumerDecided) {
	c := r.copies.Of(d.GetConsumer())
	if c == nil {
		return
	}
	l, held := s.Lease(cluster.LeaseConsumer + c.Name())
	if !held || l.Boot != at.Boot || l.Generation != d.GetLease() {
		return
	}
	if !r.copies.Decided(c, d.GetLease(), d.GetStep(), d.GetDeltas()) {
		r.t.Errorf("index %d: a decision of who decides does not fit", at.Index)
		return
	}
	for _, g := range d.GetGrants() {
		for i, place := range g.GetPlaces() {
			r.grants++
			if e, ok := c.Entry(place); r.done[place] || ok && e.Attempts < int(g.GetAttempts()[i]) {
				r.t.Errorf("index %d: place %d is granted as attempt %d; confirmed: %v, entry %+v", at.Index, place, g.GetAttempts()[i], r.done[place], e)
			}
		}
	}
	for _, a := range d.GetAnswers() {
		if place, ok := r.acks[[2]uint64{a.GetBoot(), a.GetAsk()}]; ok && a.GetSettled() == 1 {
			r.done[place] = true
			if _, pending := c.Entry(place); pending {
				r.t.Errorf("index %d: place %d is confirmed and pending", at.Index, place)
			}
		}
	}
}

func (r *referee) Changed(_ *cluster.State, at cluster.At, e cluster.Event) {
	switch e.Kind {
	case cluster.Gone:
		for c := range r.copies.All() {
			c.Gone(e.Boot)
		}
	case cluster.Claimed:
		if c := r.copies.Get(strings.TrimPrefix(e.Name, cluster.LeaseConsumer)); c != nil && c.Name() != e.Name {
			r.copies.Claimed(at.Index, c, e.Generation)
		}
	default:
	}
}

func (r *referee) AppendState(b []byte) []byte { return r.copies.AppendState(b) }
func (r *referee) LoadState(b []byte) error    { return r.copies.LoadState(b) }

// judge replays the control log.
func (w *town) judge() (*referee, uint64) {
	w.t.Helper()
	r := &referee{t: w.t, acks: map[[2]uint64]uint64{}, done: map[uint64]bool{}}
	s := cluster.NewState(r)
	for i, value := range w.control.Values() {
		e, err := cluster.Decode(value)
		if err != nil {
			w.t.Fatal(err)
		}
		s.Apply(uint64(i+1), e)
	}
	return r, s.Index()
}

// labour is members on several nodes that do what comes to their mind.
type labour struct {
	*town
	rng     *rand.Rand
	workers []*worker
	number  int
	trims   int
	waits   sync.WaitGroup

	mu        sync.Mutex
	published map[string]bool
	got       map[string]int       // deliveries of each message
	acked     map[string]bool      // said so, confirmed or not
	confirmed map[string]time.Time // and when that was
	asked     map[uint32]string    // what acks were about
	trace     []string
}

func (l *labour) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trace = append(l.trace, fmt.Sprintf("%7.3f ", time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Seconds())+fmt.Sprintf(format, args...))
}

func (l *labour) next() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number++
	return l.number
}

// worker is a client that is a member of the consumer.
type worker struct {
	labour   *labour
	node     *townNode
	session  *broker.Session
	stopped  chan struct{}
	number   int
	diligent bool // acknowledges everything at once

	has []protocol.Message // under labour.mu
}

func (l *labour) hire(n *townNode, window uint32, diligent bool) *worker {
	h := &worker{labour: l, node: n, stopped: make(chan struct{}), number: l.next(), diligent: diligent}
	woken := make(chan struct{}, 1)
	h.session = n.broker.NewSession(broker.SessionOptions{Identity: workerIdentity, Codec: protocol.Proto{}, Wake: func() {
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
	two, five, twenty := uint32(4), uint64(5000), uint64(20)
	settings := &tidewirev1.ConsumerSettings{MaxDeliver: &two, AckWaitMs: &five, BackoffBaseMs: &twenty}
	l.waits.Go(func() {
		h.session.Subscribe(&tidewirev1.Subscribe{Sub: 1, Consumer: "w", Filter: "job.*", Window: window, Settings: settings})
	})
	l.workers = append(l.workers, h)
	return h
}

func (h *worker) frame(b []byte) {
	frame, err := protocol.Proto{}.DecodeServer(b)
	if err != nil {
		h.labour.t.Error(err)
	}
	l := h.labour
	switch f := frame.(type) {
	case *protocol.Deliver:
		for m, err := range f.Messages() {
			if err != nil {
				l.t.Error(err)
			}
			id := string(m.Payload)
			l.note("%d on %s gets %s (%v), attempt %d in generation %d", h.number, h.node.name, id, m.Position.Offset, m.Attempt, m.Generation)
			l.mu.Lock()
			l.got[id]++
			if at, ok := l.confirmed[id]; ok && time.Since(at) > 2500*time.Millisecond {
				l.t.Errorf("%s was confirmed %v ago and comes again", id, time.Since(at))
			}
			h.has = append(h.has, m)
			l.mu.Unlock()
			if h.diligent {
				h.settle(protocol.SettleAck, true, m)
			}
		}
	case *tidewirev1.Acked:
		l.mu.Lock()
		id := l.asked[f.Ref]
		if f.Error == nil && f.Settled == 1 && id != "" {
			l.confirmed[id] = time.Now()
		}
		l.mu.Unlock()
		l.note("%d is told of %s: %v", h.number, id, f)
	case *tidewirev1.Error:
		l.note("%d gets error %s", h.number, f.Code)
		if f.Code == "unknown_consumer" {
			l.t.Errorf("error %v", f)
		}
	}
}

func (h *worker) settle(kind protocol.SettleKind, confirm bool, m protocol.Message) {
	l := h.labour
	f := &protocol.Settle{Kind: kind, Sub: 1, Confirm: confirm, Term: m.Position.Term, Generation: m.Generation, Ranges: []protocol.OffsetRange{{Partition: m.Position.Partition, From: m.Position.Offset, Through: m.Position.Offset}}}
	f.Ref = uint32(l.next())
	l.mu.Lock()
	if kind == protocol.SettleAck {
		l.acked[string(m.Payload)] = true
		if confirm {
			l.asked[f.Ref] = string(m.Payload)
		}
	}
	l.mu.Unlock()
	l.note("%d says %s to %s, confirm %v", h.number, kind, m.Payload, confirm)
	h.session.Settle(f)
}

func (h *worker) leave(bye bool) {
	l := h.labour
	l.note("%d leaves, bye %v", h.number, bye)
	if bye {
		h.session.Unsubscribe(1)
	}
	close(h.stopped)
	h.session.Close()
	l.workers = slices.DeleteFunc(l.workers, func(o *worker) bool { return o == h })
}

// work does something to what a worker has.
func (l *labour) work() {
	if len(l.workers) == 0 {
		return
	}
	h := l.workers[l.rng.IntN(len(l.workers))]
	l.mu.Lock()
	has := h.has
	h.has = nil
	l.mu.Unlock()
	for _, m := range has {
		switch l.rng.IntN(10) {
		case 0:
			h.settle(protocol.SettleNack, l.rng.IntN(2) == 0, m)
		case 1:
			h.settle(protocol.SettleExtend, false, m)
			l.mu.Lock()
			h.has = append(h.has, m)
			l.mu.Unlock()
		case 2:
			if l.rng.IntN(3) == 0 {
				h.settle(protocol.SettleReject, l.rng.IntN(2) == 0, m)
			}
		case 3: // forgotten
		case 4:
			h.settle(protocol.SettleAck, false, m)
		default:
			h.settle(protocol.SettleAck, true, m)
		}
	}
}

func (l *labour) publish() {
	n := l.nodes[l.rng.IntN(len(l.nodes))]
	for range 1 + l.rng.IntN(5) {
		m := protocol.Message{Topic: "job." + string(rune('a'+l.rng.IntN(3))), Payload: fmt.Appendf(nil, "m%d", l.next())}
		if l.rng.IntN(2) == 0 {
			m.Key = string(rune('k' + l.rng.IntN(3)))
		}
		l.mu.Lock()
		l.published[string(m.Payload)] = true
		l.mu.Unlock()
		l.waits.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, _ = n.broker.Publish(ctx, workerIdentity, &m, 0)
		})
	}
}

func (l *labour) faulty(n *townNode) {
	seed := l.rng.Uint64()
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 9))
	for _, f := range n.logs {
		f.Delay(func() time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return time.Duration(rng.IntN(40)) * time.Millisecond
		})
	}
	n.way.SetFaults(clustertest.Faults{
		Write: 30 * time.Millisecond, Answer: 30 * time.Millisecond, Read: 30 * time.Millisecond,
		Repeat: 0.1, RepeatAfter: 3 * time.Second,
	})
}

// mishap has something happen to a node, and reports whether it did.
func (l *labour) mishap() {
	i := l.rng.IntN(len(l.nodes))
	n := l.nodes[i]
	switch l.rng.IntN(4) {
	case 0:
		l.note("%s crashes", n.name)
		n.crash()
		for _, h := range slices.Clone(l.workers) {
			if h.node == n {
				h.leave(false)
			}
		}
		time.Sleep(time.Duration(l.rng.IntN(6000)) * time.Millisecond)
		l.trim()
		l.note("%s starts", n.name)
		l.nodes[i] = l.start(n.name)
		l.faulty(l.nodes[i])
	case 1:
		l.note("%s stops", n.name)
		for _, h := range slices.Clone(l.workers) {
			if h.node == n {
				h.leave(false)
			}
		}
		n.stop()
		l.trim()
		l.nodes[i] = l.start(n.name)
		l.faulty(l.nodes[i])
	case 2:
		l.note("%s is cut off", n.name)
		n.cut(true)
		off := time.Duration(500+l.rng.IntN(9000)) * time.Millisecond
		l.waits.Go(func() {
			time.Sleep(off)
			l.note("%s is back", n.name)
			n.cut(false)
		})
	default:
		l.note("the control log is away")
		l.control.Away(true)
		time.Sleep(time.Duration(l.rng.IntN(5000)) * time.Millisecond)
		l.control.Away(false)
		l.note("the control log is back")
	}
}

// trim removes what nobody needs to start with.
func (l *labour) trim() {
	var checkpoint uint64
	for _, n := range l.nodes {
		n.node.View(func(s *cluster.State) { checkpoint = max(checkpoint, s.Checkpoint()) })
	}
	if checkpoint > 0 && l.rng.IntN(2) == 0 {
		l.note("the control log begins at %d", checkpoint)
		for _, n := range l.nodes { // nobody is so far behind
			n.cut(false)
		}
		time.Sleep(5 * time.Second)
		l.control.Trim(checkpoint)
		l.trims++
	}
}

// manage has an operator do something on some node.
func (l *labour) manage() {
	n := l.nodes[l.rng.IntN(len(l.nodes))]
	what := l.rng.IntN(4)
	l.waits.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		switch what {
		case 0:
			_, err := n.broker.PauseConsumer(ctx, "w", true)
			l.note("paused on %s: %v", n.name, err)
			time.Sleep(time.Second)
			_, err = n.broker.PauseConsumer(ctx, "w", false)
			l.note("resumed on %s: %v", n.name, err)
		case 1:
			seven := uint32(7)
			_, _, err := n.broker.PutConsumer(ctx, "w", &broker.ConsumerRequest{Settings: &tidewirev1.ConsumerSettings{MaxWaiting: &seven}})
			l.note("changed on %s: %v", n.name, err)
		default:
			r, err := n.broker.Fetch(ctx, workerIdentity, "w", &broker.FetchRequest{Max: 3, Wait: time.Second})
			l.note("fetched on %s: %d chunks, %v", n.name, len(r.Chunks), err)
			for _, c := range r.Chunks {
				l.fetched(ctx, n, &c)
			}
		}
	})
}

// fetched acknowledges what came by HTTP, on the node where it came.
func (l *labour) fetched(ctx context.Context, n *townNode, c *protocol.Chunk) {
	for m, err := range c.Messages() {
		if err != nil {
			l.t.Error(err)
		}
		id := string(m.Payload)
		l.mu.Lock()
		l.got[id]++
		l.acked[id] = true
		l.mu.Unlock()
		f := &protocol.Settle{Kind: protocol.SettleAck, Term: c.Term, Generation: c.Generation, Ranges: []protocol.OffsetRange{{Partition: m.Position.Partition, From: m.Position.Offset, Through: m.Position.Offset}}}
		settled, refused, perr := n.broker.Settle(ctx, workerIdentity, "w", []*protocol.Settle{f})
		l.note("fetched %s, settled %d, refused %v, %v", id, settled, refused, perr)
		if settled == 1 && perr == nil {
			l.mu.Lock()
			l.confirmed[id] = time.Now()
			l.mu.Unlock()
		}
	}
}

func (l *labour) step() {
	switch l.rng.IntN(22) {
	case 20, 21:
		l.manage()
	case 0, 1, 2, 3:
		l.publish()
	case 4, 5:
		if len(l.workers) < 6 {
			n := l.nodes[l.rng.IntN(len(l.nodes))]
			h := l.hire(n, uint32(1+l.rng.IntN(5)), false)
			l.note("%d joins on %s", h.number, n.name)
		}
	case 6:
		if len(l.workers) > 0 {
			l.workers[l.rng.IntN(len(l.workers))].leave(l.rng.IntN(2) == 0)
		}
	case 7:
		l.mishap()
	default:
		l.work()
	}
	time.Sleep(time.Duration(l.rng.IntN(300)) * time.Millisecond)
}

// finish lets everything come to rest, with one worker who does what there is.
func (l *labour) finish() {
	l.note("finish")
	l.waits.Wait()
	_, _ = l.nodes[0].broker.PauseConsumer(l.t.Context(), "w", false)
	for _, h := range slices.Clone(l.workers) {
		h.leave(false)
	}
	l.hire(l.nodes[l.rng.IntN(len(l.nodes))], 0, true)
	time.Sleep(40 * time.Second)
	synctest.Wait()
}

// letters counts the dead letters that are stored, by their message.
func (l *labour) letters() map[string]int {
	all, _ := protocol.ParseFilter("$dead.w")
	counts := map[string]int{}
	log := l.nodes[0].logs[len(l.nodes[0].logs)-1]
	for cursor := uint64(0); ; {
		c, err := log.Read(storage.Query{Filter: all, After: cursor})
		if err != nil {
			l.t.Fatal(err)
		}
		for m, err := range c.Messages() {
			if err != nil {
				l.t.Error(err)
			}
			counts[string(m.Payload)]++
		}
		if c.Through == cursor {
			return counts
		}
		cursor = c.Through
	}
}

func (l *labour) check() {
	letters := l.letters()
	for _, id := range slices.Sorted(maps.Keys(l.published)) {
		_, confirmed := l.confirmed[id]
		switch {
		case letters[id] > 1:
			l.t.Errorf("%s has %d dead letters", id, letters[id])
		case letters[id] == 1 && confirmed:
			l.t.Errorf("%s was confirmed and is dead", id)
		case letters[id] == 0 && !l.acked[id]:
			l.t.Errorf("%s was delivered %d times, and nobody has done it", id, l.got[id])
		}
	}
	for _, n := range l.nodes {
		if i := n.info(); i.InFlight+i.Waiting+i.Held != 0 || i.Lag != 0 || i.Dead != len(letters) || len(i.Members) != 1 {
			l.t.Errorf("%s: %d letters, info %+v", n.name, len(letters), i)
		}
	}
	l.same(l.nodes...)
	r, _ := l.judge()
	if !slices.Equal(r.AppendState(nil), l.nodes[0].part.AppendState(nil)) {
		l.t.Errorf("the referee reads another state in the log")
	}
	for place := range r.done {
		if _, pending := r.copies.Get("w").Entry(place); pending {
			l.t.Errorf("place %d was confirmed and is pending", place)
		}
	}
	if r.grants == 0 && len(l.published) > 0 {
		l.t.Error("nothing was granted")
	}
}

func TestSharedRandom(t *testing.T) {
	base, trims := seed(t), 0
	for i := range uint64(30) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &labour{
					town: newTownOf(t, 3, 1+2*int(i%2)), rng: rand.New(rand.NewPCG(base, i)), published: map[string]bool{}, got: map[string]int{},
					acked: map[string]bool{}, confirmed: map[string]time.Time{}, asked: map[uint32]string{},
				}
				for _, n := range l.nodes {
					l.faulty(n)
				}
				for range 100 {
					l.step()
				}
				l.finish()
				l.check()
				trims += l.trims
				if t.Failed() {
					t.Log(strings.Join(l.trace, "\n"))
				}
				for _, h := range slices.Clone(l.workers) {
					h.leave(false)
				}
			})
		})
	}
	if trims == 0 {
		t.Error("no node has started with a checkpoint")
	}
}
