package broker

import (
	"context"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

// Checkpoint writes a checkpoint of all consumers now.
func (b *Broker) Checkpoint(ctx context.Context) {
	b.consumers.checkpoint(ctx, b.consumers.control.log.(forgetful))
}

// Turns returns how many turns there are, how many are taken, and how many
// sessions wait for one.
func (b *Broker) Turns() (most, taken, waiting int) {
	t := b.turns
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.most, t.taken, len(t.waiting)
}

// Waiting returns the bytes that the session holds for its client.
func (s *Session) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.size()
}

// PushGap adds a gap to those that a consumer is to be told of.
func PushGap(gaps []*tidewirev1.Gap, gap *tidewirev1.Gap) []*tidewirev1.Gap {
	d := dispatcher{gaps: gaps}
	d.pushGap(gap)
	return d.gaps
}
