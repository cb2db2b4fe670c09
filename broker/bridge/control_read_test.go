package bridge

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
)

// TestWhatAControlReadingHandsOver: each index at most once, in order; what is of a
// transaction, of Kafka itself or cannot be read is a hole, and so is what Kafka has left out.
func TestWhatAControlReadingHandsOver(t *testing.T) {
	records := func(offsets ...int64) (all []kafka.Record) {
		for _, o := range offsets {
			all = append(all, kafka.Record{Offset: o, Value: []byte{byte('a' + o)}})
		}
		return all
	}
	var got []string
	r := &controlReading{
		Control: &Control{opts: ControlOptions{Logger: slog.New(slog.DiscardHandler)}},
		next:    3,
		sink: func(index uint64, value []byte) error {
			if value == nil {
				got = append(got, fmt.Sprintf("%d -", index))
			} else {
				got = append(got, fmt.Sprintf("%d %s", index, value))
			}
			return nil
		},
	}
	for _, b := range []kafka.Batch{
		{Base: 0, Last: 3, Records: records(1, 2, 3)},
		{Base: 4, Last: 5, Records: records(4, 5), Transactional: true},
		{Base: 6, Last: 6, Control: true},
		{Base: 7, Last: 9, Records: records(8)},
		{Base: 10, Last: 11, Bad: errors.New("bad"), Records: records(10)},
		{Base: 7, Last: 9, Records: records(8)},
		{Base: 12, Last: 12, Records: records(12)},
	} {
		if err := r.take(t.Context(), kafka.Fetched{Batches: []kafka.Batch{b}}); err != nil {
			t.Fatal(err)
		}
	}
	if is, want := strings.Join(got, ", "), "3 c, 4 d, 6 -, 7 -, 9 i, 10 -, 12 -, 13 m"; is != want {
		t.Errorf("handed over: %s, want %s", is, want)
	}
}
