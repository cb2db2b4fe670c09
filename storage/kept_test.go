package storage

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tidewire/tidewire/protocol"
)

// readable is a log of either kind.
type readable interface {
	Bounds() (earliest, head uint64)
	Read(q Query) (protocol.Chunk, error)
	ReadBack(q Query, n int) (protocol.Chunk, error)
}

// read is what one read of much of a log brought: offsets, in order.
type read struct {
	given, hidden []uint64
	lost          []LostError
}

// readParts reads everything that matches above an offset, part by part, past
// damage, forwards or back.
func readParts(t *testing.T, l readable, filter string, after uint64, back bool) (r read) {
	t.Helper()
	earliest, through := l.Bounds()
	after = max(after, earliest-1)
	for after < through {
		q := Query{Filter: mustFilter(t, filter), After: after, Through: through, MaxBytes: 700}
		c, err := l.Read(q)
		if back {
			c, err = l.ReadBack(q, 3)
		}
		if lost, ok := errors.AsType[*LostError](err); ok {
			c = protocol.Chunk{After: lost.After, Through: lost.Through}
			r.lost = append(r.lost, *lost)
		} else if err != nil {
			t.Fatal(err)
		}
		if c.After >= c.Through || c.After < after || !slices.IsSorted(c.Hidden) || c.Through > through || len(c.Hidden) > hiddenAtOnce+1000 {
			t.Fatalf("read (%d, %d]: (%d, %d] with %d hidden", after, through, c.After, c.Through, len(c.Hidden))
		}
		for m, err := range c.Messages() {
			if err != nil {
				t.Fatal(err)
			}
			r.given = append(r.given, m.Position.Offset)
		}
		r.hidden = append(r.hidden, c.Hidden...)
		if back {
			through = c.After
		} else {
			after = c.Through
		}
	}
	slices.Sort(r.given)
	slices.Sort(r.hidden)
	return r
}

// TestMemoryKept does random things to a log in memory and compares what it gives
// and what it hides with the model.
func TestMemoryKept(t *testing.T) {
	r := newRand(t)
	keep := 1 + r.IntN(20)
	l := NewMemoryLog("x", MemoryOptions{PerTopic: keep, Messages: 300 + r.IntN(2000)})
	m := newModel(1 << 20)
	m.keep = keep
	for range *stepsFlag {
		var entries []*Entry
		for range r.IntN(100) {
			topic := fmt.Sprintf("t.%d", int(r.ExpFloat64()*10))
			m.head++
			m.records = append(m.records, modelRecord{offset: m.head, topic: topic})
			entries = append(entries, message(topic, "", "x"))
		}
		l.commit(entries)
		if r.IntN(50) == 0 {
			_, _ = l.Purge(t.Context())
		}
		earliest, head := l.Bounds()
		m.records = slices.DeleteFunc(m.records, func(r modelRecord) bool { return r.offset < earliest })
		for topic, p := range l.kept.topics {
			if p.last < earliest || p.count > keep {
				t.Fatalf("%d offsets of %s up to %d are known of a log from %d on", p.count, topic, p.last, earliest)
			}
		}
		filter := mustFilter(t, []string{">", "t.*", "t.0", "t.3", fmt.Sprintf("t.%d", r.IntN(60))}[r.IntN(5)])
		after := earliest - 1 + r.Uint64N(head-earliest+2)
		want, wantHidden := m.split(filter, after, head)
		for _, back := range []bool{false, true} {
			got := readParts(t, l, filter.String(), after, back)
			if !slices.Equal(got.given, offsetsOf(want)) || !slices.Equal(got.hidden, wantHidden) {
				t.Fatalf("back %v, %s (%d, %d]: %+v, the model says %v, and hides %v", back, filter, after, head, got, offsetsOf(want), wantHidden)
			}
		}
		want, wantHidden = m.split(filter, 0, head)
		n := 1 + r.IntN(30)
		wantAfter := earliest - 1
		if len(want) >= n {
			wantAfter = want[len(want)-n].offset - 1
		}
		if at, _ := l.Resolve(protocol.Start{Kind: protocol.StartLast, Last: n}, filter, head); at.After != wantAfter || len(wantHidden) > 0 && at.Quiet < wantHidden[len(wantHidden)-1] {
			t.Fatalf("last:%d of %s: %+v, the model says %d, and hides %v", n, filter, at, wantAfter, wantHidden)
		}
	}
}

