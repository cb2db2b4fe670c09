package cluster_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker/cluster"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

func hello(name string, read uint64) *clusterv1.Record {
	return &clusterv1.Record{Record: &clusterv1.Record_Hello{Hello: &clusterv1.Hello{Name: name, Read: read, Version: 1}}}
}

func beat(version uint32) *clusterv1.Record {
	return &clusterv1.Record{Record: &clusterv1.Record_Heartbeat{Heartbeat: &clusterv1.Heartbeat{Version: version}}}
}

func expire(boot, seen uint64) *clusterv1.Record {
	return &clusterv1.Record{Record: &clusterv1.Record_Expire{Expire: &clusterv1.Expire{Boot: boot, Seen: seen}}}
}

func bye() *clusterv1.Record {
	return &clusterv1.Record{Record: &clusterv1.Record_Goodbye{Goodbye: &clusterv1.Goodbye{}}}
}

func claim(lease string) *clusterv1.Record {
	return &clusterv1.Record{Record: &clusterv1.Record_Claim{Claim: &clusterv1.Claim{Lease: lease}}}
}

func release(lease string, generation uint64) *clusterv1.Record {
	return &clusterv1.Record{Record: &clusterv1.Record_Release{Release: &clusterv1.Release{Lease: lease, Generation: generation}}}
}

func define(stream string, term, after uint64) *clusterv1.Record {
	return &clusterv1.Record{Record: &clusterv1.Record_Define{Define: &clusterv1.Define{
		Definition: &clusterv1.Definition{Stream: stream, Term: term, Partitions: 1}, After: after,
	}}}
}

func begin() *clusterv1.Record {
	return &clusterv1.Record{Record: &clusterv1.Record_CheckpointBegin{CheckpointBegin: &clusterv1.CheckpointBegin{}}}
}

func page(begin, number uint64) *clusterv1.Record {
	return &clusterv1.Record{Record: &clusterv1.Record_CheckpointPage{CheckpointPage: &clusterv1.CheckpointPage{Begin: begin, Number: number}}}
}

func end(begin, pages uint64) *clusterv1.Record {
	return &clusterv1.Record{Record: &clusterv1.Record_CheckpointEnd{CheckpointEnd: &clusterv1.CheckpointEnd{Begin: begin, Pages: pages}}}
}

// line is an envelope of a case, and the events that it must bring.
type line struct {
	boot, sequence uint64
	records        []*clusterv1.Record
	want           string
}

func on(boot, sequence uint64, records ...*clusterv1.Record) line {
	return line{boot: boot, sequence: sequence, records: records}
}

func (l line) gives(events string) line {
	l.want = events
	return l
}

// told is events as text.
func told(events []cluster.Event) string {
	text := ""
	for i, e := range events {
		if i > 0 {
			text += ", "
		}
		switch e.Kind {
		case cluster.Joined:
			text += fmt.Sprintf("joined %d %s", e.Boot, e.Name)
		case cluster.Gone:
			why := []string{"", "left", "expired", "replaced", "refused"}[e.Reason]
			text += fmt.Sprintf("gone %d %s %s", e.Boot, e.Name, why)
		case cluster.Claimed:
			text += fmt.Sprintf("claimed %s %d by %d", e.Name, e.Generation, e.Boot)
		case cluster.Released:
			text += fmt.Sprintf("released %s %d", e.Name, e.Generation)
		case cluster.Defined:
			text += "defined " + e.Name
		case cluster.CheckpointBegan:
			text += "began"
		case cluster.CheckpointEnded:
			text += fmt.Sprintf("ended %d", e.Generation)
		}
	}
	return text
}

