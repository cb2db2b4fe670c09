package disk_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/tidewire/tidewire/tests/disk"
)

// Variables by which this program tells a copy of itself what to be.
const (
	envChild     = "TIDEWIRE_DISK_CHILD"     // the process under test, see children
	envNamespace = "TIDEWIRE_DISK_NAMESPACE" // the tests, with mounts of their own
)

// children are the programs that tests run as processes of their own. Each has
// its arguments on standard input and returns the exit status.
var children = map[string]func() int{
	"bolt":  boltChild,
	"copy":  copyChild,
	"store": storeChild,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(envChild); name != "" {
		os.Exit(children[name]())
	}
	if os.Getenv(envNamespace) == "" && mountable() == "" {
		if code, ok := inNamespace(); ok {
			os.Exit(code)
		}
	}
	code := m.Run()
	if brokerDir != "" {
		_ = os.RemoveAll(brokerDir) // what stays behind does no harm
	}
	os.Exit(code)
}

// inNamespace runs the tests in a mount namespace of their own, so that no mount
// outlives them, however they end. ok is false where that cannot be had.
func inNamespace() (code int, ok bool) {
	runtime.LockOSThread() // Pdeathsig follows the thread
	self, err := os.Executable()
	if err != nil {
		return 0, false
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), envNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, false
	}
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), true
}

// mountable returns why nothing can be mounted here, or "".
func mountable() string {
	if os.Geteuid() != 0 {
		return "mounting the test's disk needs root"
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Sprintf("the test's disk needs FUSE (modprobe fuse, or pass the device into the container): %v", err)
	}
	_ = f.Close()
	return ""
}

// machine is a device and the place where it is mounted, if it is.
type machine struct {
	*disk.Device
	t    *testing.T
	dir  string
	free func() error
}

// newMachine returns a machine whose device is mounted.
func newMachine(t *testing.T, seed uint64) *machine {
	t.Helper()
	if reason := mountable(); reason != "" {
		t.Skip(reason)
	}
	m := &machine{Device: disk.New(seed), t: t, dir: t.TempDir()}
	m.mount()
	t.Cleanup(m.unmount)
	return m
}

func (m *machine) mount() {
	m.t.Helper()
	free, err := m.Mount(m.dir)
	if err != nil {
		m.t.Fatal(err)
	}
	m.free = free
}

func (m *machine) unmount() {
	m.t.Helper()
	if m.free == nil {
		return
	}
	m.Release() // nothing may wait for a machine that stands still
	if err := m.free(); err != nil {
		m.t.Error(err)
	}
	m.free = nil
}

// powerCut takes the power away and gives it back. The processes that used the
// device must be dead.
func (m *machine) powerCut() {
	m.t.Helper()
	m.unmount()
	m.Cut()
	m.mount()
}

// reboot does the same without a loss: only the process died.
func (m *machine) reboot() {
	m.t.Helper()
	m.unmount()
	m.Restart()
	m.mount()
}

// process is a child that runs.
type process struct {
	cmd    *exec.Cmd
	errs   bytes.Buffer
	closed chan struct{} // at the end of its output
}

// start starts a child that reads its arguments from standard input. Each line
// of its output is given to line, one at a time and from another goroutine, until
// wait or kill returns.
func start(t *testing.T, name, args string, line func(string)) *process {
	t.Helper()
	p, in := startTalking(t, name, line)
	_, _ = io.WriteString(in, args)
	_ = in.Close()
	return p
}

// startTalking starts a child and returns its standard input.
func startTalking(t *testing.T, name string, line func(string)) (*process, io.WriteCloser) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	p := &process{cmd: exec.Command(self), closed: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), envChild+"="+name, "GORACE=atexit_sleep_ms=0")
	p.cmd.Stderr = &p.errs
	in, err := p.cmd.StdinPipe()
	must(t, err)
	out, err := p.cmd.StdoutPipe()
	must(t, err)
	must(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	go func() {
		defer close(p.closed)
		for lines := bufio.NewReader(out); ; {
			text, err := lines.ReadString('\n')
			if err != nil {
				return // and what is left is a line cut short by a kill
			}
			line(strings.TrimSuffix(text, "\n"))
		}
	}()
	return p, in
}

// wait returns an error with what the child complained of unless it ended well.
func (p *process) wait() error {
	<-p.closed
	if err := p.cmd.Wait(); err != nil {
		text := p.errs.String()
		return fmt.Errorf("%w: %s", err, text[:min(len(text), 2000)])
	}
	return nil
}

// kill kills a process that uses the machine, and lets go what it waits for.
func (m *machine) kill(p *process) {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	m.Release()
	_ = p.wait()
}
