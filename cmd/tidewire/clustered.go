package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/bridge"
	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/broker/cluster"
	"github.com/tidewire/tidewire/config"
	"github.com/tidewire/tidewire/storage"
)

// clusterVersion is the newest rules of the cluster that this program knows.
const clusterVersion = 1

// clustered is what a broker has besides when it is one node of a cluster: its
// way to Kafka, the streams that lie there, and the node.
type clustered struct {
	options options
	client  *kafka.Client
	control *bridge.Control
	link    *bridge.Link
	state   *cluster.State // as it was at the start
	streams []*bridge.Stream
	bad     *badRecords
	soft    *bridge.Soft

	connectors *connectors

	node     *cluster.Node
	live     chan struct{} // closed when the node has become one that may act, once
	promised atomic.Bool   // the consumers of the configuration are there
}

// controlFile is where a node notes how far it has read the control topic.
const controlFile = "control-topic.json"

// waitLine is how often a start that waits for Kafka says so.
const waitLine = 5 * time.Second

// joinCluster reads what the cluster is, and compares it with the configuration. It
// waits while Kafka is away. It opens no data. What it returns is to be closed
// even if it fails.
func joinCluster(ctx context.Context, o options) (*clustered, error) {
	c := &clustered{options: o, live: make(chan struct{})}
	k := &o.config.Kafka
	if _, err := readTemplates(k); err != nil {
		return c, err // before anything is asked or opened
	}
	settings, err := kafkaOptions(k, o.logger)
	if err != nil {
		return c, err
	}
	if c.client, err = kafka.New(settings); err != nil {
		return c, err
	}
	waiting := c.telling(ctx)
	defer waiting()
	c.control, err = bridge.OpenControl(ctx, bridge.ControlOptions{
		Client: c.client, Topic: topicOf(k, controlTopic), File: filepath.Join(o.config.Data, controlFile), Logger: o.logger,
	})
	if err != nil {
		return c, err
	}
	if c.state, err = cluster.ReadState(ctx, c.control); err != nil {
		return c, fmt.Errorf("read the control topic %s: %w", topicOf(k, controlTopic), err)
	}
	return c, c.agree()
}

// telling says now and then that the start waits, until what it returns is called.
func (c *clustered) telling(ctx context.Context) (end func()) {
	ctx, stop := context.WithCancel(ctx)
	since := time.Now()
	go func() {
		tick := time.NewTicker(waitLine)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.options.logger.Info("the broker waits for Kafka, which has what the streams of the cluster are",
					"kafka", strings.Join(c.options.config.Kafka.Brokers, ","), "since", time.Since(since).Round(time.Second))
			case <-ctx.Done():
				return
			}
		}
	}()
	return stop
}

// agree returns a sentence for each setting in which the configuration is not what
// the cluster has.
func (c *clustered) agree() error {
	if len(c.state.Streams()) == 0 {
		return fmt.Errorf("there is no cluster with the prefix %s in Kafka yet: run `tidewire kafka init` with this configuration, once", c.options.config.Kafka.Prefix)
	}
	var reasons []string
	for _, d := range c.state.Check(wantedDefinitions(c.options.config)) {
		reasons = append(reasons, d.Error())
	}
	return sentences(reasons)
}

// sentences makes one error of what is wrong; nil if nothing is.
func sentences(all []string) error {
	if len(all) == 0 {
		return nil
	}
	return errors.New(strings.Join(all, "; ")) // one line for people
}

// open opens a stream in Kafka.
func (c *clustered) open(ctx context.Context, store *storage.Store, s kafkaStream) (broker.Stream, error) {
	if c.link == nil {
		c.link = bridge.NewLink(c.client)
		c.bad = newBadRecords(c.client, topicOf(&c.options.config.Kafka, badTopic), c.options.logger)
	}
	terms := c.state.Terms(s.name)
	log := c.options.log(*s.settings)
	log.RetentionBytes = int64(share(s.settings))
	opened, err := c.link.Open(ctx, bridge.StreamOptions{
		Definition: bridge.DefinitionOf(c.state.Definition(s.name)), Store: store, Log: log,
		Renew: len(terms) > 1, Registerer: c.options.registry, Logger: c.options.logger, Bad: c.bad.find,
	})
	if err != nil {
		return broker.Stream{}, err
	}
	c.streams = append(c.streams, opened)
	stream := broker.Stream{Name: s.name}
	for _, p := range opened.Partitions() {
		stream.Logs = append(stream.Logs, p)
	}
	return stream, nil
}

