package hostfeed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
)

// Topic is where the figures go.
const Topic = "demo.host"

// lookBack is how many of the last messages are searched for the last number:
// anybody may publish to the topic.
const lookBack = 100

// A point is one message. What could not be measured is left out.
type point struct {
	N    int64     `json:"n"` // from 1 on, without a hole, also over restarts of everything
	Time time.Time `json:"time"`
	figures
}

// Run publishes until ctx ends, or the broker refuses. It waits for a broker at
// that URL, and goes on when it dies.
func Run(ctx context.Context, url string, pace *Pace) error {
	client, err := tidewire.Connect(ctx, tidewire.Options{URLs: []string{url}, Name: "tidewire-demo"})
	if err != nil {
		return err
	}
	defer func() {
		gone, stop := context.WithCancel(context.Background())
		stop()
		_ = client.Close(gone) // nobody waits for its last figures
	}()
	page, err := client.History(ctx, Topic, tidewire.HistoryOptions{Before: "new", Limit: lookBack})
	if err != nil {
		return fmt.Errorf("find the last number: %w", err)
	}
	f := &feed{last: lastNumber(page.Messages), pace: pace, meter: newMeter()}
	f.send = func(ctx context.Context, m tidewire.Message) (answer, error) { return client.PublishAsync(ctx, m) }
	return f.run(ctx)
}

// lastNumber returns the highest number among stored messages.
func lastNumber(stored []tidewire.Message) int64 {
	const most = 1 << 53 // a page counts in floating point
	var last int64
	for i := range stored {
		var p struct{ N int64 }
		if json.Unmarshal(stored[i].Payload, &p) == nil && p.N < most {
			last = max(last, p.N)
		}
	}
	return last
}

// feed measures and publishes.
type feed struct {
	last  int64
	pace  *Pace
	meter interface{ read() figures }
	send  func(context.Context, tidewire.Message) (answer, error)
}

// answer is a [tidewire.Pending].
type answer interface {
	Wait(ctx context.Context) (tidewire.Receipt, error)
}

// waiting bounds the messages whose answers are waited for: what does not fit
// into the client's outbox any more is not measured.
const waiting = 10_000

func (f *feed) run(ctx context.Context) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	sent := make(chan answer, waiting)
	go func() {
		for {
			select {
			case p := <-sent:
				if _, err := p.Wait(ctx); err != nil {
					end(err)
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	timer := time.NewTimer(f.pace.interval())
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		timer.Reset(f.pace.interval())
		p, err := f.publish(ctx)
		if err != nil {
			return reason(ctx, err)
		}
		select {
		case sent <- p:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// reason returns why ctx has ended if err says that it has.
func reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, ctx.Err()) {
		return cause
	}
	return err
}

func (f *feed) publish(ctx context.Context) (answer, error) {
	payload, err := json.Marshal(point{f.last + 1, time.Now().UTC().Truncate(time.Millisecond), f.meter.read()})
	if err != nil {
		return nil, err
	}
	p, err := f.send(ctx, tidewire.Message{Topic: Topic, ContentType: "application/json", Payload: payload})
	if err == nil {
		f.last++
	}
	return p, err
}