func offsetsOf(records []modelRecord) []uint64 {
	var offsets []uint64
	for _, r := range records {
		offsets = append(offsets, r.offset)
	}
	return offsets
}

// modelOf returns the model of a log without damage.
func modelOf(l *testLog, keep int) *model {
	m := newModel(0)
	for _, got := range l.readAll(">", 0, 5000) {
		m.records = append(m.records, modelRecord{offset: got.Position.Offset, topic: got.Topic})
	}
	_, m.head = l.Bounds()
	m.keep = keep
	return m
}

// TestKeptPastDamage damages sealed segments before the start, which then cannot
// tell all that retention by count is to know: everything that is sound is given,
// or hidden by enough newer ones; all the rest is told as lost.
func TestKeptPastDamage(t *testing.T) {
	r := newRand(t)
	opts := LogOptions{SegmentBytes: 1, WindowBytes: 1}
	sample, _ := damagedSample(t, opts)
	truths, m := readTruth(t, sample), modelOf(sample, 0)
	sample.close()
	hid := 0
	for step := range (*stepsFlag + 1) / 2 {
		dir := t.TempDir()
		copyDir(t, sample.dir, dir)
		harms := make(map[*truth]*harm)
		what := damageSome(t, r, truths, dir, harms)
		m.keep = 1 + r.IntN(40)
		opts.PerTopic = m.keep
		l := openTest(t, dir, opts)
		for _, filter := range damageFilters {
			back := r.IntN(2) == 0
			got := readParts(t, l, filter, 0, back)
			given, hidden := m.split(mustFilter(t, filter), 0, m.head)
			for _, g := range given {
				if !slices.Contains(got.given, g.offset) && !slices.ContainsFunc(got.lost, func(e LostError) bool { return e.After < g.offset && g.offset <= e.Through }) {
					t.Errorf("%s, back %v: %d is not given", filter, back, g.offset)
				}
			}
			for _, offset := range got.hidden {
				if !slices.Contains(hidden, offset) {
					t.Errorf("%s, back %v: %d is hidden", filter, back, offset)
				}
			}
			hid += len(got.hidden)
		}
		l.close()
		if t.Failed() {
			t.Fatalf("step %d: keep %d, %s", step, m.keep, what)
		}
	}
	if hid == 0 {
		t.Error("nothing was hidden")
	}
}

// TestKeptWithoutIndexes reads a sample whose segments have damaged topic indexes:
// then the records tell, and nothing is hidden that should not be, nor given.
func TestKeptWithoutIndexes(t *testing.T) {
	opts := LogOptions{SegmentBytes: 1, WindowBytes: 1}
	sample, _ := damagedSample(t, opts)
	m := modelOf(sample, 5)
	sample.close()
	harmed := 0
	for _, path := range files(t, sample.dir) {
		if !strings.HasSuffix(path, segmentSuffix) {
			continue
		}
		edit(t, path, func(tx *bbolt.Tx) error {
			index := tx.Bucket(bucketIndex)
			k, v := index.Cursor().Last()
			if k == nil {
				return nil
			}
			harmed++
			v = bytes.Clone(v)
			v[len(v)-1] ^= 1
			return index.Put(k, v)
		})
	}
	opts.PerTopic = m.keep
	l := openTest(t, sample.dir, opts)
	for _, filter := range damageFilters {
		given, hidden := m.split(mustFilter(t, filter), 0, m.head)
		for _, back := range []bool{false, true} {
			got := readParts(t, l, filter, 0, back)
			if !slices.Equal(got.given, offsetsOf(given)) || !slices.Equal(got.hidden, hidden) || len(got.lost) > 0 {
				t.Errorf("%s, back %v: %d given, %d hidden, %d lost; the model says %d and %d", filter, back, len(got.given), len(got.hidden), len(got.lost), len(given), len(hidden))
			}
		}
	}
	if harmed < 3 {
		t.Errorf("only %d indexes were harmed", harmed)
	}
}

