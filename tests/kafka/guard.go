package kafka

import (
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// watch kills the processes of the last line that it read, once nobody can write
// to it any more, and removes the directory that it is given.
const watch = `while read -r line; do pids=$line; done
[ -z "$pids" ] || kill -9 $pids 2>/dev/null
[ -z "$0" ] || { sleep 0.3; rm -rf "$0"; }`

// guard ends the nodes when this process is gone, however it went: a shell reads
// a pipe that only this process holds open. It has a session of its own, so that
// Ctrl-C does not end it first.
type guard struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser

	mu   sync.Mutex // guards pids
	pids []int
}

// newGuard starts the shell; dir is removed at the end, unless it is "".
func newGuard(dir string) (*guard, error) {
	cmd := exec.Command("sh", "-c", watch, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the guard of the Kafka nodes: %w", err)
	}
	return &guard{cmd: cmd, pipe: pipe}, nil
}

func (g *guard) add(pid int) {
	g.change(func(pids []int) []int { return append(pids, pid) })
}

func (g *guard) remove(pid int) {
	g.change(func(pids []int) []int { return slices.DeleteFunc(pids, func(p int) bool { return p == pid }) })
}

func (g *guard) change(f func([]int) []int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pids = f(g.pids)
	_, _ = fmt.Fprintln(g.pipe, strings.Trim(fmt.Sprint(g.pids), "[]")) // an error means that somebody killed the shell
}

// close lets the guard do its work now, and returns when it has.
func (g *guard) close() {
	_ = g.pipe.Close()
	_ = g.cmd.Wait()
}
