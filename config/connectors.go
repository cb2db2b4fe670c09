package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tidewire/tidewire/protocol"
)

const (
	maxConnectors = 100 // of both directions; each has connections of its own
	maxTopicName  = 249 // Kafka's bound
	maxOutHeaders = 50
)

// The places where a connector may begin the first time.
const (
	FromEarliest = "earliest"
	FromLatest   = "latest" // of a topic in Kafka
	FromNew      = "new"    // of a stream
)

// A ConnectorIn makes messages of the records of a topic in Kafka that is not the
// cluster's own.
type ConnectorIn struct {
	Name  string `yaml:"name"`  // one token
	Topic string `yaml:"topic"` // in Kafka
	To    string `yaml:"to"`    // template of the topic of the messages
	From  string `yaml:"from"`  // earliest, latest
}

func (k *ConnectorIn) setDefaults() { *k = ConnectorIn{From: FromEarliest} }

// A ConnectorOut writes messages to a topic in Kafka that is not the cluster's
// own.
type ConnectorOut struct {
	Name    string   `yaml:"name"`    // one token
	Filter  string   `yaml:"filter"`  // of the topics that are written
	Stream  string   `yaml:"stream"`  // needed only where the filter could match topics of several
	Topic   string   `yaml:"topic"`   // in Kafka; it must exist
	Key     string   `yaml:"key"`     // template of the key of the records
	Headers []string `yaml:"headers"` // name=template
	From    string   `yaml:"from"`    // new, earliest
}

func (k *ConnectorOut) setDefaults() { *k = ConnectorOut{Key: "{topic}", From: FromNew} }

func (c *Config) checkConnectors() error {
	k := &c.Kafka
	if n := len(k.In) + len(k.Out); n > maxConnectors {
		return fmt.Errorf("kafka.in and kafka.out have %d connectors; write at most %d", n, maxConnectors)
	}
	names := make(map[string]string)
	for i := range k.In {
		in, at := &k.In[i], fmt.Sprintf("kafka.in[%d]", i)
		if err := c.checkConnector(names, at, in.Name, in.Topic); err != nil {
			return err
		}
		if in.To == "" {
			return fmt.Errorf("%s.to is missing; write the topics that the messages get, such as to: \"orders.{key}\"", at)
		}
		if err := oneOf(at+".from", in.From, FromEarliest, FromLatest); err != nil {
			return err
		}
	}
	for i := range k.Out {
		out, at := &k.Out[i], fmt.Sprintf("kafka.out[%d]", i)
		if err := c.checkConnector(names, at, out.Name, out.Topic); err != nil {
			return err
		}
		if err := c.checkOut(at, out); err != nil {
			return err
		}
	}
	return nil
}

// checkConnector checks what connectors of both directions have.
func (c *Config) checkConnector(names map[string]string, at, name, topic string) error {
	if name == "" {
		return fmt.Errorf("%s has no name; give it one, such as name: erp", at)
	}
	if err := protocol.CheckConsumer(name); err != nil { // the rules for names are the same
		return fmt.Errorf("%s.name: %.120q is not the name of a connector; write one token of letters, digits, '-' and '_'", at, name)
	}
	if first, ok := names[name]; ok {
		return fmt.Errorf("%s.name: %q is the name of %s too; give each its own", at, name, first)
	}
	names[name] = at
	if topic == "" {
		return fmt.Errorf("%s.topic is missing; write the name of a topic in Kafka", at)
	}
	if len(topic) > maxTopicName || strings.Trim(topic, kafkaLetters) != "" || strings.Trim(topic, ".") == "" {
		return fmt.Errorf("%s.topic: %.120q is not the name of a topic in Kafka; write at most %d of letters, digits, '-', '_' and '.'", at, topic, maxTopicName)
	}
	if strings.HasPrefix(topic, c.Kafka.Prefix+".") {
		return fmt.Errorf("%s.topic: %q begins with %s., as the cluster's own topics do; they are open to Kafka's clients without a connector, so write another topic", at, topic, c.Kafka.Prefix)
	}
	return nil
}

// checkOut checks the rest of a connector that writes.
func (c *Config) checkOut(at string, out *ConnectorOut) error {
	if out.Filter == "" {
		return fmt.Errorf("%s.filter is missing; write the topics whose messages it carries, such as filter: \"orders.>\"", at)
	}
	f, err := protocol.ParseFilter(out.Filter)
	if err != nil {
		return fmt.Errorf("%s.filter: %s", at, protocol.AsError(err).Message)
	}
	if dead, _ := protocol.ParseFilter(deadFilter); protocol.IsReserved(out.Filter) && !dead.Covers(f) {
		return fmt.Errorf("%s.filter: %q begins with '$', and of the broker's own topics dead letters alone are carried; write one that %s covers", at, out.Filter, deadFilter)
	}
	all, holding := c.Streams.names(f)
	switch {
	case out.Stream != "" && !slices.Contains(all, out.Stream):
		return fmt.Errorf("%s.stream: there is no stream %.80q; write one of %s", at, out.Stream, strings.Join(all, ", "))
	case out.Stream == "" && len(holding) > 1:
		return fmt.Errorf("%s (%s) has no stream, but its filter %q could match topics of the streams %s; write stream: and one of them", at, out.Name, out.Filter, strings.Join(holding, ", "))
	}
	stream := c.StreamOf(out)
	for _, o := range c.Streams.Others {
		if o.Local && o.Name == stream {
			return fmt.Errorf("%s (%s) reads the stream %s, which each node has for itself; only streams of the whole cluster are carried", at, out.Name, stream)
		}
	}
	if out.Key == "" {
		return fmt.Errorf("%s.key is empty; write the template of the key, such as key: \"{topic}\"", at)
	}
	if len(out.Headers) > maxOutHeaders {
		return fmt.Errorf("%s.headers has %d of them; write at most %d", at, len(out.Headers), maxOutHeaders)
	}
	for i := range c.Kafka.In {
		if in := &c.Kafka.In[i]; in.Topic == out.Topic {
			return fmt.Errorf("%s.topic: kafka.in[%d] (%s) reads %q too, and messages could go round for ever; write another topic", at, i, in.Name, out.Topic)
		}
	}
	return oneOf(at+".from", out.From, FromNew, FromEarliest)
}

// StreamOf is the name of the stream that a connector reads.
func (c *Config) StreamOf(out *ConnectorOut) string {
	if out.Stream != "" {
		return out.Stream
	}
	f, _ := protocol.ParseFilter(out.Filter) // checked before
	if _, holding := c.Streams.names(f); len(holding) > 0 {
		return holding[0]
	}
	return streamMain
}
