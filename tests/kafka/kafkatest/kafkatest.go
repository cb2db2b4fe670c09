// Package kafkatest gives a test a Kafka of its own, see package kafka.
package kafkatest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tidewire/tidewire/tests/kafka"
)

// fetchLimit is for the first on a machine, which fetches 45 MB, and for those
// that wait for it.
const fetchLimit = 5 * time.Minute

// Need skips the test where Kafka cannot run, and among the short tests: a start
// takes seconds, and the first fetches Kafka.
func Need(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts Kafka")
	}
	ctx, cancel := context.WithTimeout(t.Context(), fetchLimit)
	defer cancel()
	_, err := kafka.Find(ctx)
	if unavailable, ok := errors.AsType[*kafka.UnavailableError](err); ok {
		t.Skip(unavailable)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Start returns a cluster that ends with the test. A test that fails shows what
// the nodes wrote. The test is skipped as Need says.
func Start(t testing.TB, o kafka.Options) *kafka.Cluster {
	t.Helper()
	Need(t)
	c, err := kafka.Start(t.Context(), o)
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
