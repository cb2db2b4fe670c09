package whole_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	bridge "github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/tests/kafka"
)

// carries lists what connects two topics of Kafka through the cluster.
var carries = []string{
	"TIDEWIRE_KAFKA_IN_0_NAME=erp", "TIDEWIRE_KAFKA_IN_0_TOPIC=erp.orders", "TIDEWIRE_KAFKA_IN_0_TO=orders.{json.region}.{key}",
	"TIDEWIRE_KAFKA_OUT_0_NAME=warehouse", "TIDEWIRE_KAFKA_OUT_0_FILTER=orders.>", "TIDEWIRE_KAFKA_OUT_0_TOPIC=warehouse.orders",
	"TIDEWIRE_KAFKA_OUT_0_HEADERS=source=tidewire", "TIDEWIRE_KAFKA_OUT_0_FROM=earliest",
}

// Records of a topic go through Tidewire into another one, while the nodes that carry
// them are killed: nothing is lost, what comes in is there once, and what goes out
// is in order but for repeats that have the same id.
func TestClusterConnectors(t *testing.T) {
	n := startNodes(t, kafka.Options{}, carries...)
	topics := n.topics("erp.orders", "warehouse.orders")
	const keys, rounds, each = 6, 3, 200
	for round := range rounds {
		topics.produce(keys, round*each, each)
		within(t, time.Minute, "it goes on", func() bool { return topics.written() > keys*each*round+keys*each/4 })
		for _, connector := range []string{"erp", "warehouse"}[:round] {
			b := n.carrier(connector)
			b.kill()
			b.launch()
			n.ready(b)
		}
	}
	var got map[string][]string
	distinct, repeated := 0, 0
	within(t, time.Minute, "everything is carried", func() bool {
		if topics.written() > distinct+repeated {
			got, distinct, repeated = topics.carried()
		}
		return distinct >= keys*each*rounds
	})
	for key := range keys {
		topic := fmt.Sprintf("orders.eu.%d", key)
		var want []string
		for i := range rounds * each {
			want = append(want, payload(i))
		}
		if !slices.Equal(got[topic], want) {
			t.Errorf("%s: %d messages, want %d", topic, len(got[topic]), len(want))
		}
	}
	t.Logf("%d carried, and %d of them again", distinct, repeated)
	within(t, 10*time.Second, "the lag is 0 again", func() bool {
		return n.carrier("erp").scrape(t)[`tidewire_connector_lag_records{connector="erp",direction="in"}`] == 0
	})
}

// carrier is the broker that runs a connector.
func (n *nodes) carrier(connector string) (carrier *broker) {
	n.t.Helper()
	within(n.t, time.Minute, "a node runs the connector", func() bool {
		for _, b := range n.brokers {
			all := b.scrape(n.t)
			for _, direction := range []string{"in", "out"} {
				if all[fmt.Sprintf(`tidewire_connector_running{connector="%s",direction="%s"}`, connector, direction)] == 1 {
					carrier = b
					return true
				}
			}
		}
		return false
	})
	return carrier
}

func payload(i int) string { return fmt.Sprintf(`{"region":"eu","n":%d}`, i) }

// between are the two ends of what is carried.
type between struct {
	*nodes
	client   *bridge.Client
	in, out  bridge.Topic
	producer *bridge.Producer
}

func (n *nodes) topics(in, out string) *between {
	n.t.Helper()
	client, err := bridge.New(bridge.Options{Brokers: n.kafka.Addresses(kafka.Plain)})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(client.Close)
	b := &between{nodes: n, client: client, producer: client.NewProducer(bridge.ProducerOptions{})}
	for name, topic := range map[string]*bridge.Topic{in: &b.in, out: &b.out} {
		if *topic, err = client.CreateTopic(n.t.Context(), bridge.TopicSpec{Name: name, Partitions: 2, Replication: 1}); err != nil {
			n.t.Fatal(err)
		}
	}
	return b
}

// produce writes numbered records of some keys.
func (b *between) produce(keys, from, each int) {
	b.t.Helper()
	done := make(chan error, keys*each)
	for i := from; i < from+each; i++ {
		for key := range keys {
			err := b.producer.Produce(bridge.Write{
				Partition: bridge.Partition{Topic: b.in.Name, Number: int32(key % 2)},
				Records:   []bridge.Record{{Key: fmt.Append(nil, key), Value: []byte(payload(i)), Time: time.Now()}},
				Deadline:  time.Now().Add(time.Minute), Done: func(p bridge.Produced) { done <- p.Err },
			})
			if err != nil {
				b.t.Fatal(err)
			}
		}
	}
	for range keys * each {
		if err := <-done; err != nil {
			b.t.Fatal(err)
		}
	}
}

// written counts the records that have come out.
func (b *between) written() (n int) {
	bounds, err := b.client.Bounds(b.t.Context(), b.out)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, p := range bounds {
		n += int(p.End)
	}
	return n
}

// carried returns the payloads by topic of Tidewire, in order and without repeats.
func (b *between) carried() (got map[string][]string, distinct, repeated int) {
	b.t.Helper()
	got, seen := make(map[string][]string), make(map[string]bool)
	bounds, err := b.client.Bounds(b.t.Context(), b.out)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, p := range bounds {
		for at := p.Start; at < p.End; {
			batch, err := b.client.BatchAt(b.t.Context(), b.out, p.Partition, at)
			if err != nil {
				b.t.Fatal(err)
			}
			for _, r := range batch.Records {
				h := make(map[string]string)
				for _, header := range r.Headers {
					h[header.Key] = string(header.Value)
				}
				if string(r.Key) != h["tidewire-topic"] || h["tidewire-position"] == "" || h["source"] != "tidewire" {
					b.t.Errorf("a record with the key %s and the headers %v", r.Key, h)
				}
				if id := h["tidewire-topic"] + " " + h["tidewire-id"]; seen[id] {
					repeated++
				} else {
					seen[id] = true
					distinct++
					got[h["tidewire-topic"]] = append(got[h["tidewire-topic"]], string(r.Value))
				}
			}
			at = batch.Last + 1
		}
	}
	return got, distinct, repeated
}
