package broker_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	"github.com/tidewire/tidewire/broker/cluster"
	"github.com/tidewire/tidewire/broker/cluster/clustertest"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// town is several brokers over one control log and one order of each stream.
type town struct {
	t       *testing.T
	control *clustertest.Log
	main    []*brokertest.Shared // by partition
	dead    *brokertest.Shared
	nodes   []*townNode
	ways    []*clustertest.Way
	seed    uint64
}

// townNode is one of them.
type townNode struct {
	*shop
	town   *town
	name   string
	way    *clustertest.Way
	logs   []*brokertest.Follower
	part   *broker.SharedConsumers
	door   door
	node   *cluster.Node
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

// door is the way of consumers to the node, which may be shut.
type door struct {
	broker.Cluster
	shut atomic.Bool
}

func (d *door) Write(records ...*clusterv1.Record) error {
	if d.shut.Load() {
		return cluster.ErrFull
	}
	return d.Cluster.Write(records...)
}

func newTown(t *testing.T, n int) *town {
	t.Helper()
	return newTownOf(t, n, 1)
}

// newTownOf returns one whose stream main has so many partitions.
func newTownOf(t *testing.T, n, partitions int) *town {
	t.Helper()
	w := &town{t: t, control: clustertest.New(), main: brokertest.NewSharedPartitions(partitions), dead: brokertest.NewShared(), seed: 1}
	t.Cleanup(func() {
		for _, way := range w.ways {
			way.Wait()
		}
	})
	for i := range n {
		w.nodes = append(w.nodes, w.start(fmt.Sprint("n", i)))
	}
	w.settled()
	return w
}

// start begins a node that knows nothing.
func (w *town) start(name string) *townNode {
	w.t.Helper()
	w.seed++
	n := &townNode{town: w, name: name, way: w.control.Way(w.seed)}
	w.ways = append(w.ways, n.way)
	main := broker.Stream{Name: broker.MainStream}
	for _, s := range w.main {
		log := s.Follow()
		n.logs = append(n.logs, log)
		main.Logs = append(main.Logs, log)
	}
	dead := w.dead.Follow()
	n.logs = append(n.logs, dead)
	logger := slog.New(slog.DiscardHandler)
	if os.Getenv("LOGS") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", name)
	}
	b := broker.New(nil, broker.Options{Logger: logger}, main, broker.Stream{Name: broker.DeadStream, Logs: []broker.Log{dead}})
	n.part = b.ShareConsumers()
	node, err := cluster.New(cluster.Options{Name: name, Version: 1, Log: n.way, Parts: []cluster.Part{n.part}, Live: n.part.Live, Logger: logger, CheckpointEvery: 8 * time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	n.node = node
	n.door.Cluster = node
	n.part.Use(&n.door)
	n.shop = &shop{t: w.t, broker: b}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	nodeCtx, stopNode := context.WithCancel(context.Background())
	n.ended.Go(func() {
		if err := b.Run(ctx); err != nil {
			w.t.Error(err)
		}
		stopNode()
	})
	n.ended.Go(func() {
		if err := node.Run(nodeCtx); err != nil {
			w.t.Errorf("node %s: %v", name, err)
		}
	})
	w.t.Cleanup(n.stop)
	return n
}

// stop ends the node in good order.
func (n *townNode) stop() {
	n.cancel()
	n.ended.Wait()
}

// cut keeps the node from everything, or lets it go on.
func (n *townNode) cut(off bool) {
	n.way.Stall(off)
	for _, l := range n.logs {
		l.Stall(off)
	}
}

// crash ends the node without a goodbye.
func (n *townNode) crash() {
	n.cut(true)
	n.stop()
}

// settled waits until nothing happens at once any more, and a little longer.
func (w *town) settled() {
	time.Sleep(100 * time.Millisecond)
	synctest.Wait()
}

// same checks that all nodes that read as far know the same.
func (w *town) same(nodes ...*townNode) {
	w.t.Helper()
	w.settled()
	var first []byte
	for i, n := range nodes {
		var index uint64
		n.node.View(func(s *cluster.State) { index = s.Index() })
		state := n.part.AppendState(nil)
		if i == 0 {
			first = state
		} else if !slices.Equal(state, first) {
			w.t.Errorf("node %s at index %d differs from %s:\n%x\n%x", n.name, index, nodes[0].name, state, first)
		}
	}
}

func TestSharedDeliversOnEveryNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		c.publishMany("job.a", 3)
		h := a.hire()
		h.consume("w", "job.*", 0, nil)
		if len(h.subbed) != 1 || !h.subbed[0].Created {
			t.Fatalf("answer %v, errors %v", h.subbed, h.errors)
		}
		got := h.take(3)
		if want := []string{"0", "1", "2"}; !slices.Equal(payloads(got), want) || got[0].Attempt != 1 {
			t.Fatalf("got %v, attempt %d", payloads(got), got[0].Attempt)
		}
		h.ack(got...)

		other := b.hire()
		other.consume("w", "job.*", 2, nil)
		if other.subbed[0].Created {
			t.Fatal("it is created twice")
		}
		h.leave()
		w.settled()
		c.publishMany("job.b", 3)
		got = other.take(2)
		other.idle() // its window is 2
		if i := c.info(); i.InFlight != 2 || len(i.Members) != 1 || i.Members[0].Window != 2 || i.Lag == 0 {
			t.Fatalf("info %+v", i)
		}
		other.ack(got[0])
		got = append(got[1:], other.take(1)...)
		other.ack(got...)
		w.settled()
		for _, n := range w.nodes {
			if i := n.info(); i.InFlight != 0 || i.Lag != 0 || i.Oldest != nil {
				t.Fatalf("info on %s: %+v", n.name, i)
			}
		}
		a2 := other.settle(protocol.SettleAck, true, nil, got[0])
		if len(a2.Refused) != 1 || a2.Refused[0].Code != "not_pending" || a2.Settled != 0 {
			t.Fatalf("answer to a second ack: %v", a2)
		}
		w.same(w.nodes...)
	})
}

