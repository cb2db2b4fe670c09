package storage

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// rawItem is an item as the place that decides the order has it: it can be applied
// again and again.
type rawItem struct {
	offset             uint64
	time               uint64
	topic, id, payload string // no topic: nothing is there
	refused            bool
	want               Result
}

func (i *rawItem) item() Item {
	it := Item{Offset: i.offset, Time: i.time}
	if i.topic == "" {
		return it
	}
	it.Entry = message(i.topic, i.id, i.payload)
	it.Entry.Done = func(Result) {}
	if i.refused {
		it.Err = &protocol.Error{Code: protocol.CodeInvalidTopic}
	}
	return it
}

// replicaRun does random things to a replica. What is read is judged as for a log;
// the model knows all that was ever decided and is cut where the replica ends.
type replicaRun struct {
	run
	replica *testReplica
	raw     []rawItem
	records []modelRecord // all that raw stores
	states  []modelID     // all ids
	idsAt   []int         // how many of them there are, for each of raw
	notes   map[uint64]string
}

func TestReplicaModel(t *testing.T) {
	r := &replicaRun{run: run{t: t, rand: newRand(t), clock: newClock()}, notes: map[uint64]string{0: ""}}
	window := 40 + r.rand.IntN(200)
	r.model = newModel(window)
	r.model.keep = r.keep()
	r.replica = openReplica(t, t.TempDir(), ReplicaOptions{Partition: 5, LogOptions: LogOptions{
		PerTopic: r.model.keep, DedupeWindow: window, SegmentBytes: 1, WindowBytes: 1 << (8 + r.rand.IntN(12)),
		RetentionAge: time.Hour, RetentionBytes: 1 << 20, Now: r.clock.now,
	}})
	r.opened()
	defer func() {
		if t.Failed() {
			t.Log("steps:\n" + strings.Join(r.trail[max(0, len(r.trail)-30):], "\n"))
		}
	}()
	steps := []struct {
		weight int
		name   string
		do     func()
	}{
		{40, "apply", r.apply},
		{30, "read", r.read},
		{20, "read back", r.readBack},
		{12, "resolve", r.resolve},
		{6, "newest", r.newest},
		{2, "topics", r.topics},
		{10, "sync some", func() { r.sync(1) }},
		{4, "sync some and crash", func() { r.sync(1); r.crash() }},
		{4, "sync all", func() { r.sync(1000) }},
		{8, "settle", r.settle},
		{5, "run", func() { r.replica.during(func() {}) }},
		{4, "reopen", r.reopen},
		{4, "crash", r.crash},
		{6, "wait", func() { r.clock.at = r.clock.at.Add(time.Duration(r.rand.IntN(int(20 * time.Minute)))) }},
		{3, "trim and crash", r.trimAndCrash},
		{2, "check", r.check},
	}
	total := 0
	for _, s := range steps {
		total += s.weight
	}
	for range 2 * *stepsFlag {
		n := r.rand.IntN(total)
		for _, s := range steps {
			if n -= s.weight; n < 0 {
				r.trail = append(r.trail, s.name)
				s.do()
				break
			}
		}
		r.bounds()
		if damaged := r.replica.Degraded(); len(damaged) > 0 {
			t.Fatal(damaged) // reading looked into a file for what is not there yet
		}
	}
}

// opened looks at a replica that was opened anew, and cuts the model to its head.
func (r *replicaRun) opened() {
	r.log = r.replica.reader()
	r.log.dir = r.replica.dir
	_, head := r.replica.Bounds()
	if synced := r.replica.Synced(); synced != head || !r.replica.Unsynced().IsZero() {
		r.t.Fatalf("opened at head %d, synced %d", head, synced)
	}
	maps.DeleteFunc(r.notes, func(offset uint64, _ string) bool { return offset > head })
	if want := r.durableNote(head); want != string(r.replica.Note()) {
		r.t.Fatalf("note %q at %d, want %q", r.replica.Note(), head, want)
	}
	r.cut(head)
}

// durableNote returns the note of the last call that an offset has all of.
func (r *replicaRun) durableNote(offset uint64) string {
	newest := uint64(0)
	for end := range r.notes {
		if end <= offset {
			newest = max(newest, end)
		}
	}
	return r.notes[newest]
}

