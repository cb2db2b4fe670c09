package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// bench is what the rows share.
type bench struct {
	dir    string // for everything; removed at the end
	self   string // this program
	limit  string // the program of bench/limit
	stored int    // messages in the large store
	burst  int    // messages in one measurement of publishing
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench/storage:", err)
		os.Exit(1)
	}
}

func run() error {
	step := flag.String("step", "", "run one step of a measurement, in a process of its own")
	dir := flag.String("dir", "", "a directory on the disk to be measured (default: one under the working directory)")
	limit := flag.String("limit", "", "the program of bench/limit (default: build it)")
	only := flag.String("only", "", "one part: publish, topics, replay or large")
	full := flag.Bool("full", false, "the whole 10 million messages and 2 GB")
	flag.Parse()
	if *step != "" {
		return runStep(*step, flag.Args())
	}
	b := &bench{limit: *limit, stored: 1_000_000, burst: 60_000}
	if *full {
		b.stored, b.burst = 10_000_000, 200_000
	}
	return b.run(*dir, *only)
}

func (b *bench) run(dir, only string) (err error) {
	if dir == "" {
		dir = "."
	}
	if b.dir, err = os.MkdirTemp(dir, "bench-storage-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.limit == "" {
		b.limit = b.path("limit")
		build := exec.Command("go", "build", "-o", b.limit, "github.com/tidewire/tidewire/bench/limit")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build bench/limit: %w", err)
		}
	}
	var rows []*row
	for _, part := range []struct {
		name    string
		measure func() ([]*row, error)
	}{{"publish", b.publish}, {"topics", b.topics}, {"replay", b.replay}, {"large", b.large}} {
		if only != "" && only != part.name {
			continue
		}
		more, err := part.measure()
		if err != nil {
			return err
		}
		rows = append(rows, more...)
	}
	if !printTable(rows) {
		fmt.Println("Some aims were missed. Measure again when the machine has nothing else to do.")
	}
	return nil
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// runStep is what the program does when it runs itself.
func runStep(step string, args []string) error {
	steps := map[string]func([]string) error{
		"publish": stepPublish,
		"plain":   stepPlain,
		"fill":    stepFill,
		"open":    stepOpen,
		"bare":    stepBare,
	}
	do := steps[step]
	if do == nil {
		return fmt.Errorf("there is no step %q", step)
	}
	return do(args)
}
