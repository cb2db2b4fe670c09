package protocol

import (
	"math"
	"strings"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

// The subprotocols of GET /v1/ws.
const (
	SubprotocolProto = "tidewire.v1.proto"
	SubprotocolJSON  = "tidewire.v1.json"
)

// A Codec turns frames into the bytes of one subprotocol and back. The frames
// are the generated structs of tidewire.v1, except those that are many:
// [Publish], [Published] and [Settle], and Deliver, which is made of a head for
// each subscription and a tail that all subscriptions share.
type Codec interface {
	// Subprotocol returns the name under which a client asks for the codec.
	Subprotocol() string

	// DecodeClient reads a frame from a client: *Publish, *Settle, or one of
	// *tidewirev1.Connect, Subscribe, Unsubscribe, Pong, Refresh and Flow; nil for a
	// frame that this version does not know. Payloads may be parts of b. limits
	// bound what is allocated. Errors that make the frame unreadable have the
	// code bad_frame; a [RequestError] refuses one request and leaves the
	// connection whole.
	DecodeClient(b []byte, limits FrameLimits) (any, error)

	// AppendServer appends a frame of the server: *Published, *Progress or one of
	// the generated structs, except Deliver.
	AppendServer(b []byte, frame any) []byte

	// AppendDeliverHead and AppendDeliverTail together append a Deliver frame.
	// The tail depends on the chunk alone; tailSize is its length in bytes.
	AppendDeliverHead(b []byte, sub uint32, tailSize int) []byte
	AppendDeliverTail(b []byte, chunk *Chunk) []byte

	// Placed reports whether Deliver frames carry the position of the whole
	// subscription, as a text. In a stream of several partitions a tail is then
	// that of one subscription, see [Chunk.Others].
	Placed() bool
}

// FrameLimits bound what one frame may hold.
type FrameLimits struct {
	Messages      int // in one Publish
	Subscriptions int // in one Connect
}

// Publish is the frame that publishes messages.
type Publish struct {
	Ref       uint32 // number of the first message; the others follow modulo 2^32
	Messages  []Message
	Resume    bool
	RepeatAge time.Duration
}

// Published is the frame that answers published messages.
type Published struct {
	Results []PublishResult
}

// PublishResult is what became of one published message.
type PublishResult struct {
	Ref       uint32
	Position  Position // zero if it was refused or is ephemeral
	Duplicate bool
	Err       *Error
}

// Progress is the frame that moves the cursors of quiet subscriptions. Others are
// the places of the subscription in the other partitions, if it reads several:
// then it is the only one.
type Progress struct {
	Subs   []uint32
	At     Position
	Others []Place
}

// frame returns the frame without the other places, which binary clients keep.
func (p *Progress) frame() *tidewirev1.Progress {
	return &tidewirev1.Progress{Subs: p.Subs, Partition: p.At.Partition, Term: p.At.Term.String(), Through: p.At.Offset}
}

// A RequestError is the refusal of one request whose frame could be read well
// enough to know its number.
type RequestError struct {
	Request string // type of its frame, as JSON names it
	Ref     uint32
	Sub     uint32
	Err     *Error
}

// Error returns the refusal's text.
func (e *RequestError) Error() string { return e.Err.Error() }

// Unwrap returns the refusal.
func (e *RequestError) Unwrap() error { return e.Err }

// Frame returns the frame that tells a client of the refusal.
func (e *RequestError) Frame() *tidewirev1.Error {
	f := ErrorFrame(e.Ref, e.Sub, e.Err)
	f.Request = e.Request
	return f
}

// ErrorFrame returns the frame that tells a client of err, which refuses no
// request: it ends a subscription or, with two zeros, the connection.
func ErrorFrame(ref, sub uint32, err *Error) *tidewirev1.Error {
	wait := err.RetryAfter.Milliseconds()
	if err.RetryAfter > 0 && err.RetryAfter < time.Millisecond {
		wait = 1 // 0 means unknown
	}
	return &tidewirev1.Error{
		Ref: ref, Sub: sub, Code: strings.ToValidUTF8(string(err.Code), "\uFFFD"), Message: strings.ToValidUTF8(err.Message, "\uFFFD"),
		Retryable: err.Retryable(), RetryAfterMs: uint32(min(max(wait, 0), math.MaxUint32)),
	}
}

// FrameError returns the error that a frame tells of; nil stays nil.
func FrameError(f *tidewirev1.Error) *Error {
	if f == nil {
		return nil
	}
	return &Error{
		Code: Code(f.Code), Message: f.Message, RetryAfter: time.Duration(f.RetryAfterMs) * time.Millisecond,
		final: !f.Retryable && Code(f.Code).index() < 0,
	}
}

// maxCapabilities bounds the capabilities in one Connect.
const maxCapabilities = 64

// checkConnect refuses a Connect that lists too much.
func checkConnect(subscriptions, capabilities int, limits FrameLimits) *Error {
	switch {
	case subscriptions > limits.Subscriptions:
		return Exceeded(LimitSubscriptions, "the connect frame has %d subscriptions, at most %d are allowed", subscriptions, limits.Subscriptions)
	case capabilities > maxCapabilities:
		return Errorf(CodeBadRequest, "the connect frame has %d capabilities, at most %d are allowed", capabilities, maxCapabilities).of(LimitCapabilities)
	}
	return nil
}

// checkPublish refuses a Publish of too many messages, or of none: nothing
// could answer it.
func checkPublish(messages int, limits FrameLimits) *Error {
	switch {
	case messages > limits.Messages:
		return Exceeded(LimitMessages, "the publish frame has %d messages, at most %d are allowed", messages, limits.Messages)
	case messages == 0:
		return Errorf(CodeBadRequest, "the publish frame has no message: list at least one in `messages`")
	}
	return nil
}

// maxRepeatAge bounds the age of a repeat, so that arithmetic on it is safe.
const maxRepeatAge = 10 * 365 * 24 * time.Hour

func repeatAge(ms uint64) time.Duration {
	return time.Duration(min(ms, uint64(maxRepeatAge/time.Millisecond))) * time.Millisecond
}
