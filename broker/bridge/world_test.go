package bridge

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// The tests run against kfake, a Kafka in the process, in virtual time.

// world is a fake cluster, and the definition of a stream in it.
type world struct {
	t       *testing.T
	net     *kfake.VirtualNetwork
	cluster *kfake.Cluster // nil in the tests on real Kafka
	brokers []string       // else
	def     Definition

	mu    sync.Mutex
	away  bool
	conns []net.Conn
}

// cut takes Kafka away from all nodes, or gives it back.
func (w *world) cut(away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away = away
	if away {
		for _, c := range w.conns {
			_ = c.Close()
		}
		w.conns = nil
	}
}

func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	away := w.away
	w.mu.Unlock()
	if away {
		return nil, errors.New("nobody is there")
	}
	c, err := w.net.DialContext(ctx, network, address)
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.conns = append(w.conns, c)
	}
	return c, err
}

// inWorld runs a test in a bubble, with a topic of so many partitions.
func inWorld(t *testing.T, partitions int, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, partitions)
		defer w.cluster.Close()
		test(w)
	})
}

func newWorld(t *testing.T, partitions int) *world {
	t.Helper()
	w := &world{t: t, net: &kfake.VirtualNetwork{}, def: testDefinition()}
	w.def.Partitions, w.def.DedupeWindow = partitions, 1000
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9091), kfake.ListenFn(w.net.Listen), kfake.SeedTopics(int32(partitions), w.def.Topic))
	if err != nil {
		t.Fatal(err)
	}
	w.cluster = cluster
	return w
}

