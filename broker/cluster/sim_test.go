package cluster_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tidewire/tidewire/broker/cluster"
	"github.com/tidewire/tidewire/broker/cluster/clustertest"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

// TestSimulation runs real nodes over a log in memory: they start, crash, freeze and come back, the
// log is away, writers' repeats come late, checkpoints are written and
// what is before them goes. SEED repeats a run as well as goroutines allow.
func TestSimulation(t *testing.T) {
	runs, start := 20, time.Now()
	soak, _ := time.ParseDuration(os.Getenv("TIDEWIRE_SOAK"))
	if testing.Short() {
		runs = 8
	}
	first := seed(t)
	var all tally
	for i := 0; i < runs || time.Since(start) < soak; i++ {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t, first+uint64(i))
			s.run()
			all.add(&s.tally)
			if t.Failed() {
				t.Logf("SEED=%d", s.seed)
			}
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%+v", all)
	for name, n := range map[string]int{
		"expired": all.expired, "replaced": all.replaced, "fenced": all.fenced, "void records": all.void,
		"repeats": all.repeats, "checkpoints": all.checkpoints, "starts from a checkpoint": all.late,
	} {
		if n == 0 {
			t.Errorf("the runs had no case of: %s", name)
		}
	}
}

func seed(t *testing.T) uint64 {
	t.Helper()
	n := rand.Uint64()
	if s := os.Getenv("SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SEED=%d", n)
	return n
}

// tally counts what the runs had.
type tally struct {
	expired, replaced, fenced, acted, void, repeats, checkpoints, late int
}

func (a *tally) add(b *tally) {
	a.expired += b.expired
	a.replaced += b.replaced
	a.fenced += b.fenced
	a.acted += b.acted
	a.void += b.void
	a.repeats += b.repeats
	a.checkpoints += b.checkpoints
	a.late += b.late
}

// sim is one run.
type sim struct {
	t    *testing.T
	seed uint64
	rng  *rand.Rand
	log  *clustertest.Log
	way  clustertest.Faults

	slots [4]*simNode // by name, nil if none runs
	ways  []*clustertest.Way

	mu     sync.Mutex
	active map[string]string // who acts by each lease
	ill    map[uint64]bool   // boots that were frozen or crashed: they may be expired
	at     map[uint64][]byte // samples of states by index
	tally
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), log: clustertest.New(),
		active: make(map[string]string), ill: make(map[uint64]bool), at: make(map[uint64][]byte),
	}
	ms := func(n int) time.Duration { return time.Duration(s.rng.IntN(n)+1) * time.Millisecond }
	s.way = clustertest.Faults{
		Write: ms(150), Answer: ms(150), Read: ms(150), Recover: ms(900),
		Repeat: s.rng.Float64() / 4, RepeatAfter: ms(20_000),
	}
	return s
}

// simNode is one process.
type simNode struct {
	*cluster.Node
	part   *tape
	way    *clustertest.Way
	stop   context.CancelFunc
	work   sync.WaitGroup
	frozen bool
	ended  chan struct{}
	err    error // once it has ended
}

func (s *sim) chance(percent int) bool { return s.rng.IntN(100) < percent }

func (s *sim) run() {
	for range 2 + s.rng.IntN(3) {
		s.start(s.rng.IntN(len(s.slots)))
	}
	for range 40 {
		time.Sleep(time.Duration(s.rng.IntN(3000)) * time.Millisecond)
		s.act()
	}
	for _, n := range s.slots {
		if n != nil && n.frozen {
			s.freeze(n, false)
		}
	}
	time.Sleep(3 * time.Second)
	for i := range s.slots {
		s.bury(i)
		s.start(i)
	}
	time.Sleep(30 * time.Second)
	s.settled()
	for _, n := range s.slots {
		n.stop()
		n.work.Wait()
	}
	for _, w := range s.ways {
		w.Wait()
	}
	s.replay()
}

func (s *sim) act() {
	i := s.rng.IntN(len(s.slots))
	s.bury(i)
	n := s.slots[i]
	switch p := s.rng.IntN(100); {
	case n == nil:
		s.start(i)
	case p < 12:
		s.crash(i)
		if s.chance(50) { // at once, before anybody has noticed
			s.start(i)
		}
	case p < 20 && !n.frozen:
		s.excuse(n) // its goodbye may come too late
		n.stop()
		n.work.Wait()
		s.slots[i] = nil
	case p < 50:
		s.freeze(n, !n.frozen)
	case p < 60:
		s.log.Away(true)
		time.Sleep(time.Duration(s.rng.IntN(20_000)) * time.Millisecond)
		s.log.Away(false)
	case p < 70:
		n.View(func(st *cluster.State) { s.log.Trim(st.Checkpoint()) })
	default:
		n.View(func(st *cluster.State) { s.sample(st) })
	}
}

