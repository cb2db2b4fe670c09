package kafka

import (
	"errors"
	"fmt"
)

// A Kind says what went wrong, for programs. It is an error, so that
// errors.Is(err, kafka.NotSent) asks for a kind.
type Kind string

// Kinds of errors.
const (
	// Of a write.
	NotSent  Kind = "not_sent"  // surely not stored; the deadline passed, or the producer was closed
	Unknown  Kind = "unknown"   // may be stored, or may yet be
	Full     Kind = "full"      // the queue of the producer is full; not stored
	TooLarge Kind = "too_large" // Kafka does not take records of this size; not stored
	Invalid  Kind = "invalid"   // Kafka refuses the record or the request as it is; not stored

	// Of a partition or a topic.
	NoTopic      Kind = "no_topic"      // there is no such topic or partition
	TopicChanged Kind = "topic_changed" // the topic was deleted and created again
	OutOfRange   Kind = "out_of_range"  // the offset is before the start of the log, or behind its end
	Exists       Kind = "exists"        // the topic is there already
	NoLeader     Kind = "no_leader"     // nobody leads the partition at the moment
	NotInSync    Kind = "not_in_sync"   // fewer replicas are in sync than min.insync.replicas
	Corrupt      Kind = "corrupt"       // what Kafka sent does not match its checksum

	// Of the cluster as a whole.
	Denied      Kind = "denied"      // the user lacks a permission
	BadLogin    Kind = "bad_login"   // user or password are wrong, or SASL is not what Kafka expects
	BadTLS      Kind = "bad_tls"     // a certificate is not trusted, or one side speaks TLS and the other does not
	Unreachable Kind = "unreachable" // no answer in time, or no connection
	TooOld      Kind = "too_old"     // this Kafka does not know a request that is needed
	Refused     Kind = "refused"     // Kafka answered with any other error
	Closed      Kind = "closed"      // the client, producer or fetcher was closed
)

// Error returns the kind itself.
func (k Kind) Error() string { return string(k) }

// Retryable reports whether the same request may succeed later without anybody
// changing something.
func (k Kind) Retryable() bool {
	switch k {
	case NotSent, Unknown, Full, NoLeader, NotInSync, Corrupt, Unreachable, Refused:
		return true
	default:
		return false
	}
}

// Error is a kind with a sentence that says what to change.
type Error struct {
	Kind     Kind
	Sentence string
	Cause    error // nil, or what it came from
}

// Error returns the sentence and, if there is one, the cause.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Sentence
	}
	return e.Sentence + ": " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is makes errors.Is find the kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// KindOf returns the kind of the outermost [Error] in err, or "".
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return ""
}

func asError(err error) *Error {
	e, _ := errors.AsType[*Error](err)
	return e
}

func failf(kind Kind, cause error, format string, args ...any) *Error {
	return &Error{Kind: kind, Sentence: fmt.Sprintf(format, args...), Cause: cause}
}
