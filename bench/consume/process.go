package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tidewire/tidewire/bench/rig"
)

// server is a running broker, ours or NATS.
type server struct{ *rig.Server }

// command prepares a process that ends with this one.
func (b *bench) command(program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(b.ctx, program, args...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// ours starts our broker with an empty directory.
func (b *bench) ours() (*server, error) {
	cmd := b.command(b.broker)
	cmd.Env = append(os.Environ(), "TIDEWIRE_LOG_LEVEL=error")
	s, err := rig.LaunchBroker(cmd, b.newDir())
	if err != nil {
		return nil, err
	}
	return &server{s}, nil
}

// nats starts NATS with one of the configurations.
func (b *bench) nats(configuration, dir string) (*server, error) {
	cmd := b.command(b.path("nats"), b.path(configuration+".conf"), dir)
	s, err := rig.Launch(cmd, dir, regexp.MustCompile(`(nats://[0-9.:]+) ([0-9.:]+)`))
	if err != nil {
		return nil, err
	}
	return &server{s}, nil
}

func (b *bench) newDir() string {
	b.dirs++
	return b.path(fmt.Sprint("data", b.dirs))
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// stop ends the server, if there is one.
func (s *server) stop() error {
	if s == nil {
		return nil
	}
	return s.Stop()
}

// step runs one step of this program against a server, in a process of its own,
// and returns what it prints.
func (b *bench) step(name string, args ...any) (float64, error) {
	printed, _, err := b.timedStep(name, args...)
	return printed, err
}

// timedStep also returns the CPU seconds of that process.
func (b *bench) timedStep(name string, args ...any) (printed, cpu float64, err error) {
	texts := []string{"-step", name}
	for _, a := range args {
		texts = append(texts, fmt.Sprint(a))
	}
	cmd := b.command(b.self, texts...)
	out, err := cmd.Output()
	if err != nil {
		return 0, 0, fmt.Errorf("step %s: %w", strings.Join(texts[1:], " "), err)
	}
	cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if len(out) > 0 {
		printed, err = strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	}
	return printed, cpu, err
}

// footprint is what a server takes when it has nothing to do.
type footprint struct {
	resident   float64 // bytes, without the pages of files
	heap       float64 // bytes
	goroutines float64
}

// footprint waits until memory that is not used any more has been given back, and
// returns what is left.
func (s *server) footprint(ctx context.Context) (f footprint, err error) {
	var heap string
	for range 3 { // a collection, one of what finalizers freed, and time for the scavenger
		if heap, err = s.Get(ctx, "/debug/pprof/heap?gc=1&debug=1"); err != nil {
			return f, err
		}
		<-time.After(700 * time.Millisecond)
	}
	stacks, err := s.Get(ctx, "/debug/pprof/goroutine?debug=1")
	if err != nil {
		return f, err
	}
	all, ofFiles, err := s.Memory()
	if err != nil {
		return f, err
	}
	f.resident = all - ofFiles
	if f.heap, err = rig.Number(heap, `HeapAlloc = (\d+)`); err != nil {
		return f, err
	}
	f.goroutines, err = rig.Number(stacks, `total (\d+)`)
	return f, err
}