// TestRules goes through the rules. The first line of a case has index 1.
func TestRules(t *testing.T) {
	cases := map[string][]line{
		"repeats and what was overtaken": {
			on(1, 1, hello("a", 0)).gives("joined 1 a"),
			on(1, 1, hello("a", 0), claim("x")),
			on(1, 3, claim("x")).gives("claimed x 3 by 1"),
			on(1, 3, release("x", 3)),
			on(1, 2, release("x", 3)),
			on(1, 4, release("x", 3)).gives("released x 3"),
		},
		"who has not said hello does not count": {
			on(1, 1, claim("x")),
			on(1, 2, claim("x"), hello("a", 0)),
			on(1, 2, hello("a", 0), claim("x")).gives("joined 1 a, claimed x 3 by 1"),
			on(2, 1, hello("", 0)),
			on(2, 1),
		},
		"who is gone does not come back": {
			on(1, 1, hello("a", 0)).gives("joined 1 a"),
			on(1, 2, claim("x")).gives("claimed x 2 by 1"),
			on(1, 3, bye(), claim("y")).gives("released x 2, gone 1 a left"),
			on(1, 4, hello("a", 4), claim("x")),
			on(2, 1, hello("a", 4)).gives("joined 2 a"),
		},
		"a name goes to the newer one": {
			on(1, 1, hello("a", 0)).gives("joined 1 a"),
			on(1, 2, claim("x")).gives("claimed x 2 by 1"),
			on(2, 1, hello("a", 1)).gives("released x 2, gone 1 a replaced, joined 2 a"),
			on(1, 3, claim("x")),
			on(3, 1, hello("a", 2), claim("x")).gives("gone 3 a refused"),
			on(3, 2, hello("a", 9)),
			on(4, 1, hello("a", 3)).gives("gone 2 a replaced, joined 4 a"),
		},
		"three heartbeats without an answer": {
			on(1, 1, hello("a", 0)).gives("joined 1 a"),
			on(2, 1, hello("b", 0)).gives("joined 2 b"),
			on(2, 2, claim("x")).gives("claimed x 3 by 2"),
			on(1, 2, beat(1)),
			on(1, 3, beat(1)),
			on(1, 4, expire(2, 2)),
			on(1, 5, beat(1)),
			on(1, 6, expire(2, 1)),
			on(1, 7, expire(3, 2)),
			on(1, 8, expire(2, 2)).gives("released x 3, gone 2 b expired"),
			on(2, 3, beat(1), claim("x")),
			on(1, 9, claim("x")).gives("claimed x 12 by 1"),
		},
		"who was heard since is not expired": {
			on(1, 1, hello("a", 0)).gives("joined 1 a"),
			on(2, 1, hello("b", 0)).gives("joined 2 b"),
			on(1, 2, beat(1)), on(1, 3, beat(1)), on(1, 4, beat(1)),
			on(2, 2, beat(1)),
			on(1, 5, expire(2, 2)),
			on(1, 6, expire(2, 6)),
			on(1, 7, beat(1)), on(1, 8, beat(1)),
			on(1, 9, expire(2, 6)),
			on(1, 10, beat(1), expire(2, 6)).gives("gone 2 b expired"),
		},
		"heartbeats at one moment are one": {
			on(1, 1, hello("a", 0)).gives("joined 1 a"),
			on(2, 1, hello("b", 0)).gives("joined 2 b"),
			on(1, 2, beat(1), beat(1), beat(1), expire(2, 2)),
			on(1, 3, beat(1), expire(2, 2)),
			on(1, 4, beat(1), expire(1, 5)),
			on(1, 5, expire(2, 2)).gives("gone 2 b expired"),
		},
		"the first claim wins": {
			on(1, 1, hello("a", 0)).gives("joined 1 a"),
			on(2, 1, hello("b", 0)).gives("joined 2 b"),
			on(1, 2, claim("x"), claim("x"), claim("")).gives("claimed x 3 by 1"),
			on(2, 2, claim("x"), release("x", 3)),
			on(1, 3, claim("x"), release("x", 2), release("y", 3)),
			on(1, 4, release("x", 3), claim("x")).gives("released x 3, claimed x 6 by 1"),
			on(1, 5, release("x", 6), claim("x"), release("x", 7)).gives("released x 6, claimed x 7 by 1"),
			on(2, 3, claim("x")),
		},
		"the first definition wins": {
			on(0, 0, define("main", 7, 0)).gives("defined main"),
			on(0, 0, define("main", 8, 0), claim("x"), hello("a", 0)),
			on(0, 0, define("main", 8, 7)).gives("defined main"),
			on(0, 0, define("main", 7, 8)),
			on(0, 0, define("main", 9, 7)),
			on(0, 0, define("main", 0, 8), define("", 5, 0)),
			on(1, 1, hello("a", 0), define("dead", 7, 0)).gives("joined 1 a, defined dead"),
		},
		"checkpoints": {
			on(1, 1, hello("a", 0), begin()).gives("joined 1 a"),
			on(2, 1, hello("b", 0)).gives("joined 2 b"),
			on(1, 2, claim("checkpoint"), begin()).gives("claimed checkpoint 3 by 1, began"),
			on(2, 2, begin(), page(3, 0), end(3, 0)),
			on(1, 3, page(3, 1), end(3, 1), page(2, 0), page(3, 0)),
			on(1, 4, end(3, 0), end(3, 2), end(2, 1)),
			on(1, 5, page(3, 1), end(3, 2)).gives("ended 3"),
			on(1, 6, end(3, 2), page(3, 2)),
			on(1, 7, begin()).gives("began"),
			on(1, 8, begin()).gives("began"),
			on(1, 9, page(8, 0), end(8, 1), end(8, 0)),
			on(1, 10, release("checkpoint", 3)).gives("released checkpoint 3"),
			on(1, 11, end(9, 0)),
			on(2, 3, claim("checkpoint"), end(9, 0)).gives("claimed checkpoint 14 by 2"),
			on(2, 4, begin(), end(15, 0)).gives("began, ended 15"),
		},
	}
	for name, lines := range cases {
		t.Run(name, func(t *testing.T) {
			s := cluster.NewState()
			for i, l := range lines {
				events := s.Apply(uint64(i+1), &clusterv1.Envelope{Boot: l.boot, Sequence: l.sequence, Records: l.records})
				if is := told(events); is != l.want {
					t.Errorf("index %d: events %q, want %q", i+1, is, l.want)
				}
				s = reloaded(t, s)
			}
		})
	}
}

