package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
)

// logged returns the values in partition 0, read by a fetcher of its own.
func (w *world) logged(t *testing.T) []string {
	t.Helper()
	info, err := w.client.Topic(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	bounds, err := w.client.Bounds(t.Context(), info)
	if err != nil {
		t.Fatal(err)
	}
	var end atomic.Int64
	f := w.client.NewFetcher(kafka.FetcherOptions{})
	defer f.Close()
	r := &reading{}
	err = f.Add(kafka.Source{Partition: part(0), Offset: bounds[0].Start, Sink: func(ctx context.Context, got kafka.Fetched) error {
		if len(got.Batches) > 0 {
			end.Store(got.Batches[len(got.Batches)-1].Last + 1)
		}
		return r.sink(ctx, got)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if bounds[0].End > bounds[0].Start {
		within(t, 10*time.Second, "the whole log", func() bool { return end.Load() >= bounds[0].End })
	}
	return r.all()
}

func withoutRepeats(list []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool {
		was := seen[s]
		seen[s] = true
		return was
	})
}

func TestOrderIsKeptWhenTheLeaderMoves(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		p := w.client.NewProducer(kafka.ProducerOptions{})
		defer p.Close()
		r := &reading{}
		f := w.client.NewFetcher(kafka.FetcherOptions{})
		defer f.Close()
		if err := f.Add(kafka.Source{Partition: part(0), Sink: r.sink}); err != nil {
			t.Fatal(err)
		}
		var o outcomes
		want := names("v", 500)
		for i, name := range want {
			o.write(t, p, 0, name, time.Minute)
			if i%20 == 0 {
				pass(7 * time.Millisecond)
			}
			if i%50 == 25 {
				if err := w.cluster.MoveTopicPartition(topic, 0, int32(i/50%3)); err != nil {
					t.Fatal(err)
				}
			}
		}
		within(t, 30*time.Second, "all answered", func() bool { return o.len() == len(want) })
		last := int64(-1)
		for _, name := range want {
			got := o.get(name)
			if got.Err != nil || got.Base <= last {
				t.Fatalf("%s: %+v after offset %d", name, got, last)
			}
			last = got.Base
		}
		within(t, 10*time.Second, "all fetched", func() bool { return len(withoutRepeats(r.all())) == len(want) })
		if got := withoutRepeats(r.all()); !slices.Equal(got, want) {
			t.Errorf("order in the log: %v", got)
		}
	})
}

func TestATimeoutAfterTheAppendRepeatsTheSameBatch(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		p := w.client.NewProducer(kafka.ProducerOptions{})
		defer p.Close()
		w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut, Count: 2})
		var o outcomes
		o.write(t, p, 0, "a", time.Minute)
		o.write(t, p, 0, "b", time.Minute)
		within(t, time.Second, "both under way", func() bool { return p.Queued() > 0 })
		pass(20 * time.Millisecond)
		o.write(t, p, 0, "c", time.Minute)
		within(t, 10*time.Second, "all answered", func() bool { return o.len() == 3 })
		got := w.logged(t)
		// Whatever was in the first batch is there three times, in one piece
		// each time, before what came later.
		if want := []string{"a", "b", "c"}; !slices.Equal(withoutRepeats(got), want) {
			t.Errorf("the log has %v", got)
		}
		if n := strings.Count(strings.Join(got, ""), "a"); n != 3 {
			t.Errorf("a is in the log %d times: %v", n, got)
		}
		for _, name := range []string{"a", "b", "c"} {
			r := o.get(name)
			if r.Err != nil || got[r.Base] != name {
				t.Errorf("%s was answered with %+v; the log has %v", name, r, got)
			}
		}
	})
}

func TestWhatWasSurelyNotStoredIsSaidSo(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		p := w.client.NewProducer(kafka.ProducerOptions{})
		defer p.Close()
		h := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
		var o outcomes
		o.write(t, p, 0, "early", time.Second)
		o.write(t, p, 0, "late", 20*time.Second)
		within(t, 2*time.Second, "early is answered", func() bool { return o.len() == 1 })
		if err := o.get("early").Err; !errors.Is(err, kafka.NotSent) || !errors.Is(err, kafka.NotInSync) {
			t.Errorf("early: %v", err)
		}
		h.Remove()
		within(t, 5*time.Second, "late is answered", func() bool { return o.len() == 2 })
		if err := o.get("late").Err; err != nil {
			t.Error(err)
		}
		if got := w.logged(t); !slices.Equal(got, []string{"late"}) {
			t.Errorf("the log has %v", got)
		}
	})
}

