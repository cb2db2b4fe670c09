// Package kafkatest gives a test a Kafka of its own, see package kafka.
package kafkatest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tidewire/tidewire/tests/kafka"
)

// startLimit leaves time for the first on a machine, which also fetches Kafka.
const startLimit = 5 * time.Minute

// Start returns a cluster that ends with the test. A test that fails shows what
// the nodes wrote. The test is skipped where Kafka cannot run.
func Start(t testing.TB, o kafka.Options) *kafka.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	c, err := kafka.Start(ctx, o)
	if unavailable, ok := errors.AsType[*kafka.UnavailableError](err); ok {
		t.Skip(unavailable)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Log())
		}
		if err := c.Close(); err != nil {
			t.Errorf("end Kafka: %v", err)
		}
	})
	return c
}
