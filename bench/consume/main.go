package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tidewire/tidewire/bench/rig"
)

// configurations are those of NATS.
//
//go:embed nats/*.conf
var configurations embed.FS

const (
	members      = 4 // of a consumer, each with a connection
	payloadBytes = 128
)

// bench is what the rows share.
type bench struct {
	ctx    context.Context // ends with a signal, or when this takes too long
	dir    string          // for everything; removed at the end
	self   string          // this program
	dirs   int             // directories of servers that were used
	broker string          // its program
	notes  []string        // for below the table
	sizes
}

// sizes are those of the measurements.
type sizes struct {
	messages  int // consumed in a turn
	confirmed int // of those that are confirmed one by one
	rounds    int
	fresh     int // rounds in which servers begin anew
	idle      int // consumers
	later     int // messages after one that is never acknowledged
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench/consume:", err)
		os.Exit(1)
	}
}

func run() error {
	step := flag.String("step", "", "run one step of a measurement, in a process of its own")
	dir := flag.String("dir", ".", "a directory on the disk to be measured")
	only := flag.String("only", "", "one part: acks, confirmed, idle, pending or old")
	broker := flag.String("broker", "", "the broker's program (default: build it)")
	full := flag.Bool("full", false, "more messages, and more turns")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *step != "" {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		return runStep(ctx, *step, flag.Args())
	}
	b := &bench{broker: *broker, sizes: sizes{messages: 200_000, confirmed: 100_000, rounds: 5, fresh: 1, idle: 10_000, later: 1_000_000}}
	longest := 10 * time.Minute
	if *full {
		b.sizes = sizes{messages: 400_000, confirmed: 150_000, rounds: 11, fresh: 3, idle: 10_000, later: 5_000_000}
		longest = time.Hour
	}
	var cancel func()
	b.ctx, cancel = context.WithTimeout(ctx, longest)
	defer cancel()
	err := b.run(*dir, *only)
	if b.ctx.Err() != nil {
		err = fmt.Errorf("stopped: %w", context.Cause(b.ctx))
	}
	return err
}

func runStep(ctx context.Context, step string, args []string) error {
	switch step {
	case "ours":
		return stepOurs(ctx, args)
	case "nats":
		return stepNATS(ctx, args)
	default:
		return fmt.Errorf("there is no step %q", step)
	}
}

func (b *bench) run(dir, only string) (err error) {
	if b.dir, err = os.MkdirTemp(dir, "bench-consume-"); err != nil {
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
	var rows []*rig.Row
	for _, part := range []struct {
		name    string
		measure func() ([]*rig.Row, error)
	}{{"acks", b.acks}, {"confirmed", b.confirmations}, {"idle", b.idleConsumers}, {"pending", b.pending}, {"old", b.oldMessage}} {
		if only != "" && only != part.name {
			continue
		}
		more, err := part.measure()
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		rows = append(rows, more...)
	}
	met := rig.Print(os.Stdout, "NATS OR LIMIT", rows)
	for _, note := range b.notes {
		fmt.Println(note)
	}
	if !met {
		fmt.Println("Some aims were missed. Measure again when the machine has nothing else to do.")
	}
	return nil
}

// build builds both servers, each in its module, and lays out NATS's
// configurations.
func (b *bench) build() error {
	if err := b.command("go", "build", "-o", b.path("nats"), "github.com/tidewire/tidewire/bench/consume/nats").Run(); err != nil {
		return fmt.Errorf("build NATS: %w", err)
	}
	if b.broker == "" {
		b.broker = b.path("tidewire")
		if err := rig.BuildBroker(b.ctx, b.broker); err != nil {
			return err
		}
	}
	for _, name := range []string{"default.conf", "always.conf"} {
		text, err := configurations.ReadFile("nats/" + name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(b.path(name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// note adds a line below the table.
func (b *bench) note(format string, args ...any) {
	b.notes = append(b.notes, fmt.Sprintf(format, args...))
}