func TestWhatMayBeStoredIsUnknown(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		p := w.client.NewProducer(kafka.ProducerOptions{})
		defer p.Close()
		h := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicasAfterAppend, Count: -1})
		var o outcomes
		o.write(t, p, 0, "first", time.Second)
		pass(100 * time.Millisecond)
		o.write(t, p, 0, "behind", 800*time.Millisecond) // never tried
		within(t, 2*time.Second, "both answered", func() bool { return o.len() == 2 })
		if err := o.get("first").Err; !errors.Is(err, kafka.Unknown) {
			t.Errorf("first: %v", err)
		}
		if err := o.get("behind").Err; !errors.Is(err, kafka.NotSent) {
			t.Errorf("behind: %v", err)
		}
		h.Remove()
		pass(5 * time.Second)
		if p.Queued() != 0 {
			t.Errorf("%d bytes are queued for nobody", p.Queued())
		}
		if got := w.logged(t); slices.Contains(got, "behind") {
			t.Errorf("the log has %v", got)
		}
	})
}

// The answer to a write is lost, and Kafka with it: it is stored all the same.
func TestALostAnswerIsUnknown(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		var armed, away atomic.Bool
		c := w.newClient(func(o *kafka.Options) {
			o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if away.Load() {
					return nil, errors.New("connection refused")
				}
				conn, err := w.net.DialContext(ctx, network, address)
				return &lossyConn{Conn: conn, armed: &armed, away: &away}, err
			}
		})
		defer c.Close()
		p := c.NewProducer(kafka.ProducerOptions{})
		defer p.Close()
		var o outcomes
		o.write(t, p, 0, "first", time.Minute)
		within(t, time.Second, "stored", func() bool { return o.len() == 1 })
		armed.Store(true)
		o.write(t, p, 0, "lost-answer", 3*time.Second)
		within(t, 5*time.Second, "answered", func() bool { return o.len() == 2 })
		if err := o.get("lost-answer").Err; !errors.Is(err, kafka.Unknown) || !away.Load() {
			t.Error(err)
		}
		if got := w.logged(t); !slices.Equal(got, []string{"first", "lost-answer"}) {
			t.Errorf("the log has %v", got)
		}
	})
}

// lossyConn swallows the answer to a request that has "lost-answer" in it.
type lossyConn struct {
	net.Conn
	armed, away *atomic.Bool
}

func (c *lossyConn) Write(b []byte) (int, error) {
	if c.armed.Load() && strings.Contains(string(b), "lost-answer") {
		c.away.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *lossyConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.away.Load() {
		_ = c.Close()
		return 0, errors.New("cut")
	}
	return n, err
}

// A leader that takes a request and never answers.
func TestALeaderThatHangs(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		p := w.client.NewProducer(kafka.ProducerOptions{})
		defer p.Close()
		var o outcomes
		w.cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			return nil, nil, true // once
		})
		began := time.Now()
		o.write(t, p, 0, "v", time.Minute)
		within(t, 10*time.Second, "answered", func() bool { return o.len() == 1 })
		if r := o.get("v"); r.Err != nil {
			t.Error(r.Err)
		}
		if took := time.Since(began); took < 3*time.Second || took > 6*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestKafkaIsAway(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		var away atomic.Bool
		var dials atomic.Int64
		c := w.newClient(func(o *kafka.Options) {
			o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				dials.Add(1)
				if away.Load() {
					return nil, errors.New("connection refused")
				}
				return w.net.DialContext(ctx, network, address)
			}
		})
		defer c.Close()
		away.Store(true)
		p := c.NewProducer(kafka.ProducerOptions{MaxBytes: 1 << 20})
		defer p.Close()
		var o outcomes
		for _, name := range names("early", 50) {
			o.write(t, p, 0, name, 10*time.Second)
		}
		pass(20 * time.Second)
		for _, name := range names("early", 50) {
			if err := o.get(name).Err; !errors.Is(err, kafka.NotSent) || !errors.Is(err, kafka.Unreachable) {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if n := dials.Load(); n > 250 { // of three brokers
			t.Errorf("%d attempts to connect in 20 s", n)
		}
		o.write(t, p, 0, "back", 10*time.Second)
		pass(time.Second)
		away.Store(false)
		began := time.Now()
		within(t, 6*time.Second, "stored after Kafka is back", func() bool { return o.len() == 51 })
		if err := o.get("back").Err; err != nil {
			t.Error(err)
		}
		t.Logf("back after %v, %d attempts to connect", time.Since(began), dials.Load())
		if got := w.logged(t); !slices.Equal(got, []string{"back"}) {
			t.Errorf("the log has %v", got)
		}
	})
}