// cut makes the model one that ends at an offset.
func (r *replicaRun) cut(head uint64) {
	r.model.head = head
	after, _ := slices.BinarySearchFunc(r.records, head+1, func(m modelRecord, o uint64) int { return int(m.offset) - int(o) })
	r.model.records = slices.Clone(r.records[:after])
	for offset := range head + 1 {
		r.model.terms[offset] = replicaTerm
	}
	r.checkState()
}

// checkState holds what the replica judges by against the rule.
func (r *replicaRun) checkState() {
	i, found := slices.BinarySearchFunc(r.raw, r.model.head, func(i rawItem, o uint64) int { return int(i.offset) - int(o) })
	if !found {
		i-- // it ends within a hole
	}
	ids := 0
	if i >= 0 {
		ids = r.idsAt[i]
	}
	want := binary.BigEndian.AppendUint64(nil, r.model.head)
	rows := slices.Collect(r.replica.applier.dedupe.rows())
	for i, row := range r.states[max(0, ids-r.model.window):ids] {
		topic, id, _ := strings.Cut(row.key, "\x00")
		key := KeyOf(topic, id)
		want = append(want, key[:]...)
		if i >= len(rows) || rows[i].first != row.first || rows[i].payload != PayloadHash([]byte(row.payload)) {
			r.t.Fatalf("at offset %d row %d is not what follows from the items", r.model.head, i)
		}
	}
	if got := r.replica.AppendState(nil); string(got) != string(want) {
		r.t.Fatalf("at offset %d the state has %d bytes and is not what follows from the items, of %d bytes", r.model.head, len(got), len(want))
	}
}

// decide adds an item behind all others.
func (r *replicaRun) decide() {
	offset := uint64(1)
	if n := len(r.raw); n > 0 {
		offset = r.raw[n-1].offset + 1
	}
	if r.rand.IntN(10) == 0 {
		offset += uint64(r.rand.IntN(5))
	}
	at := r.clock.at.Add(time.Duration(r.rand.IntN(20)-15) * time.Minute)
	if r.rand.IntN(100) == 0 {
		at = r.clock.at.Add(time.Duration(r.rand.IntN(1000)-500) * time.Hour)
	}
	at = at.Truncate(time.Microsecond)
	i := rawItem{offset: offset, time: uint64(at.UnixMicro())}
	m := newModel(r.model.window)
	m.ids, m.head = r.states, offset-1
	if r.rand.IntN(12) > 0 {
		i.topic, i.payload = r.topic(), strings.Repeat("y", r.rand.IntN(1+[]int{0, 10, 100, 1000, 8000}[r.rand.IntN(5)]))
		i.refused = r.rand.IntN(15) == 0
		if r.rand.IntN(3) > 0 {
			n := r.rand.IntN(2 * r.model.window)
			i.id = fmt.Sprint(n)
			if r.rand.IntN(10) > 0 {
				i.payload = "of " + i.id + strings.Repeat("z", n*37%4000) // the same again and again
			}
		}
		switch {
		case i.refused:
			i.want = Result{Err: &protocol.Error{Code: protocol.CodeInvalidTopic}}
		default:
			i.want = m.publish(i.topic, i.id, i.payload, at, time.Time{}, replicaTerm)
		}
	}
	for _, record := range m.records {
		record.time = at
		r.records = append(r.records, record)
	}
	r.states = m.ids
	r.raw = append(r.raw, i)
	r.idsAt = append(r.idsAt, len(r.states))
}

