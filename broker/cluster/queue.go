package cluster

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	clusterv1 "github.com/tidewire/tidewire/proto/tidewire/cluster/v1"
)

const (
	// maxEnvelope bounds the records of one envelope, in bytes, unless a single one is larger:
	// well below what Kafka takes (1 MiB).
	maxEnvelope = 512 << 10

	// maxRecord bounds one record, in bytes, so that Kafka takes it.
	maxRecord = 800 << 10

	// maxQueued bounds what waits to be written, in bytes. A node that does not get through
	// is not live, so little is decided meanwhile.
	maxQueued = 64 << 20
)

// Numbers of the fields of an envelope.
const (
	fieldBoot     = 1
	fieldSequence = 2
	fieldRecords  = 3
)

// queue is what this node has to write. One value is under way at a time, and what
// comes meanwhile goes with the next one.
type queue struct {
	kick chan struct{} // has a token when there is something to write

	mu       sync.Mutex
	open     bool // hello was put, and no goodbye
	boot     uint64
	sequence uint64
	records  [][]byte // in the order of put
	bytes    int      // of records, and of what is under way
	stop     context.CancelFunc
	asked    map[string]bool // leases whose claim was put and has not come back
}

func newQueue() *queue { return &queue{kick: make(chan struct{}, 1), asked: make(map[string]bool)} }

// ask reports whether a claim of the lease is to be put: one at a time is enough.
func (q *queue) ask(lease string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.asked[lease] {
		return false
	}
	q.asked[lease] = true
	return true
}

// answered notes that a claim of the lease has come back, or could not be put.
func (q *queue) answered(lease string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.asked, lease)
}

// put adds records behind the hello, all or none. What must be is taken in any case.
func (q *queue) put(must bool, records ...*clusterv1.Record) error {
	encoded := make([][]byte, len(records))
	size := 0
	for i, rec := range records {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(rec)
		if err != nil {
			return fmt.Errorf("encode a record for the control log: %w", err)
		}
		if len(b) > maxRecord {
			return fmt.Errorf("%w: it has %d bytes, and at most %d are allowed", ErrTooLarge, len(b), maxRecord)
		}
		encoded[i] = b
		size += len(b)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case must:
	case !q.open:
		return ErrAway
	case q.bytes+size > maxQueued:
		return ErrFull
	}
	q.records = append(q.records, encoded...)
	q.bytes += size
	poke(q.kick)
	return nil
}

// setOpen says whether anything is taken but what must be.
func (q *queue) setOpen(open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open = open
}

// restart forgets everything: from now on it writes for another boot.
func (q *queue) restart(boot uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open = false
	q.boot, q.sequence, q.records, q.bytes = boot, 0, nil, 0
	clear(q.asked)
	if q.stop != nil {
		q.stop()
	}
}

// queued is how many bytes wait, or are under way.
func (q *queue) queued() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// next returns the value to write, and a context that ends with the boot. It is
// nil if there is nothing.
func (q *queue) next(parent context.Context) (ctx context.Context, value []byte, size int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.records) == 0 {
		return nil, nil, 0
	}
	n, size := 1, len(q.records[0])
	for n < len(q.records) && size+len(q.records[n]) <= maxEnvelope {
		size += len(q.records[n])
		n++
	}
	q.sequence++
	value = protowire.AppendTag(value, fieldBoot, protowire.Fixed64Type)
	value = protowire.AppendFixed64(value, q.boot)
	value = protowire.AppendTag(value, fieldSequence, protowire.VarintType)
	value = protowire.AppendVarint(value, q.sequence)
	for _, rec := range q.records[:n] {
		value = protowire.AppendTag(value, fieldRecords, protowire.BytesType)
		value = protowire.AppendBytes(value, rec)
	}
	q.records = q.records[n:]
	ctx, q.stop = context.WithCancel(parent)
	return ctx, value, size
}

// done takes what was under way off the account.
func (q *queue) done(ctx context.Context, size int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if ctx.Err() == nil { // restart has done so otherwise
		q.bytes -= size
	}
	q.stop()
	q.stop = nil
}

// run writes until ctx ends, or the log will never take anything again.
func (q *queue) run(ctx context.Context, log Log) error {
	for {
		mine, value, size := q.next(ctx)
		if value == nil {
			select {
			case <-q.kick:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		err := log.Produce(mine, value)
		over := mine.Err() != nil
		q.done(mine, size)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !over:
			return fmt.Errorf("write to the control log: %w", err)
		}
	}
}

// poke leaves a token, unless there is one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
