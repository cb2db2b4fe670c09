package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is a running broker, ours or NATS.
type server struct {
	cmd      *exec.Cmd
	in       io.Closer // its end is NATS's sign to stop
	dir      string
	addr     string // of clients
	profiles string // URL of the listener with /debug/pprof
}

// command prepares a process that ends with this one.
func (b *bench) command(program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(b.ctx, program, args...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// ours starts our broker with an empty directory.
func (b *bench) ours() (*server, error) {
	dir := b.newDir()
	cmd := b.command(b.broker, "serve", "--data", dir, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "TIDEWIRE_LOG_LEVEL=error")
	return launch(cmd, dir, regexp.MustCompile(`http://([0-9.:]+).*(http://[0-9.:]+)`))
}

// nats starts NATS with one of the configurations.
func (b *bench) nats(configuration, dir string) (*server, error) {
	cmd := b.command(b.path("nats"), b.path(configuration+".conf"), dir)
	return launch(cmd, dir, regexp.MustCompile(`(nats://[0-9.:]+) ([0-9.:]+)`))
}

func (b *bench) newDir() string {
	b.dirs++
	return b.path(fmt.Sprint("data", b.dirs))
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// launch starts a server, which prints its addresses in a line.
func launch(cmd *exec.Cmd, dir string, addresses *regexp.Regexp) (*server, error) {
	s := &server{cmd: cmd, dir: dir}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	s.in = in
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	m := addresses.FindStringSubmatch(line)
	if m == nil {
		return nil, errors.Join(fmt.Errorf("%s printed %q", filepath.Base(cmd.Path), line), err, s.stop())
	}
	s.addr, s.profiles = m[1], m[2]
	if !strings.HasPrefix(s.profiles, "http") {
		s.profiles = "http://" + s.profiles
	}
	return s, nil
}

// stop kills the server and removes what it wrote.
func (s *server) stop() error {
	if s == nil {
		return nil
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // killed
	return os.RemoveAll(s.dir)
}

// quit ends NATS, whose directory stays.
func (s *server) quit() error {
	return errors.Join(s.in.Close(), s.cmd.Wait())
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

func (s *server) proc(name string) ([]byte, error) {
	return os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.cmd.Process.Pid, name))
}

// resident returns the bytes of memory that the server has.
func (s *server) resident() (float64, error) {
	b, err := s.proc("statm")
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(b)
	pages, err1 := strconv.Atoi(string(fields[1]))
	shared, err2 := strconv.Atoi(string(fields[2])) // pages of files: the log's, the program's
	return float64((pages - shared) * os.Getpagesize()), errors.Join(err1, err2)
}

// cpu returns the CPU seconds of the server so far, of its own and of the system
// for it.
func (s *server) cpu() (float64, error) {
	b, err := s.proc("stat")
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // from the third on
	user, err1 := strconv.Atoi(string(fields[11]))
	system, err2 := strconv.Atoi(string(fields[12]))
	return float64(user+system) / 100, errors.Join(err1, err2) // ticks of USER_HZ
}

// get reads a page of the listener with the profiles.
func (s *server) get(ctx context.Context, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.profiles+path, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(response.Body)
	err = errors.Join(err, response.Body.Close())
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.200s", path, response.Status, text)
	}
	return string(text), err
}

// footprint is what a server takes when it has nothing to do.
type footprint struct {
	resident   float64 // bytes, without the pages of files
	heap       float64 // bytes
	goroutines float64
}

// settle waits until memory that is not used any more has been given back, and
// returns what is left.
func (s *server) footprint(ctx context.Context) (f footprint, err error) {
	var heap string
	for range 3 { // a collection, one of what finalizers freed, and time for the scavenger
		if heap, err = s.get(ctx, "/debug/pprof/heap?gc=1&debug=1"); err != nil {
			return f, err
		}
		<-time.After(700 * time.Millisecond)
	}
	all, err := s.get(ctx, "/debug/pprof/goroutine?debug=1")
	if err != nil {
		return f, err
	}
	if f.resident, err = s.resident(); err != nil {
		return f, err
	}
	if f.heap, err = number(heap, `HeapAlloc = (\d+)`); err != nil {
		return f, err
	}
	f.goroutines, err = number(all, `total (\d+)`)
	return f, err
}

// number finds a number in a text.
func number(text, pattern string) (float64, error) {
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("no %s in %.200q", pattern, text)
	}
	return strconv.ParseFloat(m[1], 64)
}
