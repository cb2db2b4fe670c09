package bridge

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
)

// softNode is a node as far as ephemeral messages go. The topic of the world is
// theirs.
type softNode struct {
	*Soft
	w      *world
	client *kafka.Client
	stop   context.CancelFunc
	ended  sync.WaitGroup

	mu   sync.Mutex
	came []string
}

func (w *world) soft() *softNode {
	n := &softNode{w: w, client: w.client()}
	n.Soft = NewSoft(NewLink(n.client), SoftOptions{
		Topic: w.def.Topic, Secret: w.def.Secret, MaxPayload: 1 << 10, Logger: slog.New(slog.DiscardHandler), Deliver: n.deliver,
	})
	ctx, stop := context.WithCancel(w.t.Context())
	n.stop = stop
	n.ended.Go(func() { n.Run(ctx) })
	synctest.Wait()
	return n
}

func (n *softNode) close() {
	n.stop()
	n.ended.Wait()
	n.link.Close()
	n.client.Close()
}

func (n *softNode) deliver(record []byte) {
	m, err := protocol.ParseRecord(record)
	if err != nil {
		n.w.t.Error(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.came = append(n.came, m.Topic+" "+string(m.Payload))
}

// take returns what has come since the last call, after a while.
func (n *softNode) take() []string {
	time.Sleep(5 * time.Second) // of virtual time: long polls and pauses end
	n.mu.Lock()
	defer n.mu.Unlock()
	came := n.came
	n.came = nil
	return came
}

func (n *softNode) send(topic, payload string) {
	n.Send(topic, protocol.AppendRecord(nil, &protocol.Message{Topic: topic, Payload: []byte(payload), Time: time.Now()}))
}

func (n *softNode) dropped(reason string) int {
	return int(testutil.ToFloat64(n.metrics.dropped.WithLabelValues(reason)))
}

// Others get what a node sends, in the order of each topic; the node itself does
// not, and who comes later gets nothing from before.
func TestSoftReachesOthers(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		a, b := w.soft(), w.soft()
		defer a.close()
		defer b.close()
		want := make(map[string][]string)
		for i := range 300 {
			topic := fmt.Sprintf("cursor.%d", i%7)
			a.send(topic, fmt.Sprint(i))
			want[topic] = append(want[topic], fmt.Sprint(i))
		}
		got := make(map[string][]string)
		for _, line := range b.take() {
			var topic, payload string
			if _, err := fmt.Sscan(line, &topic, &payload); err != nil {
				t.Fatal(err)
			}
			got[topic] = append(got[topic], payload)
		}
		for topic := range want {
			if !slices.Equal(got[topic], want[topic]) {
				t.Errorf("%s: %v, want %v", topic, got[topic], want[topic])
			}
		}
		if own := a.take(); len(own) > 0 {
			t.Errorf("the node got its own: %v", own)
		}
		late := w.soft()
		defer late.close()
		b.send("x", "new")
		if came := late.take(); !slices.Equal(came, []string{"x new"}) {
			t.Errorf("who came later got %v", came)
		}
	})
}

// While Kafka is away they are dropped and counted, and none of them comes late.
func TestSoftWhileKafkaIsAway(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.soft(), w.soft()
		defer a.close()
		defer b.close()
		w.cut(true)
		for range 10 {
			a.send("x", "lost")
		}
		if came := b.take(); len(came) > 0 || a.dropped(softAway) != 10 {
			t.Errorf("came %v, dropped %d; want none and 10", came, a.dropped(softAway))
		}
		w.cut(false)
		time.Sleep(10 * time.Second)
		a.send("x", "again")
		if came := b.take(); !slices.Equal(came, []string{"x again"}) {
			t.Errorf("after Kafka came back: %v", came)
		}
	})
}

// Only what a broker of the cluster has just written is delivered, and once.
func TestSoftRefuses(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		b := w.soft()
		defer b.close()
		client := w.client()
		defer client.Close()
		producer := client.NewProducer(kafka.ProducerOptions{})
		defer producer.Close()
		record := protocol.AppendRecord(nil, &protocol.Message{Topic: "x", Payload: []byte("v"), Time: time.Now()})
		sealed := func(secret []byte, sequence uint64, topic string, value []byte) []kafka.Header {
			return []kafka.Header{{Key: headerOrigin, Value: newSealer(secret).encode(Origin{Boot: 7, Sequence: sequence}, topic, "", value)}}
		}
		own, other := w.def.Secret, make([]byte, minSecret)
		large := protocol.AppendRecord(nil, &protocol.Message{Topic: "x", Payload: make([]byte, 2<<10), Time: time.Now()})
		write := func(r kafka.Record) {
			if r.Time.IsZero() {
				r.Time = time.Now()
			}
			done := make(chan error, 1)
			err := producer.Produce(kafka.Write{
				Partition: kafka.Partition{Topic: w.def.Topic}, Records: []kafka.Record{r}, Deadline: time.Now().Add(time.Minute),
				Done: func(p kafka.Produced) { done <- p.Err },
			})
			if err == nil {
				err = <-done
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range []kafka.Record{
			{Key: []byte("x"), Value: record},                                                           // of nobody
			{Key: []byte("x"), Value: record, Headers: []kafka.Header{{Key: headerOrigin}}},             // of nobody
			{Key: []byte("x"), Value: record, Headers: sealed(other, 1, "x", record)},                   // another cluster's
			{Key: []byte("y"), Value: record, Headers: sealed(own, 1, "x", record)},                     // moved to another topic
			{Key: []byte("y"), Value: record, Headers: sealed(own, 2, "y", record)},                     // key and record differ
			{Key: []byte("x"), Value: record[:5], Headers: sealed(own, 3, "x", record[:5])},             // torn
			{Key: []byte("x"), Value: large, Headers: sealed(own, 4, "x", large)},                       // too large
			{Value: nil, Headers: sealed(own, 5, "", nil)},                                              // nothing
			{Key: []byte("x"), Value: append(record, record...), Headers: sealed(other, 6, "x", large)}, // anything
		} {
			write(r)
		}
		if came := b.take(); len(came) > 0 || b.dropped(softForeign) != 9 {
			t.Errorf("came %v, refused %d; want none and 9", came, b.dropped(softForeign))
		}
		write(kafka.Record{Key: []byte("x"), Value: record, Headers: sealed(own, 10, "x", record), Time: time.Now().Add(-time.Hour)})
		if came := b.take(); len(came) > 0 || b.dropped(softOld) != 1 {
			t.Errorf("an old one: came %v, dropped %d", came, b.dropped(softOld))
		}
		for range 2 { // as produce retries do
			write(kafka.Record{Key: []byte("x"), Value: record, Headers: sealed(own, 11, "x", record)})
		}
		if came := b.take(); !slices.Equal(came, []string{"x v"}) {
			t.Errorf("a good one twice: %v", came)
		}
	})
}
