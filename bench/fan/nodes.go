package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tidewire/tidewire/tests/kafka"

	"github.com/tidewire/tidewire/bench/rig"
)

// startLimit is for brokers to become ready, on a machine that is busy.
const startLimit = 90 * time.Second

// nodes are the brokers of one cluster.
type nodes []*broker

// withKafka runs something with a Kafka of one node. Where Kafka cannot run, it
// says so and does nothing.
func (b *bench) withKafka(do func(*kafka.Cluster) ([]*rig.Row, error)) (rows []*rig.Row, err error) {
	k, err := kafka.Start(context.Background(), kafka.Options{})
	if unavailable, ok := errors.AsType[*kafka.UnavailableError](err); ok {
		fmt.Println("Left out what needs Kafka:", unavailable)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	return do(k)
}

// startNodes starts a cluster of so many brokers, whose topics in Kafka begin with
// the prefix, and waits until all are ready.
func (b *bench) startNodes(k *kafka.Cluster, prefix string, count int) (n nodes, err error) {
	env := func(i int) []string {
		return append(os.Environ(), "TIDEWIRE_LIMITS_CONNECTIONS=12000", "TIDEWIRE_LOG_LEVEL=error",
			"TIDEWIRE_KAFKA_BROKERS="+strings.Join(k.Addresses(kafka.Plain), ","), "TIDEWIRE_KAFKA_REPLICATION=1",
			"TIDEWIRE_KAFKA_PREFIX="+prefix, fmt.Sprintf("TIDEWIRE_KAFKA_NODE=node-%d", i+1))
	}
	initialize := exec.Command(b.program, "kafka", "init")
	initialize.Env = env(0)
	if text, err := initialize.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("tidewire kafka init: %w: %s", err, text)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.stop())
		}
	}()
	for i := range count {
		b.turns++
		cmd := exec.Command(b.program)
		cmd.Env = env(i)
		s, err := rig.LaunchBroker(cmd, filepath.Join(b.dir, fmt.Sprint("data", b.turns)))
		if err != nil {
			return n, err
		}
		n = append(n, &broker{s})
	}
	for _, r := range n {
		if err := r.ready(startLimit); err != nil {
			return n, err
		}
	}
	return n, nil
}

// stop kills the brokers.
func (n nodes) stop() error {
	var errs []error
	for _, r := range n {
		errs = append(errs, r.Stop())
	}
	return errors.Join(errs...)
}

// cpu returns the CPU seconds of all brokers so far.
func (n nodes) cpu() (float64, error) {
	sum := 0.0
	for _, r := range n {
		seconds, err := r.CPU()
		if err != nil {
			return 0, err
		}
		sum += seconds
	}
	return sum, nil
}

// ready waits until the broker says that it is.
func (r *broker) ready(limit time.Duration) error {
	end := time.Now().Add(limit)
	for {
		response, err := http.Get("http://" + r.Addr + "/readyz")
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(response.Status)
		}
		if time.Now().After(end) {
			return fmt.Errorf("a node is not ready after %s: %w", limit, err)
		}
		<-time.After(100 * time.Millisecond)
	}
}
