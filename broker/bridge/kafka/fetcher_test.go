package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
)

// foreign is another client of Kafka, with what ours does not do.
func (w *world) foreign(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(w.cluster.ListenAddrs()...), kgo.Dialer(w.net.DialContext),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(topic),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

func (w *world) fetcher(t *testing.T, o kafka.FetcherOptions) *kafka.Fetcher {
	t.Helper()
	return w.client.NewFetcher(o)
}

// fill writes records with the names to partition 0, one batch each.
func (w *world) fill(t *testing.T, n int32, names []string) {
	t.Helper()
	p := w.client.NewProducer(kafka.ProducerOptions{})
	defer p.Close()
	for _, name := range names {
		var o outcomes
		o.write(t, p, n, name, time.Minute)
		within(t, 10*time.Second, "stored", func() bool { return o.len() == 1 })
		if err := o.get(name).Err; err != nil {
			t.Fatal(err)
		}
	}
}

func TestFetchFollowsTheLeader(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		f := w.fetcher(t, kafka.FetcherOptions{})
		defer f.Close()
		var readings []*reading
		for n := range int32(3) {
			readings = append(readings, add(t, f, n, 0))
		}
		for round := range 5 {
			w.cluster.ShufflePartitionLeaders()
			for n := range int32(3) {
				w.fill(t, n, names(fmt.Sprintf("r%d-", round), 10))
			}
		}
		for n, r := range readings {
			within(t, 10*time.Second, "all fetched", func() bool { return len(r.all()) >= 50 })
			var want []string
			for round := range 5 {
				want = append(want, names(fmt.Sprintf("r%d-", round), 10)...)
			}
			if !slices.Equal(r.all(), want) {
				t.Errorf("partition %d: %v", n, r.all())
			}
			if errs := r.errors(); len(errs) > 0 {
				t.Errorf("moves of a leader were told: %v", errs)
			}
			var last int32
			for _, got := range r.fetched() {
				if got.Epoch < last {
					t.Errorf("the epoch goes from %d to %d", last, got.Epoch)
				}
				last = got.Epoch
			}
		}
	})
}

func TestTransactionsAreToldAndAControlBatchIsSteppedOver(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.fill(t, 0, []string{"plain"})
		cl := w.foreign(t, kgo.TransactionalID("tx"))
		defer cl.Close()
		for i, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
			if err := cl.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := cl.ProduceSync(t.Context(), kgo.StringRecord(fmt.Sprint("tx", i))).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := cl.EndTransaction(t.Context(), end); err != nil {
				t.Fatal(err)
			}
		}
		fetches := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Observe: true, Count: -1})
		f := w.fetcher(t, kafka.FetcherOptions{})
		defer f.Close()
		r := add(t, f, 0, 0)
		pass(10 * time.Second)
		var kinds []string
		next := int64(0)
		for _, got := range r.fetched() {
			for _, b := range got.Batches {
				if b.Base != next || b.Bad != nil {
					t.Errorf("batch %+v, want base %d", b, next)
				}
				next = b.Last + 1
				kinds = append(kinds, fmt.Sprintf("%t/%t/%d", b.Transactional, b.Control, len(b.Records)))
			}
		}
		want := []string{"false/false/1", "true/false/1", "true/true/0", "true/false/1", "true/true/0"}
		if !slices.Equal(kinds, want) {
			t.Errorf("transactional/control/records: %v", kinds)
		}
		if n := fetches.Hits(); n > 25 {
			t.Errorf("%d fetches in 10 s, most of them of an end that has only a control batch", n)
		}
	})
}

func TestNullIsNotEmpty(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		p := w.client.NewProducer(kafka.ProducerOptions{})
		defer p.Close()
		at := time.UnixMilli(1_700_000_000_123)
		sent := []kafka.Record{
			{Time: at},
			{Time: at.Add(-time.Hour), Key: []byte{}, Value: []byte{}},
			{Time: at.Add(time.Second), Key: []byte("k"), Value: []byte("v"), Headers: []kafka.Header{{Key: "h"}, {Key: "h", Value: []byte{}}, {Key: "", Value: []byte("x")}}},
		}
		var o outcomes
		err := p.Produce(kafka.Write{Partition: part(0), Records: sent, Deadline: time.Now().Add(time.Minute), Done: o.done("all")})
		if err != nil {
			t.Fatal(err)
		}
		f := w.fetcher(t, kafka.FetcherOptions{})
		defer f.Close()
		r := add(t, f, 0, 0)
		within(t, 5*time.Second, "fetched", func() bool { return len(r.all()) == 3 })
		var got []kafka.Record
		for _, x := range r.fetched() {
			for _, b := range x.Batches {
				got = append(got, b.Records...)
			}
		}
		for i, rec := range got {
			want := sent[i]
			if rec.Offset != int64(i) || !rec.Time.Equal(want.Time) || !sameBytes(rec.Key, want.Key) || !sameBytes(rec.Value, want.Value) || len(rec.Headers) != len(want.Headers) {
				t.Errorf("got %+v, want %+v", rec, want)
			}
			for j, h := range rec.Headers {
				if h.Key != want.Headers[j].Key || !sameBytes(h.Value, want.Headers[j].Value) {
					t.Errorf("header %+v, want %+v", h, want.Headers[j])
				}
			}
		}
	})
}

