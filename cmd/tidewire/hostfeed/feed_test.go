package hostfeed

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
)

type noMeter struct{}

func (noMeter) read() figures { return figures{} }

// answered is a message that was answered, with this error.
type answered struct{ err error }

func (a answered) Wait(context.Context) (tidewire.Receipt, error) { return tidewire.Receipt{}, a.err }

// TestPace counts what is published while listeners come and go.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var sent atomic.Int64
		f := &feed{pace: NewPace(), meter: noMeter{}, send: func(context.Context, tidewire.Message) (answer, error) {
			sent.Add(1)
			return answered{}, nil
		}}
		done := make(chan error)
		go func() { done <- f.run(ctx) }()
		step := func(d time.Duration, want int) {
			t.Helper()
			sent.Store(0)
			time.Sleep(d)
			synctest.Wait()
			if n := int(sent.Load()); n < want-2 || n > want+2 {
				t.Errorf("%d messages in %v, want about %d", n, d, want)
			}
		}
		step(time.Minute, 600) // after the start
		step(time.Minute, 60)
		f.pace.SetAudience(2)
		time.Sleep(time.Second)
		step(10*time.Second, 100)
		f.pace.SetAudience(0) // the broker is killed, or the tab goes
		step(50*time.Second, 500)
		f.pace.SetAudience(1)
		step(59*time.Minute, 35400)
		time.Sleep(2 * time.Minute)
		step(time.Minute, 60) // a forgotten tab
		f.pace.SetAudience(2)
		time.Sleep(time.Second)
		step(10*time.Second, 100)
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it ends with %v", err)
		}
	})
}

// What is not taken has no number.
func TestNumbersHaveNoHoles(t *testing.T) {
	full := false
	var last int64
	f := &feed{last: 41, meter: noMeter{}, send: func(_ context.Context, m tidewire.Message) (answer, error) {
		if full {
			return nil, context.DeadlineExceeded
		}
		var p point
		if err := json.Unmarshal(m.Payload, &p); err != nil {
			t.Error(err)
		}
		last = p.N
		return nil, nil
	}}
	for i, refuse := range []bool{false, true, true, false} {
		full = refuse
		if _, err := f.publish(t.Context()); (err != nil) != refuse {
			t.Errorf("%d: %v", i, err)
		}
	}
	if last != 43 {
		t.Errorf("the last one has the number %d, want 43", last)
	}
}

func TestLastNumber(t *testing.T) {
	var stored []tidewire.Message
	for _, text := range []string{`{"n":6}`, `{"n":7,"cpu":1}`, `hello`, `{"n":"x"}`, `{"n":5}`, `{"n":9007199254740993}`, ``} {
		stored = append(stored, tidewire.Message{Payload: []byte(text)})
	}
	if got := lastNumber(stored); got != 7 {
		t.Errorf("%d, want 7", got)
	}
	if got := lastNumber(nil); got != 0 {
		t.Errorf("of nothing: %d", got)
	}
}

func TestMeter(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("what can be measured elsewhere is not known")
	}
	m := newMeter()
	began := time.Now()
	for { // until the clock of the processor has ticked
		f := m.read()
		if f.Memory == nil || *f.Memory <= 0 || *f.Memory > 100 || f.RX == nil || *f.RX < 0 || f.TX == nil {
			t.Fatalf("%+v", f)
		}
		if f.CPU != nil && *f.CPU > 0 && *f.CPU <= 100 {
			return
		}
		if time.Since(began) > 30*time.Second {
			t.Fatalf("no processor time in half a minute: %+v", f)
		}
	}
}

// A refusal ends the feed: it would be refused again and again.
func TestRefusalEndsTheFeed(t *testing.T) {
	refusal := &tidewire.Error{Code: tidewire.CodeForbidden, Message: "not here"}
	f := &feed{pace: NewPace(), meter: noMeter{}, send: func(context.Context, tidewire.Message) (answer, error) {
		return answered{refusal}, nil
	}}
	if err := f.run(t.Context()); !errors.Is(err, error(refusal)) {
		t.Errorf("it ends with %v", err)
	}
}