// owner returns the node that decides for the consumer w.
func (w *town) owner() *townNode {
	w.t.Helper()
	var lease cluster.Lease
	var newest uint64
	for _, n := range w.nodes {
		n.node.View(func(s *cluster.State) {
			if s.Index() > newest {
				newest = s.Index()
				lease, _ = s.Lease(cluster.LeaseConsumer + "w")
			}
		})
	}
	for _, n := range w.nodes {
		if lease.Boot != 0 && n.node.Boot() == lease.Boot {
			return n
		}
	}
	w.t.Fatal("nobody decides")
	return nil
}

// without returns the other nodes.
func (w *town) without(n *townNode) []*townNode {
	return slices.DeleteFunc(slices.Clone(w.nodes), func(m *townNode) bool { return m == n })
}

func TestSharedTakesOverFromTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		first := a.hire()
		first.consume("w", "job.*", 2, nil)
		second := b.hire()
		second.consume("w", "job.*", 2, nil)
		w.settled()
		if w.owner() != a {
			t.Fatal("whoever creates it decides")
		}
		c.publishMany("job.a", 6)
		mine, others := first.take(2), second.take(2)
		first.ack(mine[0])
		again := first.take(1) // for the one that was acknowledged
		second.ack(others[0])
		more := second.take(1)
		died := time.Now()
		a.crash()
		first.leave()
		for time.Since(died) < 6*time.Second && w.without(a)[0].info().Generation == mine[0].Generation {
			time.Sleep(50 * time.Millisecond)
		}
		if since := time.Since(died); since > 5*time.Second {
			t.Fatalf("another node decides after %v", since)
		}
		w.nodes = w.without(a)
		w.settled()
		if w.owner() != b {
			t.Fatal("it is not the node with a member that decides")
		}
		// What is in flight stays so until its ack wait, and late answers are fenced.
		second.idle()
		late := second.settle(protocol.SettleAck, true, nil, more[0])
		if len(late.Refused) != 1 || late.Refused[0].Code != "fenced" {
			t.Fatalf("late answer: %v", late)
		}
		c.publishMany("job.b", 1)
		if got := second.take(1); string(got[0].Payload) != "0" || got[0].Generation <= mine[0].Generation {
			t.Fatalf("got %v", got)
		} else {
			second.ack(got...)
		}
		second.idle()
		time.Sleep(29*time.Second - time.Since(died))
		second.idle()
		time.Sleep(2 * time.Second)
		due := map[string]bool{}
		for _, m := range []protocol.Message{mine[1], again[0], others[1], more[0]} {
			due[m.Position.String()] = true
		}
		for len(due) > 0 {
			next := second.take(1)[0]
			if next.Attempt != 2 || !due[next.Position.String()] {
				t.Fatalf("%s at %v is attempt %d", next.Payload, next.Position, next.Attempt)
			}
			delete(due, next.Position.String())
			second.ack(next)
		}
		second.idle()
		w.same(w.nodes...)
	})
}