// sameBytes keeps nil apart from empty.
func sameBytes(a, b []byte) bool { return (a == nil) == (b == nil) && string(a) == string(b) }

func TestEveryCompressionIsRead(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		var want []string
		for _, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
			cl := w.foreign(t, kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(10*time.Millisecond))
			var records []*kgo.Record
			for i := range 100 {
				value := fmt.Sprint(codec, i, strings.Repeat("again ", 50))
				want = append(want, value)
				records = append(records, kgo.StringRecord(value))
			}
			if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			cl.Close()
		}
		if got := w.logged(t); !slices.Equal(got, want) {
			t.Errorf("%d records, want %d", len(got), len(want))
		}
	})
}

func TestRecordsBelowTheOffsetAreSkipped(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		p := w.client.NewProducer(kafka.ProducerOptions{})
		defer p.Close()
		var records []kafka.Record
		for _, name := range names("v", 10) {
			records = append(records, kafka.Record{Value: []byte(name)})
		}
		var o outcomes
		if err := p.Produce(kafka.Write{Partition: part(0), Records: records, Deadline: time.Now().Add(time.Minute), Done: o.done("all")}); err != nil {
			t.Fatal(err)
		}
		within(t, 5*time.Second, "stored", func() bool { return o.len() == 1 })
		f := w.fetcher(t, kafka.FetcherOptions{})
		defer f.Close()
		r := add(t, f, 0, 7)
		within(t, 5*time.Second, "fetched", func() bool { return len(r.all()) > 0 })
		if !slices.Equal(r.all(), []string{"v7", "v8", "v9"}) {
			t.Errorf("got %v", r.all())
		}
		if b := r.fetched()[0].Batches[0]; b.Base != 0 || b.Last != 9 {
			t.Errorf("batch from %d to %d", b.Base, b.Last)
		}
	})
}

func TestAnOffsetOutOfRangeRestsUntilSeek(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.fill(t, 0, names("v", 10))
		if err := w.cluster.DeleteRecords(topic, 0, 4); err != nil {
			t.Fatal(err)
		}
		f := w.fetcher(t, kafka.FetcherOptions{})
		defer f.Close()
		for _, offset := range []int64{0, 3, 11, 1000} {
			asked := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Observe: true, Count: -1})
			r := add(t, f, 0, offset)
			pass(5 * time.Second)
			if n := asked.Hits(); n > 3 {
				t.Errorf("offset %d: asked for %d times", offset, n)
			}
			asked.Remove()
			if errs := r.errors(); len(errs) != 1 || !errors.Is(errs[0], kafka.OutOfRange) {
				t.Errorf("offset %d: %v", offset, errs)
			}
			f.Seek(part(0), 4)
			within(t, 5*time.Second, "fetched from 4 on", func() bool { return len(r.all()) == 6 })
			if got := r.fetched()[1]; got.LogStart != 4 || got.HighWatermark != 10 {
				t.Errorf("start %d, end %d", got.LogStart, got.HighWatermark)
			}
			f.Remove(part(0))
		}
	})
}

func TestSeekDropsWhatWasReadAhead(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.fill(t, 0, names("v", 20))
		f := w.fetcher(t, kafka.FetcherOptions{ChunkBytes: 1})
		defer f.Close()
		r := &reading{}
		sought := false
		err := f.Add(kafka.Source{Partition: part(0), Sink: func(ctx context.Context, got kafka.Fetched) error {
			if !sought && len(r.all()) == 3 {
				sought = true
				pass(time.Second) // everything else is read ahead now
				f.Seek(part(0), 18)
			}
			return r.sink(ctx, got)
		}})
		if err != nil {
			t.Fatal(err)
		}
		within(t, 5*time.Second, "fetched", func() bool { return len(r.all()) >= 6 })
		pass(time.Second)
		if want := []string{"v0", "v1", "v2", "v3", "v18", "v19"}; !slices.Equal(r.all(), want) {
			t.Errorf("got %v", r.all())
		}
	})
}

