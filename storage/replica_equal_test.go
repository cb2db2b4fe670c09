package storage

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// rawLog makes what the place that decides the order may have: repeats at all
// distances around the window, conflicts, refused items, holes, wild times.
func rawLog(r *rand.Rand, window, n int) (raw []rawItem) {
	offset, ids := uint64(r.IntN(1000)), []rawItem{}
	for range n {
		if offset++; r.IntN(12) == 0 {
			offset += uint64(r.IntN(30))
		}
		i := rawItem{offset: offset, time: uint64(1.7e15) + offset*1000 + r.Uint64N(1e9)}
		switch k := r.IntN(20); {
		case k == 0: // nothing
		case k < 9 && len(ids) > 0:
			i.topic, i.id, i.payload = "", "", ""
			back := min(len(ids), 1+r.IntN(2*window))
			if r.IntN(2) == 0 {
				back = min(len(ids), max(1, window-3+r.IntN(7)))
			}
			before := ids[len(ids)-back]
			i.topic, i.id, i.payload = before.topic, before.id, before.payload
			if r.IntN(8) == 0 {
				i.payload += "!"
			}
		default:
			i.topic, i.payload = fmt.Sprintf("t.%d", r.IntN(5)), strings.Repeat("x", r.IntN(300))
			if r.IntN(4) > 0 {
				i.id = fmt.Sprint(offset)
			}
		}
		i.refused = r.IntN(25) == 0
		if i.id != "" && !i.refused {
			ids = append(ids, i)
		}
		raw = append(raw, i)
	}
	return raw
}

// TestReplicaEqual gives the same raw log to several replicas, cut differently, with
// restarts and crashes; some begin later. Once a replica has had a window of items
// with ids, what it stores and what it judges by are the same as everywhere.
func TestReplicaEqual(t *testing.T) {
	r := newRand(t)
	window := 20 + r.IntN(100)
	raw := rawLog(r, window, 1500)
	type copied struct {
		from   uint64 // everything from here on must be as elsewhere
		stored map[uint64]string
		states map[uint64]string
	}
	var all []copied
	for k := range 4 {
		begin := 0
		if k > 1 {
			begin = r.IntN(len(raw) / 2)
		}
		c := copied{stored: make(map[uint64]string), states: make(map[uint64]string)}
		for i, seen := begin, 0; seen < window && i < len(raw) && k > 1; i++ {
			if raw[i].id != "" && !raw[i].refused {
				seen++
			}
			c.from = raw[i].offset
		}
		l := openReplica(t, t.TempDir(), ReplicaOptions{Partition: 1, LogOptions: LogOptions{
			DedupeWindow: window, SegmentBytes: 1, RetentionAge: -1,
		}})
		if err := l.Reset(raw[begin].offset); err != nil {
			t.Fatal(err)
		}
		for next := begin; next < len(raw); {
			switch r.IntN(12) {
			case 0:
				l.during(func() {})
			case 1:
				l = l.reopen()
			case 2:
				old := l
				l = l.crash()
				old.close()
			}
			_, head := l.Bounds()
			next, _ = slices.BinarySearchFunc(raw, head+1, func(i rawItem, o uint64) int { return int(i.offset) - int(o) })
			n := min(1+r.IntN(1+r.IntN(150)), len(raw)-next)
			var items []Item
			for i := range raw[next : next+n] {
				items = append(items, raw[next+i].item())
			}
			if n > 0 {
				if _, err := l.Apply(t.Context(), items, nil); err != nil {
					t.Fatal(err)
				}
			}
			next += n
			_, head = l.Bounds()
			c.states[head] = string(l.AppendState(nil))
		}
		l.during(func() {})
		for _, m := range l.reader().readAll(">", raw[begin].offset-1, 0) {
			c.stored[m.Position.Offset] = fmt.Sprint(m.Position, m.Topic, m.ID, string(m.Payload), m.Time)
		}
		all = append(all, c)
	}
	for k, c := range all[1:] {
		compared := 0
		for _, i := range raw {
			if i.offset <= c.from {
				continue
			}
			if c.stored[i.offset] != all[0].stored[i.offset] {
				t.Fatalf("replica %d from %d on stores %q at offset %d, the first one %q", k+1, c.from, c.stored[i.offset], i.offset, all[0].stored[i.offset])
			}
			a, both := c.states[i.offset]
			if b, too := all[0].states[i.offset]; both && too {
				compared++
				if a != b {
					t.Fatalf("replica %d from %d on has another state at offset %d", k+1, c.from, i.offset)
				}
			}
		}
		if len(c.stored) < 100 || compared == 0 {
			t.Errorf("replica %d stores %d records, %d states compared", k+1, len(c.stored), compared)
		}
	}
}