// reloaded is the state, from its own bytes.
func reloaded(t *testing.T, s *cluster.State) *cluster.State {
	t.Helper()
	b := s.AppendState(nil)
	loaded := cluster.NewState()
	if err := loaded.LoadState(b); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(loaded.AppendState(nil), b) {
		t.Fatal("a state is another one after it was loaded")
	}
	return loaded
}

func TestVersionIsWhatAllNodesKnow(t *testing.T) {
	s := cluster.NewState()
	if s.Version() != 0 {
		t.Error("nobody knows a version")
	}
	s.Apply(1, &clusterv1.Envelope{Boot: 1, Sequence: 1, Records: []*clusterv1.Record{hello("a", 0), beat(3)}})
	s.Apply(2, &clusterv1.Envelope{Boot: 2, Sequence: 1, Records: []*clusterv1.Record{hello("b", 0)}})
	if s.Version() != 1 {
		t.Errorf("version %d of a node that knows 3 and one that knows 1", s.Version())
	}
	s.Apply(3, &clusterv1.Envelope{Boot: 2, Sequence: 2, Records: []*clusterv1.Record{beat(2)}})
	if s.Version() != 2 {
		t.Errorf("version %d of nodes that know 3 and 2", s.Version())
	}
}

func TestGoneBootsAreForgottenOldestFirst(t *testing.T) {
	s := cluster.NewState()
	for boot := uint64(1); boot <= 1001; boot++ {
		s.Apply(boot, &clusterv1.Envelope{Boot: boot, Sequence: 1, Records: []*clusterv1.Record{hello("a", boot-1), bye()}})
	}
	for boot, want := range map[uint64]bool{1: true, 2: false, 1001: false} {
		s := reloaded(t, s)
		events := s.Apply(2000, &clusterv1.Envelope{Boot: boot, Sequence: 1, Records: []*clusterv1.Record{hello("b", 0)}})
		if is := len(events) == 1; is != want {
			t.Errorf("boot %d is taken: %v, want %v", boot, is, want)
		}
	}
}

// TestRandomRecords applies records of which many do not hold, and compares a state that started at
// the beginning with one that is loaded now and then.
func TestRandomRecords(t *testing.T) {
	runs, start := 400, time.Now()
	soak, _ := time.ParseDuration(os.Getenv("TIDEWIRE_SOAK"))
	if testing.Short() {
		runs = 100
	}
	first := seed(t)
	for i := 0; i < runs || time.Since(start) < soak; i++ {
		r := &random{t: t, rng: rand.New(rand.NewPCG(first+uint64(i), 3)), generations: make(map[string]uint64), gone: make(map[uint64]bool)}
		r.run()
		if t.Failed() {
			t.Fatalf("SEED=%d", first+uint64(i))
		}
	}
}

