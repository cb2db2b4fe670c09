package bridge

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
)

// TestRecreated: a topic that was made anew, whatever is in it, is not mistaken for
// the one before, neither at work nor after a restart, whether its id is known or
// not.
func TestRecreated(t *testing.T) {
	for _, running := range []bool{false, true} {
		for _, records := range []int{0, 3, 5, 20} {
			t.Run(fmt.Sprintf("%d records, node at work %t", records, running), func(t *testing.T) {
				inWorld(t, 1, func(w *world) { recreate(w, records, running) })
			})
		}
	}
}

func recreate(w *world, records int, running bool) {
	t := w.t
	n := w.node()
	n.run()
	for i := range 5 {
		n.stored("a", "", fmt.Sprint(i))
	}
	if !running {
		n.stop()
	}
	w.recreated()
	for i := range records {
		w.produce(0, plain("a", fmt.Sprint(i)))
	}
	if !running {
		n = w.nodeAt(n.dir)
		n.run()
		if r := <-n.publish(entryOf("a", "", "early")); r.Err == nil || r.Err.Code != protocol.CodeLogUnavailable {
			t.Errorf("before its log was compared: %+v", r)
		}
		if end := w.cluster.PartitionInfo(w.def.Topic, 0).HighWatermark; end != int64(records) {
			t.Errorf("the other log has %d records, and had %d", end, records)
		}
	}
	defer n.stop()
	until(t, "it halts", func() bool { err := n.Ready(); return err != nil && strings.Contains(err.Error(), "halted") })
	if err := n.Ready(); !strings.Contains(err.Error(), "tidewire kafka new-term") {
		t.Errorf("no way out: %v", err)
	}
	if r := <-n.publish(entryOf("a", "", "late")); r.Err == nil || r.Err.Code != protocol.CodeLogUnavailable {
		t.Errorf("%+v", r)
	}
	if got := fmt.Sprint(n.read(0)); got != "[0 1 2 3 4]" {
		t.Errorf("%s", got)
	}
}

// TestNewTerm is the way out: the same data directory with another term.
func TestNewTerm(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		n := w.node()
		n.run()
		at := n.stored("a", "id", "old").Position
		n.stop()
		w.recreated()
		w.def.Term = 78
		n = w.nodeAt(n.dir, func(o *StreamOptions) { o.Renew = true })
		n.run()
		defer n.stop()
		if r := n.stored("a", "id", "new"); r.Duplicate || r.Position.Term != 78 {
			t.Errorf("%+v", r)
		}
		f, _ := protocol.ParseFilter(">")
		r, err := n.partitions[0].Resolve(protocol.Start{Kind: protocol.StartPosition, Position: at}, f, 0)
		if err != nil || r.Gap == nil || r.Gap.Reason != "other_log" {
			t.Errorf("%+v, gap %+v, %v", r, r.Gap, err)
		}
	})
}

// TestMarks: what one node has read can be compared by another that has lost its
// data.
func TestMarks(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a := w.node()
		a.run()
		for i := range 5 {
			a.stored("a", "", fmt.Sprint(i))
		}
		mark := a.partitions[0].Mark()
		a.stop()
		if mark.Offset != 4 || mark.Checksum == 0 {
			t.Errorf("%+v", mark)
		}
		b := w.node()
		defer b.close()
		if err := b.partitions[0].Verify(w.t.Context(), mark); err != nil {
			t.Error(err)
		}
		for _, change := range []func(*Mark){
			func(m *Mark) { m.Checksum++ }, func(m *Mark) { m.Epoch++ }, func(m *Mark) { m.Offset++ }, func(m *Mark) { m.Offset-- },
		} {
			other := mark
			change(&other)
			if err := b.partitions[0].Verify(w.t.Context(), other); err == nil {
				t.Errorf("%+v fits", other)
			}
		}
		if err := b.partitions[0].Compare(w.t.Context(), mark); err != nil || b.partitions[0].status.haltedBy() != nil {
			t.Error(err)
		}
		if err := w.cluster.DeleteRecords(w.def.Topic, 0, 5); err != nil {
			t.Fatal(err)
		}
		if err := b.partitions[0].Verify(w.t.Context(), mark); err != nil {
			t.Errorf("gone by retention: %v", err)
		}
		w.recreated()
		for i := range 9 {
			w.produce(0, plain("a", fmt.Sprint(i)))
		}
		c := w.node() // which has nothing to compare but what the others say
		defer c.close()
		if err := c.partitions[0].Compare(w.t.Context(), mark); err == nil || c.partitions[0].status.haltedBy() == nil {
			t.Errorf("a topic that was made anew: %v", err)
		}
	})
}

