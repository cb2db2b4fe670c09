package whole_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidewire/tidewire/tests/kafka"
)

// What init finds is told, and not covered up: a topic that is gone, and one whose
// records belong to a cluster that nobody remembers.
func TestClusterInitAgain(t *testing.T) {
	n := layNodes(t, kafka.Options{})
	n.init()
	if out := n.tool("init"); !strings.Contains(out, "stream main is there") {
		t.Errorf("a second init says %s", out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	drop := func(topic string) {
		if err := n.kafka.DeleteTopic(ctx, topic); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(want string) {
		t.Helper()
		within(t, 20*time.Second, "init refuses with "+want, func() bool {
			out, err := n.try("init")
			return err != nil && strings.Contains(out, want)
		})
	}
	drop("tidewire.main")
	refused("has lost its topic tidewire.main in Kafka: run `tidewire kafka new-term main`")
	n.tool("new-term", "main", "--yes")
	produce(t, foreigner(t, n), &kgo.Record{Topic: "tidewire.main", Key: []byte("room.1"), Value: []byte("hello")})
	drop("tidewire.control")
	refused("the topic tidewire.main has records already")
	if out := n.tool("init", "--adopt"); !strings.Contains(out, "stream main is defined") {
		t.Errorf("init --adopt says %s", out)
	}
	for _, b := range n.brokers {
		b.launch()
	}
	n.ready(n.brokers...)
	within(t, 20*time.Second, "the message of before is here", func() bool {
		return strings.Join(history(t, n.brokers[1], "room.1"), ",") == "hello"
	})
}
