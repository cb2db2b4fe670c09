package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

const (
	// Format is the version of the rules of apply with which new terms begin.
	Format = 1

	// secretBytes is the length of the key with which nodes prove what they wrote.
	secretBytes = 32
)

// NewTerm returns a definition with the settings of want, for a term that never was. The secret
// is that of before, the stream's definition until now, or a new one if there
// is none. Write it with [Define].
func NewTerm(want, before *clusterv1.Definition) *clusterv1.Definition {
	d := proto.CloneOf(want)
	var term [8]byte
	for d.Term = 0; d.Term == 0; d.Term = binary.LittleEndian.Uint64(term[:]) {
		_, _ = rand.Read(term[:]) // it never fails
	}
	if d.Secret = bytes.Clone(before.GetSecret()); len(d.Secret) == 0 {
		d.Secret = make([]byte, secretBytes)
		_, _ = rand.Read(d.Secret)
	}
	d.Format = Format
	return d
}

// Removal returns a definition that says that the stream of another one is no
// more. A later term may bring it back.
func Removal(before *clusterv1.Definition) *clusterv1.Definition {
	return NewTerm(&clusterv1.Definition{Stream: before.GetStream()}, before)
}

// Removed reports whether the definition says that its stream is no more.
func Removed(d *clusterv1.Definition) bool { return d.GetPartitions() == 0 }

// ErrOvertaken is returned by [Define] when the stream has another term by now.
var ErrOvertaken = errors.New("somebody else has defined the stream in the meantime: look at what it is now, and try again")

// Define writes the definition behind the term that the stream has, 0 if it has none, and returns
// once it holds. It is for tools: it needs no node.
func Define(ctx context.Context, log Log, d *clusterv1.Definition, after uint64) error {
	value, err := Encode(&clusterv1.Envelope{Records: []*clusterv1.Record{{
		Record: &clusterv1.Record_Define{Define: &clusterv1.Define{Definition: d, After: after}},
	}}})
	if err != nil {
		return err
	}
	if err := log.Produce(ctx, value); err != nil {
		return fmt.Errorf("write to the control log: %w", err)
	}
	s, err := ReadState(ctx, log)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(s.Terms(d.GetStream()), func(t Term) bool { return t.Definition.GetTerm() == d.GetTerm() }) {
		return ErrOvertaken
	}
	return nil
}

// ReadState returns the state at the end that the log has now. It is for tools.
func ReadState(ctx context.Context, log Log) (*State, error) {
	s := NewState()
	from, last, err := load(ctx, log, s)
	if err != nil {
		return nil, err
	}
	err = readRange(ctx, log, span{from, last}, func(index uint64, e *clusterv1.Envelope) bool {
		s.Apply(index, e)
		return true
	})
	return s, err
}

// Difference is a setting of a stream in which the configuration of a node is not what the cluster has. It is
// an error, whose sentence says what to do.
type Difference struct {
	Stream, Setting string
	Want, Have      string // in the configuration, and in the cluster
}

func (d *Difference) Error() string {
	switch {
	case d.Setting == "" && d.Have == "":
		return fmt.Sprintf("the cluster has no stream %q: create it with 'tidewire kafka init', or remove it from the configuration", d.Stream)
	case d.Setting == "":
		return fmt.Sprintf("the cluster has a stream %q, which the configuration lacks: add it, since all nodes must agree on which topic is in which stream", d.Stream)
	case d.Setting == "kafka_id":
		return fmt.Sprintf("the Kafka topic of stream %q is not the one with which the stream began (its id is %s, not %s): "+
			"it was deleted and created again; if what it held may be lost, run 'tidewire kafka new-term %s'", d.Stream, d.Want, d.Have, d.Stream)
	default:
		return fmt.Sprintf("%s of stream %q is %s in the configuration and %s in the cluster: set it to that on every node, or change it for all with 'tidewire kafka new-term %s'",
			d.Setting, d.Stream, d.Want, d.Have, d.Stream)
	}
}

// Check compares what the configuration says of all streams with what the cluster has. A node
// that starts in spite of a difference would make other things of the same records.
// Of what is wanted, term, secret and format do not count, nor does an empty kafka_id.
func (s *State) Check(want []*clusterv1.Definition) []*Difference {
	var all []*Difference
	named := make(map[string]bool)
	for _, w := range want {
		named[w.GetStream()] = true
		have := s.Definition(w.GetStream())
		if Removed(have) {
			all = append(all, &Difference{Stream: w.GetStream()})
			continue
		}
		all = append(all, differences(w, have)...)
	}
	for _, name := range s.Streams() {
		if !named[name] && !Removed(s.Definition(name)) {
			all = append(all, &Difference{Stream: name, Have: name})
		}
	}
	return all
}

func differences(want, have *clusterv1.Definition) (all []*Difference) {
	differ := func(setting string, w, h any) {
		if fmt.Sprint(w) != fmt.Sprint(h) {
			all = append(all, &Difference{Stream: want.GetStream(), Setting: setting, Want: fmt.Sprint(w), Have: fmt.Sprint(h)})
		}
	}
	differ("kafka_topic", want.GetKafkaTopic(), have.GetKafkaTopic())
	if len(want.GetKafkaId()) > 0 {
		differ("kafka_id", fmt.Sprintf("%x", want.GetKafkaId()), fmt.Sprintf("%x", have.GetKafkaId()))
	}
	differ("partitions", want.GetPartitions(), have.GetPartitions())
	differ("dedupe_window", want.GetDedupeWindow(), have.GetDedupeWindow())
	differ("filters", sorted(want.GetFilters()), sorted(have.GetFilters()))
	differ("the list of filters of the streams before", sorted(want.GetBefore()), sorted(have.GetBefore()))
	differ("max_messages_per_topic", want.GetPerTopic(), have.GetPerTopic())
	differ("limits.payload_bytes", want.GetMaxPayloadBytes(), have.GetMaxPayloadBytes())
	return all
}

// sorted gives filters in one order, which does not matter, and so that none and
// several differ to the eye.
func sorted(filters []string) string {
	all := slices.Sorted(slices.Values(filters))
	if len(all) == 0 {
		return "no list"
	}
	return fmt.Sprintf("%q", all)
}