// A poll that is under way while Seek is called must not bring its answer.
func TestSeekDropsWhatIsUnderWay(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.fill(t, 0, names("v", 5))
		f := w.fetcher(t, kafka.FetcherOptions{Wait: 5 * time.Second})
		defer f.Close()
		r := add(t, f, 0, 5)
		within(t, time.Second, "reading has begun", func() bool { return len(r.fetched()) == 1 })
		pass(time.Second) // a poll waits at offset 5
		f.Seek(part(0), 3)
		within(t, time.Second, "at once, not after the poll", func() bool { return len(r.all()) == 2 })
		w.fill(t, 0, []string{"v5"})
		within(t, time.Second, "and what comes later", func() bool { return len(r.all()) == 3 })
		if !slices.Equal(r.all(), []string{"v3", "v4", "v5"}) {
			t.Errorf("got %v", r.all())
		}
	})
}

// A request that is given up gives up its connection, too.
func TestSeeksLeaveNoConnections(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		var open atomic.Int64
		c := w.newClient(func(o *kafka.Options) {
			o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := w.net.DialContext(ctx, network, address)
				if err != nil {
					return nil, err
				}
				open.Add(1)
				return &countedConn{Conn: conn, closed: func() { open.Add(-1) }}, nil
			}
		})
		defer c.Close()
		f := c.NewFetcher(kafka.FetcherOptions{Wait: 20 * time.Second})
		defer f.Close()
		add(t, f, 0, 0)
		pass(time.Second)
		for range 20 {
			f.Seek(part(0), 0)
			pass(50 * time.Millisecond)
		}
		if n := open.Load(); n > 3 {
			t.Errorf("%d connections are open", n)
		}
	})
}

// countedConn tells when it is closed.
type countedConn struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (c *countedConn) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}

func TestASlowSinkStopsOnlyItsPartition(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		for n := range int32(2) { // the same leader for both
			if err := w.cluster.MoveTopicPartition(topic, n, 1); err != nil {
				t.Fatal(err)
			}
		}
		f := w.fetcher(t, kafka.FetcherOptions{PartitionBytes: 4000, ChunkBytes: 1000})
		defer f.Close()
		open := make(chan struct{})
		slow := &reading{}
		err := f.Add(kafka.Source{Partition: part(0), Sink: func(ctx context.Context, got kafka.Fetched) error {
			<-open
			return slow.sink(ctx, got)
		}})
		if err != nil {
			t.Fatal(err)
		}
		fast := add(t, f, 1, 0)
		// 100 records of 500 bytes each; the slow one may take some of them.
		p := w.client.NewProducer(kafka.ProducerOptions{BatchBytes: 1000})
		defer p.Close()
		var o outcomes
		want := make([]string, 100)
		for i := range want {
			want[i] = fmt.Sprintf("%d-%s", i, strings.Repeat("x", 500))
			o.write(t, p, 0, want[i], time.Minute)
		}
		within(t, 20*time.Second, "stored", func() bool { return o.len() == 100 })
		asked := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Partitions: []int32{0}, Observe: true, Count: -1})
		began := time.Now()
		w.fill(t, 1, want)
		within(t, time.Second, "the fast one has all", func() bool { return len(fast.all()) == 100 })
		if took := time.Since(began); took > time.Second {
			t.Errorf("the fast one took %v", took)
		}
		if n := asked.Hits(); n > 0 {
			t.Errorf("the slow one was asked for %d times while it was full", n)
		}
		close(open)
		within(t, 5*time.Second, "the slow one has all", func() bool { return len(slow.all()) == 100 })
		if !slices.Equal(slow.all(), want) || !slices.Equal(fast.all(), want) {
			t.Error("not in order")
		}
	})
}

