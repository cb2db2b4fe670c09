package connect

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/broker/bridge"
	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/broker/cluster"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// Common is what connectors of both directions need.
type Common struct {
	Name       string
	Client     *kafka.Client
	Progress   *cluster.Connectors
	Write      func(...*clusterv1.Record) error // appends to the control log
	BadTopic   string                           // in Kafka, for what cannot be carried
	Logger     *slog.Logger
	Registerer prometheus.Registerer

	metrics *metrics
}

// Publisher takes messages one behind the other. After a refusal that invites a
// repeat it refuses everything behind it that must not come first.
type Publisher interface {
	Publish(ctx context.Context, m *protocol.Message, done func(storage.Result))
}

// InOptions say what an [In] carries.
type InOptions struct {
	Common
	Topic   string    // in Kafka
	To      *Template // of the topic of the messages
	Latest  bool      // begin, the first time, with what comes from then on
	Publish func() Publisher
}

// InFields are the kinds of fields that To may have.
func InFields() []Kind { return []Kind{FieldKey, FieldHeader, FieldJSON, FieldTopic, FieldPartition} }

// An In carries a topic of Kafka to Tidewire. Each partition is read in order; of
// each one a window of messages is published, and only when all of them have their
// answer the next one.
type In struct {
	opts InOptions
}

// NewIn returns a connector, which works while Run does.
func NewIn(o InOptions) *In {
	o.metrics = newMetrics(o.Registerer, o.Name, "in")
	return &In{opts: o}
}

// Bounds of a window, and paces.
const (
	windowRecords = 256
	windowBytes   = 2 << 20

	tellEvery = time.Second      // to the cluster, how far a connector has come
	lookEvery = 30 * time.Second // at the topic: it may have more partitions
	restPause = 2 * time.Second  // after a failure that ends everything under way

	firstPause = 100 * time.Millisecond // before a repeat; it doubles
	lastPause  = 5 * time.Second
	askTime    = 5 * time.Second // for questions to Kafka
)

// errAnew ends what is under way, to begin anew.
var errAnew = errors.New("the topic has changed")

// Run carries until ctx ends, under a generation of the lease.
func (c *In) Run(ctx context.Context, generation uint64) {
	run(ctx, &c.opts.Common, func(ctx context.Context) error { return c.carry(ctx, generation) })
}

// run calls carry again and again.
func run(ctx context.Context, c *Common, carry func(context.Context) error) {
	c.metrics.held.Set(1)
	c.Logger.Info("a connector runs on this node", "connector", c.Name)
	defer c.metrics.held.Set(0)
	defer c.metrics.lag.Set(0)
	said := ""
	for ctx.Err() == nil {
		err := carry(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errAnew):
			said = ""
		case err != nil && err.Error() != said:
			said = err.Error()
			c.Logger.Error("a connector cannot work and tries again", "connector", c.Name, "error", err)
		}
		wait(ctx, restPause)
	}
}

// wait returns false if ctx ends before.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// reading is an In at work on one incarnation of its topic.
type reading struct {
	*In
	topic   kafka.Topic
	id      string // of the topic, the beginning of message ids
	keeper  *keeper
	bin     *bin
	fetcher *kafka.Fetcher
	end     context.CancelCauseFunc
}

// carry carries until ctx ends or something else has to be done first.
func (c *In) carry(ctx context.Context, generation uint64) error {
	topic, bounds, err := look(ctx, c.opts.Client, c.opts.Topic)
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	producer := c.opts.Client.NewProducer(kafka.ProducerOptions{})
	defer producer.Close()
	r := &reading{
		In: c, topic: topic, id: "k/" + hex.EncodeToString(topic.ID[:]) + "/", keeper: newKeeper(&c.opts.Common, generation, topic.ID[:]), end: end,
		bin:     &bin{c.opts.Name, c.opts.BadTopic, producer, c.opts.metrics, c.opts.Logger},
		fetcher: c.opts.Client.NewFetcher(kafka.FetcherOptions{MaxBytes: 16 << 20, PartitionBytes: windowBytes}),
	}
	defer r.keeper.tell()
	defer r.fetcher.Close()
	if err := r.fetcher.Add(r.sources(bounds)...); err != nil {
		return err
	}
	return watch(ctx, &c.opts.Common, r.keeper, topic)
}

// look asks Kafka for a topic and where it begins and ends.
func look(ctx context.Context, client *kafka.Client, name string) (kafka.Topic, []kafka.Bounds, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	topic, err := client.Topic(ctx, name)
	if err != nil {
		return topic, nil, fmt.Errorf("the topic %s in Kafka: %w", name, err)
	}
	bounds, err := client.Bounds(ctx, topic)
	if err != nil {
		return topic, nil, fmt.Errorf("the topic %s in Kafka: %w", name, err)
	}
	return topic, bounds, nil
}

