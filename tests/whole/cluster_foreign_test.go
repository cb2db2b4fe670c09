package whole_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidewire/tidewire/tests/kafka"
)

// A node loses its disk, reads everything again, and is not ready before it has.
func TestClusterWipe(t *testing.T) {
	n := startNodes(t, kafka.Options{})
	l := n.judge(n.plan())
	l.goesOn(3 * time.Second)
	b := n.brokers[1]
	b.kill()
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	b.launch()
	n.ready(b)
	l.goesOn(time.Second)
	l.verdict()
	topic := "judge.0.t0"
	want := history(t, n.brokers[0], topic)
	if got := history(t, b, topic); len(got) == 0 || strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the wiped node has %d messages of %s, another one %d", len(got), topic, len(want))
	}
}

// All nodes are started again, one after the other, under load.
func TestClusterRoll(t *testing.T) {
	n := startNodes(t, kafka.Options{}, "TIDEWIRE_SHUTDOWN_SPREAD=500ms")
	l := n.judge(n.plan())
	for _, b := range n.brokers {
		l.goesOn(500 * time.Millisecond)
		if code := b.terminate(); code != 0 {
			t.Errorf("exit status %d after SIGTERM, want 0", code)
		}
		l.goesOn(0)
		b.launch()
		n.ready(b)
	}
	if r := l.verdict(); r.Traffic.GoAways == 0 {
		t.Error("no subscriber was told to go away")
	}
}

// Other Kafka clients do to the topic what they can: what is a message arrives on all
// nodes, and nothing else does; ours are not disturbed.
func TestClusterForeignProducers(t *testing.T) {
	n := startNodes(t, kafka.Options{})
	l := n.judge(n.plan())
	l.goesOn(time.Second)
	const topic = "other.1"
	right := foreigner(t, n, kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	for i := range 20 {
		produce(t, right, &kgo.Record{Key: []byte(topic), Value: fmt.Append(nil, "good ", i)})
		produce(t, right, &kgo.Record{Value: []byte("null key")})
		produce(t, right, &kgo.Record{Key: []byte(topic)})
		produce(t, right, &kgo.Record{Key: []byte("a..b"), Value: []byte("no topic")})
		produce(t, right, &kgo.Record{Key: []byte("$dead.x"), Value: []byte("reserved")})
		produce(t, right, &kgo.Record{Key: []byte(topic), Value: []byte("forged"), Headers: []kgo.RecordHeader{{Key: "tidewire-origin", Value: []byte("\x01forged")}}})
	}
	wrong := foreigner(t, n, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for partition := range int32(2) { // one of them is the topic's
		produce(t, wrong, &kgo.Record{Key: []byte(topic), Value: []byte("by hand"), Partition: partition})
	}
	transact(t, n, topic)
	l.goesOn(time.Second)
	l.verdict()

	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint("good ", i))
	}
	want = append(want, "by hand")
	reasons := map[string]string{
		"null_key": "20", "null_value": "20", "invalid_topic": "20", "reserved_topic": "20", "forged": "20", "misplaced": "1", "transactional": "2",
	}
	for i, b := range n.brokers {
		if got := history(t, b, topic); strings.Join(got, ",") != strings.Join(want, ",") {
			t.Errorf("node %d has %q", i, got)
		}
		for reason, count := range reasons {
			if got := refusals(t, b, reason); got != count {
				t.Errorf("node %d has refused %s records as %s, want %s", i, got, reason, count)
			}
		}
	}
	within(t, 20*time.Second, "the refused records are copied", func() bool {
		ends, err := n.kafka.EndOffsets(t.Context(), "tidewire.bad")
		return err == nil && ends[0] >= 100
	})
}

// foreigner is a client of Kafka that knows nothing of Tidewire.
func foreigner(t *testing.T, n *nodes, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append(options, kgo.SeedBrokers(n.kafka.Addresses(kafka.Plain)...), kgo.DefaultProduceTopic("tidewire.main"))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func produce(t *testing.T, c *kgo.Client, r *kgo.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.ProduceSync(ctx, r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// transact writes a record in a transaction that is committed, and one in another
// that is not.
func transact(t *testing.T, n *nodes, topic string) {
	t.Helper()
	c := foreigner(t, n, kgo.TransactionalID("foreign"))
	for _, commit := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		if err := c.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		produce(t, c, &kgo.Record{Key: []byte(topic), Value: []byte("in a transaction")})
		if err := c.EndTransaction(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
	}
}

// history reads the payloads of a topic from a node.
func history(t *testing.T, b *broker, topic string) (payloads []string) {
	t.Helper()
	from := "earliest"
	for {
		resp, err := http.Get("http://" + b.listen + "/v1/topics/" + topic + "/messages?limit=1000&from=" + from)
		if err != nil {
			t.Fatal(err)
		}
		var page struct {
			Messages []struct{ Payload string }
			Next     string
		}
		err = json.NewDecoder(resp.Body).Decode(&page)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Messages) == 0 {
			return payloads
		}
		for _, m := range page.Messages {
			payloads = append(payloads, m.Payload)
		}
		from = page.Next
	}
}

// refusals reads how many records a node has refused for a reason, in all partitions.
func refusals(t *testing.T, b *broker, reason string) string {
	t.Helper()
	resp, err := http.Get("http://" + b.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, m := range regexp.MustCompile(`(?m)^tidewire_kafka_refused_total\{.*reason="`+reason+`".*stream="main".*\} (\d+)`).FindAllStringSubmatch(string(text), -1) {
		var v int
		_, _ = fmt.Sscan(m[1], &v)
		sum += v
	}
	return fmt.Sprint(sum)
}

// The topic of a stream is deleted and made again while no node runs: no node serves
// the stream before somebody says that what was in it may go.
func TestClusterTopicRecreated(t *testing.T) {
	n := startNodes(t, kafka.Options{})
	n.brokers[0].publish("room.1", "before")
	for _, b := range n.brokers {
		b.kill()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := n.kafka.DeleteTopic(ctx, "tidewire.main"); err != nil {
		t.Fatal(err)
	}
	if err := n.kafka.CreateTopic(ctx, "tidewire.main", kafka.Topic{Partitions: 2, Config: map[string]string{"retention.ms": "-1"}}); err != nil {
		t.Fatal(err)
	}
	b := n.brokers[0]
	b.launch()
	if code := b.awaitExit(time.Minute); code == 0 {
		t.Error("it ended with 0")
	}
	if !strings.Contains(b.stderr.String(), "new-term") {
		t.Error("it does not say what to do")
	}
	if out := n.tool("new-term", "main", "--yes"); !strings.Contains(out, "defined") {
		t.Errorf("new-term says %s", out)
	}
	for _, b := range n.brokers {
		b.launch()
	}
	n.ready(n.brokers...)
	n.brokers[0].publish("room.1", "after")
	for i, b := range n.brokers {
		within(t, 20*time.Second, "the message arrives", func() bool { return len(history(t, b, "room.1")) > 0 })
		if got := history(t, b, "room.1"); strings.Join(got, ",") != "after" {
			t.Errorf("node %d has %q", i, got)
		}
	}
}