// Without another partition that keeps the poll going, somebody has to wake it.
func TestAFullPartitionGoesOnWhenItsSinkDoes(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		want := names("v", 40)
		w.fill(t, 0, want)
		for _, o := range []kafka.FetcherOptions{{PartitionBytes: 200, ChunkBytes: 100}, {MaxBytes: 200, ChunkBytes: 100}} {
			f := w.fetcher(t, o)
			r := &reading{}
			err := f.Add(kafka.Source{Partition: part(0), Sink: func(ctx context.Context, got kafka.Fetched) error {
				pass(50 * time.Millisecond)
				return r.sink(ctx, got)
			}})
			if err != nil {
				t.Fatal(err)
			}
			within(t, 5*time.Second, "all", func() bool { return len(r.all()) == len(want) })
			if !slices.Equal(r.all(), want) {
				t.Errorf("got %v", r.all())
			}
			f.Close()
		}
	})
}

// What all sinks together may be behind is bounded, too; one of them at a time
// still gets on.
func TestAllSinksTogetherAreBounded(t *testing.T) {
	inWorld(t, 4, func(t *testing.T, w *world) {
		want := names("v", 40)
		for n := range int32(4) {
			w.fill(t, n, want)
		}
		f := w.fetcher(t, kafka.FetcherOptions{MaxBytes: 300, ChunkBytes: 100})
		defer f.Close()
		open := make(chan struct{})
		var readings []*reading
		var bytes atomic.Int64
		for n := range int32(4) {
			r := &reading{}
			readings = append(readings, r)
			err := f.Add(kafka.Source{Partition: part(n), Sink: func(ctx context.Context, got kafka.Fetched) error {
				<-open
				return r.sink(ctx, got)
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		w.cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
			for _, t := range req.(*kmsg.FetchRequest).Topics {
				bytes.Add(int64(100 * len(t.Partitions))) // at most a batch of less than 100 bytes each
			}
			return nil, nil, false
		})
		pass(10 * time.Second)
		if n := bytes.Load(); n > 300+4*2*100 {
			t.Errorf("up to %d bytes were asked for while no sink took any", n)
		}
		close(open)
		for _, r := range readings {
			within(t, 10*time.Second, "all", func() bool { return len(r.all()) == len(want) })
		}
	})
}

// Brokers that have not heard of a new topic answer as if it had been replaced.
func TestATopicThatABrokerDoesNotKnowYet(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.fill(t, 0, names("v", 3))
		w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.UnknownTopicID, Count: 8})
		f := w.fetcher(t, kafka.FetcherOptions{})
		defer f.Close()
		r := add(t, f, 0, 0)
		within(t, 10*time.Second, "fetched", func() bool { return len(r.all()) == 3 })
		if errs := r.errors(); len(errs) > 0 {
			t.Errorf("told: %v", errs)
		}
	})
}

func TestATopicThatIsDeletedAndMadeAgain(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.fill(t, 0, names("old", 3))
		f := w.fetcher(t, kafka.FetcherOptions{})
		defer f.Close()
		r := add(t, f, 0, 0)
		within(t, 5*time.Second, "fetched", func() bool { return len(r.all()) == 3 })
		if err := w.cluster.DeleteTopic(topic); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		if errs := r.errors(); len(errs) != 1 || !errors.Is(errs[0], kafka.NoTopic) {
			t.Errorf("after the deletion: %v", errs)
		}
		if err := w.cluster.CreateTopic(topic, 1, nil); err != nil {
			t.Fatal(err)
		}
		w.fill(t, 0, names("new", 10))
		pass(10 * time.Second)
		errs := r.errors()
		if len(errs) != 2 || !errors.Is(errs[1], kafka.TopicChanged) {
			t.Errorf("after it was made again: %v", errs)
		}
		if len(r.all()) != 3 {
			t.Errorf("records of another topic: %v", r.all())
		}
	})
}

func TestATopicThatIsReplacedWithinAPoll(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.fill(t, 0, names("old", 3))
		f := w.fetcher(t, kafka.FetcherOptions{})
		defer f.Close()
		r := add(t, f, 0, 0)
		within(t, 5*time.Second, "fetched", func() bool { return len(r.all()) == 3 })
		if err := w.cluster.DeleteTopic(topic); err != nil {
			t.Fatal(err)
		}
		if err := w.cluster.CreateTopic(topic, 1, nil); err != nil {
			t.Fatal(err)
		}
		w.fill(t, 0, names("new", 10))
		within(t, 5*time.Second, "told", func() bool { return len(r.errors()) > 0 })
		if errs := r.errors(); !errors.Is(errs[0], kafka.TopicChanged) || len(r.all()) != 3 {
			t.Errorf("%v, records %v", errs, r.all())
		}
	})
}

