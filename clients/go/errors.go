package tidewire

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// The vocabulary, so that programs need this package alone.
type (
	// Message is what is published and delivered. Publishing takes Topic, ID,
	// Payload, ContentType, Headers, Key, ExpiresAt and Ephemeral; the broker sets
	// the rest.
	Message = protocol.Message
	// Header is one application header of a message.
	Header = protocol.Header
	// Position is a place in the log, for programs an opaque text: String gives
	// it, SubscribeOptions.From takes it.
	Position = protocol.Position
	// Error is a refusal by the broker, or by the client on its behalf.
	Error = protocol.Error
	// Code names a kind of refusal; docs/protocol.md lists all of them.
	Code = protocol.Code
)

// The codes that programs react to most.
const (
	CodeIDConflict      = protocol.CodeIDConflict      // the id was used with another payload
	CodeRepeatTooOld    = protocol.CodeRepeatTooOld    // whether the first attempt was stored is not known any more
	CodePayloadTooLarge = protocol.CodePayloadTooLarge // the payload is larger than a message may be
	CodeInvalidTopic    = protocol.CodeInvalidTopic    // the topic breaks the rules for topics
	CodeInvalidFilter   = protocol.CodeInvalidFilter   // the filter breaks the rules for filters
	CodeInvalidPosition = protocol.CodeInvalidPosition // the position cannot be read
	CodeUnauthorized    = protocol.CodeUnauthorized    // the token is missing or not valid
	CodeTokenExpired    = protocol.CodeTokenExpired    // the token was good until it expired
	CodeForbidden       = protocol.CodeForbidden       // the token does not allow this
	CodeTakenOver       = protocol.CodeTakenOver       // another member has taken over the exclusive consumer
	CodeFenced          = protocol.CodeFenced          // the message may be with another member by now
	CodeNotPending      = protocol.CodeNotPending      // the message was settled before
	CodeNeverDelivered  = protocol.CodeNeverDelivered  // the consumer has never delivered the message
	CodeUnknownConsumer = protocol.CodeUnknownConsumer // there is no such consumer, and no filter to create it with
	CodeConsumerExists  = protocol.CodeConsumerExists  // the consumer has another filter or stream
	CodeConsumerFixed   = protocol.CodeConsumerFixed   // this setting cannot be changed after the creation
)

// ErrClosed is the error of everything that is asked of a closed client.
var ErrClosed = errors.New("the client is closed")

// errBusy is what a second loop over a subscription gets.
var errBusy = errors.New("the subscription is being read by another loop; subscribe again for a second one")

// An UnreachableError tells that Connect was given up before a broker was
// reached.
type UnreachableError struct {
	URLs []string
	Last error // why the last attempt failed; may be nil
	Err  error // why it was given up: that of ctx
}

// Error says which addresses were tried, and why the last attempt failed.
func (e *UnreachableError) Error() string {
	if e.Last == nil {
		return fmt.Sprintf("cannot reach %s: %v", strings.Join(e.URLs, ", "), e.Err)
	}
	return fmt.Sprintf("cannot reach %s: %v (%v)", strings.Join(e.URLs, ", "), e.Last, e.Err)
}

// Unwrap returns both reasons.
func (e *UnreachableError) Unwrap() []error {
	if e.Last == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.Last}
}

// A CloseError tells that the broker closed the connection. Where it ends the
// client, something must be changed before it connects again.
type CloseError struct {
	Code   uint16 // WebSocket close code
	Reason string // for people; may be empty
	Err    *Error // what the broker said before it closed; may be nil
}

// Error says the code and the reason.
func (e *CloseError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("the broker closed the connection (%d): %s", e.Code, e.Err.Message)
	}
	if e.Reason == "" {
		return fmt.Sprintf("the broker closed the connection (%d)", e.Code)
	}
	return fmt.Sprintf("the broker closed the connection (%d): %s", e.Code, e.Reason)
}

