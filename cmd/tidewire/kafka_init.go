package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidewire/tidewire/broker/bridge"
	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/broker/cluster"
	"github.com/tidewire/tidewire/config"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

func newKafkaCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "kafka",
		Short: "Set up the cluster's topics in Kafka, look at them, or begin a stream anew",
		Long: `Set up what the brokers of a cluster need in Kafka, look at it, or begin a stream
anew. It speaks with Kafka itself, as the configuration says; no broker has to run.`,
		Example: `  tidewire kafka init --config /etc/tidewire.yaml
  tidewire kafka status --config /etc/tidewire.yaml`,
	}, newKafkaInitCommand(), newKafkaStatusCommand(), newKafkaTermCommand())
}

func newKafkaInitCommand() *cobra.Command {
	var from configFlags
	var adopt bool
	c := &cobra.Command{
		Use:   "init",
		Short: "Create the topics and write down what the streams are",
		Long: `Create the topics of the configured streams in Kafka, with the settings that they
need, and write down in the control topic what the streams are. All brokers
compare their configuration with that when they start.

It is needed once, and after a stream was added to the configuration. What is
there already stays as it is; what differs is told. A topic that has records
already becomes a stream only with --adopt: what brokers of a cluster that is
forgotten have written there can no longer be told from a forgery.`,
		Example: "  tidewire kafka init --config /etc/tidewire.yaml",
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := openKafkaTool(&from, c.OutOrStdout(), c.ErrOrStderr())
			if err != nil {
				return err
			}
			defer t.close()
			t.adopt = adopt
			return t.init(c.Context())
		},
	}
	from.addFile(c)
	c.Flags().BoolVar(&adopt, "adopt", false, "make streams also of topics that other clients of Kafka have written to")
	return c
}

// kafkaTool is a command that speaks with Kafka.
type kafkaTool struct {
	settings *config.Config
	client   *kafka.Client
	control  *bridge.Control // nil before read
	adopt    bool            // topics with records may become streams
	out      io.Writer
	logger   *slog.Logger
}

// toolPatience is how long a command waits for Kafka.
const toolPatience = 30 * time.Second

func openKafkaTool(from *configFlags, out, errs io.Writer) (*kafkaTool, error) {
	settings, err := from.load()
	if err != nil {
		return nil, err
	}
	if !isClustered(settings) {
		return nil, errors.New("the configuration names no Kafka: write kafka.brokers, such as brokers: [kafka-1:9092], or set TIDEWIRE_KAFKA_BROKERS")
	}
	logger, _ := newLogger(config.Log{Level: "error", Format: "text"}, errs)
	o, err := kafkaOptions(&settings.Kafka, logger)
	if err != nil {
		return nil, err
	}
	client, err := kafka.New(o)
	if err != nil {
		return nil, err
	}
	return &kafkaTool{settings: settings, client: client, out: out, logger: logger}, nil
}

func (t *kafkaTool) close() {
	if t.control != nil {
		t.control.Close()
	}
	t.client.Close()
}

// ask calls f until Kafka answers, for a while.
func (t *kafkaTool) ask(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, toolPatience)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil || kafka.KindOf(err) == "" || !kafka.KindOf(err).Retryable() {
			return err
		}
		select {
		case <-time.After(toolPause):
		case <-ctx.Done():
			return err
		}
	}
}

const toolPause = 300 * time.Millisecond

