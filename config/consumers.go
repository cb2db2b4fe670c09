package config

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// The bounds of what may be set for a consumer. They are those of the broker,
// which this package does not know; a test holds the two together.
const (
	maxConsumers        = 1000 // each that is new costs a sync at the start
	minAckWait          = 100 * time.Millisecond
	maxAckWait          = 12 * time.Hour
	maxBackoff          = time.Minute
	maxBackoffFactor    = 100
	maxDeliver          = 1000
	maxConsumerFlight   = 65_536
	maxConsumerWaiting  = 1_000_000
	minConsumerInFlight = 1 << 10
	maxConsumerInFlight = 1 << 30
)

// The streams that are always there.
const (
	streamMain = "main"
	streamDead = "dead"
	deadPrefix = "$dead." // of the topics that it holds
	deadFilter = deadPrefix + ">"
)

// A Consumer is one that is to be there when the broker serves. Name, Filter,
// Stream and Exclusive are fixed once it has been created; From says where it
// begins and means nothing afterwards.
type Consumer struct {
	Name             string   `yaml:"name"`                // one token
	Filter           string   `yaml:"filter"`              // of the topics that it reads
	Stream           string   `yaml:"stream"`              // needed only where the filter could match topics of several
	From             string   `yaml:"from"`                // any start but last-per-topic
	AckWait          Duration `yaml:"ack_wait"`            // how long a message may go unanswered
	Backoff          Backoff  `yaml:"backoff"`             // before a message is delivered again
	MaxDeliver       int      `yaml:"max_deliver"`         // attempts, after which a message becomes a dead letter
	MaxInFlight      int      `yaml:"max_in_flight"`       // messages at work at a time, of all members together
	MaxInFlightBytes Size     `yaml:"max_in_flight_bytes"` // like max_in_flight; a larger message goes alone
	MaxWaiting       int      `yaml:"max_waiting"`         // messages that wait to be delivered again; at it no new one is taken
	Exclusive        bool     `yaml:"exclusive"`           // one member at a time, and the last to come is it
	Ordered          bool     `yaml:"ordered"`             // of one ordering key one message at a time
}

// Backoff says how long a message waits after an attempt that failed: base,
// times factor for each attempt before it, at most cap; with jitter at random
// between nothing and that.
type Backoff struct {
	Base   Duration `yaml:"base"`
	Factor float64  `yaml:"factor"`
	Cap    Duration `yaml:"cap"`
	Jitter bool     `yaml:"jitter"`
}

// setDefaults makes an element of the list what holds where nothing is set.
func (k *Consumer) setDefaults() {
	*k = Consumer{
		From:             "earliest",
		AckWait:          Duration(30 * time.Second),
		Backoff:          Backoff{Base: Duration(time.Second), Factor: 2, Cap: Duration(maxBackoff), Jitter: true},
		MaxDeliver:       10,
		MaxInFlight:      256,
		MaxInFlightBytes: 4 << 20,
		MaxWaiting:       10_000,
		Ordered:          true,
	}
}

func (c *Config) checkConsumers() error {
	if len(c.Consumers) > maxConsumers {
		return fmt.Errorf("consumers has %d of them; write at most %d", len(c.Consumers), maxConsumers)
	}
	names := make(map[string]int)
	for i := range c.Consumers {
		k, at := &c.Consumers[i], fmt.Sprintf("consumers[%d]", i)
		if k.Name == "" {
			return fmt.Errorf("%s has no name; give it one, such as name: mail", at)
		}
		if err := protocol.CheckConsumer(k.Name); err != nil {
			return fmt.Errorf("%s.name: %s", at, err.Message)
		}
		if first, ok := names[k.Name]; ok {
			return fmt.Errorf("%s.name: %q is the name of consumers[%d] too; give each its own", at, k.Name, first)
		}
		names[k.Name] = i
		if err := c.checkReads(at, k); err != nil {
			return err
		}
		if err := k.check(at); err != nil {
			return err
		}
	}
	return nil
}

