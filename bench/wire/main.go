// Command wire measures durable publishing over WebSocket, pipelined, beside
// appends and syncs of the same number of batches with the same number of bytes.
// The broker is a process of its own; bench/limit does the measuring.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"

	"github.com/tidewire/tidewire/bench/rig"
)

const (
	payloadBytes = 128
	connections  = 4
	pipeline     = 64 // messages in flight on each
	aim          = 0.3
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench/wire:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	step := flag.Bool("step", false, "publish once, in a process of its own: BROKER DIR SIZES")
	dir := flag.String("dir", ".", "a directory on the disk to be measured")
	full := flag.Bool("full", false, "ten times as many messages")
	count := flag.Int("count", 50_000, "messages")
	flag.Parse()
	if *step {
		return publish(flag.Arg(0), flag.Arg(1), flag.Arg(2), *count)
	}
	if *full {
		*count *= 10
	}
	work, err := os.MkdirTemp(*dir, "bench-wire-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if work, err = filepath.Abs(work); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	path := func(name string) string { return filepath.Join(work, name) }
	build := exec.Command("go", "build", "-o", path("limit"), "github.com/tidewire/tidewire/bench/limit")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build bench/limit: %w", err)
	}
	if err := rig.BuildBroker(context.Background(), path("tidewire")); err != nil {
		return err
	}
	cmd := exec.Command(path("limit"), path("sizes"), self, "-step", "-count", fmt.Sprint(*count), path("tidewire"), path("data"), path("sizes"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("run bench/limit: %w", err)
	}
	return report(string(out), *count)
}

// report prints what bench/limit measured.
func report(out string, count int) error {
	fmt.Printf("publish durably over WebSocket: %d messages of %d bytes, %d connections, %d in flight on each\n", count, payloadBytes, connections, pipeline)
	fmt.Print(out)
	for line := range strings.Lines(out) {
		var ratio float64
		if n, _ := fmt.Sscanf(line, "ratio median %g", &ratio); n == 1 {
			verdict := "ok"
			if ratio < aim {
				verdict = "MISSED"
			}
			fmt.Printf("aim      >= %g %s\n", aim, verdict)
			return nil
		}
	}
	return fmt.Errorf("bench/limit printed %q", out)
}

// publish starts a broker with an empty directory, publishes, prints the seconds,
// and leaves the sizes of its commits in a file: the mean of all, for each.
func publish(program, dir, sizes string, count int) (err error) {
	broker, err := rig.LaunchBroker(exec.Command(program), dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, broker.Stop()) }()
	seconds, err := publishAll("http://"+broker.Addr, count)
	if err != nil {
		return err
	}
	if err := noteSizes(broker, sizes); err != nil {
		return err
	}
	fmt.Println(seconds)
	return nil
}

// publishAll publishes over all connections together and returns the seconds
// until everything was answered.
func publishAll(url string, count int) (float64, error) {
	ctx := context.Background()
	clients := make([]*tidewire.Client, connections)
	for i := range clients {
		c, err := tidewire.Connect(ctx, tidewire.Options{URLs: []string{url}, OutboxMessages: pipeline})
		if err != nil {
			return 0, err
		}
		defer func() { _ = c.Close(ctx) }()
		clients[i] = c
	}
	var wg sync.WaitGroup
	errs := make([]error, connections)
	begin := time.Now()
	for i, c := range clients {
		wg.Go(func() { errs[i] = publishOn(ctx, c, count/connections) })
	}
	wg.Wait()
	return time.Since(begin).Seconds(), errors.Join(errs...)
}

func publishOn(ctx context.Context, c *tidewire.Client, count int) error {
	payload := make([]byte, payloadBytes)
	pending := make([]*tidewire.Pending, count)
	for i := range pending {
		var err error
		if pending[i], err = c.PublishAsync(ctx, tidewire.Message{Topic: "bench.one", Payload: payload}); err != nil {
			return err
		}
	}
	for _, p := range pending {
		if _, err := p.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// noteSizes writes as many sizes as there were commits, with the same sum.
func noteSizes(broker *rig.Server, path string) error {
	text, err := broker.Get(context.Background(), "/metrics")
	if err != nil {
		return err
	}
	value := func(name string) float64 {
		v, _ := rig.Number(text, name+`\{stream="main"\} (\S+)`) // 0 if it is not there
		return v
	}
	commits, bytes := value("tidewire_storage_commits_total"), value("tidewire_storage_stored_bytes_total")
	if commits == 0 {
		return errors.New("the broker's metrics show no commits")
	}
	line := fmt.Sprintln(int(bytes / commits))
	return os.WriteFile(path, []byte(strings.Repeat(line, int(commits))), 0o600)
}
