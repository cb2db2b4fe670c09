package kafka_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	real "github.com/tidewire/tidewire/tests/kafka"
	"github.com/tidewire/tidewire/tests/kafka/kafkatest"
)

// The tests of this file run against real Kafka, in real time.

const realLimit = 30 * time.Second

func realClient(t *testing.T, o kafka.Options) *kafka.Client {
	t.Helper()
	c, err := kafka.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// soon waits for something in real time.
func soon(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.After(realLimit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", realLimit, what)
		}
	}
}

func TestRealKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Kafka")
	}
	cluster := kafkatest.Start(t, real.Options{SASL: true, TLS: true})
	c := realClient(t, kafka.Options{Brokers: cluster.Addresses(real.Plain)})
	info, err := c.CreateTopic(t.Context(), kafka.TopicSpec{Name: topic, Partitions: 2, Replication: 1, Configs: map[string]string{"retention.ms": "86400000"}})
	if err != nil {
		t.Fatal(err)
	}
	p := c.NewProducer(kafka.ProducerOptions{})
	t.Cleanup(p.Close)
	r := &realCase{cluster: cluster, client: c, producer: p, info: info}
	t.Run("doors", r.doors)
	t.Run("topics", r.topics)
	t.Run("what another client writes", r.foreign)
	t.Run("refusals", r.refusals)
	t.Run("made again", r.madeAgain)
}

type realCase struct {
	cluster  *real.Cluster
	client   *kafka.Client
	producer *kafka.Producer
	info     kafka.Topic
}

func (r *realCase) doors(t *testing.T) {
	trusted := r.cluster.TLSConfig()
	user := func(mechanism, password string) kafka.SASL {
		return kafka.SASL{Mechanism: mechanism, User: real.User, Password: password}
	}
	cases := []struct {
		name string
		door real.Listener
		tls  *tls.Config
		sasl kafka.SASL
		want kafka.Kind
		says string
	}{
		{"plain", real.SASL, nil, user(kafka.Plain, real.Password), "", ""},
		{"scram 256", real.SASL, nil, user(kafka.ScramSHA256, real.Password), "", ""},
		{"scram 512 and TLS", real.SASLTLS, trusted, user(kafka.ScramSHA512, real.Password), "", ""},
		{"TLS", real.TLS, trusted, kafka.SASL{}, "", ""},
		{"wrong password", real.SASL, nil, user(kafka.Plain, "x"), kafka.BadLogin, "check user and password"},
		{"wrong password, scram", real.SASLTLS, trusted, user(kafka.ScramSHA256, "x"), kafka.BadLogin, "check user and password"},
		{"unknown user", real.SASL, nil, kafka.SASL{Mechanism: kafka.ScramSHA512, User: "x", Password: "x"}, kafka.BadLogin, "check user and password"},
		{"no login", real.SASL, nil, kafka.SASL{}, kafka.Unreachable, "may expect TLS or SASL"},
		{"login where none is", real.Plain, nil, user(kafka.Plain, real.Password), kafka.BadLogin, "leave it off"},
		{"nobody trusted", real.TLS, &tls.Config{MinVersion: tls.VersionTLS12}, kafka.SASL{}, kafka.BadTLS, "name the file of its authority"},
		{"no TLS", real.TLS, nil, kafka.SASL{}, kafka.BadTLS, "switch TLS on"},
		{"TLS where none is", real.Plain, trusted, kafka.SASL{}, kafka.Unreachable, "whether this port speaks TLS"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			client := realClient(t, kafka.Options{Brokers: r.cluster.Addresses(c.door), TLS: c.tls, SASL: c.sasl})
			began := time.Now()
			err := client.Probe(t.Context(), topic)
			expect(t, err, c.want, c.says)
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("it took %v", took)
			}
			t.Logf("%v: %v", time.Since(began), err)
		})
	}
}

func (r *realCase) topics(t *testing.T) {
	if r.info.ID == (kafka.TopicID{}) || len(r.info.Partitions) != 2 {
		t.Errorf("topic %+v", r.info)
	}
	configs, err := r.client.Configs(t.Context(), topic)
	if err != nil || configs["retention.ms"] != "86400000" || configs["max.message.bytes"] != "1048588" || configs["min.insync.replicas"] != "1" {
		t.Errorf("%v %v", configs, err)
	}
	if _, err := r.client.CreateTopic(t.Context(), kafka.TopicSpec{Name: topic, Partitions: 1, Replication: 1}); !errors.Is(err, kafka.Exists) {
		t.Error(err)
	}
	if _, err := r.client.CreateTopic(t.Context(), kafka.TopicSpec{Name: "wide", Partitions: 1, Replication: 3}); !errors.Is(err, kafka.Invalid) {
		t.Error(err)
	}
	if _, err := r.client.Topic(t.Context(), "none"); !errors.Is(err, kafka.NoTopic) {
		t.Error(err)
	}
	var o outcomes
	for _, name := range names("v", 5) {
		o.write(t, r.producer, 1, name, realLimit)
	}
	soon(t, "stored", func() bool { return o.len() == 5 })
	bounds, err := r.client.Bounds(t.Context(), r.info)
	if err != nil || !slices.Equal(bounds, []kafka.Bounds{{Partition: 0}, {Partition: 1, End: 5}}) {
		t.Errorf("%+v %v", bounds, err)
	}
	if at, err := r.client.OffsetsAt(t.Context(), r.info, time.Now().Add(time.Hour)); err != nil || !slices.Equal(at, []int64{0, 5}) {
		t.Errorf("%v %v", at, err)
	}
	b, err := r.client.BatchAt(t.Context(), r.info, 1, 4)
	if err != nil || b.Last != 4 || string(b.Records[len(b.Records)-1].Value) != "v4" {
		t.Errorf("%+v %v", b, err)
	}
	if _, err := r.client.BatchAt(t.Context(), r.info, 1, 5); !errors.Is(err, kafka.OutOfRange) {
		t.Error(err)
	}
	if _, err := r.client.BatchAt(t.Context(), r.info, 1, 6); !errors.Is(err, kafka.OutOfRange) {
		t.Error(err)
	}
}

