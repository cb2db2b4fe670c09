package rig

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
)

// A Server is a process of its own: our broker, or a peer.
type Server struct {
	Addr string // of clients
	URL  string // of the listener with /debug/pprof
	Dir  string // goes with it

	cmd *exec.Cmd
	in  io.Closer
}

// BuildBroker builds the broker in its module.
func BuildBroker(ctx context.Context, program string) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/tidewire/tidewire").Output()
	if err != nil {
		return fmt.Errorf("find the broker's source: %w", err)
	}
	build := exec.CommandContext(ctx, "go", "-C", strings.TrimSpace(string(root)), "build", "-o", program, "./cmd/tidewire")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the broker: %w", err)
	}
	return nil
}

// LaunchBroker starts the broker's program with an empty directory.
func LaunchBroker(program *exec.Cmd, dir string) (*Server, error) {
	program.Args = append(program.Args, "serve", "--data", dir, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	return Launch(program, dir, regexp.MustCompile(`http://([0-9.:]+).*(http://[0-9.:]+)`))
}

// Launch starts a server, which prints its two addresses in its first line. It has
// an input that ends with [Server.Quit].
func Launch(cmd *exec.Cmd, dir string, addresses *regexp.Regexp) (*Server, error) {
	s := &Server{cmd: cmd, Dir: dir}
	cmd.Stderr = os.Stderr
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
		return nil, errors.Join(fmt.Errorf("%s printed %q", filepath.Base(cmd.Path), line), err, s.Stop())
	}
	s.Addr, s.URL = m[1], m[2]
	if !strings.HasPrefix(s.URL, "http") {
		s.URL = "http://" + s.URL
	}
	return s, nil
}

// Stop kills the server and removes what it wrote.
func (s *Server) Stop() error {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // killed
	return os.RemoveAll(s.Dir)
}

// Quit ends a server whose sign to stop is the end of its input. Its directory
// stays.
func (s *Server) Quit() error {
	return errors.Join(s.in.Close(), s.cmd.Wait())
}

func (s *Server) proc(name string) ([]byte, error) {
	return os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.cmd.Process.Pid, name))
}

// Memory returns the bytes of memory that the server has, and how many of them are
// pages of files: the log's, the program's.
func (s *Server) Memory() (resident, ofFiles float64, err error) {
	b, err := s.proc("statm")
	if err != nil {
		return 0, 0, err
	}
	fields := bytes.Fields(b)
	all, err1 := strconv.Atoi(string(fields[1]))
	shared, err2 := strconv.Atoi(string(fields[2]))
	page := os.Getpagesize()
	return float64(all * page), float64(shared * page), errors.Join(err1, err2)
}

// CPU returns the CPU seconds of the server so far, of its own and of the system
// for it.
func (s *Server) CPU() (float64, error) {
	b, err := s.proc("stat")
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // from the third on
	user, err1 := strconv.Atoi(string(fields[11]))
	system, err2 := strconv.Atoi(string(fields[12]))
	return float64(user+system) / 100, errors.Join(err1, err2) // ticks of USER_HZ
}

// Get reads a page of the server's listener with the profiles.
func (s *Server) Get(ctx context.Context, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, nil)
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

// Number finds a number in a text.
func Number(text, pattern string) (float64, error) {
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("no %s in %.200q", pattern, text)
	}
	return strconv.ParseFloat(m[1], 64)
}

// FirstError spares the reader the same sentence a thousand times.
func FirstError(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
