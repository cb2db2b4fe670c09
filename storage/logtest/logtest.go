// Package logtest is the suite that every log must pass, wherever it keeps what
// it is given.
package logtest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// A Log is what the suite tests; see [storage.Log] for what is promised.
type Log interface {
	Append(ctx context.Context, entries ...*storage.Entry) error
	Run(ctx context.Context, apply func(*storage.Commit)) error
	Read(q storage.Query) (protocol.Chunk, error)
	ReadBack(q storage.Query, n int) (protocol.Chunk, error)
	Newest(f protocol.Filter, after, through uint64, n int) (offsets []uint64, covered uint64, err error)
	Resolve(s protocol.Start, f protocol.Filter, head uint64) (storage.Resolved, error)
	Bounds() (earliest, head uint64)
	PositionOf(offset uint64) protocol.Position
}

// A Maker opens logs of one kind for the suite.
type Maker struct {
	// Open returns a new, empty log. What it must be closed with goes to
	// t.Cleanup.
	Open func(t *testing.T) Log
	// Reopen opens the log again as after a restart; Run has returned.
	Reopen func(t *testing.T, l Log) Log
}

// Test runs the suite.
func Test(t *testing.T, m Maker) {
	tests := []struct {
		name string
		run  func(*suite)
	}{
		{"order", (*suite).order},
		{"chunks", (*suite).chunks},
		{"backwards", (*suite).backwards},
		{"duplicates", (*suite).duplicates},
		{"conflict", (*suite).conflict},
		{"order over refusals", (*suite).resume},
		{"starts", (*suite).starts},
		{"newest", (*suite).newest},
		{"positions", (*suite).positions},
		{"end", (*suite).end},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.run(&suite{T: t, maker: m, log: m.Open(t)})
		})
	}
}

type suite struct {
	*testing.T
	maker Maker
	log   Log
	head  uint64 // as commits told
}

// publish runs the log until the entries are answered.
func (s *suite) publish(entries ...*storage.Entry) []storage.Result {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	results := make([]storage.Result, 0, len(entries))
	answered := make(chan struct{})
	for i, e := range entries {
		e.Done = func(r storage.Result) {
			if len(results) != i {
				s.Errorf("answer %d came as number %d", i, len(results))
			}
			if results = append(results, r); len(results) == len(entries) {
				close(answered)
			}
		}
	}
	if err := s.log.Append(ctx, entries...); err != nil {
		s.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.log.Run(ctx, s.apply) }()
	<-answered
	cancel()
	if err := <-done; err != nil {
		s.Fatal(err)
	}
	s.log = s.maker.Reopen(s.T, s.log) // nothing may depend on memory
	return results
}

// apply checks what every commit promises.
func (s *suite) apply(c *storage.Commit) {
	if c.Chunk.After != s.head || c.Chunk.Through < s.head || c.Chunk.Count != len(c.Topics) {
		s.Errorf("commit (%d, %d] with %d records and %d topics after head %d", c.Chunk.After, c.Chunk.Through, c.Chunk.Count, len(c.Topics), s.head)
	}
	s.head = c.Chunk.Through
	var topics []string
	for m, err := range c.Chunk.Messages() {
		if err != nil || m.Position != s.log.PositionOf(m.Position.Offset) || m.Position.Offset <= c.Chunk.After || m.Position.Offset > c.Chunk.Through || m.Time.IsZero() {
			s.Errorf("a record at %v, %v: %v", m.Position, m.Time, err)
		}
		topics = append(topics, m.Topic)
	}
	if !slices.Equal(topics, c.Topics) {
		s.Errorf("topics %q of records of %q", c.Topics, topics)
	}
	for _, a := range c.Answers {
		a.Entry.Done(a.Result)
	}
}

func entry(topic, id, payload string) *storage.Entry {
	m := protocol.Message{Topic: topic, ID: id, Payload: []byte(payload)}
	e := &storage.Entry{Topic: topic, Record: protocol.AppendRecord(nil, &m), Payload: storage.PayloadHash(m.Payload)}
	if id != "" {
		e.Key = storage.KeyOf(topic, id)
	}
	return e
}

func (s *suite) filter(text string) protocol.Filter {
	s.Helper()
	f, err := protocol.ParseFilter(text)
	if err != nil {
		s.Fatal(err)
	}
	return f
}

// read returns the payloads after an offset, read in chunks.
func (s *suite) read(filter string, after uint64, maxBytes int) (payloads []string) {
	s.Helper()
	for _, head := s.log.Bounds(); after < head; {
		c, err := s.log.Read(storage.Query{Filter: s.filter(filter), After: after, MaxBytes: maxBytes})
		if err != nil || c.After != after || c.Through <= after || c.Through > head {
			s.Fatalf("read %s after %d: (%d, %d], %v", filter, after, c.After, c.Through, err)
		}
		for m, err := range c.Messages() {
			if err != nil || m.Position.Offset <= after || m.Position.Offset > c.Through {
				s.Fatalf("record at %v in (%d, %d]: %v", m.Position, c.After, c.Through, err)
			}
			payloads = append(payloads, string(m.Payload))
		}
		after = c.Through
	}
	return payloads
}

