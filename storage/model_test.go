package storage

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "seed of the random tests; 0 draws one")
	stepsFlag = flag.Int("steps", 120, "steps of the random tests")
)

func newRand(t *testing.T) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (repeat with -seed)", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// model is what a log should be, in the simplest way to say it.
type model struct {
	window  int
	records []modelRecord // stored ones, in order
	ids     []modelID     // one for each entry with an id that took an offset
	head    uint64
	terms   map[uint64]protocol.Term // of every offset
	keep    int                      // how many of each topic are given; 0 for all
}

type modelRecord struct {
	offset  uint64
	topic   string
	payload string
	time    time.Time
	counts  time.Time // for starts by time: a time in the future counts as the present
}

type modelID struct {
	key     string
	payload string
	first   uint64
	time    time.Time
}

func newModel(window int) *model {
	return &model{window: window, terms: make(map[uint64]protocol.Term)}
}

// publish predicts the result.
func (m *model) publish(topic, id, payload string, at, firstAttempt time.Time, term protocol.Term) Result {
	offset := m.head + 1
	row := modelID{key: topic + "\x00" + id, payload: payload, first: offset, time: at}
	result := Result{Position: protocol.Position{Term: term, Offset: offset}}
	if id != "" {
		recent := m.ids[max(0, len(m.ids)-m.window):]
		found := false
		for i := len(recent) - 1; i >= 0 && !found; i-- {
			if recent[i].key != row.key {
				continue
			}
			found = true
			row.first = recent[i].first
			if recent[i].payload == payload {
				result = Result{Position: protocol.Position{Term: m.terms[row.first], Offset: row.first}, Duplicate: true}
			} else {
				row.payload = recent[i].payload
				result = Result{Err: &protocol.Error{Code: protocol.CodeIDConflict}}
			}
		}
		if old := len(m.ids) - m.window; !found && old > 0 && !firstAttempt.IsZero() && !m.ids[old-1].time.Before(firstAttempt) {
			return Result{Err: &protocol.Error{Code: protocol.CodeRepeatTooOld}}
		}
		m.ids = append(m.ids, row)
	}
	m.head = offset
	m.terms[offset] = term
	if row.first == offset && result.Err == nil {
		m.records = append(m.records, modelRecord{offset, topic, payload, at, at})
	}
	return result
}

// matches returns the records above an offset that match and are given.
func (m *model) matches(f protocol.Filter, after uint64) []modelRecord {
	given, _ := m.split(f, after, m.head)
	return given
}

// split returns the records in (after, through] that match, and the offsets of
// those that are not given since there are enough newer ones of their topic.
func (m *model) split(f protocol.Filter, after, through uint64) (given []modelRecord, hidden []uint64) {
	newer := make(map[string]int)
	for _, r := range slices.Backward(m.records) {
		newer[r.topic]++
		switch {
		case r.offset <= after || r.offset > through || !f.Match(r.topic):
		case m.keep > 0 && newer[r.topic] > m.keep:
			hidden = append(hidden, r.offset)
		default:
			given = append(given, r)
		}
	}
	slices.Reverse(given)
	slices.Reverse(hidden)
	return given, hidden
}

// run is a random test under way.
type run struct {
	t     *testing.T
	rand  *rand.Rand
	log   *testLog
	model *model
	clock *clock
	trail []string
}

