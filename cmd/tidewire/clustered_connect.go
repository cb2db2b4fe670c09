package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/bridge"
	"github.com/tidewire/tidewire/broker/bridge/connect"
	"github.com/tidewire/tidewire/broker/cluster"
	"github.com/tidewire/tidewire/config"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
	"github.com/tidewire/tidewire/protocol"
)

// connectors are those of the configuration, and how far all of them have come.
type connectors struct {
	progress *cluster.Connectors
	all      []connector
}

// connector is one of them.
type connector struct {
	name string
	run  func(ctx context.Context, generation uint64)
}

// templates are those of a configuration, read.
type templates struct {
	to, key []*connect.Template
	headers [][]connect.Header
}

// readTemplates reads what the configuration itself does not know.
func readTemplates(k *config.Kafka) (t templates, err error) {
	for i := range k.In {
		to, err := connect.ParseTemplate(k.In[i].To, connect.InFields()...)
		if err != nil {
			return t, fmt.Errorf("kafka.in[%d].to: %w", i, err)
		}
		t.to = append(t.to, to)
	}
	for i := range k.Out {
		key, err := connect.ParseTemplate(k.Out[i].Key, connect.OutFields()...)
		if err != nil {
			return t, fmt.Errorf("kafka.out[%d].key: %w", i, err)
		}
		var headers []connect.Header
		for j, text := range k.Out[i].Headers {
			h, err := connect.ParseHeader(text)
			if err != nil {
				return t, fmt.Errorf("kafka.out[%d].headers[%d]: %w", i, j, err)
			}
			headers = append(headers, h)
		}
		t.key, t.headers = append(t.key, key), append(t.headers, headers)
	}
	return t, nil
}

// connect makes the connectors. They work by the node, which is made with their
// progress and so comes later.
func (c *clustered) connect(b *broker.Broker) (*connectors, error) {
	k := &c.options.config.Kafka
	t, err := readTemplates(k)
	if err != nil {
		return nil, err
	}
	all := &connectors{progress: cluster.NewConnectors()}
	for i := range k.In {
		in := &k.In[i]
		all.add(in.Name, connect.NewIn(connect.InOptions{
			Common: c.common(all, in.Name), Topic: in.Topic, To: t.to[i], Latest: in.From == config.FromLatest,
			Publish: publisherOf(b, in.Name),
		}).Run)
	}
	for i := range k.Out {
		out := &k.Out[i]
		o := connect.OutOptions{
			Common: c.common(all, out.Name), Topic: out.Topic, Key: t.key[i], Headers: t.headers[i],
			Stream: c.options.config.StreamOf(out), Earliest: out.From == config.FromEarliest,
		}
		if o.Filter, err = protocol.ParseFilter(out.Filter); err != nil {
			return nil, fmt.Errorf("kafka.out[%d].filter: %w", i, err)
		}
		for _, s := range c.streams {
			if d := s.Definition(); d.Stream == o.Stream {
				o.StreamTopic, o.Term, o.Partitions = d.Topic, d.Term, sources(s)
			}
		}
		all.add(out.Name, connect.NewOut(o).Run)
	}
	return all, nil
}

func (all *connectors) add(name string, run func(context.Context, uint64)) {
	all.all = append(all.all, connector{name, run})
}

func (c *clustered) common(all *connectors, name string) connect.Common {
	return connect.Common{
		Name: name, Client: c.client, Progress: all.progress, BadTopic: topicOf(&c.options.config.Kafka, badTopic),
		Write:  func(records ...*clusterv1.Record) error { return c.node.Write(records...) },
		Logger: c.options.logger, Registerer: c.options.registry,
	}
}

// publisherOf returns what publishes for a connector. The name of its lease is the
// publisher of its messages.
func publisherOf(b *broker.Broker, name string) func() connect.Publisher {
	everything, _ := protocol.ParseFilter(">")
	who := &broker.Identity{Subject: cluster.ConnectorLease(name), Publish: []protocol.Filter{everything}}
	return func() connect.Publisher { return b.NewBatch(who, 0) }
}

func sources(s *bridge.Stream) (all []connect.Source) {
	for _, p := range s.Partitions() {
		all = append(all, p)
	}
	return all
}

// carry runs those connectors whose leases this node gets, until what it returns is
// called, which waits for them. They end before the node does, so that it can still
// tell the others how far they have come.
func (c *clustered) carry(ctx context.Context) (end func()) {
	ctx, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	for _, k := range c.connectors.all {
		work.Go(func() { c.node.Hold(ctx, cluster.ConnectorLease(k.name), k.run) })
	}
	return func() {
		stop()
		work.Wait()
	}
}
