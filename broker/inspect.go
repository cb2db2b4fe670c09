package broker

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// An Inspected log can be looked into and purged by operators. [storage.Log] and
// [storage.MemoryLog] are.
type Inspected interface {
	Stats() storage.Stats
	Topics(ctx context.Context, q storage.TopicQuery) ([]storage.TopicStats, error)
	// Purge removes all that is stored and returns the last offset of it.
	Purge(ctx context.Context) (through uint64, err error)
}

// StreamInfo is what operators are shown of a stream.
type StreamInfo struct {
	Name    string
	Filters []protocol.Filter
	Stats   storage.Stats
	First   protocol.Vector // of the oldest message in each partition, if there is any
	Last    protocol.Vector // of what was given last
	Rate    float64         // entries per second over the last minute, repeats included
}

// TopicInfo is what operators are shown of a topic in one stream.
type TopicInfo struct {
	Topic       string
	Stream      string
	Messages    uint64
	First, Last protocol.Position
	Rate        float64 // messages per second over the last minute, without repeats
}

// Streams describes all streams, in the order in which they claim topics.
func (b *Broker) Streams() []StreamInfo {
	all := make([]StreamInfo, 0, len(b.streams))
	for _, st := range b.streams {
		all = append(all, st.info())
	}
	return all
}

// Audience counts the subscriptions that get a message of a topic at once if one
// is published now. Those that are behind are not among them.
func (b *Broker) Audience(topic string) int {
	pt := b.holds(topic)
	pt.mu.Lock()
	defer pt.mu.Unlock()
	n := 0
	for _, g := range pt.find(topic, nil) {
		n += len(g.members)
	}
	return n
}

// rateSpan is what a rate is the mean of.
const rateSpan = time.Minute

func (st *stream) info() StreamInfo {
	i := StreamInfo{Name: st.name, Filters: st.filters}
	for _, pt := range st.parts {
		if l, ok := pt.log.(Inspected); ok {
			i.Stats = added(i.Stats, l.Stats())
		}
		earliest, head := pt.log.Bounds()
		i.First = pt.log.PositionOf(min(earliest, head)).With(i.First.Places)
		i.Last = pt.log.PositionOf(head).With(i.Last.Places)
		i.Rate += rateOf(head - pt.recent(head))
	}
	return i
}

// added adds what one more partition holds.
func added(sum, s storage.Stats) storage.Stats {
	if s.Messages > 0 && (sum.Messages == 0 || s.Oldest.Before(sum.Oldest)) {
		sum.Oldest = s.Oldest
	}
	if s.Messages > 0 && s.Newest.After(sum.Newest) {
		sum.Newest = s.Newest
	}
	sum.Storage, sum.PerTopic = s.Storage, s.PerTopic
	sum.Messages += s.Messages
	sum.Bytes += s.Bytes
	sum.Segments += s.Segments
	return sum
}

// recent returns the offset behind which everything was stored in the last
// minute; the head if that cannot be told.
func (pt *partition) recent(head uint64) uint64 {
	at, err := pt.log.Resolve(protocol.Start{Kind: protocol.StartSince, Since: rateSpan}, everything, head)
	if err != nil {
		return head
	}
	return min(at.After, head)
}

func rateOf(n uint64) float64 { return float64(n) / rateSpan.Seconds() }

// Topics lists what the streams hold of the topics that match, in the order of
// topics, at most q.Limit of them, each with all streams that have it. name may be
// empty for all streams.
func (b *Broker) Topics(ctx context.Context, name string, q storage.TopicQuery) ([]TopicInfo, error) {
	in := b.partitions()
	if name != "" {
		st, err := b.named(name)
		if err != nil {
			return nil, err
		}
		in = st.parts
	}
	var all []TopicInfo
	for _, pt := range in {
		l, err := pt.inspected()
		if err != nil {
			return nil, err
		}
		_, head := pt.log.Bounds()
		q.Recent = pt.recent(head)
		topics, failed := l.Topics(ctx, q)
		if failed != nil {
			return nil, failed
		}
		for _, t := range topics {
			all = append(all, TopicInfo{t.Topic, pt.name, t.Messages, pt.log.PositionOf(t.First), pt.log.PositionOf(t.Last), rateOf(t.Recent)})
		}
	}
	slices.SortStableFunc(all, func(a, b TopicInfo) int { return cmp.Compare(a.Topic, b.Topic) })
	topics := 0
	for i := range all {
		if i > 0 && all[i].Topic == all[i-1].Topic {
			continue
		}
		if topics++; topics > q.Limit {
			return all[:i], nil
		}
	}
	return all, nil
}

// Purge removes everything that a stream holds, and returns the position up to
// which it did. Subscribers that had not read it are told by a gap.
func (b *Broker) Purge(ctx context.Context, name string) (through protocol.Vector, err error) {
	st, unknown := b.named(name)
	if unknown != nil {
		return through, unknown
	}
	for _, pt := range st.parts {
		l, err := pt.inspected()
		if err != nil {
			return through, err
		}
		last, failed := l.Purge(ctx)
		if failed != nil {
			return through, failed
		}
		through = pt.log.PositionOf(last).With(through.Places)
	}
	return through, nil
}

func (pt *partition) inspected() (Inspected, *protocol.Error) {
	l, ok := pt.log.(Inspected)
	if !ok {
		return nil, protocol.Errorf(protocol.CodeUnsupported, "the log of the stream %s cannot be looked into", pt.name)
	}
	return l, nil
}