// TestModel does random things to a log and compares it with the model.
func TestModel(t *testing.T) {
	r := &run{t: t, rand: newRand(t), clock: newClock()}
	window := 40 + r.rand.IntN(200)
	r.model = newModel(window)
	r.model.keep = r.keep()
	r.log = openTest(t, t.TempDir(), LogOptions{
		PerTopic:     r.model.keep,
		DedupeWindow: window, SegmentBytes: 1, WindowBytes: 1 << (8 + r.rand.IntN(12)),
		RetentionAge: time.Hour, RetentionBytes: 1 << 20, Now: r.clock.now,
	})
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
		{30, "publish", r.publish},
		{30, "read", r.read},
		{20, "read back", r.readBack},
		{12, "resolve", r.resolve},
		{5, "reopen", func() { r.log = r.log.reopen() }},
		{2, "reopen with another bound", r.rebound},
		{5, "crash", func() { old := r.log; r.log = old.crash(); old.close() }},
		{8, "settle", r.settle},
		{6, "wait", func() { r.clock.at = r.clock.at.Add(time.Duration(r.rand.IntN(int(20 * time.Minute)))) }},
		{2, "topics", r.topics},
		{2, "check", r.check},
	}
	total := 0
	for _, s := range steps {
		total += s.weight
	}
	for range *stepsFlag {
		n := r.rand.IntN(total)
		for _, s := range steps {
			if n -= s.weight; n < 0 {
				r.trail = append(r.trail, s.name)
				s.do()
				break
			}
		}
		r.bounds()
		if t.Failed() {
			return
		}
	}
}

func (r *run) note(format string, args ...any) {
	r.trail[len(r.trail)-1] += fmt.Sprintf(" "+format, args...)
}

// bounds checks the ends of the log, and forgets what it may have trimmed.
func (r *run) bounds() {
	earliest, head := r.log.Bounds()
	if head != r.model.head || earliest > head+1 {
		r.t.Fatalf("bounds %d to %d, the model's head is %d", earliest, head, r.model.head)
	}
	for len(r.model.records) > 0 && r.model.records[0].offset < earliest {
		r.model.records = r.model.records[1:]
	}
}

var modelTopics = []string{"a", "a.b", "a.b.c", "b.c", "b.d", "c", "$dead.x", "hot"}

func (r *run) topic() string {
	if r.rand.IntN(4) == 0 {
		return fmt.Sprintf("rare.%d", r.rand.IntN(300))
	}
	return modelTopics[min(r.rand.IntN(30), len(modelTopics)-1)]
}

func (r *run) publish() {
	n := 1 + r.rand.IntN(120)
	if r.rand.IntN(3) == 0 {
		n = 1
	}
	size := []int{0, 10, 100, 1000, 8000}[r.rand.IntN(5)]
	entries, want := make([]*Entry, n), make([]Result, n)
	for i := range n {
		topic, id := r.topic(), ""
		if r.rand.IntN(3) > 0 {
			id = fmt.Sprint(r.rand.IntN(2 * r.model.window))
		}
		payload := strings.Repeat("x", r.rand.IntN(size+1))
		if r.rand.IntN(10) > 0 {
			payload = "of " + id + strings.Repeat("y", size) // the same again and again
		}
		entries[i] = message(topic, id, payload)
		if r.rand.IntN(4) == 0 {
			entries[i].FirstAttempt = r.clock.at.Add(-time.Duration(r.rand.IntN(int(2 * time.Hour)))).Truncate(time.Microsecond)
		}
		want[i] = r.model.publish(topic, id, payload, r.clock.at.Truncate(time.Microsecond), entries[i].FirstAttempt, r.log.term())
	}
	r.note("%d of size %d", n, size)
	for i, got := range r.log.publish(entries...) {
		w := want[i]
		if got.Position != w.Position && w.Err == nil || got.Duplicate != w.Duplicate || (got.Err == nil) != (w.Err == nil) || got.Err != nil && got.Err.Code != w.Err.Code {
			r.t.Fatalf("entry %d: %+v, the model says %+v", i, got, w)
		}
	}
	r.clock.at = r.clock.at.Add(time.Duration(r.rand.IntN(int(10 * time.Second))))
}

var modelFilters = []string{">", "a", "a.*", "a.>", "*", "*.*", "rare.*", "rare.17", "hot", "a.b", "b.c", "c", "none", "none.>", "$dead.*", "b.*", "*.c"}