// join makes the broker a node. It runs when run does.
func (c *clustered) join(b *broker.Broker) (err error) {
	if c.connectors, err = c.connect(b); err != nil {
		return err
	}
	consumers := b.ShareConsumers()
	c.node, err = cluster.New(cluster.Options{
		Name: nodeName(&c.options.config.Kafka), Version: clusterVersion, Log: c.control,
		Parts: []cluster.Part{consumers, c.connectors.progress}, Heads: c.heads, Live: c.lives(consumers.Live), Logger: c.options.logger,
	})
	if err != nil {
		return err
	}
	consumers.Use(c.node)
	main := bridge.DefinitionOf(c.state.Definition(broker.MainStream))
	c.soft = bridge.NewSoft(c.link, bridge.SoftOptions{
		Topic: topicOf(&c.options.config.Kafka, softTopic), Secret: main.Secret, MaxPayload: main.MaxPayload,
		Registerer: c.options.registry, Logger: c.options.logger, Deliver: b.Relayed,
	})
	b.UseRelay(c.soft)
	return nil
}

// lives returns what tells the consumers that the node may act or must pause, and
// notes when it may for the first time.
func (c *clustered) lives(consumers func(bool)) func(bool) {
	var once sync.Once
	return func(live bool) {
		consumers(live)
		if live {
			once.Do(func() { close(c.live) })
		}
	}
}

// enter runs the node until what it returns is called, which waits for it. The node
// outlives ctx: what the broker does last is told to the others. failed is called if
// it ends before.
func (c *clustered) enter(ctx context.Context, failed func()) (leave func() error) {
	if c == nil {
		return func() error { return nil }
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	carried := c.carry(ctx)
	var work sync.WaitGroup
	var ended error
	work.Go(func() { c.node.Hold(ctx, cluster.LeaseBad, c.bad.copy) })
	work.Go(func() { c.soft.Run(ctx) })
	work.Go(func() { c.compare(ctx) })
	work.Go(func() {
		defer failed()
		ended = c.node.Run(ctx)
		stop()
	})
	return func() error {
		carried()
		stop()
		work.Wait()
		return ended
	}
}

// promise sees to the consumers of the configuration. A node of a cluster does
// that once it may act, again and again until it succeeds.
func (c *clustered) promise(ctx context.Context, r *running) error {
	put := func() error {
		return configured(r.options.config.Consumers).put(ctx, r.broker, r.program.Logger)
	}
	if c == nil {
		return put()
	}
	go func() {
		select {
		case <-c.live:
		case <-ctx.Done():
			return
		}
		for {
			err := put()
			if err == nil {
				c.promised.Store(true)
				return
			}
			c.options.logger.Error("a consumer is not yet as it is configured; it is tried again", "error", err)
			select {
			case <-time.After(promiseAgain):
			case <-ctx.Done():
				return
			}
		}
	}()
	return nil
}

// promiseAgain is the pause between tries to create the consumers of the configuration.
const promiseAgain = 5 * time.Second

// String says to people what cluster it is.
func (c *clustered) String() string {
	k := &c.options.config.Kafka
	return fmt.Sprintf("node %s of the cluster %s on Kafka %s", nodeName(k), k.Prefix, strings.Join(k.Brokers, ","))
}

// close closes what was opened. The broker and the node must have ended.
func (c *clustered) close(logger *slog.Logger) {
	if c == nil {
		return
	}
	for _, s := range c.streams {
		if err := s.Close(); err != nil {
			logger.Error("closing failed", "what", "stream "+s.Definition().Stream, "error", err)
		}
	}
	if c.link != nil {
		c.link.Close()
	}
	if c.control != nil {
		c.control.Close()
	}
	if c.client != nil {
		c.client.Close()
	}
}

// isClustered reports whether the broker is a node of a cluster.
func isClustered(c *config.Config) bool { return c.Kafka.Configured() }