type random struct {
	t           *testing.T
	rng         *rand.Rand
	state       *cluster.State
	generations map[string]uint64 // the last of each lease
	gone        map[uint64]bool
	sequences   [12]uint64
}

func (r *random) run() {
	r.state = cluster.NewState()
	loaded := cluster.NewState()
	var old []*clusterv1.Envelope
	for index := uint64(1); index < 150; index += 1 + r.rng.Uint64N(2) {
		e := r.envelope(index)
		if len(old) > 0 && r.rng.IntN(5) == 0 {
			e = old[r.rng.IntN(len(old))]
		}
		old = append(old, e)
		events := slices.Clone(r.state.Apply(index, e))
		if !slices.Equal(events, loaded.Apply(index, e)) {
			r.t.Errorf("index %d: a state that was loaded tells other events", index)
		}
		r.check(index, events)
		if r.rng.IntN(10) == 0 {
			loaded = reloaded(r.t, loaded)
		}
		if !bytes.Equal(r.state.AppendState(nil), loaded.AppendState(nil)) {
			r.t.Errorf("index %d: a state that was loaded is another one", index)
		}
		if r.t.Failed() {
			return
		}
	}
}

func (r *random) check(index uint64, events []cluster.Event) {
	for _, e := range events {
		switch e.Kind {
		case cluster.Joined:
			if r.gone[e.Boot] {
				r.t.Errorf("index %d: boot %d is back", index, e.Boot)
			}
		case cluster.Gone:
			r.gone[e.Boot] = true
		case cluster.Claimed:
			if e.Generation <= r.generations[e.Name] {
				r.t.Errorf("index %d: lease %s has generation %d after %d", index, e.Name, e.Generation, r.generations[e.Name])
			}
			r.generations[e.Name] = e.Generation
		default:
		}
	}
	names := make(map[string]bool)
	for _, n := range r.state.Nodes() {
		if names[n.Name] || r.gone[n.Boot] || n.Seen < n.Joined || n.Seen > index {
			r.t.Errorf("index %d: node %+v cannot be", index, n)
		}
		names[n.Name] = true
	}
	for _, l := range r.state.Leases("") {
		if _, there := r.state.Node(l.Boot); !there || l.Generation > index {
			r.t.Errorf("index %d: lease %+v cannot be", index, l)
		}
	}
}

func (r *random) envelope(index uint64) *clusterv1.Envelope {
	boot := r.rng.Uint64N(uint64(len(r.sequences)))
	r.sequences[boot] += r.rng.Uint64N(3)
	e := &clusterv1.Envelope{Boot: boot, Sequence: r.sequences[boot]}
	if _, there := r.state.Node(boot); !there {
		e.Records = append(e.Records, hello(r.name(), r.rng.Uint64N(index)))
	}
	for range r.rng.IntN(5) {
		e.Records = append(e.Records, r.record(index))
	}
	return e
}

func (r *random) name() string { return fmt.Sprint("n", r.rng.IntN(6)) }

func (r *random) record(index uint64) *clusterv1.Record {
	near := func() uint64 { return index - min(index, r.rng.Uint64N(8)) }
	lease := []string{"checkpoint", "x", "y"}[r.rng.IntN(3)]
	l, _ := r.state.Lease(lease)
	boot := r.rng.Uint64N(uint64(len(r.sequences)))
	switch r.rng.IntN(14) {
	case 0:
		return hello(r.name(), near())
	case 1:
		return bye()
	case 2:
		return expire(boot, near())
	case 3:
		n, _ := r.state.Node(boot)
		return expire(boot, n.Seen)
	case 4, 5:
		return claim(lease)
	case 6:
		return release(lease, l.Generation)
	case 7:
		return release(lease, near())
	case 8:
		return define("main", r.rng.Uint64N(5), r.state.Definition("main").GetTerm())
	case 9:
		return begin()
	case 10:
		return page(near(), r.rng.Uint64N(2))
	case 11:
		return end(near(), r.rng.Uint64N(2))
	default:
		return beat(r.rng.Uint32N(3))
	}
}