// watch tells the cluster how far the connector has come, and looks now and then
// whether the topic of Kafka is still the same, until ctx ends.
func watch(ctx context.Context, c *Common, k *keeper, topic kafka.Topic) error {
	again := time.NewTicker(lookEvery)
	defer again.Stop()
	rest := time.NewTimer(0) // until the cluster may be told again
	defer rest.Stop()
	news := k.news
	for {
		select {
		case <-news:
			k.tell()
			rest.Reset(tellEvery)
			news = nil
		case <-rest.C:
			news = k.news
		case <-again.C:
			now, _, err := look(ctx, c.Client, topic.Name)
			if err == nil && (now.ID != topic.ID || len(now.Partitions) != len(topic.Partitions)) {
				return errAnew
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sources says where the partitions are read from. What the topic has got since
// it was first looked at is read from its beginning, whatever the settings say.
func (r *reading) sources(bounds []kafka.Bounds) []kafka.Source {
	places, same, before := r.opts.Progress.Places(r.opts.Name, r.topic.ID[:])
	if before && !same {
		r.opts.metrics.gaps.Inc()
		r.opts.Logger.Warn("the topic of a connector is another one than before: it is read from its beginning", "connector", r.opts.Name, "topic", r.opts.Topic)
	}
	var all []kafka.Source
	for _, b := range bounds {
		at, known := places[uint32(b.Partition)]
		switch {
		case known:
		case r.opts.Latest && !before:
			at = uint64(b.End)
		default:
			at = uint64(b.Start)
		}
		r.opts.Logger.Debug("a connector goes on", "connector", r.opts.Name, "topic", r.opts.Topic, "partition", b.Partition, "at", at, "end", b.End)
		r.keeper.begin(uint32(b.Partition), at, !known)
		r.keeper.reaches(uint32(b.Partition), uint64(b.End))
		all = append(all, kafka.Source{
			Partition: kafka.Partition{Topic: r.topic.Name, Number: b.Partition}, ID: r.topic.ID, Offset: int64(at),
			Sink: func(ctx context.Context, f kafka.Fetched) error { return r.take(ctx, b.Partition, f) },
		})
	}
	return all
}

// take carries what was read of a partition.
func (r *reading) take(ctx context.Context, number int32, f kafka.Fetched) error {
	if f.Err != nil {
		return r.failed(number, f)
	}
	r.keeper.reaches(uint32(number), uint64(max(f.HighWatermark, 0)))
	w := window{reading: r, partition: kafka.Partition{Topic: r.topic.Name, Number: number}}
	for i := range f.Batches {
		b := &f.Batches[i]
		if b.Bad != nil {
			w.spoil(&kafka.Record{Offset: b.Base}, Unreadable)
		}
		for j := range b.Records {
			w.add(&b.Records[j], b.Transactional)
			if w.full() && !w.flush(ctx, uint64(b.Records[j].Offset+1)) {
				return ctx.Err()
			}
		}
		if i == len(f.Batches)-1 && !w.flush(ctx, uint64(b.Last+1)) {
			return ctx.Err()
		}
	}
	return nil
}

// failed sees to a partition that cannot be read.
func (r *reading) failed(number int32, f kafka.Fetched) error {
	switch kafka.KindOf(f.Err) {
	case kafka.TopicChanged, kafka.NoTopic:
		r.end(errAnew)
		return f.Err
	case kafka.OutOfRange:
		return r.missed(number)
	}
	r.opts.Logger.Warn("a connector cannot read and tries again", "connector", r.opts.Name, "topic", r.opts.Topic, "partition", number, "error", f.Err)
	return nil
}

// missed goes on where there is something again.
func (r *reading) missed(number int32) error {
	_, bounds, err := look(context.Background(), r.opts.Client, r.topic.Name)
	if err != nil || int(number) >= len(bounds) {
		r.end(errAnew)
		return kafka.OutOfRange
	}
	at, b := r.keeper.at(uint32(number)), bounds[number]
	next := uint64(b.Start)
	if at > uint64(b.End) {
		next = uint64(b.End)
	}
	r.opts.metrics.gaps.Inc()
	r.opts.Logger.Warn("Kafka does not have any more what a connector has not carried", "connector", r.opts.Name, "topic", r.opts.Topic, "partition", number, "from", at, "next", next)
	r.keeper.come(uint32(number), next)
	r.fetcher.Seek(kafka.Partition{Topic: r.topic.Name, Number: number}, int64(next))
	return nil
}

// message makes the message of a record, or says why there is none.
func (r *reading) message(number int32, rec *kafka.Record, transactional bool) (m protocol.Message, why Reason) {
	switch {
	case transactional:
		return m, Transactional
	case rec.Value == nil:
		return m, NullValue
	}
	partition := strconv.Itoa(int(number))
	m.Topic, why = topicOf(r.opts.To, &fields{
		topic: r.topic.Name, partition: partition, key: string(rec.Key), noKey: rec.Key == nil, payload: rec.Value,
		header: func(name string) (value string, ok bool) {
			for _, h := range rec.Headers {
				if strings.EqualFold(h.Key, name) {
					value, ok = string(h.Value), h.Value != nil
				}
			}
			return value, ok
		},
	})
	if why != "" {
		return m, why
	}
	m.ID = r.id + partition + "/" + strconv.FormatInt(rec.Offset, 10)
	m.Payload = rec.Value
	m.ContentType, m.Headers = bridge.ForeignHeaders(rec.Headers)
	return m, ""
}
