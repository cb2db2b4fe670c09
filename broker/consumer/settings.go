package consumer

import (
	"math"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// The bounds of settings.
const (
	MinAckWait            = 100 * time.Millisecond
	MaxAckWait            = 12 * time.Hour
	MaxBackoff            = 60 * time.Second
	MaxBackoffFactor      = 100
	MaxDeliverLimit       = 1000
	MaxInFlightLimit      = 65_536
	MinInFlightBytes      = 1 << 10
	MaxInFlightBytesLimit = 1 << 30
	MaxWaitingLimit       = 1_000_000
)

// Settings say what a consumer reads and how patient it is. Filter, Stream and
// Exclusive are fixed when it is created.
type Settings struct {
	Filter, Stream   string
	AckWait          time.Duration // how long a delivered message may go unanswered
	Backoff          Backoff
	MaxDeliver       int   // attempts, after which a message is dead
	MaxInFlight      int   // messages delivered and not answered
	MaxWaiting       int   // messages taken that are not in flight; at it no new one is taken
	MaxInFlightBytes int64 // like MaxInFlight; a larger message goes alone
	Exclusive        bool  // one member at a time, and the last to come is it
	Ordered          bool  // of one ordering key one message at a time
}

// Backoff says how long a message waits after a failed attempt: Base times
// Factor for each attempt before it, at most Cap. With Jitter the wait is drawn
// between nothing and that, so that what failed together does not come back
// together.
type Backoff struct {
	Base, Cap time.Duration
	Factor    float64
	Jitter    bool
}

// DefaultSettings are the settings of who asked for nothing; Filter and Stream
// are empty.
func DefaultSettings() Settings {
	return Settings{
		AckWait:          30 * time.Second,
		Backoff:          Backoff{Base: time.Second, Cap: MaxBackoff, Factor: 2, Jitter: true},
		MaxDeliver:       10,
		MaxInFlight:      256,
		MaxWaiting:       10_000,
		MaxInFlightBytes: 4 << 20,
		Ordered:          true,
	}
}

// Check returns nil if every value is within its bounds. Filter and Stream are
// not looked at.
func (s Settings) Check() *protocol.Error {
	if s.AckWait < MinAckWait || s.AckWait > MaxAckWait {
		return refuse("ack_wait is %v: give %v to %v", s.AckWait, MinAckWait, MaxAckWait)
	}
	if err := s.Backoff.check(); err != nil {
		return err
	}
	for _, v := range []struct {
		name              string
		value, least, top int64
	}{
		{"max_deliver", int64(s.MaxDeliver), 1, MaxDeliverLimit},
		{"max_in_flight", int64(s.MaxInFlight), 1, MaxInFlightLimit},
		{"max_in_flight_bytes", s.MaxInFlightBytes, MinInFlightBytes, MaxInFlightBytesLimit},
		{"max_waiting", int64(s.MaxWaiting), 1, MaxWaitingLimit},
	} {
		if v.value < v.least || v.value > v.top {
			return refuse("%s is %d: give %d to %d", v.name, v.value, v.least, v.top)
		}
	}
	return nil
}

func (b Backoff) check() *protocol.Error {
	switch {
	case b.Base < 0:
		return refuse("the backoff's base is %v: give 0 or more", b.Base)
	case b.Cap < 0 || b.Cap > MaxBackoff:
		return refuse("the backoff's cap is %v: give 0 to %v", b.Cap, MaxBackoff)
	case !(b.Factor >= 1 && b.Factor <= MaxBackoffFactor): // also not a number
		return refuse("the backoff's factor is %v: give 1 to %d", b.Factor, MaxBackoffFactor)
	}
	return nil
}

// ChangeTo returns nil if a consumer with these settings can be given the next
// ones, which are within their bounds.
func (s Settings) ChangeTo(next Settings) *protocol.Error {
	fixed := func(what string, is, wanted any) *protocol.Error {
		return protocol.Errorf(protocol.CodeConsumerFixed,
			"the consumer's %s is %v and cannot become %v: leave it out, or create a consumer of another name", what, is, wanted)
	}
	switch {
	case s.Filter != next.Filter:
		return fixed("filter", s.Filter, next.Filter)
	case s.Stream != next.Stream:
		return fixed("stream", s.Stream, next.Stream)
	case s.Exclusive != next.Exclusive:
		return fixed("mode", mode(s.Exclusive), mode(next.Exclusive))
	}
	return next.Check()
}

func mode(exclusive bool) string {
	if exclusive {
		return "exclusive"
	}
	return "shared"
}

func refuse(format string, args ...any) *protocol.Error {
	return protocol.Errorf(protocol.CodeBadRequest, format, args...)
}

// wait is how long a message waits after its attempt of that number (1 is the
// first), in microseconds.
func (b Backoff) wait(attempts int, random func(int64) int64) int64 {
	if b.Base <= 0 || b.Cap <= 0 {
		return 0
	}
	longest := b.Cap.Microseconds()
	if f := float64(b.Base.Microseconds()) * math.Pow(b.Factor, float64(attempts-1)); f < float64(longest) {
		longest = int64(f)
	}
	if !b.Jitter || random == nil {
		return longest
	}
	return random(longest + 1)
}
