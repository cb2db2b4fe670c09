package tidewire

import "time"

// keeper extends deliveries again and again, from a third of the ack wait on, until
// they are settled or the program has them. Consumer.mu guards it.
//
// Each extension says for how long, so that it does not matter what the consumer
// is set to. Only the first one must come in time for an ack wait that the client
// may not know.
type keeper struct {
	wait, first time.Duration // how long, and when for the first time
	due         map[*Delivery]time.Time
	timer       *time.Timer
	at          time.Time // when it is due
}

func newKeeper(o *ConsumeOptions) keeper {
	k := keeper{wait: o.Settings.AckWait, first: o.Settings.AckWait / 3, due: make(map[*Delivery]time.Time)}
	if k.wait == 0 {
		k.wait, k.first = defaultAckWait, unknownWait
	}
	return k
}

// keep begins with a delivery.
func (k *Consumer) keep(d *Delivery) {
	if k.options.NoExtend {
		return
	}
	p := &k.keeper
	at := time.Now().Add(p.first)
	p.due[d] = at
	switch {
	case p.timer == nil:
		p.timer, p.at = time.AfterFunc(p.first, k.extendDue), at
	case at.Before(p.at):
		p.at = at
		p.timer.Reset(p.first)
	}
}

// forget ends it for a delivery.
func (p *keeper) forget(d *Delivery) {
	delete(p.due, d)
	if len(p.due) == 0 {
		p.stop()
	}
}

func (p *keeper) stop() {
	clear(p.due)
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}

// extendDue extends what is due, or nearly so: few frames for many.
func (k *Consumer) extendDue() {
	k.mu.Lock()
	p := &k.keeper
	now := time.Now()
	soon, next := now.Add(p.wait/12), now.Add(p.wait/3)
	first := next
	for d, at := range p.due {
		if at.After(soon) {
			if at.Before(first) {
				first = at
			}
			continue
		}
		d.extendLocked(p.wait)
		p.due[d] = next
	}
	if len(p.due) > 0 && p.timer != nil {
		p.at = first
		p.timer.Reset(first.Sub(now))
	}
	k.mu.Unlock()
	k.client.kick()
}
