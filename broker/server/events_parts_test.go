package server

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// TestEventsOfSeveralPartitions ends a stream after each event and comes back with
// its id: that is the place of the whole subscription, so nothing is missing and
// nothing comes twice, whichever partition the event was of.
func TestEventsOfSeveralPartitions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const count = 24
		for cut := range count + 1 {
			e := newTestEdgeParted(t, 3)
			_, client := e.serve()
			var want, got []string
			publish := func(n int) {
				for range n {
					text := fmt.Sprintf("%02d", len(want))
					e.publishText("t."+fmt.Sprint(len(want)%7), text)
					want = append(want, text)
				}
			}
			take := func(s *source, n int) {
				for range n {
					ev, ok := s.next()
					if !ok {
						t.Fatalf("the stream ends after %v", got)
					}
					got = append(got, ev.payload())
				}
			}
			publish(count / 2)
			s := e.open(client, "filter=t.*&from=earliest")
			synctest.Wait()
			publish(count / 2)
			take(s, cut)
			_ = s.body.Close()
			id := s.lastID
			if cut == 0 {
				id = e.first(client)
			}
			if strings.Count(id, "-") != 3 {
				t.Fatalf("the id %q does not list three partitions", id)
			}
			rest := e.open(client, "filter=t.*", "Last-Event-ID: "+id)
			take(rest, count-cut)
			_ = rest.body.Close()
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Fatalf("cut after %d events: %v", cut, got)
			}
		}
	})
}

// first returns the id that a stream begins with.
func (e *testEdge) first(client *http.Client) string {
	s := e.open(client, "filter=nothing.>&from=earliest")
	defer func() { _ = s.body.Close() }()
	for s.lastID == "" {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			e.t.Fatal(err)
		}
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			s.lastID = strings.TrimSpace(id)
		}
	}
	return s.lastID
}
