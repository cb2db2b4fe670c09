package connect

import (
	"context"
	"log/slog"
	"time"

	"github.com/tidewire/tidewire/broker/bridge"
	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
)

// A Reason is why something cannot be carried, ever.
type Reason string

// The reasons.
const (
	MissingField  Reason = "missing_field"  // a template asks for what is not there
	NotJSON       Reason = "not_json"       // a template asks for a member of a payload that is no JSON
	InvalidTopic  Reason = "invalid_topic"  // what the template gives is no topic
	ReservedTopic Reason = "reserved_topic" // topics that begin with $ are the broker's
	NullValue     Reason = "null_value"     // null is no payload
	Transactional Reason = "transactional"  // written in a transaction, which may have been aborted
	Unreadable    Reason = "unreadable"     // the batch cannot be read
	TooLarge      Reason = "too_large"      // larger than the other side takes
	Rejected      Reason = "rejected"       // the other side refuses it for another reason
)

// Reasons lists them.
func Reasons() []Reason {
	return []Reason{MissingField, NotJSON, InvalidTopic, ReservedTopic, NullValue, Transactional, Unreadable, TooLarge, Rejected}
}

// reasonOf returns why the broker will never take a message, or "" if it may take
// it later.
func reasonOf(err *protocol.Error) Reason {
	switch err.Code {
	case protocol.CodeInvalidTopic:
		return InvalidTopic
	case protocol.CodeReservedTopic:
		return ReservedTopic
	case protocol.CodePayloadTooLarge:
		return TooLarge
	case protocol.CodeBadRequest, protocol.CodeInvalidID, protocol.CodeInvalidKey, protocol.CodeInvalidHeader, protocol.CodeInvalidMessage, protocol.CodeIDConflict, protocol.CodeUnsupported:
		return Rejected
	}
	return ""
}

// badConnector is the header of a copy that names the connector.
const badConnector = "tidewire-bad-connector"

// badDeadline is how long is tried to copy a bad record. It is counted and in the
// log in any case; a topic for them that is missing must not stop a connector.
const badDeadline = 10 * time.Second

// bin copies bad records.
type bin struct {
	connector string
	topic     string
	producer  *kafka.Producer
	metrics   *metrics
	logger    *slog.Logger
}

// put counts and copies what cannot be carried, and waits until that is stored or
// was tried for long enough. It is false if ctx has ended before.
func (b *bin) put(ctx context.Context, all []bridge.Refused) bool {
	answers := make(chan error, len(all))
	for i := range all {
		r := &all[i]
		b.metrics.bad.WithLabelValues(string(r.Reason)).Inc()
		b.logger.Debug("a record cannot be carried", "connector", b.connector, "reason", r.Reason, "partition", r.Partition, "offset", r.Record.Offset)
		c := r.Copy()
		c.Headers = append(c.Headers, kafka.Header{Key: badConnector, Value: []byte(b.connector)})
		err := b.producer.Produce(kafka.Write{
			Partition: kafka.Partition{Topic: b.topic}, Records: []kafka.Record{c}, Deadline: time.Now().Add(badDeadline),
			Done: func(p kafka.Produced) { answers <- p.Err },
		})
		if err != nil {
			answers <- err
		}
	}
	var failed error
	for range all {
		select {
		case err := <-answers:
			if err != nil {
				failed = err
			}
		case <-ctx.Done():
			return false
		}
	}
	if failed != nil {
		b.logger.Warn("records that cannot be carried were not all copied", "connector", b.connector, "topic", b.topic, "error", failed)
	}
	return true
}
