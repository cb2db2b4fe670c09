package bridge_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tidewire/tidewire/broker/bridge"
	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/broker/cluster"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

const controlTopic = "tidewire.control"

// controlWorld is a Kafka in the process, in virtual time, that can be cut off.
type controlWorld struct {
	t       *testing.T
	net     *kfake.VirtualNetwork
	cluster *kfake.Cluster
	client  *kafka.Client

	mu    sync.Mutex
	away  bool
	conns map[net.Conn]bool
}

func inControlWorld(t *testing.T, test func(t *testing.T, w *controlWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &controlWorld{t: t, net: &kfake.VirtualNetwork{}, conns: make(map[net.Conn]bool)}
		cluster, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.Ports(9091, 9092, 9093), kfake.ListenFn(w.net.Listen))
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		w.cluster = cluster
		w.client = w.newClient()
		defer w.client.Close()
		w.create()
		test(t, w)
	})
}

func (w *controlWorld) newClient() *kafka.Client {
	w.t.Helper()
	c, err := kafka.New(kafka.Options{Brokers: w.cluster.ListenAddrs(), Dial: w.dial, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *controlWorld) create() kafka.Topic {
	w.t.Helper()
	topic, err := w.client.CreateTopic(w.t.Context(), bridge.ControlTopic(controlTopic, 3))
	if err != nil {
		w.t.Fatal(err)
	}
	return topic
}

func (w *controlWorld) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away {
		return nil, errors.New("Kafka is away")
	}
	c, err := w.net.DialContext(ctx, network, address)
	if err == nil {
		w.conns[c] = true
	}
	return c, err
}

// setAway cuts every connection, or lets them be made again.
func (w *controlWorld) setAway(away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away = away
	for c := range w.conns {
		_ = c.Close()
	}
	clear(w.conns)
}

func (w *controlWorld) open(file string) (*bridge.Control, error) {
	return bridge.OpenControl(w.t.Context(), bridge.ControlOptions{Client: w.client, Topic: controlTopic, File: file})
}

// controlNode is a node over the topic.
type controlNode struct {
	*cluster.Node
	control *bridge.Control
	cancel  context.CancelFunc
	ended   chan struct{}
	err     error
}

func (w *controlWorld) start(name string, parts ...cluster.Part) *controlNode {
	w.t.Helper()
	c, err := w.open("")
	if err != nil {
		w.t.Fatal(err)
	}
	n, err := cluster.New(cluster.Options{Name: name, Version: 1, Log: c, Parts: parts, CheckpointEvery: 5 * time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	r := &controlNode{Node: n, control: c, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.err = n.Run(ctx)
	}()
	return r
}

func (r *controlNode) stop() {
	r.cancel()
	<-r.ended
	r.control.Close()
}

func (r *controlNode) nodes() (names string, boots map[uint64]bool) {
	boots = make(map[uint64]bool)
	r.View(func(s *cluster.State) {
		for _, n := range s.Nodes() {
			names += n.Name
			boots[n.Boot] = true
		}
	})
	return names, boots
}

func TestNodesOverTheControlTopic(t *testing.T) {
	inControlWorld(t, func(t *testing.T, w *controlWorld) {
		a, b := w.start("a"), w.start("b")
		time.Sleep(3 * time.Second)
		names, boots := a.nodes()
		if len(names) != 2 || !a.Live() || !b.Live() {
			t.Fatalf("nodes: %s, live: %v %v", names, a.Live(), b.Live())
		}
		time.Sleep(5 * time.Second)

		w.setAway(true)
		time.Sleep(2500 * time.Millisecond)
		if a.Live() || b.Live() {
			t.Error("a node thinks that it may act without Kafka")
		}
		if err := a.Write(&clusterv1.Record{Record: &clusterv1.Record_Claim{Claim: &clusterv1.Claim{Lease: "x"}}}); err != nil {
			t.Error(err)
		}
		time.Sleep(20 * time.Second)
		if a.control.Trouble() == nil {
			t.Error("nothing is said about Kafka being away")
		}
		w.setAway(false)
		time.Sleep(8 * time.Second)
		if _, now := a.nodes(); fmt.Sprint(now) != fmt.Sprint(boots) {
			t.Errorf("nodes %v became %v while Kafka was away for all alike", boots, now)
		}
		if !a.Live() || !b.Live() || a.control.Trouble() != nil {
			t.Errorf("no recovery: %v %v, %v", a.Live(), b.Live(), a.control.Trouble())
		}
		a.View(func(s *cluster.State) {
			if l, held := s.Lease("x"); !held || l.Boot != a.Boot() {
				t.Error("what was written while Kafka was away got lost")
			}
			if s.Checkpoint() == 0 {
				t.Error("no checkpoint was written")
			}
		})

		c := w.start("c") // from the checkpoint
		time.Sleep(2 * time.Second)
		if names, _ := c.nodes(); len(names) != 3 || !c.Live() {
			t.Errorf("a node that starts late knows %s", names)
		}
		sameStates(t, a, b, c)
		for _, n := range []*controlNode{a, b, c} {
			n.stop()
			if n.err != nil {
				t.Error(n.err)
			}
		}
	})
}

// sameStates waits until the nodes are at one index, and compares them there.
func sameStates(t *testing.T, nodes ...*controlNode) {
	t.Helper()
	for range 50 {
		states := make(map[string]bool)
		for _, n := range nodes {
			n.View(func(s *cluster.State) { states[string(s.AppendState(nil))] = true })
		}
		if len(states) == 1 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("the nodes have other states")
}

func TestControlTopicIsRecognised(t *testing.T) {
	inControlWorld(t, func(t *testing.T, w *controlWorld) {
		file := filepath.Join(t.TempDir(), "control.json")
		c, err := w.open(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Produce(t.Context(), []byte("one")); err != nil {
			t.Fatal(err)
		}
		if err := c.Produce(t.Context(), []byte("two")); err != nil {
			t.Fatal(err)
		}
		stop := errors.New("stop")
		if err := c.Read(t.Context(), 1, func(index uint64, _ []byte) error {
			if index == 2 {
				return stop
			}
			return nil
		}); !errors.Is(err, stop) {
			t.Fatal(err)
		}
		c.Close()
		again := func(want string) {
			t.Helper()
			c, err := w.open(file)
			if err == nil {
				c.Close()
			}
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("opened: %v, want %q", err, want)
			}
		}
		again("")

		was, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		write := func(s string) {
			t.Helper()
			if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(strings.Replace(string(was), `"index":2`, `"index":3`, 1))
		again("has lost records: it ends at offset 2")
		write(string(regexp.MustCompile(`"checksum":"\d+"`).ReplaceAll(was, []byte(`"checksum":"7"`))))
		again("the record at offset 1 is not the one")
		write("{")
		again("cannot be read")
		write(string(was))
		if err := w.cluster.DeleteTopic(controlTopic); err != nil {
			t.Fatal(err)
		}
		again("there is no control topic")
		w.create()
		again("deleted and created again")
	})
}

func TestControlTopicWhoseBeginningIsGone(t *testing.T) {
	inControlWorld(t, func(t *testing.T, w *controlWorld) {
		a := w.start("a")
		time.Sleep(8 * time.Second)
		var checkpoint, index uint64
		a.View(func(s *cluster.State) { checkpoint, index = s.Checkpoint(), s.Index() })
		if checkpoint == 0 {
			t.Fatal("no checkpoint")
		}
		gone := func(first uint64) {
			t.Helper()
			if err := w.cluster.DeleteRecords(controlTopic, 0, int64(first)-1); err != nil {
				t.Fatal(err)
			}
		}
		gone(checkpoint)
		b := w.start("b")
		time.Sleep(time.Second)
		if names, _ := b.nodes(); names != "ab" {
			t.Errorf("a node that starts with a checkpoint knows %q", names)
		}
		gone(index)
		ended := false
		select {
		case <-b.ended:
			ended = true
		default:
		}
		if ended {
			t.Errorf("a node that had read all ended: %v", b.err)
		}
		c := w.start("c")
		time.Sleep(time.Second)
		if st := c.Status(); st.CaughtUp || !strings.Contains(st.Problem, "no whole checkpoint") {
			t.Errorf("a node that cannot know the state: %+v", st)
		}
		time.Sleep(12 * time.Second) // a writes another one
		if names, _ := c.nodes(); names != "abc" {
			t.Errorf("a node that waited for a checkpoint knows %q: %+v", names, c.Status())
		}
		sameStates(t, a, b, c)
		for _, n := range []*controlNode{a, b, c} {
			n.stop()
			if n.err != nil {
				t.Error(n.err)
			}
		}
	})
}

func TestControlTopicRecreatedUnderANode(t *testing.T) {
	inControlWorld(t, func(t *testing.T, w *controlWorld) {
		a := w.start("a")
		time.Sleep(3 * time.Second)
		if err := w.cluster.DeleteTopic(controlTopic); err != nil {
			t.Fatal(err)
		}
		w.create()
		time.Sleep(10 * time.Second)
		select {
		case <-a.ended:
			if a.err == nil || !strings.Contains(a.err.Error(), "deleted and created again") {
				t.Errorf("the node ended with %v", a.err)
			}
		default:
			t.Error("the node goes on with another topic")
		}
		a.stop()
	})
}

func TestControlTopicIsChecked(t *testing.T) {
	for want, change := range map[string]func(*kafka.TopicSpec){
		"":                  func(*kafka.TopicSpec) {},
		"has 2 partitions":  func(s *kafka.TopicSpec) { s.Partitions = 2 },
		"cleanup.policy of": func(s *kafka.TopicSpec) { s.Configs["cleanup.policy"] = "compact" },
		"retention.ms of":   func(s *kafka.TopicSpec) { s.Configs["retention.ms"] = "3600000" },
		"retention.bytes":   func(s *kafka.TopicSpec) { s.Configs["retention.bytes"] = "1000000" },
		"max.message.bytes": func(s *kafka.TopicSpec) { s.Configs["max.message.bytes"] = "1000" },
	} {
		inControlWorld(t, func(t *testing.T, w *controlWorld) {
			spec := bridge.ControlTopic("other", 3)
			change(&spec)
			if _, err := w.client.CreateTopic(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
			c, err := bridge.OpenControl(t.Context(), bridge.ControlOptions{Client: w.client, Topic: "other"})
			if err == nil {
				c.Close()
			}
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("opened: %v, want %q", err, want)
			}
		})
	}
}

// TestControlTopicOfForeigners: what others write there is nothing, to all nodes alike.
func TestControlTopicOfForeigners(t *testing.T) {
	inControlWorld(t, func(t *testing.T, w *controlWorld) {
		a := w.start("a")
		time.Sleep(time.Second)
		p := w.client.NewProducer(kafka.ProducerOptions{})
		defer p.Close()
		for _, value := range [][]byte{nil, {}, []byte("hello"), {0xff}} {
			if err := p.Produce(kafka.Write{
				Partition: kafka.Partition{Topic: controlTopic}, Deadline: time.Now().Add(time.Second),
				Records: []kafka.Record{{Time: time.Now(), Value: value}}, Done: func(kafka.Produced) {},
			}); err != nil {
				t.Fatal(err)
			}
		}
		b := w.start("b")
		time.Sleep(3 * time.Second)
		if names, _ := b.nodes(); names != "ab" {
			t.Errorf("nodes: %s", names)
		}
		sameStates(t, a, b)
		a.stop()
		b.stop()
	})
}

// TestControlTopicThatLosesItsEnd: Kafka says that the place is not there.
func TestControlTopicThatLosesItsEnd(t *testing.T) {
	inControlWorld(t, func(t *testing.T, w *controlWorld) {
		c, err := w.open("")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range 5 {
			if err := c.Produce(t.Context(), []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		nothing := func(uint64, []byte) error { return nil }
		if err := c.Read(t.Context(), 9, nothing); err == nil || !strings.Contains(err.Error(), "has lost records: it ends at offset 5") {
			t.Errorf("reading behind the end: %v", err)
		}
		if err := w.cluster.DeleteRecords(controlTopic, 0, 3); err != nil {
			t.Fatal(err)
		}
		if err := c.Read(t.Context(), 3, nothing); !errors.Is(err, cluster.ErrGone) {
			t.Errorf("reading what is gone: %v", err)
		}
	})
}

// counter is a part to which each boot tells the numbers from 1 on.
type counter struct {
	t    *testing.T
	last map[uint64]uint64
}

func (*counter) Name() string                                      { return "counter" }
func (*counter) Changed(*cluster.State, cluster.At, cluster.Event) {}
func (*counter) LoadState([]byte) error                            { return nil }
func (*counter) AppendState(b []byte) []byte                       { return b }
func (c *counter) Apply(_ *cluster.State, at cluster.At, rec *clusterv1.Record) {
	b := rec.ProtoReflect().GetUnknown()
	_, _, n := protowire.ConsumeTag(b)
	number, _ := protowire.ConsumeVarint(b[n:])
	if number != c.last[at.Boot]+1 {
		c.t.Errorf("index %d: number %d of boot %x came behind %d", at.Index, number, at.Boot, c.last[at.Boot])
	}
	c.last[at.Boot] = number
}

func numbered(n uint64) *clusterv1.Record {
	rec := new(clusterv1.Record)
	rec.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), n))
	return rec
}

// TestControlTopicUnderCuts: connections are cut all the time, and Kafka says of what it
// has stored that it has not; what nodes write is applied once, in order.
func TestControlTopicUnderCuts(t *testing.T) {
	inControlWorld(t, func(t *testing.T, w *controlWorld) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		rng := rand.New(rand.NewPCG(seed, 0))
		lies := rand.New(rand.NewPCG(seed, 1))
		counters := []*counter{{t, make(map[uint64]uint64)}, {t, make(map[uint64]uint64)}}
		nodes := []*controlNode{w.start("a", counters[0]), w.start("b", counters[1])}
		time.Sleep(3 * time.Second)
		fault := w.cluster.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicasAfterAppend, Count: -1,
			When: func(kmsg.Request) bool { return lies.IntN(10) == 0 },
		})
		written := make(map[uint64]uint64)
		cut := time.Now()
		for range 1000 {
			time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
			if time.Since(cut) > 150*time.Millisecond {
				cut = time.Now()
				w.setAway(false)
			}
			n := nodes[rng.IntN(2)]
			if n.Queued() > 0 && rng.IntN(4) == 0 { // something is under way
				w.setAway(rng.IntN(2) == 0)
			}
			if boot := n.Boot(); n.Write(numbered(written[boot]+1)) == nil {
				written[boot]++
			}
		}
		w.setAway(false)
		fault.Remove()
		time.Sleep(10 * time.Second)
		sameStates(t, nodes...)
		for i, n := range nodes {
			if is := counters[1-i].last[n.Boot()]; is != written[n.Boot()] || is == 0 {
				t.Errorf("%d of %d records were applied", is, written[n.Boot()])
			}
		}
		if w.repeats() == 0 {
			t.Error("nothing was stored twice")
		}
		for _, n := range nodes {
			n.stop()
			if n.err != nil {
				t.Error(n.err)
			}
		}
	})
}

// repeats is how many values are in the topic more than once.
func (w *controlWorld) repeats() (n int) {
	w.t.Helper()
	c, err := w.open("")
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	_, last, err := c.Bounds(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	seen := make(map[string]bool)
	end := errors.New("end")
	err = c.Read(w.t.Context(), 1, func(index uint64, value []byte) error {
		if seen[string(value)] {
			n++
		}
		seen[string(value)] = true
		if index == last {
			return end
		}
		return nil
	})
	if !errors.Is(err, end) {
		w.t.Fatal(err)
	}
	return n
}

// TestControlTopicWithoutPermission: who has just been configured is told at once.
func TestControlTopicWithoutPermission(t *testing.T) {
	inControlWorld(t, func(t *testing.T, w *controlWorld) {
		fault := w.cluster.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.Metadata}, Topic: controlTopic, Err: kerr.TopicAuthorizationFailed, Count: -1,
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := bridge.OpenControl(ctx, bridge.ControlOptions{Client: w.client, Topic: controlTopic})
		if !errors.Is(err, kafka.Denied) {
			t.Errorf("opened: %v", err)
		}
		fault.Remove()
	})
}

// TestControlTopicRecreatedBeforeItIsRead: the topic that was checked is the one that
// is read.
func TestControlTopicRecreatedBeforeItIsRead(t *testing.T) {
	inControlWorld(t, func(t *testing.T, w *controlWorld) {
		c, err := w.open("")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := w.cluster.DeleteTopic(controlTopic); err != nil {
			t.Fatal(err)
		}
		w.create()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err = c.Read(ctx, 1, func(uint64, []byte) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "deleted and created again") {
			t.Errorf("reading another topic: %v", err)
		}
	})
}
