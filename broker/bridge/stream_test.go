package bridge

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
	"github.com/tidewire/tidewire/storage/logtest"
)

// suiteLog is a partition that the suite of logs can close and open again.
type suiteLog struct {
	*Partition
	node *node
}

// TestSuite: a partition of Kafka behaves as a log on disk does.
func TestSuite(t *testing.T) {
	w := newWorld(t, 1)
	defer w.cluster.Close()
	w.suite(t)
}

// suite runs the suite of logs.
func (w *world) suite(t *testing.T) {
	t.Helper()
	topics := 0
	logtest.Test(t, logtest.Maker{
		Open: func(t *testing.T) logtest.Log {
			topics++
			w.t = t
			w.def.Topic = fmt.Sprint("suite.", topics)
			c := w.client()
			defer c.Close()
			w.create(c)
			l := &suiteLog{node: w.node()}
			l.Partition = l.node.partitions[0]
			t.Cleanup(func() { l.node.close() })
			return l
		},
		Reopen: func(_ *testing.T, log logtest.Log) logtest.Log {
			l := log.(*suiteLog)
			l.node.close()
			l.node = w.nodeAt(l.node.dir)
			l.Partition = l.node.partitions[0]
			return l
		},
	})
}

// TestTwoNodes: what is published on one node is answered there and read on both,
// beside what clients of Kafka write, and a repeat is one wherever it comes in.
func TestTwoNodes(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		a, b := w.node(), w.node()
		a.run()
		b.run()
		defer a.stop()
		defer b.stop()
		first := a.stored("x", "id", "1")
		if again := b.stored("x", "id", "1"); !again.Duplicate || again.Position != first.Position {
			t.Errorf("on the other node: %+v, first %+v", again, first)
		}
		if r := <-b.publish(entryOf("x", "id", "other")); r.Err == nil || r.Err.Code != protocol.CodeIDConflict {
			t.Errorf("another payload: %+v", r)
		}
		for i := range 30 {
			[]*node{a, b}[i%2].stored(fmt.Sprint("t.", i), "", fmt.Sprint(i))
		}
		w.produce(int32(protocol.Partition("k", 3)), plain("k", "by Kafka"))
		last := a.stored("k", "", "end")
		p := int(last.Position.Partition)
		if p != protocol.Partition("k", 3) {
			t.Errorf("%+v", last)
		}
		until(t, "all is read on both nodes", func() bool {
			for i := range 3 {
				if !slices.Equal(a.read(i), b.read(i)) {
					return false
				}
			}
			return slices.Contains(b.read(p), "end")
		})
		if got := b.read(p); !slices.Contains(got, "by Kafka") {
			t.Errorf("%q", got)
		}
		if a.Ready() != nil || len(a.Degraded()) > 0 {
			t.Errorf("%v, %v", a.Ready(), a.Degraded())
		}
	})
}

// TestKafkaAway: publishers get an answer in any case, readers go on, the node says
// what is wrong, and goes on by itself.
func TestKafkaAway(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		n := w.node()
		n.run()
		defer n.stop()
		n.stored("a", "", "before")
		w.cut(true)
		start := time.Now()
		waits := n.publish(entryOf("a", "1", "meanwhile"))
		r := <-waits
		if r.Err == nil || r.Err.Code != protocol.CodeLogUnavailable && r.Err.Code != protocol.CodeUnknown || r.Err.RetryAfter == 0 {
			t.Errorf("%+v", r)
		}
		if took := time.Since(start); took > produceTime+answerTime+time.Second {
			t.Errorf("the answer took %v", took)
		}
		until(t, "it says that Kafka is away", func() bool { return strings.Contains(strings.Join(n.Degraded(), " "), "Kafka") })
		if got := n.read(0); len(got) != 1 {
			t.Errorf("%q", got)
		}
		if err := n.Ready(); err != nil {
			t.Errorf("another node would do no better: %v", err)
		}
		late := n.publish(entryOf("a", "2", "late"))
		pass(2 * time.Second)
		w.cut(false)
		if r := <-late; r.Err != nil {
			t.Errorf("what came shortly before the end of it: %+v", r)
		}
		if r := n.stored("a", "1", "meanwhile"); r.Duplicate {
			t.Errorf("what was refused is stored: %+v", r)
		}
		until(t, "nothing is wrong", func() bool { return len(n.Degraded()) == 0 })
	})
}

