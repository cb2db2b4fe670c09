package bridge

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// slot is an outbox whose Kafka is the test.
type slot struct {
	*outbox
	t      *testing.T
	writes []kafka.Write
	told   map[string]string // of entries, by their payload
	order  []string
}

func newSlot(t *testing.T) *slot {
	s := &slot{t: t, told: make(map[string]string)}
	way := route{boot: 7, sealer: newSealer(testDefinition().Secret), forgotten: func() time.Time { return time.Time{} }, maxValue: 1000}
	way.produce = func(w kafka.Write) error {
		s.writes = append(s.writes, w)
		return nil
	}
	s.outbox = &outbox{route: way, ready: make(chan struct{}, 1), space: make(chan struct{})}
	return s
}

// put puts an entry in, of a publisher with an order.
func (s *slot) putIn(order *storage.Order, payload string, resume bool) {
	s.t.Helper()
	e := entryOf("a", "", payload)
	e.Order, e.Resume = order, resume
	e.Done = func(r storage.Result) { s.note(payload, r) }
	if err := s.put(s.t.Context(), []*storage.Entry{e}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *slot) note(payload string, r storage.Result) {
	if s.told[payload] != "" {
		s.t.Errorf("%s is answered twice", payload)
	}
	s.told[payload] = "ok"
	if r.Err != nil {
		s.told[payload] = string(r.Err.Code)
	}
	s.order = append(s.order, payload)
}

// land ends the write under way.
func (s *slot) land(err error) {
	w := s.writes[len(s.writes)-1]
	w.Done(kafka.Produced{Err: err})
}

// comes says that records came back.
func (s *slot) comes(sequences ...uint64) {
	for _, q := range sequences {
		if e := s.came(q); e != nil {
			e.Done(storage.Result{})
		}
	}
	s.handOut()
}

func (s *slot) handOut() {
	for _, a := range s.takeAnswers() {
		a.Entry.Done(a.Result)
	}
}

func (s *slot) values(i int) (all []string) {
	for _, rec := range s.writes[i].Records {
		all = append(all, string(rec.Value))
	}
	return all
}

func (s *slot) want(told string) {
	s.t.Helper()
	var got []string
	for payload, how := range s.told {
		got = append(got, payload+"="+how)
	}
	slices.Sort(got)
	if strings.Join(got, " ") != told {
		s.t.Errorf("told %v, want %s", got, told)
	}
}

func failure(kind kafka.Kind) error { return &kafka.Error{Kind: kind, Sentence: "test"} }

// TestOutboxGathers: one write is under way, what comes meanwhile is the next.
func TestOutboxGathers(t *testing.T) {
	s := newSlot(t)
	s.putIn(nil, "1", false)
	s.putIn(nil, "2", false)
	s.putIn(nil, "3", false)
	if len(s.writes) != 1 {
		t.Fatalf("%d writes", len(s.writes))
	}
	s.land(nil)
	if len(s.writes) != 2 || fmt.Sprint(s.values(1)) != "[2 3]" {
		t.Fatalf("%d writes", len(s.writes))
	}
	s.land(nil)
	s.want("")
	s.comes(1, 2, 3)
	s.want("1=ok 2=ok 3=ok")
	if s.bytes != 0 || s.expire(time.Now()) {
		t.Errorf("%d bytes are left", s.bytes)
	}
}

// TestOutboxOvertaken: a record of this boot that comes back says that those before
// it are not stored.
func TestOutboxOvertaken(t *testing.T) {
	s := newSlot(t)
	var order storage.Order
	s.putIn(&order, "1", false)
	s.land(failure(kafka.Unknown))
	s.handOut()
	s.want("")
	s.putIn(&order, "2", false) // would pass 1
	s.putIn(nil, "3", false)    // of another publisher
	s.handOut()
	s.want("2=out_of_order")
	s.land(nil)
	s.comes(3) // the one that was refused had the second sequence
	s.want("1=log_unavailable 2=out_of_order 3=ok")
	s.putIn(&order, "1 again", true)
	s.land(nil)
	s.comes(4)
	s.want("1 again=ok 1=log_unavailable 2=out_of_order 3=ok")
	s.comes(1, 2, 3) // resends
}

// TestOutboxNotWritten: what surely is not stored is told at once.
func TestOutboxNotWritten(t *testing.T) {
	for kind, code := range map[kafka.Kind]string{
		kafka.NotSent: "log_unavailable", kafka.Denied: "log_unavailable", kafka.TooLarge: "payload_too_large", kafka.Full: "overloaded",
	} {
		s := newSlot(t)
		s.putIn(nil, "1", false)
		s.putIn(nil, "2", false)
		s.land(failure(kind))
		s.handOut()
		s.want("1=" + code)
		s.land(nil)
		s.comes(2)
		s.want("1=" + code + " 2=ok")
	}
}

// TestOutboxDeadlines: nobody waits for ever.
func TestOutboxDeadlines(t *testing.T) {
	s := newSlot(t)
	s.putIn(nil, "1", false)
	s.putIn(nil, "2", false)
	s.expire(time.Now().Add(produceTime - time.Second))
	s.handOut()
	s.want("")
	s.expire(time.Now().Add(produceTime + time.Second))
	s.handOut()
	s.want("2=log_unavailable")
	s.expire(time.Now().Add(produceTime + answerTime + time.Second))
	s.handOut()
	s.want("1=outcome_unknown 2=log_unavailable")
	s.land(nil)
	s.comes(1)
	s.want("1=outcome_unknown 2=log_unavailable")
}

// TestOutboxEnds: at the end everything is answered.
func TestOutboxEnds(t *testing.T) {
	s := newSlot(t)
	s.putIn(nil, "1", false)
	s.putIn(nil, "2", false)
	s.close(errClosed())
	if err := s.put(t.Context(), []*storage.Entry{entryOf("a", "", "3")}); err == nil {
		t.Error("taken after the end")
	}
	s.end()
	s.handOut()
	s.want("1=outcome_unknown 2=going_away")
}

// TestOutboxJudges: what must not be written is refused before.
func TestOutboxJudges(t *testing.T) {
	s := newSlot(t)
	s.putIn(nil, "0", false)
	s.putIn(nil, strings.Repeat("x", 1001), false)
	forgotten := time.Now().Add(-time.Hour)
	s.forgotten = func() time.Time { return forgotten }
	for payload, e := range map[string]*storage.Entry{
		"old":    {FirstAttempt: forgotten.Add(-time.Minute)},
		"recent": {FirstAttempt: forgotten.Add(time.Minute)},
		"first":  {},
	} {
		m := entryOf("a", payload, payload)
		m.FirstAttempt = e.FirstAttempt
		m.Done = func(r storage.Result) { s.note(payload, r) }
		if err := s.put(t.Context(), []*storage.Entry{m}); err != nil {
			t.Fatal(err)
		}
	}
	s.land(nil)
	s.handOut()
	s.want("old=repeat_too_old " + strings.Repeat("x", 1001) + "=payload_too_large")
	if protocol.CodeRepeatTooOld.Retryable() {
		t.Error("it would break the order")
	}
}

// TestOutboxHolds: nothing is written before it may be, and nothing after a halt.
func TestOutboxHolds(t *testing.T) {
	s := newSlot(t)
	s.held = true
	s.putIn(nil, "1", false)
	if len(s.writes) > 0 {
		t.Fatal("written before it was allowed")
	}
	s.begin()
	s.putIn(nil, "2", false)
	s.halt(errHalted())
	s.land(nil)
	s.handOut()
	if len(s.writes) != 1 {
		t.Errorf("%d writes", len(s.writes))
	}
	s.want("2=log_unavailable")
	if err := s.put(t.Context(), []*storage.Entry{entryOf("a", "", "3")}); err == nil {
		t.Error("taken after a halt")
	}
}