// Unwrap returns what the broker said before it closed.
func (e *CloseError) Unwrap() error {
	if e.Err == nil {
		return nil
	}
	return e.Err
}

// A HandshakeError tells that a broker, or what stands before it, refused to
// open a WebSocket.
type HandshakeError struct {
	Status     int           // HTTP status
	Err        *Error        // what the broker said; nil if it was not a broker that answered
	Retryable  bool          // another attempt may succeed
	RetryAfter time.Duration // 0 if unknown
}

// Error says the status and the reason.
func (e *HandshakeError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("the broker refused the connection (HTTP %d): %s", e.Status, e.Err.Message)
	}
	return fmt.Sprintf("the server refused the connection (HTTP %d): is this the address of a broker?", e.Status)
}

// Unwrap returns what the broker said.
func (e *HandshakeError) Unwrap() error {
	if e.Err == nil {
		return nil
	}
	return e.Err
}

// An UnknownOutcomeError tells that a message was sent and its answer was not
// awaited, so that it may or may not be stored. Publish it again with the same
// ID and payload to be sure: then it is stored once.
type UnknownOutcomeError struct {
	Topic string
	ID    string
	Err   error // why its answer was not awaited
}

// Error says which message and why.
func (e *UnknownOutcomeError) Error() string {
	return fmt.Sprintf("whether message %q to %q was stored is not known: %v", e.ID, e.Topic, e.Err)
}

// Unwrap returns why the answer was not awaited.
func (e *UnknownOutcomeError) Unwrap() error { return e.Err }

// A GapError tells a subscriber that messages can no longer be had. It does not
// end the subscription. The range may hold messages of other topics only: the
// broker cannot always tell.
type GapError struct {
	Filter   string // of the subscription
	Reason   string // `retention`, `rolled_back`, `other_log`, `passed_over` or `ephemeral`; see docs/protocol.md
	Term     string // life of the log that the range belongs to; empty with other_log
	After    uint64 // the range is above this offset ...
	Through  uint64 // ... up to and including this one; both 0 with other_log
	Position string // where the subscription goes on: after this position
	Missed   uint64 // with `ephemeral` and retention by count: how many messages; the range is empty
}

const reasonEphemeral = "ephemeral"

// Error says what is missing and why.
func (e *GapError) Error() string {
	const form = "messages for %q are missing: offsets %d to %d %s"
	switch e.Reason {
	case "retention":
		if e.Missed > 0 {
			return fmt.Sprintf("%d messages for %q are missing: there are enough newer ones of their topics (retention)", e.Missed, e.Filter)
		}
		return fmt.Sprintf(form, e.Filter, e.After+1, e.Through, "were deleted by age or size (retention)")
	case "rolled_back":
		return fmt.Sprintf(form, e.Filter, e.After+1, e.Through, "are not in the log any more, which was put back to an earlier state (rolled_back); what was stored behind them then is lost too")
	case reasonEphemeral:
		return fmt.Sprintf("%d ephemeral messages for %q were missed while the subscription could not take them", e.Missed, e.Filter)
	case "other_log":
		return fmt.Sprintf("messages for %q may be missing: the log does not know the position, it is another one or was put back to a backup from before (other_log); deliveries begin with the oldest message, so that what came before comes again", e.Filter)
	default:
		return fmt.Sprintf(form, e.Filter, e.After+1, e.Through, "cannot be given ("+e.Reason+")")
	}
}

// final reports whether an error of a connection means that connecting again is
// of no use.
func final(err error) bool {
	if e, ok := errors.AsType[*CloseError](err); ok {
		return !protocol.CloseRetryable(e.Code)
	}
	if e, ok := errors.AsType[*HandshakeError](err); ok {
		return !e.Retryable
	}
	return false
}

// reason returns why ctx has ended: its error, and its cause if that says more.
func reason(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != ctx.Err() { //nolint:errorlint // is it the very same?
		return fmt.Errorf("%w: %w", ctx.Err(), cause)
	}
	return ctx.Err()
}
