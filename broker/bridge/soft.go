package bridge

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
)

// Soft brings ephemeral messages to the other nodes through a topic of Kafka
// that every node reads from its end: what came while a node was away is gone.
// It promises nothing but this: messages of one topic that one node has sent
// come in their order, none twice.
//
// A record's key is the topic and its value the message's record, sealed as the
// records of streams are, so that nobody who may only write to the topic can
// publish under a name.
type Soft struct {
	opts     SoftOptions
	link     *Link
	metrics  softMetrics
	sequence atomic.Uint64
	parts    atomic.Int32 // of Kafka's topic; 0 until it is known

	mu     sync.Mutex // guards sealer
	sealer *sealer
}

// SoftOptions say how ephemeral messages travel.
type SoftOptions struct {
	Topic      string // of Kafka
	Secret     []byte // of the seals; see [Definition]
	MaxPayload int    // bytes
	Registerer prometheus.Registerer
	Logger     *slog.Logger // default slog.Default

	// Deliver takes the record of a message that another node has sent, which is
	// the callee's. It must not block.
	Deliver func(record []byte)
}

// Times of ephemeral messages: they are worth something at once or never.
const (
	softDeadline = time.Second      // to reach Kafka
	softAge      = 30 * time.Second // beyond which one is old; clocks may differ
	softRetry    = time.Second      // after reading has failed
)

// softQueue is how much may wait for Kafka before ephemeral messages are left
// out: stored ones need the room.
const softQueue = 16 << 20

// softWindow is how many offsets back repeats are looked for; they come within
// seconds.
const softWindow = 100_000

// SoftSpec says how the topic of ephemeral messages is to be created.
func SoftSpec(topic string, partitions, replication int) kafka.TopicSpec {
	spec := kafka.TopicSpec{Name: topic, Partitions: int32(partitions), Replication: -1, Configs: map[string]string{
		setCleanup: "delete", setRetentionTime: "60000", "segment.ms": "60000", setTimestamps: "CreateTime",
	}}
	if replication > 0 {
		spec.Replication = int16(replication)
	}
	return spec
}

// NewSoft returns the way of ephemeral messages. Run brings in those of others.
func NewSoft(l *Link, o SoftOptions) *Soft {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Soft{opts: o, link: l, metrics: newSoftMetrics(o.Registerer), sealer: newSealer(o.Secret)}
}

// Send sends the record of a message to the other nodes, or drops it if Kafka
// does not take it within a second. It does not wait. record is not changed and
// must not be.
func (s *Soft) Send(topic string, record []byte) {
	n := int(s.parts.Load())
	if n == 0 || s.link.producer.Queued() > softQueue {
		s.metrics.dropped.WithLabelValues(softAway).Inc()
		return
	}
	s.mu.Lock() // held until it is queued, so that sequences and the queue have one order
	defer s.mu.Unlock()
	o := Origin{Boot: s.link.boot, Sequence: s.sequence.Add(1)}
	err := s.link.producer.Produce(kafka.Write{
		Partition: kafka.Partition{Topic: s.opts.Topic, Number: int32(protocol.Partition(topic, n))},
		Records: []kafka.Record{{
			Key: []byte(topic), Value: record, Time: time.Now(),
			Headers: []kafka.Header{{Key: headerOrigin, Value: s.sealer.encode(o, topic, "", record)}},
		}},
		Deadline: time.Now().Add(softDeadline),
		Done: func(p kafka.Produced) {
			if p.Err != nil {
				s.metrics.dropped.WithLabelValues(softAway).Inc()
			}
		},
	})
	if err != nil {
		s.metrics.dropped.WithLabelValues(softAway).Inc()
		return
	}
	s.metrics.sent.Inc()
}

// Run takes in what other nodes send, until ctx ends. While Kafka is away it
// tries again.
func (s *Soft) Run(ctx context.Context) {
	for {
		if err := s.read(ctx); err != nil && ctx.Err() == nil {
			s.opts.Logger.Warn("ephemeral messages of other nodes do not come; it is tried again", "topic", s.opts.Topic, "error", err)
		}
		select {
		case <-time.After(softRetry):
		case <-ctx.Done():
			return
		}
	}
}

