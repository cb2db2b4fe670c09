package kafka_test

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	real "github.com/tidewire/tidewire/tests/kafka"
	"github.com/tidewire/tidewire/tests/kafka/kafkatest"
)

// A loop produces values and calls back with each that it has fetched again.
type loop struct {
	name    string
	produce func(value []byte)
	stop    func()
}

// BenchmarkBesideABareLoop measures what the producer and the fetcher cost
// beside the least that one can write with the library: the time from produce to
// fetched with one message at a time, and how many a second go through with
// many waiting. Both run in turns on the same Kafka; the ratios count.
//
//	go test ./broker/bridge/kafka -run - -bench Bare -benchtime 5x
func BenchmarkBesideABareLoop(b *testing.B) {
	cluster := kafkatest.Start(b, real.Options{})
	brokers := cluster.Addresses(real.Plain)
	c, err := kafka.New(kafka.Options{Brokers: brokers})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for _, name := range []string{"ours", "bare"} {
		if _, err := c.CreateTopic(b.Context(), kafka.TopicSpec{Name: name, Partitions: 1, Replication: 1}); err != nil {
			b.Fatal(err)
		}
	}
	took := map[string][]time.Duration{}
	rates := map[string][]float64{}
	got := make(chan uint64, 1<<20)
	loops := []loop{ourLoop(b, c, got), bareLoop(b, brokers, got)}
	for b.Loop() {
		for _, l := range loops {
			took[l.name] = append(took[l.name], oneByOne(l, got, 1000)...)
			rates[l.name] = append(rates[l.name], manyAtOnce(l, got, 100_000))
		}
	}
	for _, l := range loops {
		l.stop()
		slices.Sort(took[l.name])
		slices.Sort(rates[l.name])
		b.ReportMetric(float64(median(took[l.name]).Microseconds()), l.name+"-p50-us")
		b.ReportMetric(median(rates[l.name]), l.name+"/s")
	}
	b.ReportMetric(float64(median(took["ours"]))/float64(median(took["bare"])), "p50-ratio")
	b.ReportMetric(median(rates["ours"])/median(rates["bare"]), "rate-ratio")
}

func median[T any](sorted []T) T { return sorted[len(sorted)/2] }

func numbered(n uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 0, 128), n)[:128]
}

func oneByOne(l loop, got <-chan uint64, n int) []time.Duration {
	var list []time.Duration
	for i := range n {
		began := time.Now()
		l.produce(numbered(uint64(i)))
		<-got
		list = append(list, time.Since(began))
	}
	return list
}

// manyAtOnce keeps up to 4,096 messages between produce and fetched.
func manyAtOnce(l loop, got <-chan uint64, n int) float64 {
	began := time.Now()
	room := make(chan struct{}, 4096)
	go func() {
		for i := range n {
			room <- struct{}{}
			l.produce(numbered(uint64(i)))
		}
	}()
	for range n {
		<-got
		<-room
	}
	return float64(n) / time.Since(began).Seconds()
}

func ourLoop(b *testing.B, c *kafka.Client, got chan<- uint64) loop {
	p := c.NewProducer(kafka.ProducerOptions{})
	f := c.NewFetcher(kafka.FetcherOptions{})
	at := kafka.Partition{Topic: "ours"}
	err := f.Add(kafka.Source{Partition: at, Sink: func(_ context.Context, x kafka.Fetched) error {
		for _, batch := range x.Batches {
			for _, rec := range batch.Records {
				got <- binary.BigEndian.Uint64(rec.Value)
			}
		}
		return x.Err
	}})
	if err != nil {
		b.Fatal(err)
	}
	return loop{name: "ours", produce: func(v []byte) {
		err := p.Produce(kafka.Write{Partition: at, Records: []kafka.Record{{Key: []byte("k"), Value: v, Time: time.Now()}}, Deadline: time.Now().Add(time.Minute), Done: func(r kafka.Produced) {
			if r.Err != nil {
				panic(r.Err)
			}
		}})
		if err != nil {
			panic(err)
		}
	}, stop: func() { f.Close(); p.Close() }}
}

// bareLoop writes whatever waits with one request after the other, and polls.
func bareLoop(b *testing.B, brokers []string, got chan<- uint64) loop {
	transport := &kafkago.Transport{}
	client := &kafkago.Client{Addr: kafkago.TCP(brokers...), Transport: transport}
	ctx, cancel := context.WithCancel(b.Context())
	waiting := make(chan []byte, 1<<16)
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			var records []protocol.Record
			select {
			case v := <-waiting:
				records = append(records, bareRecord(v))
			case <-ctx.Done():
				return
			}
			for more := true; more && len(records) < 5000; {
				select {
				case v := <-waiting:
					records = append(records, bareRecord(v))
				default:
					more = false
				}
			}
			_, err := client.Produce(ctx, &kafkago.ProduceRequest{Topic: "bare", RequiredAcks: kafkago.RequireAll, Records: protocol.NewRecordReader(records...)})
			if err != nil && ctx.Err() == nil {
				panic(err)
			}
		}
	})
	wg.Go(func() { bareFetch(ctx, client, got) })
	return loop{name: "bare", produce: func(v []byte) { waiting <- v }, stop: func() {
		cancel()
		transport.CloseIdleConnections()
		wg.Wait()
	}}
}

func bareRecord(v []byte) protocol.Record {
	return protocol.Record{Key: protocol.NewBytes([]byte("k")), Value: protocol.NewBytes(v), Time: time.Now()}
}

func bareFetch(ctx context.Context, client *kafkago.Client, got chan<- uint64) {
	next := int64(0)
	for ctx.Err() == nil {
		res, err := client.Transport.RoundTrip(ctx, client.Addr, &fetch.Request{
			ReplicaID: -1, MaxWaitTime: 500, MinBytes: 1, MaxBytes: 8 << 20, SessionEpoch: -1,
			Topics: []fetch.RequestTopic{{Topic: "bare", Partitions: []fetch.RequestPartition{{CurrentLeaderEpoch: -1, FetchOffset: next, PartitionMaxBytes: 1 << 20}}}},
		})
		if err != nil {
			if ctx.Err() == nil {
				panic(err)
			}
			return
		}
		set := res.(*fetch.Response).Topics[0].Partitions[0].RecordSet
		if set.Records == nil {
			continue
		}
		for {
			rec, err := set.Records.ReadRecord()
			if err != nil {
				break
			}
			v, err := protocol.ReadAll(rec.Value)
			if err != nil {
				panic(err)
			}
			if rec.Offset >= next {
				next = rec.Offset + 1
				got <- binary.BigEndian.Uint64(v)
			}
		}
	}
}
