package main

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidewire/tidewire/storage"
)

const (
	rareTopic    = "bench.rare"
	rareMessages = 10
	windowIDs    = 1_000_000 // the default dedupe window
	digestBytes  = 36
)

// large is what a large store costs: fill it, kill the process that did, open it
// again, publish to it, find a few messages in it.
func (b *bench) large() (rows []*row, err error) {
	dir := b.path("large")
	if err := b.fillAndKill(dir); err != nil {
		return nil, fmt.Errorf("fill the large store: %w", err)
	}
	ready, err := b.ready(dir)
	if err != nil {
		return nil, err
	}
	s, err := openStore(dir, storage.LogOptions{}, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	rare, err := b.rare(s)
	if err != nil {
		return nil, err
	}
	stored, err := compare(fmt.Sprintf("publish behind %d stored messages; limit: to an empty store", b.stored), 1.25,
		func() (float64, error) { return s.publish(b.burst, manyTopics) },
		func() (float64, error) { return b.publishFresh(manyTopics) })
	return []*row{stored, rare, ready}, err
}

// fillAndKill has another process fill the store and kills it while it goes on
// publishing.
func (b *bench) fillAndKill(dir string) error {
	cmd := exec.Command(b.self, "-step", "fill", dir, strconv.Itoa(b.stored))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	_, err = bufio.NewReader(out).ReadString('\n')
	err = errors.Join(err, cmd.Process.Kill())
	_ = cmd.Wait() // killed
	return err
}

// stepFill fills a store, says so, and publishes for ever: DIR COUNT.
func stepFill(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	s, err := openStore(args[0], storage.LogOptions{}, nil)
	if err != nil {
		return err
	}
	every := n / rareMessages
	err = s.fill(n, func(i int) string {
		if i%every == every/2 {
			return rareTopic
		}
		return manyTopics(i)
	})
	if err != nil {
		return err
	}
	fmt.Println("full")
	for {
		if _, err := s.publish(10_000, manyTopics); err != nil {
			return err
		}
	}
}

// ready opens the store as the killed process left it, beside a loop that reads
// the active segment and puts the ids of the dedupe window in a map. Each runs in
// a process of its own.
func (b *bench) ready(dir string) (*row, error) {
	digests := b.path("digests")
	f, err := os.Create(digests)
	if err != nil {
		return nil, err
	}
	_, err = io.CopyN(f, rand.Reader, int64(min(windowIDs, b.stored))*digestBytes)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	active, size, err := newestSegment(dir)
	if err != nil {
		return nil, err
	}
	r, err := compare(fmt.Sprintf("ready after kill -9, %.2f GB stored; limit: read a file, fill a map", float64(size)/1e9), 3,
		func() (float64, error) { return b.step("open", dir) },
		func() (float64, error) { return b.step("bare", active, digests) })
	return r, errors.Join(err, os.Remove(digests))
}

// newestSegment returns the file that was written to last, and how many bytes
// there are in all.
func newestSegment(dir string) (path string, total int64, err error) {
	var newest time.Time
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, ".seg") {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		total += info.Size()
		if info.ModTime().After(newest) {
			path, newest = p, info.ModTime()
		}
		return nil
	})
	return path, total, err
}

// step runs a step in another process and returns the seconds it printed.
func (b *bench) step(name string, args ...string) (float64, error) {
	cmd := exec.Command(b.self, append([]string{"-step", name}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("step %s: %w", name, err)
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

// stepOpen opens a store and ends without closing it: DIR.
func stepOpen(args []string) error {
	begin := time.Now()
	s, err := storage.Open(args[0], storage.Options{})
	if err != nil {
		return err
	}
	if _, err := s.OpenLog("main", storage.LogOptions{}); err != nil {
		return err
	}
	fmt.Println(time.Since(begin).Seconds())
	os.Exit(0)
	return nil
}

// stepBare does the least that being ready takes: SEGMENT DIGESTS.
func stepBare(args []string) error {
	begin := time.Now()
	if _, err := os.ReadFile(args[0]); err != nil {
		return err
	}
	digests, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	ids := make(map[[16]byte]uint64)
	for row := range slices.Chunk(digests, digestBytes) {
		ids[[16]byte(row)] = uint64(len(ids))
	}
	fmt.Println(time.Since(begin).Seconds())
	return nil
}

// rare finds a few messages of a topic among all the others. The limit is a
// time.
func (b *bench) rare(s *store) (*row, error) {
	const aim = 0.010
	return compareTo(fmt.Sprintf("%d messages of a topic among %d; limit: %g ms", rareMessages, b.stored, aim*1000), aim,
		func() (float64, error) {
			begin := time.Now()
			count, err := s.read(rareTopic, func([]byte) error { return nil })
			if err == nil && count != rareMessages {
				err = fmt.Errorf("%d messages", count)
			}
			return time.Since(begin).Seconds(), err
		})
}
