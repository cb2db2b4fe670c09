package bridge

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
)

// Names of Kafka's settings of a topic.
const (
	setCleanup       = "cleanup.policy"
	setRetentionTime = "retention.ms"
	setRetentionSize = "retention.bytes"
	setMaxMessage    = "max.message.bytes"
	setMinInSync     = "min.insync.replicas"
	setTimestamps    = "message.timestamp.type"
	setUnclean       = "unclean.leader.election.enable"
)

// minMessageBytes is what the topic of a stream must take at once: a batch of the
// producer.
const minMessageBytes = 1_000_000

// TopicOptions are what may differ between the topics of streams.
type TopicOptions struct {
	Replication    int           // copies of each partition; 0 for Kafka's default
	MinInSync      int           // that must have a record before it is answered; 0 for Kafka's default
	Retention      time.Duration // negative to keep for ever
	RetentionBytes int64         // of each partition; 0 and less for no bound
}

// Spec says how the topic of a stream is to be created.
func (d Definition) Spec(o TopicOptions) (kafka.TopicSpec, error) {
	d, err := d.withDefaults()
	if err != nil {
		return kafka.TopicSpec{}, err
	}
	spec := kafka.TopicSpec{Name: d.Topic, Partitions: int32(d.Partitions), Replication: -1, Configs: map[string]string{
		setCleanup:       "delete",
		setRetentionTime: "-1",
		setRetentionSize: "-1",
		setMaxMessage:    strconv.Itoa(d.minMessage()),
		setTimestamps:    "CreateTime",
		setUnclean:       "false",
	}}
	if o.Replication > 0 {
		spec.Replication = int16(o.Replication)
	}
	if o.Retention >= 0 {
		spec.Configs[setRetentionTime] = strconv.FormatInt(o.Retention.Milliseconds(), 10)
	}
	if o.RetentionBytes > 0 {
		spec.Configs[setRetentionSize] = strconv.FormatInt(o.RetentionBytes, 10)
	}
	if o.MinInSync > 0 {
		spec.Configs[setMinInSync] = strconv.Itoa(o.MinInSync)
	}
	return spec, nil
}

// minMessage is what max.message.bytes must be at least.
func (d Definition) minMessage() int {
	return max(minMessageBytes, d.MaxPayload+protocol.MaxMessageOverhead)
}

// A Finding is one thing about a topic that is not as a stream needs it.
type Finding struct {
	Fatal    bool // the stream cannot be served
	Sentence string
}

// Local is what nodes keep of a stream: its retention, as storage.LogOptions have
// it. It may not exceed Kafka's: a node would promise positions that no other
// has.
type Local struct {
	Age   time.Duration // negative: for ever
	Bytes int64         // negative: no bound
}

// Check compares the topic of a stream with what it must be. An error says that
// Kafka could not be asked.
func (d Definition) Check(ctx context.Context, c *kafka.Client, local Local) ([]Finding, error) {
	d, err := d.withDefaults()
	if err != nil {
		return nil, err
	}
	topic, err := c.Topic(ctx, d.Topic)
	if err != nil {
		return nil, err
	}
	settings, err := c.Configs(ctx, d.Topic)
	if err != nil {
		return nil, err
	}
	f := &findings{topic: d.Topic, settings: settings}
	if d.TopicID != (kafka.TopicID{}) && topic.ID != d.TopicID {
		f.add(true, "the topic %s was deleted and created again: its id is %s, and the stream %s was made with %s; run `tidewire kafka new-term` if what was in it may go", d.Topic, topic.ID, d.Stream, d.TopicID)
	}
	if n := len(topic.Partitions); n != d.Partitions {
		f.add(true, "the topic %s has %d partitions, and the stream %s was made with %d, so that the messages of one topic would lie in two; run `tidewire kafka new-term`, which begins anew with %d, or give the stream another topic of Kafka", d.Topic, n, d.Stream, d.Partitions, n)
	}
	f.retention(local)
	f.messages(d)
	f.replicas(topic)
	return f.found, nil
}

// findings gathers what is found about one topic.
type findings struct {
	topic    string
	settings map[string]string
	found    []Finding
}

func (f *findings) add(fatal bool, format string, args ...any) {
	f.found = append(f.found, Finding{Fatal: fatal, Sentence: fmt.Sprintf(format, args...)})
}

// change is the way out of a wrong setting.
func (f *findings) change(name, value string) string {
	return fmt.Sprintf("run kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config %s=%s", f.topic, name, value)
}

// number returns a setting that is a number; ok is false if Kafka did not tell it.
func (f *findings) number(name string) (n int64, ok bool) {
	n, err := strconv.ParseInt(f.settings[name], 10, 64)
	return n, err == nil
}

func (f *findings) retention(local Local) {
	if policy := f.settings[setCleanup]; policy != "" && policy != "delete" {
		f.add(true, "the topic %s has %s=%s, which removes messages from the middle of the log; %s", f.topic, setCleanup, policy, f.change(setCleanup, "delete"))
	}
	if ms, ok := f.number(setRetentionTime); ok && ms >= 0 && (local.Age < 0 || local.Age > time.Duration(ms)*time.Millisecond) {
		want := "-1"
		if local.Age >= 0 {
			want = strconv.FormatInt(local.Age.Milliseconds(), 10)
		}
		f.add(true, "Kafka keeps the topic %s for %v, and the nodes would keep it longer, so that positions hold on some and not on others; lower retention_age of the stream, or %s", f.topic, time.Duration(ms)*time.Millisecond, f.change(setRetentionTime, want))
	}
	if size, ok := f.number(setRetentionSize); ok && size >= 0 && (local.Bytes < 0 || local.Bytes > size) {
		f.add(true, "Kafka keeps %d bytes of each partition of the topic %s, and the nodes would keep more; lower retention_bytes of the stream, or %s", size, f.topic, f.change(setRetentionSize, "-1"))
	}
}

func (f *findings) messages(d Definition) {
	if n, ok := f.number(setMaxMessage); ok && n < int64(d.minMessage()) {
		f.add(true, "the topic %s takes batches of %d bytes, and %d are needed; %s", f.topic, n, d.minMessage(), f.change(setMaxMessage, strconv.Itoa(d.minMessage())))
	}
	if kind := f.settings[setTimestamps]; kind != "" && kind != "CreateTime" {
		f.add(false, "the topic %s has %s=%s: messages keep the times of their publishers all the same", f.topic, setTimestamps, kind)
	}
}

// replicas tells what a failure of Kafka's nodes would do.
func (f *findings) replicas(t kafka.Topic) {
	copies := 0
	for i, p := range t.Partitions {
		if n := len(p.Replicas); i == 0 || n < copies {
			copies = n
		}
	}
	least, known := f.number(setMinInSync)
	switch {
	case copies == 1:
		f.add(false, "the topic %s has one copy of each partition: a disk of Kafka that dies takes messages with it that were answered; three copies are usual", f.topic)
	case known && least < 2:
		f.add(false, "the topic %s has %s=%d: a message is answered when one node of Kafka has it, and lost if that one dies; %s", f.topic, setMinInSync, least, f.change(setMinInSync, "2"))
	case known && int64(copies) <= least:
		f.add(false, "the topic %s has %d copies and %s=%d: while one node of Kafka is away nothing can be published", f.topic, copies, setMinInSync, least)
	}
	if f.settings[setUnclean] == "true" {
		f.add(false, "the topic %s has %s=true: Kafka may lose messages that were answered, and the nodes halt then; %s", f.topic, setUnclean, f.change(setUnclean, "false"))
	}
}