// apply gives the next items, cut anywhere.
func (r *replicaRun) apply() {
	if r.replica.state.waiting() > 1 { // else it could wait for somebody who does not run
		r.sync(1000)
		r.settle()
	}
	n, size := 1+r.rand.IntN(80), 0
	from, found := slices.BinarySearchFunc(r.raw, r.model.head, func(i rawItem, o uint64) int { return int(i.offset) - int(o) })
	if found {
		from++
	}
	var items []Item
	for i := from; i < from+n && size < 200_000; i++ {
		if i == len(r.raw) {
			r.decide()
		}
		items = append(items, r.raw[i].item())
		size += len(r.raw[i].payload)
	}
	last := items[len(items)-1].Offset
	note := fmt.Sprintf("at %d", last)
	r.note("%d from %d to %d", len(items), items[0].Offset, last)
	head := r.model.head
	c, err := r.replica.Apply(r.t.Context(), items, []byte(note))
	if err != nil || c.Chunk.After != head || c.Chunk.Through != last || len(c.Topics) != c.Chunk.Count {
		r.t.Fatalf("commit (%d, %d] of %d topics, %v", c.Chunk.After, c.Chunk.Through, len(c.Topics), err)
	}
	r.notes[last] = note
	for i := range r.records {
		if m := &r.records[i]; m.offset > head && m.offset <= last {
			m.counts = m.time
			if m.time.After(r.clock.at) {
				m.counts = r.clock.at
			}
		}
	}
	r.cut(last)
	var read []protocol.Message
	for m, err := range c.Chunk.Messages() {
		if err != nil {
			r.t.Fatal(err)
		}
		read = append(read, m)
	}
	i, _ := slices.BinarySearchFunc(r.records, head+1, func(m modelRecord, o uint64) int { return int(m.offset) - int(o) })
	j, _ := slices.BinarySearchFunc(r.records, last+1, func(m modelRecord, o uint64) int { return int(m.offset) - int(o) })
	r.compare(read, r.records[i:j])
	answers := c.Answers
	for i := range r.raw[from : from+len(items)] {
		raw := &r.raw[from+i]
		if raw.topic == "" {
			continue
		}
		got, w := answers[0].Result, raw.want
		answers = answers[1:]
		w.Position.Partition, w.Position.Term = 5, replicaTerm
		if w.Err == nil && got.Position != w.Position || got.Duplicate != w.Duplicate || (got.Err == nil) != (w.Err == nil) || got.Err != nil && got.Err.Code != w.Err.Code {
			r.t.Fatalf("offset %d: %+v, the model says %+v", raw.offset, got, w)
		}
	}
	if len(answers) != 0 {
		r.t.Fatalf("%d answers too many", len(answers))
	}
}

func (r *replicaRun) crash() {
	old := r.replica
	r.replica = old.crash()
	old.close()
	r.opened()
}

// trimAndCrash has retention take everything that is sealed while much is not on
// disk, and then loses that: the ids as of the last sync must be there.
func (r *replicaRun) trimAndCrash() {
	r.sync(1000)
	r.settle()
	r.clock.at = r.clock.at.Add(2 * time.Hour)
	r.apply()
	r.apply()
	r.settle()
	r.crash()
}

// sync writes some of what waits.
func (r *replicaRun) sync(times int) {
	for range times {
		seg, err := r.replica.applier.writeSome()
		if err != nil {
			r.t.Fatal(err)
		}
		if seg == nil {
			break
		}
	}
	if want := r.durableNote(r.replica.Synced()); want != string(r.replica.Note()) {
		r.t.Fatalf("note %q at %d, want %q", r.replica.Note(), r.replica.Synced(), want)
	}
}

// reopen closes the replica, often in the middle, and opens it again.
func (r *replicaRun) reopen() {
	if r.rand.IntN(2) == 0 {
		r.replica.during(func() {})
		if synced := r.replica.Synced(); synced != r.model.head {
			r.t.Fatalf("synced up to %d at the end, not %d", synced, r.model.head)
		}
	}
	r.replica = r.replica.reopen()
	r.opened()
}

func (r *replicaRun) newest() {
	filter := mustFilter(r.t, r.filter())
	after, through := r.place(), r.place()
	if after > through {
		after, through = through, after
	}
	newest := make(map[string]uint64)
	for _, m := range r.model.matches(filter, 0) {
		newest[m.topic] = m.offset
	}
	var want []uint64
	for _, offset := range newest {
		if offset > after && offset <= through {
			want = append(want, offset)
		}
	}
	slices.Sort(want)
	got, covered, err := r.log.Newest(filter, after, through, 10_000)
	if through-after <= scanRather { // more may be named than are the newest of all
		got = slices.DeleteFunc(got, func(o uint64) bool { return !slices.Contains(want, o) })
	}
	if err != nil || covered != through || !slices.Equal(got, want) {
		r.t.Fatalf("newest of %s in (%d, %d]: %v up to %d, %v; the model says %v", filter, after, through, got, covered, err, want)
	}
}

// check checks what a crash would leave.
func (r *replicaRun) check() {
	dir := r.t.TempDir()
	copyDir(r.t, r.replica.dir, dir)
	report, err := Check(r.t.Context(), dir, nil)
	want := 0
	for _, m := range r.model.records {
		if m.offset <= r.replica.Synced() {
			want++
		}
	}
	if err != nil || len(report.Problems) > 0 || report.Records != want {
		r.t.Fatalf("check: %v, %+v, the model has %d records", err, report, want)
	}
}
