package logtest

import (
	"fmt"
	"slices"

	"github.com/tidewire/tidewire/storage"
)

// newest: the newest record of each topic, from any place and however few at a
// time, and no other is read.
func (s *suite) newest() {
	var results []storage.Result
	for part := range 4 {
		var entries []*storage.Entry
		for i := range 12 {
			entries = append(entries, entry(fmt.Sprintf("t.%d", (part*5+i*i)%9), "", fmt.Sprint(part*12+i)))
		}
		results = append(results, s.publish(entries...)...)
	}
	topics := make(map[string]int)
	for part := range 4 {
		for i := range 12 {
			topics[fmt.Sprintf("t.%d", (part*5+i*i)%9)] = part*12 + i
		}
	}
	head := results[len(results)-1].Position.Offset
	for _, filter := range []string{"t.*", ">", "t.3", "none"} {
		for _, from := range []int{0, 20, 47} {
			var want []int
			for topic, i := range topics {
				if i > from && s.filter(filter).Match(topic) {
					want = append(want, i)
				}
			}
			slices.Sort(want)
			for _, n := range []int{1, 3, 100} {
				s.want(fmt.Sprintf("newest of %s above %d, %d at a time", filter, from, n), s.readNewest(filter, results[from].Position.Offset, head, n), want)
			}
		}
	}
}

// readNewest reads the newest records of a range in rounds of n.
func (s *suite) readNewest(filter string, after, through uint64, n int) (payloads []string) {
	s.Helper()
	for after < through {
		offsets, covered, err := s.log.Newest(s.filter(filter), after, through, n)
		if err != nil || len(offsets) > n || covered <= after || covered > through || !slices.IsSorted(offsets) {
			s.Fatalf("newest above %d: %v, covers up to %d, %v", after, offsets, covered, err)
		}
		for after < covered {
			c, err := s.log.Read(storage.Query{Filter: s.filter(filter), After: after, Through: covered, MaxBytes: 50, Picked: true, Offsets: offsets})
			if err != nil || c.After != after || c.Through <= after || c.Through > covered {
				s.Fatalf("read %v above %d: (%d, %d], %v", offsets, after, c.After, c.Through, err)
			}
			for m, err := range c.Messages() {
				if err != nil || !slices.Contains(offsets, m.Position.Offset) {
					s.Fatalf("%v, which was not asked for: %v", m.Position, err)
				}
				payloads = append(payloads, string(m.Payload))
			}
			after = c.Through
		}
	}
	return payloads
}
