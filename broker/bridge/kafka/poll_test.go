package kafka

import (
	"testing"
	"time"
)

// An answer to what was asked before a Seek may arrive after it.
func TestALateAnswerIsDropped(t *testing.T) {
	c, err := New(Options{Brokers: []string{"localhost:1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f := c.NewFetcher(FetcherOptions{})
	l := &poll{fetcher: f, wake: make(chan struct{}, 1)}
	r := newReader(f, Source{Offset: 5})
	r.state, r.poll = readerPlaced, l
	l.readers = []*reader{r}
	f.readers[r.source.Partition] = r
	asked, _ := l.gather(func() {})
	set := written([]Record{{Value: []byte("v"), Time: time.UnixMilli(0)}})
	asked[0].part.answered, asked[0].part.set = true, at(set, 5)
	f.Seek(r.source.Partition, 3)
	if moved := l.take(asked, nil); moved || r.offset != 3 || len(r.queue) != 0 {
		t.Errorf("moved %t, goes on at %d, %d chunks", moved, r.offset, len(r.queue))
	}
	asked, _ = l.gather(func() {})
	asked[0].part.answered, asked[0].part.set = true, at(set, 3)
	if moved := l.take(asked, nil); !moved || r.offset != 4 || len(r.queue) != 1 {
		t.Errorf("moved %t, goes on at %d, %d chunks", moved, r.offset, len(r.queue))
	}
}
