package storage

import (
	"encoding/binary"
	"testing"
)

// naiveDedupe is the rule itself: look through the last N rows.
type naiveDedupe struct {
	limit int
	rows  []dedupeRow
}

func (d *naiveDedupe) find(k DedupeKey) *dedupeRow {
	for i := len(d.rows) - 1; i >= max(0, len(d.rows)-d.limit); i-- {
		if d.rows[i].key == k {
			return &d.rows[i]
		}
	}
	return nil
}

func (d *naiveDedupe) evicted() uint64 {
	if n := len(d.rows) - d.limit; n > 0 {
		return d.rows[n-1].time
	}
	return 0
}

// TestDedupe does random things to a dedupe and compares it with the rule.
func TestDedupe(t *testing.T) {
	r := newRand(t)
	for range 60 {
		limit := 1 + r.IntN(300)
		if r.IntN(5) == 0 {
			limit = ringPart - 5 + r.IntN(10)
		}
		d, naive := newDedupe(limit), naiveDedupe{limit: limit}
		kept := 0 // rows that are final
		keys := uint64(1 + r.IntN(3*limit))
		for n := range 6000 {
			var key DedupeKey
			binary.LittleEndian.PutUint64(key[4:], r.Uint64N(keys))
			got, want := d.find(&key), naive.find(key)
			if (got == nil) != (want == nil) || got != nil && *got != *want {
				t.Fatalf("limit %d, step %d: found %+v, want %+v", limit, n, got, want)
			}
			row := dedupeRow{key: key, payload: r.Uint64(), first: uint64(n), time: uint64(n / 3)}
			d.add(row)
			naive.rows = append(naive.rows, row)
			switch r.IntN(40) {
			case 0:
				d.revert()
				naive.rows = naive.rows[:kept]
			case 1, 2, 3, 4:
				n := r.IntN(len(naive.rows) - kept + 1)
				d.keep(n)
				kept += n
			}
			if d.evicted != naive.evicted() || d.len() != min(limit, len(naive.rows)) {
				t.Fatalf("limit %d, step %d: evicted %d, %d rows; want %d, %d", limit, n, d.evicted, d.len(), naive.evicted(), min(limit, len(naive.rows)))
			}
		}
		d.checkTable(t)
	}
}

// checkTable holds the table against the ring.
func (d *dedupe) checkTable(t *testing.T) {
	used := 0
	for _, v := range d.table {
		if v.slot == 0 {
			continue
		}
		used++
		if row := d.row(v.slot - 1); row != d.find(&row.key) {
			t.Fatalf("ring slot %d is in the table, but not found", v.slot-1)
		}
	}
	if used != d.used {
		t.Fatalf("%d places of the table are used, it counts %d", used, d.used)
	}
}

func TestKeyOf(t *testing.T) {
	if KeyOf("a", "b") == KeyOf("a", "c") || KeyOf("a", "b") == KeyOf("ab", "") {
		t.Error("keys do not tell topic and id apart")
	}
	if PayloadHash(nil) == PayloadHash([]byte{0}) {
		t.Error("payload hashes")
	}
}

func BenchmarkDedupe(b *testing.B) {
	d := newDedupe(1_000_000)
	var key DedupeKey
	n := uint64(0)
	for b.Loop() {
		n++
		binary.LittleEndian.PutUint64(key[:], n*0x9e3779b97f4a7c15)
		if d.find(&key) == nil {
			d.add(dedupeRow{key: key})
		}
		if n%256 == 0 {
			d.keep(256)
		}
	}
}