func (s *sim) start(i int) {
	if s.slots[i] != nil {
		return
	}
	way := s.log.Way(s.rng.Uint64())
	way.SetFaults(s.way)
	s.ways = append(s.ways, way)
	n := &simNode{way: way, ended: make(chan struct{}), part: &tape{sim: s}}
	var err error
	boots := rand.New(rand.NewPCG(s.rng.Uint64(), 0))
	n.Node, err = cluster.New(cluster.Options{
		Name: fmt.Sprint("n", i), Version: 1, Log: way, Parts: []cluster.Part{n.part}, Boot: boots.Uint64,
		CheckpointEvery: time.Duration(5+s.rng.IntN(20)) * time.Second,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	n.part.node = n.Node
	ctx, cancel := context.WithCancel(s.t.Context())
	n.stop = cancel
	n.work.Go(func() {
		defer close(n.ended)
		n.err = n.Run(ctx)
	})
	for _, lease := range []string{"x", "y"} {
		n.work.Go(func() { n.Hold(ctx, lease, func(ctx context.Context, g uint64) { s.hold(ctx, n, lease, g) }) })
	}
	n.work.Go(func() { n.part.count(ctx) })
	s.slots[i] = n
}

// bury takes a node away that has ended because it was frozen until its place in the log was gone.
func (s *sim) bury(i int) {
	n := s.slots[i]
	if n == nil {
		return
	}
	select {
	case <-n.ended:
	default:
		return
	}
	if !errors.Is(n.err, cluster.ErrGone) {
		s.t.Errorf("node %d has ended: %v", i, n.err)
	}
	n.stop()
	n.work.Wait()
	s.slots[i] = nil
}

// crash ends a process without a word; what it had under way may come late.
func (s *sim) crash(i int) {
	n := s.slots[i]
	s.slots[i] = nil
	s.freeze(n, true)
	n.stop()
	n.work.Wait()
	if s.chance(50) {
		time.Sleep(time.Duration(s.rng.IntN(5000)) * time.Millisecond)
	}
	n.way.Stall(false)
}

// freeze cuts a node off, or lets it go on.
func (s *sim) freeze(n *simNode, frozen bool) {
	n.frozen = frozen
	s.excuse(n)
	n.way.Stall(frozen)
}

func (s *sim) excuse(n *simNode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ill[n.Boot()] = true
}

// hold acts by a lease, and sees that nobody else does.
func (s *sim) hold(ctx context.Context, n *simNode, lease string, generation uint64) {
	s.mu.Lock()
	if other := s.active[lease]; other != "" {
		s.t.Errorf("%s acts by lease %s while %s does", n.part.name(), lease, other)
	}
	s.active[lease] = n.part.name()
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.active[lease] = ""
		s.mu.Unlock()
	}()
	pause := time.NewTicker(330 * time.Millisecond)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
			n.part.write(kindAct, generation, lease)
		case <-ctx.Done():
			return
		}
	}
}

// sample notes the state at an index, or compares it with what another node has there.
func (s *sim) sample(st *cluster.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := st.AppendState(nil)
	if other, known := s.at[st.Index()]; known && !bytes.Equal(b, other) {
		s.t.Errorf("two nodes have other states at index %d", st.Index())
	}
	s.at[st.Index()] = b
}

// settled checks the cluster after nothing has happened for a while.
func (s *sim) settled() {
	for i, n := range s.slots {
		if st := n.Status(); !st.Live || !st.Joined {
			s.t.Errorf("node %d has not recovered: %+v", i, st)
		}
		n.View(func(st *cluster.State) {
			if len(st.Nodes()) != len(s.slots) {
				s.t.Errorf("node %d knows %d nodes", i, len(st.Nodes()))
			}
			for _, lease := range []string{"x", "y", cluster.LeaseCheckpoint} {
				if _, held := st.Lease(lease); !held {
					s.t.Errorf("nobody holds %s", lease)
				}
			}
			s.sample(st)
		})
	}
}

// replay compares what the nodes had with what the whole log gives.
func (s *sim) replay() {
	part := &tape{sim: s, judge: true}
	st := cluster.NewState(part)
	seen := make(map[string]bool)
	for i, value := range s.log.Values() {
		e, err := cluster.Decode(value)
		if err != nil {
			s.t.Fatal(err)
		}
		if seen[string(value)] {
			s.repeats++
		} else {
			for _, rec := range e.GetRecords() {
				if kind, _, _ := untaped(rec); kind == kindAct {
					s.fenced++ // unless it is found to hold
				}
			}
		}
		seen[string(value)] = true
		for _, event := range st.Apply(uint64(i+1), e) {
			s.event(event)
		}
		if b, known := s.at[uint64(i+1)]; known && !bytes.Equal(b, st.AppendState(nil)) {
			s.t.Errorf("a node had another state at index %d than the log gives", i+1)
		}
	}
	s.fenced -= s.acted
}

