package kafka_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
)

func TestATopicIsCreatedAndDescribed(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		spec := kafka.TopicSpec{Name: "made", Partitions: 5, Replication: 2, Configs: map[string]string{"min.insync.replicas": "2", "retention.ms": "86400000"}}
		made, err := w.client.CreateTopic(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		got, err := w.client.Topic(t.Context(), "made")
		if err != nil {
			t.Fatal(err)
		}
		if got.ID == (kafka.TopicID{}) || got.ID != made.ID || len(got.Partitions) != 5 {
			t.Errorf("made %+v, got %+v", made, got)
		}
		for i, p := range got.Partitions {
			if p.Number != int32(i) || p.Leader < 0 || len(p.Replicas) == 0 || len(p.InSync) == 0 {
				t.Errorf("partition %+v", p)
			}
		}
		configs, err := w.client.Configs(t.Context(), "made")
		if err != nil || configs["min.insync.replicas"] != "2" || configs["retention.ms"] != "86400000" || configs["max.message.bytes"] == "" {
			t.Errorf("%v %v", configs, err)
		}
		if _, err := w.client.CreateTopic(t.Context(), spec); !errors.Is(err, kafka.Exists) {
			t.Errorf("created twice: %v", err)
		}
		if _, err := w.client.Topic(t.Context(), "none"); !errors.Is(err, kafka.NoTopic) {
			t.Errorf("a topic that is not there: %v", err)
		}
		if _, err := w.client.Configs(t.Context(), "none"); !errors.Is(err, kafka.NoTopic) {
			t.Errorf("settings of a topic that is not there: %v", err)
		}
	})
}

func TestBoundsAndBatches(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		began := time.Now()
		w.fill(t, 1, names("v", 3))
		pass(time.Hour)
		later := time.Now()
		w.fill(t, 1, names("w", 3))
		if err := w.cluster.DeleteRecords(topic, 1, 1); err != nil {
			t.Fatal(err)
		}
		info, err := w.client.Topic(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		bounds, err := w.client.Bounds(t.Context(), info)
		want := []kafka.Bounds{{Partition: 0}, {Partition: 1, Start: 1, End: 6}, {Partition: 2}}
		if err != nil || !slices.Equal(bounds, want) {
			t.Errorf("%+v %v", bounds, err)
		}
		for moment, want := range map[time.Time][]int64{
			began: {0, 1, 0}, later: {0, 3, 0}, later.Add(time.Hour): {0, 6, 0}, time.UnixMilli(-5): {0, 1, 0},
		} {
			if got, err := w.client.OffsetsAt(t.Context(), info, moment); err != nil || !slices.Equal(got, want) {
				t.Errorf("at %v: %v %v, want %v", moment, got, err, want)
			}
		}
		b, err := w.client.BatchAt(t.Context(), info, 1, 4)
		if err != nil || b.Base != 4 || len(b.Records) != 1 || string(b.Records[0].Value) != "w1" {
			t.Errorf("%+v %v", b, err)
		}
		for _, offset := range []int64{0, 6, 99} {
			if _, err := w.client.BatchAt(t.Context(), info, 1, offset); !errors.Is(err, kafka.OutOfRange) {
				t.Errorf("at %d: %v", offset, err)
			}
		}
		if _, err := w.client.BatchAt(t.Context(), info, 3, 0); !errors.Is(err, kafka.NoTopic) {
			t.Errorf("a partition that is not there: %v", err)
		}
	})
}

func TestBatchAtGivesTheWholeBatch(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		cl := w.foreign(t, kgo.ProducerLinger(10*time.Millisecond))
		defer cl.Close()
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord("a"), kgo.StringRecord("b"), kgo.StringRecord("c")).FirstErr(); err != nil {
			t.Fatal(err)
		}
		info, err := w.client.Topic(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		b, err := w.client.BatchAt(t.Context(), info, 0, 2)
		if err != nil || b.Base != 0 || b.Last != 2 || len(b.Records) != 3 {
			t.Errorf("%+v %v", b, err)
		}
	})
}

func TestProbeGoesThroughTheNetwork(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		if err := w.client.Probe(t.Context(), topic); err != nil {
			t.Error(err)
		}
		if err := w.client.Probe(t.Context(), "none"); !errors.Is(err, kafka.NoTopic) {
			t.Error(err)
		}
		h := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Partitions: []int32{2}, Err: kerr.LeaderNotAvailable, Count: -1})
		if err := w.client.Probe(t.Context(), topic); !errors.Is(err, kafka.NoLeader) {
			t.Error(err)
		}
		h.Remove()
		w.cluster.Close()
		began := time.Now()
		if err := w.client.Probe(t.Context(), topic); !errors.Is(err, kafka.Unreachable) {
			t.Error(err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// Everything ends, whatever hangs: a broker that accepts and is silent.
func TestASilentBroker(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		silent := func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				buf := make([]byte, 1000)
				for {
					if _, err := theirs.Read(buf); err != nil {
						return
					}
				}
			}()
			return ours, nil
		}
		for _, sasl := range []kafka.SASL{{}, {Mechanism: kafka.Plain, User: "u", Password: "p"}} {
			c := w.newClient(func(o *kafka.Options) { o.Dial, o.SASL = silent, sasl })
			began := time.Now()
			_, err := c.Topic(t.Context(), topic)
			if !errors.Is(err, kafka.Unreachable) || time.Since(began) > 10*time.Second {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			began = time.Now()
			if _, err := c.Topic(ctx, topic); !errors.Is(err, kafka.Unreachable) || time.Since(began) > 2*time.Second {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
			cancel()
			c.Close()
			if _, err := c.Topic(t.Context(), topic); !errors.Is(err, kafka.Closed) {
				t.Errorf("closed: %v", err)
			}
		}
	})
}
