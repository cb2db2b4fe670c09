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
// the very same batches. bench/limit does the measuring.
func (b *bench) publish() ([]*row, error) {
	sizes := b.path("sizes")
	cmd := exec.Command(b.limit, sizes, b.self, "-step", "publish", b.path("publish"), sizes, strconv.Itoa(b.burst))
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
	return []*row{{
		name:  fmt.Sprintf("publish durably, %d bytes, %d publishers; limit: append + fdatasync", payloadBytes, publishers),
		ours:  samples["command"].text("s"),
		limit: samples["limit"].text("s"),
		ratio: samples["ratio"], aim: 0.6, least: true,
	}}, nil
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