// TestLeaderMoves: another leader with the same log changes nothing.
func TestLeaderMoves(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		second, _, err := w.cluster.AddNode(-1, 9092)
		if err != nil {
			t.Fatal(err)
		}
		n := w.node()
		n.run()
		defer n.stop()
		for i := range 6 {
			if err := w.cluster.MoveTopicPartition(w.def.Topic, 0, []int32{0, second}[i%2]); err != nil {
				t.Fatal(err)
			}
			n.stored("a", "", fmt.Sprint(i))
			pass(time.Second)
		}
		if got := fmt.Sprint(n.read(0)); got != "[0 1 2 3 4 5]" || n.Ready() != nil {
			t.Errorf("%s, %v", got, n.Ready())
		}
	})
}

// TestChecks: each setting that a stream cannot live with is one sentence with a
// way out, and refuses the start.
func TestChecks(t *testing.T) {
	tests := []struct {
		name, value string
		fatal       bool
		says        string
	}{
		{"cleanup.policy", "compact", true, "cleanup.policy=delete"},
		{"retention.ms", "3600000", true, "lower retention_age"},
		{"retention.bytes", "1000000", true, "lower retention_bytes"},
		{"max.message.bytes", "1000", true, "max.message.bytes=1000000"},
		{"message.timestamp.type", "LogAppendTime", false, "times of their publishers"},
		{"", "", false, "one copy of each partition"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				w.def.Topic = "tidewire.checked"
				spec, err := w.def.Spec(TopicOptions{Replication: 1, Retention: 7 * 24 * time.Hour})
				if err != nil {
					t.Fatal(err)
				}
				if test.name != "" {
					spec.Configs[test.name] = test.value
				}
				c := w.client()
				defer c.Close()
				if _, err := c.CreateTopic(w.t.Context(), spec); err != nil {
					t.Fatal(err)
				}
				findings, err := w.def.Check(w.t.Context(), c, Local{Age: 7 * 24 * time.Hour, Bytes: 10 << 30})
				if err != nil {
					t.Fatal(err)
				}
				found := false
				for _, f := range findings {
					found = found || f.Fatal == test.fatal && strings.Contains(f.Sentence, test.says)
					if f.Fatal && !test.fatal {
						t.Error(f.Sentence)
					}
				}
				if !found {
					t.Errorf("nothing about it: %+v", findings)
				}
				n, err := w.open(w.t.TempDir())
				if (err != nil) != test.fatal {
					t.Errorf("open: %v", err)
				}
				n.close()
			})
		})
	}
	inWorld(t, 1, func(w *world) {
		w.def.Partitions = 2
		n, err := w.open(w.t.TempDir())
		if err == nil || !strings.Contains(err.Error(), "has 1 partitions, and the stream main was made with 2") {
			t.Errorf("%v", err)
		}
		n.close()
		w.def.Topic = "tidewire.none"
		n, err = w.open(w.t.TempDir())
		if err == nil || !strings.Contains(err.Error(), "tidewire kafka init") {
			t.Errorf("%v", err)
		}
		n.close()
	})
}

// recreated deletes the topic and creates it again.
func (w *world) recreated() {
	w.t.Helper()
	if err := w.cluster.DeleteTopic(w.def.Topic); err != nil {
		w.t.Fatal(err)
	}
	if err := w.cluster.CreateTopic(w.def.Topic, 1, nil); err != nil {
		w.t.Fatal(err)
	}
}

// TestReplicasAreTold: what a failure of Kafka's nodes would do is said.
func TestReplicasAreTold(t *testing.T) {
	for _, c := range []struct {
		copies          int
		inSync, unclean string
		says            string
	}{
		{3, "2", "false", ""},
		{1, "1", "false", "one copy of each partition"},
		{3, "1", "false", "min.insync.replicas=2"},
		{2, "2", "false", "nothing can be published"},
		{3, "2", "true", "unclean.leader.election.enable=false"},
	} {
		f := &findings{topic: "t", settings: map[string]string{setMinInSync: c.inSync, setUnclean: c.unclean}}
		whole, less := make([]int32, 3), make([]int32, c.copies)
		f.replicas(kafka.Topic{Partitions: []kafka.PartitionInfo{{Replicas: whole}, {Replicas: less}}})
		switch {
		case c.says == "" && len(f.found) == 0:
		case len(f.found) != 1 || c.says == "" || f.found[0].Fatal || !strings.Contains(f.found[0].Sentence, c.says):
			t.Errorf("%d copies, %s in sync: %+v, want %q", c.copies, c.inSync, f.found, c.says)
		}
	}
}
