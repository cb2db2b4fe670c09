//go:build unix

package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Supported says that this system can supervise.
const Supported = true

// A Supervisor keeps a broker running. Its fields are set before Run and not
// changed.
type Supervisor struct {
	Args    []string // of this program, which the broker gets too
	Out     io.Writer
	Err     io.Writer
	Logger  *slog.Logger
	Hangups <-chan os.Signal // are handed on

	// Report is told what the broker reports, one call at a time.
	Report func(Report)

	// Pinned returns arguments for a broker that is started again, from the first
	// report of the one before: a port that the system chose must stay.
	Pinned func(Report) []string

	mu    sync.Mutex
	line  io.Writer // the lifeline of the broker that runs; nil if none does
	asked bool      // to end
}

// An ExitError is the status of a broker that ended without success. It has said
// why.
type ExitError struct{ Status int }

// Error says the status.
func (e *ExitError) Error() string { return fmt.Sprintf("the broker ended with status %d", e.Status) }

// Run runs brokers until one ends by itself, or ctx ends and it has followed, or
// it dies so often that there is no use in another one.
func (s *Supervisor) Run(ctx context.Context) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program in order to run it once more: %w", err)
	}
	defer context.AfterFunc(ctx, s.Ask)()
	var policy policy
	var pinned []string
	for starts := 1; ; starts++ {
		l := life{supervisor: s, args: slices.Concat(s.Args, []string{fmt.Sprintf("--supervised=%d", starts)}, pinned)}
		state, err := l.run(program)
		if err != nil {
			return fmt.Errorf("start the broker as a process of its own: %w", err)
		}
		if state.Success() {
			return nil
		}
		status := statusOf(state)
		pause, again := policy.died(time.Now(), l.first != nil)
		if s.ending() || !again {
			return &ExitError{status}
		}
		s.Logger.Warn("the broker has died and is started again", "how", state.String(), "pause", pause)
		if pinned == nil && l.first != nil && s.Pinned != nil {
			pinned = s.Pinned(*l.first)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// Ask asks the broker to end, and the second time to end at once.
func (s *Supervisor) Ask() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = true
	if s.line != nil {
		_, _ = s.line.Write([]byte{'e'}) // if it fails the broker has ended
	}
}

func (s *Supervisor) ending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// hold makes line the one to ask on. Who was asked before hands that on.
func (s *Supervisor) hold(line io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line = line
	if s.asked && line != nil {
		_, _ = line.Write([]byte{'e'})
	}
}

// statusOf returns the status as a shell would: 128 and the number of the signal.
func statusOf(state *os.ProcessState) int {
	if w, ok := state.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return state.ExitCode()
}

// life is one process of a broker.
type life struct {
	supervisor *Supervisor
	args       []string
	first      *Report // nil if it never took requests
}

// run starts the process and returns how it ended.
func (l *life) run(program string) (*os.ProcessState, error) {
	s := l.supervisor
	lifeline, line, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = line.Close() }()
	reports, reporter, err := os.Pipe()
	if err != nil {
		_ = lifeline.Close()
		return nil, err
	}
	defer func() { _ = reports.Close() }()
	cmd := exec.Command(program, l.args...)
	cmd.Stdout, cmd.Stderr = s.Out, s.Err
	cmd.ExtraFiles = []*os.File{lifeline, reporter} // 3 and 4, see Attach
	err = cmd.Start()
	_ = lifeline.Close()
	_ = reporter.Close()
	if err != nil {
		return nil, err
	}
	s.hold(line)
	defer s.hold(nil)
	var following sync.WaitGroup
	following.Go(func() { l.follow(reports) })
	ended := make(chan struct{})
	following.Go(func() { l.handOn(cmd.Process, ended) })
	_ = cmd.Wait() // the state says all
	close(ended)
	following.Wait()
	return cmd.ProcessState, nil
}

// follow reads reports until the process has ended.
func (l *life) follow(r io.Reader) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		var report Report
		if json.Unmarshal(lines.Bytes(), &report) != nil {
			continue // it died while it wrote
		}
		if l.first == nil && report.Listen != "" {
			l.first = &report
		}
		if l.supervisor.Report != nil {
			l.supervisor.Report(report)
		}
	}
}

// handOn hands on SIGHUP.
func (l *life) handOn(to *os.Process, ended <-chan struct{}) {
	for {
		select {
		case sig := <-l.supervisor.Hangups:
			_ = to.Signal(sig) // if it fails the broker has ended
		case <-ended:
			return
		}
	}
}
