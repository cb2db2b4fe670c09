package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	only := flag.String("only", "", "one part: stuck, return or conflate")
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
	b := &bench{sizes: sizes{flood: 40_000, returning: 2_000, seconds: 4}}
	if *full {
		b.sizes = sizes{flood: 80_000, returning: 10_000, seconds: 10}
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
	if err := b.build(); err != nil {
		return err
	}
	var rows []*row
	for _, part := range []struct {
		name    string
		measure func() ([]*row, error)
	}{{"stuck", b.stuck}, {"return", b.comeBack}, {"conflate", b.conflate}} {
		if only != "" && only != part.name {
			continue
		}
		more, err := part.measure()
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		rows = append(rows, more...)
	}
	if !printTable(rows) {
		fmt.Println("Some aims were missed. Measure again when the machine has nothing else to do.")
	}
	return nil
}

// build builds the broker in its module.
func (b *bench) build() error {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tidewire/tidewire").Output()
	if err != nil {
		return fmt.Errorf("find the broker's source: %w", err)
	}
	b.program = filepath.Join(b.dir, "tidewire")
	build := exec.Command("go", "-C", strings.TrimSpace(string(root)), "build", "-o", b.program, "./cmd/tidewire")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the broker: %w", err)
	}
	return nil
}