func (r *run) filter() string { return modelFilters[r.rand.IntN(len(modelFilters))] }

func (r *run) place() uint64 {
	earliest, head := r.log.Bounds()
	return earliest - 1 + r.rand.Uint64N(head-earliest+2)
}

func (r *run) read() {
	filter, after := r.filter(), r.place()
	maxBytes := []int{1, 100, 5000, 0}[r.rand.IntN(4)]
	r.note("%s after %d by %d", filter, after, maxBytes)
	want, hidden := r.model.split(mustFilter(r.t, filter), after, r.model.head)
	got, gotHidden := r.log.readBoth(filter, after, maxBytes)
	r.compare(got, want)
	r.compareHidden(gotHidden, hidden)
	if earliest, _ := r.log.Bounds(); earliest > 1 {
		if _, err := r.log.Read(Query{Filter: mustFilter(r.t, filter), After: earliest - 2}); !errors.Is(err, ErrTrimmed) && r.model.head >= earliest-1 && r.model.head > earliest-2 {
			r.t.Fatalf("read before the earliest offset %d: %v", earliest, err)
		}
	}
}

// readBack reads backwards, down to some place.
func (r *run) readBack() {
	filter, from, after := r.filter(), r.place(), uint64(0)
	if r.rand.IntN(3) == 0 {
		after = r.rand.Uint64N(from + 1)
	}
	maxBytes, n := []int{1, 100, 5000, 0}[r.rand.IntN(4)], []int{1, 2, 30, 1000}[r.rand.IntN(4)]
	r.note("%s (%d, %d] by %d and %d", filter, after, from, maxBytes, n)
	want, hidden := r.model.split(mustFilter(r.t, filter), after, from)
	got, gotHidden := r.log.readBothBack(Query{Filter: mustFilter(r.t, filter), After: after, Through: from, MaxBytes: maxBytes}, n)
	r.compare(got, want)
	r.compareHidden(gotHidden, hidden)
	if earliest, _ := r.log.Bounds(); earliest > 1 {
		if _, err := r.log.ReadBack(Query{Filter: mustFilter(r.t, filter), Through: earliest - 1}, 1); !errors.Is(err, ErrTrimmed) {
			r.t.Fatalf("read back from before the earliest offset %d: %v", earliest, err)
		}
	}
}

// compare compares what was read with the model.
func (r *run) compare(got []protocol.Message, want []modelRecord) {
	r.t.Helper()
	if len(got) != len(want) {
		r.t.Fatalf("%d records, the model has %d", len(got), len(want))
	}
	for i, m := range got {
		w := want[i]
		if m.Position.Offset != w.offset || m.Topic != w.topic || string(m.Payload) != w.payload || !m.Time.Equal(w.time) {
			r.t.Fatalf("record %d: %v %s at %v, the model says %d %s at %v", i, m.Position, m.Topic, m.Time, w.offset, w.topic, w.time)
		}
		if m.Position.Term != r.model.terms[w.offset] {
			r.t.Fatalf("offset %d has term %v, the model says %v", w.offset, m.Position.Term, r.model.terms[w.offset])
		}
	}
}

func (r *run) compareHidden(got, want []uint64) {
	r.t.Helper()
	if !slices.Equal(got, want) {
		r.t.Fatalf("%d are hidden, %v; the model says %d, %v", len(got), got, len(want), want)
	}
}

// keep draws how many of each topic are given.
func (r *run) keep() int { return []int{0, 1, 2, 7, 60, 500}[r.rand.IntN(6)] }

// rebound opens the log anew with another bound.
func (r *run) rebound() {
	r.model.keep = r.keep()
	r.note("%d", r.model.keep)
	r.log.opts.PerTopic = r.model.keep
	r.log = r.log.reopen()
}

