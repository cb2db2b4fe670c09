package consumer_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/protocol"
)

func create(t testing.TB, g *consumer.Registry, name string) *consumer.Machine {
	t.Helper()
	m, err := g.Create(name, consumer.DefaultSettings(), consumer.Places{Main: at(10), Redrive: at(20)}, 5)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func replay(t testing.TB, records ...[]byte) *consumer.Registry {
	t.Helper()
	g := &consumer.Registry{}
	for _, record := range records {
		if err := g.Apply(record); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func list(g *consumer.Registry) string {
	var all []string
	for m := range g.All() {
		all = append(all, fmt.Sprintf("%s#%d:%d", m.Name(), m.Incarnation(), m.Pending()))
	}
	return strings.Join(all, " ")
}

func take(m *consumer.Machine, n int) {
	for range n {
		m.Take(consumer.Message{At: at(m.Cursor(consumer.Main) + 1), Size: 1}, 1, 0)
	}
}

func TestRegistry(t *testing.T) {
	g := &consumer.Registry{}
	for _, name := range []string{"m", "z", "a"} {
		create(t, g, name)
	}
	want(t, "the consumers", list(g), "a#3:0 m#1:0 z#2:0")
	_, err := g.Create("m", consumer.DefaultSettings(), consumer.Places{}, 0)
	if !errors.Is(err, &protocol.Error{Code: protocol.CodeConsumerExists}) {
		t.Errorf("created twice: %v", err)
	}
	want(t, "deleted", g.Delete("m"), true)
	want(t, "deleted twice", g.Delete("m"), false)
	m := create(t, g, "m")
	want(t, "of that name", g.Get("m"), m)
	want(t, "the consumers", list(g), "a#3:0 m#4:0 z#2:0")
	want(t, "of no name", g.Get("b"), nil)
	want(t, "how many", g.Len(), 3)

	r := replay(t, g.Deltas())
	want(t, "replayed", list(r), list(g))
	got := r.Get("m")
	want(t, "created", got.Created(), 5)
	want(t, "settings", got.Settings(), consumer.DefaultSettings())
	want(t, "position", got.Position(consumer.Redrive), at(20))
	if g.Deltas() != nil {
		t.Error("the same deltas twice")
	}
}

func TestNumbersNeverRepeat(t *testing.T) {
	g := &consumer.Registry{}
	m := create(t, g, "c")
	m.TakeOver(g.NextGeneration(), 0)
	want(t, "generation", m.Generation(), 2)
	created, taken := g.Deltas(), m.Deltas()
	g.NextGeneration() // given to nobody whom the log knows
	g.Delete("c")
	deleted := g.Deltas()
	want(t, "after the take-over", replay(t, created, taken).NextGeneration(), 3)
	want(t, "after the deletion", replay(t, created, taken, deleted).NextGeneration(), 4)
	want(t, "after a checkpoint of nothing", replay(t, g.BeginCheckpoint(), g.EndCheckpoint()).NextGeneration(), 4)
	want(t, "from the deletion on", replay(t, deleted).NextGeneration(), 4)
}

func TestDeltasOfTheUnknownArePassedOver(t *testing.T) {
	g := &consumer.Registry{}
	old := create(t, g, "c")
	take(old, 3)
	late := old.Deltas()
	g.Delete("c")
	m := create(t, g, "c")
	r := replay(t, g.Deltas(), late)
	want(t, "of the one before", list(r), "c#2:0")
	take(m, 2)
	begin, page := g.BeginCheckpoint(), g.Page(m)
	take(m, 1)
	after := m.Deltas()
	r = replay(t, begin, late, page, after, g.EndCheckpoint())
	want(t, "from the checkpoint on", list(r), "c#2:3")
}

func TestCheckpointDropsWhatHasNoPage(t *testing.T) {
	g := &consumer.Registry{}
	a, b := create(t, g, "a"), create(t, g, "b")
	created := g.Deltas()
	take(a, 1)
	begin, page := g.BeginCheckpoint(), g.Page(a)
	create(t, g, "c")
	r := replay(t, created, b.Deltas(), begin, page, g.Deltas())
	want(t, "before the end", list(r), "a#1:1 b#2:0 c#3:0")
	if err := r.Apply(g.EndCheckpoint()); err != nil {
		t.Fatal(err)
	}
	want(t, "after the end", list(r), "a#1:1 c#3:0")
	want(t, "of the name", r.Get("b"), nil)
}

func TestPageReplacesTheState(t *testing.T) {
	g := &consumer.Registry{}
	m := create(t, g, "c")
	created := g.Deltas()
	r := replay(t, created)
	held := r.Get("c")
	take(m, 4)
	m.Ack(0, 12)
	if err := r.Apply(g.Page(m)); err != nil {
		t.Fatal(err)
	}
	want(t, "the machine", r.Get("c"), held)
	if !bytes.Equal(held.AppendState(nil), m.AppendState(nil)) {
		t.Error("the page gives another state")
	}
	if m.Deltas() != nil {
		t.Error("what is in the page comes again")
	}
	want(t, "a creation behind its page", list(replay(t, g.Page(m), created)), "c#1:3")
}

func TestPageOfAnotherConsumerOfTheName(t *testing.T) {
	g := &consumer.Registry{}
	create(t, g, "c")
	created := g.Deltas()
	g.Delete("c")
	take(create(t, g, "c"), 1)
	r := replay(t, created, g.Page(g.Get("c")))
	want(t, "the consumers", list(r), "c#2:1")
	want(t, "of the name", r.Get("c").Incarnation(), 2)
}

func TestOffsetsBeyondTheLastAreRefused(t *testing.T) {
	g := &consumer.Registry{}
	m := create(t, g, "c")
	m.Buried(1, protocol.MaxOffset)
	replay(t, g.Page(m))
	m.Buried(1, protocol.MaxOffset+1)
	if replay(t).Apply(g.Page(m)) == nil {
		t.Error("a dead letter beyond the last offset")
	}
}

func TestPagesInParts(t *testing.T) {
	g := &consumer.Registry{}
	m := create(t, g, "c")
	created := g.Deltas()
	take(m, 100)
	known := append([][]byte{created}, g.Pages(m, 1<<20)...)
	want(t, "a page that fits", len(known), 2)
	take(m, 100)
	pages := g.Pages(m, 500)
	if len(pages) < 5 {
		t.Fatalf("%d pages", len(pages))
	}
	for _, page := range pages[1:] {
		if len(page) > 520 {
			t.Errorf("a page of %d bytes", len(page))
		}
	}
	m.Ack(0, 11)
	between := m.Deltas()
	r := replay(t, slices.Concat(known, pages[:3], [][]byte{between})...)
	if !bytes.Equal(r.Get("c").AppendState(nil), m.AppendState(nil)) {
		t.Error("before the last part the state is another")
	}
	records := slices.Concat([][]byte{g.BeginCheckpoint()}, pages[:3], [][]byte{between}, pages[3:], [][]byte{g.EndCheckpoint()})
	if got := replay(t, records...).Get("c"); !bytes.Equal(got.AppendState(nil), m.AppendState(nil)) {
		t.Error("parts and what is between them give another state")
	}
	// A page of which the crash left two parts, then a whole one.
	take(m, 1)
	more := g.Pages(m, 500)
	if got := replay(t, slices.Concat(known, pages[:3], [][]byte{between}, more)...).Get("c"); !bytes.Equal(got.AppendState(nil), m.AppendState(nil)) {
		t.Error("left parts come into the next page")
	}
	r = replay(t, slices.Concat(known, pages[:1], g.Pages(m, 1<<20))...)
	if r.Apply(pages[1]) == nil {
		t.Error("a page goes on after another one")
	}
	r = replay(t, pages[0])
	if r.Apply(pages[2]) == nil {
		t.Error("a missing part is not missed")
	}
}

func TestApplyRefuses(t *testing.T) {
	g := &consumer.Registry{}
	m := create(t, g, "c")
	take(m, 3)
	m.Reject(0, 12, "no")
	m.Buried(12, 9)
	created, deltas, page := g.Deltas(), m.Deltas(), g.Page(m)
	known := func() *consumer.Registry { return replay(t, created) }
	for _, record := range [][]byte{created, deltas, page, g.BeginCheckpoint()} {
		for n := 1; n < len(record); n++ {
			if known().Apply(record[:n]) == nil {
				t.Errorf("%d bytes of %x are accepted", n, record)
			}
		}
		later := slices.Clone(record)
		later[0] += 1 << 4
		if err := known().Apply(later); err == nil || !strings.Contains(err.Error(), "later version") {
			t.Errorf("a later version: %v", err)
		}
	}
	// A group of deltas with one unknown byte, and an entry that is not there.
	group := func(body ...byte) []byte {
		return append([]byte{0x10, byte(len(body) + 1), byte(m.Incarnation())}, body...)
	}
	for _, body := range [][]byte{{0}, {31}, {0xff}, {2, 200, 1, 0, 1, 0, 0}} {
		if known().Apply(group(body...)) == nil {
			t.Errorf("%x is accepted", body)
		}
	}
	want(t, "nothing is a record", known().Apply(nil), nil)
	begin := append(g.BeginCheckpoint(), 0)
	begin[1]++
	want(t, "a byte too many", known().Apply(begin) != nil, true)
	// Entries that are not in order, that are there twice, or that come to life.
	g = replay(t, page)
	for offset, accepted := range map[byte]bool{2: false, 11: false, 13: false, 14: true} {
		err := g.Apply(group(1, offset, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0))
		if (err == nil) != accepted {
			t.Errorf("entry %d: %v", offset, err)
		}
	}
	if g.Apply(group(1, 11, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0)) == nil {
		t.Error("an entry of two sources")
	}
	if g.Apply(group(2, 14, 3, 1, 0, 0)) != nil || g.Apply(group(2, 14, 0, 1, 0, 0)) == nil {
		t.Error("a dying entry comes to life")
	}
	// Numbers that are claimed and not there take no memory.
	huge := append(slices.Clone(page[:3]), page[3:]...)
	huge[1], huge[2] = 0xff, 0x7f
	if known().Apply(huge) == nil {
		t.Error("a length beyond the end is accepted")
	}
}

// FuzzApply: whatever the bytes, Apply does not panic; and what it accepts can
// be written and read again.
func FuzzApply(f *testing.F) {
	g := &consumer.Registry{}
	m := create(f, g, "c")
	begin := g.Deltas()
	take(m, 20)
	m.Nack(0, 12, nil, moment(1))
	m.Advance(moment(40))
	m.Reject(0, 13, "no")
	m.Buried(13, 7)
	m.Skip(consumer.Redrive, at(90))
	m.TakeOver(g.NextGeneration(), 1)
	s := m.Settings()
	s.Ordered = false
	m.SetSettings(s)
	m.SetPaused(true)
	f.Add(begin, m.Deltas())
	f.Add(g.BeginCheckpoint(), g.Page(m))
	pages := g.Pages(m, 256)
	f.Add(slices.Concat(begin, pages[0]), slices.Concat(pages[1:]...))
	m.UndeadThrough(8)
	m.Seek(g.NextGeneration(), consumer.Places{})
	f.Add(g.Page(m), g.EndCheckpoint())
	g.Delete("c")
	f.Add(begin, g.Deltas())
	f.Add([]byte{}, binary.AppendUvarint([]byte{0x14}, 1<<60))

	f.Fuzz(func(t *testing.T, a, b []byte) {
		g := &consumer.Registry{}
		for _, record := range [][]byte{a, b} {
			if g.Apply(record) != nil {
				return
			}
		}
		for m := range g.All() {
			state := m.AppendState(nil)
			r := &consumer.Registry{}
			if err := r.Apply(g.Page(m)); err != nil {
				t.Fatalf("what was accepted cannot be read again: %v", err)
			}
			again := r.Get(m.Name())
			if !bytes.Equal(again.AppendState(nil), state) {
				t.Fatal("what was accepted is another when it is read again")
			}
			for range 3 { // deciding about it does not panic either
				now, _ := again.NextDue()
				again.Advance(consumer.Moment{Now: now, Random: func(n int64) int64 { return n - 1 }})
				again.Retry(1, now)
				if e, ok := again.Oldest(); ok {
					again.Ack(0, e.Offset)
				}
			}
			again.Rewind(consumer.Places{})
		}
	})
}
