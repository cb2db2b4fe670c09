package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
)

// Random faults of every kind while several partitions are written and read:
// what is answered is in the log where it was said, what is said not to be
// stored is not, and first appearances are in the order of writing. Readers get
// exactly the log.
func TestRandomFaults(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	for range rounds {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inWorld(t, 3, func(t *testing.T, w *world) {
				s := &storm{world: w, rand: rand.New(rand.NewPCG(seed, 0))}
				s.run(t)
			})
		})
	}
}

type storm struct {
	*world
	rand *rand.Rand

	mu    sync.Mutex
	conns []net.Conn
	away  bool
}

func (s *storm) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return nil, errors.New("connection refused")
	}
	conn, err := s.net.DialContext(ctx, network, address)
	if err == nil {
		s.conns = append(s.conns, conn)
	}
	return conn, err
}

// cut closes all connections, and refuses new ones while away.
func (s *storm) cut(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
}

// fault does something bad, and returns what ends it.
func (s *storm) fault() func() {
	n := int32(s.rand.IntN(3))
	produceErrors := []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.NotLeaderForPartition, kerr.KafkaStorageError, kerr.CorruptMessage}
	fetchErrors := []*kerr.Error{kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch, kerr.NotLeaderForPartition, kerr.UnknownTopicID, kerr.OffsetNotAvailable}
	switch s.rand.IntN(8) {
	case 0, 1:
		_ = s.cluster.MoveTopicPartition(topic, n, int32(s.rand.IntN(3)))
	case 2:
		s.cluster.ShufflePartitionLeaders()
	case 3:
		h := s.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Partitions: []int32{n}, Err: produceErrors[s.rand.IntN(len(produceErrors))], Count: 1 + s.rand.IntN(5)})
		return h.Remove
	case 4:
		h := s.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Partitions: []int32{n}, Err: fetchErrors[s.rand.IntN(len(fetchErrors))], Count: 1 + s.rand.IntN(5)})
		return h.Remove
	case 5:
		s.cut(false)
	case 6:
		s.cut(true)
		return func() { s.cut(false) }
	default:
		key := []kmsg.Key{kmsg.Produce, kmsg.Fetch, kmsg.Metadata}[s.rand.IntN(3)]
		s.cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) { return nil, nil, true }) // never answered
	}
	return func() {}
}

func (s *storm) run(t *testing.T) {
	c := s.newClient(func(o *kafka.Options) { o.Dial = s.dial })
	defer c.Close()
	p := c.NewProducer(kafka.ProducerOptions{BatchBytes: 1000 + s.rand.IntN(2000), RequestBytes: 2000})
	defer p.Close()
	f := c.NewFetcher(kafka.FetcherOptions{ChunkBytes: 500, PartitionBytes: 2000})
	defer f.Close()
	var readings []*reading
	for n := range int32(3) {
		readings = append(readings, add(t, f, n, 0))
	}
	wrote := make([][]string, 3)
	outcomes := make([]outcomes, 3)
	end := func() {}
	for i := range 600 {
		n := s.rand.IntN(3)
		name := fmt.Sprintf("%05d", i)
		wrote[n] = append(wrote[n], name)
		outcomes[n].write(t, p, int32(n), name, time.Duration(500+s.rand.IntN(10_000))*time.Millisecond)
		if s.rand.IntN(3) == 0 {
			pass(time.Duration(s.rand.IntN(40)) * time.Millisecond)
		}
		if i%15 == 0 {
			end()
			end = s.fault()
			if s.rand.IntN(5) == 0 {
				pass(time.Duration(s.rand.IntN(2000)) * time.Millisecond)
			}
		}
	}
	end()
	for n := range wrote {
		within(t, time.Minute, "all answered", func() bool { return outcomes[n].len() == len(wrote[n]) })
	}
	within(t, time.Minute, "nothing queued", func() bool { return p.Queued() == 0 })
	for n, r := range readings {
		s.judge(t, n, r, wrote[n], &outcomes[n])
	}
}

func (s *storm) judge(t *testing.T, n int, r *reading, wrote []string, o *outcomes) {
	t.Helper()
	var bounds []kafka.Bounds
	within(t, time.Minute, "Kafka says where the log ends", func() bool { // a request of this client may have been swallowed
		info, err := s.client.Topic(t.Context(), topic)
		if err == nil {
			bounds, err = s.client.Bounds(t.Context(), info)
		}
		return err == nil
	})
	within(t, time.Minute, "the whole log is read", func() bool { return len(r.all()) >= int(bounds[n].End) })
	log := r.all()
	if len(log) != int(bounds[n].End) {
		t.Fatalf("%d records were read, the log has %d", len(log), bounds[n].End)
	}
	if first := withoutRepeats(log); !slices.IsSorted(first) {
		t.Errorf("partition %d: first appearances are not in order: %v", n, first)
	}
	counts := map[kafka.Kind]int{}
	for _, name := range wrote {
		got := o.get(name)
		counts[kafka.KindOf(got.Err)]++
		switch {
		case got.Err == nil && log[got.Base] != name:
			t.Errorf("%s was answered with %d, where %s is", name, got.Base, log[got.Base])
		case errors.Is(got.Err, kafka.Unknown):
		case errors.Is(got.Err, kafka.NotSent):
			if slices.Contains(log, name) {
				t.Errorf("%s was said not to be stored, and is", name)
			}
		case got.Err != nil:
			t.Errorf("%s: %v", name, got.Err)
		}
	}
	t.Logf("partition %d: %d written, %d in the log, answers %v, errors told %d", n, len(wrote), len(log), counts, len(r.errors()))
}
