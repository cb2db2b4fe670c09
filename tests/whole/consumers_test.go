package whole_test

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidewire/tidewire/tests/judge"
)

// consumersAllowed lets the judge read the dead letters, too: whoever is not
// named may read nothing that belongs to the broker.
var consumersAllowed = []string{
	"TIDEWIRE_AUTH_ANONYMOUS_PUBLISH=>",
	"TIDEWIRE_AUTH_ANONYMOUS_CONSUME=>",
	"TIDEWIRE_AUTH_ANONYMOUS_SUBSCRIBE=>,$dead.>",
}

// Members of shared and exclusive consumers come and go, are cut off and freeze,
// while the broker is killed at any moment and started again at once. Every
// message ends as acknowledged or as a dead letter, no confirmed acknowledgement
// is undone, no attempt is counted that was not made, and of one ordering key
// never two are out at once.
func TestConsumersUnderKills(t *testing.T) {
	kills := 12
	if testing.Short() {
		kills = 2
	}
	soak, stop := context.WithTimeout(t.Context(), soakTime(t))
	defer stop()
	b := newBroker(t)
	b.env = append(consumersAllowed, small...)
	b.start()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	plan := judge.Plan{
		URLs: []string{b.url()}, Dir: filepath.Join(t.TempDir(), "run"),
		Publishers: 3, Subscribers: 1, Topics: 8, Keys: 150, PayloadBytes: 200, HTTPShare: 0.3, Rate: 400, Seed: seed,
		Consumers: []judge.Consumer{
			{Name: "shared", Members: 4, Fetchers: 2},
			{Name: "unordered", Members: 3, Fetchers: 1, Unordered: true},
			{Name: "exclusive", Members: 3, Exclusive: true},
		},
		Tuning: judge.Tuning{LeaveEvery: time.Second},
	}
	l, err := judge.Start(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	killed, began := 0, time.Now()
	for ; killed < kills || soak.Err() == nil; killed++ {
		answered, received, began := l.Answered(), l.Received(), time.Now()
		alive := time.Duration(rand.Int64N(int64(2 * time.Second)))
		within(t, 60*time.Second, "the load goes on", func() bool {
			return l.Answered() > answered && l.Received() > received && time.Since(began) > alive
		})
		l.Crash(b.kill)
		b.start()
	}
	t.Logf("%d kills in %v", killed, time.Since(began).Round(time.Second))
	l.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := l.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("it came to its end after %v", time.Since(began).Round(time.Second))
	r, err := judge.Verdict(plan.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	t.Logf("%+v %+v", r.Traffic, r.Work)
	if w := r.Work; w.Redelivered == 0 || w.Dead == 0 || w.Lost < killed || w.Fenced == 0 {
		t.Errorf("something did not come up: %+v", w)
	}
}
