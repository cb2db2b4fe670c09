package bridge

import (
	"time"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
)

// refusalOf says to a publisher why its message is surely not stored.
func refusalOf(err error) *protocol.Error {
	switch kafka.KindOf(err) {
	case kafka.TooLarge:
		return protocol.Errorf(protocol.CodePayloadTooLarge, "the message is larger than Kafka takes: make it smaller, or have max.message.bytes of the topic raised")
	case kafka.Full:
		return protocol.Errorf(protocol.CodeOverloaded, "too much waits to be written to Kafka; publish again in a moment")
	}
	if lasting(err) {
		return protocol.Errorf(protocol.CodeLogUnavailable, "Kafka, which is the log of this stream, refuses what this broker writes; nothing was stored, and its operators are told why")
	}
	return errAway()
}

// retryAfter is what a publisher is told to wait while Kafka is away.
const retryAfter = time.Second

func errAway() *protocol.Error {
	err := protocol.Errorf(protocol.CodeLogUnavailable, "Kafka, which is the log of this stream, did not take the message in time; nothing was stored, publish again with the same id")
	err.RetryAfter = retryAfter
	return err
}

func errOvertaken() *protocol.Error {
	return protocol.Errorf(protocol.CodeLogUnavailable, "Kafka faltered, and later messages of this broker came first; this one was not stored, publish it again with the same id")
}

func errLost() *protocol.Error {
	err := protocol.Errorf(protocol.CodeUnknown, "the message was sent to Kafka and has not come back; whether it was stored is unknown, publish again with the same id")
	err.RetryAfter = retryAfter
	return err
}

func errClosed() *protocol.Error {
	return protocol.Errorf(protocol.CodeGoingAway, "the broker is shutting down; publish again with the same id")
}

func errHalted() *protocol.Error {
	return protocol.Errorf(protocol.CodeLogUnavailable, "the log of this stream is halted, since Kafka has other records than were read before; its operators are told why")
}

func errNotHere() *protocol.Error {
	err := protocol.Errorf(protocol.CodeLogUnavailable, "this broker has not come as far as the position in the log of the cluster: try again in a moment, or on another one")
	err.RetryAfter = retryAfter
	return err
}