// foreign reads what franz-go wrote: every compression, and transactions.
func (r *realCase) foreign(t *testing.T) {
	const name = "foreign"
	if _, err := r.client.CreateTopic(t.Context(), kafka.TopicSpec{Name: name, Partitions: 1, Replication: 1, Configs: map[string]string{"message.timestamp.type": "LogAppendTime"}}); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, codec := range []kgo.CompressionCodec{kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		cl, err := kgo.NewClient(kgo.SeedBrokers(r.cluster.Addresses(real.Plain)...), kgo.DefaultProduceTopic(name), kgo.ProducerBatchCompression(codec))
		if err != nil {
			t.Fatal(err)
		}
		value := fmt.Sprint(codec, strings.Repeat("again ", 500))
		want = append(want, value)
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord(value)).FirstErr(); err != nil {
			t.Fatal(err)
		}
		cl.Close()
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.cluster.Addresses(real.Plain)...), kgo.DefaultProduceTopic(name), kgo.TransactionalID("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord("tx")).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	f := r.client.NewFetcher(kafka.FetcherOptions{})
	defer f.Close()
	got := &reading{}
	if err := f.Add(kafka.Source{Partition: kafka.Partition{Topic: name}, Sink: got.sink}); err != nil {
		t.Fatal(err)
	}
	var batches []kafka.Batch
	soon(t, "all batches", func() bool {
		batches = nil
		for _, x := range got.fetched() {
			batches = append(batches, x.Batches...)
		}
		return len(batches) == 8
	})
	var values, kinds []string
	for i, b := range batches {
		if b.Bad != nil || b.Base != int64(i) || b.Last != int64(i) || !b.AppendTime || time.Since(b.MaxTime).Abs() > time.Minute {
			t.Errorf("batch %+v", b)
		}
		if b.Transactional {
			kinds = append(kinds, fmt.Sprint(b.Control, len(b.Records)))
			continue
		}
		for _, rec := range b.Records {
			values = append(values, string(rec.Value))
		}
	}
	if !slices.Equal(values, want) || !slices.Equal(kinds, []string{"false 1", "true 0", "false 1", "true 0"}) {
		t.Errorf("values %d, transactions %v", len(values), kinds)
	}
}

