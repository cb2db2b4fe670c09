package kafka_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
)

func TestWhatIsProducedIsFetchedInOrder(t *testing.T) {
	inWorld(t, 4, func(t *testing.T, w *world) {
		p := w.client.NewProducer(kafka.ProducerOptions{})
		defer p.Close()
		f := w.client.NewFetcher(kafka.FetcherOptions{})
		defer f.Close()
		var o outcomes
		want := names("v", 200)
		var readings []*reading
		for n := range int32(4) {
			readings = append(readings, add(t, f, n, 0))
		}
		for n := range int32(4) {
			for _, name := range want {
				var each outcomes
				each.write(t, p, n, name, time.Minute)
			}
		}
		_ = &o
		for _, r := range readings {
			within(t, 5*time.Second, "all fetched", func() bool { return len(r.all()) >= len(want) })
			if !slices.Equal(r.all(), want) {
				t.Errorf("got %v", r.all())
			}
		}
		if n := p.Queued(); n != 0 {
			t.Errorf("%d bytes are still queued", n)
		}
	})
}
