package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// broker is a running one.
type broker struct {
	cmd   *exec.Cmd
	dir   string
	addr  string // of clients
	admin string // URL
}

// start starts a broker with an empty directory.
func (b *bench) start() (*broker, error) {
	b.turns++
	r := &broker{dir: filepath.Join(b.dir, fmt.Sprint("data", b.turns))}
	r.cmd = exec.Command(b.program, "serve", "--data", r.dir, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	// The returning subscribers alone are as many as the default allows.
	r.cmd.Env = append(os.Environ(), "TIDEWIRE_LIMITS_CONNECTIONS=12000", "TIDEWIRE_LOG_LEVEL=error")
	r.cmd.Stderr = os.Stderr
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	urls := regexp.MustCompile(`http://([0-9.:]+)`).FindAllStringSubmatch(line, 2)
	if len(urls) != 2 {
		return nil, errors.Join(fmt.Errorf("the broker printed %q", line), err, r.stop())
	}
	r.addr, r.admin = urls[0][1], urls[1][0]
	return r, nil
}

// stop kills the broker.
func (r *broker) stop() error {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait() // killed
	return os.RemoveAll(r.dir)
}

// with runs something with a fresh broker.
func (b *bench) with(do func(*broker) (float64, error)) (float64, error) {
	r, err := b.start()
	if err != nil {
		return 0, err
	}
	v, err := do(r)
	return v, errors.Join(err, r.stop())
}

func (r *broker) proc(name string) ([]byte, error) {
	return os.ReadFile(fmt.Sprintf("/proc/%d/%s", r.cmd.Process.Pid, name))
}

// resident returns the MiB of memory that the broker has.
func (r *broker) resident() (float64, error) {
	b, err := r.proc("statm")
	if err != nil {
		return 0, err
	}
	pages, err := strconv.Atoi(string(bytes.Fields(b)[1]))
	return float64(pages*os.Getpagesize()) / (1 << 20), err
}

// heap returns the MiB of the broker's heap that are in use, after what is not was
// collected: pools of buffers live for one collection more.
func (r *broker) heap() (float64, error) {
	for range 2 {
		if _, err := r.get("/debug/pprof/heap?gc=1&debug=1"); err != nil {
			return 0, err
		}
	}
	text, err := r.get("/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`).FindSubmatch(text)
	if m == nil {
		return 0, errors.New("the profile of the heap does not say how large it is")
	}
	size, err := strconv.ParseFloat(string(m[1]), 64)
	return size / (1 << 20), err
}

// get reads from the admin listener.
func (r *broker) get(path string) ([]byte, error) {
	response, err := http.Get(r.admin + path)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(response.Body)
	return text, errors.Join(err, response.Body.Close())
}

// watch samples the broker's memory until done is closed, and returns the most.
func (r *broker) watch(done <-chan struct{}) (float64, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	most := 0.0
	for {
		now, err := r.resident()
		if err != nil {
			return 0, err
		}
		most = max(most, now)
		select {
		case <-done:
			return most, nil
		case <-tick.C:
		}
	}
}

// cpu returns the CPU seconds of the broker so far, of its own and of the
// system for it.
func (r *broker) cpu() (float64, error) {
	b, err := r.proc("stat")
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // from the third on
	user, err1 := strconv.Atoi(string(fields[11]))
	system, err2 := strconv.Atoi(string(fields[12]))
	return float64(user+system) / 100, errors.Join(err1, err2) // ticks of USER_HZ
}

// metric returns a metric that has no labels.
func (r *broker) metric(name string) (float64, error) {
	text, err := r.get("/metrics")
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("the broker has no metric %s", name)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}
