package kafka

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"slices"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
)

// Client returns a client of the plain listener that learns soon when a leader
// changes. The function ends it.
func (c *Cluster) Client() (client *kafka.Client, done func()) {
	transport := &kafka.Transport{MetadataTTL: 100 * time.Millisecond, DialTimeout: time.Second}
	return &kafka.Client{Addr: kafka.TCP(c.Addresses(Plain)...), Transport: transport, Timeout: 5 * time.Second}, transport.CloseIdleConnections
}

// probes tells topics of the probe apart: one that is being deleted still has its
// name for a moment.
var probes atomic.Int64

// probe returns when a topic could be made and written to, and removes it again.
func (c *Cluster) probe(ctx context.Context) error {
	name := fmt.Sprintf("probe-%d-%s", probes.Add(1), randomID())
	if err := c.CreateTopic(ctx, name, Topic{}); err != nil {
		return err
	}
	err := c.retry(ctx, "write to a topic", func(ctx context.Context, client *kafka.Client) error {
		resp, err := client.Produce(ctx, &kafka.ProduceRequest{
			Topic: name, RequiredAcks: kafka.RequireAll,
			Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes([]byte("probe"))}),
		})
		if err != nil {
			return err
		}
		return resp.Error
	})
	if err != nil {
		return err
	}
	return c.DeleteTopic(ctx, name)
}

// retry tries until it went well. Each try has connections of its own, since
// kafka-go answers much from what it remembers.
func (c *Cluster) retry(ctx context.Context, what string, try func(context.Context, *kafka.Client) error) error {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		err := c.attempt(ctx, try)
		if err == nil {
			return nil
		}
		if !slices.ContainsFunc(c.nodes, (*Node).Running) {
			return fmt.Errorf("%s: no node of Kafka runs (%w)", what, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (%w)", what, context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

func (c *Cluster) attempt(ctx context.Context, try func(context.Context, *kafka.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client, done := c.Client()
	defer done()
	return try(ctx, client)
}

// await returns when the nodes are known to the cluster and follow all their
// partitions. It fails at once if one of them has ended.
func (c *Cluster) await(ctx context.Context, nodes ...*Node) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	return c.retry(ctx, "wait for Kafka", func(ctx context.Context, client *kafka.Client) error {
		for _, n := range nodes {
			if !n.Running() {
				cancel(fmt.Errorf("node %d has ended", n.id))
			}
		}
		meta, err := client.Metadata(ctx, &kafka.MetadataRequest{})
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if err := follows(meta, n.id); err != nil {
				return err
			}
		}
		return nil
	})
}

// follows returns why the cluster does not count on the node yet.
func follows(meta *kafka.MetadataResponse, id int) error {
	is := func(b kafka.Broker) bool { return b.ID == id }
	if !slices.ContainsFunc(meta.Brokers, is) {
		return fmt.Errorf("node %d has not joined", id)
	}
	for _, t := range meta.Topics {
		for _, p := range t.Partitions {
			if slices.ContainsFunc(p.Replicas, is) && !slices.ContainsFunc(p.Isr, is) {
				return fmt.Errorf("node %d is behind on partition %d of %s", id, p.ID, t.Name)
			}
			if p.Leader.ID <= 0 {
				return fmt.Errorf("partition %d of %s has no leader", p.ID, t.Name)
			}
		}
	}
	return nil
}

// Topic is what a topic is to be.
type Topic struct {
	Partitions int // 1 if it is 0
	Replicas   int // as many as there are nodes, at most 3, if it is 0
	Config     map[string]string
}

// CreateTopic makes a topic, and returns when all of its partitions answer.
func (c *Cluster) CreateTopic(ctx context.Context, name string, t Topic) error {
	spec := kafka.TopicConfig{Topic: name, NumPartitions: max(t.Partitions, 1), ReplicationFactor: t.Replicas}
	if spec.ReplicationFactor == 0 {
		spec.ReplicationFactor = min(len(c.nodes), 3)
	}
	for key, value := range t.Config {
		spec.ConfigEntries = append(spec.ConfigEntries, kafka.ConfigEntry{ConfigName: key, ConfigValue: value})
	}
	err := c.retry(ctx, "create topic "+name, func(ctx context.Context, client *kafka.Client) error {
		resp, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{spec}})
		if err != nil {
			return err
		}
		return resp.Errors[name]
	})
	if err != nil {
		return err
	}
	_, err = c.EndOffsets(ctx, name)
	return err
}

