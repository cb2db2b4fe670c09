package bridge

import (
	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
)

// What connectors need, which carry messages between streams and topics of
// Kafka that are none.

// ForeignHeaders returns what a message may have of the headers of a record that
// is not a stream's: the content type and plain headers. What only means
// something in a stream is left out, and so is what a message cannot have.
func ForeignHeaders(headers []kafka.Header) (contentType string, plain []protocol.Header) {
	d, _ := decodeHeaders(headers)
	return d.message.ContentType, d.message.Headers
}

// RecordOf returns the record of a message as a stream's topic would have it, but
// for the origin.
func RecordOf(m *protocol.Message) kafka.Record { return encode(m) }

// Place returns the offset of the last record that is applied, and what is closed
// when there is another one.
func (p *Partition) Place() (head uint64, moved <-chan struct{}) { return p.status.place() }
