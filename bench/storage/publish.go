package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/tidewire/tidewire/storage"
)

// publish is durable publishing, the storage alone, beside appends and syncs of
// the very same batches, for which bench/limit does the measuring. That replay has
// no publishers, who need the same cores as the log; what a plain file loses that
// has them stands beside it, without an aim.
func (b *bench) publish() ([]*row, error) {
	what := fmt.Sprintf("%d bytes, %d publishers", payloadBytes, publishers)
	log, err := b.beside("publish durably, "+what+"; limit: append + fdatasync", "publish")
	if err != nil {
		return nil, err
	}
	log.aim, log.least = 0.6, true
	bare, err := b.beside("to compare: to a plain file with group commit, "+what+"; limit: append + fdatasync", "plain")
	if err != nil {
		return nil, err
	}
	sizes := b.path("sizes")
	run := func(step string) func() (float64, error) {
		return func() (float64, error) { return b.step(step, b.path(step), sizes, strconv.Itoa(b.burst)) }
	}
	// The ratio is that of the rates, as in the rows above.
	both, err := compareRates("to compare: publish durably, "+what+"; limit: to a plain file with group commit", run("publish"), run("plain"))
	return []*row{log, bare, both}, err
}

// beside has bench/limit run a step that publishes, and replay its batches.
func (b *bench) beside(name, step string) (*row, error) {
	sizes := b.path("sizes")
	cmd := exec.Command(b.limit, sizes, b.self, "-step", step, b.path(step), sizes, strconv.Itoa(b.burst))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run bench/limit: %w", err)
	}
	samples := map[string]sample{}
	for line := range strings.Lines(string(out)) {
		var name string
		s := make(sample, 3)
		if _, err := fmt.Sscanf(line, "%s median %g from %g to %g", &name, &s[0], &s[1], &s[2]); err != nil {
			return nil, fmt.Errorf("bench/limit printed %q", line)
		}
		samples[name] = s // median, least and most: their median is the median
	}
	return &row{name: name, ours: samples["command"].text("s"), limit: samples["limit"].text("s"), ratio: samples["ratio"]}, nil
}

// stepPublish publishes into a new store: DIR SIZES COUNT.
func stepPublish(args []string) (err error) {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	f, err := os.Create(args[1])
	if err != nil {
		return err
	}
	sizes := bufio.NewWriter(f)
	s, err := openStore(args[0], storage.LogOptions{}, sizes)
	if err != nil {
		return err
	}
	seconds, err := s.publish(n, oneTopic)
	if err := errors.Join(err, s.remove(), sizes.Flush(), f.Close()); err != nil {
		return err
	}
	fmt.Println(seconds)
	return nil
}

// topics is what 10,000 topics cost beside one.
func (b *bench) topics() ([]*row, error) {
	r, err := compare("publish to 10,000 topics; limit: to one", 1.25,
		func() (float64, error) { return b.publishFresh(manyTopics) },
		func() (float64, error) { return b.publishFresh(oneTopic) })
	return []*row{r}, err
}

// publishFresh publishes into a new store.
func (b *bench) publishFresh(topic func(int) string) (float64, error) {
	s, err := openStore(b.path("fresh"), storage.LogOptions{}, nil)
	if err != nil {
		return 0, err
	}
	seconds, err := s.publish(b.burst, topic)
	return seconds, errors.Join(err, s.remove())
}
