package whole_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the program under test, built once by TestMain.
var binary string

// raceEnabled: the program is built with the race detector if the tests are.
var raceEnabled bool

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "tidewire-whole-")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { // one test runs it as another user
		return 1, err
	}
	binary = filepath.Join(dir, "tidewire")
	args := []string{"build", "-o", binary}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "github.com/tidewire/tidewire/cmd/tidewire")...)
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// broker is the program on one data directory and one pair of addresses, which
// it keeps over restarts.
type broker struct {
	t      testing.TB
	dir    string
	listen string
	admin  string
	env    []string
	flags  []string

	program string // the binary, or what starts it
	group   bool   // it has a process group of its own

	cmd    *exec.Cmd // nil while it does not run
	exited chan struct{}
	stderr *output // of all its lives
}

func newBroker(t testing.TB) *broker {
	b := &broker{
		t: t, dir: filepath.Join(t.TempDir(), "data"),
		listen: freeAddress(t), admin: freeAddress(t), stderr: &output{}, program: binary,
	}
	t.Cleanup(func() {
		if b.cmd != nil {
			b.kill()
		}
		if t.Failed() {
			t.Logf("what the broker wrote:\n%s", b.stderr)
		}
		if s := b.stderr.String(); strings.Contains(s, "DATA RACE") || strings.Contains(s, "panic:") {
			t.Errorf("the broker wrote:\n%s", s)
		}
	})
	return b
}

func (b *broker) url() string { return "ws://" + b.listen }

func (b *broker) command(ctx context.Context, extra ...string) *exec.Cmd {
	args := []string{"serve", "--data", b.dir, "--listen", b.listen, "--admin", b.admin}
	cmd := exec.CommandContext(ctx, b.program, append(append(args, b.flags...), extra...)...)
	cmd.Env = append(cleanEnv(), b.env...)
	return cmd
}

// launch returns at once.
func (b *broker) launch() {
	b.t.Helper()
	b.cmd = b.command(context.Background())
	b.cmd.Stderr = b.stderr
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: b.group}
	stdout, err := b.cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	exited, cmd := make(chan struct{}), b.cmd
	b.exited = exited
	go func() {
		_, _ = io.Copy(b.stderr, stdout) // the lines at start, kept for the log of a failure
		_ = cmd.Wait()                   // callers read ProcessState
		close(exited)
	}()
}

// start returns once the broker is ready.
func (b *broker) start() {
	b.t.Helper()
	b.launch()
	within(b.t, 60*time.Second, "the broker is ready", func() bool {
		select {
		case <-b.exited:
			b.t.Fatalf("the broker ended at start: %v", b.cmd.ProcessState)
		default:
		}
		return status("http://"+b.listen+"/readyz") == http.StatusOK && status("http://"+b.admin+"/readyz") == http.StatusOK
	})
}

// kill is kill -9.
func (b *broker) kill() {
	b.t.Helper()
	_ = b.cmd.Process.Kill() // an error means that it is gone
	b.awaitExit(20 * time.Second)
}

// terminate sends SIGTERM and returns the exit status.
func (b *broker) terminate() int {
	b.t.Helper()
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.t.Fatal(err)
	}
	return b.awaitExit(60 * time.Second)
}

func (b *broker) awaitExit(limit time.Duration) int {
	b.t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-b.exited:
	case <-timer.C:
		b.t.Fatalf("the broker still runs %v after it was told to end", limit)
	}
	code := b.cmd.ProcessState.ExitCode()
	b.cmd = nil
	return code
}

// publish publishes over HTTP and returns the position.
func (b *broker) publish(topic, payload string) {
	b.t.Helper()
	resp, err := http.Post("http://"+b.listen+"/v1/topics/"+topic+"/messages", "text/plain", strings.NewReader(payload))
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		b.t.Fatalf("publish to %s: status %d, error %v, %s", topic, resp.StatusCode, err, body)
	}
}

// refusal runs a command that is to fail at once.
type refusal struct {
	code           int
	stdout, stderr string
}

func runToEnd(t *testing.T, cmd *exec.Cmd) refusal {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return refusal{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// output is a buffer that a process fills while the test reads it.
type output struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func (o *output) lines() []string {
	var all []string
	for s := bufio.NewScanner(strings.NewReader(o.String())); s.Scan(); {
		all = append(all, s.Text())
	}
	return all
}

// within polls until the condition holds.
func within(t testing.TB, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

var probe = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// status returns the status of a GET, 0 if there is no answer.
func status(url string) int {
	resp, err := probe.Get(url)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// freeAddress finds a port that stays free while nobody listens on it: below
// the range from which outgoing connections take theirs. Else a client that
// tries to reconnect to a dead broker can meet itself on that very port. None is
// given twice.
func freeAddress(t testing.TB) string {
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(18000))
		if _, given := givenAddresses.LoadOrStore(address, true); given {
			continue
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		_ = l.Close()
		return address
	}
	t.Fatal("no port is free")
	return ""
}

var givenAddresses sync.Map

func cleanEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "TIDEWIRE_") {
			env = append(env, v)
		}
	}
	return env
}
