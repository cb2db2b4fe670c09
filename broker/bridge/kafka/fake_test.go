package kafka_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
)

// The tests run against kfake, a Kafka in the process, in virtual time: both
// ends speak over pipes inside a bubble of testing/synctest.

const topic = "orders"

// world is a fake cluster and a client of it.
type world struct {
	t       *testing.T
	net     *kfake.VirtualNetwork
	cluster *kfake.Cluster
	client  *kafka.Client
}

// inWorld runs a test in a bubble, with a cluster of three brokers that has one
// topic.
func inWorld(t *testing.T, partitions int, test func(t *testing.T, w *world), opts ...kfake.Opt) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: &kfake.VirtualNetwork{}}
		opts = append([]kfake.Opt{
			kfake.NumBrokers(3), kfake.Ports(9091, 9092, 9093), kfake.ListenFn(w.net.Listen),
			kfake.SeedTopics(int32(partitions), topic),
		}, opts...)
		cluster, err := kfake.NewCluster(opts...)
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		w.cluster = cluster
		w.client = w.newClient(nil)
		defer w.client.Close()
		test(t, w)
	})
}

// newClient returns a client of the cluster, with options of the test.
func (w *world) newClient(with func(*kafka.Options)) *kafka.Client {
	w.t.Helper()
	o := kafka.Options{
		Brokers: w.cluster.ListenAddrs(), Dial: w.net.DialContext,
		Logger: slog.New(slog.DiscardHandler),
	}
	if with != nil {
		with(&o)
	}
	c, err := kafka.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func part(n int32) kafka.Partition { return kafka.Partition{Topic: topic, Number: n} }

// outcomes collects what became of writes.
type outcomes struct {
	mu   sync.Mutex
	list []kafka.Produced
	by   map[string]kafka.Produced
}

func (o *outcomes) done(name string) func(kafka.Produced) {
	return func(p kafka.Produced) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.by == nil {
			o.by = map[string]kafka.Produced{}
		}
		if _, twice := o.by[name]; twice {
			panic("a write was answered twice: " + name)
		}
		o.by[name] = p
		o.list = append(o.list, p)
	}
}

func (o *outcomes) len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.list)
}

func (o *outcomes) get(name string) kafka.Produced {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.by[name]
}

// write queues one record whose value is its name.
func (o *outcomes) write(t *testing.T, p *kafka.Producer, n int32, name string, within time.Duration) {
	t.Helper()
	err := p.Produce(kafka.Write{
		Partition: part(n), Records: []kafka.Record{{Key: []byte("k"), Value: []byte(name), Time: time.Now()}},
		Deadline: time.Now().Add(within), Done: o.done(name),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// reading collects what a sink got.
type reading struct {
	mu     sync.Mutex
	got    []kafka.Fetched
	values []string
	errs   []error
}

func (r *reading) sink(_ context.Context, f kafka.Fetched) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, f)
	if f.Err != nil {
		r.errs = append(r.errs, f.Err)
	}
	for _, b := range f.Batches {
		for _, rec := range b.Records {
			r.values = append(r.values, string(rec.Value))
		}
	}
	return nil
}

func (r *reading) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.values)
}

func (r *reading) errors() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.errs)
}

func (r *reading) fetched() []kafka.Fetched {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// within waits until something is so, in virtual time.
func within(t *testing.T, d time.Duration, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !so(); {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", d, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func names(prefix string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return list
}

func add(t *testing.T, f *kafka.Fetcher, n int32, offset int64) *reading {
	t.Helper()
	r := &reading{}
	if err := f.Add(kafka.Source{Partition: part(n), Offset: offset, Sink: r.sink}); err != nil {
		t.Fatal(err)
	}
	return r
}

// pass lets virtual time pass.
func pass(d time.Duration) { time.Sleep(d) }