// TestQueueIsBounded: while Kafka is away, what waits is bounded, and who finds no
// room is told in the end.
func TestQueueIsBounded(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.def.MaxPayload = 512 << 10
		n := w.node()
		n.run()
		defer n.stop()
		n.stored("a", "", "before")
		w.cut(true)
		big := strings.Repeat("x", 500<<10)
		codes := map[protocol.Code]int{}
		var waiting []<-chan storage.Result
		for range 80 {
			waiting = append(waiting, n.publish(entryOf("a", "", big)))
			o := &n.partitions[0].outbox
			o.mu.Lock()
			if o.bytes > maxOutboxBytes {
				t.Errorf("%d bytes wait", o.bytes)
			}
			o.mu.Unlock()
		}
		for _, answer := range waiting {
			r := <-answer
			if r.Err == nil {
				t.Fatal("stored without Kafka")
			}
			codes[r.Err.Code]++
		}
		if codes[protocol.CodeLogUnavailable] < 70 || codes[protocol.CodeLogUnavailable]+codes[protocol.CodeUnknown] != 80 {
			t.Errorf("%v", codes)
		}
		w.cut(false)
		n.stored("a", "", "after")
	})
}

// TestLostAnswers: Kafka stores a write and does not say so. Its record comes back,
// and that is the answer.
func TestLostAnswers(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		n := w.node(func(o *StreamOptions) {
			o.Bad = func(r Refused) { t.Errorf("%s at %d is told as somebody's fault", r.Reason, r.Record.Offset) }
		})
		n.run()
		defer n.stop()
		n.stored("a", "", "1")
		w.timeOut(3)
		for i := range 5 {
			n.stored("a", "", fmt.Sprint(i+2))
		}
		if got := fmt.Sprint(n.read(0)); got != "[1 2 3 4 5 6]" {
			t.Errorf("written again and stored once: %s", got)
		}
	})
}

// TestUnknownIsSettled: when the outcome of a write is unknown it is settled by what
// comes back, and until then nothing of the same publisher passes it.
func TestUnknownIsSettled(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		n := w.node()
		n.run()
		defer n.stop()
		n.stored("a", "", "1")
		var order storage.Order
		behind := entryOf("a", "", "3")
		e := entryOf("a", "id", "2")
		e.Order, behind.Order = &order, &order
		release := w.swallow()
		start := time.Now()
		answer := n.publish(e)
		pass(produceTime + 100*time.Millisecond)
		late := n.publish(behind)
		release()
		r := <-answer
		if r.Err != nil && r.Err.Code != protocol.CodeLogUnavailable || time.Since(start) > produceTime+answerTime {
			t.Errorf("%+v after %v", r, time.Since(start))
		}
		if r := <-late; r.Err == nil || r.Err.Code != protocol.CodeOutOfOrder {
			t.Errorf("it would pass the one before: %+v", r)
		}
		again := entryOf("a", "id", "2")
		again.Order, again.Resume = &order, true
		if after := <-n.publish(again); after.Err != nil || after.Duplicate != (r.Err == nil) {
			t.Errorf("with resume: %+v, the first %+v", after, r)
		}
		if got := fmt.Sprint(n.read(0)); got != "[1 2]" {
			t.Errorf("stored: %s", got)
		}
	})
}

// TestResolveAhead: a position that another node gave is waited for; one beyond
// Kafka's end is a rollback; and who cannot tell says so.
func TestResolveAhead(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.node(), w.node()
		a.run()
		defer a.stop()
		at := a.stored("a", "", "1").Position
		f, _ := protocol.ParseFilter(">")
		resolve := func(p protocol.Position) (storage.Resolved, error) {
			_, head := b.partitions[0].Bounds()
			return b.partitions[0].Resolve(protocol.Start{Kind: protocol.StartPosition, Position: p}, f, head)
		}
		if _, err := resolve(at); protocol.AsError(err) == nil || protocol.AsError(err).Code != protocol.CodeLogUnavailable {
			t.Errorf("of a node that does not read: %v", err)
		}
		b.run()
		defer b.stop()
		if r, err := resolve(at); err != nil || r.Gap != nil || r.After != at.Offset {
			t.Errorf("%+v, %v", r, err)
		}
		for range 20 {
			at = a.stored("a", "", "2").Position
			r, err := resolve(at)
			if applied, _ := b.partitions[0].status.place(); err != nil || r.Gap != nil || r.After != at.Offset || applied < at.Offset {
				t.Fatalf("%+v, %v, applied up to %d", r, err, applied)
			}
		}
		beyond := at
		beyond.Offset += 3
		r, err := resolve(beyond)
		if err != nil || r.Gap == nil || r.Gap.Reason != storage.GapRolledBack || r.Gap.After != at.Offset || r.Gap.Through != beyond.Offset || r.After != at.Offset {
			t.Errorf("beyond the end: %+v, gap %+v, %v", r, r.Gap, err)
		}
		w.cut(true)
		beyond.Offset += 3
		if _, err := resolve(beyond); protocol.AsError(err) == nil || protocol.AsError(err).Code != protocol.CodeLogUnavailable {
			t.Errorf("while Kafka is away: %v", err)
		}
	})
}

