package bridge

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
	real "github.com/tidewire/tidewire/tests/kafka"
	"github.com/tidewire/tidewire/tests/kafka/kafkatest"
)

// TestRealKafka runs what matters most against real Kafka, in real time.
func TestRealKafka(t *testing.T) {
	kafkatest.Need(t)
	cluster := kafkatest.Start(t, real.Options{})
	w := &world{t: t, brokers: cluster.Addresses(real.Plain), def: testDefinition()}
	w.def.Partitions = 1
	t.Run("suite", w.suite)
	t.Run("two nodes", w.twoRealNodes)
	t.Run("Kafka starts anew", func(t *testing.T) { w.realRestart(t, cluster) })
	t.Run("the topic is made anew", func(t *testing.T) { w.realRecreated(t, cluster) })
}

// fresh gives the world a new topic, made as Spec says.
func (w *world) fresh(t *testing.T, topic string, partitions int) {
	t.Helper()
	w.t, w.def.Topic, w.def.Partitions = t, topic, partitions
	spec, err := w.def.Spec(TopicOptions{Replication: 1, Retention: 7 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	c := w.client()
	defer c.Close()
	if _, err := c.CreateTopic(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	findings, err := w.def.Check(t.Context(), c, Local{Age: 7 * 24 * time.Hour, Bytes: 10 << 30})
	if err != nil || slices.ContainsFunc(findings, func(f Finding) bool { return f.Fatal }) {
		t.Fatalf("a topic as Spec says: %+v, %v", findings, err)
	}
}

func (w *world) twoRealNodes(t *testing.T) {
	w.fresh(t, "two.nodes", 3)
	a, b := w.node(), w.node()
	a.run()
	b.run()
	defer a.stop()
	defer b.stop()
	const messages = 3000
	var answers []<-chan storage.Result
	for i := range messages {
		n := []*node{a, b}[i%2]
		answers = append(answers, n.publish(entryOf(fmt.Sprint("t.", i%50), fmt.Sprint(i/2), "v")))
	}
	w.produce(int32(protocol.Partition("k", 3)), plain("k", "by Kafka"), kafka.Record{Key: []byte("k"), Time: time.Now()})
	var last [3]uint64
	for i, answer := range answers {
		r := <-answer
		if r.Err != nil {
			t.Fatalf("message %d: %v", i, r.Err)
		}
		at := &last[r.Position.Partition]
		*at = max(*at, r.Position.Offset)
	}
	at := b.stored("k", "", "end")
	last[at.Position.Partition] = at.Position.Offset
	for i, offset := range last {
		for _, n := range []*node{a, b} {
			if err := n.partitions[i].await(offset); err != nil {
				t.Fatal(err)
			}
		}
		if one, other := a.read(i), b.read(i); !slices.Equal(one, other) || len(one) == 0 {
			t.Errorf("partition %d: %d and %d messages", i, len(one), len(other))
		}
	}
	if got := a.read(int(at.Position.Partition)); !slices.Contains(got, "by Kafka") {
		t.Error("what a client of Kafka wrote is missing")
	}
}

// realRestart: Kafka goes away and comes back; nothing that was answered is lost
// or doubled, and the node goes on by itself.
func (w *world) realRestart(t *testing.T, cluster *real.Cluster) {
	w.fresh(t, "restart", 1)
	n := w.node()
	n.run()
	defer n.stop()
	n.stored("a", "", "0")
	cluster.Node(1).Kill()
	waiting := n.publish(entryOf("a", "id", "1"))
	if err := cluster.Node(1).Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := <-waiting
	again := n.stored("a", "id", "1")
	if r.Err == nil && (!again.Duplicate || again.Position != r.Position) {
		t.Errorf("%+v, then %+v", r, again)
	}
	if got := fmt.Sprint(n.read(0)); got != "[0 1]" {
		t.Error(got)
	}
}

func (w *world) realRecreated(t *testing.T, cluster *real.Cluster) {
	for _, records := range []int{2, 30} {
		topic := fmt.Sprint("recreated.", records)
		w.fresh(t, topic, 1)
		n := w.node()
		n.run()
		for i := range 5 {
			n.stored("a", "", fmt.Sprint(i))
		}
		n.stop()
		if err := cluster.DeleteTopic(t.Context(), topic); err != nil {
			t.Fatal(err)
		}
		w.fresh(t, topic, 1)
		for i := range records {
			w.produce(0, plain("a", fmt.Sprint(i)))
		}
		n = w.nodeAt(n.dir)
		n.run()
		soon(t, "it halts", func() bool { return n.partitions[0].status.haltedBy() != nil })
		n.stop()
	}
}

// soon waits for something in real time.
func soon(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline, tick := time.After(30*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// TestRealKafkaLosesItsLeader: the leader is killed under load. What was answered is
// there once, in the order of each publisher, on both nodes.
func TestRealKafkaLosesItsLeader(t *testing.T) {
	kafkatest.Need(t)
	cluster := kafkatest.Start(t, real.Options{Nodes: 3})
	w := &world{t: t, brokers: cluster.Addresses(real.Plain), def: testDefinition()}
	w.def.Topic, w.def.DedupeWindow = "failover", 100_000
	spec, err := w.def.Spec(TopicOptions{Replication: 3, MinInSync: 2, Retention: 7 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	c := w.client()
	defer c.Close()
	if _, err := c.CreateTopic(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	findings, err := w.def.Check(t.Context(), c, Local{Age: time.Hour, Bytes: 1 << 20})
	if err != nil || len(findings) > 0 {
		t.Fatalf("%+v, %v", findings, err)
	}
	a, b := w.node(), w.node()
	a.run()
	b.run()
	defer a.stop()
	defer b.stop()
	var publishers sync.WaitGroup
	var answered, again, pause atomic.Int64
	end := make(chan struct{})
	for i := range 10 {
		publishers.Go(func() {
			n := []*node{a, b}[i%2]
			for m := 0; ; m++ {
				select {
				case <-end:
					return
				default:
				}
				start := time.Now()
				for {
					text := fmt.Sprint(i, " ", m)
					r := <-n.publish(entryOf(fmt.Sprint("t.", i), text, text))
					if r.Err == nil {
						break
					}
					again.Add(1)
				}
				answered.Add(1)
				for took := int64(time.Since(start)); ; {
					if before := pause.Load(); took <= before || pause.CompareAndSwap(before, took) {
						break
					}
				}
			}
		})
	}
	soon(t, "it runs", func() bool { return answered.Load() > 500 })
	leader, err := cluster.Leader(t.Context(), w.def.Topic, 0)
	if err != nil {
		t.Fatal(err)
	}
	leader.Kill()
	before := answered.Load()
	soon(t, "it goes on", func() bool { return answered.Load() > before+1000 })
	close(end)
	publishers.Wait()
	last := a.stored("end", "", "end")
	if err := b.partitions[0].await(last.Position.Offset); err != nil {
		t.Fatal(err)
	}
	one, other := a.read(0), b.read(0)
	next := make([]int, 10)
	for _, text := range one[:len(one)-1] {
		var who, m int
		if _, err := fmt.Sscan(text, &who, &m); err != nil {
			t.Fatal(err)
		}
		if m != next[who] {
			t.Errorf("of publisher %d message %d comes where %d should", who, m, next[who])
		}
		next[who] = m + 1
	}
	t.Logf("answered %d, lost %d, repeated by publishers %d, longest pause %v", answered.Load(), answered.Load()-int64(len(one)-1), again.Load(), time.Duration(pause.Load()).Round(time.Millisecond))
	if !slices.Equal(one, other) || int64(len(one)-1) != answered.Load() {
		t.Errorf("%d answered, %d and %d stored", answered.Load(), len(one)-1, len(other)-1)
	}
}