func TestFetchWhileKafkaIsAway(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		var away atomic.Bool
		var dials atomic.Int64
		var mu sync.Mutex
		var conns []net.Conn
		c := w.newClient(func(o *kafka.Options) {
			o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				dials.Add(1)
				if away.Load() {
					return nil, errors.New("connection refused")
				}
				conn, err := w.net.DialContext(ctx, network, address)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					conns = append(conns, conn)
				}
				return conn, err
			}
		})
		defer c.Close()
		w.fill(t, 0, names("v", 3))
		f := c.NewFetcher(kafka.FetcherOptions{})
		defer f.Close()
		r, other := add(t, f, 0, 0), add(t, f, 1, 0)
		within(t, 5*time.Second, "fetched", func() bool { return len(r.all()) == 3 && len(other.fetched()) == 1 })
		away.Store(true)
		mu.Lock()
		for _, conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()
		before := dials.Load()
		pass(30 * time.Second)
		for _, r := range []*reading{r, other} {
			if errs := r.errors(); len(errs) != 1 || !errors.Is(errs[0], kafka.Unreachable) {
				t.Errorf("told: %v", errs)
			}
		}
		if n := dials.Load() - before; n > 450 {
			t.Errorf("%d attempts to connect to three brokers in 30 s", n)
		}
		w.fill(t, 0, []string{"more"})
		away.Store(false)
		began := time.Now()
		within(t, 5*time.Second, "back", func() bool { return len(r.all()) == 4 && len(other.fetched()) == 3 })
		if last := other.fetched()[2]; last.Err != nil {
			t.Errorf("the first success is %+v", last)
		}
		t.Logf("back after %v, %d attempts to connect", time.Since(began), dials.Load())
	})
}

// A leader that does not answer a fetch is given up, and asked again.
func TestAFetchThatHangs(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.fill(t, 0, names("v", 3))
		w.cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) { return nil, nil, true })
		f := w.fetcher(t, kafka.FetcherOptions{})
		defer f.Close()
		r := add(t, f, 0, 0)
		within(t, 6*time.Second, "fetched", func() bool { return len(r.all()) == 3 })
	})
}

func TestASinkThatFailsEndsItsPartition(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.fill(t, 0, names("v", 3))
		f := w.fetcher(t, kafka.FetcherOptions{})
		defer f.Close()
		var calls atomic.Int64
		src := kafka.Source{Partition: part(0), Sink: func(context.Context, kafka.Fetched) error {
			calls.Add(1)
			return errors.New("no")
		}}
		if err := f.Add(src); err != nil {
			t.Fatal(err)
		}
		if err := f.Add(src); !errors.Is(err, kafka.Exists) {
			t.Errorf("added twice: %v", err)
		}
		pass(5 * time.Second)
		w.fill(t, 0, names("w", 3))
		pass(5 * time.Second)
		if n := calls.Load(); n != 1 {
			t.Errorf("%d calls", n)
		}
		if err := f.Add(src); err != nil {
			t.Errorf("added again: %v", err)
		}
	})
}

// A fetch that is answered at once without bringing anything must not be
// repeated at once.
func TestAFetchThatMovesNothingBacksOff(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		var fetches atomic.Int64
		w.cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			fetches.Add(1)
			in := req.(*kmsg.FetchRequest)
			out := in.ResponseKind().(*kmsg.FetchResponse)
			for _, t := range in.Topics {
				to := kmsg.NewFetchResponseTopic()
				to.TopicID = t.TopicID
				for _, p := range t.Partitions {
					po := kmsg.NewFetchResponseTopicPartition()
					po.Partition = p.Partition
					po.RecordBatches = []byte{}
					to.Partitions = append(to.Partitions, po)
				}
				out.Topics = append(out.Topics, to)
			}
			return out, nil, true
		})
		f := w.fetcher(t, kafka.FetcherOptions{})
		defer f.Close()
		add(t, f, 0, 0)
		pass(20 * time.Second)
		f.Close()
		if n := fetches.Load(); n > 60 {
			t.Errorf("%d fetches in 20 s", n)
		}
	})
}

func TestAPermissionThatIsMissing(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.fill(t, 0, names("v", 3))
		h := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		f := w.fetcher(t, kafka.FetcherOptions{})
		defer f.Close()
		r := add(t, f, 0, 0)
		pass(10 * time.Second)
		if errs := r.errors(); len(errs) != 1 || !errors.Is(errs[0], kafka.Denied) {
			t.Errorf("told: %v", errs)
		}
		h.Remove()
		within(t, 5*time.Second, "fetched once it is there", func() bool { return len(r.all()) == 3 })
	})
}
