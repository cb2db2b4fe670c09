package brokertest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
	"github.com/tidewire/tidewire/storage/logtest"
)

var _ broker.Log = (*Log)(nil)

// put commits messages and returns their answers.
func put(t *testing.T, l *Log, messages ...protocol.Message) []storage.Result {
	t.Helper()
	var results []storage.Result
	for _, m := range messages {
		e := &storage.Entry{Topic: m.Topic, Record: protocol.AppendRecord(nil, &m)}
		if m.ID != "" {
			e.Key, e.Payload = storage.KeyOf(m.Topic, m.ID), storage.PayloadHash(m.Payload)
		}
		if err := l.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx, func(c *storage.Commit) {
		if len(c.Topics) != c.Chunk.Count {
			t.Errorf("%d topics of %d records", len(c.Topics), c.Chunk.Count)
		}
		for _, a := range c.Answers {
			results = append(results, a.Result)
		}
	}); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = false // by the end of Run
	return results
}

func payloads(t *testing.T, l *Log, filter string, after uint64) []string {
	t.Helper()
	f, err := protocol.ParseFilter(filter)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, head := l.Bounds(); after < head; {
		c, err := l.Read(storage.Query{Filter: f, After: after, MaxBytes: 1})
		if err != nil {
			t.Fatal(err)
		}
		if c.After != after || c.Through <= after {
			t.Fatalf("the chunk covers (%d, %d]", c.After, c.Through)
		}
		for m, err := range c.Messages() {
			if err != nil || m.Position != l.PositionOf(m.Position.Offset) {
				t.Fatalf("%v at %v", err, m.Position)
			}
			all = append(all, string(m.Payload))
		}
		after = c.Through
	}
	return all
}

func msg(topic, id, payload string) protocol.Message {
	return protocol.Message{Topic: topic, ID: id, Payload: []byte(payload)}
}

func TestLog(t *testing.T) {
	l := NewLog()
	r := put(t, l, msg("a", "1", "x"), msg("b", "1", "y"), msg("a", "1", "x"), msg("a", "1", "z"), msg("a", "", "w"))
	if !r[2].Duplicate || r[2].Position != r[0].Position || r[3].Err == nil || r[3].Err.Code != protocol.CodeIDConflict || r[4].Position.Offset != 5 {
		t.Errorf("%+v", r)
	}
	if got := payloads(t, l, ">", 0); !slices.Equal(got, []string{"x", "y", "w"}) {
		t.Error(got)
	}
	if got := payloads(t, l, "a", 1); !slices.Equal(got, []string{"w"}) {
		t.Error(got)
	}
	l.Refuse(protocol.Errorf(protocol.CodeStorageFull, "full"))
	if r := put(t, l, msg("a", "", "no")); r[0].Err == nil {
		t.Error("not refused")
	}
	l.Refuse(nil)
	l.Trim(2)
	if _, err := l.Read(storage.Query{After: 1}); !errors.Is(err, storage.ErrTrimmed) {
		t.Errorf("%v", err)
	}
}

func TestPositions(t *testing.T) {
	l := NewLog()
	old := put(t, l, msg("a", "", "1"), msg("a", "", "2"), msg("a", "lost", "3"))
	l.Reboot(1)
	r := put(t, l, msg("a", "", "4"), msg("a", "lost", "3"))
	if r[1].Duplicate {
		t.Error("the id of a lost message is remembered")
	}
	if got := payloads(t, l, "a", 0); !slices.Equal(got, []string{"1", "4", "3"}) {
		t.Error(got)
	}
	l.Trim(1)
	for _, c := range []struct {
		position protocol.Position
		after    uint64
		reason   string
	}{
		{old[0].Position, 1, ""},
		{old[2].Position, 1, storage.GapRolledBack},
		{r[0].Position, 2, ""},
		{protocol.Position{Term: r[0].Position.Term, Offset: 9}, 3, storage.GapRolledBack},
		{protocol.Position{Term: old[0].Position.Term, Offset: 0}, 1, storage.GapRetention},
		{protocol.Position{Term: 1, Offset: 2}, 1, storage.GapOtherLog},
	} {
		got, err := l.Resolve(protocol.Start{Kind: protocol.StartPosition, Position: c.position}, protocol.Filter{}, 3)
		reason := ""
		if got.Gap != nil {
			reason = got.Gap.Reason
		}
		if err != nil || got.After != c.after || reason != c.reason {
			t.Errorf("%s: %+v, %q, %v; want %d, %q", c.position, got, reason, err, c.after, c.reason)
		}
	}
}

// TestSuite: it behaves as the log on disk.
func TestSuite(t *testing.T) {
	logtest.Test(t, logtest.Maker{
		Open: func(*testing.T) logtest.Log { return NewLog() },
		Reopen: func(_ *testing.T, l logtest.Log) logtest.Log {
			_, head := l.Bounds()
			l.(*Log).Reboot(head)
			return l
		},
	})
}
