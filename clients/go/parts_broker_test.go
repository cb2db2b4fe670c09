package tidewire_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	"github.com/tidewire/tidewire/broker/server"
	tidewire "github.com/tidewire/tidewire/clients/go"
)

// parted is a running broker whose stream main has three partitions.
func parted(t *testing.T) *tidewire.Client {
	t.Helper()
	main := broker.Stream{Name: broker.MainStream}
	for _, l := range brokertest.NewPartitions(3) {
		main.Logs = append(main.Logs, l)
	}
	b := broker.New(nil, broker.Options{}, main)
	s, err := server.New(b, server.Options{Access: server.Access{Loopback: true}})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	h := s.HTTP(s.Public())
	running.Go(func() { _ = b.Run(ctx) })
	running.Go(func() { _ = h.Serve(s.Gate(listener)) })
	c, err := tidewire.Connect(ctx, tidewire.Options{URLs: []string{"http://" + listener.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close(context.Background())
		cancel()
		_ = h.Close()
		running.Wait()
	})
	return c
}

// TestResumeInSeveralPartitions: whoever keeps the position after a message, leaves
// and comes back with it, has each message once and those of a topic in order.
func TestResumeInSeveralPartitions(t *testing.T) {
	c := parted(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 9))
	const count = 300
	want := map[string][]string{}
	publish := func(n int) {
		for range n {
			topic := fmt.Sprintf("room.%d", rng.IntN(9))
			text := fmt.Sprint(len(want[topic]))
			want[topic] = append(want[topic], text)
			if _, err := c.Publish(ctx, tidewire.Message{Topic: topic, Payload: []byte(text)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish(count / 2)
	got := map[string][]string{}
	from, left, times := "earliest", count, 0
	for ; left > 0; times++ {
		sub, err := c.Subscribe(ctx, "room.*", tidewire.SubscribeOptions{From: from})
		if err != nil {
			t.Fatal(err)
		}
		if times == 1 {
			publish(count / 2)
		}
		take := min(1+rng.IntN(20), left)
		for m, err := range sub.Messages(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			got[m.Topic] = append(got[m.Topic], string(m.Payload))
			from = sub.PositionAfter(m)
			if take--; take == 0 || rng.IntN(30) == 0 {
				break
			}
		}
		sub.Close()
		left = count
		for _, list := range got {
			left -= len(list)
		}
	}
	for topic := range want {
		if !slices.Equal(got[topic], want[topic]) {
			t.Errorf("%s: got %v, want %v", topic, got[topic], want[topic])
		}
	}
	if strings.Count(from, "-") != 3 {
		t.Errorf("the position %s does not list three partitions", from)
	}
	for topic, list := range want {
		var read []string
		for page, err := range c.HistoryPages(ctx, topic, tidewire.HistoryOptions{Limit: 7}) {
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range page.Messages {
				read = append(read, string(m.Payload))
			}
		}
		if !slices.Equal(read, list) {
			t.Errorf("the history of %s has %v, want %v", topic, read, list)
		}
	}
}
