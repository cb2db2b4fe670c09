package bridge

import (
	"fmt"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
)

// A Definition says what a stream on Kafka is. It stands in the stream's
// `create` record in the control topic, so that it is the same on every node;
// the rules of apply look at nothing else.
type Definition struct {
	Stream       string
	Topic        string        // of Kafka
	TopicID      kafka.TopicID // zero if it was not known then
	Term         protocol.Term // drawn by `tidewire kafka init` or `new-term`
	Partitions   int
	DedupeWindow int // ids, and offsets, that are looked back; 1,000,000
	MaxPayload   int // bytes; 512 KiB

	// Filters select the stream's topics, as far as none of Before does: those
	// of the streams listed before it. Without Filters every topic may be here.
	Filters []string
	Before  []string

	// Secret makes the marks of brokers (see [Origin]). It stays the same over
	// new terms, since the records of the terms before carry marks, too.
	Secret []byte
}

const (
	defaultWindow     = 1_000_000
	defaultMaxPayload = 512 << 10
	minSecret         = 16
)

// withDefaults fills in what is zero and returns an error if the rest makes no
// sense.
func (d Definition) withDefaults() (Definition, error) {
	if d.DedupeWindow == 0 {
		d.DedupeWindow = defaultWindow
	}
	if d.MaxPayload == 0 {
		d.MaxPayload = defaultMaxPayload
	}
	switch {
	case d.Topic == "" || d.Stream == "" || d.Term == 0:
		return d, fmt.Errorf("the definition of the stream %q lacks its name, term or topic of Kafka", d.Stream)
	case d.Partitions < 1 || d.DedupeWindow < 1 || d.MaxPayload < 1:
		return d, fmt.Errorf("the definition of the stream %s has %d partitions, a window of %d and payloads of %d bytes: each must be at least 1", d.Stream, d.Partitions, d.DedupeWindow, d.MaxPayload)
	case len(d.Secret) < minSecret:
		return d, fmt.Errorf("the definition of the stream %s has a secret of %d bytes, at least %d are needed", d.Stream, len(d.Secret), minSecret)
	}
	return d, nil
}

// holder tells whether a topic belongs to a stream.
type holder struct{ filters, before []protocol.Filter }

func newHolder(d Definition) (h holder, err error) {
	if h.filters, err = parseFilters(d.Filters); err == nil {
		h.before, err = parseFilters(d.Before)
	}
	if err != nil {
		return h, fmt.Errorf("the definition of the stream %s: %w", d.Stream, err)
	}
	return h, nil
}

func parseFilters(texts []string) (all []protocol.Filter, err error) {
	for _, text := range texts {
		f, err := protocol.ParseFilter(text)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

func (h holder) has(topic string) bool {
	return len(h.filters) == 0 || matchAny(h.filters, topic) && !matchAny(h.before, topic)
}

func matchAny(filters []protocol.Filter, topic string) bool {
	for _, f := range filters {
		if f.Match(topic) {
			return true
		}
	}
	return false
}
