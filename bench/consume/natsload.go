package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidewire/tidewire/bench/rig"
)

// natsRun is one run of NATS's members on a consumer of their own.
type natsRun struct {
	conns []*nats.Conn
	js    []jetstream.JetStream
	name  string
	count int
}

// stream is that of so many messages.
func (r *natsRun) stream() string { return fmt.Sprint("BENCH", r.count) }

// stepNATS does one run and prints the seconds: URL NAME COUNT HOW PENDING.
// What HOW can be is told at natsWays and natsConfirms.
func stepNATS(ctx context.Context, args []string) (err error) {
	count, err1 := strconv.Atoi(args[2])
	pending, err2 := strconv.Atoi(args[4])
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	r := &natsRun{name: args[1], count: count}
	for range members {
		nc, err := nats.Connect(args[0])
		if err != nil {
			return err
		}
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			return err
		}
		r.conns, r.js = append(r.conns, nc), append(r.js, js)
	}
	how, size, _ := strings.Cut(args[3], "-")
	n, _ := strconv.Atoi(size) // 0 where there is none
	switch how {
	case "fill":
		return r.fill(ctx)
	case "idle":
		return r.idle(ctx)
	}
	seconds, err := r.measure(ctx, how, n, pending)
	if err == nil {
		fmt.Println(seconds)
	}
	return err
}

// fill makes the stream and stores messages.
func (r *natsRun) fill(ctx context.Context) error {
	_, err := r.js[0].CreateStream(ctx, jetstream.StreamConfig{
		Name: r.stream(), Subjects: []string{topic(r.count)}, Storage: jetstream.FileStorage,
		MaxConsumers: 100_000, // it would allow 10,000
	})
	if err != nil {
		return err
	}
	js, err := jetstream.New(r.conns[0], jetstream.WithPublishAsyncMaxPending(4096))
	if err != nil {
		return err
	}
	payload := make([]byte, payloadBytes)
	for range r.count {
		if _, err := js.PublishAsync(topic(r.count), payload, jetstream.WithStallWait(time.Minute)); err != nil {
			return err
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-ctx.Done():
		return ctx.Err()
	}
	info, err := js.Stream(ctx, r.stream())
	if err == nil && info.CachedInfo().State.Msgs != uint64(r.count) {
		err = fmt.Errorf("NATS has %d messages of %d", info.CachedInfo().State.Msgs, r.count)
	}
	return err
}

// idle makes consumers that nobody reads, on the stream of one message.
func (r *natsRun) idle(ctx context.Context) error {
	errs := make([]error, members)
	var wg sync.WaitGroup
	for m := range members {
		wg.Go(func() {
			for i := m; i < r.count && errs[m] == nil; i += members {
				_, errs[m] = r.js[m].CreateConsumer(ctx, "BENCH1", jetstream.ConsumerConfig{
					Durable: fmt.Sprint(r.name, i), AckPolicy: jetstream.AckExplicitPolicy,
				})
			}
		})
	}
	wg.Wait()
	return rig.FirstError(errs)
}

// measure makes the consumer, has the members take and acknowledge everything,
// and returns the seconds from their first request until the server says that
// all is acknowledged.
func (r *natsRun) measure(ctx context.Context, how string, n, pending int) (seconds float64, err error) {
	config := jetstream.ConsumerConfig{Durable: r.name, AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: pending}
	if how == "push" {
		config.DeliverSubject, config.DeliverGroup = nats.NewInbox(), "members"
		_, err = r.js[0].CreatePushConsumer(ctx, r.stream(), config)
	} else {
		_, err = r.js[0].CreateConsumer(ctx, r.stream(), config)
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.js[0].DeleteConsumer(ctx, r.stream(), r.name)) }()
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	done := newTally(r.count)
	begin := time.Now()
	switch how {
	case "fetch":
		err = r.fetch(run, n, done)
	case "consume", "push":
		var stop func()
		stop, err = r.each(run, how, n, func(m jetstream.Msg) { done.one(m.Ack()) })
		defer stop()
	case "confirm":
		var stop func()
		stop, err = r.confirm(run, n, pending, done)
		defer stop()
	default:
		err = fmt.Errorf("there is no way %q", how)
	}
	if err := errors.Join(err, done.wait(run)); err != nil {
		return 0, err
	}
	return r.settled(run, begin, how == "push")
}

// each has every member handle what comes, on one goroutine each; n is how many
// messages it asks for at once.
func (r *natsRun) each(ctx context.Context, how string, n int, handle func(jetstream.Msg)) (stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, s := range stops {
			s()
		}
	}
	for _, js := range r.js {
		var running jetstream.ConsumeContext
		if how == "push" {
			var consumer jetstream.PushConsumer
			if consumer, err = js.PushConsumer(ctx, r.stream(), r.name); err == nil {
				running, err = consumer.Consume(handle)
			}
		} else {
			var consumer jetstream.Consumer
			if consumer, err = js.Consumer(ctx, r.stream(), r.name); err == nil {
				running, err = consumer.Consume(handle, jetstream.PullMaxMessages(n))
			}
		}
		if err != nil {
			return stop, err
		}
		stops = append(stops, running.Stop)
	}
	return stop, nil
}

// fetch has every member fetch n messages, acknowledge them, and fetch again.
func (r *natsRun) fetch(ctx context.Context, n int, done *tally) error {
	for _, js := range r.js {
		consumer, err := js.Consumer(ctx, r.stream(), r.name)
		if err != nil {
			return err
		}
		go func() {
			for ctx.Err() == nil && !done.over() {
				batch, err := consumer.Fetch(n, jetstream.FetchMaxWait(time.Second))
				if err != nil {
					done.stop(err)
					return
				}
				for m := range batch.Messages() {
					done.one(m.Ack())
				}
			}
		}()
	}
	return nil
}

// confirm has so many goroutines acknowledge, each one message at a time, and
// wait for the server's answer.
func (r *natsRun) confirm(ctx context.Context, goroutines, pending int, done *tally) (func(), error) {
	work := make(chan jetstream.Msg, pending)
	for range goroutines {
		go func() {
			for {
				select {
				case m := <-work:
					done.one(m.DoubleAck(ctx))
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	return r.each(ctx, "consume", pending/members, func(m jetstream.Msg) { work <- m })
}

// settled waits until the server has all acknowledgements.
func (r *natsRun) settled(ctx context.Context, begin time.Time, push bool) (float64, error) {
	for _, nc := range r.conns {
		if err := nc.FlushWithContext(ctx); err != nil {
			return 0, err
		}
	}
	for {
		var info *jetstream.ConsumerInfo
		var err error
		if push {
			var c jetstream.PushConsumer
			if c, err = r.js[0].PushConsumer(ctx, r.stream(), r.name); err == nil {
				info = c.CachedInfo()
			}
		} else {
			var c jetstream.Consumer
			if c, err = r.js[0].Consumer(ctx, r.stream(), r.name); err == nil {
				info = c.CachedInfo()
			}
		}
		if err != nil {
			return 0, err
		}
		if info.AckFloor.Stream == uint64(r.count) {
			return time.Since(begin).Seconds(), nil
		}
		<-time.After(time.Millisecond)
	}
}
