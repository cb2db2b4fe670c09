package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tidewire/tidewire/protocol"
)

// seen is what a subscriber is given.
type seen struct {
	messages []protocol.Message
	gaps     []LostError
}

// readPast reads everything that matches after an offset up to the head, past
// damage, and checks that no place of the log is left without a word.
func (l *testLog) readPast(filter string, after uint64) (s seen) {
	l.t.Helper()
	_, head := l.Bounds()
	for after < head {
		c, err := l.Read(Query{Filter: mustFilter(l.t, filter), After: after, MaxBytes: 5000})
		if lost, ok := errors.AsType[*LostError](err); ok {
			if lost.After != after || lost.Through <= after || lost.Through > head {
				l.t.Fatalf("read %s after %d: lost (%d, %d] of %d", filter, after, lost.After, lost.Through, head)
			}
			s.gaps = append(s.gaps, *lost)
			after = lost.Through
			continue
		}
		if err != nil {
			l.t.Fatalf("read %s after %d: %v", filter, after, err)
		}
		if c.After != after || c.Through <= after {
			l.t.Fatalf("read %s after %d: chunk (%d, %d]", filter, after, c.After, c.Through)
		}
		for m, err := range c.Messages() {
			if err != nil || m.Position.Offset <= after || m.Position.Offset > c.Through {
				l.t.Fatalf("read %s after %d: %v at %v in (%d, %d]", filter, after, err, m.Position, c.After, c.Through)
			}
			s.messages = append(s.messages, m)
			after = m.Position.Offset
		}
		after = c.Through
	}
	return s
}

// readPastBack is readPast from the end.
func (l *testLog) readPastBack(filter string, after uint64) (s seen) {
	l.t.Helper()
	n := []int{5, 100}[after%2]
	for _, through := l.Bounds(); through > after; {
		c, err := l.ReadBack(Query{Filter: mustFilter(l.t, filter), After: after, Through: through, MaxBytes: 5000}, n)
		if lost, ok := errors.AsType[*LostError](err); ok {
			if lost.After < after || lost.After >= through || lost.Through != through {
				l.t.Fatalf("read %s back from %d: lost (%d, %d]", filter, through, lost.After, lost.Through)
			}
			s.gaps = append(s.gaps, *lost)
			through = lost.After
			continue
		}
		if err != nil || c.Through != through || c.After >= through || c.After < after || c.Count > n {
			l.t.Fatalf("read %s back from %d: (%d, %d], %d records, %v", filter, through, c.After, c.Through, c.Count, err)
		}
		var part []protocol.Message
		for m, err := range c.Messages() {
			if err != nil || m.Position.Offset <= c.After || m.Position.Offset > c.Through {
				l.t.Fatalf("read %s back from %d: %v at %v", filter, through, err, m.Position)
			}
			part = append(part, m)
		}
		s.messages = append(part, s.messages...)
		through = c.After
	}
	return s
}

// truth is what a sound segment holds, and where.
type truth struct {
	path    string
	content []byte
	size    int // of what is in use
	first   uint64
	last    uint64
	blocks  []trueBlock
}

type trueBlock struct {
	at []int // everywhere in the file where it stands, old pages too
	block
}

