package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tidewire/tidewire/bench/rig"
)

const (
	stages    = 5 // of the later messages
	oldRounds = 3 // each has two brokers
	mebibyte  = 1 << 20
)

// oldMessage is what a message costs that stays in flight while many later ones
// are acknowledged, beside a broker where it was acknowledged too.
func (b *bench) oldMessage() ([]*rig.Row, error) {
	all, err := series(b.fresh, func() ([]float64, error) { return b.manyAcks("rest") }, func() ([]float64, error) { return b.manyAcks("old") })
	if err != nil {
		return nil, err
	}
	without, with := all[0], all[1]
	part := func(i int, name string, aim float64) *rig.Row {
		return &rig.Row{Name: name, Ours: with[i].Text(" MiB"), Beside: without[i].Text(" MiB"), Ratio: rig.Each(with[i], without[i], rig.Over), Aim: aim}
	}
	return []*rig.Row{
		part(0, fmt.Sprintf("memory of the broker after %d acks above a pending message; limit: none pending", b.later), 1.25),
		part(1, "to compare: its heap", 0),
		part(2, "the most that its control log had on disk; limit: none pending", 1.25),
	}, nil
}

// manyAcks fills a topic and acknowledges it, in stages, and returns what the
// broker has then: memory, heap, and its control log at most, in MiB. The first
// message can be left out.
func (b *bench) manyAcks(first string) (_ []float64, err error) {
	s, err := b.ours()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	var control []string
	most, how := 0.0, first
	for range stages {
		if _, err := b.step("ours", s.Addr, "fill", b.later/stages, "oldfill", 0); err != nil {
			return nil, err
		}
		if _, err := b.step("ours", s.Addr, "old", b.later/stages, how, 4096); err != nil {
			return nil, err
		}
		how = "rest"
		size, err := sizeOf(filepath.Join(s.Dir, "streams", "control"))
		if err != nil {
			return nil, err
		}
		most = max(most, size/mebibyte)
		control = append(control, fmt.Sprintf("%.1f", size/mebibyte))
	}
	if first == "old" {
		b.note("Control log after each of %d times %d acks above a pending message, MiB: %s.", stages, b.later/stages, control)
	}
	f, err := s.footprint(b.ctx)
	if err != nil {
		return nil, err
	}
	return []float64{f.resident / mebibyte, f.heap / mebibyte, most}, s.checkPending(b, first == "old")
}

// checkPending tells if the first message is not where it should be.
func (s *server) checkPending(b *bench, old bool) error {
	text, err := s.Get(b.ctx, "/v1/consumers/old")
	if err != nil {
		return err
	}
	n, err := rig.Number(text, `"in_flight": *(\d+)`)
	if err == nil && (n == 1) != old {
		err = fmt.Errorf("%g messages are in flight: %s", n, text)
	}
	return err
}

// sizeOf returns the bytes that the files of a directory take on disk.
func sizeOf(dir string) (float64, error) {
	total := 0.0
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, os.ErrNotExist) { // a segment went
			return nil
		}
		if err == nil {
			total += float64(info.Sys().(*syscall.Stat_t).Blocks) * 512
		}
		return err
	})
	return total, err
}
