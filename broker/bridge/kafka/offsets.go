package kafka

import (
	"context"
	"slices"
	"time"
)

// Moments that a request for offsets knows besides times.
const (
	momentEnd   int64 = -1
	momentStart int64 = -2
)

// Bounds asks the leaders of all partitions of a topic where their logs begin
// and end.
func (c *Client) Bounds(ctx context.Context, t Topic) ([]Bounds, error) {
	starts, err := c.offsets(ctx, t, momentStart)
	if err != nil {
		return nil, err
	}
	ends, err := c.offsets(ctx, t, momentEnd)
	if err != nil {
		return nil, err
	}
	list := make([]Bounds, len(t.Partitions))
	for i := range list {
		list[i] = Bounds{Partition: int32(i), Start: starts[i], End: ends[i]}
	}
	return list, nil
}

// OffsetsAt returns, for each partition of a topic, the offset of the first
// record that is not older than a moment, or the end of the log.
func (c *Client) OffsetsAt(ctx context.Context, t Topic, moment time.Time) ([]int64, error) {
	list, err := c.offsets(ctx, t, max(moment.UnixMilli(), 0))
	if err != nil || !slices.Contains(list, -1) {
		return list, err
	}
	ends, err := c.offsets(ctx, t, momentEnd)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i] < 0 {
			list[i] = ends[i]
		}
	}
	return list, nil
}

// Probe goes through the network to the leaders of all partitions of a topic,
// and returns what is wrong. It does not write.
func (c *Client) Probe(ctx context.Context, topic string) error {
	t, err := c.Topic(ctx, topic)
	if err != nil {
		return err
	}
	_, err = c.offsets(ctx, t, momentEnd)
	return err
}

// offsets asks each leader of a topic once; -1 means that no record is that
// new.
func (c *Client) offsets(ctx context.Context, t Topic, moment int64) ([]int64, error) {
	list := make([]int64, len(t.Partitions))
	for i, p := range t.Partitions {
		list[i] = -1
		if p.Leader < 0 {
			return nil, failf(NoLeader, nil, "nobody leads %s at the moment", Partition{t.Name, p.Number})
		}
	}
	for _, group := range groupBy(t.Partitions, func(p PartitionInfo) int32 { return p.Leader }) {
		r, _, err := c.do(ctx, call{api: apiListOffsets, broker: group[0].Leader, waits: true, body: func(w *wireWriter) {
			writeOffsets(w, t.Name, group, moment)
		}})
		if err != nil {
			return nil, err
		}
		if err := readOffsets(r, t.Name, len(group), list); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func writeOffsets(w *wireWriter, topic string, group []PartitionInfo, moment int64) {
	w.int32(-1) // a consumer
	w.no()      // what is not committed yet by a transaction, too
	w.count(1)
	w.string(topic)
	w.count(len(group))
	for _, p := range group {
		w.int32(p.Number)
		w.int32(p.Epoch)
		w.int64(moment)
		w.end()
	}
	w.end()
	w.end()
}

func readOffsets(r *wireReader, topic string, want int, list []int64) error {
	r.int32() // throttle
	seen := 0
	for range r.count() {
		r.bytes()
		for range r.count() {
			number, code := r.int32(), r.int16()
			r.int64() // its time
			offset := r.int64()
			r.int32() // its epoch
			r.end()
			if err := answerError(code, "", Partition{topic, number}.String()); err != nil {
				return err
			}
			if number >= 0 && int(number) < len(list) {
				list[number] = offset
				seen++
			}
		}
		r.end()
	}
	if r.err != nil || seen != want {
		return failf(Corrupt, r.err, "the answer of Kafka about the offsets of topic %s cannot be read", topic)
	}
	return nil
}

// BatchAt returns the batch that has an offset, with all of its records, or the
// next one behind it if the offset is in a hole. It is an error, of the kind
// OutOfRange, if the offset is before the start of the log or not yet written.
func (c *Client) BatchAt(ctx context.Context, t Topic, partition int32, offset int64) (Batch, error) {
	p := Partition{t.Name, partition}
	info, err := known{topic: t}.leader(p)
	if err != nil {
		return Batch{}, err
	}
	part := &fetchPart{partition: p, id: t.ID, epoch: info.Epoch, offset: offset, maxBytes: 1}
	q := fetchCall{broker: info.Leader, wait: 100 * time.Millisecond, maxBytes: 1, waits: true}
	if _, err := c.fetch(ctx, q, []*fetchPart{part}); err != nil {
		return Batch{}, err
	}
	got, fault := cut(part)
	if fault != nil {
		return Batch{}, fault
	}
	if len(got.batches) == 0 {
		return Batch{}, failf(OutOfRange, nil, "offset %d of %s is not written yet; the log ends at %d", offset, p, part.watermark)
	}
	return got.batches[0].decode(got.batches[0].base), nil
}