// DeleteTopic removes a topic, and returns when the cluster does not list it any
// more.
func (c *Cluster) DeleteTopic(ctx context.Context, name string) error {
	return c.retry(ctx, "delete topic "+name, func(ctx context.Context, client *kafka.Client) error {
		resp, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{name}})
		if err != nil {
			return err
		}
		err = resp.Errors[name]
		if errors.Is(err, kafka.UnknownTopicOrPartition) {
			return nil // it is gone, perhaps by the try before
		}
		if err == nil {
			err = fmt.Errorf("it is being deleted")
		}
		return err
	})
}

// EndOffsets returns the offset of the next record of each partition.
func (c *Cluster) EndOffsets(ctx context.Context, topic string) ([]int64, error) {
	var ends []int64
	err := c.retry(ctx, "ask for the ends of topic "+topic, func(ctx context.Context, client *kafka.Client) error {
		partitions, err := partitionsOf(ctx, client, topic)
		if err != nil {
			return err
		}
		var asked []kafka.OffsetRequest
		for _, p := range partitions {
			asked = append(asked, kafka.LastOffsetOf(p.ID))
		}
		resp, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: asked}})
		if err != nil {
			return err
		}
		ends = make([]int64, len(partitions))
		for _, p := range resp.Topics[topic] {
			if p.Error != nil {
				return p.Error
			}
			ends[p.Partition] = p.LastOffset
		}
		return nil
	})
	return ends, err
}

// Leader returns the node that leads a partition.
func (c *Cluster) Leader(ctx context.Context, topic string, partition int) (*Node, error) {
	var leader *Node
	err := c.retry(ctx, "ask for the leader of topic "+topic, func(ctx context.Context, client *kafka.Client) error {
		partitions, err := partitionsOf(ctx, client, topic)
		if err != nil {
			return err
		}
		for _, p := range partitions {
			if p.ID == partition {
				leader = c.Node(p.Leader.ID)
				return nil
			}
		}
		return fmt.Errorf("it has no partition %d", partition)
	})
	return leader, err
}

// partitionsOf returns the partitions of a topic, each of which has a leader.
func partitionsOf(ctx context.Context, client *kafka.Client, topic string) ([]kafka.Partition, error) {
	meta, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return nil, err
	}
	for _, t := range meta.Topics {
		if t.Name != topic {
			continue
		}
		for _, p := range t.Partitions {
			if p.Error != nil {
				return nil, p.Error
			}
			if p.Leader.ID <= 0 {
				return nil, fmt.Errorf("partition %d has no leader", p.ID)
			}
		}
		return t.Partitions, t.Error
	}
	return nil, fmt.Errorf("the answer does not name the topic")
}

// addUser makes the user of the listeners with SASL known to SCRAM; PLAIN has it
// from the settings. Kafka wants a request for each mechanism.
func (c *Cluster) addUser(ctx context.Context) error {
	for mechanism, h := range map[kafka.ScramMechanism]func() hash.Hash{
		kafka.ScramMechanismSha256: sha256.New,
		kafka.ScramMechanismSha512: sha512.New,
	} {
		user, err := credential(mechanism, h)
		if err != nil {
			return err
		}
		err = c.retry(ctx, "add the user for SCRAM", func(ctx context.Context, client *kafka.Client) error {
			resp, err := client.AlterUserScramCredentials(ctx, &kafka.AlterUserScramCredentialsRequest{
				Upsertions: []kafka.UserScramCredentialsUpsertion{user},
			})
			if err != nil {
				return err
			}
			for _, r := range resp.Results {
				err = errors.Join(err, r.Error)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func credential(mechanism kafka.ScramMechanism, h func() hash.Hash) (kafka.UserScramCredentialsUpsertion, error) {
	const iterations = 4096 // the fewest that Kafka takes
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	salted, err := pbkdf2.Key(h, Password, salt, iterations, h().Size())
	return kafka.UserScramCredentialsUpsertion{Name: User, Mechanism: mechanism, Iterations: iterations, Salt: salt, SaltedPassword: salted}, err
}
