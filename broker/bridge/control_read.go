package bridge

import (
	"context"
	"fmt"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/broker/cluster"
)

// controlReading is one call of [Control.Read].
type controlReading struct {
	*Control
	next uint64 // index that comes next
	sink func(index uint64, value []byte) error
}

// take hands over what was fetched.
func (r *controlReading) take(ctx context.Context, got kafka.Fetched) error {
	if got.Err != nil {
		return r.failed(ctx, got.Err)
	}
	r.tell(nil)
	for _, b := range got.Batches {
		if err := r.batch(b); err != nil {
			return err
		}
	}
	return nil
}

// failed returns an error if the fetcher will not get over it.
func (r *controlReading) failed(ctx context.Context, err error) error {
	r.tell(err)
	switch kafka.KindOf(err) {
	case kafka.TopicChanged:
		return r.recreated(err)
	case kafka.OutOfRange:
		return r.outOfRange(ctx)
	case kafka.Closed:
		return err
	default:
		return nil
	}
}

// outOfRange tells what was removed by retention from what Kafka has lost.
func (r *controlReading) outOfRange(ctx context.Context) error {
	first, last, err := r.Bounds(ctx)
	switch {
	case err != nil:
		return err
	case r.next < first:
		return fmt.Errorf("%w: retention has removed from %s what this node had not read; start the node again", cluster.ErrGone, r.opts.Topic)
	default:
		return r.rolledBack(fmt.Sprintf("it ends at offset %d, and this node has read it up to %d", last, r.next-1))
	}
}

func (r *controlReading) batch(b kafka.Batch) error {
	if b.Transactional || b.Control || b.Bad != nil {
		b.Records = nil
	}
	if b.Bad != nil {
		r.opts.Logger.Error("a batch of the control topic cannot be read: it is passed over, here as on every node",
			"topic", r.opts.Topic, "offset", b.Base, "error", b.Bad)
	}
	for _, rec := range b.Records {
		if err := r.hand(uint64(rec.Offset)+1, rec.Value); err != nil {
			return err
		}
	}
	return r.hand(uint64(b.Last)+1, nil) // unless it was the last record
}

// hand gives one value to the sink, unless it came before.
func (r *controlReading) hand(index uint64, value []byte) error {
	if index < r.next {
		return nil
	}
	r.next = index + 1
	r.known.read(r.id, index, value)
	return r.sink(index, value)
}
