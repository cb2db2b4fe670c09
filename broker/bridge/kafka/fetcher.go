package kafka

import (
	"context"
	"sync"
	"time"
)

// FetcherOptions bound a [Fetcher]; what is zero has the value named here.
type FetcherOptions struct {
	Wait           time.Duration // of a long poll; 500 ms
	MaxBytes       int           // read ahead of all sinks together; 64 MiB
	PartitionBytes int           // read ahead of the sink of one partition; 4 MiB
	RequestBytes   int           // of one answer; 8 MiB
	ChunkBytes     int           // of one partition in an answer; 1 MiB
}

func (o *FetcherOptions) defaults() {
	if o.Wait <= 0 {
		o.Wait = 500 * time.Millisecond
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 64 << 20
	}
	if o.PartitionBytes <= 0 {
		o.PartitionBytes = 4 << 20
	}
	if o.RequestBytes <= 0 {
		o.RequestBytes = 8 << 20
	}
	if o.ChunkBytes <= 0 {
		o.ChunkBytes = 1 << 20
	}
}

// A Source says where reading a partition begins, and who takes what is read.
type Source struct {
	Partition Partition
	ID        TopicID // that the topic must have; zero: the one that it has when reading begins
	Offset    int64   // of the first record wanted

	// Sink takes what was read, in order, from a goroutine of its own for each
	// partition. While it is busy its partition is read ahead up to
	// PartitionBytes and no further; other partitions go on. An error ends
	// reading this partition, as if it had been removed. ctx ends when the
	// partition is removed.
	Sink func(ctx context.Context, f Fetched) error
}

// Fetched is what a sink takes: batches, news about the partition, or an error.
// Every offset from the one asked for on is in a batch, or in a hole that Kafka
// left behind; a batch may begin before it.
//
// A partition at rest brings nothing. HighWatermark, LogStart and Epoch are
// told when reading begins and when they change, even if there are no batches.
//
// After an error of the kind OutOfRange or TopicChanged reading rests until
// [Fetcher.Seek] or [Fetcher.Remove]. After any other one it goes on by itself:
// it is told once, if it lasts for more than a few tries, and the next success
// is told even if it brings nothing.
type Fetched struct {
	Batches       []Batch
	HighWatermark int64 // end of what all replicas in sync have, and thus of what can be read
	LogStart      int64 // first offset that is still there
	Epoch         int32 // of the leader that answered
	Err           error
}

// A Fetcher reads partitions.
//
// A goroutine for each leader has one long poll under way, for all partitions of
// that leader whose sinks keep up; a goroutine for each partition decodes and
// calls its sink. Memory is bounded: a partition is asked for only while less
// than PartitionBytes wait for its sink, and less than MaxBytes for all, or if
// nothing waits for it.
type Fetcher struct {
	client *Client
	opts   FetcherOptions
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	used    int // bytes that wait for sinks, or are in them
	readers map[Partition]*reader
	polls   map[int32]*poll
}

// NewFetcher returns a fetcher that reads nothing yet.
func (c *Client) NewFetcher(o FetcherOptions) *Fetcher {
	o.defaults()
	f := &Fetcher{client: c, opts: o, readers: map[Partition]*reader{}, polls: map[int32]*poll{}}
	f.ctx, f.cancel = context.WithCancel(c.ctx)
	return f
}

// Add begins to read partitions. It is an error, of the kind Exists, if one of
// them is read already; then none is added.
func (f *Fetcher) Add(sources ...Source) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.ctx.Err() != nil {
		return failf(Closed, nil, "the Kafka fetcher is closed")
	}
	for _, s := range sources {
		if f.readers[s.Partition] != nil {
			return failf(Exists, nil, "%s is read already", s.Partition)
		}
	}
	group := make([]*reader, 0, len(sources))
	for _, s := range sources {
		r := newReader(f, s)
		f.readers[s.Partition] = r
		group = append(group, r)
		f.wg.Go(r.deliver)
	}
	f.searchLocked(group, 0)
	return nil
}

// Seek goes on reading a partition at another offset. What was read before and is
// not yet in the sink is dropped. It may be called from the sink.
func (f *Fetcher) Seek(p Partition, offset int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.readers[p]
	if r == nil {
		return
	}
	r.round++
	r.offset = offset
	f.used -= r.forget()
	switch r.state {
	case readerResting:
		f.searchLocked([]*reader{r}, 0)
	case readerPlaced:
		r.poll.interrupt()
	}
}

// Remove ends reading a partition, and returns when its sink is done. It must
// not be called from that sink, which returns an error instead.
func (f *Fetcher) Remove(p Partition) {
	f.mu.Lock()
	r := f.readers[p]
	if r != nil {
		f.removeLocked(r)
	}
	f.mu.Unlock()
	if r != nil {
		<-r.done
	}
}

func (f *Fetcher) removeLocked(r *reader) {
	if f.readers[r.source.Partition] == r {
		delete(f.readers, r.source.Partition)
	}
	if r.poll != nil {
		r.poll.drop(r)
	}
	r.state = readerRemoved
	r.round++
	f.used -= r.forget()
	r.cancel()
}

// Close ends reading, and returns when no goroutine is left. It must not be
// called from a sink.
func (f *Fetcher) Close() {
	f.cancel()
	f.mu.Lock()
	f.closed = true
	for _, r := range f.readers {
		f.removeLocked(r)
	}
	f.mu.Unlock()
	f.wg.Wait()
}