func TestTheQueueIsBounded(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		h := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
		p := w.client.NewProducer(kafka.ProducerOptions{MaxBytes: 10_000})
		defer p.Close()
		var o outcomes
		queued := 0
		var err error
		for err == nil {
			err = p.Produce(kafka.Write{
				Partition: part(0), Records: []kafka.Record{{Value: make([]byte, 1000)}},
				Deadline: time.Now().Add(time.Minute), Done: o.done(fmt.Sprint(queued)),
			})
			queued++
		}
		if !errors.Is(err, kafka.Full) || queued < 8 || queued > 10 {
			t.Errorf("the write number %d: %v", queued, err)
		}
		h.Remove()
		within(t, 5*time.Second, "the queue empties", func() bool { return p.Queued() == 0 })
		o.write(t, p, 0, "after", time.Minute)
		within(t, 5*time.Second, "room again", func() bool { return o.get("after").Base > 0 })
	})
}

func TestATooLargeRecordIsRefusedAlone(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		p := w.client.NewProducer(kafka.ProducerOptions{})
		defer p.Close()
		var o outcomes
		err := p.Produce(kafka.Write{Partition: part(0), Records: []kafka.Record{{Value: make([]byte, 900_000)}}, Deadline: time.Now().Add(time.Minute), Done: o.done("x")})
		if !errors.Is(err, kafka.TooLarge) {
			t.Errorf("more than a batch may have: %v", err)
		}
		// Together so that they are one batch: it is too large, but only one of
		// its writes is at fault.
		h := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: 1})
		for _, name := range names("a", 7) {
			o.write(t, p, 0, name, time.Minute)
		}
		o.write(t, p, 0, strings.Repeat("x", 5000), time.Minute)
		for _, name := range names("b", 7) {
			o.write(t, p, 0, name, time.Minute)
		}
		within(t, 10*time.Second, "all answered", func() bool { return o.len() == 15 })
		h.Remove()
		if err := o.get(strings.Repeat("x", 5000)).Err; !errors.Is(err, kafka.TooLarge) {
			t.Errorf("the large one: %v", err)
		}
		want := append(names("a", 7), names("b", 7)...)
		if got := w.logged(t); !slices.Equal(got, want) {
			t.Errorf("the log has %v", got)
		}
	}, kfake.BrokerConfigs(map[string]string{"message.max.bytes": "4000"}))
}

func TestADeniedWriteIsToldAtOnce(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		p := w.client.NewProducer(kafka.ProducerOptions{})
		defer p.Close()
		w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Partitions: []int32{0}, Err: kerr.TopicAuthorizationFailed, Count: 1})
		var o outcomes
		o.write(t, p, 0, "denied", time.Minute)
		o.write(t, p, 1, "fine", time.Minute)
		within(t, time.Second, "answered", func() bool { return o.len() == 2 })
		if err := o.get("denied").Err; !errors.Is(err, kafka.Denied) {
			t.Error(err)
		}
		if err := o.get("fine").Err; err != nil {
			t.Error(err)
		}
	})
}

// While nobody can say who leads what, whoever has a leader goes on.
func TestWritesGoOnWithoutMetadata(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		p := w.client.NewProducer(kafka.ProducerOptions{})
		defer p.Close()
		var o outcomes
		o.write(t, p, 0, "first", time.Minute)
		within(t, time.Second, "stored", func() bool { return o.len() == 1 })
		w.cluster.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			return nil, errors.New("cut"), true
		})
		lost := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Partitions: []int32{1}, Err: kerr.NotLeaderForPartition, Count: -1})
		o.write(t, p, 1, "stuck", 5*time.Second)
		within(t, time.Second, "partition 1 looks for its leader", func() bool { return lost.Hits() > 0 })
		pass(time.Second)
		for _, name := range names("v", 10) {
			o.write(t, p, 0, name, time.Minute)
			within(t, 20*time.Millisecond, "stored", func() bool { return o.get(name).Base > 0 })
		}
		within(t, 6*time.Second, "the other is told", func() bool { return o.get("stuck").Err != nil })
		if err := o.get("stuck").Err; !errors.Is(err, kafka.Unknown) {
			t.Error(err)
		}
	})
}

