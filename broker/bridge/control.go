package bridge

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/broker/cluster"
)

const (
	// controlDeadline is how long the producer of Kafka tries by itself. After it the same
	// value is handed to it anew, without end.
	controlDeadline = 10 * time.Second

	// controlPause is the pause before something that failed at once is tried again.
	controlPause = 500 * time.Millisecond

	// controlSave is how often the place in the topic is written down.
	controlSave = time.Minute
)

// ControlOptions are what [OpenControl] needs; zero values are useful but for Client.
type ControlOptions struct {
	Client *kafka.Client
	Topic  string // "tidewire.control"
	// File, if not empty, keeps which topic it was and how far it was read, so that a
	// topic that was recreated, or has lost its end, is not taken for the old one.
	File   string
	Logger *slog.Logger
}

// Control is the control topic: the log on which the nodes of a cluster agree. It
// is the [cluster.Log] of a [cluster.Node].
//
// It has connections of its own, so that the nodes hear of each other however busy the streams are.
// While Kafka is away it waits, and Trouble tells why.
type Control struct {
	opts     ControlOptions
	id       kafka.TopicID
	producer *kafka.Producer
	known    *controlPlace // nil without a file

	mu      sync.Mutex
	trouble error // of the last try, nil after a success
}

var _ cluster.Log = (*Control)(nil)

// OpenControl checks the topic and opens it. While Kafka is away it waits until ctx
// ends. An error says what is wrong with the topic.
func OpenControl(ctx context.Context, o ControlOptions) (*Control, error) {
	if o.Topic == "" {
		o.Topic = "tidewire.control"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Control{opts: o}
	t, err := c.check(ctx)
	if err != nil {
		return nil, err
	}
	c.id = t.ID
	if c.known, err = openControlPlace(o.File); err == nil {
		err = c.recognise(ctx)
	}
	if err != nil {
		return nil, err
	}
	c.producer = o.Client.NewProducer(kafka.ProducerOptions{})
	return c, nil
}

// Close gives up what is under way. Reading must have ended.
func (c *Control) Close() {
	c.producer.Close()
	if err := c.known.save(); err != nil {
		c.opts.Logger.Error("the place in the control topic cannot be written down", "error", err)
	}
}

// ID is the identity that Kafka gave to the topic.
func (c *Control) ID() kafka.TopicID { return c.id }

// Trouble returns what the last try to reach the topic met, nil if it succeeded.
func (c *Control) Trouble() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trouble
}

// tell notes how a try ended, and logs when that changes.
func (c *Control) tell(err error) {
	c.mu.Lock()
	before := c.trouble
	c.trouble = err
	c.mu.Unlock()
	switch {
	case err != nil && before == nil:
		c.opts.Logger.Warn("the control topic cannot be reached", "topic", c.opts.Topic, "error", err)
	case err == nil && before != nil:
		c.opts.Logger.Info("the control topic is reached again", "topic", c.opts.Topic)
	}
}

func (c *Control) partition() kafka.Partition { return kafka.Partition{Topic: c.opts.Topic} }

// Produce implements [cluster.Log].
func (c *Control) Produce(ctx context.Context, value []byte) error {
	return c.persist(ctx, controlMends, func() error {
		ended := make(chan error, 1)
		err := c.producer.Produce(kafka.Write{
			Partition: c.partition(), Deadline: time.Now().Add(controlDeadline),
			Records: []kafka.Record{{Time: time.Now(), Value: value}},
			Done:    func(p kafka.Produced) { ended <- p.Err },
		})
		if err != nil {
			return err
		}
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// Bounds implements [cluster.Log].
func (c *Control) Bounds(ctx context.Context) (first, last uint64, err error) {
	err = c.persist(ctx, controlMends, func() error {
		t, err := c.opts.Client.Topic(ctx, c.opts.Topic)
		if err != nil {
			return err
		}
		b, err := c.opts.Client.Bounds(ctx, t)
		if err == nil {
			first, last = uint64(b[0].Start)+1, uint64(b[0].End)
		}
		return err
	})
	return first, last, err
}

// persist tries until it succeeds, ctx ends, or trying again mends nothing.
func (c *Control) persist(ctx context.Context, mends func(error) bool, try func() error) error {
	for {
		err := try()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.tell(err)
		if err == nil || !mends(err) {
			return err
		}
		select {
		case <-time.After(controlPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// controlMends reports whether the same may succeed later: also when an operator gives a
// permission, or a certificate.
func controlMends(err error) bool {
	switch kafka.KindOf(err) {
	case kafka.TooLarge, kafka.Invalid, kafka.Closed, kafka.TooOld, kafka.TopicChanged, kafka.OutOfRange, "":
		return false
	default:
		return true
	}
}

// Read implements [cluster.Log]. All nodes take a value alike: those of transactions, which
// may have been aborted, and those that cannot be read are none.
func (c *Control) Read(ctx context.Context, from uint64, sink func(index uint64, value []byte) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f := c.opts.Client.NewFetcher(kafka.FetcherOptions{})
	defer f.Close()
	defer c.saving(ctx)()
	r := &controlReading{Control: c, next: from, sink: sink}
	err := f.Add(kafka.Source{
		Partition: c.partition(), ID: c.id, Offset: int64(from) - 1,
		Sink: func(ctx context.Context, got kafka.Fetched) error {
			err := r.take(ctx, got)
			if err != nil {
				cancel(err)
			}
			return err
		},
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// saving writes the place down now and then, until the function that it returns is called.
func (c *Control) saving(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() {
		tick := time.NewTicker(controlSave)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if err := c.known.save(); err != nil {
				c.opts.Logger.Error("the place in the control topic cannot be written down", "error", err)
			}
		}
	})
	return func() {
		cancel()
		work.Wait()
	}
}