func TestSharedIgnoresWhatAFrozenOwnerDecided(t *testing.T) { testFrozenOwner(t, false) }

// TestSharedTakesOverDuringAFailover has the control log away for a while, too, as when the leader
// of its partition is killed.
func TestSharedTakesOverDuringAFailover(t *testing.T) { testFrozenOwner(t, true) }

func testFrozenOwner(t *testing.T, failover bool) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		settings := &tidewirev1.ConsumerSettings{AckWaitMs: new(uint64), MaxDeliver: new(uint32), BackoffBaseMs: new(uint64)}
		*settings.AckWaitMs, *settings.MaxDeliver = 5000, 2
		first := a.hire()
		first.consume("w", "job.*", 10, settings)
		second := b.hire()
		second.consume("w", "job.*", 10, nil)
		c.publishMany("job.a", 20)
		w.settled()
		mine, others := first.take(10), second.take(10)
		first.ack(mine[:5]...)
		second.ack(others[:5]...)
		w.settled()

		a.cut(true)
		unheard := len(first.acked)
		first.session.Settle(&protocol.Settle{
			Kind: protocol.SettleAck, Ref: 9, Sub: 1, Confirm: true, Term: mine[5].Position.Term, Generation: mine[5].Generation,
			Ranges: []protocol.OffsetRange{{From: mine[5].Position.Offset, Through: mine[5].Position.Offset}},
		})
		healthy := []uint64{b.node.Boot(), c.node.Boot()}
		if failover {
			time.Sleep(time.Second)
			w.control.Away(true)
			time.Sleep(5 * time.Second)
			w.control.Away(false)
		}
		time.Sleep(12 * time.Second) // ack waits end on both sides, and others decide
		if w.owner() == a {
			t.Fatal("nobody has taken over")
		}
		w.settled()
		if len(first.acked) > unheard {
			t.Fatalf("a node that is cut off confirms: %v", first.acked[unheard])
		}
		a.cut(false)
		time.Sleep(30 * time.Second)
		w.settled()
		if last := first.acked[len(first.acked)-1]; len(first.acked) != unheard+1 || last.Error == nil && len(last.Refused) != 1 {
			t.Fatalf("late ack: %v", first.acked[unheard:])
		}
		if !slices.Equal(healthy, []uint64{b.node.Boot(), c.node.Boot()}) {
			t.Error("a healthy node was expired")
		}
		counts := map[string]int{}
		for _, h := range []*hand{first, second} {
			for _, m := range h.got {
				counts[m.Position.String()]++
				if m.Attempt != 2 {
					t.Errorf("%v: attempt %d", m.Position, m.Attempt)
				}
			}
		}
		for _, m := range slices.Concat(mine[:5], others[:5]) {
			if counts[m.Position.String()] > 0 {
				t.Errorf("%v was confirmed and comes again", m.Position)
			}
		}
		for _, m := range slices.Concat(mine[5:], others[5:]) {
			if counts[m.Position.String()] != 1 {
				t.Errorf("%v comes %d times more", m.Position, counts[m.Position.String()])
			}
		}
		for _, n := range w.nodes {
			letters, _, err := n.broker.DeadLetters(t.Context(), "w", "", 100)
			if err != nil || len(letters) != 10 {
				t.Errorf("%s has %d dead letters, %v", n.name, len(letters), err)
			}
		}
		w.same(w.nodes...)
	})
}

