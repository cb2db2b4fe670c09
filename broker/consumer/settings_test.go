package consumer_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/protocol"
)

func TestSettingsAreBounded(t *testing.T) {
	if err := consumer.DefaultSettings().Check(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	type change = func(*consumer.Settings)
	for say, c := range map[string]struct {
		good, bad []change
	}{
		"ack_wait": {
			good: []change{func(s *consumer.Settings) { s.AckWait = 100 * time.Millisecond }, func(s *consumer.Settings) { s.AckWait = 12 * time.Hour }},
			bad:  []change{func(s *consumer.Settings) { s.AckWait = 99 * time.Millisecond }, func(s *consumer.Settings) { s.AckWait = 12*time.Hour + 1 }},
		},
		"base": {
			good: []change{func(s *consumer.Settings) { s.Backoff.Base = 0 }, func(s *consumer.Settings) { s.Backoff.Base = s.Backoff.Cap + 1 }},
			bad:  []change{func(s *consumer.Settings) { s.Backoff.Base = -1 }},
		},
		"cap": {
			good: []change{func(s *consumer.Settings) { s.Backoff.Cap = 60 * time.Second }, func(s *consumer.Settings) { s.Backoff.Cap = 0 }},
			bad:  []change{func(s *consumer.Settings) { s.Backoff.Cap = 60*time.Second + 1 }, func(s *consumer.Settings) { s.Backoff.Cap = -1 }},
		},
		"factor": {
			good: []change{func(s *consumer.Settings) { s.Backoff.Factor = 1 }, func(s *consumer.Settings) { s.Backoff.Factor = 100 }},
			bad: []change{
				func(s *consumer.Settings) { s.Backoff.Factor = 0.9 }, func(s *consumer.Settings) { s.Backoff.Factor = 101 },
				func(s *consumer.Settings) { s.Backoff.Factor = math.NaN() }, func(s *consumer.Settings) { s.Backoff.Factor = math.Inf(1) },
			},
		},
		"max_deliver": {
			good: []change{func(s *consumer.Settings) { s.MaxDeliver = 1 }, func(s *consumer.Settings) { s.MaxDeliver = 1000 }},
			bad:  []change{func(s *consumer.Settings) { s.MaxDeliver = 0 }, func(s *consumer.Settings) { s.MaxDeliver = 1001 }},
		},
		"max_in_flight ": {
			good: []change{func(s *consumer.Settings) { s.MaxInFlight = 1 }, func(s *consumer.Settings) { s.MaxInFlight = 65_536 }},
			bad:  []change{func(s *consumer.Settings) { s.MaxInFlight = 0 }, func(s *consumer.Settings) { s.MaxInFlight = 65_537 }},
		},
		"max_in_flight_bytes": {
			good: []change{func(s *consumer.Settings) { s.MaxInFlightBytes = 1024 }, func(s *consumer.Settings) { s.MaxInFlightBytes = 1 << 30 }},
			bad:  []change{func(s *consumer.Settings) { s.MaxInFlightBytes = 1023 }, func(s *consumer.Settings) { s.MaxInFlightBytes = 1<<30 + 1 }},
		},
		"max_waiting": {
			good: []change{func(s *consumer.Settings) { s.MaxWaiting = 1 }, func(s *consumer.Settings) { s.MaxWaiting = 1_000_000 }},
			bad:  []change{func(s *consumer.Settings) { s.MaxWaiting = 0 }, func(s *consumer.Settings) { s.MaxWaiting = 1_000_001 }},
		},
	} {
		for i, change := range c.good {
			s := consumer.DefaultSettings()
			if change(&s); s.Check() != nil {
				t.Errorf("%s, good %d: %v", say, i, s.Check())
			}
		}
		for i, change := range c.bad {
			s := consumer.DefaultSettings()
			change(&s)
			err := s.Check()
			if err == nil || err.Code != protocol.CodeBadRequest || !strings.Contains(err.Message, say) || !strings.Contains(err.Message, "give ") {
				t.Errorf("%s, bad %d: %v", say, i, err)
			}
		}
	}
}

func TestWhatMayChange(t *testing.T) {
	is := consumer.DefaultSettings()
	is.Filter, is.Stream = "orders.>", "main"
	next := is
	next.AckWait, next.Backoff, next.MaxDeliver, next.MaxInFlight = time.Second, consumer.Backoff{Factor: 1}, 3, 4
	next.MaxWaiting, next.MaxInFlightBytes, next.Ordered = 5, 2048, false
	if err := is.ChangeTo(next); err != nil {
		t.Error(err)
	}
	for what, change := range map[string]func(*consumer.Settings){
		"filter": func(s *consumer.Settings) { s.Filter = "orders.*" },
		"stream": func(s *consumer.Settings) { s.Stream = "audit" },
		"mode":   func(s *consumer.Settings) { s.Exclusive = true },
	} {
		next := is
		change(&next)
		if err := is.ChangeTo(next); err == nil || err.Code != protocol.CodeConsumerFixed || !strings.Contains(err.Message, what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	next.MaxDeliver = 0
	if err := is.ChangeTo(next); err == nil || err.Code != protocol.CodeBadRequest {
		t.Errorf("out of bounds: %v", err)
	}
}

// waits are how long each failed attempt of a message waits for the next one.
func waits(t *testing.T, b consumer.Backoff, random func(int64) int64) []time.Duration {
	r := newRig(t, func(s *consumer.Settings) { s.Backoff, s.MaxDeliver = b, 1000 })
	r.take(1, 0)
	var all []time.Duration
	now := int64(0)
	for range 9 {
		r.Nack(0, 1, nil, consumer.Moment{Now: now, Random: random})
		e, _ := r.Entry(1)
		all = append(all, time.Duration(e.Due-now)*time.Microsecond)
		now = e.Due
		if _, ok := r.Retry(1, now); !ok {
			t.Fatal("it is not ready when it is due")
		}
	}
	return all
}

func TestBackoff(t *testing.T) {
	in := func(seconds ...float64) (all []time.Duration) {
		for _, s := range seconds {
			all = append(all, time.Duration(s*float64(time.Second)))
		}
		return all
	}
	most := func(n int64) int64 { return n - 1 }
	half := func(n int64) int64 { return n / 2 }
	none := func(int64) int64 { return 0 }
	doubling := consumer.Backoff{Base: time.Second, Cap: 60 * time.Second, Factor: 2}
	jitter := doubling
	jitter.Jitter = true
	for name, c := range map[string]struct {
		b      consumer.Backoff
		random func(int64) int64
		want   []time.Duration
	}{
		"doubling":          {doubling, none, in(1, 2, 4, 8, 16, 32, 60, 60, 60)},
		"jitter, most":      {jitter, most, in(1, 2, 4, 8, 16, 32, 60, 60, 60)},
		"jitter, half":      {jitter, half, in(.5, 1, 2, 4, 8, 16, 30, 30, 30)},
		"jitter, none":      {jitter, none, in(0, 0, 0, 0, 0, 0, 0, 0, 0)},
		"jitter, no random": {jitter, nil, in(1, 2, 4, 8, 16, 32, 60, 60, 60)},
		"even":              {consumer.Backoff{Base: time.Second, Cap: 3 * time.Second, Factor: 1}, none, in(1, 1, 1, 1, 1, 1, 1, 1, 1)},
		"steep":             {consumer.Backoff{Base: time.Millisecond, Cap: 60 * time.Second, Factor: 100}, none, in(.001, .1, 10, 60, 60, 60, 60, 60, 60)},
		"beyond its cap":    {consumer.Backoff{Base: 5 * time.Second, Cap: time.Second, Factor: 2}, none, in(1, 1, 1, 1, 1, 1, 1, 1, 1)},
		"at once":           {consumer.Backoff{Base: 0, Cap: 60 * time.Second, Factor: 100, Jitter: true}, most, in(0, 0, 0, 0, 0, 0, 0, 0, 0)},
	} {
		for i, got := range waits(t, c.b, c.random) {
			if got != c.want[i] {
				t.Errorf("%s: after attempt %d it waits %v, want %v", name, i+1, got, c.want[i])
			}
		}
	}
}

// Attempts so many that the power is beyond all numbers wait the cap.
func TestBackoffOfManyAttempts(t *testing.T) {
	r := newRig(t, func(s *consumer.Settings) { s.Backoff.Factor, s.MaxDeliver = 100, 1000 })
	r.take(1, 0)
	now := int64(0)
	for range 998 {
		r.Nack(0, 1, nil, consumer.Moment{Now: now})
		now += 60 * second
		if _, ok := r.Retry(1, now); !ok {
			t.Fatal("it waits longer than a minute")
		}
	}
	r.state(1, consumer.InFlight, 999)
}
