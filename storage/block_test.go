package storage

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/tidewire/tidewire/protocol"
)

// sampleBlock has records with and without ids, and a repeat.
func sampleBlock(t testing.TB) []byte {
	t.Helper()
	var b blockBuilder
	b.begin(blockHeader{term: 7, first: 100, time: 1234567})
	identify := func(key DedupeKey, payload, first uint64) { b.identify(&key, payload, first) }
	identify(KeyOf("a.b", "1"), 11, 100)
	b.add(message("a.b", "1", "one").Record, b.time)
	identify(KeyOf("a.b", "1"), 11, 100)
	b.add(nil, b.time)
	b.add(message("c", "", "").Record, b.time)
	identify(KeyOf("$dead.x", "2"), 33, 103)
	b.add(message("$dead.x", "2", string(make([]byte, 300))).Record, b.time)
	return b.encode()
}

func TestBlock(t *testing.T) {
	b, err := openBlock(sampleBlock(t))
	if err != nil {
		t.Fatal(err)
	}
	if b.term != 7 || b.first != 100 || b.last() != 103 || b.time != 1234567 || b.records != 3 || b.rows != 3 || !b.dollar {
		t.Fatalf("%+v", b)
	}
	var got []string
	err = b.verifyAll(func(offset uint64, record []byte) error {
		at, time := protocol.RecordPlace(record)
		got = append(got, fmt.Sprintf("%d %s", offset, protocol.RecordTopic(record)))
		if at != offset || time != b.time {
			t.Errorf("record at offset %d has the place %d, %d", offset, at, time)
		}
		return nil
	})
	if want := []string{"100 a.b", "102 c", "103 $dead.x"}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("%v: %q", err, got)
	}
	rows, err := b.digests()
	if err != nil {
		t.Fatal(err)
	}
	if row := parseRow(rows[rowBytes:]); row != (digestRow{key: KeyOf("a.b", "1"), payload: 11, first: 100, slot: 1}) {
		t.Errorf("%+v", row)
	}
}

// TestBlockEachByte changes every byte of a block, and cuts it everywhere: all
// of it is noticed.
func TestBlockEachByte(t *testing.T) {
	good := sampleBlock(t)
	check := func(raw []byte) error {
		b, err := openBlock(raw)
		if err != nil {
			return err
		}
		return b.verifyAll(func(uint64, []byte) error { return nil })
	}
	for i := range good {
		for _, change := range []byte{1, 0x80, 0xff} {
			bad := bytes.Clone(good)
			bad[i] ^= change
			if err := check(bad); !errors.Is(err, errDamaged) {
				t.Fatalf("byte %d changed by %#x: %v", i, change, err)
			}
		}
		if err := check(good[:i]); !errors.Is(err, errDamaged) {
			t.Fatalf("cut at byte %d: %v", i, err)
		}
	}
}

// FuzzBlock reads anything as a block.
func FuzzBlock(f *testing.F) {
	f.Add(sampleBlock(f))
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, raw []byte) {
		b, err := openBlock(raw)
		if err != nil {
			return
		}
		_ = b.verifyAll(func(uint64, []byte) error { return nil })
		rows, _ := b.digests()
		for ; len(rows) >= rowBytes; rows = rows[rowBytes:] {
			parseRow(rows)
		}
	})
}

// FuzzPostings reads anything as postings.
func FuzzPostings(f *testing.F) {
	var p postings
	for _, o := range []uint64{3, 4, 900, 1 << 40} {
		p.add(o)
	}
	f.Add(p.encode(1 << 20))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		if p, err := decodePostings(raw); err == nil {
			p.after(nil, 0, 100)
		}
	})
}

func TestPostings(t *testing.T) {
	want := []uint64{5, 6, 200, 201, 1 << 50}
	var p postings
	for _, o := range want {
		p.add(o)
	}
	q, err := decodePostings(p.encode(1 << 30))
	if err != nil || q.count != 5 || q.first != 5 || q.last != 1<<50 {
		t.Fatalf("%v %+v", err, q)
	}
	for i, o := range append([]uint64{0}, want...) {
		for n := range 7 {
			if got := q.after(nil, o, n); !slices.Equal(got, want[i:min(i+n, 5)]) {
				t.Errorf("%d after %d: %v", n, o, got)
			}
		}
	}
	if raw := p.encode(10); len(raw) > 12 {
		t.Errorf("a dense topic has %d bytes of postings", len(raw))
	}
}

func TestChain(t *testing.T) {
	c := chain(nil).next(1, 0).next(2, 0)
	if c.at(0) != 1 || c.at(1) != 2 {
		t.Fatalf("%v", c)
	}
	c = c.next(3, 0) // nothing was written in 2
	if len(c) != 2 || c.at(0) != 1 || c.at(1) != 3 {
		t.Fatalf("%v", c)
	}
	c = c.next(4, 10)
	for offset, term := range map[uint64]protocol.Term{0: 1, 1: 3, 10: 3, 11: 4, 1 << 50: 4} {
		if c.at(offset) != term {
			t.Errorf("offset %d has term %v", offset, c.at(offset))
		}
	}
	if first, last, ok := c.span(3); first != 1 || last != 10 || !ok {
		t.Errorf("%d %d %v", first, last, ok)
	}
	for i := range uint64(maxTerms + 50) {
		c = c.next(protocol.Term(i+10), i+20)
	}
	if len(c) != maxTerms || c[0].term != 1 || c[maxTerms-1].term != maxTerms+59 {
		t.Errorf("%d terms, %v to %v", len(c), c[0], c[maxTerms-1])
	}
}