func (s *suite) want(what string, got, want any) {
	s.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.Errorf("%s: %v, want %v", what, got, want)
	}
}

// order: entries are stored and answered in the order of Append, and filters
// select.
func (s *suite) order() {
	results := s.publish(entry("a", "", "1"), entry("b.c", "", "2"), entry("a", "", "3"))
	results = append(results, s.publish(entry("$dead.x", "", "4"), entry("b.d", "", "5"))...)
	for i, r := range results {
		if r.Err != nil || r.Duplicate || i > 0 && r.Position.Offset <= results[i-1].Position.Offset {
			s.Errorf("answer %d: %+v", i, r)
		}
		s.want("position", s.log.PositionOf(r.Position.Offset), r.Position)
	}
	for filter, want := range map[string]string{">": "[1 2 3 5]", "a": "[1 3]", "b.*": "[2 5]", "$dead.>": "[4]", "none": "[]", "*": "[1 3]"} {
		s.want(filter, s.read(filter, 0, 0), want)
	}
}

// chunks: however small the chunks, everything comes once, from any place.
func (s *suite) chunks() {
	var entries []*storage.Entry
	for i := range 60 {
		entries = append(entries, entry(fmt.Sprintf("t.%d", i%7), "", fmt.Sprint(i)))
	}
	var results []storage.Result
	for part := range slices.Chunk(entries, 13) {
		results = append(results, s.publish(part...)...)
	}
	for _, from := range []int{0, 1, 30, 59, 60} {
		after, want := uint64(0), []int{}
		if from > 0 {
			after = results[from-1].Position.Offset
		}
		for i := from; i < 60; i++ {
			if i%7 == 3 {
				want = append(want, i)
			}
		}
		for _, size := range []int{1, 50, 0} {
			s.want("one topic", s.read("t.3", after, size), want)
			s.want("everything", len(s.read("t.*", after, size)), 60-from)
		}
	}
}

// readBack returns the payloads of what is asked for, in order, read from the end
// by n.
func (s *suite) readBack(q storage.Query, n int) (payloads []string) {
	s.Helper()
	for q.Through > q.After {
		c, err := s.log.ReadBack(q, n)
		if err != nil || c.Through != q.Through || c.After >= q.Through || c.After < q.After || c.Count > n {
			s.Fatalf("read %s back from %d: (%d, %d], %d records, %v", q.Filter, q.Through, c.After, c.Through, c.Count, err)
		}
		var chunk []string
		for m, err := range c.Messages() {
			if err != nil || m.Position.Offset <= c.After || m.Position.Offset > c.Through || m.Position != s.log.PositionOf(m.Position.Offset) {
				s.Fatalf("record at %v in (%d, %d]: %v", m.Position, c.After, c.Through, err)
			}
			chunk = append(chunk, string(m.Payload))
		}
		payloads = append(chunk, payloads...)
		q.Through = c.After
	}
	return payloads
}

// backwards: what is read from the end, in whatever chunks, is what is read from
// the beginning; chunks end where a term begins.
func (s *suite) backwards() {
	c, err := s.log.ReadBack(storage.Query{Filter: s.filter(">")}, 1)
	s.want("the empty log", fmt.Sprint(c.After, c.Through, c.Count, err), "0 0 0 <nil>")
	for i := range 40 {
		s.publish(entry(fmt.Sprintf("t.%d", i%3), "", fmt.Sprint(i)), entry("other", fmt.Sprint(i/2), "x"))
	}
	_, head := s.log.Bounds()
	for _, filter := range []string{"t.1", "t.*", ">", "none"} {
		all := s.read(filter, 0, 0)
		for _, n := range []int{1, 3, 100} {
			for _, size := range []int{1, 60, 0} {
				s.want(filter, s.readBack(storage.Query{Filter: s.filter(filter), Through: head, MaxBytes: size}, n), all)
			}
		}
		s.want("a part of "+filter, s.readBack(storage.Query{Filter: s.filter(filter), After: 20, Through: head}, 2), s.read(filter, 20, 0))
	}
	c, err = s.log.ReadBack(storage.Query{Filter: s.filter(">"), After: head, Through: head}, 1)
	s.want("nothing", fmt.Sprint(c.After == head, c.Through == head, c.Count, err), "true true 0 <nil>")
}

// duplicates: a repeat is answered with the position of the first, in the same
// batch, later, and after a restart.
func (s *suite) duplicates() {
	first := s.publish(entry("a", "id", "x"), entry("b", "id", "x"), entry("a", "id", "x"))
	if first[0].Duplicate || first[1].Duplicate || !first[2].Duplicate {
		s.Errorf("%+v", first)
	}
	s.want("position of the first", first[2].Position, first[0].Position)
	for range 2 {
		again := s.publish(entry("a", "id", "x"))[0]
		if !again.Duplicate || again.Err != nil {
			s.Errorf("%+v", again)
		}
		s.want("position of the first", again.Position, first[0].Position)
	}
	s.want("stored", s.read(">", 0, 0), "[x x]")
}

