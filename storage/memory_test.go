package storage_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
	"github.com/tidewire/tidewire/storage/logtest"
)

// TestMemorySuite: a log in memory behaves as one on disk, as long as it lives.
func TestMemorySuite(t *testing.T) {
	logtest.Test(t, logtest.Maker{
		Open: func(*testing.T) logtest.Log { return storage.NewMemoryLog("m", storage.MemoryOptions{}) },
		Reopen: func(_ *testing.T, l logtest.Log) logtest.Log {
			l.(*storage.MemoryLog).Again()
			return l
		},
	})
}

// memory is a log in memory whose Run is under way.
type memory struct {
	t *testing.T
	*storage.MemoryLog
}

func newMemory(t *testing.T, o storage.MemoryOptions) *memory {
	t.Helper()
	m := &memory{t, storage.NewMemoryLog("m", o)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- m.Run(ctx, func(c *storage.Commit) {
			for _, a := range c.Answers {
				a.Entry.Done(a.Result)
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return m
}

// put stores messages of a topic and returns their answers. An empty id is none.
func (m *memory) put(topic string, tried time.Time, ids ...string) (results []storage.Result) {
	m.t.Helper()
	answers := make(chan storage.Result, len(ids))
	for _, id := range ids {
		msg := protocol.Message{Topic: topic, ID: id, Payload: []byte(topic + id)}
		e := &storage.Entry{Topic: topic, Record: protocol.AppendRecord(nil, &msg), FirstAttempt: tried, Done: func(r storage.Result) { answers <- r }}
		if id != "" {
			e.Key, e.Payload = storage.KeyOf(topic, id), storage.PayloadHash(msg.Payload)
		}
		if err := m.Append(m.t.Context(), e); err != nil {
			m.t.Fatal(err)
		}
	}
	for range ids {
		results = append(results, <-answers)
	}
	return results
}

func bounds(l *memory) string {
	earliest, head := l.Bounds()
	return fmt.Sprint(earliest, " ", head)
}

// TestMemoryBounds: the oldest messages go when there are too many, or too many
// bytes, and their readers are told.
func TestMemoryBounds(t *testing.T) {
	m := newMemory(t, storage.MemoryOptions{Messages: 3})
	r := m.put("a", time.Time{}, "", "", "", "", "")
	if got := bounds(m); got != "3 5" {
		t.Errorf("of five messages three are kept: %s", got)
	}
	if _, err := m.Read(storage.Query{Filter: filter(t, ">"), After: 1}); !errors.Is(err, storage.ErrTrimmed) {
		t.Errorf("reading what is gone: %v", err)
	}
	if c, err := m.Read(storage.Query{Filter: filter(t, ">"), After: 2}); err != nil || c.Count != 3 {
		t.Errorf("%d messages, %v", c.Count, err)
	}
	at, err := m.Resolve(protocol.Start{Kind: protocol.StartPosition, Position: r[0].Position}, filter(t, ">"), 5)
	if err != nil || at.Gap == nil || at.Gap.Reason != storage.GapRetention || at.Gap.After != 1 || at.Gap.Through != 2 || at.After != 2 {
		t.Errorf("an old position: %+v, gap %+v, %v", at, at.Gap, err)
	}

	m = newMemory(t, storage.MemoryOptions{Bytes: 10_000})
	for i := range 300 {
		m.put(fmt.Sprint("topic.", i), time.Time{}, strings.Repeat("x", 100))
	}
	if earliest, head := m.Bounds(); head-earliest < 20 || head-earliest > 100 {
		t.Errorf("10,000 bytes hold %d to %d", earliest, head)
	}
}

// TestMemoryAge: what is too old goes by itself.
func TestMemoryAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, storage.MemoryOptions{Age: time.Hour})
		m.put("a", time.Time{}, "", "")
		time.Sleep(40 * time.Minute)
		m.put("a", time.Time{}, "")
		time.Sleep(19 * time.Minute)
		synctest.Wait()
		if got := bounds(m); got != "1 3" {
			t.Errorf("after 59 minutes: %s", got)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := bounds(m); got != "3 3" {
			t.Errorf("after 61 minutes: %s", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := bounds(m); got != "4 3" {
			t.Errorf("when all is too old: %s", got)
		}
	})
}

// TestMemoryForgets: a new log is another log, and does not take for new what may
// have been published to the one before.
func TestMemoryForgets(t *testing.T) {
	before := newMemory(t, storage.MemoryOptions{})
	tried := time.Now()
	old := before.put("a", time.Time{}, "1")[0]
	after := newMemory(t, storage.MemoryOptions{Now: func() time.Time { return time.Now().Add(time.Second) }})
	at, err := after.Resolve(protocol.Start{Kind: protocol.StartPosition, Position: old.Position}, filter(t, ">"), 0)
	if err != nil || at.Gap == nil || at.Gap.Reason != storage.GapOtherLog || at.After != 0 {
		t.Errorf("%+v, %v", at, err)
	}
	if r := after.put("a", tried, "1")[0]; r.Err == nil || r.Err.Code != protocol.CodeRepeatTooOld {
		t.Errorf("a repeat over the restart: %+v", r)
	}
	if r := after.put("a", time.Now().Add(time.Minute), "2", "2"); r[0].Err != nil || !r[1].Duplicate {
		t.Errorf("a repeat within one life: %+v", r)
	}
}

// TestMemoryWindow: ids are remembered beyond the messages that they were of, up
// to the window.
func TestMemoryWindow(t *testing.T) {
	m := newMemory(t, storage.MemoryOptions{Messages: 1, DedupeWindow: 3})
	m.put("a", time.Time{}, "1", "2", "3")
	if r := m.put("a", time.Time{}, "1")[0]; !r.Duplicate || r.Position.Offset != 1 {
		t.Errorf("%+v", r)
	}
	if r := m.put("a", time.Time{}, "2")[0]; !r.Duplicate {
		t.Errorf("%+v", r)
	}
	m.put("a", time.Time{}, "4", "5", "6")
	if r := m.put("a", time.Time{}, "2")[0]; r.Duplicate {
		t.Errorf("beyond the window: %+v", r)
	}
}

// TestMemoryReaders: readers that go on over holes and trims get every message
// from where they are, or are told.
func TestMemoryReaders(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 5))
	m := newMemory(t, storage.MemoryOptions{Messages: 5})
	type reader struct {
		filter string
		after  uint64
		got    []uint64
	}
	readers := []*reader{{filter: ">"}, {filter: "a"}, {filter: "*.x"}}
	stored := map[uint64]string{}
	gone := uint64(0)
	for range 2000 {
		if rng.IntN(5) > 0 {
			topic := []string{"a", "b.x", "c.x"}[rng.IntN(3)]
			if r := m.put(topic, time.Time{}, []string{"", fmt.Sprint(rng.IntN(40))}[rng.IntN(2)])[0]; !r.Duplicate {
				stored[r.Position.Offset] = topic
			}
			continue
		}
		r := readers[rng.IntN(len(readers))]
		_, head := m.Bounds()
		c, err := m.Read(storage.Query{Filter: filter(t, r.filter), After: r.after, MaxBytes: 1 + rng.IntN(300)})
		if errors.Is(err, storage.ErrTrimmed) {
			earliest, _ := m.Bounds()
			for r.after++; r.after < earliest; r.after++ {
				if topic, ok := stored[r.after]; ok && filter(t, r.filter).Match(topic) {
					r.got = append(r.got, r.after) // told, so not missed
					gone++
				}
			}
			r.after--
			continue
		}
		if err != nil || c.After != r.after || c.Through < r.after || r.after < head && c.Through == r.after {
			t.Fatalf("%+v, %v", c, err)
		}
		for msg, err := range c.Messages() {
			if err != nil || msg.Topic != stored[msg.Position.Offset] {
				t.Fatalf("%v, %v", msg, err)
			}
			r.got = append(r.got, msg.Position.Offset)
		}
		r.after = c.Through
	}
	for _, r := range readers {
		var want []uint64
		for offset := uint64(1); offset <= r.after; offset++ {
			if topic, ok := stored[offset]; ok && filter(t, r.filter).Match(topic) {
				want = append(want, offset)
			}
		}
		if fmt.Sprint(r.got) != fmt.Sprint(want) {
			t.Errorf("%s: got %d, want %d", r.filter, len(r.got), len(want))
		}
	}
	if gone == 0 {
		t.Error("nothing was taken from a reader")
	}
}

func filter(t *testing.T, text string) protocol.Filter {
	t.Helper()
	f, err := protocol.ParseFilter(text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
