package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tidewire/tidewire/bench/rig"
)

// bench is what the rows share.
type bench struct {
	dir     string // for everything; removed at the end
	self    string // this program
	program string // the broker's
	turns   int    // directories that were used
	sizes
}

// sizes are those of the measurements.
type sizes struct {
	flood     int // messages beside a stuck subscriber
	returning int // subscribers that come back
	seconds   int // of a topic that is conflated
	single    int // messages of a turn, one at a time from node to node
	many      int // messages of a turn, many at once from node to node
	steady    int // messages to the crowds of several nodes, at a steady pace
	toCrowds  int // and in a flood
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench/fan:", err)
		os.Exit(1)
	}
}

func run() error {
	step := flag.String("step", "", "run one step of a measurement, in a process of its own")
	dir := flag.String("dir", ".", "a directory on the disk to be measured")
	only := flag.String("only", "", "one part: stuck, return, conflate, path or crowds")
	full := flag.Bool("full", false, "10,000 subscribers that come back, and longer runs")
	flag.Parse()
	switch *step {
	case "":
	case "connect":
		return stepConnect(flag.Args())
	case "publish":
		return stepPublish(flag.Args())
	default:
		return fmt.Errorf("there is no step %q", *step)
	}
	b := &bench{sizes: sizes{flood: 40_000, returning: 2_000, seconds: 4, single: 300, many: 100_000, steady: 40 * frameOf, toCrowds: 10_000}}
	if *full {
		b.sizes = sizes{flood: 80_000, returning: 10_000, seconds: 10, single: 2_000, many: 400_000, steady: 200 * frameOf, toCrowds: 20_000}
	}
	return b.run(*dir, *only)
}

func (b *bench) run(dir, only string) (err error) {
	if b.dir, err = os.MkdirTemp(dir, "bench-fan-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	b.program = filepath.Join(b.dir, "tidewire")
	if err := rig.BuildBroker(context.Background(), b.program); err != nil {
		return err
	}
	var rows []*rig.Row
	for _, part := range []struct {
		name    string
		measure func() ([]*rig.Row, error)
	}{{"stuck", b.stuck}, {"return", b.comeBack}, {"conflate", b.conflate}, {"path", b.path}, {"crowds", b.crowds}} {
		if only != "" && only != part.name {
			continue
		}
		more, err := part.measure()
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		rows = append(rows, more...)
	}
	if !rig.Print(os.Stdout, "LIMIT", rows) {
		fmt.Println("Some aims were missed. Measure again when the machine has nothing else to do.")
	}
	return nil
}
