package kafka

import (
	"context"
	"slices"
	"time"
)

// A TopicSpec says how a topic is created.
type TopicSpec struct {
	Name        string
	Partitions  int32             // -1: what Kafka has as default
	Replication int16             // -1: what Kafka has as default
	Configs     map[string]string // settings of the topic, such as min.insync.replicas
}

// A Topic is what Kafka says about one, at the moment of asking.
type Topic struct {
	Name       string
	ID         TopicID
	Partitions []PartitionInfo // in the order of their numbers
}

// PartitionInfo says who holds a partition. Leader is -1 while nobody leads it.
type PartitionInfo struct {
	Number   int32
	Leader   int32
	Epoch    int32 // grows with each change of the leader
	Replicas []int32
	InSync   []int32
}

// Bounds are the offsets of the first record that is still in a partition, and
// of the one that will be appended next.
type Bounds struct {
	Partition  int32
	Start, End int64
}

// Topic returns what Kafka says about a topic. It is an error, of the kind
// NoTopic, if there is none.
func (c *Client) Topic(ctx context.Context, name string) (Topic, error) {
	list, _, err := c.askMetadata(ctx, []string{name})
	if err != nil {
		return Topic{}, err
	}
	k := list[name]
	return k.topic, k.err
}

// CreateTopic creates a topic and returns when each of its partitions has a
// leader that answers. It is an error, of the kind Exists, if it is there.
func (c *Client) CreateTopic(ctx context.Context, spec TopicSpec) (Topic, error) {
	_, controller, err := c.askMetadata(ctx, []string{spec.Name})
	if err != nil {
		return Topic{}, err
	}
	const patience = 15 * time.Second
	r, _, err := c.do(ctx, call{
		api: apiCreateTopics, broker: controller, wait: patience, waits: true,
		body: func(w *wireWriter) { writeCreate(w, spec, patience) },
	})
	if err != nil {
		return Topic{}, err
	}
	if err := readCreated(r, spec.Name); err != nil {
		return Topic{}, err
	}
	// The other brokers hear of it later, and the leaders, too.
	var pause pauser
	for {
		t, err := c.Topic(ctx, spec.Name)
		if err == nil {
			_, err = c.Bounds(ctx, t)
		}
		if err == nil || !KindOf(err).Retryable() && KindOf(err) != NoTopic {
			return t, err
		}
		if sleep(ctx, pause.next()) != nil {
			return t, err
		}
	}
}

func writeCreate(w *wireWriter, spec TopicSpec, patience time.Duration) {
	w.count(1)
	w.string(spec.Name)
	w.int32(spec.Partitions)
	w.int16(spec.Replication)
	w.count(0) // no assignments
	names := make([]string, 0, len(spec.Configs))
	for name := range spec.Configs {
		names = append(names, name)
	}
	slices.Sort(names)
	w.count(len(names))
	for _, name := range names {
		w.string(name)
		w.string(spec.Configs[name])
		w.end()
	}
	w.end()
	w.int32(int32(patience.Milliseconds()))
	w.no()
	w.end()
}

func readCreated(r *wireReader, topic string) error {
	r.int32() // throttle
	n := r.count()
	name := r.string()
	r.id()
	code, message := r.int16(), r.string()
	if r.err != nil || n != 1 || name != topic {
		return failf(Corrupt, r.err, "the answer of Kafka to the creation of topic %s cannot be read", topic)
	}
	if err := answerError(code, message, "topic "+topic); err != nil {
		return err
	}
	return nil
}

// Configs returns the settings of a topic, those it has by default included.
func (c *Client) Configs(ctx context.Context, topic string) (map[string]string, error) {
	r, _, err := c.do(ctx, call{api: apiDescribeConfigs, broker: anyBroker, body: func(w *wireWriter) {
		w.count(1)
		w.int8(2) // a topic
		w.string(topic)
		w.null() // all of them
		w.end()
		w.no()
		w.no()
		w.end()
	}})
	if err != nil {
		return nil, err
	}
	r.int32() // throttle
	n := r.count()
	code, message := r.int16(), r.string()
	r.skip(1)
	r.bytes()
	configs := map[string]string{}
	for range r.count() {
		name := r.string()
		configs[name] = r.string()
		r.skip(3) // read only, source, sensitive
		for range r.count() {
			r.bytes()
			r.bytes()
			r.skip(1)
			r.end()
		}
		r.skip(1)
		r.bytes()
		r.end()
	}
	if r.err != nil || n != 1 {
		return nil, failf(Corrupt, r.err, "the answer of Kafka about the settings of topic %s cannot be read", topic)
	}
	if err := answerError(code, message, "topic "+topic); err != nil {
		return nil, err
	}
	return configs, nil
}