// checkReads checks what a consumer reads, and from where.
func (c *Config) checkReads(at string, k *Consumer) error {
	if k.Filter == "" {
		return fmt.Errorf("%s (%s) has no filter; write the topics that it reads, such as filter: %s.>", at, k.Name, k.Name)
	}
	f, err := protocol.ParseFilter(k.Filter)
	if err != nil {
		return fmt.Errorf("%s.filter: %s", at, protocol.AsError(err).Message)
	}
	if dead, _ := protocol.ParseFilter(deadFilter); protocol.IsReserved(k.Filter) && !dead.Covers(f) {
		return fmt.Errorf("%s.filter: %q begins with '$', and of the broker's own topics consumers read dead letters alone; write one that %s covers", at, k.Filter, deadFilter)
	}
	if f.Match(deadPrefix + k.Name) {
		return fmt.Errorf("%s.filter: %q would give the consumer its own dead letters, again and again; write topics of your own, or the dead letters of another consumer", at, k.Filter)
	}
	all, holding := c.Streams.names(f)
	switch {
	case k.Stream != "" && !slices.Contains(all, k.Stream):
		return fmt.Errorf("%s.stream: there is no stream %.80q; write one of %s", at, k.Stream, strings.Join(all, ", "))
	case k.Stream == "" && len(holding) > 1:
		return fmt.Errorf("%s (%s) has no stream, but its filter %q could match topics of the streams %s; write stream: and one of them", at, k.Name, k.Filter, strings.Join(holding, ", "))
	}
	start, err := protocol.ParseStart(k.From)
	if err != nil {
		return fmt.Errorf("%s.from: %s", at, protocol.AsError(err).Message)
	}
	if start.Kind == protocol.StartLastPerTopic {
		return fmt.Errorf("%s.from: a consumer gets every message, so it cannot begin with last-per-topic; write earliest, new, last:N, -10m, a time or a position", at)
	}
	return nil
}

// names lists all streams in the order in which they have a topic, and those of
// them that hold topics which the filter selects.
func (s *Streams) names(f protocol.Filter) (all, holding []string) {
	var claims [][]protocol.Filter
	add := func(name string, texts ...string) {
		var filters []protocol.Filter
		for _, text := range texts {
			own, _ := protocol.ParseFilter(text) // checkStreams has let it pass
			filters = append(filters, own)
		}
		all, claims = append(all, name), append(claims, filters)
	}
	for _, o := range s.Others {
		add(o.Name, o.Filters...)
	}
	add(streamDead, deadFilter)
	add(streamMain, ">")
	for _, i := range protocol.Holding(f, claims) {
		holding = append(holding, all[i])
	}
	return all, holding
}

// check checks the settings of a consumer.
func (k *Consumer) check(at string) error {
	for _, t := range []struct {
		name       string
		value      Duration
		from, upto time.Duration
	}{
		{"ack_wait", k.AckWait, minAckWait, maxAckWait},
		{"backoff.base", k.Backoff.Base, 0, math.MaxInt64}, // the cap bounds it
		{"backoff.cap", k.Backoff.Cap, 0, maxBackoff},
	} {
		d := time.Duration(t.value)
		switch {
		case d < t.from && t.upto == math.MaxInt64:
			return fmt.Errorf("%s.%s is %v; write a time span, such as 1s", at, t.name, t.value)
		case d < t.from || d > t.upto:
			return fmt.Errorf("%s.%s is %v; write a time span from %v to %v", at, t.name, t.value, Duration(t.from), Duration(t.upto))
		case d%time.Millisecond != 0:
			return fmt.Errorf("%s.%s is %v; write whole milliseconds", at, t.name, t.value)
		}
	}
	if f := k.Backoff.Factor; !(f >= 1 && f <= maxBackoffFactor) { // also not a number
		return fmt.Errorf("%s.backoff.factor is %v; write a number from 1 to %d", at, f, maxBackoffFactor)
	}
	for _, n := range []struct {
		name  string
		value int
		upto  int
	}{
		{"max_deliver", k.MaxDeliver, maxDeliver},
		{"max_in_flight", k.MaxInFlight, maxConsumerFlight},
		{"max_waiting", k.MaxWaiting, maxConsumerWaiting},
	} {
		if n.value < 1 || n.value > n.upto {
			return fmt.Errorf("%s.%s is %d; write a number from 1 to %d", at, n.name, n.value, n.upto)
		}
	}
	if b := k.MaxInFlightBytes; b < minConsumerInFlight || b > maxConsumerInFlight {
		return fmt.Errorf("%s.max_in_flight_bytes is %v; write a size from %v to %v", at, b, Size(minConsumerInFlight), Size(maxConsumerInFlight))
	}
	return nil
}
