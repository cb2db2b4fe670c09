package tidewire

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// settling plays a broker to a settleBox: it takes frames in their order, answers
// later, and forgets with a connection what was on its way, and with a crash what
// was not on its disk.
type settling struct {
	r       *rand.Rand
	box     settleBox
	all     []*settlement
	wire    []*protocol.Settle  // sent, not taken
	answers []*tidewirev1.Acked // under way
	memory  map[uint64]string   // settled offsets, by kind
	disk    map[uint64]string   // and what a crash leaves
}

func (m *settling) settle(n uint64) {
	kind := [...]protocol.SettleKind{protocol.SettleAck, protocol.SettleAck, protocol.SettleAck, protocol.SettleReject, protocol.SettleNack}[m.r.IntN(5)]
	d := &Delivery{Message: Message{Position: Position{Term: testTerm, Offset: n}, Generation: 5}, settled: true}
	s := &settlement{delivery: d, kind: kind, confirm: m.r.IntN(10) == 0, done: make(chan struct{})}
	m.all = append(m.all, s)
	m.box.queue = append(m.box.queue, s)
}

// take lets the broker take a frame.
func (m *settling) take() {
	if len(m.wire) == 0 {
		return
	}
	f := m.wire[0]
	m.wire = m.wire[1:]
	answer := &tidewirev1.Acked{Ref: f.Ref, Sub: f.Sub}
	for _, r := range f.Ranges {
		for o := r.From; o <= r.Through; o++ {
			if m.memory[o] != "" {
				answer.Refused = append(answer.Refused, &tidewirev1.RefusedRange{From: o, Through: o, Code: string(CodeNotPending)})
				continue
			}
			m.memory[o] = f.Kind.String()
		}
	}
	if f.Confirm { // after a sync
		m.disk = maps.Clone(m.memory)
	}
	if f.Confirm || len(answer.Refused) > 0 {
		m.answers = append(m.answers, answer)
	}
}

// lose ends the connection, and perhaps the broker.
func (m *settling) lose(crash bool) {
	m.wire, m.answers = nil, nil
	if crash {
		m.memory = maps.Clone(m.disk)
	}
	m.box.lost()
}

func (m *settling) step(n *uint64) {
	switch p := m.r.IntN(100); {
	case p < 40:
		*n++
		m.settle(*n)
	case p < 65:
		if f := m.box.next(1); f != nil {
			m.wire = append(m.wire, f)
		}
	case p < 80:
		m.take()
	case p < 95:
		if len(m.answers) > 0 {
			m.box.answered(m.answers[0])
			m.answers = m.answers[1:]
		}
	default:
		m.lose(p < 98)
	}
}

// Whatever is lost on the way, and whenever the broker crashes: what was acked or
// rejected is on its disk in the end, each settlement has its outcome, and nothing
// is said to be on disk that is not.
func TestSettlementsSurviveEverything(t *testing.T) {
	seed := rand.Uint64()
	if text := os.Getenv("TIDEWIRE_TEST_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("TIDEWIRE_TEST_SEED=%d", seed)
	for round := range uint64(300) {
		synctest.Test(t, func(t *testing.T) { // the clock stands still
			m := &settling{r: rand.New(rand.NewPCG(seed, round)), memory: make(map[uint64]string), disk: make(map[uint64]string)}
			var n uint64
			for range 300 {
				m.step(&n)
				m.check(t)
			}
			done := m.box.begin()
			for i := 0; ; i++ {
				select {
				case <-done:
					m.check(t)
					m.finish(t)
					return
				default:
				}
				if i > 10_000 {
					t.Fatalf("it does not come to its end: %d queued, %d sent", len(m.box.queue), len(m.box.sent))
				}
				if f := m.box.next(1); f != nil {
					m.wire = append(m.wire, f)
				}
				m.take()
				if len(m.answers) > 0 {
					m.box.answered(m.answers[0])
					m.answers = m.answers[1:]
				}
				if i < 50 && m.r.IntN(10) == 0 {
					m.lose(m.r.IntN(2) == 0)
				}
			}
		})
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
}

// check compares what is answered with the disk.
func (m *settling) check(t *testing.T) {
	t.Helper()
	for _, s := range m.all {
		o := s.delivery.Position.Offset
		select {
		case <-s.done:
			if s.err != nil {
				t.Fatalf("%s of %d: %v", s.kind, o, s.err)
			}
			if s.kind != protocol.SettleNack && m.disk[o] == "" {
				t.Fatalf("the %s of %d is said to be on disk, and is not", s.kind, o)
			}
		default:
		}
	}
}

func (m *settling) finish(t *testing.T) {
	t.Helper()
	for _, s := range m.all {
		o := s.delivery.Position.Offset
		select {
		case <-s.done:
		default:
			t.Fatalf("the %s of %d has no outcome", s.kind, o)
		}
		if got := m.disk[o]; s.kind != protocol.SettleNack && got != s.kind.String() {
			t.Fatalf("%d was settled by %s, and the disk has %q", o, s.kind, got)
		}
	}
}

func TestRangesJoinNeighbours(t *testing.T) {
	var items []*settlement
	for _, p := range []Position{{Offset: 7}, {Offset: 2}, {Offset: 1}, {Offset: 3}, {Partition: 2, Offset: 4}, {Offset: 9}, {Partition: 2, Offset: 5}, {Offset: 3}} {
		items = append(items, &settlement{delivery: &Delivery{Message: Message{Position: p}}})
	}
	if got := fmt.Sprint(ranges(items, 0)); got != "[{0 1 3} {0 7 7} {0 9 9} {2 4 5}]" {
		t.Error(got)
	}
	items[1].confirm = true // it is at 2 after sorting
	if got := fmt.Sprint(ranges(items, 0)); got != "[{0 1 1} {0 2 2} {0 3 3} {0 7 7} {0 9 9} {2 4 5}]" {
		t.Error(got)
	}
}

// Frames hold what is of one kind and generation; the answer is asked for now and
// then.
func TestFramesOfOneGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b settleBox
		add := func(offset, generation uint64) {
			d := &Delivery{Message: Message{Position: Position{Term: testTerm, Offset: offset}, Generation: generation}}
			b.queue = append(b.queue, &settlement{delivery: d, done: make(chan struct{})})
		}
		add(1, 5)
		add(2, 6)
		add(3, 5)
		for _, want := range []string{"ack g5 1-1 3-3 confirm", "ack g6 2-2"} {
			if f := b.next(1); f == nil || said(f) != want {
				t.Errorf("got %v, want %s", f, want)
			}
		}
		for o := range uint64(maxDoubt) {
			add(10+2*o, 6)
			if f := b.next(1); f.Confirm != (o == maxDoubt-2) {
				t.Fatalf("the %dth asks for an answer: %v", o, f.Confirm)
			}
		}
	})
}
