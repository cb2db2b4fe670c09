package broker

import "github.com/tidewire/tidewire/protocol"

// A Stream is a named log and the topics that it holds.
type Stream struct {
	Name    string
	Filters []protocol.Filter // of its topics, as far as no stream before it has them

	// Logs are the log's partitions, by their numbers; nearly every stream has one.
	// [protocol.Partition] says which of several has a topic. They are of one term,
	// for a position has one, and their positions and chunks carry their numbers.
	Logs []Log
}

// MainStream is the name of the stream that every broker has. It holds the
// topics that no other stream holds.
const MainStream = "main"

// everything is the filter of the stream main.
var everything = mustFilter(">")

func mustFilter(text string) protocol.Filter {
	f, err := protocol.ParseFilter(text)
	if err != nil {
		panic(err)
	}
	return f
}

// stream is a stream at work.
type stream struct {
	broker  *Broker
	name    string
	filters []protocol.Filter
	parts   []*partition // by number
}

func newStream(b *Broker, s Stream) *stream {
	st := &stream{broker: b, name: s.Name, filters: s.Filters}
	for i, log := range s.Logs {
		st.parts = append(st.parts, newPartition(st, uint32(i), log))
	}
	return st
}

// of returns the partition that holds a topic.
func (st *stream) of(topic string) *partition {
	return st.parts[protocol.Partition(topic, len(st.parts))]
}

// read returns the partitions that a filter reads, in their order: a topic is in
// one.
func (st *stream) read(f protocol.Filter) []*partition {
	if len(st.parts) > 1 && f.Exact() {
		return []*partition{st.of(f.String())}
	}
	return st.parts
}
