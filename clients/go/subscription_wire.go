package tidewire

import (
	"slices"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

// ask begins a subscription in the running session, if it is due.
func (c *Client) ask(s *Subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.askLocked(s)
}

func (c *Client) askLocked(s *Subscription) {
	if c.session == nil {
		return // the next session does it
	}
	if f := s.ask(c.last + 1); f != nil {
		c.last++
		c.session.subs[c.last] = s
		c.session.send(f)
	}
}

// unsubscribed takes the answer to an Unsubscribe.
func (c *Client) unsubscribed(s *session, number uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != s {
		return
	}
	sub := s.subs[number]
	delete(s.subs, number)
	if sub != nil && sub.takenBack() {
		c.askLocked(sub)
	}
}

// follow does what a subscription wants done about what it received.
func (s *session) follow(sub *Subscription, number uint32, v verdict) {
	if v.unsubscribe {
		s.send(&tidewirev1.Unsubscribe{Sub: number})
	}
	if v.give {
		s.client.giveBack(sub)
	}
	if !v.ask && !v.ended {
		return
	}
	c := s.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != s {
		return
	}
	delete(s.subs, number)
	switch {
	case v.ended:
		c.subs = slices.DeleteFunc(c.subs, func(other *Subscription) bool { return other == sub })
	case v.pause > 0:
		c.after(v.pause, s, func() { c.askLocked(sub) })
	default:
		c.askLocked(sub)
	}
}
