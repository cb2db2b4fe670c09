package tidewire

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// ConsumeOptions say what a consumer reads and how. Where the consumer is there
// already, the zero value joins it as it is.
type ConsumeOptions struct {
	// Filter selects the topics. It is needed to create the consumer, and fixed then.
	Filter string
	// Stream is the stream to read, where the filter could match topics of several.
	Stream string
	// From is where a new consumer begins: `earliest` (default), `new`, `last:N`, a
	// duration before now such as `-10m`, an RFC 3339 time, or a position. It does
	// not matter where the consumer is there already.
	From string
	// Settings of the consumer, for its creation, and to change those that are given
	// where it is there already.
	Settings ConsumerSettings

	// Concurrency is how many handlers of Consume run at a time. Default: 1.
	Concurrency int
	// Window is how many messages the broker may have under way to this client.
	// Default: Concurrency for Consume, 16 for [Client.Consumer].
	Window int
	// NoExtend leaves it to the program to call [Delivery.Extend]. Else what waits
	// for Next, and what a handler of Consume works on, is kept from being delivered
	// again until it is done: each message is extended at a third of the ack wait.
	NoExtend bool
	// Grace is how long handlers of Consume that run when its ctx ends may go on,
	// before the ctx that they have ends too. Default: 30 s.
	Grace time.Duration

	// Logger is told of handlers that panicked, and of what OnUnsettled and OnGap
	// would be told if they were not nil. Default: slog.Default().
	Logger *slog.Logger
	// OnUnsettled is told when the broker did not take what was said of a message,
	// and nobody waits for that answer: with CodeFenced it is another member's by
	// now, with CodeNotPending it was settled before. It must not block.
	OnUnsettled func(d *Delivery, err *Error)
	// OnGap is told of messages that can no longer be had and that nobody was ever
	// given: retention has taken them. If it is nil, the logger is. It must not block.
	OnGap func(*GapError)
	// OnRefused is told when the broker cannot serve the consumer for now. It is
	// asked again after a pause. OnRefused must not block.
	OnRefused func(*Error)
}

// ConsumerSettings are what a consumer of the broker is set to, for all of its
// members. A zero field means the default when the consumer is created, and what
// is set already when it is there.
type ConsumerSettings struct {
	// AckWait is how long a message may take to be settled before it is delivered
	// again. Default: 30 s.
	AckWait time.Duration
	// Backoff bounds the pause before the second attempt. The bound grows by
	// BackoffFactor with each attempt, up to BackoffCap; the pause is random below
	// it, unless BackoffExact is set. Defaults: 1 s, 2, 1 min, which is the most.
	Backoff       time.Duration
	BackoffFactor float64
	BackoffCap    time.Duration
	BackoffExact  bool
	// MaxDeliver is how many attempts a message gets before it becomes a dead
	// letter. Default: 10.
	MaxDeliver int
	// MaxInFlight and MaxInFlightBytes bound what all members have under way.
	// Default: 256, 4 MiB.
	MaxInFlight      int
	MaxInFlightBytes int64
	// MaxWaiting bounds what waits for another attempt or for its key. At the bound
	// no new messages come. Default: 10,000.
	MaxWaiting int
	// Exclusive is for one member at a time: a new one takes over, and the one before
	// ends with CodeTakenOver. It cannot be changed afterwards.
	Exclusive bool
	// Unordered lets messages of one key be under way at the same time. Else they
	// come one after the other.
	Unordered bool
}

const (
	defaultWindow  = 16
	defaultAckWait = 30 * time.Second // the broker's own
	defaultGrace   = 30 * time.Second
)

// check refuses what cannot be meant.
func (o *ConsumeOptions) check(name string) error {
	if name == "" {
		return errors.New("the consumer has no name: one that is the same in all programs that share its messages")
	}
	if o.Filter != "" {
		if _, err := protocol.ParseFilter(o.Filter); err != nil {
			return err
		}
	}
	if _, err := protocol.ParseStart(o.From); err != nil {
		return err
	}
	if o.Concurrency < 0 || o.Window < 0 || o.Window > math.MaxUint32 {
		return errors.New("the Concurrency or Window is below 0 or too large")
	}
	return o.Settings.check()
}

func (s *ConsumerSettings) check() error {
	for name, d := range map[string]time.Duration{"AckWait": s.AckWait, "Backoff": s.Backoff, "BackoffCap": s.BackoffCap} {
		if d < 0 || d%time.Millisecond != 0 {
			return fmt.Errorf("%s is not a number of whole milliseconds: %v", name, d)
		}
	}
	for name, n := range map[string]int{"MaxDeliver": s.MaxDeliver, "MaxInFlight": s.MaxInFlight, "MaxWaiting": s.MaxWaiting} {
		if n < 0 || n > math.MaxUint32 {
			return fmt.Errorf("%s is below 0 or too large: %d", name, n)
		}
	}
	if s.MaxInFlightBytes < 0 || s.BackoffFactor < 0 {
		return errors.New("the MaxInFlightBytes or BackoffFactor is below 0")
	}
	return nil
}

// wire returns what to send; nil if nothing is set.
func (s *ConsumerSettings) wire() *tidewirev1.ConsumerSettings {
	if *s == (ConsumerSettings{}) {
		return nil
	}
	f := &tidewirev1.ConsumerSettings{
		AckWaitMs: millis(s.AckWait), BackoffBaseMs: millis(s.Backoff), BackoffCapMs: millis(s.BackoffCap),
		MaxDeliver: given(uint32(s.MaxDeliver)), MaxInFlight: given(uint32(s.MaxInFlight)),
		MaxWaiting: given(uint32(s.MaxWaiting)), MaxInFlightBytes: given(uint64(s.MaxInFlightBytes)),
		BackoffFactor: given(s.BackoffFactor), Exclusive: given(s.Exclusive),
	}
	if s.BackoffExact {
		f.BackoffJitter = new(false)
	}
	if s.Unordered {
		f.Ordered = new(false)
	}
	return f
}

func millis(d time.Duration) *uint64 { return given(uint64(d.Milliseconds())) }

// given returns nil for what is not set.
func given[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