// readTruth looks at the sealed segments of a sound store.
func readTruth(t *testing.T, l *testLog) (all []*truth) {
	t.Helper()
	for _, s := range l.state.segs {
		if s.index != nil {
			continue
		}
		content, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		tr := &truth{path: s.path, content: content, first: s.info.first, last: s.info.last, size: int(s.info.size)}
		err = l.handles.view(s, func(tx *bbolt.Tx) error {
			c := newBlockCursor(tx)
			b, ok, err := c.start()
			for ; ok; b, ok, err = c.next() {
				raw := bytes.Clone(b.raw)
				b, err := openBlock(raw)
				if err != nil {
					return err
				}
				tb := trueBlock{block: b}
				for at := 0; ; at++ {
					i := bytes.Index(content[at:], raw)
					if i < 0 {
						break
					}
					at += i
					tb.at = append(tb.at, at)
				}
				tr.blocks = append(tr.blocks, tb)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tr)
	}
	return all
}

// harm is what a change of bytes may cost.
type harm struct {
	records map[uint64]bool // offsets whose record may be lost
	digests map[uint64]bool // offsets whose message id may be lost
	any     bool            // a page that leads to blocks was hit: anything of the segment may be
}

// change notes what the change of one byte may cost.
func (h *harm) change(tr *truth, at int) {
	h.any = true
	for i := range tr.blocks {
		b := &tr.blocks[i]
		for _, begin := range b.at {
			if at < begin || at >= begin+len(b.raw) {
				continue
			}
			h.any = false
			h.inBlock(b, at-begin)
		}
		if !h.any {
			return
		}
	}
}

func (h *harm) inBlock(b *trueBlock, at int) {
	for slot := range b.count {
		offset := b.first + uint64(slot)
		_, framed, err := b.frame(slot)
		inRecord := err == nil && framed != nil && at >= b.block.at(slot) && at < b.block.at(slot)+len(framed)
		if inRecord || at < b.table()+crcBytes {
			h.records[offset] = true
		}
		if at < b.head {
			h.digests[offset] = true
		}
	}
}

// damagedSample makes a store with sealed segments of small and large blocks, of
// many and few topics, in which ids are repeated.
func damagedSample(t *testing.T, opts LogOptions) (*testLog, []protocol.Message) {
	t.Helper()
	l := openTest(t, t.TempDir(), opts)
	id := 0
	for n := range 60 {
		var batch []*Entry
		for i := range []int{1, 40, 3, 12}[n%4] {
			id++
			topic := []string{"hot", fmt.Sprintf("a.%d", id%7), fmt.Sprintf("rare.%d", id%90), "b"}[i%4]
			batch = append(batch, message(topic, fmt.Sprint(id), fmt.Sprintf("%d %s", id, strings.Repeat("x", []int{10, 300, 3000}[id%3]))))
			if id%10 == 0 {
				batch = append(batch, message(topic, fmt.Sprint(id), fmt.Sprintf("%d %s", id, strings.Repeat("x", []int{10, 300, 3000}[id%3]))))
			}
		}
		l.publish(batch...)
		l.settle()
	}
	return l, l.readAll(">", 0, 0)
}

var damageFilters = []string{">", "hot", "a.*", "a.3", "rare.17", "rare.*", "none", "b"}

// TestReadPastDamage changes bytes of sealed segments, before the start or while
// the log is open: every subscriber gets everything that is sound, and is told
// of all the rest, and no gap takes what is sound from anybody.
func TestReadPastDamage(t *testing.T) {
	r := newRand(t)
	opts := LogOptions{SegmentBytes: 1, WindowBytes: 1}
	sample, stored := damagedSample(t, opts)
	truths := readTruth(t, sample)
	sample.close()
	if len(truths) < 3 {
		t.Fatalf("only %d sealed segments", len(truths))
	}
	gaps, blind := 0, 0
	for step := range (*stepsFlag + 1) / 2 {
		dir := t.TempDir()
		copyDir(t, sample.dir, dir)
		var l *testLog
		if running := r.IntN(2) == 0; running {
			l = openTest(t, dir, opts)
			if r.IntN(2) == 0 {
				l.readPast(">", 0) // the files are open
			}
		}
		harms := make(map[*truth]*harm)
		what := damageSome(t, r, truths, dir, harms)
		if l == nil {
			l = openTest(t, dir, opts)
		}
		for _, filter := range damageFilters {
			f := mustFilter(t, filter)
			from := uint64(r.IntN(int(l.head)))
			if r.IntN(2) == 0 {
				from = 0
			}
			read := []func(string, uint64) seen{l.readPast, l.readPastBack}
			r.Shuffle(2, func(i, j int) { read[i], read[j] = read[j], read[i] })
			for _, read := range read {
				got := read(filter, from)
				gaps += len(got.gaps)
				judge(t, f, from, stored, got, truths, harms)
			}
		}
		for _, h := range harms {
			if h.any {
				blind++
			}
		}
		l.close()
		if t.Failed() {
			t.Fatalf("step %d: %s", step, what)
		}
	}
	t.Logf("%d gaps, %d times a page that leads to others was hit", gaps, blind)
}

// damageSome changes a few bytes of some segments.
func damageSome(t *testing.T, r *rand.Rand, truths []*truth, dir string, harms map[*truth]*harm) (what string) {
	t.Helper()
	for range 1 + r.IntN(3) {
		tr := truths[r.IntN(len(truths))]
		h := harms[tr]
		if h == nil {
			h = &harm{records: make(map[uint64]bool), digests: make(map[uint64]bool)}
			harms[tr] = h
		}
		hit := h.any
		for range 1 + r.IntN(3) {
			at := r.IntN(tr.size)
			if r.IntN(4) > 0 {
				b := &tr.blocks[r.IntN(len(tr.blocks))]
				at = b.at[r.IntN(len(b.at))] + r.IntN(len(b.raw))
			}
			h.change(tr, at)
			hit = hit || h.any
			path := strings.Replace(tr.path, tr.path[:strings.Index(tr.path, streamsDir)], dir+"/", 1)
			flipByte(t, path, at, byte(1+r.IntN(255)))
			what += fmt.Sprintf("%s at %d; ", path[len(path)-12:], at)
		}
		h.any = hit
	}
	return what
}

func flipByte(t *testing.T, path string, at int, mask byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], int64(at))
	if err == nil {
		b[0] ^= mask
		_, err = f.WriteAt(b[:], int64(at))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// judge holds what a subscriber was given against what was stored.
func judge(t *testing.T, f protocol.Filter, from uint64, stored []protocol.Message, got seen, truths []*truth, harms map[*truth]*harm) {
	t.Helper()
	mayLose := func(offset uint64) bool {
		for _, tr := range truths {
			if h := harms[tr]; h != nil && offset >= tr.first && offset <= tr.last {
				return h.any || h.records[offset]
			}
		}
		return false
	}
	inGap := func(offset uint64) bool {
		return slices.ContainsFunc(got.gaps, func(g LostError) bool { return offset > g.After && offset <= g.Through })
	}
	given := got.messages
	for i := range stored {
		m := &stored[i]
		offset := m.Position.Offset
		if offset <= from {
			continue
		}
		if inGap(offset) && !mayLose(offset) {
			t.Errorf("%s: offset %d is sound and lies in a gap of %v", f, offset, got.gaps)
			return
		}
		if !f.Match(m.Topic) {
			continue
		}
		switch {
		case len(given) > 0 && given[0].Position == m.Position:
			if given[0].Topic != m.Topic || string(given[0].Payload) != string(m.Payload) || given[0].ID != m.ID {
				t.Errorf("%s: offset %d was given wrong", f, offset)
			}
			if inGap(offset) {
				t.Errorf("%s: offset %d was given and lies in a gap", f, offset)
			}
			given = given[1:]
		case !inGap(offset):
			t.Errorf("%s: offset %d was neither given nor told as a gap; gaps %v", f, offset, got.gaps)
			return
		}
	}
	if len(given) > 0 {
		t.Errorf("%s: offset %d was given, and was never stored", f, given[0].Position.Offset)
	}
}

// TestDamagedSegments goes through all that may befall a sealed segment: the log
// starts and says so, publishing and retention go on, and in the end the file is
// gone and with it the complaint.
func TestDamagedSegments(t *testing.T) {
	opts := LogOptions{SegmentBytes: 1, WindowBytes: 1, DedupeWindow: 100_000}
	sample, stored := damagedSample(t, opts)
	truths := readTruth(t, sample)
	sample.close()
	tr := truths[1]
	middle := &tr.blocks[len(tr.blocks)/2]
	put := func(at, n int) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			for i := range n {
				flipByte(t, path, at+i, 0x55)
			}
		}
	}
	// each of its copies, as a torn page has it
	spoil := func(at int) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			for _, begin := range middle.at {
				flipByte(t, path, begin+at, 0x55)
			}
		}
	}
	cases := map[string]struct {
		damage func(t *testing.T, path string)
		lost   bool // messages
		ids    bool // and digest rows
	}{
		"a record":        {spoil(len(middle.raw) - 3), true, false},
		"a table":         {spoil(headerBytes + 3), true, true},
		"a header":        {spoil(17), true, true},
		"digests":         {spoil(middle.head - crcBytes - 5), false, true},
		"both meta pages": {func(t *testing.T, path string) { put(20, 40)(t, path); put(pageBytes+20, 40)(t, path) }, true, true},
		"cut to half":     {func(t *testing.T, path string) { truncateTo(t, path, int64(tr.size/2/pageBytes*pageBytes)) }, true, true},
		"empty":           {func(t *testing.T, path string) { truncateTo(t, path, 0) }, true, true},
		"all but pages":   {func(t *testing.T, path string) { write(t, path, strings.Repeat("nonsense", tr.size/8)) }, true, true},
		"another segment": {func(t *testing.T, path string) { write(t, path, string(truths[2].content)) }, true, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			copyDir(t, sample.dir, dir)
			path := strings.Replace(tr.path, sample.dir, dir, 1)
			c.damage(t, path)
			var log bytes.Buffer
			opts := opts
			opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
			l := openTest(t, dir, opts)
			got := l.readPast(">", 0)
			if lost := len(got.messages) < len(stored); lost != c.lost || lost != (len(got.gaps) > 0) {
				t.Errorf("%d of %d messages, gaps %v", len(got.messages), len(stored), got.gaps)
			}
			l.repeatAll(stored, tr, c.ids)
			if all := l.Degraded(); len(all) != 1 || !strings.Contains(all[0], path) {
				t.Errorf("degraded: %q", all)
			}
			if n := strings.Count(log.String(), "a file is damaged"); n != 1 {
				t.Errorf("logged %d times: %s", n, &log)
			}
			if err := l.Ready(); err != nil {
				t.Errorf("not ready: %v", err)
			}
			l.close()
			opts.RetentionBytes = 1
			l = openTest(t, dir, opts)
			l.settle()
			if all := l.Degraded(); len(all) > 0 {
				t.Errorf("degraded after retention: %q", all)
			}
			if _, err := os.Stat(path); err == nil {
				t.Error("retention left the file")
			}
			l = l.reopen()
			l.repeatAll(stored, tr, c.ids)
		})
	}
}

