package storage

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tidewire/tidewire/protocol"
)

// rollback is a log with a history: who reads it may have come as far as any
// position that was ever given.
type rollback struct {
	t     *testing.T
	rand  *rand.Rand
	log   *testLog
	count int
	given map[protocol.Position]string // payload
}

// live lets the log go through some boots, with messages in most of them.
func (r *rollback) live(boots int) {
	for n := range boots {
		if n > 0 {
			r.log = r.log.reopen()
		}
		if r.rand.IntN(4) > 0 {
			r.publish(1 + r.rand.IntN(20))
		}
	}
}

func (r *rollback) publish(n int) {
	entries, payloads := make([]*Entry, n), make([]string, n)
	for i := range n {
		r.count++
		payloads[i] = fmt.Sprintf("message %d", r.count)
		entries[i] = message(fmt.Sprintf("t.%d", r.count%3), fmt.Sprint(r.count), payloads[i])
	}
	for i, result := range r.log.publish(entries...) {
		if result.Err != nil || result.Duplicate {
			r.t.Fatalf("message %d: %+v", i, result)
		}
		if _, twice := r.given[result.Position]; twice {
			r.t.Fatalf("the position %v was given twice", result.Position)
		}
		r.given[result.Position] = payloads[i]
	}
}

// TestPutBack puts a log back to an earlier state, in all the ways in which that
// is done, lets it grow beyond where it was, and resumes from every position that
// was ever given: what was stored before is read to the end without a gap, and
// every later position gets one gap, exact if the copy was made of a running
// log, and everything behind it.
func TestPutBack(t *testing.T) {
	ways := map[string]func(t *testing.T, r *rollback) (back func() *testLog){
		"backup": func(t *testing.T, r *rollback) func() *testLog {
			archive := backupOf(t, r.log)
			return func() *testLog { return restored(t, archive, r.log.opts) }
		},
		"copy of a running log": func(t *testing.T, r *rollback) func() *testLog {
			dir := filepath.Join(t.TempDir(), "copy")
			copyDir(t, r.log.dir, dir)
			return func() *testLog { return openTest(t, dir, r.log.opts) }
		},
		"copy of a stopped log": func(t *testing.T, r *rollback) func() *testLog {
			r.log.close()
			dir := filepath.Join(t.TempDir(), "copy")
			copyDir(t, r.log.dir, dir)
			r.log = openTest(t, r.log.dir, r.log.opts)
			return func() *testLog { return openTest(t, dir, r.log.opts) }
		},
	}
	rng := newRand(t)
	for _, name := range slices.Sorted(maps.Keys(ways)) { // a seed tells all
		for range 6 {
			r := &rollback{t: t, rand: rng, given: make(map[protocol.Position]string)}
			r.log = openTest(t, filepath.Join(memoryDir(t), "data"), LogOptions{SegmentBytes: 1})
			r.live(1 + rng.IntN(4))
			term, stored := r.log.term(), len(r.given)
			before := make(map[protocol.Position]bool)
			for p := range r.given {
				before[p] = true
			}
			back := ways[name](t, r)
			if r.log.term() == term {
				r.publish(1 + rng.IntN(20)) // in the same boot
			}
			r.live(rng.IntN(3))
			r.log.close()

			lost := make(map[protocol.Position]bool)
			for p := range r.given {
				if !before[p] {
					lost[p] = true
				}
			}
			r.log = back()
			_, head := r.log.Bounds()
			want := r.log.readAll(">", 0, 0)
			if len(want) != stored {
				t.Fatalf("%s: %d messages of %d were put back", name, len(want), stored)
			}
			r.publish(50)
			r.log = r.log.reopen()
			r.publish(1)
			all := r.log.readAll(">", 0, 0)
			for p := range before {
				r.resume(name, p, all, nil)
			}
			for p := range lost {
				gap := &Gap{Reason: GapOtherLog, Term: p.Term, After: p.Offset, Through: p.Offset, Next: 0}
				if p.Term == term && (name == "backup" || slices.ContainsFunc(r.log.terms, func(s termSpan) bool { return s.term == term })) {
					gap = &Gap{Reason: GapRolledBack, Term: p.Term, After: head, Through: p.Offset, Next: head}
				}
				r.resume(name, p, all, gap)
			}
			r.log.close()
		}
	}
}

// resume comes back with a position.
func (r *rollback) resume(name string, p protocol.Position, all []protocol.Message, want *Gap) {
	r.t.Helper()
	got, err := r.log.Resolve(protocol.Start{Kind: protocol.StartPosition, Position: p}, mustFilter(r.t, ">"), 0)
	next := p.Offset
	if want != nil {
		next = want.Next
	}
	switch {
	case err != nil, (got.Gap == nil) != (want == nil), want != nil && *got.Gap != *want, got.After != next:
		r.t.Fatalf("%s: %v resolves to %+v, %+v, %v; want %+v", name, p, got, got.Gap, err, want)
	}
	i := slices.IndexFunc(all, func(m protocol.Message) bool { return m.Position.Offset > next })
	if rest := r.log.readAll(">", got.After, 0); i < 0 || len(rest) != len(all)-i || rest[0].Position != all[i].Position {
		r.t.Fatalf("%s: after %v come %d messages of %d", name, p, len(rest), len(all)-i)
	}
}