func (w *world) client() *kafka.Client {
	w.t.Helper()
	o := kafka.Options{Brokers: w.brokers, Logger: slog.New(slog.DiscardHandler)}
	if w.cluster != nil {
		o.Brokers, o.Dial = w.cluster.ListenAddrs(), w.dial
	}
	c, err := kafka.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// node is a broker process as far as this package is one: a link and a stream.
type node struct {
	w      *world
	dir    string
	opts   StreamOptions
	client *kafka.Client
	link   *Link
	store  *storage.Store
	stop   func()
	*Stream
}

// open opens a node over a data directory.
func (w *world) open(dir string, change ...func(*StreamOptions)) (*node, error) {
	w.t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	store, err := storage.Open(dir, storage.Options{ReserveBytes: -1, Logger: quiet})
	if err != nil {
		w.t.Fatal(err)
	}
	n := &node{w: w, dir: dir, store: store, client: w.client()}
	n.link = NewLink(n.client)
	n.opts = StreamOptions{Definition: w.def, Store: store, Logger: quiet}
	for _, c := range change {
		c(&n.opts)
	}
	n.Stream, err = n.link.Open(w.t.Context(), n.opts)
	return n, err
}

// node opens a node over a new directory.
func (w *world) node(change ...func(*StreamOptions)) *node {
	w.t.Helper()
	return w.nodeAt(w.t.TempDir(), change...)
}

func (w *world) nodeAt(dir string, change ...func(*StreamOptions)) *node {
	w.t.Helper()
	n, err := w.open(dir, change...)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (n *node) close() {
	n.w.t.Helper()
	n.link.Close()
	if err := n.Close(); err != nil {
		n.w.t.Error(err)
	}
	if err := n.store.Close(); err != nil {
		n.w.t.Error(err)
	}
	n.client.Close()
}

// start runs all partitions and returns what ends them.
func (n *node) start(apply func(*storage.Commit)) (stop func() error) {
	ctx, cancel := context.WithCancel(n.w.t.Context())
	ends := make(chan error, len(n.partitions))
	for _, p := range n.partitions {
		go func() { ends <- p.Run(ctx, apply) }()
	}
	return func() error {
		cancel()
		var first error
		for range n.partitions {
			if err := <-ends; err != nil && first == nil {
				first = err
			}
		}
		return first
	}
}

// answering hands the answers of commits to those who wait for them.
func answering(c *storage.Commit) {
	for _, a := range c.Answers {
		a.Entry.Done(a.Result)
	}
}

// run runs a node until stop is called.
func (n *node) run() {
	n.w.t.Helper()
	stop := n.start(answering)
	n.stop = func() {
		if err := stop(); err != nil {
			n.w.t.Error(err)
		}
		n.close()
	}
}

// entryOf makes an entry of a message.
func entryOf(topic, id, payload string) *storage.Entry {
	m := protocol.Message{Topic: topic, ID: id, Payload: []byte(payload)}
	e := &storage.Entry{Topic: topic, Record: protocol.AppendRecord(nil, &m), Payload: storage.PayloadHash(m.Payload)}
	if id != "" {
		e.Key = storage.KeyOf(topic, id)
	}
	return e
}

// publish appends an entry to the partition of its topic and returns what takes
// the answer.
func (n *node) publish(e *storage.Entry) <-chan storage.Result {
	n.w.t.Helper()
	answer := make(chan storage.Result, 1)
	e.Done = func(r storage.Result) { answer <- r }
	p := n.partitions[protocol.Partition(e.Topic, len(n.partitions))]
	if err := p.Append(n.w.t.Context(), e); err != nil {
		answer <- storage.Result{Err: protocol.AsError(err)}
	}
	return answer
}

// read returns the payloads of a partition.
func (n *node) read(partition int) (payloads []string) {
	n.w.t.Helper()
	p := n.partitions[partition]
	f, err := protocol.ParseFilter(">")
	if err != nil {
		n.w.t.Fatal(err)
	}
	earliest, head := p.Bounds()
	for after := earliest - 1; after < head; {
		c, err := p.Read(storage.Query{Filter: f, After: after})
		if err != nil {
			n.w.t.Fatal(err)
		}
		for m, err := range c.Messages() {
			if err != nil {
				n.w.t.Fatal(err)
			}
			payloads = append(payloads, string(m.Payload))
		}
		after = c.Through
	}
	return payloads
}

// create creates the topic of the definition.
func (w *world) create(c *kafka.Client) {
	w.t.Helper()
	_, err := c.CreateTopic(w.t.Context(), kafka.TopicSpec{Name: w.def.Topic, Partitions: int32(w.def.Partitions), Replication: 1})
	if err != nil {
		w.t.Fatal(err)
	}
}

// produce writes records as a client of Kafka does.
func (w *world) produce(partition int32, records ...kafka.Record) {
	w.t.Helper()
	c := w.client()
	defer c.Close()
	p := c.NewProducer(kafka.ProducerOptions{})
	defer p.Close()
	done := make(chan kafka.Produced, 1)
	err := p.Produce(kafka.Write{
		Partition: kafka.Partition{Topic: w.def.Topic, Number: partition}, Records: records,
		Deadline: time.Now().Add(time.Minute), Done: func(r kafka.Produced) { done <- r },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if r := <-done; r.Err != nil {
		w.t.Fatal(r.Err)
	}
}

// plain is a record of a client of Kafka.
func plain(topic, payload string) kafka.Record {
	return kafka.Record{Key: []byte(topic), Value: []byte(payload), Time: time.Now()}
}

// stored publishes and wants it to be stored.
func (n *node) stored(topic, id, payload string) storage.Result {
	n.w.t.Helper()
	r := <-n.publish(entryOf(topic, id, payload))
	if r.Err != nil {
		n.w.t.Fatalf("%s on %s: %v", payload, topic, r.Err)
	}
	return r
}

// until waits until a condition holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for range 600 {
		if holds() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("a minute has passed without: %s", what)
}

// timeOut lets Kafka store the next writes and say that it could not.
func (w *world) timeOut(n int) {
	w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut, Count: n})
}

// swallow lets Kafka take writes and neither store nor answer them, until release
// is called.
func (w *world) swallow() (release func()) {
	var off atomic.Bool
	w.cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		if off.Load() {
			return nil, nil, false
		}
		w.cluster.KeepControl()
		return nil, nil, true
	})
	return func() { off.Store(true) }
}

// pass lets virtual time pass.
func pass(d time.Duration) { time.Sleep(d) }

// hide lets Kafka not answer when single records are asked for, as identity does.
func (w *world) hide() {
	w.cluster.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		if r.(*kmsg.FetchRequest).MaxBytes != 1 {
			return nil, nil, false
		}
		w.cluster.KeepControl()
		return nil, errors.New("hidden"), true
	})
}
