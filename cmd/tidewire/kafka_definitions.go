package main

import (
	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/config"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
	"github.com/tidewire/tidewire/protocol"
)

// Topics of Kafka that are no streams, behind the prefix.
const (
	controlTopic = "control"
	badTopic     = "bad"
	softTopic    = "soft"
)

// topicOf is the name in Kafka of a stream or of one of those above.
func topicOf(c *config.Kafka, name string) string { return c.Prefix + "." + name }

// A kafkaStream is a stream of the configuration that lies in Kafka.
type kafkaStream struct {
	name     string
	filters  []string // none for main and dead
	settings *config.Stream
}

// kafkaStreams lists them in the order in which they claim topics.
func kafkaStreams(s *config.Streams) []kafkaStream {
	var all []kafkaStream
	for i := range s.Others {
		if o := &s.Others[i]; !o.Local {
			all = append(all, kafkaStream{o.Name, o.Filters, &o.Stream})
		}
	}
	return append(all, kafkaStream{broker.DeadStream, nil, &s.Dead}, kafkaStream{broker.MainStream, nil, &s.Main})
}

// share is what a partition has of a stream's bytes on disk.
func share(s *config.Stream) config.Size {
	if s.RetentionBytes == config.Unlimited {
		return config.Unlimited
	}
	return max(s.RetentionBytes/config.Size(s.Partitions), 1)
}

// wantedDefinitions says what the configuration makes of the cluster's streams.
//
// Of main nothing is said about filters, though others claim topics before it:
// so a stream can be added without a new term of main. Dead letters go where
// they belong by what writes them, which is always a broker.
func wantedDefinitions(c *config.Config) []*clusterv1.Definition {
	var all []*clusterv1.Definition
	var before []string
	for _, s := range kafkaStreams(&c.Streams) {
		d := &clusterv1.Definition{
			Stream: s.name, KafkaTopic: topicOf(&c.Kafka, s.name), Partitions: uint32(s.settings.Partitions),
			DedupeWindow: uint64(s.settings.DedupeWindow), PerTopic: uint64(s.settings.PerTopic),
			MaxPayloadBytes: uint64(c.Limits.PayloadBytes),
			Filters:         s.filters, Before: overlapping(before, s.filters),
		}
		before = append(before, s.filters...)
		all = append(all, d)
	}
	return all
}

// overlapping returns those of before that take topics from filters. The others
// do not matter, so that they may change.
func overlapping(before, filters []string) (some []string) {
	for _, text := range before {
		b, err := protocol.ParseFilter(text)
		for _, of := range filters {
			f, ferr := protocol.ParseFilter(of)
			if err == nil && ferr == nil && b.Overlaps(f) { // those of a configuration are right
				some = append(some, text)
				break
			}
		}
	}
	return some
}