// topic returns the topic of a spec, which it creates if it is not there.
func (t *kafkaTool) topic(ctx context.Context, spec kafka.TopicSpec) (topic kafka.Topic, created bool, err error) {
	err = t.ask(ctx, func(ctx context.Context) error {
		topic, err = t.client.Topic(ctx, spec.Name)
		if kafka.KindOf(err) != kafka.NoTopic {
			return err
		}
		topic, err = t.client.CreateTopic(ctx, spec)
		created = err == nil
		if kafka.KindOf(err) == kafka.Exists { // a try before has created it, or somebody else
			topic, err = t.client.Topic(ctx, spec.Name)
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("create the topic %s: %w", spec.Name, err)
	}
	return topic, created, err
}

// read opens the control topic and reads what the cluster is.
func (t *kafkaTool) read(ctx context.Context) (s *cluster.State, err error) {
	ctx, cancel := context.WithTimeout(ctx, toolPatience)
	defer cancel()
	name := topicOf(&t.settings.Kafka, controlTopic)
	if t.control == nil {
		t.control, err = bridge.OpenControl(ctx, bridge.ControlOptions{Client: t.client, Topic: name, Logger: t.logger})
		if err != nil {
			return nil, err
		}
	}
	if s, err = cluster.ReadState(ctx, t.control); err != nil {
		return nil, fmt.Errorf("read the control topic %s: %w", name, err)
	}
	return s, nil
}

// init makes everything that is missing, and says what is there and differs.
func (t *kafkaTool) init(ctx context.Context) error {
	k := &t.settings.Kafka
	for _, spec := range []kafka.TopicSpec{
		bridge.ControlTopic(topicOf(k, controlTopic), int16(k.Replication)),
		bridge.SoftSpec(topicOf(k, softTopic), t.settings.Streams.Main.Partitions, k.Replication),
		badSpec(topicOf(k, badTopic), k.Replication),
	} {
		_, created, err := t.topic(ctx, spec)
		if err != nil {
			return err
		}
		t.sayTopic(spec.Name, created)
	}
	state, err := t.read(ctx)
	if err != nil {
		return err
	}
	var reasons []string
	for _, want := range wantedDefinitions(t.settings) {
		have := state.Definition(want.GetStream())
		if have != nil && !cluster.Removed(have) {
			if err := t.there(ctx, have); err != nil {
				reasons = append(reasons, err.Error())
				continue
			}
			_, _ = fmt.Fprintf(t.out, "stream %s is there, with %s in the topic %s\n", have.GetStream(), countOf(int(have.GetPartitions()), "partition"), have.GetKafkaTopic())
			continue
		}
		if err := t.define(ctx, want, have); err != nil {
			return err
		}
	}
	if state, err = t.read(ctx); err != nil {
		return err
	}
	for _, d := range state.Check(wantedDefinitions(t.settings)) {
		reasons = append(reasons, d.Error())
	}
	return sentences(reasons)
}

func (t *kafkaTool) sayTopic(name string, created bool) {
	if created {
		_, _ = fmt.Fprintf(t.out, "topic %s is created\n", name)
	} else {
		_, _ = fmt.Fprintf(t.out, "topic %s is there\n", name)
	}
}

// define creates the topic of a stream and writes down what the stream is.
func (t *kafkaTool) define(ctx context.Context, want, before *clusterv1.Definition) error {
	d := cluster.NewTerm(want, before)
	spec, err := bridge.DefinitionOf(d).Spec(t.topicOptions(d.GetStream()))
	if err != nil {
		return err
	}
	topic, created, err := t.topic(ctx, spec)
	if err != nil {
		return err
	}
	t.sayTopic(spec.Name, created)
	if err := t.mayBecome(ctx, topic, before); err != nil {
		return err
	}
	d.KafkaId = bridge.KafkaID(topic.ID)
	findings, err := bridge.DefinitionOf(d).Check(ctx, t.client, t.local(d.GetStream()))
	if err != nil {
		return err
	}
	var fatal []string
	for _, f := range findings {
		if f.Fatal {
			fatal = append(fatal, f.Sentence)
		}
	}
	if err := sentences(fatal); err != nil {
		return err
	}
	if err := cluster.Define(ctx, t.control, d, before.GetTerm()); err != nil {
		return fmt.Errorf("define the stream %s: %w", d.GetStream(), err)
	}
	_, _ = fmt.Fprintf(t.out, "stream %s is defined, with %s\n", d.GetStream(), countOf(int(d.GetPartitions()), "partition"))
	return nil
}

// there returns an error if the topic of a stream is gone.
func (t *kafkaTool) there(ctx context.Context, have *clusterv1.Definition) error {
	err := t.ask(ctx, func(ctx context.Context) error {
		_, err := t.client.Topic(ctx, have.GetKafkaTopic())
		return err
	})
	if kafka.KindOf(err) == kafka.NoTopic {
		return fmt.Errorf("the stream %s has lost its topic %s in Kafka: run `tidewire kafka new-term %s`, which makes it again and begins anew", have.GetStream(), have.GetKafkaTopic(), have.GetStream())
	}
	return err
}

// mayBecome returns an error if a topic may not become a stream that the cluster
// does not know: what a forgotten cluster has written there is sealed with a
// secret that is gone, and every node would refuse it as forged.
func (t *kafkaTool) mayBecome(ctx context.Context, topic kafka.Topic, before *clusterv1.Definition) error {
	if t.adopt || before != nil {
		return nil
	}
	var bounds []kafka.Bounds
	err := t.ask(ctx, func(ctx context.Context) (err error) {
		bounds, err = t.client.Bounds(ctx, topic)
		return err
	})
	if err != nil {
		return err
	}
	for _, b := range bounds {
		if b.End > 0 {
			return fmt.Errorf("the topic %s has records already, and no cluster is known that they belong to: messages that brokers have written there would be refused as forged; choose another kafka.prefix, or delete the topic, or write --adopt if only other clients of Kafka have written to it", topic.Name)
		}
	}
	return nil
}

// stream returns a stream of the configuration.
func (t *kafkaTool) stream(name string) *config.Stream {
	for _, s := range kafkaStreams(&t.settings.Streams) {
		if s.name == name {
			return s.settings
		}
	}
	return nil
}

// local is what nodes keep of a stream.
func (t *kafkaTool) local(name string) bridge.Local {
	s := t.stream(name)
	return bridge.Local{Age: time.Duration(s.RetentionAge), Bytes: int64(share(s))}
}

// topicOptions say how the topic of a stream is created. Kafka keeps half as much
// again as the nodes, which count other bytes.
func (t *kafkaTool) topicOptions(name string) bridge.TopicOptions {
	local := t.local(name)
	o := bridge.TopicOptions{Replication: t.settings.Kafka.Replication, Retention: local.Age, RetentionBytes: local.Bytes + local.Bytes/2}
	if o.Replication >= 3 {
		o.MinInSync = 2
	}
	return o
}