func truncateTo(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

// repeatAll publishes everything again: nothing is stored twice, and only what
// is of the damaged segment or older, may be too old to tell.
func (l *testLog) repeatAll(stored []protocol.Message, tr *truth, idsLost bool) {
	l.t.Helper()
	_, before := l.Bounds()
	tooOld := 0
	for part := range slices.Chunk(stored, 500) {
		var entries []*Entry
		for i := range part {
			e := message(part[i].Topic, part[i].ID, string(part[i].Payload))
			e.FirstAttempt = part[i].Time
			entries = append(entries, e)
		}
		for i, r := range l.publish(entries...) {
			m := &part[i]
			switch {
			case r.Duplicate && r.Position == m.Position:
			case codeOf(r) == protocol.CodeRepeatTooOld && m.Position.Offset >= tr.first && m.Position.Offset <= tr.last:
				tooOld++
			default:
				l.t.Errorf("repeat of %v: %+v", m.Position, r)
				return
			}
		}
	}
	if (tooOld > 0) != idsLost {
		l.t.Errorf("%d repeats were too old to tell; ids lost: %v", tooOld, idsLost)
	}
	earliest, _ := l.Bounds() // retention may be at work
	got := l.readPast(">", max(before, earliest-1))
	if len(got.messages) > 0 {
		l.t.Errorf("%d repeats were stored", len(got.messages))
	}
	fresh := message("fresh", fmt.Sprint(before), "x")
	fresh.FirstAttempt = time.Now().Add(time.Hour)
	if r := l.publish(fresh)[0]; r.Err != nil || r.Duplicate {
		l.t.Errorf("a new message: %+v", r)
	}
}

// TestDeletedSegments deletes files by hand: whatever had messages is missed, at
// the start and by check, which name it; a spare is not.
func TestDeletedSegments(t *testing.T) {
	sample := openTest(t, t.TempDir(), LogOptions{SegmentBytes: 1})
	for len(sample.state.spares) == 0 || len(sample.state.segs) < 4 {
		sample.publish(message("a", "", strings.Repeat("x", 9000)))
		sample.settle()
	}
	active, spare := sample.state.active().path, sample.state.spares[0].path
	if sample.keeper.newest != sample.state.active().ordinal {
		t.Errorf("meta.db knows of segment %d", sample.keeper.newest)
	}
	sample.close()
	for _, path := range append(segmentFiles(t, sample.dir), "active and spare") {
		dir := t.TempDir()
		copyDir(t, sample.dir, dir)
		gone := []string{path}
		if path == "active and spare" {
			gone = []string{active, spare}
		}
		for _, path := range gone {
			remove(t, strings.Replace(path, sample.dir, dir, 1))
		}
		before := tree(t, dir)
		report, err := Check(t.Context(), dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if path == spare {
			if len(report.Problems) > 0 {
				t.Errorf("check without a spare: %v", report.Problems)
			}
			l := openTest(t, dir, LogOptions{SegmentBytes: 1})
			l.publish(message("a", "", "x"))
			l.close()
			continue
		}
		name := strings.Replace(gone[0], sample.dir, dir, 1)
		if len(report.Problems) != 1 || !strings.Contains(report.Problems[0].Error(), name+" is missing") {
			t.Errorf("check without %s: %v", name, report.Problems)
		}
		if _, err := tryOpen(t, dir, LogOptions{SegmentBytes: 1}); err == nil || !strings.Contains(err.Error(), name+" is missing") {
			t.Errorf("start without %s: %v", name, err)
		}
		if !sameTree(before, tree(t, dir)) {
			t.Error("the directory was touched")
		}
	}
}

// TestDeletedUnderTheBroker deletes the spare while the broker runs. When it is
// made active its messages would be lost with the last handle on it: the broker
// ends instead.
func TestDeletedUnderTheBroker(t *testing.T) {
	l := openTest(t, t.TempDir(), LogOptions{SegmentBytes: 1})
	for len(l.state.spares) == 0 {
		l.publish(message("a", "", strings.Repeat("x", 9000)))
		l.settle()
	}
	remove(t, l.state.spares[0].path)
	l.state.rotate()
	if err := l.keeper.noteNewest(t.Context()); err == nil || !strings.Contains(err.Error(), "was deleted while the broker wrote to it") {
		t.Errorf("%v", err)
	}
}

// TestPagesInACircle makes a branch page lead to itself, which bbolt follows
// until the process dies.
func TestPagesInACircle(t *testing.T) {
	opts := LogOptions{SegmentBytes: 1, WindowBytes: 1}
	l := openTest(t, t.TempDir(), opts)
	stored := 0
	for ; len(l.state.segs) < 3; stored++ {
		l.publish(message(fmt.Sprintf("t.%d", stored%100), fmt.Sprint(stored), strings.Repeat("x", 500)))
	}
	l.settle()
	first := l.state.segs[0]
	l.close()
	circles := 0
	content, err := os.ReadFile(first.path)
	if err != nil {
		t.Fatal(err)
	}
	for id := range uint64(len(content) / pageBytes) {
		page := content[id*pageBytes:]
		if le := binary.LittleEndian; le.Uint64(page) == id && le.Uint16(page[8:]) == pageBranch {
			le.PutUint64(page[pageHeadBytes+8:], id)
			circles++
		}
	}
	if circles == 0 {
		t.Fatal("the segment has no branch page")
	}
	write(t, first.path, string(content))
	l = openTest(t, l.dir, opts)
	got := l.readPast(">", 0)
	if len(got.gaps) == 0 || len(got.messages) == 0 {
		t.Errorf("%d messages of %d, gaps %v", len(got.messages), stored, got.gaps)
	}
	l.readPast("t.7", 0)
}

// TestDamagedBeforeSealed damages what is not sealed while the log is open:
// readers are told, what comes later is read, and a segment whose pages are
// nonsense is sealed without its index, so that the next ones can be.
func TestDamagedBeforeSealed(t *testing.T) {
	opts := LogOptions{SegmentBytes: 1, WindowBytes: 1}
	l := openTest(t, t.TempDir(), opts)
	for n := range 12 {
		l.publish(message("a", fmt.Sprint(n), strings.Repeat("x", 3000)), message("b", "", "y"))
	}
	active := l.state.active()
	content, err := os.ReadFile(active.path)
	if err != nil {
		t.Fatal(err)
	}
	err = l.handles.view(active, func(tx *bbolt.Tx) error {
		b, _, err := newBlockCursor(tx).seek(5)
		if err == nil {
			flipByte(t, active.path, bytes.Index(content, b.raw)+18, 1)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, filter := range []string{">", "a"} {
		got := l.readPast(filter, 0)
		if len(got.gaps) != 1 || got.gaps[0] != (LostError{4, 6}) || len(got.messages) != map[string]int{">": 22, "a": 11}[filter] {
			t.Errorf("%s: %d messages, gaps %v", filter, len(got.messages), got.gaps)
		}
	}
	l.publish(message("a", "later", "x"))
	l.publish(message("a", "last", "x")) // this one is in memory
	if got := l.readPast(">", 0); len(got.gaps) != 1 || len(got.messages) != 24 {
		t.Errorf("later: %d messages, gaps %v", len(got.messages), got.gaps)
	}

	if err := l.keeper.prepare(); err != nil {
		t.Fatal(err)
	}
	l.tail.active, l.tail.used = l.state.rotate(), 0
	f, err := os.OpenFile(active.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(bytes.Repeat([]byte("nonsense"), int(active.info.size-2*pageBytes)/8), 2*pageBytes)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	l.settle()
	if len(l.state.unsealed()) > 0 {
		t.Error("the damaged segment was not sealed")
	}
	for range 2 {
		l.publish(message("a", "", "z"))
		if len(l.Degraded()) != 1 {
			t.Errorf("degraded: %q", l.Degraded())
		}
		l = l.reopen()
		if got := l.readPast(">", 0); len(got.gaps) == 0 || len(got.messages) == 0 || string(got.messages[len(got.messages)-1].Payload) != "z" {
			t.Errorf("%d messages, gaps %v", len(got.messages), got.gaps)
		}
	}
	l.close()
	opts.RetentionBytes = 1
	l = openTest(t, l.dir, opts)
	l.settle()
	if earliest, _ := l.Bounds(); earliest == 1 || len(l.Degraded()) > 0 {
		t.Errorf("retention left it: earliest %d, %q", earliest, l.Degraded())
	}
}

// TestStartsInDamage resolves starts where segments are damaged: whoever starts
// at a time is given, or told of, everything from then on; whoever wants the
// last few gets as many, where there are.
func TestStartsInDamage(t *testing.T) {
	r := newRand(t)
	clock := newClock()
	opts := LogOptions{SegmentBytes: 1, WindowBytes: 1, Now: clock.now, RetentionAge: -1}
	l := openTest(t, t.TempDir(), opts)
	for n := range 200 {
		clock.at = clock.at.Add(time.Second)
		l.publish(message(fmt.Sprintf("a.%d", n%3), "", strings.Repeat("x", 5000)), message("b", "", "y"))
		l.settle()
	}
	stored := l.readAll(">", 0, 0)
	truths := readTruth(t, l)
	l.close()
	for range 1 + *stepsFlag/4 {
		dir := t.TempDir()
		copyDir(t, l.dir, dir)
		harms := make(map[*truth]*harm)
		for range 1 + r.IntN(20) {
			damageSome(t, r, truths, dir, harms)
		}
		for _, tr := range truths {
			if r.IntN(4) == 0 {
				truncateTo(t, strings.Replace(tr.path, l.dir, dir, 1), int64(r.IntN(tr.size)))
				harms[tr] = &harm{any: true}
			}
		}
		d := openTest(t, dir, opts)
		f := mustFilter(t, []string{">", "b", "a.*", "a.1"}[r.IntN(4)])
		for begin := r.IntN(5); begin < len(stored); begin += 5 {
			d.startsAt(stored, stored[begin].Time)
		}
		n := 1 + r.IntN(30)
		last, err := d.Resolve(protocol.Start{Kind: protocol.StartLast, Last: n}, f, d.head)
		if err != nil {
			t.Fatal(err)
		}
		got := d.readPast(f.String(), last.After)
		if all := d.readPast(f.String(), 0); len(got.messages) < min(n, len(all.messages)) && len(got.gaps) == 0 {
			t.Fatalf("last:%d of %s gives %d of %d messages", n, f, len(got.messages), len(all.messages))
		}
		judge(t, f, last.After, stored, got, truths, harms)
		d.close()
	}
}

// startsAt resolves a time, and checks that nothing from then on is left out.
func (l *testLog) startsAt(stored []protocol.Message, at time.Time) {
	l.t.Helper()
	start, err := l.Resolve(protocol.Start{Kind: protocol.StartTime, Time: at}, mustFilter(l.t, ">"), l.head)
	if err != nil {
		l.t.Fatal(err)
	}
	for i := range stored {
		if m := &stored[i]; !m.Time.Before(at) && m.Position.Offset <= start.After {
			l.t.Fatalf("start at %v is after %d, but offset %d is of %v", at, start.After, m.Position.Offset, m.Time)
		}
	}
}

// TestDamagedCarriedRows damages digest rows that have outlived their segment:
// the others are still known, of the lost ones the time is remembered, and the
// garbage in their place makes nothing else too old.
func TestDamagedCarriedRows(t *testing.T) {
	clock := newClock()
	opts := LogOptions{SegmentBytes: 1, RetentionBytes: 1, DedupeWindow: 30, Now: clock.now}
	l := openTest(t, t.TempDir(), opts)
	var times []time.Time
	publish := func() {
		times = append(times, clock.at)
		l.publish(message("a", fmt.Sprint(len(times)), strings.Repeat("x", 30_000)))
		l.settle()
		clock.at = clock.at.Add(time.Minute)
	}
	for len(times) < 30 {
		publish()
	}
	var firsts []uint64
	l.close()
	editMeta(t, l.dir, func(tx *bbolt.Tx) error {
		d := tx.Bucket(bucketDigests)
		err := d.ForEach(func(first, _ []byte) error {
			firsts = append(firsts, number(first))
			return nil
		})
		v := bytes.Clone(d.Get(key(10)))
		v[0] ^= 0xff // the time is now in a distant future
		return errors.Join(err, d.Put(key(10), v))
	})
	if len(firsts) < 15 {
		t.Fatalf("%d rows were carried", len(firsts))
	}
	l = openTest(t, l.dir, opts)
	if all := l.Degraded(); len(all) != 1 || !strings.Contains(all[0], metaFile) {
		t.Errorf("degraded: %q", all)
	}
	repeat := func(id int) Result {
		e := message("a", fmt.Sprint(id), strings.Repeat("x", 30_000))
		e.FirstAttempt = times[id-1]
		return l.publish(e)[0]
	}
	if r := repeat(9); !r.Duplicate || r.Position.Offset != 9 {
		t.Errorf("a row beside the lost one: %+v", r)
	}
	if r := repeat(10); codeOf(r) != protocol.CodeRepeatTooOld {
		t.Errorf("the lost one: %+v", r)
	}
	for len(times) < 45 { // until the lost row has left the window
		publish()
	}
	l = l.reopen()
	if all := l.Degraded(); len(all) != 0 {
		t.Errorf("degraded when the row is gone: %q", all)
	}
	fresh := message("a", "fresh", "x")
	fresh.FirstAttempt = times[len(times)-1]
	if r := l.publish(fresh)[0]; r.Err != nil {
		t.Errorf("a late first attempt: %+v", r)
	}
}
