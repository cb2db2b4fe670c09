package main

import (
	"context"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tidewire/tidewire/broker/bridge"
	"github.com/tidewire/tidewire/broker/bridge/kafka"
)

// badRecords copies records that are no messages into a topic of their own, so that
// whoever wrote them can see why. All nodes find them; the holder of the lease
// copies. What is found while no node holds it, or faster than it can be copied, is
// counted and not copied.
type badRecords struct {
	client *kafka.Client
	topic  string
	logger *slog.Logger
	mine   atomic.Bool // this node copies
	found  chan kafka.Record
}

const (
	maxBadWaiting = 64 // each has up to 512 KiB
	badDeadline   = 10 * time.Second
	badRetention  = 7 * 24 * time.Hour
)

func newBadRecords(client *kafka.Client, topic string, logger *slog.Logger) *badRecords {
	return &badRecords{client: client, topic: topic, logger: logger, found: make(chan kafka.Record, maxBadWaiting)}
}

// badSpec says how the topic is created.
func badSpec(topic string, replication int) kafka.TopicSpec {
	return kafka.TopicSpec{Name: topic, Partitions: 1, Replication: int16(replication), Configs: map[string]string{
		"cleanup.policy": "delete", "retention.ms": strconv.FormatInt(badRetention.Milliseconds(), 10), "max.message.bytes": "1000000",
	}}
}

// find is told of a record.
func (b *badRecords) find(r bridge.Refused) {
	if !b.mine.Load() || r.Reason == bridge.Overtaken { // which is a broker's own
		return
	}
	select {
	case b.found <- r.Copy():
	default:
	}
}

// copy copies while this node holds the lease.
func (b *badRecords) copy(ctx context.Context, _ uint64) {
	producer := b.client.NewProducer(kafka.ProducerOptions{})
	defer producer.Close()
	b.mine.Store(true)
	defer b.mine.Store(false)
	for {
		select {
		case record := <-b.found:
			err := producer.Produce(kafka.Write{
				Partition: kafka.Partition{Topic: b.topic}, Deadline: time.Now().Add(badDeadline),
				Records: []kafka.Record{record}, Done: func(p kafka.Produced) { b.failed(p.Err) },
			})
			b.failed(err)
		case <-ctx.Done():
			return
		}
	}
}

func (b *badRecords) failed(err error) {
	if err != nil && kafka.KindOf(err) != kafka.Closed {
		b.logger.Warn("a record that is no message was not copied", "topic", b.topic, "error", err)
	}
}
