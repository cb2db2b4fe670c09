package broker

import (
	"errors"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// last:N of several partitions is the newest N by time, partition and offset. Each
// partition is read backwards, a chunk at a time, and the newest of what they have
// is taken N times: so what is read is about what will be sent.

// beforeLast says where the newest n messages begin in each partition.
func (st *stream) beforeLast(n int, f protocol.Filter, in []end) ([]storage.Resolved, *protocol.Error) {
	st.broker.resolving <- struct{}{} // not for everybody at once
	defer func() { <-st.broker.resolving }()
	at := make([]storage.Resolved, len(in))
	readers := make([]backReader, len(in))
	for i, p := range in {
		now, err := p.log.Resolve(protocol.Start{}, f, p.head)
		if err != nil {
			return nil, protocol.AsError(err)
		}
		at[i] = now
		at[i].After = p.head
		readers[i] = backReader{partition: p.partition, filter: f, cursor: p.head}
	}
	for ; n > 0; n-- {
		newest := -1
		for i := range readers {
			time, ok, err := readers[i].time(n)
			if err != nil {
				return nil, protocol.AsError(err)
			}
			if ok && (newest < 0 || time >= readers[newest].found[0].time) {
				newest = i
			}
		}
		if newest < 0 { // there are fewer
			for i := range readers {
				earliest, _ := readers[i].partition.log.Bounds()
				at[i].After = min(at[i].After, earliest-1)
			}
			break
		}
		at[newest].After = readers[newest].next() - 1
	}
	return at, nil
}

// backReader yields the offsets and times of a partition's messages from the newest
// down.
type backReader struct {
	partition *partition
	filter    protocol.Filter
	cursor    uint64 // everything above has been read
	found     []timed
}

// timed is where and when a message was stored.
type timed struct{ offset, time uint64 }

// time returns the time of the next message, if there is one. At most n more are
// wanted.
func (r *backReader) time(n int) (time uint64, ok bool, err error) {
	for len(r.found) == 0 && r.cursor > 0 {
		if err := r.read(n); err != nil {
			return 0, false, err
		}
	}
	if len(r.found) == 0 {
		return 0, false, nil
	}
	return r.found[0].time, true, nil
}

func (r *backReader) next() uint64 {
	offset := r.found[0].offset
	r.found = r.found[1:]
	return offset
}

// read reads the next chunk. What is damaged is passed over: whoever begins before
// it is told.
func (r *backReader) read(n int) error {
	pt := r.partition
	c, err := pt.log.ReadBack(storage.Query{Filter: r.filter, Through: r.cursor, MaxBytes: maxChunkBytes}, n)
	if errors.Is(err, storage.ErrTrimmed) {
		r.cursor = 0
		return nil
	}
	if gap := pt.gapOf(0, err); gap != nil {
		r.cursor = gap.After
		return nil
	}
	if err != nil {
		pt.broker.options().Logger.Error("look for the newest messages", "stream", pt.name, "filter", r.filter.String(), "error", err)
		return err
	}
	r.found = make([]timed, c.Count)
	i := c.Count
	for record := range c.Framed() {
		i--
		r.found[i].offset, r.found[i].time = protocol.RecordPlace(record)
	}
	r.cursor = c.After
	return nil
}