// TestKeptAfterRestore puts a backup back: it hides what the log hid.
func TestKeptAfterRestore(t *testing.T) {
	opts := LogOptions{SegmentBytes: 1, WindowBytes: 1, PerTopic: 4}
	l, _ := damagedSample(t, opts)
	other := restored(t, backupOf(t, l), opts)
	for _, filter := range damageFilters {
		want, got := readParts(t, l, filter, 0, false), readParts(t, other, filter, 0, false)
		if !slices.Equal(got.given, want.given) || !slices.Equal(got.hidden, want.hidden) {
			t.Errorf("%s: %d given and %d hidden, before the backup %d and %d", filter, len(got.given), len(got.hidden), len(want.given), len(want.hidden))
		}
	}
	if got := readParts(t, other, ">", 0, false); len(got.hidden) < 100 {
		t.Errorf("only %d are hidden", len(got.hidden))
	}
}

// TestKeptNewest: a round that picks the newest of each topic is told of nothing
// that is hidden meanwhile, since the newer one comes in the next round.
func TestKeptNewest(t *testing.T) {
	for name, open := range map[string]func() (readable, func(...*Entry)){
		"disk": func() (readable, func(...*Entry)) {
			l := openTest(t, t.TempDir(), LogOptions{PerTopic: 1})
			return l, func(e ...*Entry) { l.publish(e...) }
		},
		"memory": func() (readable, func(...*Entry)) {
			l := NewMemoryLog("x", MemoryOptions{PerTopic: 1})
			return l, func(e ...*Entry) { l.commit(e) }
		},
	} {
		l, publish := open()
		publish(message("a", "", "1"), message("b", "", "2"), message("a", "", "3"))
		picked := Query{Filter: mustFilter(t, ">"), Through: 3, Picked: true, Offsets: []uint64{2, 3}}
		if c, err := l.Read(picked); err != nil || c.Count != 2 || c.Hidden != nil {
			t.Errorf("%s: %+v %v", name, c, err)
		}
		publish(message("a", "", "4"))
		if c, err := l.Read(picked); err != nil || c.Count != 1 || c.Through != 3 || c.Hidden != nil {
			t.Errorf("%s, with a newer one: %+v %v", name, c, err)
		}
	}
}

// TestKeptWholeBlocks reads everything from memory, where blocks are copied as a
// whole unless something in them is hidden.
func TestKeptWholeBlocks(t *testing.T) {
	l := openTest(t, t.TempDir(), LogOptions{PerTopic: 2})
	l.publish(message("a", "", "1"), message("a", "", "2"), message("b", "", "3"))
	for _, want := range []read{
		{given: []uint64{1, 2, 3}},
		{given: []uint64{2, 3, 4}, hidden: []uint64{1}},
		{given: []uint64{3, 4, 5}, hidden: []uint64{1, 2}},
	} {
		if got := readParts(t, l, ">", 0, false); !slices.Equal(got.given, want.given) || !slices.Equal(got.hidden, want.hidden) {
			t.Errorf("%+v, not %+v", got, want)
		}
		l.publish(message("a", "", "more"))
	}
}

// TestKeptForgetsSweptTopics: where the index of a segment that goes is damaged,
// its topics are found otherwise, and memory forgets them too.
func TestKeptForgetsSweptTopics(t *testing.T) {
	c := newClock()
	opts := LogOptions{SegmentBytes: 1, WindowBytes: 1, PerTopic: 3, RetentionAge: time.Hour, Now: c.now}
	l := openTest(t, t.TempDir(), opts)
	l.publish(message("old", "", strings.Repeat("x", minSegment/2)), message("both", "", "x"))
	c.at = c.at.Add(20 * time.Minute)
	l.publish(message("new", "", strings.Repeat("x", minSegment/2)), message("both", "", "x"))
	l.settle()
	sealed := l.state.segs[0]
	if sealed.index != nil {
		t.Fatal("nothing is sealed")
	}
	l.close()
	edit(t, sealed.path, func(tx *bbolt.Tx) error {
		index := tx.Bucket(bucketIndex)
		k, v := index.Cursor().Last()
		v = bytes.Clone(v)
		v[len(v)-1] ^= 1
		return index.Put(k, v)
	})
	l = openTest(t, l.dir, opts)
	if _, known := l.state.kept.topics["old"]; !known {
		t.Fatal("the records did not tell")
	}
	c.at = c.at.Add(50 * time.Minute)
	l.settle()
	if earliest, _ := l.Bounds(); earliest == 1 {
		t.Fatal("nothing was trimmed")
	}
	if got := slices.Sorted(maps.Keys(l.state.kept.topics)); !slices.Equal(got, []string{"both", "new"}) {
		t.Errorf("topics %v are known", got)
	}
}