func (r *realCase) refusals(t *testing.T) {
	if _, err := r.client.CreateTopic(t.Context(), kafka.TopicSpec{Name: "small", Partitions: 1, Replication: 1, Configs: map[string]string{"max.message.bytes": "2000", "cleanup.policy": "compact"}}); err != nil {
		t.Fatal(err)
	}
	var o outcomes
	send := func(name string, key []byte, size int) {
		t.Helper()
		err := r.producer.Produce(kafka.Write{Partition: kafka.Partition{Topic: "small"}, Records: []kafka.Record{{Key: key, Value: make([]byte, size), Time: time.Now()}}, Deadline: time.Now().Add(realLimit), Done: o.done(name)})
		if err != nil {
			t.Fatal(err)
		}
	}
	send("first", []byte("k"), 10)
	send("large", []byte("k"), 3000)
	send("keyless", nil, 10)
	for _, name := range names("after", 20) {
		send(name, []byte("k"), 500)
	}
	soon(t, "answered", func() bool { return o.len() == 23 })
	if err := o.get("large").Err; !errors.Is(err, kafka.TooLarge) {
		t.Errorf("large: %v", err)
	}
	if err := o.get("keyless").Err; !errors.Is(err, kafka.Invalid) {
		t.Errorf("a record without a key for a compacted topic: %v", err)
	}
	for _, name := range append(names("after", 20), "first") {
		if err := o.get(name).Err; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func (r *realCase) madeAgain(t *testing.T) {
	const name = "again"
	create := func() {
		if _, err := r.client.CreateTopic(t.Context(), kafka.TopicSpec{Name: name, Partitions: 1, Replication: 1}); err != nil {
			t.Fatal(err)
		}
		var o outcomes
		err := r.producer.Produce(kafka.Write{Partition: kafka.Partition{Topic: name}, Records: []kafka.Record{{Value: []byte("v")}}, Deadline: time.Now().Add(realLimit), Done: o.done("v")})
		if err != nil {
			t.Fatal(err)
		}
		soon(t, "stored", func() bool { return o.len() == 1 })
		if err := o.get("v").Err; err != nil {
			t.Fatal(err)
		}
	}
	create()
	f := r.client.NewFetcher(kafka.FetcherOptions{})
	defer f.Close()
	got := &reading{}
	if err := f.Add(kafka.Source{Partition: kafka.Partition{Topic: name}, Sink: got.sink}); err != nil {
		t.Fatal(err)
	}
	soon(t, "fetched", func() bool { return len(got.all()) == 1 })
	if err := r.cluster.DeleteTopic(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	create()
	soon(t, "told", func() bool {
		return slices.ContainsFunc(got.errors(), func(err error) bool { return errors.Is(err, kafka.TopicChanged) })
	})
	if len(got.all()) != 1 {
		t.Errorf("records of the new topic: %v", got.all())
	}
}

// A stream of writes to all partitions, while the leader of one is killed and
// another one is stopped and woken: nothing that was answered is lost, and the
// order is kept.
func TestRealKafkaLosesItsLeader(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Kafka")
	}
	const partitions = 3
	cluster := kafkatest.Start(t, real.Options{Nodes: 3})
	c := realClient(t, kafka.Options{Brokers: cluster.Addresses(real.Plain)})
	if _, err := c.CreateTopic(t.Context(), kafka.TopicSpec{Name: topic, Partitions: partitions, Replication: 3, Configs: map[string]string{"min.insync.replicas": "2"}}); err != nil {
		t.Fatal(err)
	}
	p := c.NewProducer(kafka.ProducerOptions{})
	defer p.Close()
	f := c.NewFetcher(kafka.FetcherOptions{})
	defer f.Close()
	l := &load{producer: p, answered: make([][]string, partitions)}
	var readings []*reading
	for n := range int32(partitions) {
		readings = append(readings, add(t, f, n, 0))
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for n := range int32(partitions) {
		wg.Go(func() { l.run(ctx, n) })
	}
	fault := func(what string, do func(n *real.Node)) {
		t.Helper()
		leader, err := cluster.Leader(t.Context(), topic, 0)
		if err != nil {
			t.Fatal(err)
		}
		l.steady(t)
		began := time.Now()
		do(leader)
		l.steady(t)
		t.Logf("%s: every partition took writes again after %v", what, time.Since(began))
	}
	var killed *real.Node
	fault("kill -9 of a leader", func(n *real.Node) { killed = n; n.Kill() })
	if err := killed.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	fault("a leader stands still", func(n *real.Node) { killed = n; n.Stop() })
	killed.Continue()
	l.steady(t)
	stop()
	wg.Wait()
	for n, r := range readings {
		want := l.list(n)
		soon(t, "all fetched", func() bool {
			got := r.all()
			return len(got) > 0 && got[len(got)-1] >= want[len(want)-1]
		})
		got := withoutRepeats(r.all())
		t.Logf("partition %d: %d answered, %d in the log, %d of them repeats; in all partitions %d failed", n, len(want), len(r.all()), len(r.all())-len(got), l.failed)
		if !slices.IsSorted(got) {
			t.Errorf("partition %d: first appearances are out of order", n)
		}
		in := map[string]bool{}
		for _, v := range got {
			in[v] = true
		}
		for _, v := range want {
			if !in[v] {
				t.Errorf("partition %d: %s was answered and is lost", n, v)
			}
		}
	}
}

// load writes numbered values, and notes those that were answered.
type load struct {
	producer *kafka.Producer
	mu       sync.Mutex
	answered [][]string
	failed   int
}

func (l *load) run(ctx context.Context, n int32) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := 0; ctx.Err() == nil; i++ {
		<-tick.C
		value := fmt.Sprintf("%08d", i)
		wg.Add(1)
		err := l.producer.Produce(kafka.Write{
			Partition: part(n), Records: []kafka.Record{{Key: []byte("k"), Value: []byte(value), Time: time.Now()}},
			Deadline: time.Now().Add(realLimit),
			Done: func(p kafka.Produced) {
				defer wg.Done()
				l.mu.Lock()
				defer l.mu.Unlock()
				if p.Err != nil {
					l.failed++
					return
				}
				l.answered[n] = append(l.answered[n], value)
			},
		})
		if err != nil {
			wg.Done()
			return
		}
	}
}

func (l *load) list(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.answered[n])
}

// steady waits until each partition has taken a hundred more.
func (l *load) steady(t *testing.T) {
	t.Helper()
	for n := range l.answered {
		from := len(l.list(n))
		soon(t, "more answers", func() bool { return len(l.list(n)) >= from+100 })
	}
}