// settle lets the keeper work. What retention by count knows is bounded then.
func (r *run) settle() {
	r.log.settle()
	if r.log.state.kept == nil {
		return
	}
	earliest, _ := r.log.Bounds()
	for topic, p := range r.log.state.kept.topics {
		if offsets := p.until(p.last, p.count+1); p.last < earliest || p.count > r.model.keep || len(offsets) != p.count || offsets[p.count-1] != p.first || p.topic != topic {
			r.t.Fatalf("of %s the offsets %v are known, %d in number, of a log from %d on", topic, offsets, p.count, earliest)
		}
	}
}

// topics lists what is given of some topics.
func (r *run) topics() {
	filter := mustFilter(r.t, r.filter())
	want := make(topicSums)
	for _, m := range r.model.matches(filter, 0) {
		want.add([]TopicStats{{Topic: m.topic, Messages: 1, First: m.offset, Last: m.offset}})
	}
	for _, m := range r.model.records {
		if t, known := want[m.topic]; known { // hidden ones were stored too
			t.Recent++
			want[m.topic] = t
		}
	}
	got, err := r.log.Topics(r.t.Context(), TopicQuery{Filter: filter, Limit: 20})
	if err != nil || !slices.Equal(got, want.first(20)) {
		r.t.Fatalf("topics of %s: %v, the model says %v", filter, got, want.first(20))
	}
}

func (r *run) resolve() {
	filter := mustFilter(r.t, r.filter())
	earliest, _ := r.log.Bounds()
	head := r.place()
	resolve := func(s protocol.Start) Resolved {
		got, err := r.log.Resolve(s, filter, head)
		if err != nil {
			r.t.Fatal(err)
		}
		return got
	}
	n := 1 + r.rand.IntN(20)
	want, matches := earliest-1, r.model.matches(filter, 0)
	for len(matches) > 0 && matches[len(matches)-1].offset > head {
		matches = matches[:len(matches)-1]
	}
	if len(matches) >= n {
		want = matches[len(matches)-n].offset - 1
	}
	if got := resolve(protocol.Start{Kind: protocol.StartLast, Last: n}); got.After != want || got.Gap != nil {
		r.t.Fatalf("last:%d of %s at head %d is after %d, the model says %d", n, filter, head, got.After, want)
	}
	_, hidden := r.model.split(filter, 0, r.model.head)
	if quiet := resolve(protocol.Start{Kind: protocol.StartNew}).Quiet; len(hidden) > 0 && quiet < hidden[len(hidden)-1] || r.model.keep == 0 && quiet != 0 {
		r.t.Fatalf("of %s nothing above %d is said to be hidden, the model hides %v", filter, quiet, hidden)
	}
	at := r.clock.at.Add(-time.Duration(r.rand.IntN(int(2 * time.Hour))))
	got := resolve(protocol.Start{Kind: protocol.StartTime, Time: at}).After
	reached := int64(0) // the latest time so far
	for _, m := range r.model.records {
		if m.offset > head {
			break
		}
		reached = max(reached, m.counts.UnixMicro())
		if early := reached < at.UnixMicro(); early != (m.offset <= got) {
			r.t.Fatalf("start at %v is after %d, but offset %d is of %v, which counts as %v", at, got, m.offset, m.time, m.counts)
		}
	}
	p := r.log.PositionOf(r.place())
	if got := resolve(protocol.Start{Kind: protocol.StartPosition, Position: p}); got.After != p.Offset || got.Gap != nil || got.Quiet != 0 {
		r.t.Fatalf("position %v resolves to %+v", p, got)
	}
}

func (r *run) check() {
	dir := r.t.TempDir()
	copyDir(r.t, r.log.dir, dir)
	report, err := Check(r.t.Context(), dir, nil)
	if err != nil || len(report.Problems) > 0 {
		r.t.Fatalf("check: %v %v", err, report.Problems)
	}
	if report.Records != len(r.model.records) {
		r.t.Fatalf("check found %d records, the model has %d", report.Records, len(r.model.records))
	}
}
