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
	p, created, err := b.consumers.open(ctx, who, name, &req.ConsumerRequest)
	if err != nil {
		return FetchResult{}, err
	}
	if settingsNow(p).Exclusive {
		return FetchResult{}, protocol.Errorf(protocol.CodeBadRequest, "the consumer %s is exclusive, and nobody stays its member over HTTP: subscribe to it over WebSocket", name)
	}
	r, err := p.fetch(ctx, req.Max, req.Wait)
	r.Created = created
	return r, err
}

func (d *dispatcher) fetch(ctx context.Context, most int, wait time.Duration) (r FetchResult, _ *protocol.Error) {
	m := &member{id: d.broker.consumers.nextMember(), window: most}
	work, generation, gaps := d.serve(ctx, m, most, wait)
	return FetchResult{Chunks: deliveries(work, generation), Gaps: gaps, Generation: generation}, nil
}

// serve makes m a member until it has something, or the wait for that is over. What
// it took stays in flight.
func (d *dispatcher) serve(ctx context.Context, m *member, most int, wait time.Duration) (work []handed, generation uint64, gaps []*tidewirev1.Gap) {
	d.hearAll()
	ready := make(chan struct{}, 1)
	m.brief, m.wake = true, func() { poke(ready) }
	d.join(m, nil)
	defer d.leave(m, false)

	over := time.NewTimer(wait)
	defer over.Stop()
	for {
		var again bool
		work, generation, again = d.take(m, most)
		if again && ctx.Err() == nil {
			continue
		}
		gaps = d.takeGaps(m) // those that take has met, too
		if len(work)+len(gaps) > 0 || wait <= 0 {
			return work, generation, gaps
		}
		select {
		case <-ready:
		case <-over.C:
			wait = 0
		case <-ctx.Done():
			return nil, generation, nil
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
