package broker_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// TestCheckpoint: what lies before a checkpoint goes from the control log, and
// consumers are after a restart as they were.
func TestCheckpoint(t *testing.T) {
	dir := t.TempDir()
	s := openShop(t, dir)
	h := s.hire()
	h.consume("w", "job", 0, &tidewirev1.ConsumerSettings{MaxInFlight: new(uint32(5000)), AckWaitMs: new(uint64(3_600_000))})
	for i := range 20 {
		if _, _, err := s.broker.PutConsumer(t.Context(), fmt.Sprintf("idle%d", i), request("job")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.broker.DeleteConsumer(t.Context(), "idle7"); err != nil {
		t.Fatal(err)
	}
	s.publishBatch("job", 3000)
	got := h.take(3000)
	for i := range 20 { // enough for several segments
		for _, m := range got {
			h.settle(protocol.SettleExtend, i == 19 && m.Position == got[2999].Position, func(f *protocol.Settle) { d := time.Hour + time.Duration(i)*time.Second; f.Delay = &d }, m)
		}
		if i == 10 {
			s.broker.Checkpoint(t.Context())
		}
	}
	h.ack(got[10:2990]...)
	s.broker.Checkpoint(t.Context())
	h.ack(got[0])
	s.until(func() bool { // something of the control log goes
		earliest, _ := s.control.Bounds()
		return earliest > 1
	})
	before := s.info()
	h.leave()
	s.end()

	s = openShop(t, dir)
	after := s.info()
	if after.InFlight != 19 || after.InFlight != before.InFlight || after.Position.String() != before.Position.String() || after.Generation != before.Generation || *after.Oldest != *before.Oldest || after.Settings != before.Settings {
		t.Fatalf("before %+v\nafter  %+v", before, after)
	}
	if names := len(s.broker.Consumers()); names != 20 {
		t.Fatalf("%d consumers", names)
	}
}

// TestRetentionOvertakesConsumer: what was tried becomes a dead letter while it can
// still be read, of what was not the consumer is told, and who is not behind is
// told nothing.
func TestRetentionOvertakesConsumer(t *testing.T) {
	dir := t.TempDir()
	s := openShop(t, dir)
	h, quiet := s.hire(), s.hire()
	h.consume("w", "job", 2, &tidewirev1.ConsumerSettings{MaxInFlight: new(uint32(2)), AckWaitMs: new(uint64(3_600_000))})
	quiet.consume("quiet", "seldom", 0, nil)
	for i := range 60 {
		s.publish(protocol.Message{Topic: "job", Payload: fmt.Appendf([]byte(strings.Repeat("x", 20_000)), "%d", i)})
	}
	first := h.take(2)
	s.until(func() bool {
		s.main.Forget(12) // once the first segment is full
		return s.info().Dead == 2
	})
	l, err := s.broker.DeadLetter(t.Context(), "w", first[0].Position.String())
	if err != nil || !strings.Contains(l.Reason, "retention") || string(l.Message.Payload) != string(first[0].Payload) {
		t.Fatalf("%+v %v", l, err)
	}
	next := h.take(2)
	h.wait(func() bool { return len(h.gaps) > 0 })
	if g := h.gaps[0]; g.Reason != "retention" || g.After != first[1].Position.Offset || next[0].Position.Offset != g.Through+1 {
		t.Fatalf("gap %v, deliveries go on at %d", g, next[0].Position.Offset)
	}
	if len(quiet.gaps) > 0 {
		t.Fatalf("a consumer that missed nothing is told %v", quiet.gaps)
	}
	a := h.settle(protocol.SettleAck, true, nil, first[0])
	if len(a.Refused) != 1 {
		t.Fatalf("an ack of what is dead: %v", a)
	}
}

// TestConsumerAfterRollback: the stream is put back to an earlier state while the
// control log is not. Nothing that is published afterwards is passed over.
func TestConsumerAfterRollback(t *testing.T) {
	for name, sameTerm := range map[string]bool{"within a term": true, "to a term before": false} {
		t.Run(name, func(t *testing.T) { rollBackConsumer(t, sameTerm) })
	}
}

func rollBackConsumer(t *testing.T, sameTerm bool) {
	dir, old := t.TempDir(), t.TempDir()
	s := openShop(t, dir)
	h := s.hire()
	h.consume("w", "job", 0, nil)
	s.publishMany("job", 5)
	h.ack(h.take(5)...)
	if !sameTerm {
		h.leave()
		s.end()
	}
	if err := os.CopyFS(old, os.DirFS(dir+"/streams/main")); err != nil { // nothing is written meanwhile
		t.Fatal(err)
	}
	if !sameTerm {
		s = openShop(t, dir)
		h = s.hire()
		h.consume("w", "job", 0, nil)
	}
	s.publishMany("job", 20)
	got := h.take(20)
	h.ack(got[:15]...)
	h.leave()
	s.end()
	if err := os.RemoveAll(dir + "/streams/main"); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir+"/streams/main", os.DirFS(old)); err != nil {
		t.Fatal(err)
	}

	s = openShop(t, dir)
	h = s.hire()
	s.publishMany("job", 30)
	h.consume("w", "job", 0, nil)
	h.wait(func() bool { return len(h.gaps) > 0 })
	want, reason := []string{}, "rolled_back"
	if !sameTerm { // the log cannot tell what of it the consumer has had
		want, reason = append(want, "0", "1", "2", "3", "4"), "other_log"
	}
	if g := h.gaps[0]; g.Reason != reason || sameTerm && (g.After != 5 || g.Through != 25) {
		t.Fatalf("gap %v", g)
	}
	for i := range 30 {
		want = append(want, fmt.Sprint(i))
	}
	again := h.take(len(want))
	if !slices.Equal(payloads(again), want) || again[0].Attempt != 1 {
		t.Fatalf("got %v", payloads(again))
	}
	h.ack(again[len(again)-30:]...) // one frame has one term
	if a := h.settle(protocol.SettleAck, true, nil, got[15]); len(a.Refused) != 1 || a.Refused[0].Code != "never_delivered" {
		t.Fatalf("an ack of what the log has lost: %v", a)
	}
}

// TestManyGaps: however many gaps wait for a member, none is dropped in silence.
func TestManyGaps(t *testing.T) {
	var told []*tidewirev1.Gap
	add := func(after, through, missed uint64, reason string) {
		told = broker.PushGap(told, &tidewirev1.Gap{Reason: reason, Term: "t", After: after, Through: through, Offset: through, Missed: missed})
	}
	add(0, 5, 0, "retention")
	add(5, 6, 0, "retention")
	if len(told) != 1 || told[0].After != 0 || told[0].Through != 6 || told[0].Offset != 6 {
		t.Fatalf("what goes on: %v", told)
	}
	add(8, 8, 3, "retention")
	add(9, 9, 4, "retention")
	if len(told) != 3 || told[1].Missed != 3 || told[2].Missed != 4 {
		t.Fatalf("counted: %v", told)
	}
	for i := range uint64(500) {
		add(20+2*i, 21+2*i, 0, "retention")
	}
	last := told[len(told)-1]
	if len(told) > 100 || last.Through != 1019 {
		t.Fatalf("%d gaps, the last one %v", len(told), last)
	}
	covered := uint64(0)
	for _, g := range told {
		covered += g.Through - g.After
	}
	if covered < 6+500 {
		t.Fatalf("%d of 506 offsets are told", covered)
	}
}
