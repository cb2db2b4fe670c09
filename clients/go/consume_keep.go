package tidewire

import "time"

// keeper extends deliveries again and again, from a third of the ack wait on, until
// they are settled or the program has them. Consumer.mu guards it.
//
// Each extension says for how long: if the consumer has been given a shorter ack
// wait since it was joined, only the first one comes too late.
type keeper struct {
	wait  time.Duration // the ack wait, as the broker has told it last
	due   map[*Delivery]time.Time
	timer *time.Timer
	at    time.Time // when it is due
}

func newKeeper() keeper { return keeper{wait: defaultAckWait, due: make(map[*Delivery]time.Time)} }

// tell takes the ack wait that a broker has told; 0 if it has not.
func (p *keeper) tell(ms uint64) {
	if ms > 0 {
		p.wait = time.Duration(ms) * time.Millisecond
	}
}

// keep begins with a delivery.
func (k *Consumer) keep(d *Delivery) {
	if k.options.NoExtend {
		return
	}
	p := &k.keeper
	first := p.wait / 3
	at := time.Now().Add(first)
	p.due[d] = at
	switch {
	case p.timer == nil:
		p.timer, p.at = time.AfterFunc(first, k.extendDue), at
	case at.Before(p.at):
		p.at = at
		p.timer.Reset(first)
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