// TestNewNode: a node without data reads from the earliest that Kafka has, and is
// not ready before it has what was there when it began.
func TestNewNode(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		for i := range 50 {
			w.produce(0, plain("a", fmt.Sprint(i)))
		}
		if err := w.cluster.DeleteRecords(w.def.Topic, 0, 20); err != nil {
			t.Fatal(err)
		}
		n := w.node()
		if err := n.Ready(); err == nil {
			t.Error("ready before it has read anything")
		}
		n.run()
		defer n.stop()
		until(t, "it is ready", func() bool { return n.Ready() == nil })
		if earliest, head := n.partitions[0].Bounds(); earliest != 21 || head != 50 {
			t.Errorf("%d to %d", earliest, head)
		}
		if got := n.read(0); len(got) != 30 || got[0] != "20" {
			t.Errorf("%q", got)
		}
	})
}

// TestRetentionGap: what Kafka's retention removed while a node was away is a gap
// for its readers.
func TestRetentionGap(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		n := w.node()
		n.run()
		at := n.stored("a", "", "1").Position
		n.stop()
		for i := range 50 {
			w.produce(0, plain("a", fmt.Sprint(i)))
		}
		if err := w.cluster.DeleteRecords(w.def.Topic, 0, 20); err != nil {
			t.Fatal(err)
		}
		n = w.nodeAt(n.dir)
		n.run()
		defer n.stop()
		until(t, "it is ready", func() bool { return n.Ready() == nil })
		f, _ := protocol.ParseFilter(">")
		p := n.partitions[0]
		if _, err := p.Read(storage.Query{Filter: f, After: at.Offset}); !errors.Is(err, storage.ErrTrimmed) {
			t.Errorf("%v", err)
		}
		r, err := p.Resolve(protocol.Start{Kind: protocol.StartPosition, Position: at}, f, 0)
		if err != nil || r.Gap == nil || r.Gap.Reason != storage.GapRetention || r.After != 20 {
			t.Errorf("%+v, gap %+v, %v", r, r.Gap, err)
		}
		n.stored("a", "", "2")
	})
}

// TestBadRecords: each record that is no message is told once, with its reason, and
// over restarts, and can be copied.
func TestBadRecords(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		var told []Refused
		watch := func(o *StreamOptions) { o.Bad = func(r Refused) { told = append(told, r) } }
		n := w.node(watch)
		n.run()
		w.produce(0, plain("a", "1"), kafka.Record{Value: []byte("no key"), Time: time.Now()}, plain("a", "2"))
		w.produce(0, plain("$dead.x", "3"), plain("a.*", "4"))
		n.stored("a", "", "5")
		n.stop()
		n = w.nodeAt(n.dir, watch)
		n.partitions[0].intake.note.head = 0 // as if a crash had left an old note
		n.run()
		n.stored("a", "", "6")
		if got := fmt.Sprint(n.read(0)); got != "[1 2 5 6]" {
			t.Error(got)
		}
		n.stop()
		var reasons []Reason
		for _, r := range told {
			reasons = append(reasons, r.Reason)
		}
		if want := []Reason{NullKey, ReservedTopic, InvalidTopic}; !slices.Equal(reasons, want) {
			t.Fatalf("%q, want %q", reasons, want)
		}
		c := told[0].Copy()
		var headers []string
		for _, h := range c.Headers {
			headers = append(headers, h.Key+"="+string(h.Value))
		}
		if want := "[tidewire-bad-reason=null_key tidewire-bad-topic=tidewire.main tidewire-bad-partition=0 tidewire-bad-offset=1]"; fmt.Sprint(headers) != want || string(c.Value) != "no key" {
			t.Errorf("%s, %q", headers, c.Value)
		}
	})
}