func TestATopicThatIsNotThere(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		p := w.client.NewProducer(kafka.ProducerOptions{})
		defer p.Close()
		var o outcomes
		err := p.Produce(kafka.Write{Partition: kafka.Partition{Topic: "later"}, Records: []kafka.Record{{Value: []byte("v")}}, Deadline: time.Now().Add(20 * time.Second), Done: o.done("v")})
		if err != nil {
			t.Fatal(err)
		}
		err = p.Produce(kafka.Write{Partition: kafka.Partition{Topic: "never"}, Records: []kafka.Record{{Value: []byte("v")}}, Deadline: time.Now().Add(3 * time.Second), Done: o.done("n")})
		if err != nil {
			t.Fatal(err)
		}
		pass(4 * time.Second)
		if err := o.get("n").Err; !errors.Is(err, kafka.NotSent) || !errors.Is(err, kafka.NoTopic) {
			t.Error(err)
		}
		if err := w.cluster.CreateTopic("later", 1, nil); err != nil {
			t.Fatal(err)
		}
		within(t, 5*time.Second, "stored once the topic is there", func() bool { return o.len() == 2 })
		if err := o.get("v").Err; err != nil {
			t.Error(err)
		}
	})
}

func TestCloseAnswersEverything(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		p := w.client.NewProducer(kafka.ProducerOptions{})
		w.cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) { return nil, nil, true })
		var o outcomes
		o.write(t, p, 0, "under way", time.Minute)
		pass(time.Second)
		o.write(t, p, 0, "waiting", time.Minute)
		p.Close()
		if err := o.get("under way").Err; !errors.Is(err, kafka.Unknown) || !errors.Is(err, kafka.Closed) {
			t.Error(err)
		}
		if err := o.get("waiting").Err; !errors.Is(err, kafka.NotSent) {
			t.Error(err)
		}
		if err := p.Produce(kafka.Write{Partition: part(0), Records: []kafka.Record{{}}, Done: o.done("x")}); !errors.Is(err, kafka.Closed) {
			t.Error(err)
		}
	})
}

// While a leader stands still it is not tried again at once, so that a new one
// is found as soon as there is one.
func TestALeaderThatStandsStillIsReplaced(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		if err := w.cluster.MoveTopicPartition(topic, 0, 0); err != nil {
			t.Fatal(err)
		}
		for _, key := range []kmsg.Key{kmsg.Produce, kmsg.Fetch, kmsg.Metadata} {
			w.cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
				w.cluster.KeepControl()
				return nil, nil, w.cluster.CurrentNode() == 0
			})
		}
		p := w.client.NewProducer(kafka.ProducerOptions{})
		defer p.Close()
		f := w.client.NewFetcher(kafka.FetcherOptions{})
		defer f.Close()
		r := add(t, f, 0, 0)
		var o outcomes
		began := time.Now()
		o.write(t, p, 0, "v", time.Minute)
		pass(4 * time.Second) // the first try has ended
		if err := w.cluster.MoveTopicPartition(topic, 0, 1); err != nil {
			t.Fatal(err)
		}
		within(t, 2*time.Second, "answered and fetched", func() bool { return o.len() == 1 && len(r.all()) == 1 })
		t.Logf("after %v", time.Since(began))
	})
}

// A broker that stands still is passed over by who asks about topics.
func TestASilentBrokerIsPassedOver(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		if _, err := w.client.Topic(t.Context(), topic); err != nil {
			t.Fatal(err)
		}
		w.cluster.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			return nil, nil, w.cluster.CurrentNode() == 0
		})
		for range 10 {
			began := time.Now()
			_, err := w.client.Topic(t.Context(), topic)
			if took := time.Since(began); err != nil || took > time.Second {
				t.Errorf("%v after %v", err, took)
			}
		}
	})
}
