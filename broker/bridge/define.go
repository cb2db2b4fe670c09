package bridge

import (
	"github.com/tidewire/tidewire/broker/bridge/kafka"
	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
	"github.com/tidewire/tidewire/protocol"
)

// DefinitionOf is what the control topic says of a stream, as a [Definition].
func DefinitionOf(d *clusterv1.Definition) Definition {
	own := Definition{
		Stream: d.GetStream(), Topic: d.GetKafkaTopic(), Term: protocol.Term(d.GetTerm()),
		Partitions: int(d.GetPartitions()), DedupeWindow: int(d.GetDedupeWindow()), MaxPayload: int(d.GetMaxPayloadBytes()),
		Filters: d.GetFilters(), Before: d.GetBefore(), Secret: d.GetSecret(),
	}
	copy(own.TopicID[:], d.GetKafkaId())
	return own
}

// KafkaID is an identity of a topic as definitions have it.
func KafkaID(id kafka.TopicID) []byte { return id[:] }