// TestCanary: an idle node sees that its data path works, at a small price.
func TestCanary(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		n := w.node()
		n.run()
		defer n.stop()
		pass(time.Minute)
		p := n.partitions[0]
		if _, head := p.Bounds(); head > 0 || p.status.known() < 3 || p.status.known() > 4 {
			t.Errorf("%d canaries in a minute, and the copy was written up to %d", p.status.known(), head)
		}
		f, _ := protocol.ParseFilter(">")
		at := p.PositionOf(p.status.known()) // of a node that has other messages besides
		if r, err := p.Resolve(protocol.Start{Kind: protocol.StartPosition, Position: at}, f, 0); err != nil || r.Gap != nil || r.After != at.Offset {
			t.Errorf("a position among canaries: %+v, %v", r, err)
		}
		if _, head := p.Bounds(); head != at.Offset {
			t.Errorf("%d, somebody is at %d", head, at.Offset)
		}
		if got := n.read(0); len(got) > 0 || len(n.Degraded()) > 0 {
			t.Errorf("%q, %q", got, n.Degraded())
		}
	})
}

// TestEndWhileAway: without Kafka the end comes in bounded time, and everybody has
// an answer, also when the node has just compared its log with Kafka's, or never
// could.
func TestEndWhileAway(t *testing.T) {
	for _, met := range []bool{true, false} {
		inWorld(t, 1, func(w *world) {
			n := w.node()
			n.run()
			n.stored("a", "", "1")
			if !met {
				n.stop()
				w.hide()
				n = w.nodeAt(n.dir)
				n.run()
				pass(time.Second)
				if got := strings.Join(n.Degraded(), " "); !strings.Contains(got, "cannot be read") || n.Ready() == nil {
					t.Errorf("its log cannot be compared: %v, %v", got, n.Ready())
				}
			} else {
				w.cut(true)
			}
			answer := n.publish(entryOf("a", "", "2"))
			pass(time.Second)
			start := time.Now()
			n.stop()
			if took := time.Since(start); took > drainTime+time.Second {
				t.Errorf("met %t: the end took %v", met, took)
			}
			select {
			case r := <-answer:
				if r.Err == nil && met {
					t.Errorf("stored: %+v", r)
				}
			default:
				t.Error("nobody was told")
			}
		})
	}
}

// sings lets canaries be due, and written.
func sings(s *status, times ...time.Time) {
	if s.silent.IsZero() {
		s.back = times[0].Add(-time.Minute)
	}
	for _, at := range times {
		if !s.mustSing(at, false) {
			panic("no canary is due")
		}
	}
}

// TestHealth: what readiness and degradation say.
func TestHealth(t *testing.T) {
	now := time.Now()
	fresh := func(change func(*status)) *status {
		s := newStatus(10, noMark)
		s.reached(20)
		s.back = now
		change(&s)
		return &s
	}
	done := func(s *status) { s.applied(20, note{head: 20, mark: noMark}) }
	for _, c := range []struct {
		says     string
		unsynced time.Duration
		change   func(*status)
	}{
		{"", 0, done},
		{"", stuckAfter - time.Second, done},
		{"the disk has not taken anything for 6s", 6 * time.Second, done},
		{"catching up: 50 % (5 of 10 offsets)", 0, func(s *status) { s.applied(15, note{head: 15}) }},
		{"nothing was heard", 0, func(s *status) { s.met = false }},
		{"gone", 0, func(s *status) { s.met, s.reading = false, errors.New("gone") }},
		{"halted", 0, func(s *status) { done(s); s.halt(&HaltError{Why: "it is halted"}) }},
	} {
		var unsynced time.Time
		if c.unsynced > 0 {
			unsynced = now.Add(-c.unsynced)
		}
		if err := fresh(c.change).ready(now, unsynced); (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want %q", err, c.says)
		}
	}
	for _, c := range []struct {
		says    string
		writing error
		change  func(*status)
	}{
		{"", nil, done},
		{"cannot be read since", nil, func(s *status) { s.failing(errors.New("gone")) }},
		{"does not take", errors.New("gone"), done},
		{"does not come back", nil, func(s *status) { sings(s, now.Add(-silentAfter)) }},
		{"does not come back", nil, func(s *status) { sings(s, now.Add(-40*time.Second), now.Add(-20*time.Second), now) }},
		{"", nil, func(s *status) { sings(s, now.Add(-time.Second)) }},
		{"", nil, func(s *status) {
			sings(s, now.Add(-40*time.Second))
			s.heard(now.Add(-20 * time.Second))
			sings(s, now)
		}},
		{"", nil, func(s *status) { s.failing(errors.New("gone")); s.reached(30) }},
	} {
		if got := fresh(c.change).degraded(now, c.writing); (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%q, want %q", got, c.says)
		}
	}
}
