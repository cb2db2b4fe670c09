package broker

import (
	"strings"

	"github.com/tidewire/tidewire/protocol"
)

// owner returns the stream that holds a topic: the first whose filters match,
// else main.
func (b *Broker) owner(topic string) *stream {
	for _, st := range b.streams {
		for _, f := range st.filters {
			if f.Match(topic) {
				return st
			}
		}
	}
	return b.main()
}

// holds returns the partition that holds a topic.
func (b *Broker) holds(topic string) *partition { return b.owner(topic).of(topic) }

// partitions returns those of all streams.
func (b *Broker) partitions() (all []*partition) {
	for _, st := range b.streams {
		all = append(all, st.parts...)
	}
	return all
}

// main returns the stream main.
func (b *Broker) main() *stream { return b.streams[len(b.streams)-1] }

// reading returns the stream that a filter reads: the one that is named, else
// the only one that can have topics which the filter selects. A position belongs
// to one stream, so a filter never reads several.
//
// A stream may be named that has none of the filter's topics: it may have
// messages of them from before its filters were changed.
func (b *Broker) reading(f protocol.Filter, name string) (*stream, *protocol.Error) {
	if name != "" {
		return b.named(name)
	}
	if len(b.streams) == 1 {
		return b.main(), nil
	}
	found := b.holding(f)
	switch len(found) {
	case 0:
		return b.main(), nil
	case 1:
		return found[0], nil
	}
	return nil, protocol.Errorf(protocol.CodeSeveralStreams, "the filter %.80q could match topics of the streams %s: name one with `stream`, and subscribe once for each that you need", f, names(found))
}

// named returns a stream by its name.
func (b *Broker) named(name string) (*stream, *protocol.Error) {
	for _, st := range b.streams {
		if st.name == name {
			return st, nil
		}
	}
	return nil, protocol.Errorf(protocol.CodeUnknownStream, "there is no stream %.80q, this broker has %s", name, names(b.streams))
}

func names(streams []*stream) string {
	list := make([]string, 0, len(streams))
	for _, st := range streams {
		list = append(list, st.name)
	}
	return strings.Join(list, ", ")
}

// holding returns the streams that hold topics which the filter selects, as
// [protocol.Holding] says.
func (b *Broker) holding(f protocol.Filter) []*stream {
	claims := make([][]protocol.Filter, 0, len(b.streams))
	for _, st := range b.streams {
		claims = append(claims, st.filters)
	}
	var found []*stream
	for _, i := range protocol.Holding(f, claims) {
		found = append(found, b.streams[i])
	}
	return found
}