// read reads all partitions from their ends, until one of them ends with an
// error.
func (s *Soft) read(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, verifyTime)
	defer cancel()
	topic, err := s.link.client.Topic(asking, s.opts.Topic)
	if err != nil {
		return err
	}
	bounds, err := s.link.client.Bounds(asking, topic)
	if err != nil {
		return err
	}
	failed := make(chan error, len(bounds))
	for _, b := range bounds {
		r := &softReader{soft: s, sealer: newSealer(s.opts.Secret), sequences: newSequences(softWindow)}
		p := kafka.Partition{Topic: topic.Name, Number: b.Partition}
		err := s.link.fetcher.Add(kafka.Source{Partition: p, ID: topic.ID, Offset: b.End, Sink: func(_ context.Context, f kafka.Fetched) error {
			if err := r.take(f); err != nil {
				failed <- err
				return err
			}
			return nil
		}})
		if err != nil {
			return err
		}
		defer s.link.fetcher.Remove(p)
	}
	s.parts.Store(int32(len(bounds)))
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// softReader reads one partition.
type softReader struct {
	soft      *Soft
	sealer    *sealer
	sequences sequences
}

// take takes what was read. An error ends reading: it begins anew at the end.
func (r *softReader) take(f kafka.Fetched) error {
	switch kafka.KindOf(f.Err) {
	case kafka.OutOfRange, kafka.TopicChanged, kafka.NoTopic: // from any other error reading recovers
		return fmt.Errorf("read the topic of ephemeral messages: %w", f.Err)
	}
	for i := range f.Batches {
		b := &f.Batches[i]
		if b.Control || b.Transactional || b.Bad != nil {
			continue
		}
		for j := range b.Records {
			r.judge(&b.Records[j])
		}
		r.sequences.forget(uint64(b.Last) + 1)
	}
	return nil
}

// judge delivers a record, if another node of the cluster has just written it.
func (r *softReader) judge(rec *kafka.Record) {
	topic := string(rec.Key)
	origin, ok := r.origin(rec, topic)
	switch {
	case !ok:
		r.soft.metrics.dropped.WithLabelValues(softForeign).Inc()
		return
	case origin.Boot == r.soft.link.boot:
		return // this node has delivered it already
	case !r.sequences.take(origin.Boot, origin.Sequence, uint64(rec.Offset)+1):
		return // a repeat
	case time.Since(rec.Time) > softAge:
		r.soft.metrics.dropped.WithLabelValues(softOld).Inc()
		return
	}
	m, err := protocol.ParseRecord(rec.Value)
	if err != nil || m.Topic != topic || m.Check(r.soft.opts.MaxPayload) != nil {
		r.soft.metrics.dropped.WithLabelValues(softForeign).Inc()
		return
	}
	r.soft.metrics.received.Inc()
	r.soft.opts.Deliver(append([]byte(nil), rec.Value...)) // its memory is the whole fetch's
}

// origin returns what the broker that wrote a record says.
func (r *softReader) origin(rec *kafka.Record, topic string) (Origin, bool) {
	for _, h := range rec.Headers {
		if h.Key == headerOrigin {
			return r.sealer.decode(h.Value, topic, "", rec.Value)
		}
	}
	return Origin{}, false
}

// Why an ephemeral message did not come to other nodes, or from them.
const (
	softAway    = "kafka_away" // Kafka did not take it in time
	softOld     = "old"        // it was on its way for too long
	softForeign = "foreign"    // no broker of this cluster has written it
)

type softMetrics struct {
	sent, received prometheus.Counter
	dropped        *prometheus.CounterVec
}

func newSoftMetrics(r prometheus.Registerer) softMetrics {
	m := softMetrics{
		sent:     prometheus.NewCounter(prometheus.CounterOpts{Name: "tidewire_kafka_soft_sent_total", Help: "Ephemeral messages on their way to the other nodes."}),
		received: prometheus.NewCounter(prometheus.CounterOpts{Name: "tidewire_kafka_soft_received_total", Help: "Ephemeral messages from other nodes."}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidewire_kafka_soft_dropped_total",
			Help: "Ephemeral messages that did not come to other nodes or from them, by reason: kafka_away, old, foreign (no broker has written it).",
		}, []string{"reason"}),
	}
	for _, reason := range []string{softAway, softOld, softForeign} {
		m.dropped.WithLabelValues(reason)
	}
	if r != nil {
		r.MustRegister(m.sent, m.received, m.dropped)
	}
	return m
}
