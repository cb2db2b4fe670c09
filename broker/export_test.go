package broker

import "context"

// Checkpoint writes a checkpoint of all consumers now.
func (b *Broker) Checkpoint(ctx context.Context) {
	b.consumers.checkpoint(ctx, b.consumers.control.log.(forgetful))
}
