package tidewire

import "time"

// SubscribeOptions say where a subscription begins and how much it may hold. The
// zero value begins with what is stored from now on.
type SubscribeOptions struct {
	// From is `new` (default), `earliest`, `last:N`, `last-per-topic`, a duration
	// before now such as `-10m`, an RFC 3339 time, or a position, which means after
	// it.
	From string
	// Stream is the stream to read. It is needed only where the filter could match
	// topics of several: a subscription reads one.
	Stream string
	// QueueBytes bounds what was received and not yet handled, about. The broker has
	// credit for an eighth of it, and gets more as the loop handles what has come.
	// Default: 8 MiB.
	QueueBytes int
	// Slow says what the broker does when the loop or the connection cannot keep up.
	// Default: SlowCatchUp.
	Slow SlowPolicy
	// ConflateEvery is for SlowConflate: each topic comes at most once in this time,
	// its newest message then. Whole milliseconds, at most a minute. 0 means that
	// only a subscription that is behind is conflated.
	ConflateEvery time.Duration
	// NoEcho leaves out what this client publishes over the same connection.
	NoEcho bool
	// ManualCredit leaves it to the program to say how much the broker may send:
	// Credit bytes at first, and more with each [Subscription.Grant]. One frame more
	// may come, of 64 KiB or a single larger message.
	ManualCredit bool
	// Credit is for ManualCredit.
	Credit uint32
	// OnGap is told of messages that can no longer be had. If it is nil, a gap
	// comes out of the loop as an error, see [Subscription.Messages].
	OnGap func(*GapError)
	// OnCaughtUp is called once, when all that was stored at the time of Subscribe
	// has been handled. It and OnGap run between two messages, on the goroutine of
	// the loop.
	OnCaughtUp func()
	// OnRefused is told when the broker cannot serve the subscription for now, for
	// instance because a part of its log is damaged. It is asked again after a
	// pause. OnRefused runs on the goroutine that reads the connection and must not
	// block.
	OnRefused func(*Error)
}

const defaultQueueBytes = 8 << 20
