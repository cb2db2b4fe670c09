package bridge_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker/bridge"
	bridgekafka "github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/broker/cluster"
	"github.com/tidewire/tidewire/tests/kafka"
	"github.com/tidewire/tidewire/tests/kafka/kafkatest"
)

// realNode is a node over a real Kafka, that can be cut off from it.
type realNode struct {
	*controlNode
	client *bridgekafka.Client

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

func startReal(t *testing.T, brokers []string, name string) *realNode {
	t.Helper()
	r := &realNode{conns: make(map[net.Conn]bool)}
	var err error
	r.client, err = bridgekafka.New(bridgekafka.Options{Brokers: brokers, Dial: r.dial, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.client.Close)
	c, err := bridge.OpenControl(t.Context(), bridge.ControlOptions{Client: r.client, Topic: controlTopic})
	if err != nil {
		t.Fatal(err)
	}
	n, err := cluster.New(cluster.Options{Name: name, Version: 1, Log: c, CheckpointEvery: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.controlNode = &controlNode{Node: n, control: c, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.err = n.Run(ctx)
	}()
	t.Cleanup(r.stop)
	return r
}

func (r *realNode) dial(ctx context.Context, network, address string) (net.Conn, error) {
	r.mu.Lock()
	cut := r.cut
	r.mu.Unlock()
	if cut {
		return nil, errors.New("cut off")
	}
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		r.mu.Lock()
		r.conns[c] = true
		r.mu.Unlock()
	}
	return c, err
}

func (r *realNode) setCut(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
	for c := range r.conns {
		_ = c.Close()
	}
	clear(r.conns)
}

// until waits for something, and returns how long that took.
func until(t *testing.T, most time.Duration, what string, so func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		if time.Since(start) > most {
			t.Fatalf("not within %v: %s", most, what)
		}
		<-tick.C
	}
	return time.Since(start)
}

const realLease = "x"

func (r *realNode) lease() (l cluster.Lease) {
	r.View(func(s *cluster.State) { l, _ = s.Lease(realLease) })
	return l
}

// TestControlTopicOnKafka: the leader of the control topic dies, and nobody is
// expired; a node is cut off, and its lease moves.
func TestControlTopicOnKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three nodes of Kafka")
	}
	t.Parallel()
	k := kafkatest.Start(t, kafka.Options{Nodes: 3})
	brokers := k.Addresses(kafka.Plain)
	admin, err := bridgekafka.New(bridgekafka.Options{Brokers: brokers})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if _, err := admin.CreateTopic(t.Context(), bridge.ControlTopic(controlTopic, 3)); err != nil {
		t.Fatal(err)
	}
	nodes := []*realNode{startReal(t, brokers, "a"), startReal(t, brokers, "b"), startReal(t, brokers, "c")}
	allLive := func(n int) func() bool {
		return func() bool {
			for _, r := range nodes {
				if _, boots := r.nodes(); !r.Live() || len(boots) != n {
					return false
				}
			}
			return true
		}
	}
	until(t, 10*time.Second, "three nodes are there", allLive(3))
	a := nodes[0]
	for _, r := range nodes {
		ctx, cancel := context.WithCancel(context.Background())
		var work sync.WaitGroup
		work.Go(func() { r.Hold(ctx, realLease, func(ctx context.Context, _ uint64) { <-ctx.Done() }) })
		t.Cleanup(func() {
			cancel()
			work.Wait()
		})
		until(t, 5*time.Second, "somebody holds the lease", func() bool { return r.lease().Boot == a.Boot() })
	}
	held := a.lease()
	_, boots := a.nodes()

	leader, err := k.Leader(t.Context(), controlTopic, 0)
	if err != nil {
		t.Fatal(err)
	}
	leader.Kill()
	until(t, 10*time.Second, "the nodes notice that Kafka is away", func() bool { return !a.Live() })
	away := until(t, 40*time.Second, "all nodes are live again", allLive(3))
	if _, now := a.nodes(); fmt.Sprint(now) != fmt.Sprint(boots) || a.lease() != held {
		t.Errorf("a failover of Kafka expired somebody: %v became %v; lease %v became %v", boots, now, held, a.lease())
	}

	b := nodes[1]
	a.setCut(true)
	moved := until(t, 15*time.Second, "another node holds the lease", func() bool {
		l := b.lease()
		return l.Boot != 0 && l.Boot != a.Boot()
	})
	if a.Live() {
		t.Error("the old holder thinks that it may act")
	}
	a.setCut(false)
	back := until(t, 15*time.Second, "the node is back", allLive(3))
	t.Logf("leader killed: paused for %v; node cut off: its lease moved after %v, it was back after %v",
		away.Round(time.Millisecond), moved.Round(time.Millisecond), back.Round(time.Millisecond))
	if moved > 5*time.Second {
		t.Errorf("the lease of a dead node moved after %v", moved)
	}
}
