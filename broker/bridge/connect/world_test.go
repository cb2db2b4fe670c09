package connect

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/broker/cluster"
	"github.com/tidewire/tidewire/broker/cluster/clustertest"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// The tests run against kfake, a Kafka in the process, in virtual time; the
// control log is one in memory.

const (
	partitions = 3
	foreign    = "erp.orders"
	badTopic   = "tidewire.bad"
)

type world struct {
	t       *testing.T
	net     kfake.VirtualNetwork
	fake    *kfake.Cluster
	client  *kafka.Client
	control *clustertest.Log
}

func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, control: clustertest.New()}
		fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9091), kfake.ListenFn(w.net.Listen),
			kfake.SeedTopics(partitions, foreign), kfake.SeedTopics(1, badTopic))
		if err != nil {
			t.Fatal(err)
		}
		defer fake.Close()
		w.fake = fake
		w.client = w.connect()
		defer w.client.Close()
		test(w)
	})
}

func (w *world) connect() *kafka.Client {
	w.t.Helper()
	c, err := kafka.New(kafka.Options{Brokers: w.fake.ListenAddrs(), Dial: w.net.DialContext, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// produce writes records into a partition, each as a write of its own.
func (w *world) produce(topic string, partition int32, records ...kafka.Record) {
	w.t.Helper()
	p := w.client.NewProducer(kafka.ProducerOptions{})
	defer p.Close()
	done := make(chan error, len(records))
	for _, r := range records {
		r.Time = time.Now()
		err := p.Produce(kafka.Write{
			Partition: kafka.Partition{Topic: topic, Number: partition}, Records: []kafka.Record{r},
			Deadline: time.Now().Add(time.Minute), Done: func(r kafka.Produced) { done <- r.Err },
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	for range records {
		if err := <-done; err != nil {
			w.t.Fatal(err)
		}
	}
}

// read returns all records of a partition.
func (w *world) read(topic string, partition int32) (all []kafka.Record) {
	w.t.Helper()
	info, err := w.client.Topic(w.t.Context(), topic)
	if err != nil {
		w.t.Fatal(err)
	}
	bounds, err := w.client.Bounds(w.t.Context(), info)
	if err != nil {
		w.t.Fatal(err)
	}
	for at := bounds[partition].Start; at < bounds[partition].End; {
		b, err := w.client.BatchAt(w.t.Context(), info, partition, at)
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, b.Records...)
		at = b.Last + 1
	}
	return all
}

func header(r *kafka.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// member is a node of the cluster as far as connectors need one.
type member struct {
	*cluster.Node
	way      *clustertest.Way
	progress *cluster.Connectors
	client   *kafka.Client
	stop     func()
}

// member starts a node that runs what start makes of it.
func (w *world) member(name string, connector string, start func(m *member, c Common) func(context.Context, uint64)) *member {
	w.t.Helper()
	m := &member{way: w.control.Way(1), progress: cluster.NewConnectors(), client: w.connect()}
	n, err := cluster.New(cluster.Options{Name: name, Version: 1, Log: m.way, Parts: []cluster.Part{m.progress}})
	if err != nil {
		w.t.Fatal(err)
	}
	m.Node = n
	run := start(m, Common{
		Name: connector, Client: m.client, Progress: m.progress, Write: n.Write, BadTopic: badTopic, Logger: slog.New(slog.DiscardHandler),
	})
	holding, endHolding := context.WithCancel(w.t.Context())
	living, endLiving := context.WithCancel(w.t.Context())
	var held, lived sync.WaitGroup
	held.Go(func() { n.Hold(holding, cluster.ConnectorLease(connector), run) })
	lived.Go(func() { _ = n.Run(living) })
	m.stop = func() { // as the program does
		endHolding()
		held.Wait()
		endLiving()
		lived.Wait()
		m.way.Stall(false)
		m.way.Wait()
		m.client.Close()
	}
	return m
}

// kept is a broker that takes messages, now and then not, and drops repeats.
type kept struct {
	mu      sync.Mutex
	rand    *rand.Rand
	faults  float64 // chance that a message is refused for now
	away    bool
	ids     map[string]bool
	got     map[string][]string // payloads by topic
	all     []protocol.Message
	offered int // but for what stood behind a refusal
}

func newKept(t *testing.T, faults float64) *kept {
	seed := uint64(time.Now().UnixNano()) ^ rand.Uint64()
	t.Logf("seed %d", seed)
	return &kept{rand: rand.New(rand.NewPCG(seed, 1)), faults: faults, ids: make(map[string]bool), got: make(map[string][]string)}
}

func (k *kept) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.all)
}

// lane is a Publisher: behind a refusal nothing is taken.
type lane struct {
	*kept
	broken bool
}

func (k *kept) publisher() Publisher { return &lane{kept: k} }

func (l *lane) Publish(_ context.Context, m *protocol.Message, done func(storage.Result)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.takeLocked(m)
	time.AfterFunc(time.Duration(l.rand.IntN(20))*time.Millisecond, func() { done(r) })
}

func (l *lane) takeLocked(m *protocol.Message) (r storage.Result) {
	if !l.broken {
		l.offered++
	}
	if err := m.Check(1 << 16); err != nil {
		r.Err = err
		return r
	}
	switch {
	case l.broken:
		r.Err = protocol.Errorf(protocol.CodeOutOfOrder, "behind a refusal")
		return r
	case l.away || l.rand.Float64() < l.faults:
		l.broken = true
		r.Err = protocol.Errorf(protocol.CodeOverloaded, "not now")
		return r
	case l.rand.Float64() < l.faults:
		l.broken = true
		r.Err = protocol.Errorf(protocol.CodeUnknown, "who knows")
	}
	key := m.Topic + " " + m.ID
	if r.Duplicate = l.ids[key]; r.Duplicate {
		return r
	}
	l.ids[key] = true
	l.got[m.Topic] = append(l.got[m.Topic], string(m.Payload))
	l.all = append(l.all, *m)
	return r
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for range 1200 {
		if holds() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("two minutes have passed without: %s", what)
}

func template(t *testing.T, text string, kinds []Kind) *Template {
	t.Helper()
	parsed, err := ParseTemplate(text, kinds...)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// numbers returns the texts 0 to n-1.
func numbers(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

func sameTexts(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %d of them, want %d; %.300q", what, len(got), len(want), got)
	}
}

// pass lets virtual time pass.
func pass(d time.Duration) { time.Sleep(d) }
