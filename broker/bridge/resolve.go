package bridge

import (
	"context"
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// Resolve says where a start begins; see [storage.Replica.Resolve]. A position
// above what is applied here is normal: somebody has read it on another node.
// Up to Kafka's end it is waited for, which takes a moment; beyond it the log
// was put back.
func (p *Partition) Resolve(s protocol.Start, f protocol.Filter, head uint64) (storage.Resolved, error) {
	at, err := p.Replica.Resolve(s, f, head)
	if err != nil || !at.Ahead {
		return at, err
	}
	end, err := p.end(s.Position.Offset)
	if err != nil {
		return storage.Resolved{}, err
	}
	if s.Position.Offset > end {
		_, last := p.Bounds()
		last = max(last, end)
		at = storage.Resolved{After: last, Gap: &storage.Gap{
			Reason: storage.GapRolledBack, Term: s.Position.Term, After: last, Through: s.Position.Offset, Next: last,
		}}
	}
	if err := p.await(at.After); err != nil {
		return storage.Resolved{}, err
	}
	at.Ahead = false
	return at, nil
}

// Purge is refused: it would empty the copy of this node alone.
func (p *Partition) Purge(context.Context) (uint64, error) {
	return 0, protocol.Errorf(protocol.CodeUnsupported,
		"the stream %s is in Kafka, where all nodes have it from: remove its records there, with kafka-delete-records.sh and the topic %s", p.stream.def.Stream, p.stream.def.Topic)
}

// Times of Resolve.
const (
	endTime   = 2 * time.Second // to ask Kafka for its end
	aheadTime = 3 * time.Second // to come to where others are
)

// end returns Kafka's end, which is asked for if the one that is known lies below
// an offset.
func (p *Partition) end(offset uint64) (uint64, error) {
	if known := p.status.known(); offset <= known {
		return known, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	bounds, err := p.stream.bounds(ctx)
	if err != nil || p.number >= len(bounds) {
		return 0, errNotHere()
	}
	p.status.reached(bounds[p.number].End)
	return uint64(bounds[p.number].End), nil
}

// await waits until an offset is applied.
func (p *Partition) await(offset uint64) error {
	deadline := time.NewTimer(aheadTime)
	defer deadline.Stop()
	p.status.ask(offset)
	for {
		head, moved := p.status.place()
		if head >= offset {
			return nil
		}
		select {
		case <-moved:
		case <-deadline.C:
			return errNotHere()
		}
	}
}