func (s *sim) event(e cluster.Event) {
	switch {
	case e.Kind == cluster.Gone && e.Reason == cluster.Expired:
		s.expired++
		if !s.ill[e.Boot] {
			s.t.Errorf("node %s was expired and had nothing", e.Name)
		}
	case e.Kind == cluster.Gone && e.Reason == cluster.Replaced:
		s.replaced++
	case e.Kind == cluster.CheckpointEnded:
		s.checkpoints++
	}
}

// Kinds of records of a tape.
const (
	kindCount = iota + 1 // the next number of its boot
	kindAct              // something done by a lease
)

// tape is a part that follows the log: it sums up everything that it is told, in its order.
type tape struct {
	sim   *sim
	node  *cluster.Node
	judge bool

	mu   sync.Mutex
	sum  uint64
	last map[uint64]uint64 // the last number that was counted, by boot
	boot uint64            // with which next counts
	next uint64
}

func (p *tape) name() string { return fmt.Sprintf("%x", p.node.Boot()) }

// count writes the numbers from 1 on, for each boot anew.
func (p *tape) count(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.mu.Lock()
			if p.boot != 0 {
				p.next++
				p.put(kindCount, p.next, "")
			}
			p.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

func (p *tape) write(kind, number uint64, lease string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.put(kind, number, lease)
}

func (p *tape) put(kind, number uint64, lease string) {
	switch err := p.node.Write(taped(kind, number, lease)); {
	case err == nil:
	case !errors.Is(err, cluster.ErrAway):
		p.sim.t.Error(err)
	case kind == kindCount:
		p.next--
	}
}

// taped is a record that the state does not know.
func taped(kind, number uint64, lease string) *clusterv1.Record {
	body := protowire.AppendVarint(protowire.AppendVarint(nil, kind), number)
	rec := new(clusterv1.Record)
	rec.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), append(body, lease...)))
	return rec
}

func untaped(rec *clusterv1.Record) (kind, number uint64, lease string) {
	_, _, n := protowire.ConsumeTag(rec.ProtoReflect().GetUnknown())
	if n < 0 {
		return 0, 0, ""
	}
	b, _ := protowire.ConsumeBytes(rec.ProtoReflect().GetUnknown()[n:])
	kind, n = protowire.ConsumeVarint(b)
	number, m := protowire.ConsumeVarint(b[n:])
	return kind, number, string(b[n+m:])
}

func (p *tape) Name() string { return "tape" }

func (p *tape) Apply(s *cluster.State, at cluster.At, rec *clusterv1.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kind, number, lease := untaped(rec)
	if kind == kindCount {
		if number != p.last[at.Boot]+1 {
			p.sim.t.Errorf("index %d: number %d of boot %x came behind %d", at.Index, number, at.Boot, p.last[at.Boot])
		}
		p.last[at.Boot] = number
	}
	l, _ := s.Lease(lease)
	valid := kind == kindAct && l.Boot == at.Boot && l.Generation == number
	if p.judge && valid {
		p.sim.acted++
	}
	p.note(lease, at.Index, at.Boot, kind, number, b2i(valid))
}

func (p *tape) Changed(_ *cluster.State, at cluster.At, e cluster.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil {
		p.last = make(map[uint64]uint64)
	}
	switch e.Kind {
	case cluster.Joined:
		p.last[e.Boot] = 0
		if p.node != nil && p.node.Boot() == e.Boot {
			p.boot, p.next = e.Boot, 0
		}
	case cluster.Gone:
		delete(p.last, e.Boot)
		if e.Boot == p.boot {
			if p.next > 0 {
				p.sim.mu.Lock()
				p.sim.void++
				p.sim.mu.Unlock()
			}
			p.boot = 0
		}
	default:
	}
	p.note(e.Name, at.Index, at.Boot, uint64(e.Kind), e.Boot, e.Generation, uint64(e.Reason))
}

func (p *tape) note(text string, numbers ...uint64) {
	b := binary.LittleEndian.AppendUint64([]byte(text), p.sum)
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	p.sum = xxhash.Sum64(b)
}

func b2i(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func (p *tape) AppendState(b []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	b = binary.LittleEndian.AppendUint64(b, p.sum)
	var boots []uint64
	for boot := range p.last {
		boots = append(boots, boot)
	}
	slices.Sort(boots)
	for _, boot := range boots {
		b = binary.LittleEndian.AppendUint64(b, boot)
		b = binary.LittleEndian.AppendUint64(b, p.last[boot])
	}
	return b
}

func (p *tape) LoadState(b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sum, p.last = 0, make(map[uint64]uint64)
	if len(b) == 0 {
		return nil
	}
	p.sim.mu.Lock()
	p.sim.late++
	p.sim.mu.Unlock()
	p.sum = binary.LittleEndian.Uint64(b)
	for b = b[8:]; len(b) > 0; b = b[16:] {
		p.last[binary.LittleEndian.Uint64(b)] = binary.LittleEndian.Uint64(b[8:])
	}
	return nil
}