func TestSharedExclusive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		exclusive := true
		first := a.hire()
		first.consume("w", "job.*", 0, &tidewirev1.ConsumerSettings{Exclusive: &exclusive})
		w.settled()
		c.publishMany("job.a", 2)
		old := first.take(2)
		second := b.hire()
		second.consume("w", "", 0, nil)
		got := second.take(2)
		if got[0].Attempt != 2 || got[0].Generation <= old[0].Generation || second.subbed[0].Generation != got[0].Generation {
			t.Fatalf("attempt %d in generation %d after %d, subscribed in %d", got[0].Attempt, got[0].Generation, old[0].Generation, second.subbed[0].Generation)
		}
		w.settled()
		if len(first.errors) != 1 || first.errors[0].Code != "taken_over" {
			t.Fatalf("errors %v", first.errors)
		}
		second.ack(got...)

		// Who decides dies, and the member stays; then its node is cut off for a while.
		a.crash()
		w.nodes = w.without(a)
		time.Sleep(5 * time.Second)
		c.publishMany("job.b", 1)
		second.ack(second.take(1)...)
		b.cut(true)
		time.Sleep(6 * time.Second)
		b.cut(false)
		time.Sleep(6 * time.Second)
		c.publishMany("job.c", 1)
		second.ack(second.take(1)...)
		third := c.hire()
		third.consume("w", "", 0, nil)
		w.settled()
		if len(second.errors) != 1 || second.errors[0].Code != "taken_over" {
			t.Fatalf("errors %v", second.errors)
		}
		w.same(w.nodes...)
	})
}

func TestSharedIsManagedFromAnyNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		h := a.hire()
		one := uint32(1)
		h.consume("w", "job.*", 0, &tidewirev1.ConsumerSettings{MaxDeliver: &one})
		w.settled()
		if info, err := c.broker.PauseConsumer(t.Context(), "w", true); err != nil || !info.Paused {
			t.Fatalf("%+v, %v", info, err)
		}
		b.publishMany("job.a", 3)
		h.idle()
		if _, err := b.broker.PauseConsumer(t.Context(), "w", false); err != nil {
			t.Fatal(err)
		}
		got := h.take(3)
		h.settle(protocol.SettleReject, true, func(f *protocol.Settle) { f.Reason = "bad" }, got[0])
		h.ack(got[1:]...)
		w.settled()

		for _, n := range w.nodes {
			letters, _, err := n.broker.DeadLetters(t.Context(), "w", "", 10)
			if err != nil || len(letters) != 1 || letters[0].Reason != "bad" {
				t.Fatalf("%s: %+v, %v", n.name, letters, err)
			}
			for i, want := range []string{"dead", "done"} {
				found, err := n.broker.FindMessage(t.Context(), got[i].Position.String(), "")
				if err != nil || len(found) != 1 || len(found[0].Consumers) != 1 || found[0].Consumers[0].State != want {
					t.Fatalf("%s: %+v, %v", n.name, found, err)
				}
			}
		}
		if n, err := c.broker.Redrive(t.Context(), "w", broker.DeadSelection{All: true}, false); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		again := h.take(1)
		if again[0].Topic != "job.a" || string(again[0].Payload) != "0" || again[0].Attempt != 1 {
			t.Fatalf("%+v", again)
		}
		h.ack(again...)

		info, err := b.broker.SeekConsumer(t.Context(), "w", "earliest")
		if err != nil || info.Generation <= got[0].Generation {
			t.Fatalf("%+v, %v", info, err)
		}
		if all := h.take(3); all[0].Generation != info.Generation {
			t.Fatalf("%+v", all)
		}
		two := uint32(2)
		info, _, err = c.broker.PutConsumer(t.Context(), "w", &broker.ConsumerRequest{Settings: &tidewirev1.ConsumerSettings{MaxDeliver: &two}})
		if err != nil || info.Settings.MaxDeliver != 2 {
			t.Fatalf("%+v, %v", info, err)
		}
		if _, _, err = c.broker.PutConsumer(t.Context(), "w", &broker.ConsumerRequest{Filter: "other"}); err == nil || err.Code != "consumer_exists" {
			t.Fatal(err)
		}
		w.same(w.nodes...)
		if err := b.broker.DeleteConsumer(t.Context(), "w"); err != nil {
			t.Fatal(err)
		}
		w.settled()
		if len(h.errors) != 1 || h.errors[0].Code != "unknown_consumer" {
			t.Fatalf("errors %v", h.errors)
		}
		for _, n := range w.nodes {
			if list := n.broker.Consumers(); len(list) != 0 {
				t.Fatalf("%s: %+v", n.name, list)
			}
		}
		next := c.hire()
		next.consume("w", "job.*", 0, nil)
		next.ack(next.take(3)...)
		w.same(w.nodes...)
	})
}

func TestSharedFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 2)
		a, b := w.nodes[0], w.nodes[1]
		if _, _, err := a.broker.PutConsumer(t.Context(), "w", request("job.*")); err != nil {
			t.Fatal(err)
		}
		a.publishMany("job.a", 5)
		w.settled()
		for i, n := range []*townNode{a, b} {
			r, err := n.broker.Fetch(t.Context(), workerIdentity, "w", &broker.FetchRequest{Max: 2, Wait: time.Second})
			if err != nil || len(r.Chunks) != 1 || r.Chunks[0].Count != 2 {
				t.Fatalf("%s: %+v, %v", n.name, r, err)
			}
			f := &protocol.Settle{Kind: protocol.SettleAck, Term: r.Chunks[0].Term, Ranges: []protocol.OffsetRange{{From: uint64(2*i + 1), Through: uint64(2*i + 2)}}}
			settled, refused, err := w.nodes[1-i].broker.Settle(t.Context(), workerIdentity, "w", []*protocol.Settle{f})
			if err != nil || settled != 2 || len(refused) > 0 {
				t.Fatal(settled, refused, err)
			}
		}
		if r, err := b.broker.Fetch(t.Context(), workerIdentity, "w", &broker.FetchRequest{Max: 2}); err != nil || len(r.Chunks) != 1 || r.Chunks[0].Count != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
		begin := time.Now()
		go func() {
			time.Sleep(time.Second)
			a.publishMany("job.a", 1)
		}()
		r, err := b.broker.Fetch(t.Context(), workerIdentity, "w", &broker.FetchRequest{Max: 2, Wait: 5 * time.Second})
		if err != nil || len(r.Chunks) != 1 || time.Since(begin) > 2*time.Second {
			t.Fatalf("%+v, %v after %v", r, err, time.Since(begin))
		}
		if r, err := b.broker.Fetch(t.Context(), workerIdentity, "w", &broker.FetchRequest{Max: 2, Wait: time.Second}); err != nil || len(r.Chunks) != 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		w.same(w.nodes...)
	})
}

// A node that has just begun does not say of a consumer of the others that it is not
// there: whoever hears that gives up.
func TestSharedKnowsThatItDoesNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 2)
		a := w.nodes[0]
		if _, _, err := a.broker.PutConsumer(t.Context(), "w", request("job.*")); err != nil {
			t.Fatal(err)
		}
		a.publishMany("job.a", 1)
		w.settled()
		r, err := a.broker.Fetch(t.Context(), workerIdentity, "w", &broker.FetchRequest{Max: 1, Wait: time.Second})
		if err != nil || len(r.Chunks) != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
		ack := &protocol.Settle{Kind: protocol.SettleAck, Term: r.Chunks[0].Term, Ranges: []protocol.OffsetRange{{From: 1, Through: 1}}}
		late := w.start("late")
		late.cut(true)
		if _, _, err := late.broker.Settle(t.Context(), workerIdentity, "w", []*protocol.Settle{ack}); err == nil || !err.Code.Info().Retryable || err.RetryAfter == 0 {
			t.Fatalf("%+v", err)
		}
		late.cut(false)
		w.settled()
		if settled, _, err := late.broker.Settle(t.Context(), workerIdentity, "w", []*protocol.Settle{ack}); err != nil || settled != 1 {
			t.Fatal(settled, err)
		}
		if _, _, err := late.broker.Settle(t.Context(), workerIdentity, "v", []*protocol.Settle{ack}); err == nil || err.Code != protocol.CodeUnknownConsumer {
			t.Fatalf("%+v", err)
		}
	})
}

func TestSharedAsksWhoeverDecidesNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		if _, _, err := a.broker.PutConsumer(t.Context(), "w", request("job.*")); err != nil {
			t.Fatal(err)
		}
		w.settled()
		a.cut(true)
		if info, err := c.broker.PauseConsumer(t.Context(), "w", true); err != nil || !info.Paused {
			t.Fatalf("%+v, %v", info, err)
		}
		a.cut(false)
		time.Sleep(5 * time.Second)
		w.same(a, b, c)
		if info := a.info(); !info.Paused {
			t.Fatalf("%+v", info)
		}
	})
}

func TestSharedWaitsForItsOwnCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 2)
		a, b := w.nodes[0], w.nodes[1]
		if _, _, err := a.broker.PutConsumer(t.Context(), "w", request("job.*")); err != nil {
			t.Fatal(err)
		}
		w.settled()
		h := b.hire()
		h.consume("w", "", 0, nil)
		b.logs[0].Stall(true)
		a.publishMany("job.a", 3)
		time.Sleep(10 * time.Second)
		h.idle()
		b.logs[0].Stall(false)
		for _, m := range h.take(3) {
			if m.Attempt != 1 {
				t.Fatalf("attempt %d", m.Attempt)
			}
			h.ack(m)
		}
	})
}

func TestSharedDeliversNothingThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 2)
		a, b := w.nodes[0], w.nodes[1]
		two, soon := uint32(2), uint64(20)
		req := &broker.ConsumerRequest{Filter: "job.*", Settings: &tidewirev1.ConsumerSettings{MaxDeliver: &two, BackoffBaseMs: &soon}}
		if _, _, err := a.broker.PutConsumer(t.Context(), "w", req); err != nil {
			t.Fatal(err)
		}
		w.settled()
		h := b.hire()
		h.consume("w", "", 0, nil)
		lose := func(nodes ...*townNode) {
			b.way.Stall(true)
			a.publishMany("job.a", 1)
			w.settled()
			for _, n := range nodes {
				_, head := n.logs[0].Bounds()
				n.logs[0].Trim(head)
			}
			b.way.Stall(false)
			time.Sleep(2 * time.Second)
			h.idle()
		}
		// It is gone from the copy of the member's node only: it is tried as often as may be.
		lose(b)
		letters, _, err := b.broker.DeadLetters(t.Context(), "w", "", 10)
		if err != nil || len(letters) != 1 || letters[0].Attempts != 2 || string(letters[0].Message.Payload) != "0" {
			t.Fatalf("%+v, %v", letters, err)
		}
		// It is gone from both.
		if lose(a, b); len(h.gaps) != 1 || h.gaps[0].Reason != "retention" || h.gaps[0].Through != 2 {
			t.Fatalf("gaps %v", h.gaps)
		}
		if i := b.info(); i.InFlight+i.Waiting+i.Held != 0 || i.Dead != 1 {
			t.Fatalf("%+v", i)
		}
		a.publishMany("job.b", 1)
		h.ack(h.take(1)...)
		w.same(w.nodes...)
	})
}

func TestSharedBuriesOnlyWhatAllKnowToBeDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		wait := uint64(5000)
		if _, _, err := a.broker.PutConsumer(t.Context(), "w", &broker.ConsumerRequest{Filter: "job.*", Settings: &tidewirev1.ConsumerSettings{AckWaitMs: &wait}}); err != nil {
			t.Fatal(err)
		}
		w.settled()
		h := b.hire()
		h.consume("w", "", 0, nil)
		c.publishMany("job.a", 1)
		got := h.take(1)
		a.way.SetFaults(clustertest.Faults{Write: 100 * time.Hour}) // it hears, and is not heard
		h.settle(protocol.SettleReject, false, nil, got...)
		time.Sleep(8 * time.Second)
		again := h.take(1)
		if again[0].Attempt != 2 {
			t.Fatalf("attempt %d", again[0].Attempt)
		}
		h.ack(again...)
		time.Sleep(5 * time.Second)
		if _, head := c.logs[1].Bounds(); head != 0 {
			t.Fatalf("what was acknowledged has a dead letter")
		}
		w.nodes = w.without(a)
		w.same(w.nodes...)
	})
}

func TestSharedExclusiveDoesNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		exclusive := true
		first := a.hire()
		first.consume("w", "job.*", 0, &tidewirev1.ConsumerSettings{Exclusive: &exclusive})
		w.settled()
		a.cut(true)
		time.Sleep(5 * time.Second)
		second := b.hire()
		second.consume("w", "", 0, nil)
		a.cut(false)
		time.Sleep(5 * time.Second)
		w.settled()
		if len(first.errors) != 1 || first.errors[0].Code != "taken_over" || len(second.errors) > 0 {
			t.Fatalf("errors %v and %v", first.errors, second.errors)
		}
		c.publishMany("job.a", 1)
		second.ack(second.take(1)...)
		w.same(w.nodes...)
	})
}

func TestSharedKeepsWhatTheNodeHasNoRoomFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 2)
		a, b := w.nodes[0], w.nodes[1]
		h := a.hire()
		h.consume("w", "job.*", 4, nil)
		other := b.hire()
		w.settled()
		other.consume("w", "", 1, nil)
		b.publishMany("job.a", 5)
		w.settled()
		got := append(h.take(4), other.take(1)...)
		a.door.shut.Store(true)
		b.door.shut.Store(true)
		b.publishMany("job.b", 5)
		for _, m := range got[:3] {
			h.settle(protocol.SettleAck, false, nil, m)
		}
		other.settle(protocol.SettleAck, false, nil, got[4])
		other.leave()
		brief := a.hire()
		brief.session.Subscribe(&tidewirev1.Subscribe{Sub: 1, Consumer: "w"})
		time.Sleep(time.Second)
		h.idle()
		a.door.shut.Store(false)
		b.door.shut.Store(false)
		brief.leave() // which does not overtake that it came
		time.Sleep(time.Second)
		for left := 6; left > 0; left-- {
			if len(got) > 3 {
				h.ack(got[3])
				got = nil
				continue
			}
			h.ack(h.take(1)...)
		}
		w.same(w.nodes...)
		if i := b.info(); i.InFlight != 0 || i.Lag != 0 || len(i.Members) != 1 {
			t.Fatalf("%+v", i)
		}
	})
}

func TestSharedDeliversNoOldGrants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		a, b := w.nodes[0], w.nodes[1]
		if _, _, err := a.broker.PutConsumer(t.Context(), "w", request("job.*")); err != nil {
			t.Fatal(err)
		}
		w.settled()
		late := b.hire()
		late.consume("w", "", 0, nil)
		w.settled()
		b.way.Stall(true)
		a.publishMany("job.a", 3) // granted to who does not hear of it
		w.settled()
		h := a.hire()
		h.consume("w", "", 0, nil)
		time.Sleep(6 * time.Second)
		got := h.take(3)
		if got[0].Attempt != 2 {
			t.Fatalf("attempt %d", got[0].Attempt)
		}
		h.ack(got...)
		b.way.Stall(false)
		time.Sleep(5 * time.Second)
		late.idle()
		w.same(w.nodes...)
		if i := b.info(); len(i.Members) != 2 {
			t.Fatalf("%+v", i)
		}
	})
}

// A node that has not read a message yet keeps what was granted to its member. When
// another member has acknowledged it meanwhile, it is not delivered any more.
func TestSharedDeliversNothingThatIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		a, b := w.nodes[0], w.nodes[1]
		if _, _, err := a.broker.PutConsumer(t.Context(), "w", request("job.*")); err != nil {
			t.Fatal(err)
		}
		w.settled()
		late := b.hire()
		late.consume("w", "", 0, nil)
		w.settled()
		b.logs[0].Stall(true)
		a.publishMany("job.a", 10) // granted to who cannot read it
		w.settled()
		h := a.hire()
		h.consume("w", "", 0, nil)
		for i := a.info(); i.InFlight+i.Waiting+i.Held > 0; i = a.info() {
			time.Sleep(time.Second) // until each has had an attempt that was for h, or too many
			h.mu.Lock()
			n := len(h.got)
			h.mu.Unlock()
			if n > 0 {
				h.ack(h.take(n)...)
			}
		}
		w.settled()
		b.logs[0].Stall(false)
		time.Sleep(5 * time.Second)
		late.idle()
		w.same(w.nodes...)
	})
}
