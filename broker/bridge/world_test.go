package bridge

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// The tests run against kfake, a Kafka in the process, in virtual time.

// world is a fake cluster, and the definition of a stream in it.
type world struct {
	t       *testing.T
	net     *kfake.VirtualNetwork
	cluster *kfake.Cluster
	def     Definition
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
	c, err := kafka.New(kafka.Options{Brokers: w.cluster.ListenAddrs(), Dial: w.net.DialContext, Logger: slog.New(slog.DiscardHandler)})
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
