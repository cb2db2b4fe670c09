package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/tidewire/tidewire/bench/rig"
)

// broker is a running one.
type broker struct{ *rig.Server }

// start starts a broker with an empty directory.
func (b *bench) start() (*broker, error) {
	b.turns++
	cmd := exec.Command(b.program)
	// The returning subscribers alone are as many as the default allows.
	cmd.Env = append(os.Environ(), "TIDEWIRE_LIMITS_CONNECTIONS=12000", "TIDEWIRE_LOG_LEVEL=error")
	s, err := rig.LaunchBroker(cmd, filepath.Join(b.dir, fmt.Sprint("data", b.turns)))
	return &broker{s}, err
}

// with runs something with a fresh broker.
func (b *bench) with(do func(*broker) (float64, error)) (float64, error) {
	r, err := b.start()
	if err != nil {
		return 0, err
	}
	v, err := do(r)
	return v, errors.Join(err, r.Stop())
}

// resident returns the MiB of memory that the broker has.
func (r *broker) resident() (float64, error) {
	all, _, err := r.Memory()
	return all / (1 << 20), err
}

// heap returns the MiB of the broker's heap that are in use, after what is not was
// collected: pools of buffers live for one collection more.
func (r *broker) heap() (float64, error) {
	var text string
	for range 3 {
		var err error
		if text, err = r.get("/debug/pprof/heap?gc=1&debug=1"); err != nil {
			return 0, err
		}
	}
	size, err := rig.Number(text, `(?m)^# HeapAlloc = (\d+)$`)
	return size / (1 << 20), err
}

// get reads from the admin listener.
func (r *broker) get(path string) (string, error) { return r.Get(context.Background(), path) }

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

// metric returns a metric that has no labels.
func (r *broker) metric(name string) (float64, error) {
	text, err := r.get("/metrics")
	if err != nil {
		return 0, err
	}
	return rig.Number(text, `(?m)^`+name+` (\S+)$`)
}
