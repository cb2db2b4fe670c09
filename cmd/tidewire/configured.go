package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/config"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// configured are the consumers of a configuration. A consumer that a
// configuration does not name any more stays: what it has done is data, and data
// is never removed for a line that is missing.
type configured []config.Consumer

// check returns a sentence if the broker would refuse one of them.
func (list configured) check(b *broker.Broker) error {
	for i := range list {
		if err := b.CheckConsumer(list[i].Name, askFor(&list[i])); err != nil {
			return list.refused(b, i, err)
		}
	}
	return nil
}

// put creates those that are not there, and gives those that are their settings.
func (list configured) put(ctx context.Context, b *broker.Broker, logger *slog.Logger) error {
	for i := range list {
		c := &list[i]
		before, missing := b.Consumer(c.Name)
		after, created, err := b.PutConsumer(ctx, c.Name, askFor(c))
		switch {
		case err != nil:
			return list.refused(b, i, err)
		case created:
			logger.Info("a consumer was created as configured", "consumer", c.Name)
		case missing == nil && before.Settings != after.Settings:
			logger.Info("a consumer's settings were changed as configured", "consumer", c.Name)
		}
	}
	return nil
}

// refused makes a sentence for the person who wrote the configuration.
func (list configured) refused(b *broker.Broker, i int, err *protocol.Error) error {
	c := &list[i]
	is, missing := b.Consumer(c.Name)
	s := is.Settings
	if missing == nil && (s.Filter != c.Filter || (c.Stream != "" && s.Stream != c.Stream) || s.Exclusive != c.Exclusive) {
		return fmt.Errorf("consumers[%d]: the consumer %s is there already, with filter: %q, stream: %s and exclusive: %v, which cannot change; write the same, or choose another name", i, c.Name, s.Filter, s.Stream, s.Exclusive)
	}
	return fmt.Errorf("consumers[%d] (%s): %s", i, c.Name, err.Message)
}

// askFor asks for a consumer as it is configured. Every setting is said, so that
// one that is taken out of the file has its default again.
func askFor(c *config.Consumer) *broker.ConsumerRequest {
	ms := func(d config.Duration) *uint64 { return new(uint64(time.Duration(d).Milliseconds())) }
	return &broker.ConsumerRequest{
		Filter: c.Filter, Stream: c.Stream, From: c.From,
		Settings: &tidewirev1.ConsumerSettings{
			AckWaitMs:        ms(c.AckWait),
			BackoffBaseMs:    ms(c.Backoff.Base),
			BackoffCapMs:     ms(c.Backoff.Cap),
			BackoffFactor:    &c.Backoff.Factor,
			BackoffJitter:    &c.Backoff.Jitter,
			MaxDeliver:       new(uint32(c.MaxDeliver)),
			MaxInFlight:      new(uint32(c.MaxInFlight)),
			MaxInFlightBytes: new(uint64(c.MaxInFlightBytes)),
			MaxWaiting:       new(uint32(c.MaxWaiting)),
			Exclusive:        &c.Exclusive,
			Ordered:          &c.Ordered,
		},
	}
}
