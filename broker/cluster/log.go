package cluster

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

// A Log is the control log as one node reaches it.
type Log interface {
	// Produce stores the value behind everything that was stored before, and returns once
	// that is certain. It tries again with the same value until ctx ends: the value may
	// be stored more than once, and also after Produce has returned an error. An
	// error while ctx goes on is one that no further try will mend.
	Produce(ctx context.Context, value []byte) error

	// Bounds returns the first index that is still there and the last one. The log is
	// empty if last is below first; first is 1 as long as nothing was ever removed.
	Bounds(ctx context.Context) (first, last uint64, err error)

	// Read hands over the values from an index on, in order, and those that
	// come later as they come. It returns the first error of sink, or when ctx ends, or an error
	// that no further try will mend: [ErrGone] if the log lacks the index, or it is another log.
	// Indexes may be left out, none comes twice. The value is sink's to keep.
	Read(ctx context.Context, from uint64, sink func(index uint64, value []byte) error) error
}

// ErrGone is what a [Log] returns for an index that was removed from its beginning.
var ErrGone = errors.New("the control log does not hold this any more")

// Encode returns the value of the log that holds an envelope. Texts must be UTF-8.
func Encode(e *clusterv1.Envelope) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode a value of the control log: %w", err)
	}
	return b, nil
}

// Decode reads a value of the log. What cannot be read is not of a node, and all
// nodes pass over it alike.
func Decode(value []byte) (*clusterv1.Envelope, error) {
	e := new(clusterv1.Envelope)
	if err := proto.Unmarshal(value, e); err != nil {
		return nil, fmt.Errorf("decode a value of the control log: %w", err)
	}
	return e, nil
}