// conflict: the same id with another payload is refused, and the first stays the
// first.
func (s *suite) conflict() {
	r := s.publish(entry("a", "id", "x"), entry("a", "id", "y"), entry("a", "id", "x"))
	if r[1].Err == nil || r[1].Err.Code != protocol.CodeIDConflict {
		s.Errorf("another payload: %+v", r[1])
	}
	if !r[2].Duplicate {
		s.Errorf("the first payload again: %+v", r[2])
	}
	s.want("stored", s.read(">", 0, 0), "[x]")
}

// resume: without a refusal, entries with an order are stored as others are.
func (s *suite) resume() {
	var order storage.Order
	a, b := entry("a", "", "1"), entry("a", "", "2")
	a.Order, b.Order, b.Resume = &order, &order, true
	for i, r := range s.publish(a, b) {
		if r.Err != nil {
			s.Errorf("entry %d: %v", i, r.Err)
		}
	}
}

// starts: where subscriptions begin.
func (s *suite) starts() {
	resolve := func(start protocol.Start, filter string) uint64 {
		s.Helper()
		_, head := s.log.Bounds()
		r, err := s.log.Resolve(start, s.filter(filter), head)
		if err != nil || r.Gap != nil {
			s.Errorf("%v: %+v, %v", start, r, err)
		}
		return r.After
	}
	last := func(n int) protocol.Start { return protocol.Start{Kind: protocol.StartLast, Last: n} }
	s.want("new in an empty log", resolve(protocol.Start{}, ">"), 0)
	s.want("last of an empty log", resolve(last(3), ">"), 0)
	before := time.Now().Add(-time.Second)
	r := s.publish(entry("a", "", "1"), entry("b", "", "2"), entry("a", "", "3"), entry("b", "", "4"))
	at := func(i int) uint64 { return r[i].Position.Offset }
	s.want("new", resolve(protocol.Start{}, ">"), at(3))
	s.want("earliest", s.read(">", resolve(protocol.Start{Kind: protocol.StartEarliest}, ">"), 0), "[1 2 3 4]")
	s.want("last:1", s.read("a", resolve(last(1), "a"), 0), "[3]")
	s.want("last:2 of a pattern", s.read("*", resolve(last(2), "*"), 0), "[3 4]")
	s.want("last:9", s.read("b", resolve(last(9), "b"), 0), "[2 4]")
	s.want("a time before", s.read(">", resolve(protocol.Start{Kind: protocol.StartTime, Time: before}, ">"), 0), "[1 2 3 4]")
	s.want("a time after", resolve(protocol.Start{Kind: protocol.StartTime, Time: time.Now().Add(time.Hour)}, ">"), at(3))
	s.want("a minute ago", s.read(">", resolve(protocol.Start{Kind: protocol.StartSince, Since: time.Minute}, ">"), 0), "[1 2 3 4]")
	s.want("a position", resolve(protocol.Start{Kind: protocol.StartPosition, Position: r[1].Position}, ">"), at(1))
}

// positions: a message has one position for ever; what the log does not know is
// told as a gap.
func (s *suite) positions() {
	r := s.publish(entry("a", "", "1"))[0]
	start := s.log.PositionOf(0)
	s.publish(entry("a", "", "2"))
	s.want("position", s.log.PositionOf(r.Position.Offset), r.Position)
	s.want("the start", s.log.PositionOf(0), start)
	_, head := s.log.Bounds()
	gap := func(p protocol.Position) string {
		s.Helper()
		got, err := s.log.Resolve(protocol.Start{Kind: protocol.StartPosition, Position: p}, s.filter(">"), head)
		if err != nil || got.Gap == nil {
			s.Fatalf("%v: %+v, %v", p, got, err)
		}
		return got.Gap.Reason
	}
	future := s.log.PositionOf(head)
	future.Offset += 10
	s.want("the future", gap(future), storage.GapRolledBack)
	other := s.log.PositionOf(1)
	other.Term = protocol.NewTerm()
	s.want("another log", gap(other), storage.GapOtherLog)
}

// end: what was appended before the end is answered, what comes after is
// refused.
func (s *suite) end() {
	ctx, cancel := context.WithCancel(s.Context())
	answers := 0
	for i := range 20 {
		e := entry("a", "", fmt.Sprint(i))
		e.Done = func(storage.Result) { answers++ }
		if err := s.log.Append(ctx, e); err != nil {
			s.Fatal(err)
		}
	}
	cancel()
	if err := s.log.Run(ctx, s.apply); err != nil || answers != 20 {
		s.Fatalf("%d answers, %v", answers, err)
	}
	if err := s.log.Append(s.Context(), entry("a", "", "late")); err == nil {
		s.Error("Append after the end was taken")
	}
	s.want("stored", len(s.read("a", 0, 0)), 20)
}
