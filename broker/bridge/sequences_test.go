package bridge

import (
	"bytes"
	"testing"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
)

// TestSequences compares the sequences with the plain definition, over resends,
// zombies and holes, and with those of nodes that began later or that read the
// state of another.
func TestSequences(t *testing.T) {
	r := newRand(t)
	for range 300 {
		window := 1 + r.Uint64N(30)
		var seen []struct {
			boot             Boot
			sequence, offset uint64
		}
		states := []sequences{newSequences(window)}
		begun := []uint64{0}
		var top [3]uint64
		head := r.Uint64N(5)
		for range 200 {
			head += 1 + r.Uint64N(1+r.Uint64N(4))
			boot := Boot(1 + r.IntN(3))
			sequence := r.Uint64N(top[boot-1] + 2)
			if r.IntN(2) == 0 {
				sequence = top[boot-1] + 1 + r.Uint64N(2)
			}
			top[boot-1] = max(top[boot-1], sequence)
			want := true
			for _, s := range seen {
				if s.boot == boot && s.offset+window >= head && s.sequence >= sequence {
					want = false
				}
			}
			seen = append(seen, struct {
				boot             Boot
				sequence, offset uint64
			}{boot, sequence, head})
			first := states[0].append(nil, head-1)
			for i := range states {
				if settled := head-1 >= begun[i]+window; settled && !bytes.Equal(states[i].append(nil, head-1), first) {
					t.Fatalf("window %d: at %d the node that began at %d has another state", window, head-1, begun[i])
				} else if got := states[i].take(boot, sequence, head); got != want && settled {
					t.Fatalf("window %d: sequence %d of boot %d at %d is above the others: %t, want %t", window, sequence, boot, head, got, want)
				}
			}
			switch r.IntN(20) {
			case 0:
				states, begun = append(states, newSequences(window)), append(begun, head)
			case 1:
				i := r.IntN(len(states))
				again := newSequences(window)
				n := note{head: head, mark: Mark{Offset: r.Int64N(100) - 1, Epoch: -1, Checksum: r.Uint64()}}
				got, err := parseNote(encodeNote(n, &states[i]), &again)
				if err != nil || got != n {
					t.Fatalf("%+v, %v; want %+v", got, err, n)
				}
				states[i] = again
			}
		}
	}
}

func FuzzNote(f *testing.F) {
	s := newSequences(10)
	s.take(7, 5, 1)
	s.take(7, 3, 2)
	s.take(9, 1, 3)
	f.Add(encodeNote(note{head: 3, mark: Mark{Offset: 2, Epoch: 1, Checksum: 5}}, &s))
	f.Add([]byte{noteVersion, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newSequences(10)
		n, err := parseNote(b, &s)
		if err != nil {
			return
		}
		again := newSequences(10)
		same := encodeNote(n, &s)
		if got, err := parseNote(same, &again); err != nil || got != n || !bytes.Equal(encodeNote(n, &again), same) {
			t.Fatalf("%+v, %v", got, err)
		}
	})
}

// TestChecksum: every part of a record counts.
func TestChecksum(t *testing.T) {
	sums := map[uint64]string{}
	for name, rec := range map[string]kafka.Record{
		"none":        {},
		"empty key":   {Key: []byte{}},
		"empty value": {Value: []byte{}},
		"key":         {Key: []byte("a")},
		"value":       {Value: []byte("a")},
		"header":      {Headers: []kafka.Header{{Key: "a"}}},
		"headers":     {Headers: []kafka.Header{{Key: "", Value: []byte("a")}}},
	} {
		for range 2 {
			sum := checksum(&rec)
			if other := sums[sum]; other != "" && other != name {
				t.Errorf("%s and %s have one checksum", name, other)
			}
			sums[sum] = name
		}
		rec.Time = rec.Time.AddDate(0, 0, 1)
		if sum := checksum(&rec); sums[sum] != "" {
			t.Errorf("%s: the time does not count", name)
		}
	}
}
