package broker

import (
	"context"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// FetchRequest asks for messages of a consumer over HTTP.
type FetchRequest struct {
	Max             int           // messages, at least 1
	Wait            time.Duration // for the first one
	ConsumerRequest               // used if the consumer is not there
}

// FetchResult is what a fetch brought.
type FetchResult struct {
	Chunks     []protocol.Chunk // with attempts
	Gaps       []*tidewirev1.Gap
	Generation uint64
	Created    bool
}

// Fetch takes messages of a consumer, which are in flight then until they are
// settled by [Broker.Settle] or their ack wait is over.
func (b *Broker) Fetch(ctx context.Context, who *Identity, name string, req *FetchRequest) (FetchResult, *protocol.Error) {
	d, created, err := b.consumers.open(ctx, who, name, &req.ConsumerRequest)
	if err != nil {
		return FetchResult{}, err
	}
	d.mu.Lock()
	exclusive := d.machine.Settings().Exclusive
	d.mu.Unlock()
	if exclusive {
		return FetchResult{}, protocol.Errorf(protocol.CodeBadRequest, "the consumer %s is exclusive, and nobody stays its member over HTTP: subscribe to it over WebSocket", name)
	}
	d.hearAll()
	ready := make(chan struct{}, 1)
	m := &member{id: b.consumers.nextMember(), window: req.Max, wake: func() { poke(ready) }}
	d.join(m, nil)
	defer d.leave(m, false) // what it took stays in flight

	wait := time.NewTimer(req.Wait)
	defer wait.Stop()
	for {
		r := FetchResult{Created: created}
		var work []handed
		var again bool
		work, r.Generation, again = d.take(m, req.Max)
		if again && ctx.Err() == nil {
			continue
		}
		r.Gaps = d.takeGaps() // those that take has met, too
		if r.Chunks = deliveries(work, r.Generation); len(work)+len(r.Gaps) > 0 || req.Wait <= 0 {
			return r, nil
		}
		select {
		case <-ready:
		case <-wait.C:
			req.Wait = 0
		case <-ctx.Done():
			return r, nil
		}
	}
}

// poke leaves a token in a channel that has room for one.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
