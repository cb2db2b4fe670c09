package whole_test

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"
)

// Killed at any moment, a broker with several streams loses, doubles and reorders
// nothing in any of them; their logs are rebuilt each for itself.
func TestKillWithStreams(t *testing.T) {
	kills := 8
	if testing.Short() {
		kills = 1
	}
	b := newBroker(t)
	b.env = append([]string{
		"TIDEWIRE_STREAMS_OTHERS_0_NAME=orders", "TIDEWIRE_STREAMS_OTHERS_0_FILTERS=orders.>",
		"TIDEWIRE_STREAMS_OTHERS_0_SEGMENT_BYTES=1MiB", "TIDEWIRE_STREAMS_OTHERS_0_WINDOW_BYTES=1MiB",
		"TIDEWIRE_STREAMS_OTHERS_1_NAME=idle", "TIDEWIRE_STREAMS_OTHERS_1_FILTERS=idle.>,nothing",
	}, small...)
	b.start()
	orders, ordersVerdict := startLoadOn(t, b, "orders")
	rest, restVerdict := startLoadOn(t, b, "rest")
	for range kills {
		first, second, began := orders.Answered(), rest.Answered(), time.Now()
		alive := time.Duration(rand.Int64N(int64(2 * time.Second)))
		within(t, 60*time.Second, "both loads go on", func() bool {
			return orders.Answered() > first && rest.Answered() > second && time.Since(began) > alive
		})
		b.kill()
		b.start()
	}
	ordersVerdict()
	restVerdict()
	for name, want := range map[string]bool{"main": true, "orders": true, "idle": false} {
		if has := messagesOf(t, b)[name] > 0; has != want {
			t.Errorf("the stream %s has messages: %v, want %v", name, has, want)
		}
	}
}

// messagesOf returns how many messages each stream has.
func messagesOf(t *testing.T, b *broker) map[string]int {
	t.Helper()
	response, err := http.Get("http://" + b.admin + "/v1/streams")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Streams []struct {
			Name     string
			Messages int
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	counts := make(map[string]int)
	for _, s := range answer.Streams {
		counts[s.Name] = s.Messages
	}
	return counts
}
